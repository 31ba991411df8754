"""The readers of CSV and Parquet files."""

from __future__ import annotations

import csv
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as papq
from pydantic import Field

from rnnfarm.data.tables import TableReader
from rnnfarm.errors import DataError, JobError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class CSV(TableReader):
    """CSV files with a line of column names at the top.

    delimiter: what separates cells.
    """

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","

    def _names(self, path: Path) -> list[str]:
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                names = next(csv.reader(file, delimiter=self.delimiter), [])
        except UnicodeDecodeError:
            raise DataError(
                f"{path}: is not UTF-8 text; unpack it (gunzip), or convert it to UTF-8 (iconv)"
            ) from None
        if not names or all(_number(name) is not None for name in names):
            raise DataError(
                f"{path}, line 1: the names of the columns belong here, not figures; add them"
            )
        return names

    def _numeric(self, path: Path) -> list[str]:
        """The columns whose first value is a number: empty cells at the top say nothing."""
        names = self._names(path)
        firsts: dict[str, str] = {}
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            rows = csv.reader(file, delimiter=self.delimiter)
            for row in islice(rows, 1, HEAD):
                for name, cell in zip(names, row, strict=False):
                    if cell.strip() not in NO_VALUE:
                        firsts.setdefault(name, cell)
                if len(firsts) == len(names):
                    break
        return [name for name in names if name in firsts and _is_figure(firsts[name])]

    def _batches(self, path: Path, names: list[str], group: str | None) -> Iterator[pa.RecordBatch]:
        types = {name: pa.float32() for name in names}
        if group is not None:
            types[group] = pa.string()
        options: dict[str, Any] = {
            "read_options": pacsv.ReadOptions(use_threads=False),
            "parse_options": pacsv.ParseOptions(delimiter=self.delimiter),
            "convert_options": pacsv.ConvertOptions(
                column_types=types, include_columns=list(types), strings_can_be_null=True
            ),
        }
        try:
            with pacsv.open_csv(path, **options) as reader:
                for batch in reader:
                    if any(column.null_count for column in batch.columns) or not all(
                        np.isfinite(batch.column(name).to_numpy()).all() for name in names
                    ):
                        raise self._bad_cell(path, names, group)
                    yield batch
        except (pa.ArrowInvalid, OSError) as error:
            raise self._bad_cell(path, names, group, error) from None

    def _bad_cell(
        self, path: Path, names: list[str], group: str | None, error: Exception | None = None
    ) -> DataError:
        """Find the first wrong cell again, by its line, which pyarrow does not know."""
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            rows = csv.reader(file, delimiter=self.delimiter)
            header = next(rows, [])
            for row in rows:
                at = f"{path}, line {rows.line_num}"
                if row and len(row) != len(header):
                    return DataError(
                        f"{at}: {len(row)} cells where the first line names {len(header)} columns;"
                        " mend the line"
                    )
                for name, cell in zip(header, row, strict=False):
                    if name == group and cell in NO_VALUE:
                        return DataError(f"{at}: column '{name}' has no value; mend the line")
                    if name in names and _number(cell) is None:
                        what = "is no finite number" if cell.strip() else "has no value"
                        return DataError(
                            f"{at}: column '{name}' {what} ({cell!r}); fill or drop the line, or"
                            " leave the column out of the settings"
                        )
        return DataError(f"{path}: cannot be read as CSV ({error}); mend the file")


LARGEST = float(np.finfo(np.float32).max)
HEAD = 1000  # lines of a CSV file that are looked at for what its columns hold
NO_VALUE = set(pacsv.ConvertOptions().null_values)


def _number(cell: str) -> float | None:
    return float(cell) if _is_figure(cell) and abs(float(cell)) <= LARGEST else None


def _is_figure(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


class Parquet(TableReader):
    """Parquet files."""

    def _names(self, path: Path) -> list[str]:
        return list(self._open(path).schema_arrow.names)

    def _numeric(self, path: Path) -> list[str]:
        return [field.name for field in self._open(path).schema_arrow if _is_number(field.type)]

    def _open(self, path: Path) -> papq.ParquetFile:
        try:
            return papq.ParquetFile(path, memory_map=True)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: cannot be read as Parquet ({error}); mend it") from None

    def _batches(self, path: Path, names: list[str], group: str | None) -> Iterator[pa.RecordBatch]:
        file = self._open(path)
        for name in names:
            kind = file.schema_arrow.field(name).type
            if not _is_number(kind):
                raise JobError(
                    f"{path}: column '{name}' holds {kind}, not numbers; leave it out of the"
                    " settings"
                )
        wanted = names if group is None else [*names, group]
        row = 0
        try:
            for batch in file.iter_batches(columns=list(dict.fromkeys(wanted))):
                columns = [_figures(path, name, batch.column(name), row) for name in names]
                if group is not None:
                    _refuse(path, group, batch.column(group).is_valid(), row)
                    columns.append(batch.column(group))
                yield pa.RecordBatch.from_arrays(columns, names=wanted)
                row += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: cannot be read as Parquet ({error}); mend it") from None


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _figures(path: Path, name: str, column: pa.Array, row: int) -> pa.Array:
    figures = column.cast(pa.float32(), safe=False)
    _refuse(path, name, pc.fill_null(pc.is_finite(figures), False), row)
    return figures


def _refuse(path: Path, name: str, good: pa.Array, row: int) -> None:
    found = good.to_numpy(zero_copy_only=False)
    if not found.all():
        raise DataError(
            f"{path}, row {row + int(np.argmin(found)) + 1}: column '{name}' has no value, or none"
            " that is finite; fill or drop the row, or leave the column out of the settings"
        )
