"""The step of a series in time: how it is written, and how it is found from the times of rows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from rnnfarm.data.tally import Counted
from rnnfarm.errors import JobError

if TYPE_CHECKING:
    import numpy.typing as npt

    from rnnfarm.data.external_sort import Block

MICROSECONDS = {
    "s": 1_000_000,
    "min": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
MONTHS = {"month": 1, "year": 12}
DAY = MICROSECONDS["d"]
#: How many days apart the same days of calendar months are: months, fewest and most days.
SPANS = ((1, 28, 31), (3, 90, 92), (6, 181, 184), (12, 365, 366))
MOST_DIFFERENCES = 100_000


class Step(NamedTuple):
    """A step in time, of so many microseconds or calendar months.

    Steps of a day and longer go by the clock of the place, which has days of 23 and 25 hours where
    it is put forward and back; shorter ones go by the instants.
    """

    size: int
    unit: Literal["microseconds", "months"]

    def positions(self, rows: Block) -> npt.NDArray[np.int64]:
        """Return where rows are on the axis of time, in the step's unit."""
        if self.unit == "months":
            months = rows["local"].view("datetime64[us]").astype("datetime64[M]")
            return months.astype(np.int64)
        return rows["local" if self.size >= DAY else "instant"]

    def later(self, rows: Block, steps: npt.NDArray[np.int64]) -> Block:
        """Return rows that many steps later in time; a month counts from its first day."""
        if self.unit == "months":
            months = self.positions(rows) + steps * self.size
            begin = months.view("datetime64[M]").astype("datetime64[us]").view(np.int64)
            local = np.where(steps > 0, begin, rows["local"])
            return rows | {"local": local, "instant": rows["instant"] + local - rows["local"]}
        return rows | {name: rows[name] + steps * self.size for name in ("local", "instant")}

    def __str__(self) -> str:
        units = MONTHS if self.unit == "months" else MICROSECONDS
        for name, size in reversed(units.items()):
            if self.size % size == 0:
                return f"{self.size // size}{' ' if self.unit == 'months' else ''}{name}"
        return f"{self.size / MICROSECONDS['s']:g}s"


def parse_step(text: str) -> Step:
    """Return the step that a text such as `15min`, `1h`, `1d` or `1 month` says; else JobError."""
    units = "|".join([*MICROSECONDS, *MONTHS])
    found = re.fullmatch(rf"(\d+(?:\.\d+)?) *({units})", text.strip())
    size = float(found[1]) if found else 0.0
    if found and found[2] in MONTHS and size >= 1 and size.is_integer():
        return Step(int(size) * MONTHS[found[2]], "months")
    if found and found[2] in MICROSECONDS and size * MICROSECONDS[found[2]] >= 1:
        return Step(round(size * MICROSECONDS[found[2]]), "microseconds")
    raise JobError(
        f"setting 'every': '{text}' is no step in time; write it as 30s, 15min, 1h, 1d, 1w,"
        " '1 month' or '1 year'"
    )


class Differences:
    """How far the times of rows that follow each other in a sequence are apart."""

    def __init__(self) -> None:
        #: Of each difference, by either clock, how often it occurs, and the row where it is first.
        self._met: dict[str, dict[int, Counted]] = {"local": {}, "instant": {}}
        self._last: Block | None = None

    def add(self, rows: Block, begins: bool) -> None:
        """Count the differences of rows of a sequence, and from the rows of it before."""
        if not begins and self._last is not None:
            rows = {name: np.append(self._last[name], rows[name]) for name in self._last}
        for clock, met in self._met.items():
            found = np.unique(np.diff(rows[clock]), return_index=True, return_counts=True)
            for difference, at, count in zip(*(part.tolist() for part in found), strict=True):
                known = met.get(difference)
                if known is not None:
                    met[difference] = Counted(known.total + count, known.first)
                elif len(met) < MOST_DIFFERENCES:
                    met[difference] = Counted(count, int(rows["number"][at + 1]))
        self._last = {name: rows[name][-1:] for name in ("local", "instant", "number")}

    def step(self) -> tuple[Step, float] | None:
        """Return the most frequent step and its share of all, None where there is none."""
        counts = self._counts("instant")
        if counts and _most_frequent(counts) >= DAY:
            counts = self._counts("local") or counts
        if not counts:
            return None
        size, total = _most_frequent(counts), sum(counts.values())
        for months, low, high in SPANS:
            like = {d: n for d, n in counts.items() if low * DAY <= d <= high * DAY}
            if size in like and (len(like) > 1 or size == high * DAY or months == 12):
                return Step(months, "months"), sum(like.values()) / total
        return Step(size, "microseconds"), counts[size] / total

    def gaps(self, step: Step) -> Counted | None:
        """Return how many differences are larger than a step, and the row after the first."""
        longest = step.size
        if step.unit == "months":
            longest = step.size * 31 * DAY
        met = self._met["local" if longest >= DAY else "instant"]
        larger = [counted for difference, counted in met.items() if difference > longest]
        if not larger:
            return None
        return Counted(sum(c.total for c in larger), min(c.first for c in larger))

    def _counts(self, clock: str) -> dict[int, int]:
        """How often rows that are not of one time are so far apart."""
        return {d: counted.total for d, counted in self._met[clock].items() if d > 0}


def _most_frequent(counts: dict[int, int]) -> int:
    """The difference that occurs most often, the smallest of several."""
    return min(counts, key=lambda difference: (-counts[difference], difference))
