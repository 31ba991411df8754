"""Examples: sequences of any length, put into batches of like length, shuffled, and padded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from rnnfarm.data.draws import raw_bits
from rnnfarm.data.left_out import LeftOut, Place, too_short, unobserved
from rnnfarm.data.window import BEGIN, END, Reading, Window, Windows, turned
from rnnfarm.errors import DataError, JobError

if TYPE_CHECKING:
    import numpy.typing as npt

    from rnnfarm.data.split import Split

#: A length is taken for longer by up to a tenth, drawn anew in every epoch, when sequences are
#: sorted by length: batches are mixed, for a few hundredths of padding.
MIXED_OVER = 10
EMPTY = -1
#: How an own column is learned; ``steps`` where the target is none.
Goal = Literal["steps", "one", "labels", "decoded"]


@dataclass(frozen=True)
class _Epoch:
    """batches (batches, B): the example in each row, EMPTY for none; ends (batches,): the number
    of the epoch's windows up to the end of each batch."""

    batches: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]

    def batch(self, index: int) -> tuple[int, npt.NDArray[np.int64]]:
        """The chunk that window `index` of the epoch is, and its batch's examples (B,)."""
        at = int(np.searchsorted(self.ends, index, side="right"))
        return index - (int(self.ends[at - 1]) if at else 0), self.batches[at]


class Examples(Windows):
    """Windows over the sequences of a split, one sequence a row.

    An epoch walks over the batches, and a batch over its chunks of at most `window` steps, from
    one to the next of which a row's state is carried; all rows reset at a batch's first step. With
    the target `next` a sequence of n steps has n - 1 to learn from.

    Each epoch draws, keyed by (seed, epoch), how much longer each sequence is taken for, sorts them
    so from the longest to the shortest, and shuffles the batches that this gives. A sequence never
    passes one of another number of chunks, so every epoch has equally many windows. Sequences that
    seem equally long are sorted by what a decoder writes for them, then at random. Without
    `shuffle` the sequences come in the order of the dataset. One batch may have empty rows; with
    `shuffle` they are beside the shortest sequences.

    With `observed` a step whose target was not observed is not valid; its input is there.

    Where the target is an own column, `goal` says how it is learned, and a row's target is there in
    the window in which its sequence ends:

    - ``one``: the first entry of each sequence, target (1, B), as a label;
    - ``labels``: all of them, target (L, B) with 0 after the last one; valid is (T, B) and says how
      far each row is read, as a CTC loss takes it;
    - ``decoded``: all of them and END, target and valid (L + 1, B); fed is BEGIN and all of them.

    JobError where no sequence of the split is long enough.
    """

    def __init__(
        self,
        split: Split,
        *,
        seed: int,
        shuffle: bool = True,
        goal: Goal = "steps",
        **reading: Unpack[Reading],
    ) -> None:
        super().__init__(split, **reading)
        self.goal = goal
        self.seed = seed
        self.shuffle = shuffle
        starts = split.starts()
        lengths = np.diff(starts, append=split.steps) - self._ahead
        usable = lengths > 0
        self.starts, self.lengths = starts[usable], lengths[usable]
        #: The number of each in the split.
        self.numbers = np.flatnonzero(usable)
        if not self.lengths.size:
            raise JobError(
                f"{split.place.shown}: split '{split.name}' has no sequence of two steps, so there"
                " is no next step to learn; give longer sequences"
            )
        self._chunks = -(-self.lengths // self.window)
        #: How many entries a decoder writes for each example, where they are sorted by that.
        self._written = (
            split.own_counts(self.target)[usable] if shuffle and goal == "decoded" else None
        )
        self._epoch = lru_cache(maxsize=2)(self._lay_out)
        self._windows = int(self._epoch(0).ends[-1])

    def windows_in_epoch(self, epoch: int = 0) -> int:
        """The number of windows of an epoch; the same for every epoch."""
        return self._windows

    def examples(self, n: int) -> npt.NDArray[np.int64]:
        """Which sequence of the split (those too short left out) each row of window n reads, (B,);
        -1 for an empty row."""
        epoch, index = self.locate(n)
        return self._epoch(epoch).batch(index)[1]

    def places(self, n: int) -> list[Place | None]:
        """Return what each row of window n reads of which sequence; None where it reads nothing."""
        epoch, index = self.locate(n)
        chunk, batch = self._epoch(epoch).batch(index)
        first = chunk * self.window
        return [
            Place(int(self.numbers[row]), int(self.starts[row]), first)
            if row != EMPTY and first < self.lengths[row]
            else None
            for row in batch
        ]

    def left_out(self) -> LeftOut:
        """Return the sequences without a next step, and the targets that were not observed."""
        short = too_short(self.split, 1 + self._ahead)
        if self._target_column.own:
            return short
        return replace(short, unobserved=unobserved(self.split, self.observed, self._ahead))

    def read(self, n: int, rows: slice = slice(None)) -> Window:
        """Window n of these rows, T <= `window` steps; see Windows.read."""
        epoch, index = self.locate(n)
        chunk, batch = self._epoch(epoch).batch(index)
        lengths = np.where(batch == EMPTY, 0, self.lengths[batch])
        low = chunk * self.window
        steps = min(self.window, int(lengths.max()) - low)
        picked = batch[rows]
        left = np.clip(lengths[rows] - low, 0, steps)
        x, target = self._buffers(len(picked), steps)
        there = np.arange(steps) < left[:, None]
        valid = there.copy()
        for row in np.flatnonzero(left):
            first = int(self.starts[picked[row]]) + low
            end = first + int(left[row])
            self._copy(None, self.input, first, end + self._ahead, x[row])
            if target is not None:
                self._copy(None, self.target, first, end, target[row])
            valid[row, : end - first] = self._seen(first, end)
        mask = None if there.all() else there
        reset = None
        if chunk == 0:
            reset = np.zeros_like(there)
            reset[:, 0] = True
        if not self._target_column.own:
            return self._finish(x, target, valid, mask, reset)
        ends = (left > 0) & (low + left == lengths[rows])
        goal, counts, fed = self._own(picked, ends)
        if self.goal == "labels":
            counts = there & ends[:, None]
        return Window(self._inputs(x, mask), goal, turned(counts), turned(mask), turned(reset), fed)

    def _own(
        self, picked: npt.NDArray[np.int64], ends: npt.NDArray[np.bool_]
    ) -> tuple[Any, npt.NDArray[np.bool_], Any]:
        """The own targets (L, B) of the rows that end here, which of them count (B, L), and what a
        decoder is fed."""
        column = self._target_column
        found = {
            row: self.split.own(self.target, int(self.starts[picked[row]]))
            for row in np.flatnonzero(ends)
        }
        decoded = self.goal == "decoded"
        longest = max((len(entries) for entries in found.values()), default=0)
        length = 1 if self.goal == "one" else longest + decoded
        rows = np.zeros((len(picked), length, *column.step_shape()), column.numpy)
        counts = np.zeros((len(picked), length), np.bool_)
        for row, entries in found.items():
            if self.goal == "one":
                self._check_one(entries)
            rows[row, : len(entries)] = entries
            counts[row, : len(entries) + decoded] = True
            if decoded:
                rows[row, len(entries)] = END
        goal = self._time_first(rows, self.target, column)
        fed = None
        if decoded:
            fed = np.concatenate([np.full((1, len(picked)), BEGIN, goal.dtype), goal[:-1]])
            fed[~counts.T] = BEGIN
        return goal, counts, fed

    def _check_one(self, entries: npt.NDArray[Any]) -> None:
        if len(entries) != 1:
            raise DataError(
                f"{self.split.place.shown}: split '{self.split.name}', column '{self.target}' has"
                f" {len(entries)} entries for a sequence where a label is one; take another target,"
                " or a loss or a decoder for several"
            )

    def _lay_out(self, epoch: int) -> _Epoch:
        order = np.arange(len(self.lengths))
        count = -(-len(order) // self.batch)
        turns = np.arange(count)
        if self.shuffle:
            bits = raw_bits(self.seed, epoch)
            keys: list[npt.NDArray[Any]] = [bits.random_raw(len(order))]
            if self._written is not None:
                keys.append(-_mixed(self._written, bits))
            keys += [-_mixed(self.lengths, bits), -self._chunks]
            order = np.lexsort(keys)
            turns = np.argsort(bits.random_raw(count), kind="stable")
        batches = np.full(count * self.batch, EMPTY, np.int64)
        batches[: len(order)] = order
        batches = batches.reshape(count, self.batch)[turns]
        chunks = np.where(batches == EMPTY, 0, self._chunks[batches]).max(axis=1)
        return _Epoch(batches, np.cumsum(chunks))


def _mixed(lengths: npt.NDArray[np.int64], bits: np.random.Philox) -> npt.NDArray[np.int64]:
    """Lengths, each longer by a share drawn from [0, 1 / MIXED_OVER), rounded down."""
    drawn = (np.asarray(bits.random_raw(len(lengths)), np.uint64) >> np.uint64(48)).astype(np.int64)
    return lengths + lengths * drawn // (MIXED_OVER << 16)
