"""The built-in losses, each as its equation of one step.

``output`` is what the network gives at a step and ``target`` what it should have given; units are
summed. ``reduction`` says what the sum over valid steps is divided by.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from rnnfarm.equations.graph import Symbol
from rnnfarm.equations.language import (
    equal,
    exp,
    log,
    maximum,
    pick,
    row_max,
    row_sum,
    softplus,
    split,
    where,
)
from rnnfarm.equations.parts import Loss


class MeanSquaredError(Loss):
    """½‖target - output‖², summed over outputs and, unless ``reduction = "mean"``, over steps."""

    reduction: Literal["sum", "mean"] = "sum"

    def step(self, output: Symbol, target: Symbol) -> Symbol:
        error = output - target
        return 0.5 * error * error


class CrossEntropy(Loss):
    """-log softmax(output)[target], for classes; the output is logits.

    label_smoothing: the share ε of the target that is spread evenly over all classes (Szegedy et
        al. 2016, section 7): (1 - ε) · loss of the target + ε · mean of the losses of all classes.
    ignore: a target that does not count.
    """

    target_kind: ClassVar[Literal["classes", "values"]] = "classes"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ignore: int | None = None

    def step(self, output: Symbol, target: Symbol) -> Symbol:
        # The largest logit cancels; without it exp would overflow.
        logits = output - row_max(output)
        likely = pick(logits, target)
        if self.label_smoothing:
            spread = row_sum(logits) / logits.width
            likely = (1 - self.label_smoothing) * likely + self.label_smoothing * spread
        return log(row_sum(exp(logits))) - likely

    def ignored(self, target: Symbol) -> Symbol | None:
        return None if self.ignore is None else equal(target, self.ignore)


class BinaryCrossEntropy(Loss):
    """-target · log σ(output) - (1 - target) · log(1 - σ(output)); the output is logits.

    A target is a probability, 0 or 1 as a rule. Written as softplus(output) - target · output,
    which neither overflows nor loses the small ones.
    """

    def step(self, output: Symbol, target: Symbol) -> Symbol:
        return softplus(output) - target * output


class Huber(Loss):
    """½e² where |e| ≤ ``delta``, else delta · (|e| - ½ delta); e = output - target (Huber 1964)."""

    delta: Annotated[float, Field(gt=0)] = 1.0

    def step(self, output: Symbol, target: Symbol) -> Symbol:
        error = output - target
        size = abs(error)
        far = self.delta * (size - 0.5 * self.delta)
        return where(size <= self.delta, 0.5 * error * error, far)


class Quantile(Loss):
    """The pinball loss max(τe, (τ - 1)e), e = target - output (Koenker and Bassett 1978).

    The network gives, for every τ of ``quantiles`` in turn, a row as wide as the target.
    """

    quantiles: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)] = [
        0.1,
        0.5,
        0.9,
    ]

    def outputs(self, width: int) -> int:
        return width * len(self.quantiles)

    def step(self, output: Symbol, target: Symbol) -> Symbol:
        total: Symbol | float = 0.0
        for tau, row in zip(self.quantiles, split(output, len(self.quantiles)), strict=True):
            error = target - row
            total = total + maximum(tau * error, (tau - 1.0) * error)
        assert isinstance(total, Symbol)
        return total
