"""A window of a batch, and what streams and examples share in filling it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np

from rnnfarm.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from rnnfarm.data.chunks import Chunk
    from rnnfarm.data.left_out import LeftOut
    from rnnfarm.data.manifest import Column
    from rnnfarm.data.scale import Scale
    from rnnfarm.data.split import Split

NEXT = "next"
#: The column that says where a table's target was there, see `data.observed.counted_by`.
OBSERVED = "observed"
#: The first entries of the vocabulary of what a decoder writes.
BEGIN, END = 0, 1


@dataclass(frozen=True, slots=True)
class Window:
    """`T` steps of `B` rows, time first.

    x (T, B) int32 tokens or (T, B, F) values; target (T, B) int32 or (T, B, O), 0 where it is not
    valid; valid (T, B) bool, the steps whose loss counts; mask (T, B) bool or None (all True),
    False at padding, where a state keeps its value; reset (T, B) bool or None (all False), True at
    a step that starts from the initial state.

    Where the target is an own column of the sequences (see `Examples`), target and valid have a
    time of their own: 1 entry, or `L`. fed (L, B) int32 is what a decoder reads. base (1, B, O) is
    what was taken from the target of a forecast, and is to be added to what the model says.
    """

    x: npt.NDArray[Any]
    target: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_]
    mask: npt.NDArray[np.bool_] | None
    reset: npt.NDArray[np.bool_] | None
    fed: npt.NDArray[np.int32] | None = None
    base: npt.NDArray[Any] | None = None


class Reading(TypedDict):
    """What all windows of a split are told of what to read; see Windows."""

    input: str
    target: str
    batch: int
    window: int
    dtype: NotRequired[str]
    observed: NotRequired[str | None]
    scales: NotRequired[Mapping[str, Scale] | None]


class Windows(ABC):
    """An endless row of windows, epoch after epoch; base of Streams, Examples and Forecasts.

    input, target: columns; the target `next` is the input's next step. window: the steps of a
    window at most. scales: how columns of values are scaled, by their names.

    observed: a column of tokens 0 and 1, which says of every step whether what it gives a target
    was observed. A step whose target was not is not valid. For the target `next` that is what the
    column says of the next step; an own column of the sequences is not asked for steps.
    """

    def __init__(
        self,
        split: Split,
        *,
        input: str,
        target: str,
        batch: int,
        window: int,
        dtype: str = "float32",
        observed: str | None = None,
        scales: Mapping[str, Scale] | None = None,
    ) -> None:
        if batch < 1 or window < 1:
            raise JobError(f"batch {batch} and window {window} must be at least 1")
        self.split = split
        self.input = input
        self.target = target
        self.batch = batch
        self.window = window
        self.stride = window
        self.dtype = np.dtype(dtype)
        self.observed = observed
        self.scales = scales or {}
        self._column = split.column(input)
        self._ahead = int(target == NEXT)  # the steps read beyond the input's
        self._target_column = self._column if self._ahead else split.column(target)
        if self._column.own:
            raise JobError(
                f"{split.place.shown}: column '{input}' has no entry for every step, so it cannot"
                " be the input; take another as data.input"
            )
        if observed is not None and not split.column(observed).is_flag:
            raise JobError(
                f"{split.place.shown}: column '{observed}' is to say which steps were observed,"
                " which is a token, 0 or 1, for every step; give it another name"
            )

    @abstractmethod
    def windows_in_epoch(self, epoch: int = 0) -> int:
        """The number of windows of an epoch; the same for every epoch."""

    @abstractmethod
    def read(self, n: int, rows: slice = slice(None)) -> Window:
        """Window n = 0, 1, 2, … of these rows of the batch: a function of n alone.

        Reads nothing of other rows. DataError where a shard is missing or damaged, or has a value
        that its column does not allow.
        """

    @abstractmethod
    def left_out(self) -> LeftOut:
        """Return what of the split no window has as a target."""

    def locate(self, n: int) -> tuple[int, int]:
        """The epoch that window n belongs to, and its number in it."""
        if n < 0:
            raise IndexError(f"window {n}: windows are counted from 0")
        return divmod(n, self.windows_in_epoch(0))

    def _buffers(self, rows: int, steps: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
        """Room for `rows` of input (with the step after it) and of a target of its own."""
        column, other = self._column, self._target_column
        x = np.zeros((rows, steps + self._ahead, *column.step_shape()), column.numpy)
        if self._ahead or other.own:
            return x, None
        return x, np.zeros((rows, steps, *other.step_shape()), other.numpy)

    def _copy(self, chunk: Chunk | None, column: str, low: int, high: int, out: Any) -> None:
        """Copy steps [low, high) to the front of `out`, from `chunk` where it holds them all."""
        if chunk is None:
            out[: high - low] = self.split.read(column, low, high)
        else:
            out[: high - low] = chunk.columns[column][low - chunk.low : high - chunk.low]

    def _seen(self, low: int, high: int) -> npt.NDArray[np.bool_]:
        """Of the steps [low, high), whether their targets were observed."""
        seen = np.ones(high - low, np.bool_)
        if self.observed is not None:
            first, end = low + self._ahead, min(high + self._ahead, self.split.steps)
            seen[: end - first] = self.split.read(self.observed, first, end)
        return seen

    def _finish(
        self,
        x: npt.NDArray[Any],
        target: npt.NDArray[Any] | None,
        valid: npt.NDArray[np.bool_],
        mask: npt.NDArray[np.bool_] | None,
        reset: npt.NDArray[np.bool_] | None,
    ) -> Window:
        """The window of buffers that have the rows first."""
        if target is None:
            x, target = x[:, :-1], x[:, 1:]
        inputs = self._inputs(x, mask)
        name = self.input if self._ahead else self.target
        targets = self._time_first(target, name, self._target_column)
        targets[~valid.T] = 0
        return Window(inputs, targets, turned(valid), turned(mask), turned(reset))

    def _inputs(self, x: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None) -> npt.NDArray[Any]:
        inputs = self._time_first(x, self.input, self._column)
        if mask is not None:
            inputs[~mask.T] = 0  # where the step after the last one was read as a target
        return inputs

    def _time_first(self, rows: npt.NDArray[Any], name: str, column: Column) -> npt.NDArray[Any]:
        turned = rows.swapaxes(0, 1)
        if column.vocabulary is None:
            return self._scaled(turned, name)
        return turned.astype(np.int32, order="C")

    def _scaled(self, values: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
        values = values.astype(self.dtype, order="C")
        return self.scales[name].apply(values) if name in self.scales else values


def turned(rows: npt.NDArray[np.bool_] | None) -> Any:
    """``(B, T)`` as ``(T, B)``."""
    return None if rows is None else np.ascontiguousarray(rows.T)
