"""An optimizer over the arena, compiled from its equations to one pass over memory."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import numpy.typing as npt

from rnnfarm.equations.parts import Optimizer, part_name, trace_optimizer
from rnnfarm.kernels.choose import KernelChoice
from rnnfarm.kernels.device import HOST
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
        bound: the largest element that a scaled gradient may have; others are clipped.

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
        bound: float | None = None,
    ) -> None:
        self._device = HOST if choice is None else choice.where
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
                program = _program(optimizer, decay, dtype, block, choice, bound)
                spans = [
                    span for start, stop in _merged(chosen) for span in program.spans(start, stop)
                ]
                self._parts.append((program, spans))

    def states(self, size: int) -> dict[str, Array]:
        """The states before the first step, for an arena of ``size`` elements: zeros."""
        return {name: self._device.zeros((size,), self._dtype) for name in self.optimizer.states}

    def apply(
        self,
        params: Array,
        grads: Array,
        states: Mapping[str, Array],
        lr: float,
        t: int,
        scale: Any = 1.0,
    ) -> None:
        """One step, in place.

        Args:
            params, grads, states: ``(size,)`` each.
            lr: the learning rate of this step.
            t: the number of this step, from 1.
            scale: what the gradient is multiplied with first: a number, or an array of one that
                the device has computed. Nothing changes where that is NaN.
        """
        arrays = {"param": params, "grad": grads, **states}
        numbers = {"lr": float(lr), "t": float(t)}
        if self._device.immediate:
            numbers["scale"] = float(scale)
        else:
            arrays["scale"] = scale
        columns = {name: array.reshape(-1, 1) for name, array in arrays.items()}
        for program, spans in self._parts:
            program(columns, spans, numbers, self._threads)


def _program(
    optimizer: Optimizer,
    decay: bool,
    dtype: str,
    block: int,
    choice: KernelChoice | None,
    bound: float | None,
) -> RowKernel:
    if not decay:
        optimizer = copy.copy(optimizer)
        optimizer.weight_decay = 0.0
    on_host = choice is None or choice.where.immediate
    trace = trace_optimizer(optimizer, bound, guarded=not on_host)
    name = part_name(optimizer)
    scalars = ("lr", "t", "scale") if on_host else ("lr", "t")
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
