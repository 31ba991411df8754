"""Streams: long sequences cut into as many contiguous streams as the batch has rows."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Unpack

import numpy as np

from rnnfarm.data.left_out import LeftOut, unobserved
from rnnfarm.data.window import Reading, Window, Windows
from rnnfarm.errors import JobError

if TYPE_CHECKING:
    import numpy.typing as npt

    from rnnfarm.data.chunks import Chunk
    from rnnfarm.data.split import Split


class Streams(Windows):
    """Windows over the N steps of a split, cut into `batch` streams of L = N // batch steps.

    Stream b holds steps [b*L, (b+1)*L). Window n of an epoch ends with stream step (n+1)*stride
    and reaches `window` steps back; its last `stride` steps are the valid ones, so that every step
    counts once, and steps before the stream's begin are padding. The steps after the last whole
    stride are left out. A sequence's first step and stream step 0 are resets. With the target
    `next` the last step of a sequence is not valid, and with `observed` neither is one whose target
    was not observed.

    JobError where the split is too short for the batch.
    """

    def __init__(
        self,
        split: Split,
        *,
        stride: int | None = None,
        **reading: Unpack[Reading],
    ) -> None:
        super().__init__(split, **reading)
        batch, window = self.batch, self.window
        self.stride = window if stride is None else stride
        if not 1 <= self.stride <= window:
            raise JobError(f"stride {self.stride} must lie between 1 and the window, {window}")
        self.length = split.steps // batch
        least = max(2, self.stride)
        if self.length < least:
            most = split.steps // least
            mend = (
                f"take a batch of at most {most}, or give more data" if most else "give more data"
            )
            raise JobError(
                f"{split.place.shown}: split '{split.name}' has {split.steps} steps, so {batch}"
                f" streams of {self.length}, but a stream needs {least}; {mend}"
            )
        # Where each stream last read: only a short cut, a window never depends on it.
        self._last: list[Chunk | None] = [None] * batch

    def windows_in_epoch(self, epoch: int = 0) -> int:
        """The number of windows of an epoch; the same for every epoch."""
        return self.length // self.stride

    def left_out(self) -> LeftOut:
        """Return what is never trained on: the ends of the streams, and what was not observed."""
        ends = self.split.steps - self.batch * self.windows_in_epoch() * self.stride
        missing = unobserved(self.split, self.observed, self._ahead)
        return LeftOut(steps=ends, unobserved=missing)

    def read(self, n: int, rows: slice = slice(None)) -> Window:
        """Window n of these rows, T = `window` steps; see Windows.read."""
        high = (self.locate(n)[1] + 1) * self.stride
        low = max(high - self.window, 0)
        pad = self.window - (high - low)
        picked = range(self.batch)[rows]
        x, target = self._buffers(len(picked), self.window)
        valid = np.zeros((len(picked), self.window), bool)
        valid[:, self.window - self.stride :] = True
        reset = np.zeros((len(picked), self.window), bool)
        if low == 0:
            reset[:, pad] = True
        for row, stream in enumerate(picked):
            first = stream * self.length + low
            starts = self._row(stream, first, first + high - low, x, target, row, pad)
            valid[row, pad:] &= self._seen(first, first + high - low)
            for start in starts - first:
                if start < high - low:
                    reset[row, pad + start] = True
                if self._ahead and start > 0:
                    valid[row, pad + start - 1] = False
        mask = None
        if pad:
            mask = np.ones((len(picked), self.window), bool)
            mask[:, :pad] = False
        return self._finish(x, target, valid, mask, reset if reset.any() else None)

    def _row(
        self,
        stream: int,
        low: int,
        high: int,
        x: npt.NDArray[np.generic],
        target: npt.NDArray[np.generic] | None,
        row: int,
        pad: int,
    ) -> npt.NDArray[np.int64]:
        """Read steps [low, high) into a row of the buffers.

        Gives the steps in [low, high] at which a sequence begins, or the split ends.
        """
        end = min(high + self._ahead, self.split.steps)
        chunk = self._last[stream]
        if chunk is None or low < chunk.low or end > chunk.high:
            chunk = self.split.chunk(low)
            if end > chunk.high:
                chunk = None
            self._last[stream] = chunk
        self._copy(chunk, self.input, low, end, x[row, pad:])
        if target is not None:
            self._copy(chunk, self.target, low, high, target[row, pad:])
        if chunk is None:
            starts = self.split.starts(low, end)
        else:
            known = chunk.starts
            starts = known[bisect_left(known, low) : bisect_left(known, end)]
        return np.append(starts, end) if end == high else starts
