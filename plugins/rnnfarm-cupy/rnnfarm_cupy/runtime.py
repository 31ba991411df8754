"""What runs generated CUDA: the GPU through CuPy (``gpu.py``), or this CPU (``host.py``).

Everything that computes is CUDA text, and everything that starts it goes through a ``Runtime``, so
that a machine without a GPU can check all but the calls of CuPy themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

if TYPE_CHECKING:
    from rnnfarm_cupy.figures import Figures

#: An array of the runtime's device. It can be sliced and reshaped without a copy; nothing else is
#: done with it outside the runtime.
Array = Any
HostArray = npt.NDArray[Any]
#: How the operands of matrix products are rounded; sums are float32 (or float64) always.
PRECISIONS = ("full", "tf32", "bf16")


def arithmetic(dtype: str, precision: str) -> str:
    """How products are computed: ``float64`` in that dtype, where no precision rounds them."""
    return "float64" if dtype == "float64" else precision


@dataclass(frozen=True)
class Matrix:
    """A matrix in an array: ``rows`` rows of ``columns`` elements, ``stride`` elements apart.

    Attributes:
        array: where it lies.
        offset: the number of its first element in the array.
        turned: whether the transposed of it is meant.
    """

    array: Array
    rows: int
    columns: int
    stride: int
    offset: int = 0
    turned: bool = False


@dataclass(frozen=True)
class Launch:
    """A kernel's launch: ``grid`` blocks (x, y) of ``block`` threads.

    Attributes:
        shared: bytes of dynamic shared memory of a block.
        arguments: arrays (passed as pointers, None as a null pointer), ``int`` (a C ``int``) and
            ``float`` (a C ``double``).
        together: its blocks wait for each other, so all have to run at once.
        cluster: blocks of a cluster: neighbours in x, which read each other's shared memory.
    """

    function: Any
    grid: tuple[int, int]
    block: int
    shared: int
    arguments: Sequence[Any]
    together: bool = False
    cluster: int = 1


class Program(ABC):
    """CUDA text, compiled and loaded.

    Attributes:
        checked: whether it has passed its self-check on this machine before.
    """

    checked: bool = False

    def mark_checked(self) -> None:
        """It has passed its self-check; remember that if it is kept from run to run."""
        self.checked = True

    def spills(self, name: str) -> int:
        """Bytes of a thread's registers that the compiler had to put into memory, for a kernel."""
        return 0

    @abstractmethod
    def function(self, name: str, shared: int = 0) -> Any:
        """A kernel that is declared ``extern "C"``; ``shared``: the most dynamic shared memory
        that it will be launched with, in bytes."""


class Runtime(ABC):
    """One device, and one stream of work on it.

    Attributes:
        name: of the device, for messages and for what bits depend on.
        shared_limit: bytes of dynamic shared memory that a block may have.
        multiprocessors: of the device.
    """

    name: str
    shared_limit: int
    multiprocessors: int

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """A contiguous array with arbitrary contents. DeviceError where there is no memory."""

    @abstractmethod
    def put(self, array: HostArray) -> Array:
        """A copy of a host's array on the device."""

    @abstractmethod
    def get(self, array: Array) -> HostArray:
        """A copy of a device's array on the host; waits for what computes it."""

    @abstractmethod
    def address(self, array: Array) -> int:
        """Where an array's first element lies."""

    @abstractmethod
    def is_mine(self, array: Any) -> bool:
        """Whether an array lies on this device."""

    @abstractmethod
    def copy(self, target: Array, source: Array) -> None:
        """Copy between contiguous arrays of as many bytes, on the device, in the stream."""

    @abstractmethod
    def clear(self, target: Array) -> None:
        """Fill a contiguous array with zero bytes, in the stream."""

    @abstractmethod
    def load(self, source: str) -> Program:
        """Compile CUDA text, or find it compiled. DeviceError where that cannot be done."""

    @abstractmethod
    def resident(self, function: Any, block: int, shared: int) -> int:
        """How many blocks of ``block`` threads of a kernel run at the same time on the device, each
        with ``shared`` bytes of dynamic shared memory: the most that may wait for each other."""

    @abstractmethod
    def launch(self, launch: Launch) -> None:
        """Start a kernel, in the stream; a grid has at least one block. DeviceError where its
        blocks wait for each other and cannot all run at once."""

    @abstractmethod
    def product(self, a: Matrix, b: Matrix, out: Matrix, precision: str, add: bool = False) -> None:
        """``out = a @ b`` in the stream, or ``out += a @ b``; ``out`` is not turned.

        All three are of one dtype.
        """

    @abstractmethod
    def recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        """Launches recorded once, to be started together (a CUDA graph).

        ``work`` makes launches and clears alone; it is called now, when nothing of it is computed
        yet, or each time. Its arrays have to be kept by the caller, and meanwhile no other thread
        may launch.
        """

    @abstractmethod
    def late(self, array: Array) -> Callable[[], HostArray]:
        """Start copying an array to the host; the result waits for it and gives it."""

    @abstractmethod
    def sender(self) -> Callable[[Mapping[str, HostArray]], Mapping[str, Array]]:
        """What copies a lane's windows to the device, ahead of the work that is queued.

        What it gives holds until the call after the next, and is there for all that is queued
        after the call.
        """

    @abstractmethod
    def figures(self) -> Figures:
        """What the device can do, to predict times from; the same each time.

        The first call may run kernels on the device: not one within a recording.
        """

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for all work."""

    @abstractmethod
    def elapsed(self, work: Callable[[], None]) -> float:
        """Seconds that the device takes for ``work``, by its own clock."""
