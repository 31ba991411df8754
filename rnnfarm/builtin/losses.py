"""The built-in losses, each as its equation of one step.

``output`` is what the network gives at a step and ``target`` what it should have given. The loss of
a step is the sum over its units, and that of a batch the mean over its valid steps, or with
``reduction = "sum"`` their sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

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
from rnnfarm.errors import DataError, JobError


class MeanSquaredError(Loss):
    """½‖target - output‖²: half the squared error of a step, summed over its values.

    Its gradient is the error itself. PyTorch's MSELoss is the mean over steps and values without
    the half, 2 / (number of values) as much; runs and evaluations report that as ``mse``.
    """

    metric: ClassVar[tuple[str, float] | None] = ("mse", 2.0)

    def step(self, output: Symbol, target: Symbol) -> Symbol:
        error = output - target
        return 0.5 * error * error


class CrossEntropy(Loss):
    """-log softmax(output)[target], for classes; the output is logits.

    label_smoothing: the share ε of the target that is spread evenly over all classes (Szegedy et
        al. 2016, section 7): (1 - ε) · loss of the target + ε · mean of the losses of all classes.
        Evaluation does without it, so that a perplexity is one.
    ignore: a target that does not count.
    weights: a list with a number for each class, none below 0, by which its targets count in
        training, or "balanced": (targets of all classes) / (number of classes · targets of the
        class), as they are in the training part. Classes are in the order in which
        `rnnfarm data info` shows them.

    The mean is divided by the sum of the weights of its targets, as PyTorch's is. Evaluation counts
    all targets alike.
    """

    target_kind: ClassVar[Literal["classes", "values"]] = "classes"
    log_likelihood: ClassVar[bool] = True
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ignore: int | None = None
    weights: list[Annotated[float, Field(ge=0)]] | Literal["balanced"] | None = None

    @property
    def class_weights(self) -> Sequence[float] | None:
        return self.weights if isinstance(self.weights, list) else None

    @property
    def wants_counts(self) -> bool:
        return self.weights == "balanced"

    def with_counts(self, counts: Any) -> Loss:
        counted = [0 if k == self.ignore else int(n) for k, n in enumerate(counts)]
        classes = sum(n > 0 for n in counted)
        weights = [sum(counted) / (classes * n) if n else 1.0 for n in counted]
        return type(self)(**self.settings() | {"weights": weights})

    def outputs(self, width: int) -> int:
        if self.class_weights is not None and len(self.class_weights) != width:
            raise JobError(
                f"model.loss.weights: has {len(self.class_weights)} numbers, and the target has "
                f"{width} classes; give one for each, those that no target has included"
            )
        return width

    def step(self, output: Symbol, target: Symbol) -> Symbol:
        # The largest logit cancels; without it exp would overflow.
        logits = output - row_max(output)
        likely = pick(logits, target)
        if self.label_smoothing:
            spread = row_sum(logits) / logits.width
            likely = (1 - self.label_smoothing) * likely + self.label_smoothing * spread
        return log(row_sum(exp(logits))) - likely

    def measured(self) -> Loss:
        if not self.label_smoothing and self.weights is None:
            return self
        return type(self)(**self.settings() | {"label_smoothing": 0.0, "weights": None})

    def ignored(self, target: Symbol) -> Symbol | None:
        return None if self.ignore is None else equal(target, self.ignore)


class BinaryCrossEntropy(Loss):
    """-target · log σ(output) - (1 - target) · log(1 - σ(output)); the output is logits.

    A target is a probability, 0 or 1 as a rule. Written as softplus(output) - target · output,
    which neither overflows nor loses the small ones.
    """

    target_range: ClassVar[tuple[float, float] | None] = (0.0, 1.0)

    def interval(self, output: Any, width: int) -> tuple[Any, Any, Any]:
        """The probability, and no interval."""
        import numpy as np

        return 0.5 * (1 + np.tanh(0.5 * output)), None, None

    def step(self, output: Symbol, target: Symbol) -> Symbol:
        return softplus(output) - target * output


class Huber(Loss):
    """½e² where |e| ≤ ``delta``, else delta · (|e| - ½ delta); e = output - target (Huber 1964).

    delta: the size of an error up to which it is squared.
    """

    delta: Annotated[float, Field(gt=0)] = 1.0

    def step(self, output: Symbol, target: Symbol) -> Symbol:
        error = output - target
        size = abs(error)
        far = self.delta * (size - 0.5 * self.delta)
        return where(size <= self.delta, 0.5 * error * error, far)


def _each_once(quantiles: list[float]) -> list[float]:
    for tau in quantiles:
        if quantiles.count(tau) > 1:
            raise ValueError(f"{tau:g} is there more than once; name each quantile once")
    return quantiles


class Quantile(Loss):
    """The pinball loss max(τe, (τ - 1)e), e = target - output (Koenker and Bassett 1978).

    The network gives, for every τ of ``quantiles`` in turn, a row as wide as the target. A
    prediction is the quantile nearest to 0.5, or the middle between the two where two are equally
    near; its interval is between the lowest and the highest quantile.

    quantiles: the quantiles τ: the share of targets that should lie below the prediction.
    """

    quantiles: Annotated[
        list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1), AfterValidator(_each_once)
    ] = [0.1, 0.5, 0.9]

    def outputs(self, width: int) -> int:
        return width * len(self.quantiles)

    def interval(self, output: Any, width: int) -> tuple[Any, Any, Any]:
        """Return the quantile nearest to 0.5, and the lowest and the highest one."""
        import numpy as np

        taus = np.sort(self.quantiles)
        # Rows in the order of their quantiles, whatever that of the setting is; none crosses.
        rows = np.sort(output.reshape(*output.shape[:-1], len(taus), width), axis=-2)
        far = np.abs(taus - 0.5)
        nearest = np.flatnonzero(np.isclose(far, far.min(), rtol=0, atol=1e-9))
        middle = rows[..., nearest[0], :] if len(nearest) == 1 else rows[..., nearest, :].mean(-2)
        return (
            (middle, None, None) if len(taus) == 1 else (middle, rows[..., 0, :], rows[..., -1, :])
        )

    def step(self, output: Symbol, target: Symbol) -> Symbol:
        total: Symbol | float = 0.0
        for tau, row in zip(self.quantiles, split(output, len(self.quantiles)), strict=True):
            error = target - row
            total = total + maximum(tau * error, (tau - 1.0) * error)
        assert isinstance(total, Symbol)
        return total


class CTC(Loss):
    """-log p(labels | steps), over all alignments of labels with steps (Graves et al. 2006).

    The target is a column of its own for each sequence, whose labels do not say at which steps they
    are; class 0 is the blank between them. The mean is over sequences.

    impossible: what becomes of a sequence that has fewer steps than its labels take: ``error``, or
        ``skip`` for it not to count.
    """

    target_kind: ClassVar[Literal["classes", "values"]] = "classes"
    of_labels: ClassVar[bool] = True
    impossible: Literal["error", "skip"] = "error"

    def evaluate(
        self, output: Any, target: Any, valid: Any, d_output: Any = None
    ) -> tuple[float, int]:
        """``output`` (T, B, V), ``target`` (L, B) with 0 after the last label, ``valid`` (T, B)."""
        from rnnfarm.nn.ctc import ctc, impossible

        lengths, labels = valid.sum(0), (target != 0).sum(0)
        wrong = impossible(lengths, target, labels) & (lengths > 0)
        if wrong.any():
            if self.impossible == "error":
                row = int(wrong.argmax())
                raise DataError(
                    f"CTC: the sequence in row {row} has {lengths[row]} steps, which are too few "
                    f"for its {labels[row]} labels (equal ones need a blank between them); leave "
                    'it out, or set model.loss.impossible = "skip"'
                )
            lengths = lengths * ~wrong
        losses = ctc(output, lengths, target, labels, d_output)
        return float(losses.sum()), int((lengths > 0).sum())


class Gaussian(Loss):
    """-log of a normal density, for each value with a mean and a deviation that are learned.

    The network gives a row of means and a row of what softplus makes deviations of, each as wide as
    the target (Nix and Weigend 1994).

    least: the smallest deviation.
    """

    least: Annotated[float, Field(gt=0)] = 1e-3

    def outputs(self, width: int) -> int:
        return 2 * width

    def interval(self, output: Any, width: int) -> tuple[Any, Any, Any]:
        """The mean, and the interval that a value lies in with a probability of 80 %."""
        import numpy as np

        mean, raw = output[..., :width], output[..., width:]
        spread = 1.2815515655446004 * (np.logaddexp(0, raw) + self.least)
        return mean, mean - spread, mean + spread

    def step(self, output: Symbol, target: Symbol) -> Symbol:
        mean, raw = split(output, 2)
        deviation = softplus(raw) + self.least
        error = (target - mean) / deviation
        return 0.5 * error * error + log(deviation) + 0.5 * math.log(2 * math.pi)
