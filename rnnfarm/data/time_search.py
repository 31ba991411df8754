"""Finds out how the times of a table are written, from all of its cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rnnfarm.data.time_formats import DATES, ISO, read_texts
from rnnfarm.data.times import TimeRule, Unit, epoch_numbers, is_stamp, is_text
from rnnfarm.errors import JobError

if TYPE_CHECKING:
    import numpy.typing as npt

EPOCH = "epoch"

#: The largest number of each unit that counts from 1970: the years 1973 to 5138.
LEAST, UNITS = 1e8, {"s": 1e11, "ms": 1e14, "us": 1e17, "ns": 1e20}

EXCEL = 25569, 73050  # the days from 1970 to 2099, as Excel counts them


class TimeSearch:
    """Looks at the cells of a time column, block by block, and says by what rule to read them."""

    def __init__(self) -> None:
        self._open: dict[str, None] = dict.fromkeys([ISO, *DATES, EPOCH])
        self._reached = {ISO: -1}  # the first row that each form does not fit
        self._rows = 0
        self._sample: str | None = None
        self._low, self._high = np.inf, 0.0
        self._kind: pa.DataType | None = None
        self._with_offset: bool | None = None
        self._numeric = True  # whether all cells are numbers

    def see(self, column: pa.Array) -> None:
        """Look at the next rows; cells without a value say nothing."""
        cells = column.drop_null()
        self._kind = column.type
        if not len(cells) or is_stamp(column.type):
            return
        if not is_text(column.type):
            self._magnitude(cells)
            cells = cells.cast(pa.string())  # whole numbers as 20241231
        cells = cells.filter(pc.not_equal(cells, ""))
        if len(cells) and self._sample is None:
            self._sample = cells[0].as_py()
        if self._numeric:
            self._numeric = bool(np.isfinite(self._magnitude(cells)).all())
        for form in [*self._open] if len(cells) else []:
            wrong = self._wrong(form, cells)
            if wrong.any():
                del self._open[form]
                self._reached[form] = self._rows + int(np.argmax(wrong))
        self._rows += len(cells)

    def _wrong(self, form: str, cells: pa.Array) -> npt.NDArray[np.bool_]:
        """The cells that a form does not fit; the first alone where it does not fit that."""
        if form == EPOCH:
            numbers = np.abs(self._magnitude(cells))
            return np.asarray(~(np.isfinite(numbers) & (numbers >= LEAST)))
        for part in (cells.slice(0, 1), cells):
            found = read_texts(part, form, clock=True)
            if np.isnat(found.local).any():
                break
            if self._with_offset is None:
                self._with_offset = not np.isnat(found.offset[0])
        return np.asarray(np.isnat(found.local))

    def _magnitude(self, cells: pa.Array) -> npt.NDArray[Any]:
        numbers = epoch_numbers(cells)
        finite = np.abs(numbers[np.isfinite(numbers)])
        if len(finite):
            self._low = min(self._low, float(finite.min()))
            self._high = max(self._high, float(finite.max()))
        return numbers

    def rule(self, name: str, zone: str | None) -> TimeRule:
        """Return how the column `name` is read; JobError where that cannot be told."""
        if self._kind is None or is_stamp(self._kind):
            return TimeRule(zone=zone)
        if not is_text(self._kind) and [*self._open] not in (["%Y%m%d"], ["%Y"], [ISO, "%Y%m%d"]):
            return TimeRule(unit=self._unit(name), zone=zone)
        if not self._open and self._numeric:
            return TimeRule(unit=self._unit(name), zone=zone)
        forms = [*self._open] or [max(self._reached, key=lambda form: self._reached[form])]
        if self._sample is None or ISO in forms:
            forms = [ISO]
        if len(forms) > 1:
            named = " or ".join(f"'{form}'" for form in forms)
            raise JobError(
                f"column '{name}': a time as '{self._sample}' can be read as {named}, and no row"
                " tells which; set 'time_format' to one of them"
            )
        if forms == [EPOCH]:
            return TimeRule(unit=self._unit(name), zone=zone)
        return TimeRule(forms[0], offsets=self._with_offset, zone=zone)

    def _unit(self, name: str) -> Unit:
        """What numbers count, by how large they are."""
        units: list[Unit] = ["s", "ms", "us", "ns"]
        fitting = [unit for unit in units if self._high < UNITS[unit]]
        if self._low < LEAST or not fitting or self._low < UNITS[fitting[0]] / 1000:
            raise JobError(
                f"column '{name}' holds numbers ({self._low:.15g} to {self._high:.15g}), not dates"
                f" or times; {self._fix()}"
            )
        return fitting[0]

    def _fix(self) -> str:
        """What to do about numbers whose unit cannot be told."""
        if EXCEL[0] <= self._low and self._high <= EXCEL[1]:
            return (
                "where they are the days that Excel counts (45000 is 2023-03-15), write them as"
                " dates; else set time_unit = 's' where they only count"
            )
        return (
            "set time_unit = 's' where they only count, as 0, 1, 2, …; or name another in 'time',"
            " or say in 'time_unit' what they count since 1970 (s, ms, us, ns)"
        )
