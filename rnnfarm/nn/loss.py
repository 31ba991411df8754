"""A loss over a window of steps, compiled from its equations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnfarm.equations.derive import derive
from rnnfarm.equations.fingerprint import stable_fingerprint
from rnnfarm.equations.parts import Loss, LossTrace, part_name, trace_loss
from rnnfarm.errors import DataError
from rnnfarm.kernels.choose import KernelChoice
from rnnfarm.kernels.device import HOST, Device
from rnnfarm.kernels.progress import compiling
from rnnfarm.kernels.rows import RowProgram

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LossSum:
    """The sum of a loss over the steps that count, their number, and the sum of their weights.

    The sum is ``Late`` where the output's device is still computing it. Without weights of classes
    the third is the number again.
    """

    total: Any
    count: int
    weight: float


@dataclass(frozen=True)
class Goal:
    """What a window's output is compared with, as the loss reads it.

    Attributes:
        target: ``(T * B, 1)`` classes, 0 at the steps that do not count, or ``(T * B, values)``.
        counts: ``(T, B)`` bool: the valid steps whose target is not to be ignored.
        count: how many these are.
        weight: ``(T * B, 1)``, how much each step's target counts; None where all count alike.
        total_weight: the sum of the weights of the steps that count, or their number.
        given: the target and the valid steps as they were, for a loss that evaluates itself.
    """

    target: Array
    counts: Array
    count: int
    weight: Array | None
    total_weight: float
    given: tuple[Array, Array]


class LossFunction:
    """A loss for ``outputs`` outputs and ``targets`` target values or classes.

    ``choice`` compiles its equations; the NumPy reference does if it is absent. Raises CellError
    for a mistake in them.
    """

    def __init__(
        self,
        loss: Loss,
        outputs: int,
        targets: int,
        dtype: str,
        choice: KernelChoice | None = None,
    ) -> None:
        self.loss = loss
        self.dtype = dtype
        self._outputs = outputs
        self._classes = loss.target_kind == "classes"
        weights = loss.class_weights
        self._weights = None if weights is None else np.asarray(weights, dtype)
        self._ignored: RowProgram | None = None
        #: The fingerprint of its equations; None where it has none.
        self.equations: str | None = None
        #: The numbers of a target: 1 for classes.
        self.targets = self._targets = 1 if self._classes else targets
        if loss.evaluate is None:
            trace = trace_loss(loss, outputs, targets)
            self.equations = stable_fingerprint(
                part_name(loss), trace.results, lambda: trace_loss(loss, outputs, targets).results
            )
            with compiling("the loss"):
                self._compile(trace, choice)
        #: What evaluation measures; ``Loss.measured``.
        self.measured = self
        if (measured := loss.measured()) is not loss:
            self.measured = LossFunction(measured, outputs, targets, dtype, choice)

    def _compile(self, trace: LossTrace, choice: KernelChoice | None) -> None:
        name = part_name(self.loss)
        seed = {trace.rows: trace.graph.constant(1.0)}
        found = derive(seed, [trace.output]).of.get(trace.output, trace.graph.constant(0.0))
        value = {"rows": trace.rows}
        integers = ("target",) if self._classes else ()
        choice = choice or KernelChoice({}, dtype=self.dtype)
        self._value = choice.rows(f"{name} value", value, integers=integers)
        gradient = value | {"d_output": found}
        self._gradient = choice.rows(f"{name} gradient", gradient, integers=integers)
        if trace.ignored is not None:
            self._ignored = RowProgram(f"{name} ignored", {"ignored": trace.ignored}, self.dtype)

    @property
    def kernel_name(self) -> str | None:
        """The kernel that computes its gradient; None where it has code of its own."""
        return None if self.loss.evaluate is not None else self._gradient.kernel

    def goal(self, target: Array, valid: Array) -> Goal:
        """What to compare a window with.

        Args:
            target: ``(T, B)`` classes or ``(T, B, targets)`` values, on the host.
            valid: ``(T, B)`` bool.

        Raises DataError for a class that the output does not have.
        """
        if self.loss.evaluate is not None:
            count = int(np.count_nonzero(valid))
            return Goal(target, valid, count, None, count, (target, valid))
        counts = self.counted(target, valid)
        values = self._target(target)
        if self._classes:
            values = self._known_classes(values, counts.reshape(-1))
        count = int(np.count_nonzero(counts))
        if self._weights is None:
            return Goal(values, counts, count, None, count, (target, valid))
        weight = self._weights[values]
        total = float(weight[counts.reshape(-1)].sum(dtype=np.float64))
        return Goal(values, counts, count, weight, total, (target, valid))

    def __call__(
        self,
        output: Array,
        target: Array,
        valid: Array,
        d_output: Array | None = None,
        threads: int = 1,
    ) -> LossSum:
        """``compare`` with a target as ``goal`` takes it, all on the host."""
        return self.compare(output, self.goal(target, valid), d_output, threads)

    def compare(
        self,
        output: Array,
        goal: Goal,
        d_output: Array | None = None,
        threads: int = 1,
        device: Device = HOST,
    ) -> LossSum:
        """The loss summed over the steps that count.

        Args:
            output: ``(T, B, O)``.
            goal: as ``goal`` makes it; its target and counts lie on the device.
            d_output: where given, ``(T, B, O)`` and contiguous, receives the gradient of the sum;
                it is 0 at steps that do not count.
            threads: how many threads it may use; no result depends on it.
            device: where the output lies.

        Returns:
            The sum, in float64 and in the order of the steps, and the number of steps summed. The
            result of a step depends on no other step. Threads may call this at the same time.
        """
        if d_output is not None and (
            not d_output.flags.c_contiguous or d_output.shape != output.shape
        ):
            raise ValueError(f"d_output must be a contiguous array of shape {output.shape}")
        if self.loss.evaluate is not None:
            return self._evaluated(output, goal, d_output, device)
        size = goal.counts.shape[0] * goal.counts.shape[1]
        arrays = {"output": output.reshape(size, self._outputs), "target": goal.target}
        if goal.weight is not None:
            arrays["weight"] = goal.weight
        rows = arrays["rows"] = device.empty((size, 1), self.dtype)
        program = self._value
        if d_output is not None:
            program, arrays["d_output"] = self._gradient, d_output.reshape(size, self._outputs)
        program(arrays, program.spans(0, size), threads=threads)
        total = device.total(rows, goal.counts.reshape(-1), arrays.get("d_output"))
        return LossSum(total, goal.count, goal.total_weight)

    def _evaluated(
        self, output: Array, goal: Goal, d_output: Array | None, device: Device
    ) -> LossSum:
        """The loss by its own NumPy code, to which the output is brought."""
        assert self.loss.evaluate is not None
        gradient = None if d_output is None else device.get(d_output)
        total, count = self.loss.evaluate(device.get(output), *goal.given, gradient)
        if d_output is not None and gradient is not None and not device.immediate:
            device.load(d_output, gradient)
        return LossSum(total, count, count)

    def _target(self, target: Array) -> Array:
        dtype = np.intp if self._classes else np.dtype(self.dtype)
        return target.reshape(-1, self._targets).astype(dtype, copy=False)

    def counted(self, target: Array, valid: Array) -> Array:
        """``(T, B)`` bool: the valid steps whose target is not to be ignored."""
        if self._ignored is None:
            return valid
        arrays = {"target": self._target(target), "ignored": np.empty((valid.size, 1), np.bool_)}
        self._ignored(arrays, self._ignored.spans(0, valid.size))
        counted: Array = valid & ~arrays["ignored"].reshape(valid.shape)
        return counted

    def _known_classes(self, target: Array, counts: Array) -> Array:
        """The target classes, 0 at the steps that do not count."""
        target = np.where(counts[:, None], target, 0)
        low, high = (int(target.min()), int(target.max())) if len(target) else (0, 0)
        if low < 0 or high >= self._outputs:
            wrong = low if low < 0 else high
            raise DataError(
                f"{part_name(self.loss)}: the target column holds class {wrong}, "
                f"and the classes are 0 to {self._outputs - 1}; mend the data, or name the class "
                "that does not count as the loss's 'ignore'"
            )
        return target
