"""What the cells of a table say: the one rule for what is a number, a truth value, or nothing.

A number is written in digits, with a sign, a decimal mark and an exponent where it has them; blanks
around a cell are no part of it. What other programs write for infinity or for no number is none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import numpy.typing as npt

#: What stands for no value in files of many programs; only those in 'null_values' are read so.
SPELLINGS_OF_NOTHING = pa.array(
    ["", "-", "--", "?", ".", "#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "-nan", "1.#ind",
     "1.#qnan", "<na>", "n/a", "na", "nan", "none", "null", "missing"]
)  # fmt: skip
NOT_FINITE = pa.array(["inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"])
TRUE, FALSE = pa.array(["true", "yes"]), pa.array(["false", "no"])
LARGEST = float(np.finfo(np.float32).max)
BLANKS = " \t\r\n\u00a0"


@dataclass(frozen=True)
class NumberFormat:
    """How numbers are written: the decimal mark, and what may stand between thousands."""

    decimal: str = "."
    thousands: str = ""

    @cached_property
    def body(self) -> str:
        """The regular expression of a number. One with thousands begins with no 0, and has no
        exponent."""
        mark = re.escape(self.decimal)
        plain = rf"(?:\d+(?:{mark}\d*)?|{mark}\d+)(?:[eE][+-]?\d+)?"
        if not self.thousands:
            return f"[+-]?{plain}"
        grouped = rf"[1-9]\d{{0,2}}(?:{self._between}\d{{3}})+(?:{mark}\d*)?"
        return rf"[+-]?(?:{grouped}|{plain})"

    @cached_property
    def _between(self) -> str:
        return "[ \u00a0\u202f]" if self.thousands == " " else re.escape(self.thousands)

    def are_numbers(self, cells: pa.Array) -> pa.Array:
        """Which cells are numbers."""
        return pc.match_substring_regex(cells, f"^{self.body}$")

    def plain(self, cells: pa.Array) -> pa.Array:
        """The cells as a program writes numbers."""
        if self.thousands:
            cells = pc.replace_substring_regex(cells, self._between, "")
        if self.decimal != ".":
            cells = pc.replace_substring(cells, self.decimal, ".")
        return cells

    def __str__(self) -> str:
        marks = [f"decimal = '{self.decimal}'"] if self.decimal != "." else []
        return " and ".join([*marks, *([f"thousands = '{self.thousands}'"] * bool(self.thousands))])


PLAIN = NumberFormat()
POINTS_GROUP = NumberFormat(",", ".")

#: What numbers may look like where no setting says it, in the order in which they are tried.
FORMATS = [
    PLAIN, NumberFormat(","), NumberFormat(".", ","), POINTS_GROUP,
    NumberFormat(".", " "), NumberFormat(",", " "), NumberFormat(".", "'"), NumberFormat(",", "'"),
]  # fmt: skip


class Numbers(NamedTuple):
    """Cells as numbers: `values` (rows,), null where a cell has none; `wrong`: the cells that have
    one and are no finite number, or None where there are none."""

    values: pa.Array
    wrong: npt.NDArray[np.bool_] | None


def stripped(cells: pa.Array, nothing: pa.Array) -> pa.Array:
    """Texts without the blanks around them, null where they stand for `nothing`."""
    cells = pc.utf8_trim(cells, BLANKS)
    empty = pc.is_in(cells, value_set=nothing)
    return pc.if_else(empty, pa.scalar(None, cells.type), cells)


def texts_as_numbers(
    cells: pa.Array, form: NumberFormat, kind: pa.DataType, unit: str = ""
) -> Numbers:
    """The numbers of stripped texts, each with the `unit` after it that all of them have."""
    if unit:
        bare = pc.utf8_rtrim(pc.utf8_slice_codeunits(cells, 0, -len(unit)), BLANKS)
        cells = pc.if_else(pc.ends_with(cells, unit), bare, "without the unit")
    if form == PLAIN:
        try:
            return finite(cells.cast(kind))
        except pa.ArrowInvalid:
            pass
    right = form.are_numbers(cells)
    numbers = form.plain(pc.if_else(right, cells, pa.scalar(None, cells.type))).cast(kind)
    found = finite(numbers)
    wrong = ~pc.fill_null(right, True).to_numpy(zero_copy_only=False)
    if found.wrong is not None:
        wrong |= found.wrong
    return Numbers(numbers, wrong if wrong.any() else None)


def finite(numbers: pa.Array) -> Numbers:
    """Numbers, of which those that are not finite are wrong."""
    wrong = ~pc.fill_null(pc.is_finite(numbers), True).to_numpy(zero_copy_only=False)
    return Numbers(numbers, wrong if wrong.any() else None)


def truths(cells: pa.Array) -> Numbers:
    """Truth values as float32 0 and 1: of texts, true, false, yes and no in any case."""
    if pa.types.is_boolean(cells.type):
        return Numbers(cells.cast(pa.float32()), None)
    lower = pc.utf8_lower(cells)
    true, false = pc.is_in(lower, value_set=TRUE), pc.is_in(lower, value_set=FALSE)
    known = pc.or_(true, false)
    numbers = pc.if_else(known, true.cast(pa.float32()), pa.scalar(None, pa.float32()))
    wrong = pc.and_(cells.is_valid(), pc.invert(known)).to_numpy(zero_copy_only=False)
    return Numbers(numbers, wrong if wrong.any() else None)


def unit_of(cells: pa.Array, form: NumberFormat) -> str | None:
    """What comes after the number in each of some texts; None where they are not all alike."""
    found = pc.extract_regex(cells, rf"^{form.body}\s*(?P<unit>[^\d\s.,:/+-][^\d]*)$")
    units: list[Any] = pc.unique(pc.struct_field(found, "unit")).to_pylist()
    return units[0] if len(units) == 1 else None
