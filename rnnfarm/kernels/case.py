"""A window of random numbers for a plan, and a kernel run on it: what all checks of kernels share.

``Case.loss`` is a number that depends on every output and on every state after the window, and
``Case.backward`` its gradient, so that one comparison sees all that a kernel computes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnfarm.equations.graph import Symbol, ancestors
from rnnfarm.equations.instrument import PlanOptions
from rnnfarm.equations.parts import Cell
from rnnfarm.equations.plan import Plan, make_plan
from rnnfarm.kernels.draw import drawn_around
from rnnfarm.kernels.interface import Kernel, WindowKernel
from rnnfarm.kernels.numpy import NumPyKernel

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
#: ``(T, B, I, H)``.
Sizes = tuple[int, int, int, int]


def variants(states: tuple[str, ...] = ("h", "c", "y")) -> dict[str, PlanOptions]:
    """What a plan may have beyond the equations of a cell: one at a time, and all at once."""
    zoneout = tuple((name, 0.5 if k % 2 else 0.2) for k, name in enumerate(states))
    return {
        "plain": PlanOptions(),
        "masks": PlanOptions(masked=True),
        "resets": PlanOptions(resets=True),
        "resets-learned": PlanOptions(resets=True, initial="learned"),
        "resets-random": PlanOptions(resets=True, initial="random"),
        "zoneout": PlanOptions(zoneout=zoneout),
        "dropout": PlanOptions(recurrent_dropout=0.3),
        "all": PlanOptions(
            masked=True, resets=True, initial="learned", zoneout=zoneout, recurrent_dropout=0.3
        ),
    }


@dataclass
class Case:
    """A plan's kernel, and numbers for one window."""

    kernel: WindowKernel
    parameters: Arrays
    x: Array
    states: Arrays
    extras: Arrays
    d_output: Array
    d_states: Arrays
    workspace: Any = field(init=False)

    def __post_init__(self) -> None:
        self.workspace = self.kernel.workspace(*self.x.shape[:2])

    @property
    def plan(self) -> Plan:
        return self.kernel.plan

    def variables(self) -> Arrays:
        """Everything that has a gradient, by a name of its own."""
        return {
            "x": self.x,
            **{f"parameter {n}": a for n, a in self.parameters.items()},
            **{f"state {n}": a for n, a in self.states.items()},
        }

    def forward(self) -> tuple[Array, Arrays]:
        """The outputs ``(T, B, H)`` and the states after the window."""
        put, get = self.kernel.device.put, self.kernel.device.get
        y = self.kernel.forward(
            self.workspace,
            {name: put(array) for name, array in self.parameters.items()},
            put(self.x),
            {name: put(array) for name, array in self.states.items()},
            {name: put(array) for name, array in self.extras.items()},
        )
        return get(y), self._states_after(len(self.x))

    def _states_after(self, step: int) -> Arrays:
        states = self.kernel.states_after(self.workspace, step)
        return {name: self.kernel.device.get(array) for name, array in states.items()}

    def loss(self) -> float:
        """A number whose gradients are those that ``backward`` is given."""
        y, after = self.forward()
        return float(np.vdot(y, self.d_output)) + sum(
            float(np.vdot(after[n], d)) for n, d in self.d_states.items()
        )

    def backward(self, **options: Any) -> dict[str, Any]:
        """The gradient of ``loss`` by every variable, after a forward; x's None if not wanted."""
        put, get = self.kernel.device.put, self.kernel.device.get
        gradients = {n: put(np.full_like(a, np.nan)) for n, a in self.parameters.items()}
        d_x, d_states = self.kernel.backward(
            self.workspace,
            put(self.d_output),
            {name: put(array) for name, array in self.d_states.items()},
            gradients,
            **options,
        )
        return {
            "x": None if d_x is None else get(d_x).copy(),
            **{f"parameter {n}": get(a) for n, a in gradients.items()},
            **{f"state {n}": get(a).copy() for n, a in d_states.items()},
        }

    def arrays(self) -> Arrays:
        """Everything that a window gives: outputs, states, and all gradients."""
        y, after = self.forward()
        halfway = self._states_after(len(self.x) // 2)
        found = {"output": y.copy()}
        found |= {f"state {n} after the window": a.copy() for n, a in after.items()}
        found |= {f"state {n} halfway": a.copy() for n, a in halfway.items()}
        if self.plan.options.training:
            record = self.kernel.device.put(np.full_like(self.d_output, np.nan))
            gradients = self.backward(record=record)
            found |= {f"gradient of {name}": array for name, array in gradients.items()}
            found["gradient of each output"] = self.kernel.device.get(record)
        return found

    def results(self) -> dict[str, bytes]:
        """The bits of ``arrays``."""
        return {name: array.tobytes() for name, array in self.arrays().items()}


def make_case(
    cell: Cell,
    options: PlanOptions | None = None,
    sizes: Sizes = (5, 3, 3, 4),
    seed: int = 0,
    dtype: str = "float64",
    kernel: Kernel | None = None,
) -> Case:
    """A case for a cell; the same seed gives the same numbers in every dtype and kernel.

    Raises CellError for a mistake in the cell.
    """
    T, B, I, H = sizes  # noqa: E741
    plan = make_plan(cell, I, H, options)
    return case_of((kernel or NumPyKernel()).build(plan, dtype), (T, B), seed, dtype)


def case_of(
    kernel: WindowKernel, window: tuple[int, int] = (5, 3), seed: int = 0, dtype: str = "float64"
) -> Case:
    """Random numbers for a kernel that is built already; ``window`` is ``(T, B)``."""
    T, B = window
    plan = kernel.plan
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 1.0) -> Array:
        return (rng.standard_normal(shape) * scale).astype(dtype)

    return Case(
        kernel=kernel,
        # Others may be such that nothing is finite, or that states run away.
        parameters={n: drawn_around(p, rng).astype(dtype) for n, p in plan.parameters.items()},
        x=normal(T, B, plan.width_in),
        states={n: normal(B, w, scale=0.5) for n, w in plan.states.items()},
        extras=_extras(plan, window, rng, dtype),
        d_output=normal(T, B, plan.states[plan.output]),
        d_states={n: normal(B, w) for n, w in plan.states.items()},
    )


def row_arrays(
    results: Mapping[str, Symbol], scalars: Collection[str], integers: Collection[str], dtype: str
) -> Arrays:
    """Arrays for a program over rows: random inputs, and room for the results.

    Inputs are above 0, since optimizers take roots of what is never negative.
    """
    rng = np.random.default_rng(0)
    inputs = {s.attribute: s for s in ancestors(results.values()) if s.op == "input"}
    widest = max((s.width for s in inputs.values()), default=1)
    rows = 37 if widest > 1 else 2001
    arrays: Arrays = {n: np.zeros((rows, s.width), dtype) for n, s in results.items()}
    for name, symbol in sorted(inputs.items()):
        if name in integers:
            arrays[name] = rng.integers(0, widest, (rows, 1)).astype(np.intp)
        elif name not in scalars:
            arrays[name] = (np.abs(rng.standard_normal((rows, symbol.width))) + 0.1).astype(dtype)
    return arrays


def disagreement(found: Arrays, expected: Arrays, tolerance: float) -> str | None:
    """The first of ``expected`` that ``found`` does not agree with, relative to its largest.

    Elements that are not finite there may be anything: what has no value has no right one.
    """
    for what, value in expected.items():
        shape = getattr(found.get(what), "shape", None)
        if shape != value.shape:
            return f"its {what} has shape {shape} instead of {value.shape}"
        known = np.isfinite(value)
        ours, theirs = found[what][known], value[known]
        if not np.isfinite(ours).all():
            return f"its {what} differs from the reference: it is not finite where that is"
        scale = float(np.max(np.abs(theirs), initial=1.0))
        difference = float(np.max(np.abs(ours - theirs), initial=0.0)) / scale
        if difference > tolerance:
            return f"its {what} differs from the reference by {difference:.1e}"
    return None


def _extras(plan: Plan, window: tuple[int, int], rng: np.random.Generator, dtype: str) -> Arrays:
    T, B = window
    extras: Arrays = {}
    for name, symbol in plan.inputs.items():
        if name in ("mask?", "reset?"):
            extras[name] = rng.random((T, B, 1)) > 0.35
        elif name.startswith("zoneout:"):
            extras[name] = rng.random((T, B, symbol.width)) > 0.5
        elif name.startswith("drop:"):
            extras[name] = ((rng.random((B, symbol.width)) > 0.3) / 0.7).astype(dtype)
        elif name.startswith("initial:"):
            extras[name] = rng.standard_normal((B, symbol.width)).astype(dtype)
    return extras
