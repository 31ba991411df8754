"""An optimizer, as its equations for one element of the parameters."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from rnnfarm import Optimizer, sign


class SignMomentum(Optimizer):
    """Steps of one size in the direction of a running mean (Signum, Bernstein et al. 2018).

    beta: how much of the mean is kept at each step.
    """

    states = ("mean",)
    lr: Annotated[float, Field(gt=0)] = 1e-3
    beta: Annotated[float, Field(ge=0, lt=1)] = 0.9

    def step(self, param: Any, grad: Any, mean: Any, *, lr: Any, t: Any) -> Any:
        if self.weight_decay:
            grad = grad + self.weight_decay * param
        mean = self.beta * mean + (1 - self.beta) * grad
        return param - lr * sign(mean), mean
