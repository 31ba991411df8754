"""Waiting for a metric to get better: what early stopping and the plateau schedule share."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from rnnfarm.settings import Part
from rnnfarm.training.monitor import Monitor


class Patience:
    """Counts the values since the best one.

    A value counts as better if it is better than the best one before by more than ``min_delta``.
    NaN and infinity never do.
    """

    def __init__(self, monitor: Monitor, min_delta: float) -> None:
        self.monitor, self.min_delta = monitor, min_delta
        self.best: float | None = None
        self.waited = 0

    def observe(self, value: float) -> int:
        """Return how many values in a row, this one included, were no better than the best."""
        if self.monitor.better(value, self.best, self.min_delta):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        return self.waited

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]


class Watching(Part):
    """A schedule or a callback that waits for a metric of the evaluations to get better.

    metric: which metric of an evaluation it goes by; that of training.monitor if absent.
    mode: whether the metric is better the lower (min) or the higher (max) it is; as is known of it
    if absent.
    min_delta: by how much the metric must be better than the best one before to count as better.
    """

    needs_evaluation: ClassVar[bool] = True
    metric: str | None = None
    mode: Literal["min", "max"] | None = None
    min_delta: Annotated[float, Field(ge=0)] = 0.0

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.watch(Monitor(self.metric or "valid_loss", self.mode or "min"))

    def watch(self, monitor: Monitor) -> None:
        """Go by ``monitor`` from now on; a run says it before its first step."""
        self.monitor = monitor
        self.forget()

    def forget(self) -> None:
        """Compare with no value so far: there is none, or those were of other data."""
        self._patience = Patience(self.monitor, self.min_delta)
