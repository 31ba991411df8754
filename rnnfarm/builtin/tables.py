"""The readers of tables: CSV and Parquet files."""

from rnnfarm.builtin.csv_files import CSV
from rnnfarm.builtin.parquet_files import Parquet

__all__ = ["CSV", "Parquet"]
