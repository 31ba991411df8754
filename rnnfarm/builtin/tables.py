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

from rnnfarm.data.row_numbers import RowNumbers
from rnnfarm.data.tables import TableReader
from rnnfarm.data.times import holds_moments
from rnnfarm.errors import DataError, JobError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class CSV(TableReader):
    """CSV files with a line of column names at the top; an empty line is no row.

    delimiter: what separates cells; null_values: the cells that have no value.
    """

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    null_values: list[str] = ["", "NA", "NaN", "nan", "null"]

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
        nothing = {*NO_VALUE, *self.null_values}
        firsts: dict[str, str] = {}
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            rows = csv.reader(file, delimiter=self.delimiter)
            for row in islice(rows, 1, HEAD):
                for name, cell in zip(names, row, strict=False):
                    if cell.strip() not in nothing:
                        firsts.setdefault(name, cell)
                if len(firsts) == len(names):
                    break
        return [name for name in names if name in firsts and _is_figure(firsts[name])]

    def _cells(
        self, path: Path, names: list[str], keys: list[str], time: str | None
    ) -> Iterator[pa.RecordBatch]:
        types = {name: pa.float32() for name in names}
        types |= {name: pa.string() for name in (*keys, time) if name is not None}
        options: dict[str, Any] = {
            "read_options": pacsv.ReadOptions(use_threads=False),
            "parse_options": pacsv.ParseOptions(delimiter=self.delimiter),
            "convert_options": pacsv.ConvertOptions(
                column_types=types,
                include_columns=list(types),
                null_values=self.null_values,
                strings_can_be_null=True,
            ),
        }
        try:
            with pacsv.open_csv(path, **options) as reader:
                for batch in reader:
                    if not self._is_whole(batch, names):
                        raise self._bad_cell(path, names)
                    yield batch
        except (pa.ArrowInvalid, OSError) as error:
            raise self._bad_cell(path, names, error) from None

    def _is_whole(self, batch: pa.RecordBatch, names: list[str]) -> bool:
        """Whether all figures are finite, and there is a value wherever there must be one."""
        needed = names if self.missing == "error" else []
        return not any(batch.column(name).null_count for name in needed) and all(
            pc.all(pc.is_finite(batch.column(name)), min_count=0).as_py() for name in names
        )

    def _bad_cell(self, path: Path, names: list[str], error: Exception | None = None) -> DataError:
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
                    if name in names and (what := self._wrong(cell)):
                        return DataError(f"{at}: column '{name}' {what}")
        return DataError(f"{path}: cannot be read as CSV ({error}); mend the file")

    def _wrong(self, cell: str) -> str | None:
        """What is wrong with a cell that is to be a figure, and the mend."""
        if cell in self.null_values and self.missing == "mask":
            return None
        if cell not in self.null_values and _number(cell) is not None:
            return None
        what = "is no finite number" if cell.strip() else "has no value"
        if self.missing == "error":
            mend = (
                "fill or drop the line, leave the column out of the settings, or set missing ="
                " 'mask' where values may be missing"
            )
        else:
            mend = "mend it, or name it in the setting 'null_values' where it stands for no value"
        return f"{what} ({cell!r}); {mend}"

    def _at(self, path: Path, row: int) -> str:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            rows = csv.reader(file, delimiter=self.delimiter)
            next(islice(filter(None, rows), row + 1, None), None)  # after the line of names
            return f"line {rows.line_num}"

    def _numbers(self, path: Path, rows: int) -> RowNumbers:
        if _lines(path) == 1 + rows:  # no empty lines, and no line ends inside cells
            return RowNumbers(2)
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            begins = _begins(csv.reader(file, delimiter=self.delimiter))
            next(begins, None)
            return RowNumbers(2, islice(begins, rows))


def _begins(rows: Any) -> Iterator[int]:
    """The lines at which the rows of a CSV reader begin, without empty ones."""
    end = 0
    for cells in rows:
        if cells:
            yield end + 1
        end = rows.line_num


def _lines(path: Path) -> int:
    """The number of lines of a file."""
    count, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")


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
    """Parquet files; null and NaN are cells without a value."""

    def _names(self, path: Path) -> list[str]:
        return list(self._open(path).schema_arrow.names)

    def _numeric(self, path: Path) -> list[str]:
        return [field.name for field in self._open(path).schema_arrow if _is_number(field.type)]

    def _open(self, path: Path) -> papq.ParquetFile:
        try:
            return papq.ParquetFile(path, memory_map=True)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: cannot be read as Parquet ({error}); mend it") from None

    def _cells(
        self, path: Path, names: list[str], keys: list[str], time: str | None
    ) -> Iterator[pa.RecordBatch]:
        file = self._open(path)
        for name in names:
            kind = file.schema_arrow.field(name).type
            if not _is_number(kind):
                raise JobError(
                    f"{path}: column '{name}' holds {kind}, not numbers; leave it out of the"
                    " settings"
                )
        if time is not None and not holds_moments(kind := file.schema_arrow.field(time).type):
            raise JobError(
                f"{path}: column '{time}' holds {kind}, not dates or times; name another in 'time'"
            )
        others = list(dict.fromkeys(name for name in (*keys, time) if name is not None))
        row = 0
        try:
            for batch in file.iter_batches(columns=[*names, *others]):
                columns = [self._figures_of(path, name, batch.column(name), row) for name in names]
                columns += [batch.column(name) for name in others]
                yield pa.RecordBatch.from_arrays(columns, names=[*names, *others])
                row += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: cannot be read as Parquet ({error}); mend it") from None

    def _figures_of(self, path: Path, name: str, column: pa.Array, row: int) -> pa.Array:
        """A column as float32; null and NaN are both cells without a value."""
        figures = column.cast(pa.float32(), safe=False)
        good = pc.fill_null(pc.is_finite(figures), False)
        wrong = (
            "has no value, or none that is finite; fill or drop the row, leave the column out of"
            " the settings, or set missing = 'mask' where values may be missing"
        )
        if self.missing == "mask":
            good = pc.or_(good, pc.is_null(figures, nan_is_null=True))
            wrong = "holds an infinite value; mend the row, or leave the column out of the settings"
        _refuse(path, name, good, row, wrong)
        return figures

    def _at(self, path: Path, row: int) -> str:
        return f"row {row + 1}"

    def _numbers(self, path: Path, rows: int) -> RowNumbers:
        return RowNumbers(1)


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _refuse(path: Path, name: str, good: pa.Array, row: int, wrong: str) -> None:
    found = good.to_numpy(zero_copy_only=False)
    if not found.all():
        raise DataError(f"{path}, row {row + int(np.argmin(found)) + 1}: column '{name}' {wrong}")
