"""Waiting for a figure to get better: what early stopping and the plateau schedule share."""

from __future__ import annotations

import math
from typing import Any


class Patience:
    """Counts the values since the best one; the lower the better.

    A value counts as better if it is more than ``min_delta`` below the best one before. NaN and
    infinity never do.
    """

    def __init__(self, min_delta: float) -> None:
        self.min_delta = min_delta
        self.best: float | None = None
        self.waited = 0

    def observe(self, value: float) -> int:
        """How many values in a row, this one included, were no better than the best."""
        if math.isfinite(value) and (self.best is None or value < self.best - self.min_delta):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        return self.waited

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]
