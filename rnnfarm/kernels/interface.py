"""What a kernel is: something that runs a plan over a whole window on one kind of device.

A plugin gives a ``Kernel`` through ``rnnfarm_kernels``. For a plan it builds a ``WindowKernel``,
whose arrays are time-major: ``T`` steps, ``B`` rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar

from rnnfarm.equations.graph import Symbol
from rnnfarm.equations.plan import Plan
from rnnfarm.kernels.device import HOST, Device

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
    #: What its bits depend on beside its name and version, such as the processor's vectors.
    variant: str = ""
    #: Whether this very program has passed its self-check on this machine before.
    checked: bool = False
    #: Where its arrays lie: those that a call takes, and those that it returns.
    device: Device = HOST

    def mark_checked(self) -> None:
        """The program has passed its self-check; remember that if it is kept from run to run."""
        self.checked = True

    @abstractmethod
    def workspace(self, steps: int, rows: int, threads: int = 1) -> Any:
        """Memory for windows of up to ``steps`` steps and exactly ``rows`` rows.

        ``threads`` is how many threads a call may use; no bit may depend on it.
        """

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


class RowKernel(ABC):
    """Symbols of a graph, compiled: losses and optimizers, which go over rows of numbers."""

    #: The generated program.
    source: str
    checked: bool = False
    #: The name of the kernel that compiled it; whoever chooses among kernels sets it.
    kernel: str = "numpy"

    def mark_checked(self) -> None:
        """As that of a ``WindowKernel``."""
        self.checked = True

    @abstractmethod
    def spans(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The rows from ``start`` to ``stop``, cut as the program likes to be called."""

    @abstractmethod
    def __call__(
        self,
        arrays: Mapping[str, Array],
        spans: Iterable[tuple[int, int]],
        scalars: Mapping[str, float] | None = None,
        threads: int = 1,
    ) -> None:
        """Run over the rows of ``spans``.

        Args:
            arrays: ``(N, width)`` for every input and result that is no scalar.
            spans: as ``spans`` gives them.
            scalars: the inputs that are numbers.
            threads: how many threads it may use; no bit may depend on it.

        Threads may call it at the same time: scratch buffers belong to the call.
        """


class Kernel(ABC):
    """A way to run plans.

    Attributes:
        devices: the devices that it runs on, such as ``("cpu",)``.
        priority: among kernels that support a plan, the highest is chosen. The reference has 0.
    """

    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    priority: ClassVar[int] = 0

    def device(self) -> Device:
        """Where the arrays of what it builds lie. DeviceError where that cannot be had."""
        return HOST

    def in_precision(self, precision: str) -> Kernel:
        """This kernel with the operands of its products rounded: ``full``, ``tf32`` or ``bf16``.

        A kernel that does not round them computes all the same.
        """
        return self

    @abstractmethod
    def refusal(self, plan: Plan, device: str, dtype: str) -> str | None:
        """None if it can run the plan there, else a sentence that says why not."""

    @abstractmethod
    def build(self, plan: Plan, dtype: str) -> WindowKernel:
        """Compile a plan."""

    def text(self, plan: Plan, dtype: str) -> str | None:
        """The program that ``build`` would compile, where that can be told on any machine."""
        return None

    def rows(
        self,
        name: str,
        results: Mapping[str, Symbol],
        dtype: str,
        scalars: Collection[str] = (),
        integers: Collection[str] = (),
    ) -> RowKernel | None:
        """Symbols compiled as a program over rows, or None where the reference has to do it.

        Args:
            name: of the part that the symbols belong to.
            results: the symbols, by the name of the array that each is written to; one may have the
                name of an input and is then written over it.
            scalars: inputs that are one float for all rows.
            integers: inputs that are ``numpy.intp``, one number a row.
        """
        return None

    def missing(self) -> str | None:
        """A sentence that says what it would need on this machine, or None."""
        return None

    def about(self) -> tuple[str, ...]:
        """Sentences on the device, for ``rnnfarm doctor``.

        It is only called where nothing is ``missing``.
        """
        return ()

    def remarks(self, plan: Plan, dtype: str, steps: int, rows: int) -> tuple[str, ...]:
        """Sentences on how it would run a plan, and why so, for ``rnnfarm explain``.

        They may be told on any machine.

        Args:
            steps: of a window.
            rows: of a window.
        """
        return ()
