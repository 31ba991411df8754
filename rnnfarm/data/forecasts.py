"""Forecasts: a window of the past as the input, and what came after it as the target."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from rnnfarm.data.draws import raw_bits
from rnnfarm.data.left_out import LeftOut, Place, gaps_between, name_of, too_short
from rnnfarm.data.window import NEXT, Reading, Window, Windows, turned
from rnnfarm.errors import JobError

if TYPE_CHECKING:
    import numpy.typing as npt

    from rnnfarm.data.split import Split


class Forecasts(Windows):
    """Windows of `window` steps, each with the `horizon` steps after it as its target.

    The target (1, B, horizon * O) holds step after step the values of the target's column, or of
    the input's where that is `next`. Every place in a sequence with enough steps before and after
    it is one example. Each epoch goes through all of them, in an order that is drawn from
    (seed, epoch), or in theirs without `shuffle`. A last batch that is not full has empty rows.

    With `relative` the target is what a value is above the last one before the horizon (`last`), or
    above that of the same place in the last season of `period` steps (`season`).

    With `observed`, a column of tokens 0 and 1 that says of every step whether its target was
    observed, a place is an example only where all steps of its target were. What they are compared
    with by `relative` need not have been: it is what the column holds there.

    JobError where no sequence of the split is long enough, or all have gaps.
    """

    def __init__(
        self,
        split: Split,
        *,
        horizon: int,
        seed: int,
        shuffle: bool = True,
        relative: Literal["none", "last", "season"] = "none",
        period: int = 1,
        known: bool = True,
        **reading: Unpack[Reading],
    ) -> None:
        if reading["target"] == NEXT:
            reading["target"] = reading["input"]
        super().__init__(split, **reading)
        window = self.window
        self.horizon, self.seed, self.shuffle, self.known = horizon, seed, shuffle, known
        self.back = {"none": 0, "last": 1, "season": period}[relative]
        if self.back > window:
            raise JobError(
                f"data.period: a season of {period} steps is longer than the window of {window};"
                " lower data.period or raise training.window"
            )
        if self._column.kind != "values" or self._target_column.kind != "values":
            raise JobError(
                "data.mode: 'forecast' is for columns of values; take 'streams' or 'examples' for"
                " tokens"
            )
        self._starts = split.starts()
        #: The step of the split at which each example begins.
        self.begins = self._places() if known else self._last_places()
        self._gaps = 0
        if known and self.observed is not None:
            target = self.begins + window
            whole = gaps_between(split, self.observed, target, target + horizon) == 0
            self._gaps = int(np.count_nonzero(~whole))
            self.begins = self.begins[whole]
            if not self.begins.size:
                raise JobError(
                    f"{split.place.shown}: split '{split.name}' has no {horizon} observed steps"
                    f" in a row after a window of {window}; lower data.horizon or training.window,"
                    " or give data with fewer gaps"
                )
        self._epoch = lru_cache(maxsize=2)(self._lay_out)

    def _places(self) -> npt.NDArray[np.int64]:
        """The begins of all windows with a horizon after them."""
        split, window, horizon = self.split, self.window, self.horizon
        starts = split.starts()
        lengths = np.diff(starts, append=split.steps)
        places = np.maximum(lengths - window - horizon + 1, 0)
        begins = np.concatenate(
            [start + np.arange(count) for start, count in zip(starts, places, strict=True)]
        )
        if not begins.size:
            raise JobError(
                f"{split.place.shown}: split '{split.name}' has no sequence of {window + horizon}"
                f" steps, which a window of {window} and a horizon of {horizon} take; lower"
                " training.window or data.horizon, or give more data"
            )
        return begins

    def _last_places(self) -> npt.NDArray[np.int64]:
        """The begins of the windows at the ends of the sequences that are long enough."""
        starts = self.split.starts()
        lengths = np.diff(starts, append=self.split.steps)
        enough = lengths >= self.window
        if not enough.any():
            name = name_of(self.split, 0, 0)
            raise JobError(
                f"{name} has {lengths[0]} steps, and a forecast is made of {self.window}"
                " (training.window); give more of what came before"
            )
        begins: npt.NDArray[np.int64] = (starts + lengths - self.window)[enough]
        return begins

    def windows_in_epoch(self, epoch: int = 0) -> int:
        """The number of windows of an epoch; the same for every epoch."""
        return -(-len(self.begins) // self.batch)

    def places(self, n: int) -> list[Place | None]:
        """Return which sequence each row of window n forecasts, and from which step on; None for an
        empty row."""
        epoch, index = self.locate(n)
        order = self._epoch(epoch)[index * self.batch : (index + 1) * self.batch]
        begins = self.begins[order]
        numbers = np.searchsorted(self._starts, begins, side="right") - 1
        places: list[Place | None] = [
            Place(int(number), int(self._starts[number]), int(step))
            for number, step in zip(
                numbers, begins + self.window - self._starts[numbers], strict=True
            )
        ]
        return places + [None] * (self.batch - len(places))

    def left_out(self) -> LeftOut:
        """Return the sequences that are too short, and the forecasts whose target has a gap."""
        least = self.window + (self.horizon if self.known else 0)
        every = self._gaps + len(self.begins)
        return replace(too_short(self.split, least), unobserved=self._gaps, forecasts=every)

    def read(self, n: int, rows: slice = slice(None)) -> Window:
        """Window n of these rows; see Windows.read."""
        epoch, index = self.locate(n)
        order = self._epoch(epoch)[index * self.batch : (index + 1) * self.batch]
        picked = np.full(self.batch, -1)
        picked[: len(order)] = self.begins[order]
        picked = picked[rows]
        there = picked >= 0
        x = np.zeros((len(picked), self.window, self._column.width), np.float32)
        width = self._target_column.width
        target = np.zeros((len(picked), self.horizon, width), np.float32)
        season = np.zeros((len(picked), self.back, width), np.float32)
        for row in np.flatnonzero(there):
            middle = int(picked[row]) + self.window
            x[row] = self.split.read(self.input, middle - self.window, middle)
            if self.known:
                target[row] = self.split.read(self.target, middle, middle + self.horizon)
            season[row] = self.split.read(self.target, middle - self.back, middle)
        steps = np.broadcast_to(there[:, None], (len(picked), self.window))
        reset = np.zeros(steps.shape, np.bool_)
        reset[:, 0] = True
        target = self._scaled(target, self.target)
        base = None
        if self.back:
            repeats = -(-self.horizon // self.back)
            base = np.tile(self._scaled(season, self.target), (1, repeats, 1))[:, : self.horizon]
            target = target - base
            base = base.reshape(len(picked), -1)[None]
        goal = target.reshape(len(picked), -1)[None]
        mask = None if there.all() else turned(steps)
        x = self._inputs(x, None)
        return Window(x, goal, there[None].copy(), mask, turned(reset), base=base)

    def _lay_out(self, epoch: int) -> npt.NDArray[Any]:
        count = len(self.begins)
        if not self.shuffle:
            return np.arange(count)
        return np.argsort(raw_bits(self.seed, epoch).random_raw(count), kind="stable")
