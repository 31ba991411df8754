"""The metrics of values: forecasts, values at every step, and one row of them for a sequence.

``mse``, ``mae`` and ``interval_width`` are in the units of the data, and with ``_scaled`` behind
their names in deviations of the training part, where the job scales its data.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from rnnfarm.data.observed import Observed
from rnnfarm.data.scale import Scale
from rnnfarm.data.split import Split
from rnnfarm.metrics import forecast
from rnnfarm.metrics.columns import ColumnErrors, SeasonalScale
from rnnfarm.training.answers import Answer
from rnnfarm.training.run import OpenRun
from rnnfarm.training.setup import Model

Metrics = dict[str, Any]


class ValueErrors:
    """The errors of what a model, or a baseline, says of a column of values."""

    def __init__(self, opened: OpenRun) -> None:
        name = opened.model.target_column
        self.column = opened.dataset.columns[name]
        self.scale = opened.model.scales.get(name)
        self.sums = ColumnErrors(self.column.width)

    def own(self, values: Any) -> Any:
        """Return values (…, n · width) as (…, n, width), in the units of the data."""
        given = np.asarray(values, np.float64)
        rows = given.reshape(*given.shape[:-1], -1, self.column.width)
        return rows if self.scale is None else self.scale.undo(rows)

    def metrics(self) -> Metrics:
        """Return the metrics over all columns."""
        sums = self.sums
        found: Metrics = {"mse": sums.mse(), "mae": sums.mae()}
        if sums.intervals:
            found |= {"coverage": sums.coverage(), "interval_width": sums.interval_width()}
        if self.scale is not None:
            unit = self.scale.deviation
            found |= {"mse_scaled": sums.mse(unit), "mae_scaled": sums.mae(unit)}
            if sums.intervals:
                found["interval_width_scaled"] = sums.interval_width(unit)
        return found

    def by_column(self) -> Metrics:
        """Return the metrics of each column by its name, where there are several."""
        width = self.column.width
        names = self.column.names or [str(place) for place in range(width)]
        if width == 1:
            return {}
        return {"columns": dict(zip(names, self.sums.by_column(), strict=True))}


class OneValueScores:
    """Of one row of values for a sequence, beside the mean of the training part."""

    def __init__(self, opened: OpenRun, train: Split) -> None:
        self.model = opened.model
        self.found, self.plain = ValueErrors(opened), ValueErrors(opened)
        self.mean = mean_of_training(opened.model, train)

    def add(self, batch: Sequence[Answer]) -> None:
        """Add answers."""
        own = self.found.own
        targets = own(np.stack([one.target for one in batch]))
        self.found.sums.add(targets, *_owned(own, middles(self.model, batch)))
        self.plain.sums.add(targets, np.broadcast_to(self.mean, targets.shape))

    def result(self) -> tuple[Metrics, Metrics]:
        """Return the metrics of the model, and those of the mean."""
        return self.found.metrics() | self.found.by_column(), self.plain.metrics()


class ForecastScores:
    """Of forecasts, beside the last value and, with a period, the last season."""

    def __init__(self, opened: OpenRun, train: Split, part: Split) -> None:
        self.model, self.part = opened.model, part
        self.name = opened.model.target_column
        self.horizon, self.period = opened.job.data.horizon, opened.job.data.period
        self.window = opened.job.training.window
        self.seen = Observed(part.columns, self.name, is_target=True)
        self.found, self.last = ValueErrors(opened), ValueErrors(opened)
        self.season = ValueErrors(opened) if 1 < self.period <= self.window else None
        self.scale = seasonal_scale(train, self.name, self.period)

    def add(self, batch: Sequence[Answer]) -> None:
        """Add answers."""
        own = self.found.own
        targets = own(np.stack([one.target for one in batch]))  # (N, horizon, W)
        self.found.sums.add(targets, *_owned(own, middles(self.model, batch)))
        history, seen = self._history(batch)
        last = forecast.repeat_last(history[:, -1:], self.horizon)
        self.last.sums.add(targets, last)
        if self.season is not None:
            season = forecast.seasonal_repeat(history, self.horizon, self.period, seen)
            season = np.where(np.isnan(season), last, season)
            self.season.sums.add(targets, season)

    def _history(self, batch: Sequence[Answer]) -> tuple[Any, Any]:
        """Return what came before each forecast (N, T, W), and what of it was measured.

        Where all was, a season is enough.
        """
        season = self.period if self.season is not None else 1
        steps = season if self.seen.always else self.window
        ends = [one.place.start + one.place.step for one in batch]
        read = self.part.read
        history = np.stack([read(self.name, end - steps, end) for end in ends]).astype(np.float64)
        if self.seen.always:
            return history, None
        names = self.seen.columns
        seen = [self.seen.of({n: read(n, end - steps, end) for n in names}) for end in ends]
        return history, np.stack(seen)

    def result(self) -> tuple[Metrics, Metrics]:
        """Return the metrics of the model, and those of the baselines."""
        found, baseline = self.found.metrics(), self.last.metrics()
        found["mase"] = self.found.sums.mase(self.scale)
        baseline["mase"] = self.last.sums.mase(self.scale)
        if self.season is not None:
            season = self.season.metrics() | {"mase": self.season.sums.mase(self.scale)}
            baseline |= {f"seasonal_{name}": value for name, value in season.items()}
        return found | self.found.by_column(), baseline


class StepValueScores:
    """Of values at every step, beside the last value where the target is the next one, else the
    mean of the training part."""

    def __init__(self, opened: OpenRun, train: Split) -> None:
        self.loss = opened.model.loss
        self.found, self.plain = ValueErrors(opened), ValueErrors(opened)
        ahead = opened.model.target_column == opened.model.input
        self.mean = None if ahead else mean_of_training(opened.model, train)

    def add(self, window: Any, output: Any) -> None:
        """Add a window and what the model gives for it."""
        counts = self.loss.counted(window.target, window.valid)
        if not counts.any():
            return
        own = self.found.own
        targets = own(window.target[counts])  # (N, 1, W)
        parts = self.loss.loss.interval(output[counts], window.target.shape[-1])
        self.found.sums.add(targets, *_owned(own, parts))
        plain = own(window.x[counts]) if self.mean is None else self.mean
        self.plain.sums.add(targets, np.broadcast_to(plain, targets.shape))

    def result(self) -> tuple[Metrics, Metrics]:
        """Return the metrics of the model, and those of the baseline."""
        return self.found.metrics() | self.found.by_column(), self.plain.metrics()


def mean_of_training(model: Model, train: Split) -> Any:
    """Return the mean of what was measured of the target in the training part, (W,)."""
    name = model.target_column
    known = model.scales.get(name)
    return (Scale.of(train, name, is_target=True) if known is None else known).mean


def seasonal_scale(train: Split, name: str, period: int) -> Any:
    """Return what ``mase`` divides by: of each column the mean of ``|y[t] - y[t - period]|``, both
    of them in one sequence of the training part and measured; (W,)."""
    seen = Observed(train.columns, name, is_target=True)
    scale = SeasonalScale(train.columns[name].width, period)
    for chunk in train.chunks(0, train.steps):
        values = chunk.columns[name]
        known = np.ones(values.shape, np.bool_) if seen.always else seen.of(chunk.columns)
        begins = set((chunk.starts - chunk.low).tolist())
        for low, high in pairwise(sorted({0, *begins, len(values)})):
            scale.add(values[low:high], known[low:high], low in begins)
    return scale.value()


def middles(model: Model, found: Sequence[Answer]) -> tuple[Any, Any, Any]:
    """Return of answers of values the middle (N, width), and where the loss has one the interval;
    see ``Loss.interval``."""
    given = np.stack([one.output for one in found])
    center, low, high = model.loss.loss.interval(given, model.loss.targets)
    if found[0].base is None:
        return center, low, high
    base = np.stack([one.base for one in found])
    return (center + base, None, None) if low is None else (center + base, low + base, high + base)


def _owned(own: Any, parts: tuple[Any, Any, Any]) -> list[Any]:
    return [None if part is None else own(part) for part in parts]
