"""The built-in learning-rate schedules; each has a ``warmup`` besides."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field

from rnnfarm.training.patience import Watching
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


class _Falling(Schedule):
    """A schedule whose course has an end.

    final: the factor at the end of the course, and after it; steps: the step at which the course
    ends, the run's last one if absent. A run that is later trained further needs it: its first
    steps would have been others otherwise.
    """

    final: Share = 0.0
    steps: Annotated[int, Field(ge=1)] | None = None

    def __call__(self, step: int, steps: int) -> float:
        return super().__call__(step, self.steps or steps)


class Cosine(_Falling):
    """Half a cosine from 1 to ``final`` (Loshchilov and Hutter 2017, without restarts)."""

    def factor(self, step: int, steps: int) -> float:
        share = min(step, steps) / steps
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * share))


class Linear(_Falling):
    """A straight line from 1 to ``final``."""

    def factor(self, step: int, steps: int) -> float:
        return 1 + (self.final - 1) * min(step, steps) / steps


class InverseSqrt(Schedule):
    """√(w / (w + step)), w the warm-up or 1 (Vaswani et al. 2017, section 5.3, scaled to 1)."""

    def factor(self, step: int, steps: int) -> float:
        scale = max(self.warmup, 1)
        return math.sqrt(scale / (scale + step))


class Plateau(Watching, Schedule):
    """``gamma`` times as large whenever several evaluations in a row were no better.

    An evaluation in which nothing could be measured does not count as one.

    patience: how many evaluations in a row may be no better; gamma: what the factor is then
    multiplied by; minimum: the factor below which it does not fall, as a share of the optimizer's
    learning rate.
    """

    patience: Annotated[int, Field(ge=1)] = 3
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.5
    minimum: Share = 0.0

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._scale = 1.0

    def factor(self, step: int, steps: int) -> float:
        return self._scale

    def observe(self, value: float) -> None:
        if self._patience.observe(value) >= self.patience:
            self._scale = max(self._scale * self.gamma, self.minimum)
            self._patience.waited = 0

    def state(self) -> dict[str, Any]:
        return self._patience.state() | {"scale": self._scale}

    def restore(self, state: dict[str, Any]) -> None:
        self._patience.restore(state)
        self._scale = state["scale"]
