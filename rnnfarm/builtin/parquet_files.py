"""The reader of Parquet files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as papq

from rnnfarm.data.cells import BLANKS
from rnnfarm.data.row_numbers import RowNumbers
from rnnfarm.data.survey import is_category, is_number
from rnnfarm.data.tables import TableReader
from rnnfarm.data.times import is_stamp, is_text
from rnnfarm.errors import DataError, JobError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rnnfarm.data.column_rules import ColumnRule

_WANTED = {
    "number": ("numbers", is_number),
    "truth": ("truth values", pa.types.is_boolean),
    "category": ("texts, whole numbers, dates or truth values", is_category),
}


class Parquet(TableReader):
    """Parquet files; null and NaN are cells without a value."""

    def _names(self, path: Path) -> list[str]:
        return list(self._open(path).schema_arrow.names)

    def _kinds(self, path: Path) -> dict[str, pa.DataType]:
        """The type of each column, of a dictionary that of its values."""
        return {
            field.name: field.type.value_type if pa.types.is_dictionary(field.type) else field.type
            for field in self._open(path).schema_arrow
        }

    def _open(self, path: Path) -> papq.ParquetFile:
        try:
            return papq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, error) from None

    def _check_types(self, path: Path, rules: Mapping[str, ColumnRule]) -> None:
        kinds = self._kinds(path)
        for name, rule in rules.items():
            what, fits = _WANTED[rule.kind]
            if name in kinds and not fits(kinds[name]):
                raise JobError(
                    f"{path}: column '{name}' holds {kinds[name]}, not {what}; leave it out of the"
                    " settings, or give the type that the data were built from"
                )

    def _check_kinds(self, path: Path) -> None:
        kinds = self._kinds(path)
        for name in self._named_columns()["group"]:
            if not is_category(kinds[name]):
                raise JobError(
                    f"{path}: column '{name}' holds {kinds[name]}, and what tells sequences apart"
                    " are texts, whole numbers, dates or truth values; name another column"
                )
        for name in self._times:
            kind = kinds[name]
            clock = len(self._times) == 2 and pa.types.is_time(kind)
            if not (is_stamp(kind) or is_text(kind) or is_number(kind) or clock):
                raise JobError(
                    f"{path}: column '{name}' holds {kind}, not dates or times; name another in"
                    " 'time'"
                )

    def _raw(self, path: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
        try:
            file = self._open(path)
            for number in range(file.num_row_groups):  # what is read of all would stay in memory
                for batch in file.iter_batches(columns=names, row_groups=[number]):
                    columns = [_bare(batch.column(name)) for name in names]
                    yield pa.RecordBatch.from_arrays(columns, names=names)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, error) from None

    def _at(self, path: Path, row: int) -> str:
        return f"row {row + 1}"

    def _numbers(self, path: Path, rows: int) -> RowNumbers:
        return RowNumbers(1)


def _bare(column: pa.Array) -> pa.Array:
    """A column without the encoding of a dictionary, and without blanks around texts."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return pc.utf8_trim(column, BLANKS) if is_text(column.type) else column


def _unreadable(path: Path, error: Exception) -> DataError:
    said = " ".join(str(error).split())  # Arrow's own sentences have several lines
    return DataError(f"{path}: cannot be read as Parquet ({printable(said)}); fix the file")
