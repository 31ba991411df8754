"""The built-in learning-rate schedules; each has a ``warmup`` besides."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field

from rnnfarm.training.patience import Patience
from rnnfarm.training.schedule import Schedule

Share = Annotated[float, Field(ge=0, le=1)]


class Constant(Schedule):
    """1 throughout."""

    def factor(self, step: int, steps: int) -> float:
        return 1.0


class Step(Schedule):
    """``gamma`` times as large after every ``every`` steps.

    every: the number of steps between two changes; gamma: what the factor is multiplied by.
    """

    every: Annotated[int, Field(ge=1)]
    gamma: Annotated[float, Field(gt=0)] = 0.1

    def factor(self, step: int, steps: int) -> float:
        return float(self.gamma ** (step // self.every))


class Cosine(Schedule):
    """Half a cosine from 1 to ``final`` (Loshchilov and Hutter 2017, without restarts).

    final: the factor at the end of the run.
    """

    final: Share = 0.0

    def factor(self, step: int, steps: int) -> float:
        share = min(step, steps) / steps
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * share))


class Linear(Schedule):
    """A straight line from 1 to ``final``.

    final: the factor at the end of the run.
    """

    final: Share = 0.0

    def factor(self, step: int, steps: int) -> float:
        return 1 + (self.final - 1) * min(step, steps) / steps


class InverseSqrt(Schedule):
    """√(w / (w + step)), w the warm-up or 1 (Vaswani et al. 2017, section 5.3, scaled to 1)."""

    def factor(self, step: int, steps: int) -> float:
        scale = max(self.warmup, 1)
        return math.sqrt(scale / (scale + step))


class Plateau(Schedule):
    """``gamma`` times as large whenever ``patience`` evaluations in a row were no better.

    patience: how many evaluations in a row may be no better; gamma: what the factor is then
    multiplied by; min_delta: by how much the validation loss must fall below the best one to count
    as better.
    """

    needs_evaluation = True
    patience: Annotated[int, Field(ge=1)] = 3
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.5
    min_delta: Annotated[float, Field(ge=0)] = 0.0

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._patience = Patience(self.min_delta)
        self._scale = 1.0

    def factor(self, step: int, steps: int) -> float:
        return self._scale

    def observe(self, valid_loss: float) -> None:
        if self._patience.observe(valid_loss) >= self.patience:
            self._scale *= self.gamma
            self._patience.waited = 0

    def state(self) -> dict[str, Any]:
        return self._patience.state() | {"scale": self._scale}

    def restore(self, state: dict[str, Any]) -> None:
        self._patience.restore(state)
        self._scale = state["scale"]
