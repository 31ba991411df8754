"""Measures of forecasts.

Targets and predictions are arrays (N, horizon, series): N windows of ``horizon`` steps. A mask of
that shape is true where the target was observed (all were without one), and only these count: a
mean over windows, steps and series is over what was observed. What is computed is float64; each
window's sum is formed by itself, and the windows' sums are added exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnnfarm.metrics.mean import Mean

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def squared_errors(
    targets: ArrayLike, predictions: ArrayLike, mask: ArrayLike | None = None
) -> Mean:
    """Squared errors (y - f)² over their number: the mean squared error of a batch."""
    y, f = _arrays(targets, predictions)
    with np.errstate(over="ignore", invalid="ignore"):
        return _mean((y - f) ** 2, mask)


def mse(targets: ArrayLike, predictions: ArrayLike, mask: ArrayLike | None = None) -> float:
    """The mean squared error; nan where nothing was observed."""
    return squared_errors(targets, predictions, mask).value()


def absolute_errors(
    targets: ArrayLike, predictions: ArrayLike, mask: ArrayLike | None = None
) -> Mean:
    """Absolute errors ``|y - f|`` over their number: the mean absolute error of a batch."""
    y, f = _arrays(targets, predictions)
    with np.errstate(over="ignore", invalid="ignore"):
        return _mean(np.abs(y - f), mask)


def mae(targets: ArrayLike, predictions: ArrayLike, mask: ArrayLike | None = None) -> float:
    """The mean absolute error; nan where nothing was observed."""
    return absolute_errors(targets, predictions, mask).value()


def seasonal_scale(training: ArrayLike, period: int = 1, mask: ArrayLike | None = None) -> Floats:
    """The mean of ``|y[t] - y[t - period]|`` over the training part: what MASE divides by.

    ``training`` and ``mask`` are (T, series), which gives (series,), or (N, T, series) for a
    training part of each window's own, which gives (N, series). A difference counts where both of
    its ends were observed; nan for a series without one.
    """
    y = np.asarray(training, np.float64)
    if y.ndim not in (2, 3):
        raise ValueError(f"training has shape (T, series) or (N, T, series), not {y.shape}")
    _check_period(period)
    seen = _observed(mask, y.shape)
    both = seen[..., period:, :] & seen[..., :-period, :]
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.where(both, np.abs(y[..., period:, :] - y[..., :-period, :]), 0.0)
        # Time last and contiguous: each series is summed by itself, in one order.
        sums = np.ascontiguousarray(np.swapaxes(steps, -1, -2)).sum(axis=-1)
        scale: Floats = sums / both.sum(axis=-2)
    return scale


def scaled_errors(
    targets: ArrayLike, predictions: ArrayLike, scale: ArrayLike, mask: ArrayLike | None = None
) -> Mean:
    """Absolute errors, each divided by its series' scale, over their number; see ``mase``."""
    y, f = _arrays(targets, predictions)
    scales = np.asarray(scale, np.float64)
    if scales.shape not in (y.shape[2:], (y.shape[0], y.shape[2])):
        raise ValueError(
            f"scale has shape (series,) or (N, series) with targets {y.shape}, not {scales.shape}"
        )
    divisor = np.broadcast_to(scales[..., None, :], y.shape)
    usable = divisor > 0  # false for nan
    with np.errstate(over="ignore", invalid="ignore"):
        return _mean(np.abs(y - f) / np.where(usable, divisor, 1.0), mask, usable)


def mase(
    targets: ArrayLike, predictions: ArrayLike, scale: ArrayLike, mask: ArrayLike | None = None
) -> float:
    """The mean absolute scaled error: the mean of ``|y - f| / scale``.

    Hyndman and Koehler 2006, "Another look at measures of forecast accuracy". ``scale`` is what
    ``seasonal_scale`` gives of the training part, (series,) or (N, series). The error isn't
    defined for a series whose scale is 0 or nan (one that was constant or hardly observed in
    training): it is left out. nan where nothing is left.
    """
    return scaled_errors(targets, predictions, scale, mask).value()


def covered(
    targets: ArrayLike, low: ArrayLike, high: ArrayLike, mask: ArrayLike | None = None
) -> Mean:
    """How many targets lie in their interval, over how many there are."""
    y, bottom, top = _arrays(targets, low, high)
    return _mean(((bottom <= y) & (y <= top)).astype(np.float64), mask)


def coverage(
    targets: ArrayLike, low: ArrayLike, high: ArrayLike, mask: ArrayLike | None = None
) -> float:
    """The share of targets with low <= y <= high; nan where nothing was observed."""
    return covered(targets, low, high, mask).value()


def interval_widths(low: ArrayLike, high: ArrayLike, mask: ArrayLike | None = None) -> Mean:
    """The widths high - low of intervals over their number."""
    bottom, top = _arrays(low, high)
    with np.errstate(over="ignore", invalid="ignore"):
        return _mean(top - bottom, mask)


def interval_width(low: ArrayLike, high: ArrayLike, mask: ArrayLike | None = None) -> float:
    """The mean width of intervals; nan where nothing was observed."""
    return interval_widths(low, high, mask).value()


def pinball_losses(
    targets: ArrayLike, predictions: ArrayLike, level: float, mask: ArrayLike | None = None
) -> Mean:
    """Pinball losses over their number; see ``pinball_loss``."""
    if not 0 < level < 1:
        raise ValueError(f"the level of a quantile is between 0 and 1, not {level}")
    y, f = _arrays(targets, predictions)
    with np.errstate(over="ignore", invalid="ignore"):
        error = y - f
        return _mean(np.maximum(level * error, (level - 1) * error), mask)


def pinball_loss(
    targets: ArrayLike, predictions: ArrayLike, level: float, mask: ArrayLike | None = None
) -> float:
    """The mean of max(q (y - f), (q - 1) (y - f)) for forecasts of the quantile q = ``level``.

    Koenker and Bassett 1978, "Regression quantiles". At level 0.5 it is half the mean absolute
    error. nan where nothing was observed.
    """
    return pinball_losses(targets, predictions, level, mask).value()


def repeat_last(history: ArrayLike, horizon: int, mask: ArrayLike | None = None) -> Floats:
    """Baseline: each series' last observed value of ``history`` (N, T, series), for each step.

    Gives (N, horizon, series); nan for a series without one.
    """
    return seasonal_repeat(history, horizon, 1, mask)


def seasonal_repeat(
    history: ArrayLike, horizon: int, period: int, mask: ArrayLike | None = None
) -> Floats:
    """Baseline: the last observed value at the same place in the period.

    ``history`` and ``mask`` are (N, T, series), T at least ``period``; without gaps the last
    ``period`` steps are repeated over and over. Gives (N, horizon, series); nan where no value at
    that place was observed.
    """
    (y,) = _arrays(history)
    _check_period(period)
    rows, length, series = y.shape
    if length < period:
        raise ValueError(f"a history of {length} steps is shorter than the period of {period}")
    seen = _observed(mask, y.shape)
    # Whole periods, counted back from the end; the first one may begin with steps not observed.
    periods = -(-length // period)
    missing = ((0, 0), (periods * period - length, 0), (0, 0))
    shape = (rows, periods, period, series)
    values = np.pad(y, missing).reshape(shape)[:, ::-1]
    known = np.pad(seen, missing).reshape(shape)[:, ::-1]
    newest = np.argmax(known, axis=1, keepdims=True)
    season = np.take_along_axis(np.where(known, values, np.nan), newest, axis=1)[:, 0]
    repeated: Floats = season[:, np.arange(horizon) % period]
    return repeated


def _mean(values: Floats, mask: ArrayLike | None, usable: Bools | None = None) -> Mean:
    """The mean of (N, horizon, series) where ``mask`` and ``usable`` are true."""
    counted = _observed(mask, values.shape)
    if usable is not None:
        counted = counted & usable
    kept = np.where(counted, values, 0.0)  # not a product: what wasn't observed may be nan
    # A row for each window, contiguous: its sum is formed in one order, whatever the batch.
    rows = np.ascontiguousarray(kept).reshape(len(kept), -1) if kept.size else np.zeros((0, 1))
    with np.errstate(over="ignore", invalid="ignore"):
        return Mean.of(rows.sum(axis=1).tolist(), int(np.count_nonzero(counted)))


def _arrays(*arrays: ArrayLike) -> list[Floats]:
    """As float64, of one shape (N, steps, series)."""
    result = [np.asarray(array, np.float64) for array in arrays]
    shapes = {array.shape for array in result}
    if len(shapes) > 1 or result[0].ndim != 3:
        raise ValueError(
            "the arrays have one shape (N, steps, series), not "
            + " and ".join(str(shape) for shape in sorted(shapes))
        )
    return result


def _observed(mask: ArrayLike | None, shape: tuple[int, ...]) -> Bools:
    if mask is None:
        return np.ones(shape, np.bool_)
    seen = np.asarray(mask)
    if seen.dtype != np.bool_ or seen.shape != shape:
        raise ValueError(f"the mask is bool of shape {shape}, not {seen.dtype} of {seen.shape}")
    return seen


def _check_period(period: int) -> None:
    if period < 1:
        raise ValueError(f"the period is 1 or more, not {period}")
