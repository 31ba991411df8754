"""How a CSV file is laid out: its encoding, what separates its cells, and its line of names."""

from __future__ import annotations

import codecs
import csv
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TextIO

from rnnfarm.data.cells import BLANKS, FORMATS, NOT_FINITE, SPELLINGS_OF_NOTHING
from rnnfarm.data.lines import LONGEST_LINE
from rnnfarm.data.survey import looks_like_dates
from rnnfarm.errors import DataError, JobError, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DELIMITERS = (",", ";", "\t", "|")
_SAMPLE = 20  # rows after the line of names that tell what separates cells

#: The line of names of a wide table is one cell for the delimiters that it does not have.
csv.field_size_limit(LONGEST_LINE)

#: What files that are no text begin with, and what to do with them.
_OTHERS = {
    b"PK\x03\x04": "is an Excel workbook or a zip file; save it as CSV, or unpack it (unzip)",
    b"\xd0\xcf\x11\xe0": "is an Excel workbook; save it as CSV",
    b"\x1f\x8b": "is compressed; unpack it (gunzip)",
    b"PAR1": "is a Parquet file; read it with the reader 'parquet'",
    b"\x28\xb5\x2f\xfd": "is compressed; unpack it (unzstd)",
}
_MARKS = {
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True)
class Dialect:
    """How a file is laid out.

    Attributes:
        delimiter: what separates cells.
        lines: the lines up to the line of names, and with it.
        names: the columns; empty where a column has no name.
    """

    delimiter: str
    lines: int
    names: list[str]


def check_encoding(encoding: str) -> None:
    """JobError for an encoding that is not known."""
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise JobError(
            f"setting 'encoding': '{encoding}' is not known; take utf-8, utf-16, or cp1252 (Excel"
            " in Western Europe and America)"
        ) from None


@contextmanager
def open_text(path: Path, encoding: str) -> Iterator[TextIO]:
    """Open a file for the module `csv`; a byte order mark is skipped."""
    name = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    with path.open(newline="", encoding=name, errors="strict") as file:
        try:
            yield file
        except UnicodeError:
            raise not_text(path, encoding) from None
        except csv.Error as error:
            raise DataError(f"{path}: cannot be read as CSV ({error}); fix the file") from None


def read_dialect(path: Path, encoding: str, delimiter: str | None) -> Dialect:
    """Return how a file is laid out; `delimiter`: None where the file is to tell.

    DataError for what is no text of that encoding, or has no line of names.
    """
    with path.open("rb") as file:
        begin = file.read(8)
    for mark, what in _OTHERS.items():
        if begin.startswith(mark):
            raise DataError(f"{path}: {what}")
    for mark, name in _MARKS.items():
        if begin.startswith(mark) and not encoding.lower().startswith("utf-16"):
            raise DataError(f"{path}: is UTF-16 text; set encoding = '{name}', or save it as UTF-8")
    if delimiter is None:
        delimiter = _find_delimiter(path, encoding)
    with open_text(path, encoding) as text:
        rows = csv.reader(text, delimiter=delimiter)
        for row in rows:
            if any(cell.strip(BLANKS) for cell in row):
                names = [cell.strip(BLANKS) for cell in row]
                _check_names(path, rows.line_num, names)
                return Dialect(delimiter, rows.line_num, names)
    raise DataError(f"{path}: has no line of column names; give a file that holds data")


def _find_delimiter(path: Path, encoding: str) -> str:
    """The delimiter that cuts the first rows into equally many cells, of which there are two or
    more; where none does, the one that the line of names has most of."""
    counts: dict[str, list[int]] = {}
    for delimiter in DELIMITERS:
        with open_text(path, encoding) as text:
            rows = (row for row in csv.reader(text, delimiter=delimiter) if row)
            filled = (row for row in rows if any(cell.strip(BLANKS) for cell in row))
            counts[delimiter] = [len(row) for row in islice(filled, 1 + _SAMPLE)]
    for delimiter, sizes in counts.items():
        if sizes and sizes[0] > 1 and len(set(sizes)) == 1:
            return delimiter
    return max(DELIMITERS, key=lambda delimiter: (counts[delimiter] or [0])[0])


def _check_names(path: Path, line: int, names: list[str]) -> None:
    """DataError where the line of names seems to be one of values."""
    given = [name for name in names if name]
    if all(_is_value(name) for name in given):
        raise DataError(
            f"{path}, line {line}: the names of the columns belong here, not values"
            f" ({', '.join(map(shortened, given[:3]))}); add a line of names above it"
        )


def _is_value(cell: str) -> bool:
    """Whether a cell holds a number, a date or the like, which no column is called."""
    import pyarrow as pa

    column = pa.array([cell])
    lower = cell.lower()
    return (
        any(form.are_numbers(column)[0].as_py() for form in FORMATS)
        or looks_like_dates(column)
        or lower in NOT_FINITE.to_pylist()
        or lower in SPELLINGS_OF_NOTHING.to_pylist()
    )


def not_text(path: Path, encoding: str) -> DataError:
    """Return the error that names the first line that is no text of that encoding."""
    decoder = codecs.lookup(encoding).incrementaldecoder()
    number = 1
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):  # noqa: B007
            try:
                decoder.decode(line)
            except UnicodeError:
                break
    tip = "set encoding = 'cp1252' where it is from Excel, or convert it to UTF-8 (iconv)"
    if encoding.lower() not in ("utf-8", "utf8"):
        tip = "name its encoding in 'encoding'"
    name = "UTF-8" if codecs.lookup(encoding).name == "utf-8" else encoding
    return DataError(f"{path}, line {number}: is not {name} text; {tip}")
