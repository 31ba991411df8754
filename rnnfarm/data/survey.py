"""What the columns of a table hold, found out from all of their cells in constant memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rnnfarm.data.cells import (
    FALSE,
    NOT_FINITE,
    PLAIN,
    POINTS_GROUP,
    SPELLINGS_OF_NOTHING,
    TRUE,
    NumberFormat,
    unit_of,
)
from rnnfarm.data.time_formats import DATES, ISO, read_texts
from rnnfarm.data.times import is_stamp, is_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

EXACT = 1 << 24  # float32 holds whole numbers up to here
_TRUTHS = pa.concat_arrays([TRUE, FALSE])


@dataclass
class NumberSurvey:
    """What the numbers of a column are like.

    Attributes:
        low, high: the smallest and the largest.
        whole: whether all are whole.
        counts: whether they count the rows of each file, from 0 or from 1.
        rises: whether none is less than the one before.
        rounded: whole numbers that float32 does not hold.
        changes, lost: changes from one row to the next, and those that float32 does not show.
    """

    low: float = np.inf
    high: float = -np.inf
    whole: bool = True
    counts: bool = True
    rises: bool = True
    rounded: int = 0
    changes: int = 0
    lost: int = 0
    _last: npt.NDArray[Any] = field(default_factory=lambda: np.empty(0))
    _start: float | None = None

    def see(self, numbers: npt.NDArray[np.float64], row: int) -> None:
        """Look at numbers, NaN where there is none, whose first one is in that row of its file."""
        if self._start is None and len(numbers):
            self._start = float(numbers[0])
        start = self._start if self._start in (0, 1) else np.nan
        places = np.arange(row, row + len(numbers)) + start
        self.counts = self.counts and bool(np.all(numbers == places))
        there = numbers[np.isfinite(numbers)]
        if not len(there):
            return
        self.low, self.high = min(self.low, there.min()), max(self.high, there.max())
        whole = there == np.floor(there)
        self.whole = self.whole and bool(whole.all())
        with np.errstate(over="ignore"):
            held = there.astype(np.float32)
        self.rounded += int(np.sum(whole & (held != there)))
        both = np.append(self._last, there)
        steps = np.diff(both)
        self.rises = self.rises and bool((steps >= 0).all())
        with np.errstate(over="ignore", invalid="ignore"):
            shown = np.diff(both.astype(np.float32))
        self.changes += int(np.count_nonzero(steps))
        self.lost += int(np.sum((steps != 0) & (shown == 0)))
        self._last = there[-1:]


class ColumnSurvey:
    """What one column holds: how many of its cells are numbers, truth values, texts or nothing.

    Attributes:
        kind: its type, of a dictionary that of its values.
        present: how many cells have a value; nothing: how many of them are a usual spelling of no
            value; truths: how many are true or false.
        stats: what its numbers are like.
        odd: the first cell that is no number in the first format, and its row.
        pointed: the first cell that is one, and has a point.
        unit: what comes after the number in all cells, empty or None where that is not so.
        dates: whether it seems to hold dates or times.
        texts: the different cells, up to one more than asked for.
    """

    def __init__(self, name: str, formats: Sequence[NumberFormat], distinct: int = 0) -> None:
        """`formats`: what numbers may look like; `distinct`: how many texts are told apart."""
        self.name, self.kind = name, pa.null()
        self.present = self.nothing = self.truths = 0
        self.stats = NumberSurvey()
        self.odd: tuple[str, int] | None = None
        self.pointed: str | None = None
        self.unit: str | None = ""
        self.dates = True
        self.texts: set[str] = set()
        self._distinct = distinct
        self._first = formats[0]
        self._plain = self._dotted = 0
        self._grouped = True  # whether a point is always before three digits
        self._others = dict.fromkeys(formats[1:], 0)

    def numbers(self, form: NumberFormat) -> int:
        """Return how many cells are numbers where they are written in that format."""
        if form == self._first or not is_text(self.kind):
            return self._plain
        points = form.decimal == "." or (form.thousands == "." and self._grouped)
        return self._plain - self._dotted * (not points) + self._others.get(form, 0)

    @property
    def partly_pointed(self) -> bool:
        """Whether some of its numbers have a point, and others none."""
        return 0 < self._dotted < self._plain

    def see(self, cells: pa.Array, row: int) -> None:
        """Look at the next cells, null where there is no value; `row`: that of the first one."""
        cells = cells.dictionary_decode() if pa.types.is_dictionary(cells.type) else cells
        self.kind = cells.type
        self.present += len(cells) - cells.null_count
        if self._distinct and is_category(self.kind):
            self._tell_apart(cells)
        if is_text(self.kind):
            self._see_texts(cells, row)
        elif is_number(self.kind):
            numbers = cells.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
            there = int(np.sum(~np.isnan(numbers)))
            self.present += there - (len(cells) - cells.null_count)
            self._plain += there
            self.stats.see(np.asarray(numbers, np.float64), row)
        elif pa.types.is_boolean(self.kind):
            self.truths += len(cells) - cells.null_count

    def _see_texts(self, cells: pa.Array, row: int) -> None:
        right = None
        numbers = cells
        if self._first == PLAIN:
            try:
                numbers = cells.cast(pa.float64())
            except pa.ArrowInvalid:
                numbers = cells
        if numbers is cells:
            right = self._first.are_numbers(cells)
            plain = pc.if_else(right, cells, pa.scalar(None, cells.type))
            numbers = self._first.plain(plain).cast(pa.float64())
            self._see_odd(cells, right, row)
        count = len(numbers) - numbers.null_count
        self._plain += count
        if self._others and count:
            self._see_points(cells if right is None else cells.filter(right))
        self.stats.see(np.asarray(numbers.to_numpy(zero_copy_only=False), np.float64), row)

    def _see_points(self, numbers: pa.Array) -> None:
        """Count the plain numbers that have a point in them."""
        dotted = numbers.filter(pc.match_substring(numbers, "."))
        self._dotted += len(dotted)
        if self.pointed is None and len(dotted):
            self.pointed = dotted[0].as_py()
        if self._grouped and len(dotted):
            parts = (dotted.slice(0, 1), dotted)
            self._grouped = all(pc.all(POINTS_GROUP.are_numbers(part)).as_py() for part in parts)

    def _see_odd(self, cells: pa.Array, right: pa.Array, row: int) -> None:
        """Count what cells are that are no plain numbers."""
        rest = pc.fill_null(pc.invert(right), False).to_numpy(zero_copy_only=False)
        if not rest.any():
            return
        if self.odd is None:
            at = int(np.argmax(rest))
            self.odd = (cells[at].as_py(), row + at)
        odd = cells.filter(pa.array(rest))
        lower = pc.utf8_lower(odd)
        infinite = pc.is_in(lower, NOT_FINITE)
        self._plain += pc.sum(infinite).as_py()  # numbers, if not such as can be learned from
        empty = pc.is_in(lower, SPELLINGS_OF_NOTHING)
        self.nothing += pc.sum(empty).as_py()
        self.truths += pc.sum(pc.is_in(lower, _TRUTHS)).as_py()
        said = odd.filter(pc.invert(pc.or_(infinite, empty)))
        if not len(said):
            return
        unit = unit_of(said, self._first) if self.unit is not None else None
        self.unit = unit if self.unit in ("", unit) else None
        self.dates = self.dates and looks_like_dates(said.slice(0, 1))
        for form in self._others:
            self._others[form] += pc.sum(form.are_numbers(said)).as_py()

    def _tell_apart(self, cells: pa.Array) -> None:
        if len(self.texts) <= self._distinct:
            found = pc.unique(cells.drop_null()).cast(pa.string())
            self.texts.update(found.slice(0, self._distinct + 1).to_pylist())


def is_number(kind: pa.DataType) -> bool:
    """Whether a column holds numbers."""
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def is_category(kind: pa.DataType) -> bool:
    """Whether the cells of a column can tell sequences apart, or be categories."""
    return bool(
        is_text(kind) or is_stamp(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    )


def looks_like_dates(cells: pa.Array) -> bool:
    """Whether texts are dates or times in a usual form."""
    forms = (ISO, *DATES)
    return any(not np.isnat(read_texts(cells, form, clock=True).local).any() for form in forms)
