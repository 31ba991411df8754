"""Random numbers for a plan, and its kernel run on them: what the tests of kernels share."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rnnfarm.equations.parts import Cell
from rnnfarm.equations.plan import Plan, PlanOptions, make_plan
from rnnfarm.kernels.numpy import NumPyKernel, NumPyWindowKernel, Workspace

Arrays = dict[str, np.ndarray]

#: What a plan may have beyond the cell's equations, one at a time and all at once.
VARIANTS = {
    "plain": PlanOptions(),
    "masks": PlanOptions(masked=True),
    "resets": PlanOptions(resets=True),
    "resets-learned": PlanOptions(resets=True, initial="learned"),
    "resets-random": PlanOptions(resets=True, initial="random"),
    "zoneout": PlanOptions(zoneout=(("h", 0.2), ("c", 0.5), ("y", 0.2))),
    "dropout": PlanOptions(recurrent_dropout=0.3),
    "all": PlanOptions(
        masked=True,
        resets=True,
        initial="learned",
        zoneout=(("h", 0.2), ("c", 0.5), ("y", 0.2)),
        recurrent_dropout=0.3,
    ),
}


@dataclass
class Case:
    """A plan's kernel, and numbers for one window."""

    kernel: NumPyWindowKernel
    parameters: Arrays
    x: np.ndarray
    states: Arrays
    extras: Arrays
    d_output: np.ndarray
    d_states: Arrays
    workspace: Workspace = field(init=False)

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

    def forward(self) -> tuple[np.ndarray, Arrays]:
        """The outputs and the states after the window."""
        y = self.kernel.forward(self.workspace, self.parameters, self.x, self.states, self.extras)
        return y, self.kernel.states_after(self.workspace, len(self.x))

    def loss(self) -> float:
        """A number whose gradients are those that ``backward`` is given."""
        y, after = self.forward()
        return float(np.vdot(y, self.d_output)) + sum(
            float(np.vdot(after[n], d)) for n, d in self.d_states.items()
        )

    def backward(self, **options: object) -> Arrays:
        """The gradient of ``loss`` by every variable, after a forward."""
        gradients = {n: np.full_like(a, np.nan) for n, a in self.parameters.items()}
        d_x, d_states = self.kernel.backward(
            self.workspace, self.d_output, self.d_states, gradients, **options
        )
        return {
            "x": d_x.copy() if d_x is not None else None,
            **{f"parameter {n}": a for n, a in gradients.items()},
            **{f"state {n}": a.copy() for n, a in d_states.items()},
        }

    def results(self) -> dict[str, bytes]:
        """The bits of everything that a window gives."""
        y, after = self.forward()
        arrays = {"y": y.copy(), **{f"after {n}": a.copy() for n, a in after.items()}}
        arrays |= self.backward()
        return {name: array.tobytes() for name, array in arrays.items()}


def make_case(
    cell: Cell,
    options: PlanOptions = VARIANTS["plain"],
    sizes: tuple[int, int, int, int] = (5, 3, 3, 4),
    seed: int = 0,
    dtype: str = "float64",
) -> Case:
    """A case of sizes ``(T, B, I, H)``; the same seed gives the same numbers in every dtype."""
    T, B, I, H = sizes  # noqa: E741
    plan = make_plan(cell, I, H, options)
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (rng.standard_normal(shape) * scale).astype(dtype)

    return Case(
        kernel=NumPyKernel().build(plan, dtype),
        parameters={n: normal(*p.shape, scale=0.5) for n, p in plan.parameters.items()},
        x=normal(T, B, I),
        states={n: normal(B, w, scale=0.5) for n, w in plan.states.items()},
        extras=_extras(plan, T, B, rng, dtype),
        d_output=normal(T, B, plan.states[plan.output]),
        d_states={n: normal(B, w) for n, w in plan.states.items()},
    )


def _extras(plan: Plan, T: int, B: int, rng: np.random.Generator, dtype: str) -> Arrays:
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
