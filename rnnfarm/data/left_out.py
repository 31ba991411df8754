"""What of a split no window has as a target, and where a window's rows are from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from rnnfarm.data.split import Split

#: How many of the sequences that are left out are named.
NAMED = 3
#: The ends of streams are said where they are at least one of so many steps of their split.
SAID = 1000


class Place(NamedTuple):
    """Where in a split a row of a window is from.

    number: that of the row's sequence; start: the step of the split at which the sequence begins;
    step: the step of the sequence from which on the model answers.
    """

    number: int
    start: int
    step: int


@dataclass(frozen=True)
class LeftOut:
    """What of a split no window has as a target.

    sequences: those that are shorter than ``least`` steps; names: what the first ones are called.
    steps: the steps after the last whole window of their stream.
    unobserved: the targets that were not observed, or are in rows that are only looked back at;
    forecasts that have one count once each.
    forecasts: how many forecasts there are, 0 where targets are steps.
    """

    sequences: int = 0
    least: int = 0
    names: tuple[str, ...] = ()
    steps: int = 0
    unobserved: int = 0
    forecasts: int = 0

    def to_dict(self) -> dict[str, int]:
        """Return the counts, as JSON has them."""
        return {"sequences": self.sequences, "steps": self.steps, "unobserved": self.unobserved}

    def sentences(self, split: Split) -> list[str]:
        """Return what is to be said of it, a sentence each."""
        found = []
        if self.sequences:
            more = ", …" if self.sequences > len(self.names) else ""
            found.append(
                f"{split.name}: {self.sequences:,} of {split.sequences:,} sequences have fewer than"
                f" {self.least:,} steps and are left out: {', '.join(self.names)}{more}"
            )
        if self.steps * SAID >= split.steps and self.steps:
            found.append(
                f"{split.name}: {self.steps:,} of {split.steps:,} steps are never trained on, as"
                " they come after the last whole window of their stream"
            )
        if self.unobserved and self.forecasts:
            found.append(
                f"{split.name}: {self.unobserved:,} of {self.forecasts:,} forecasts have a target"
                " that was not observed, or is only looked back at, and do not count; a forecast"
                " counts only where its whole horizon does (lower data.horizon, or fill the gaps)"
            )
        elif self.unobserved:
            found.append(
                f"{split.name}: {self.unobserved:,} targets do not count: they were not observed,"
                " or their rows are only looked back at"
            )
        return found


def too_short(split: Split, least: int) -> LeftOut:
    """Return the sequences of a split that have fewer than ``least`` steps."""
    starts = split.starts()
    numbers = np.flatnonzero(np.diff(starts, append=split.steps) < least)
    names = tuple(name_of(split, int(n), int(starts[n])) for n in numbers[:NAMED])
    return LeftOut(len(numbers), least, names)


def name_of(split: Split, number: int, start: int) -> str:
    """Return what a sequence is called: by its group, or by its number."""
    return split.origin(start).name or f"sequence {number}"


def unobserved(split: Split, observed: str | None, ahead: int) -> int:
    """Return how many targets of a split were not observed, a record batch at a time.

    ``ahead``: 1 where a target is the next step, so that the first step of a sequence is none.
    """
    if observed is None:
        return 0
    count = 0
    for chunk in split.chunks(0, split.steps):
        missing = chunk.columns[observed] == 0
        count += int(np.count_nonzero(missing))
        count -= ahead * int(np.count_nonzero(missing[chunk.starts - chunk.low]))
    return count


def gaps_between(
    split: Split, observed: str, low: npt.NDArray[np.int64], high: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return how many steps in each [low, high) were not observed; memory goes with the gaps."""
    parts = [
        chunk.low + np.flatnonzero(chunk.columns[observed] == 0)
        for chunk in split.chunks(0, split.steps)
    ]
    missing = np.concatenate([np.empty(0, np.int64), *parts])
    gaps: npt.NDArray[np.int64] = np.searchsorted(missing, high) - np.searchsorted(missing, low)
    return gaps
