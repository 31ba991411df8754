"""A loss over a window of steps, compiled from its equations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnfarm.equations.derive import derive
from rnnfarm.equations.parts import Loss, LossTrace, part_name, trace_loss
from rnnfarm.errors import DataError
from rnnfarm.kernels.choose import KernelChoice
from rnnfarm.kernels.rows import RowProgram

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LossSum:
    """The sum of a loss over the steps that count, and their number."""

    total: float
    count: int


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
        self._ignored: RowProgram | None = None
        self._targets = 1 if self._classes else targets
        if loss.evaluate is None:
            self._compile(trace_loss(loss, outputs, targets), choice)

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

    def __call__(
        self,
        output: Array,
        target: Array,
        valid: Array,
        d_output: Array | None = None,
        threads: int = 1,
    ) -> LossSum:
        """The loss summed over the valid steps whose target is not to be ignored.

        Args:
            output: ``(T, B, O)``.
            target: ``(T, B)`` classes or ``(T, B, targets)`` values.
            valid: ``(T, B)`` bool.
            d_output: where given, ``(T, B, O)`` and contiguous, receives the gradient of the sum;
                it is 0 at steps that do not count.
            threads: how many threads it may use; no result depends on it.

        Returns:
            The sum, in float64 and in the order of the steps, and the number of steps summed. The
            result of a step depends on no other step. Threads may call this at the same time.

        Raises DataError for a class that the output does not have.
        """
        if self.loss.evaluate is not None:
            return LossSum(*self.loss.evaluate(output, target, valid, d_output))
        arrays = {"output": output.reshape(-1, self._outputs), "target": self._target(target)}
        counts = self.counted(target, valid).reshape(-1)
        if self._classes:
            arrays["target"] = self._known_classes(arrays["target"], counts)
        size = len(counts)
        rows = arrays["rows"] = np.empty((size, 1), self.dtype)
        program = self._value
        if d_output is not None:
            if not d_output.flags.c_contiguous or d_output.shape != output.shape:
                raise ValueError(f"d_output must be a contiguous array of shape {output.shape}")
            program, arrays["d_output"] = self._gradient, d_output.reshape(size, self._outputs)
        program(arrays, program.spans(0, size), threads=threads)
        if not counts.all():
            rows[~counts] = 0.0
            if d_output is not None:
                arrays["d_output"][~counts] = 0.0
        return LossSum(float(rows.sum(dtype=np.float64)), int(np.count_nonzero(counts)))

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
