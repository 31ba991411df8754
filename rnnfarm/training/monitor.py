"""Which metric of its evaluations a run goes by, and which way it is better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rnnfarm.errors import JobError

#: Whether a metric is better the lower or the higher it is.
Direction = Literal["min", "max"]


@dataclass(frozen=True)
class Monitor:
    """A metric of evaluations, as ``metrics.jsonl`` names it, and its better direction."""

    metric: str = "valid_loss"
    mode: Direction = "min"

    def value(self, metrics: Mapping[str, Any]) -> float | None:
        """Return the metric of an evaluation, or None where nothing could be measured."""
        value = metrics[self.metric]
        return None if value is None else float(value)

    def better(self, value: float, best: float | None, by: float = 0.0) -> bool:
        """Return whether ``value`` is better than ``best``, by more than ``by``.

        NaN and infinity never are; any other value is better than none.
        """
        if not math.isfinite(value):
            return False
        if best is None:
            return True
        return value < best - by if self.mode == "min" else value > best + by


def monitor_of(
    key: str, metric: str, mode: Direction | None, known: Mapping[str, Direction | None]
) -> Monitor:
    """Return the monitor of a metric that evaluations measure.

    Args:
        key: the key of the job that names the metric, for errors.
        mode: which way it is better; that in ``known`` if absent.
        known: every metric of an evaluation, and which way it is better where that is known.

    Raises JobError for a metric that is not measured, or whose direction nobody has said.
    """
    if metric not in known:
        raise JobError(
            f"{key}: {metric!r} is not measured by the evaluations of this job; they measure "
            + ", ".join(known)
        )
    mode = mode or known[metric]
    if mode is None:
        where = key.rpartition(".")[0]
        raise JobError(
            f"{key}: it is not known whether {metric!r} is better the lower or the higher; set "
            f'{where}.mode = "min" or "max"'
        )
    return Monitor(metric, mode)
