"""The NumPy kernel: the reference that specifies what every other kernel computes.

From a plan it writes the source of two Python functions, ``forward`` and ``backward``, in which
each operation is one NumPy call into a preallocated buffer. Nothing of the plan is interpreted
while a window runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnfarm.equations.plan import Plan
from rnnfarm.kernels.compiled import compiled
from rnnfarm.kernels.interface import Array, Kernel, WindowKernel
from rnnfarm.kernels.places import Buffer
from rnnfarm.kernels.program import write_backward, write_forward


class NumPyKernel(Kernel):
    """Runs every plan on the CPU."""

    def refusal(self, plan: Plan, device: str, dtype: str) -> str | None:
        if device != "cpu":
            return f"the NumPy kernel runs on the CPU, not on {device}"
        return None

    def build(self, plan: Plan, dtype: str) -> WindowKernel:
        return NumPyWindowKernel(plan, dtype)


class Workspace:
    """The buffers of one window in flight, and their views at every step.

    Attributes:
        whole: buffer name → array: ``(T, B, W)``, ``(T + 1, B, W)``, ``(B, W)`` or ``(W,)``.
        steps: view name → list with one ``(B, W)`` view per step.
    """

    def __init__(self, buffers: Mapping[str, Buffer], steps: int, rows: int, dtype: str) -> None:
        self.capacity = steps
        self.rows = rows
        self.length = 0
        self.whole: dict[str, Array] = {}
        self.steps: dict[str, list[Array]] = {}
        self.given: dict[str, Any] = {}
        self.parameters: Mapping[str, Array] = {}
        for name, buffer in buffers.items():
            shape = buffer.shape(steps, rows)
            self.whole[name] = np.zeros(shape, np.bool_ if buffer.boolean else dtype)
        for name, buffer in buffers.items():
            array = self.whole[name]
            for view, (first, start, stop) in buffer.views.items():
                if buffer.timed:
                    last = first + steps
                    self.steps[view] = [array[t, :, start:stop] for t in range(first, last)]
                else:
                    self.whole[view] = array[..., start:stop]


class NumPyWindowKernel(WindowKernel):
    """A plan as two generated Python functions."""

    def __init__(self, plan: Plan, dtype: str) -> None:
        self.plan = plan
        self.dtype = dtype
        self._buffers: dict[str, Buffer] = {}
        text = write_forward(plan, self._buffers)
        self._forward = compiled(text, "forward", f"{plan.cell} forward")
        self._backward = None
        if plan.options.training:
            backward = write_backward(plan, self._buffers)
            self._backward = compiled(backward, "backward", f"{plan.cell} backward")
            text += "\n\n" + backward
        self.source = text

    def workspace(self, steps: int, rows: int, threads: int = 1) -> Workspace:
        return Workspace(self._buffers, steps, rows, self.dtype)

    def forward(
        self,
        workspace: Workspace,
        parameters: Mapping[str, Array],
        x: Array,
        states: Mapping[str, Array],
        extras: Mapping[str, Array],
    ) -> Array:
        length = x.shape[0]
        workspace.length = length
        workspace.given = {"x": x, **extras}
        workspace.parameters = parameters
        for name in self.plan.states:
            np.copyto(workspace.whole[f"state_{name}"][0], states[name])
        with np.errstate(over="ignore"):
            self._forward(workspace, length, x.shape[1], parameters, workspace.given)
        return workspace.whole[f"state_{self.plan.output}"][1 : length + 1]

    def backward(
        self,
        workspace: Workspace,
        d_output: Array,
        d_states: Mapping[str, Array],
        gradients: Mapping[str, Array],
        need_d_x: bool = True,
        record: Array | None = None,
    ) -> tuple[Array | None, dict[str, Array]]:
        if self._backward is None:
            raise RuntimeError("this plan was made for evaluation; it has no backward")
        for name in self.plan.states:
            given = d_states.get(name)
            np.copyto(workspace.whole[f"d_{name}"], 0.0 if given is None else given)
        with np.errstate(over="ignore"):
            d_x = self._backward(
                workspace, workspace.length, workspace.rows, workspace.parameters, workspace.given,
                d_output, gradients, need_d_x, record,
            )  # fmt: skip
        return d_x, {name: workspace.whole[f"d_{name}"] for name in self.plan.states}

    def states_after(self, workspace: Workspace, step: int) -> dict[str, Array]:
        return {name: workspace.whole[f"state_{name}"][step] for name in self.plan.states}
