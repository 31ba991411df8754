"""Bringing values to mean 0 and deviation 1, as the training part has them, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rnnfarm.data.observed import Observed

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from rnnfarm.data.split import Split


def _measured(
    split: Split, column: str, is_target: bool
) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]]:
    """Give the values (steps, W) of a split in parts, and which of them were measured."""
    if split.columns[column].own:
        values = split.all_own(column)
        yield values, np.ones(values.shape, np.bool_)
        return
    observed = Observed(split.columns, column, is_target)
    for chunk in split.chunks(0, split.steps):
        values = chunk.columns[column]
        always = np.broadcast_to(np.True_, values.shape)
        yield values, always if observed.always else observed.of(chunk.columns)


@dataclass(frozen=True)
class Scale:
    """The mean and the deviation of each figure of a column, (W,) float64."""

    mean: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]

    @classmethod
    def of(cls, split: Split, column: str, is_target: bool = False) -> Self:
        """Those of what was measured in a split, a record batch at a time: once through it for the
        means and once for the deviations, in order.

        A value that never changes has deviation 1, and one that was never measured mean 0 too.
        """
        width = split.columns[column].width
        count, total = np.zeros(width, np.int64), np.zeros(width)
        for part, seen in _measured(split, column, is_target):
            count += seen.sum(0)
            total += np.where(seen, part, 0).sum(0, dtype=np.float64)
        count = np.maximum(count, 1)
        mean = total / count
        squares = sum(
            np.where(seen, (part - mean) ** 2, 0).sum(0, dtype=np.float64)
            for part, seen in _measured(split, column, is_target)
        )
        deviation = np.sqrt(squares / count)
        # What the rounding of the mean makes of a value that never changes is no deviation.
        deviation[deviation <= count * np.finfo(np.float64).eps * np.abs(mean)] = 1.0
        return cls(mean, deviation)

    def apply(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Values (…, W), scaled; of their dtype, infinite where that cannot hold them."""
        with np.errstate(over="ignore"):
            return ((values - self.mean) / self.deviation).astype(values.dtype)

    def undo(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Scaled values (…, W) as they were."""
        return values * self.deviation + self.mean

    def to_dict(self) -> dict[str, list[float]]:
        """As JSON holds it."""
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

    @classmethod
    def from_dict(cls, plain: dict[str, list[float]]) -> Self:
        """What ``to_dict`` gave."""
        return cls(np.array(plain["mean"]), np.array(plain["deviation"]))
