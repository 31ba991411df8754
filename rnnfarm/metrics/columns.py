"""Errors of values, added up column by column, so that any number of them takes no more memory.

Sums are float64 and in the order in which batches are added. An error of nothing is nan.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class ColumnErrors:
    """The errors of predictions in each of ``width`` columns, and of intervals where there are any.

    Attributes:
        count: how many targets each column has, (width,) int64.
        squares, sizes: the sums of (y - f)² and of ``|y - f|``, (width,).
    """

    def __init__(self, width: int) -> None:
        self.count = np.zeros(width, np.int64)
        self.squares, self.sizes, self.widths = (np.zeros(width) for _ in range(3))
        self.inside = np.zeros(width, np.int64)
        self.intervals = False

    def add(
        self,
        targets: ArrayLike,
        predictions: ArrayLike,
        low: ArrayLike | None = None,
        high: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> None:
        """Add targets (…, width), what was said of them, and the ends of their intervals.

        ``mask``: true for each target that counts; all do without one.
        """
        y, f = self._rows(targets), self._rows(predictions)
        seen = np.ones(y.shape, np.bool_) if mask is None else np.asarray(mask).reshape(y.shape)
        with np.errstate(over="ignore", invalid="ignore"):
            error = np.where(seen, y - f, 0.0)
            self.squares += (error * error).sum(0)
            self.sizes += np.abs(error).sum(0)
            self.count += seen.sum(0)
            if low is not None and high is not None:
                bottom, top = self._rows(low), self._rows(high)
                self.intervals = True
                self.inside += (seen & (bottom <= y) & (y <= top)).sum(0)
                self.widths += np.where(seen, top - bottom, 0.0).sum(0)

    def _rows(self, values: ArrayLike) -> Floats:
        return np.asarray(values, np.float64).reshape(-1, len(self.count))

    def mse(self, unit: ArrayLike = 1.0) -> float:
        """Return the mean squared error over all columns, each measured in its ``unit``."""
        return _over((self.squares / np.square(unit)).sum(), self.count.sum())

    def mae(self, unit: ArrayLike = 1.0) -> float:
        """Return the mean absolute error over all columns, each measured in its ``unit``."""
        return _over((self.sizes / np.asarray(unit)).sum(), self.count.sum())

    def mase(self, scale: ArrayLike) -> float:
        """Return the mean absolute scaled error; see ``metrics.forecast.mase``."""
        usable = np.asarray(scale) > 0  # false for nan
        divisor = np.where(usable, scale, 1.0)
        return _over((self.sizes / divisor)[usable].sum(), self.count[usable].sum())

    def coverage(self) -> float:
        """Return the share of targets that lie in their interval."""
        return _over(self.inside.sum(), self.count.sum())

    def interval_width(self, unit: ArrayLike = 1.0) -> float:
        """Return the mean width of intervals, of each column in its ``unit``."""
        return _over((self.widths / np.asarray(unit)).sum(), self.count.sum())

    def by_column(self) -> list[dict[str, float]]:
        """Return the errors of each column in its own unit."""
        return [
            {"mse": _over(square, count), "mae": _over(size, count)}
            for square, size, count in zip(self.squares, self.sizes, self.count, strict=True)
        ]


class SeasonalScale:
    """The mean of ``|y[t] - y[t - period]|`` of each column, added up over pieces of sequences.

    What ``mase`` divides by (``metrics.forecast.seasonal_scale``): a difference counts where both
    of its ends are in one sequence and were observed. Memory goes with the period alone.
    """

    def __init__(self, width: int, period: int) -> None:
        self.period = period
        self.sums, self.count = np.zeros(width), np.zeros(width, np.int64)
        self._values = np.empty((0, width))
        self._seen = np.empty((0, width), np.bool_)

    def add(self, values: ArrayLike, seen: NDArray[np.bool_], begins: bool) -> None:
        """Add the next steps (steps, width); ``begins``: a sequence begins with them."""
        y = np.asarray(values, np.float64)
        if not begins:
            y, seen = np.concatenate([self._values, y]), np.concatenate([self._seen, seen])
        both = seen[self.period :] & seen[: -self.period]
        with np.errstate(over="ignore", invalid="ignore"):
            steps = np.where(both, np.abs(y[self.period :] - y[: -self.period]), 0.0)
        self.sums += steps.sum(0)
        self.count += both.sum(0)
        self._values, self._seen = y[-self.period :].copy(), seen[-self.period :].copy()

    def value(self) -> Floats:
        """Return the scale of each column, nan for one without a difference."""
        with np.errstate(invalid="ignore"):
            scale: Floats = self.sums / self.count
        return scale


def _over(total: float, count: Any) -> float:
    return float(total) / int(count) if count else float("nan")
