"""What a kernel is: something that runs a plan over a whole window on one kind of device.

A plugin gives a ``Kernel`` through ``rnnfarm_kernels``. For a plan it builds a ``WindowKernel``,
whose arrays are time-major: ``T`` steps, ``B`` rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from rnnfarm.equations.plan import Plan

#: An array of the kernel's device: NumPy's on the CPU.
Array = Any


class WindowKernel(ABC):
    """A plan, compiled for one dtype.

    A workspace holds what one window in flight needs; ``backward`` belongs to the last ``forward``
    in the same workspace. Arrays that a call returns are views into the workspace and hold until
    its next ``forward``.
    """

    plan: Plan
    #: The generated program, for ``rnnfarm explain``.
    source: str

    @abstractmethod
    def workspace(self, steps: int, rows: int) -> Any:
        """Memory for windows of up to ``steps`` steps and exactly ``rows`` rows."""

    @abstractmethod
    def forward(
        self,
        workspace: Any,
        parameters: Mapping[str, Array],
        x: Array,
        states: Mapping[str, Array],
        extras: Mapping[str, Array],
    ) -> Array:
        """Run the window.

        Args:
            parameters: every parameter of the plan, by name.
            x: ``(T, B, I)``, contiguous.
            states: the state before the first step, ``(B, H)`` each.
            extras: the plan's other inputs by name: ``mask?`` and ``reset?`` ``(T, B, 1)`` bool,
                ``zoneout:STATE?`` ``(T, B, H)`` bool, ``drop:K`` and ``initial:STATE`` ``(B, H)``.

        Returns:
            The output of every step, ``(T, B, H)``.
        """

    @abstractmethod
    def backward(
        self,
        workspace: Any,
        d_output: Array,
        d_states: Mapping[str, Array],
        gradients: Mapping[str, Array],
        need_d_x: bool = True,
        record: Array | None = None,
    ) -> tuple[Array | None, dict[str, Array]]:
        """Run the derivative of the last ``forward`` in this workspace.

        Args:
            d_output: gradient of every step's output, ``(T, B, H)``.
            d_states: gradient of the state after the last step; an absent one is zero.
            gradients: an array for every parameter, which is overwritten with its gradient.
            need_d_x: whether the gradient of ``x`` is wanted.
            record: where given, ``(T, B, H)``, receives the whole gradient of every step's output
                state, that of later steps included.

        Returns:
            The gradient of ``x``, ``(T, B, I)`` or None, and of the state before the first step.
        """

    @abstractmethod
    def states_after(self, workspace: Any, step: int) -> dict[str, Array]:
        """The states after ``step`` steps of the last forward, ``(B, H)`` each; 0 is the start."""


class Kernel(ABC):
    """A way to run plans.

    Attributes:
        devices: the devices that it runs on, such as ``("cpu",)``.
        priority: among kernels that support a plan, the highest is chosen. The reference has 0.
    """

    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    priority: ClassVar[int] = 0

    @abstractmethod
    def refusal(self, plan: Plan, device: str, dtype: str) -> str | None:
        """None if it can run the plan there, else a sentence that says why not."""

    @abstractmethod
    def build(self, plan: Plan, dtype: str) -> WindowKernel:
        """Compile a plan."""
