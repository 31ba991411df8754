"""An optimizer over the arena, compiled from its equations to one pass over memory."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnfarm.equations.parts import Optimizer, part_name, trace_optimizer
from rnnfarm.kernels.choose import KernelChoice
from rnnfarm.kernels.interface import RowKernel
from rnnfarm.kernels.rows import BLOCK, RowProgram

Array = npt.NDArray[Any]


class OptimizerPass:
    """Updates an arena in place.

    Args:
        optimizer: the equations of one element.
        segments: ``(start, stop, decay)`` of the arena; where ``decay`` is false the optimizer's
            ``weight_decay`` is 0.
        dtype: of the arena.
        block: elements that the reference updates at a time; no result depends on it.
        choice: what compiles the equations; the NumPy reference if absent.
        threads: how many threads it may use; no result depends on it.

    Raises CellError for a mistake in the optimizer's equations.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        segments: Iterable[tuple[int, int, bool]],
        dtype: str,
        block: int = BLOCK,
        choice: KernelChoice | None = None,
        threads: int = 1,
    ) -> None:
        self._threads = threads
        self.optimizer = optimizer
        self._dtype = dtype
        # Without weight decay all segments are alike, and those that touch become one.
        decaying = optimizer.weight_decay != 0
        segments = [(start, stop, decay and decaying) for start, stop, decay in segments]
        self._parts: list[tuple[RowKernel, list[tuple[int, int]]]] = []
        for decay in (True, False):
            chosen = [(start, stop) for start, stop, decays in segments if decays == decay]
            if chosen:
                program = _program(optimizer, decay, dtype, block, choice)
                spans = [
                    span for start, stop in _merged(chosen) for span in program.spans(start, stop)
                ]
                self._parts.append((program, spans))

    def states(self, size: int) -> dict[str, Array]:
        """The states before the first step, for an arena of ``size`` elements: zeros."""
        return {name: np.zeros(size, self._dtype) for name in self.optimizer.states}

    def apply(
        self, params: Array, grads: Array, states: Mapping[str, Array], lr: float, t: int
    ) -> None:
        """One step, in place.

        Args:
            params, grads, states: ``(size,)`` each.
            lr: the learning rate of this step.
            t: the number of this step, from 1.
        """
        arrays = {"param": params, "grad": grads, **states}
        columns = {name: array.reshape(-1, 1) for name, array in arrays.items()}
        for program, spans in self._parts:
            program(columns, spans, {"lr": float(lr), "t": float(t)}, self._threads)


def _program(
    optimizer: Optimizer, decay: bool, dtype: str, block: int, choice: KernelChoice | None
) -> RowKernel:
    if not decay:
        optimizer = copy.copy(optimizer)
        optimizer.weight_decay = 0.0
    trace = trace_optimizer(optimizer)
    name, scalars = part_name(optimizer), ("lr", "t")
    if choice is not None:
        return choice.rows(name, trace.outputs, scalars)
    return RowProgram(name, trace.outputs, dtype, scalars, block)


def _merged(segments: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Segments that touch, as one."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(segments):
        if merged and merged[-1][1] == start:
            start = merged.pop()[0]
        merged.append((start, stop))
    return merged
