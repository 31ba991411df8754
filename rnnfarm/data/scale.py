"""Bringing values to mean 0 and deviation 1, as the training part has them, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from rnnfarm.data.split import Split


@dataclass(frozen=True)
class Scale:
    """The mean and the deviation of each figure of a column, (W,) float64."""

    mean: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]

    @classmethod
    def of(cls, split: Split, column: str) -> Self:
        """Those of a split: once through it for the means and once for the deviations, in order.

        A figure that never changes has deviation 1.
        """
        if split.columns[column].own:
            parts = [split.all_own(column)]
        else:
            parts = [chunk.columns[column] for chunk in split.chunks(0, split.steps)]
        count = sum(len(part) for part in parts)
        mean = sum(part.sum(0, dtype=np.float64) for part in parts) / count
        squares = sum(((part - mean) ** 2).sum(0, dtype=np.float64) for part in parts)
        deviation = np.sqrt(squares / count)
        deviation[deviation == 0] = 1.0
        return cls(np.asarray(mean), deviation)

    def apply(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Values (…, W), scaled; of their dtype."""
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
