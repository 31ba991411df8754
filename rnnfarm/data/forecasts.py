"""Forecasts: a window of the past as the input, and what came after it as the target."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnfarm.data.window import NEXT, Window, Windows, turned
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

    JobError where no sequence of the split is long enough.
    """

    def __init__(
        self,
        split: Split,
        *,
        input: str,
        target: str,
        batch: int,
        window: int,
        horizon: int,
        seed: int,
        shuffle: bool = True,
        dtype: str = "float32",
    ) -> None:
        wanted = input if target == NEXT else target
        super().__init__(split, input=input, target=wanted, batch=batch, window=window, dtype=dtype)
        self.horizon, self.seed, self.shuffle = horizon, seed, shuffle
        if self._column.kind != "values" or self._target_column.kind != "values":
            raise JobError(
                "data.mode: 'forecast' is for columns of values; take 'streams' or 'examples' for"
                " tokens"
            )
        starts = split.starts()
        lengths = np.diff(starts, append=split.steps)
        places = np.maximum(lengths - window - horizon + 1, 0)
        #: The step of the split at which each example begins.
        self.begins = np.concatenate(
            [start + np.arange(count) for start, count in zip(starts, places, strict=True)]
        )
        if not self.begins.size:
            raise JobError(
                f"{split.place.shown}: split '{split.name}' has no sequence of {window + horizon}"
                f" steps, which a window of {window} and a horizon of {horizon} take; lower"
                " training.window or data.horizon, or give more data"
            )
        self._epoch = lru_cache(maxsize=2)(self._lay_out)

    def windows_in_epoch(self, epoch: int = 0) -> int:
        """The number of windows of an epoch; the same for every epoch."""
        return -(-len(self.begins) // self.batch)

    def read(self, n: int, rows: slice = slice(None)) -> Window:
        """Window n of these rows; see Windows.read."""
        epoch, index = self.locate(n)
        order = self._epoch(epoch)[index * self.batch : (index + 1) * self.batch]
        picked = np.full(self.batch, -1)
        picked[: len(order)] = self.begins[order]
        picked = picked[rows]
        there = picked >= 0
        x = np.zeros((len(picked), self.window, self._column.width), np.float32)
        target = np.zeros((len(picked), self.horizon, self._target_column.width), np.float32)
        for row in np.flatnonzero(there):
            middle = int(picked[row]) + self.window
            x[row] = self.split.read(self.input, middle - self.window, middle)
            target[row] = self.split.read(self.target, middle, middle + self.horizon)
        steps = np.broadcast_to(there[:, None], (len(picked), self.window))
        reset = np.zeros(steps.shape, np.bool_)
        reset[:, 0] = True
        goal = target.reshape(len(picked), -1)[None].astype(self.dtype)
        mask = None if there.all() else turned(steps)
        x = self._inputs(x, None)
        return Window(x, goal, there[None].copy(), mask, turned(reset))

    def _lay_out(self, epoch: int) -> npt.NDArray[Any]:
        count = len(self.begins)
        if not self.shuffle:
            return np.arange(count)
        key = np.array([self.seed % (1 << 64), epoch], np.uint64)
        return np.argsort(np.random.Philox(key=key).random_raw(count), kind="stable")
