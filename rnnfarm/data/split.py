"""A split as one long row of steps: its sequences one after the other, read anywhere."""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnfarm.data.chunks import Chunk, map_shard
from rnnfarm.data.shards import REBUILD
from rnnfarm.data.verifier import Verifier
from rnnfarm.errors import DataError, JobError, suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy.typing as npt

    from rnnfarm.data.manifest import Column, SplitInfo
    from rnnfarm.data.origin import Origin
    from rnnfarm.data.place import Place

# A mapped shard holds no file descriptor, only address space; a fetched one also its disk space.
KEEP_MAPPED = 1024
KEEP_FETCHED = 64


class Split:
    """The sequences of one split.

    Steps are counted from 0 over the concatenation of the sequences. Shards are mapped when a
    step of theirs is first read, and a limited number is kept. `check` is called after each
    mapping, and raises DataError where the dataset is another by now. With `verify` the checksum
    of what is mapped is verified in a thread: see `check_whole` and `confirm_whole`.
    """

    def __init__(
        self,
        place: Place,
        name: str,
        info: SplitInfo,
        columns: Mapping[str, Column],
        check: Callable[[], None] = lambda: None,
        verify: bool = True,
    ) -> None:
        self.place = place
        self._verifier = Verifier() if verify else None
        self._check = check
        self.name = name
        self.info = info
        self.columns = columns
        self._lows = [0]  # the first step of every shard, and the end
        for shard in info.shards:
            self._lows.append(self._lows[-1] + shard.steps)
        keep = KEEP_MAPPED if place.local is not None else KEEP_FETCHED
        self._shard = lru_cache(maxsize=keep)(self._map)

    @property
    def steps(self) -> int:
        """Steps of all sequences together."""
        return self.info.steps

    @property
    def sequences(self) -> int:
        """The number of sequences."""
        return self.info.sequences

    def column(self, name: str) -> Column:
        """The column of that name; JobError when there is none."""
        if name not in self.columns:
            raise JobError(
                f"{self.place.shown}: no column '{name}'; {suggestion(name, self.columns)}"
            )
        return self.columns[name]

    def check_whole(self) -> None:
        """DataError where a shard that was read is known to be damaged by now."""
        if self._verifier is not None:
            self._verifier.check()

    def confirm_whole(self) -> None:
        """Wait until the checksums of all shards that were read are verified; DataError that names
        a damaged one. What was made of the data counts only after this."""
        if self._verifier is not None:
            self._verifier.confirm()

    def chunk(self, step: int) -> Chunk:
        """The record batch that holds a step, 0 <= step < steps."""
        chunks, lows = self._shard(bisect_right(self._lows, step) - 1)
        return chunks[bisect_right(lows, step) - 1]

    def chunks(self, low: int, high: int) -> Iterator[Chunk]:
        """The record batches that hold steps [low, high), in order."""
        while low < high:
            chunk = self.chunk(low)
            yield chunk
            low = chunk.high

    def read(self, column: str, low: int, high: int) -> npt.NDArray[Any]:
        """Steps [low, high) of a column: (steps,) tokens or (steps, width) values.

        A read-only view of the file where they lie in one record batch, else a copy.
        """
        if self.column(column).own:
            raise JobError(f"{self.place.shown}: column '{column}' has no entry for every step")
        if not 0 <= low <= high <= self.steps:
            raise IndexError(f"steps [{low}, {high}) of a split of {self.steps} steps")
        parts = [
            c.columns[column][max(low - c.low, 0) : high - c.low] for c in self.chunks(low, high)
        ]
        if not parts:
            described = self.columns[column]
            return np.empty((0, *described.step_shape()), described.numpy)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def own(self, column: str, start: int) -> npt.NDArray[Any]:
        """The entries of an own column of the sequence that begins at step `start`: (length,)
        tokens or (length, width) values, a read-only view of the file."""
        chunk = self.chunk(start)
        places, figures = chunk.own[column]
        at = int(np.searchsorted(chunk.starts, start))
        if at == len(chunk.starts) or int(chunk.starts[at]) != start:
            raise IndexError(f"no sequence begins at step {start}")
        return figures[places[at] : places[at + 1]]

    def origin(self, start: int) -> Origin:
        """Return where the sequence that begins at step `start` is from."""
        chunk = self.chunk(start)
        return chunk.origin(int(np.searchsorted(chunk.starts, start)))

    def all_own(self, column: str) -> npt.NDArray[Any]:
        """The entries of an own column of all sequences, one after the other."""
        held = [chunk.own[column] for chunk in self.chunks(0, self.steps)]
        return np.concatenate([figures[places[0] : places[-1]] for places, figures in held])

    def own_counts(self, column: str) -> npt.NDArray[np.int64]:
        """How many entries each sequence has in an own column, (sequences,)."""
        parts = [np.diff(chunk.own[column][0]) for chunk in self.chunks(0, self.steps)]
        return np.concatenate(parts, dtype=np.int64) if parts else np.empty(0, np.int64)

    def starts(self, low: int = 0, high: int | None = None) -> npt.NDArray[np.int64]:
        """The steps in [low, high) at which a sequence begins, ascending."""
        high = self.steps if high is None else high
        parts = [
            c.starts[np.searchsorted(c.starts, low) : np.searchsorted(c.starts, high)]
            for c in self.chunks(low, high)
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _map(self, shard: int) -> tuple[list[Chunk], list[int]]:
        info = self.info.shards[shard]
        try:
            chunks = map_shard(self.place, info, self.columns, self._lows[shard], self._verifier)
        finally:
            self._check()
        if shard == 0 and 0 in info.continues:
            raise DataError(
                f"{self.place.show(info.file)}: the manifest has its first row carry on a sequence"
                f" that there is not; {REBUILD}"
            )
        return chunks, [chunk.low for chunk in chunks]
