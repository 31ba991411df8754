"""The reader of CSV files."""

from __future__ import annotations

import csv
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pyarrow as pa
import pyarrow.csv as pacsv
from pydantic import Field

from rnnfarm.data.cells import FORMATS, NumberFormat, stripped
from rnnfarm.data.csv_dialect import Dialect, check_encoding, not_text, open_text, read_dialect
from rnnfarm.data.row_numbers import RowNumbers
from rnnfarm.data.tables import TableReader
from rnnfarm.errors import DataError, JobError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Character = Annotated[str, Field(min_length=1, max_length=1, pattern=r"^[^\n\r\x80-\U0010ffff]$")]


class CSV(TableReader):
    """CSV files with a line of column names at the top; an empty line is no row, and blanks around
    a cell are no part of it.

    delimiter: what separates cells; by default a comma, a semicolon, a tab or a bar, as the first
    lines show.

    decimal: the decimal mark of numbers; by default found out from all cells.

    thousands: what stands between thousands in numbers; by default found out from all cells.

    null_values: the cells that have no value.

    encoding: how the text is encoded, as "utf-8", "utf-16" or "cp1252".
    """

    delimiter: Character | None = None
    decimal: Literal[".", ","] | None = None
    thousands: Character | None = None
    null_values: list[str] = ["", "NA", "NaN", "nan", "null"]
    encoding: str = "utf-8"

    _texts_only = True
    _dialects: dict[Path, Dialect]

    def learned(self) -> dict[str, Any]:
        """Return what cells are separated by too."""
        delimiters = [self._dialect(path).delimiter for path in self._files]
        return super().learned() | {"delimiter": delimiters[0]}

    def notes(self) -> list[str]:
        """Return what separates cells too, where that was found out."""
        if self._reading is not None or self._recalls:
            return super().notes()
        found = {self._dialect(path).delimiter for path in self._files} - {self.delimiter, ","}
        return super().notes() + [f"cells are separated by {mark!r}" for mark in sorted(found)]

    def _dialect(self, path: Path) -> Dialect:
        known = self.__dict__.setdefault("_dialects", {})
        if path not in known:
            check_encoding(self.encoding)
            known[path] = read_dialect(path, self.encoding, self.delimiter)
            self._check_delimiter(path, known[path])
        found: Dialect = known[path]
        return found

    def _check_delimiter(self, path: Path, dialect: Dialect) -> None:
        """JobError where another delimiter than the one that is set cuts a file into columns."""
        if self.delimiter is None or len(dialect.names) > 1:
            return
        other = read_dialect(path, self.encoding, None)
        if len(other.names) > 1:
            raise JobError(
                f"{path}: line {other.lines} has no {self.delimiter!r}; set delimiter ="
                f" {other.delimiter!r}, or leave it out"
            )

    def _formats(self) -> list[NumberFormat]:
        if self.decimal is None and self.thousands is None:
            return FORMATS
        thousands = self.thousands or ""
        return [NumberFormat(self.decimal or ("," if thousands == "." else "."), thousands)]

    @property
    def _comma_separated(self) -> bool:
        return all(self._dialect(path).delimiter == "," for path in self._files)

    def _names(self, path: Path) -> list[str]:
        return self._dialect(path).names

    def _raw(self, path: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
        dialect = self._dialect(path)
        places = [str(i) for i in range(len(dialect.names))]  # names may be empty, or there twice
        first = {name: i for i, name in reversed(list(enumerate(dialect.names)))}
        picked = [str(first[name]) for name in names]
        nothing = pa.array(self.null_values, pa.string())
        options: dict[str, Any] = {
            "read_options": pacsv.ReadOptions(
                use_threads=False,
                encoding=self.encoding,
                skip_rows=dialect.lines,
                column_names=places,
            ),
            "parse_options": pacsv.ParseOptions(
                delimiter=dialect.delimiter, newlines_in_values=True
            ),
            "convert_options": pacsv.ConvertOptions(
                column_types=dict.fromkeys(places, pa.string()),
                include_columns=picked,
                null_values=[],
            ),
        }
        try:
            with pacsv.open_csv(path, **options) as reader:
                for batch in reader:
                    columns = [stripped(column, nothing) for column in batch.columns]
                    yield pa.RecordBatch.from_arrays(columns, names=names)
        except (pa.ArrowInvalid, OSError, UnicodeError) as error:
            if str(error).startswith("Empty CSV file"):
                return
            raise self._unreadable(path, error) from None

    def _unreadable(self, path: Path, error: Exception) -> DataError:
        """Find the first wrong line again, which pyarrow does not know."""
        dialect = self._dialect(path)
        with open_text(path, self.encoding) as file:
            begins = _begins(csv.reader(file, delimiter=dialect.delimiter))
            for line, cells in begins:
                if line > dialect.lines and len(cells) != len(dialect.names):
                    return DataError(
                        f"{path}, line {line}: {len(cells)} cells where line {dialect.lines} names"
                        f" {len(dialect.names)} columns; {_mend(dialect, cells)}"
                    )
        if isinstance(error, UnicodeError) or "UTF8" in str(error):
            return not_text(path, self.encoding)
        return DataError(f"{path}: cannot be read as CSV ({error}); fix the file")

    def _at(self, path: Path, row: int) -> str:
        return f"line {self._numbers(path, row + 1)[row]}"

    def _numbers(self, path: Path, rows: int) -> RowNumbers:
        dialect = self._dialect(path)
        first = dialect.lines + 1
        if _lines(path) == dialect.lines + rows:  # no empty lines, no line ends inside cells
            return RowNumbers(first)
        with open_text(path, self.encoding) as file:
            begins = _begins(csv.reader(file, delimiter=dialect.delimiter))
            numbers = (line for line, _ in begins if line > dialect.lines)
            return RowNumbers(first, islice(numbers, rows))


def _mend(dialect: Dialect, cells: list[str]) -> str:
    if len(dialect.names) == 1 and dialect.delimiter == ",":
        return "put quotation marks around cells with a comma, or set 'delimiter' and 'decimal'"
    if len(cells) > len(dialect.names) and not any(
        cell.strip() for cell in cells[len(dialect.names) :]
    ):
        return "drop the separators at the ends of lines, or put one after the names too"
    return "fix the line, or put quotation marks around cells that hold the separator"


def _begins(rows: Any) -> Iterator[tuple[int, list[str]]]:
    """The line at which each row of a CSV reader begins, and its cells; empty ones are no rows."""
    end = 0
    for cells in rows:
        if cells:
            yield end + 1, cells
        end = rows.line_num


def _lines(path: Path) -> int:
    """The number of lines of a file."""
    count, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")
