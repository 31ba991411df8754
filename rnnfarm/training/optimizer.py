"""An optimizer over the arena, compiled from its equations to one pass over memory."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import numpy.typing as npt

from rnnfarm.equations.fingerprint import stable_fingerprint
from rnnfarm.equations.parts import Optimizer, OptimizerTrace, part_name, trace_optimizer
from rnnfarm.kernels.choose import KernelChoice
from rnnfarm.kernels.device import HOST, Device
from rnnfarm.kernels.interface import RowKernel
from rnnfarm.kernels.progress import compiling
from rnnfarm.kernels.rows import BLOCK, RowProgram
from rnnfarm.nn.arena import Segment

Array = npt.NDArray[Any]
Bound = tuple[float, float] | None


class OptimizerPass:
    """Updates an arena in place.

    Args:
        optimizer: the equations of one element.
        segments: of the arena; where a segment's ``decay`` is false the optimizer's
            ``weight_decay`` is 0, and where it has a ``bound`` what the optimizer gives is brought
            back between the two values.
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
        segments: Iterable[Segment | tuple[int, int, bool]],
        dtype: str,
        block: int = BLOCK,
        choice: KernelChoice | None = None,
        threads: int = 1,
        bound: float | None = None,
    ) -> None:
        self._device = HOST if choice is None else choice.where
        self._threads = threads
        self.optimizer = optimizer
        #: The fingerprint of its equations.
        self.equations = stable_fingerprint(
            part_name(optimizer),
            trace_optimizer(optimizer).outputs,
            lambda: trace_optimizer(optimizer).outputs,
        )
        self._dtype = dtype
        # Without weight decay all segments are alike, and those that touch become one.
        decaying = optimizer.weight_decay != 0
        kinds: dict[tuple[bool, Bound], list[tuple[int, int]]] = {}
        for start, stop, decay, within in (Segment(*one) for one in segments):
            kinds.setdefault((decay and decaying, within), []).append((start, stop))
        self._parts: list[tuple[RowKernel, list[tuple[int, int]]]] = []
        for (decay, within), chosen in kinds.items():
            trace = _trace(optimizer, decay, bound, within, self._device)
            with compiling("the optimizer"):
                program = _program(optimizer, trace, dtype, block, choice)
            spans = [span for start, stop in _merged(chosen) for span in program.spans(start, stop)]
            self._parts.append((program, spans))

    @property
    def kernel_name(self) -> str:
        """The kernel that computes it."""
        return "/".join(sorted({program.kernel for program, _ in self._parts}))

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
            t: the number of this update, from 1.
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


def _trace(
    optimizer: Optimizer, decay: bool, bound: float | None, within: Bound, device: Device
) -> OptimizerTrace:
    """The equations of one kind of segments."""
    if not decay:
        optimizer = copy.copy(optimizer)
        optimizer.weight_decay = 0.0
    return trace_optimizer(optimizer, bound, guarded=not device.immediate, within=within)


def _program(
    optimizer: Optimizer,
    trace: OptimizerTrace,
    dtype: str,
    block: int,
    choice: KernelChoice | None,
) -> RowKernel:
    on_host = choice is None or choice.where.immediate
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
