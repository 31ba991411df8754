"""The GPU, through CuPy.

CuPy's thin wrappers of CUDA's own calls do the work; of its arrays only allocation, slicing and
copies are used. Everything runs in one stream, so that nothing has to be waited for but results,
and so that the memory pool may hand out again what the stream has not finished with.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import logging
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rnnfarm.errors import DeviceError
from rnnfarm_cupy import compiler
from rnnfarm_cupy.figures import PORTABLE_CLUSTER, Figures, figures_of, measured_barriers
from rnnfarm_cupy.runtime import (
    PRECISIONS,
    Array,
    HostArray,
    Launch,
    Matrix,
    Program,
    Runtime,
)

log = logging.getLogger("rnnfarm")
#: Bytes of dynamic shared memory that any kernel may have; more has to be asked for.
USUAL_SHARED = 48 * 1024
#: 8-byte arguments of a kernel at most: 4 KB, CUDA's limit before 12.1.
SLOTS = 512
#: From CUDA's library_types.h and cublas_api.h; CuPy passes them on as they are where the compute
#: type is at least CUBLAS_COMPUTE_16F (64), and does not name all.
CUDA_R_32F, CUDA_R_64F, CUDA_R_16BF = 0, 1, 14
COMPUTE_32F, COMPUTE_64F, COMPUTE_32F_FAST_TF32 = 68, 70, 77
OP_N, OP_T, GEMM_DEFAULT = 0, 1, -1
#: From CUDA's driver_types.h: cudaErrorInsufficientDriver, cudaErrorNoDevice.
INSUFFICIENT_DRIVER, NO_DEVICE = 35, 100
#: cudaDevAttrComputeCapabilityMajor, and the first that has asynchronous copies and bfloat16.
MAJOR, OLDEST = 75, 8
#: CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, from CUDA's cuda.h; CuPy does not name it.
LARGE_CLUSTERS = 14
#: Bytes a second that memory is taken to give where CUDA does not tell, as where it is the host's.
UNKNOWN_MEMORY = 2.5e11

#: Rows of float32, ``stride`` apart, rounded to nearest even; NaN stays one.
BF16 = r"""
extern "C" __global__ void rnnfarm_round_bf16(
    const unsigned int *from, unsigned short *to, int rows, int columns, int stride, int width)
{
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    for (long long row = blockIdx.y; row < rows; row += gridDim.y) {
        unsigned int bits = from[row * stride + column];
        unsigned int kept = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
        if ((bits & 0x7fffffffu) > 0x7f800000u) kept = (bits >> 16) | 0x40u;
        to[row * width + column] = (unsigned short)kept;
    }
}
"""
THREADS, MOST_ROWS = 256, 65_535


def missing_gpu() -> str | None:
    """Why this machine's GPU cannot be used, or None."""
    problem = compiler.missing_compiler()
    if problem is not None and not problem.startswith("NVRTC"):
        return problem
    runtime: Any = importlib.import_module("cupy.cuda").runtime
    try:
        count = int(runtime.getDeviceCount())
    except runtime.CUDARuntimeError as error:
        return _no_device(runtime, error)
    if count == 0:
        return _none_visible()
    if problem is not None:
        return problem
    if (major := int(runtime.deviceGetAttribute(MAJOR, 0))) < OLDEST:
        return (
            f"the GPU is too old: its compute capability is {major}.x, and the kernels need "
            f"{OLDEST}.0 or more (Ampere and later)"
        )
    try:
        _cublas()
    except (ImportError, RuntimeError) as error:
        return (
            f"cuBLAS, CUDA's matrix products, cannot be loaded ({compiler._line(error)}); run "
            "pip install 'rnnfarm-cupy[cuda13]', or 'rnnfarm-cupy[cuda12]' for CuPy for CUDA 12"
        )
    return None


def _no_device(runtime: Any, error: Exception) -> str:
    """Why CUDA gives no device."""
    status = getattr(error, "status", None)
    if status == NO_DEVICE:
        return _none_visible()
    try:
        found = int(runtime.driverGetVersion())
    except runtime.CUDARuntimeError:
        found = 0
    needed = int(runtime.runtimeGetVersion())
    if status == INSUFFICIENT_DRIVER and found > 0:
        other = " or rnnfarm-cupy[cuda12]" if found // 1000 == 12 < needed // 1000 else ""
        return (
            f"NVIDIA's driver is too old: it serves CUDA {_version(found)}, and CuPy is for CUDA "
            f"{_version(needed)}; install a newer driver{other}"
        )
    if status == INSUFFICIENT_DRIVER:
        return "there is no NVIDIA driver on this machine (libcuda.so.1 cannot be loaded)"
    return f"CUDA finds no GPU ({compiler._line(error)}); see what nvidia-smi says"


def _none_visible() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return f"no NVIDIA GPU is visible; CUDA_VISIBLE_DEVICES is {visible!r}"
    return "NVIDIA's driver finds no GPU on this machine; see what nvidia-smi says"


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _cublas() -> Any:
    # An attribute, not a module to import: getting it loads the library that the module needs.
    return importlib.import_module("cupy.cuda").cublas


class Function:
    """A kernel, and the memory in which its arguments are handed over.

    CUDA takes an array of the arguments' addresses, and copies the arguments before it returns.
    Each has 8 bytes here, which hold a pointer, a double or, in the first four, an int: every
    machine with an NVIDIA GPU is little-endian. So the addresses never change, and a launch
    writes but its arguments; CuPy's own launch makes an object of each.

    Attributes:
        handle: CUDA's.
        pointers, integers, doubles: views of one memory. An int's number is twice the argument's.
        addresses: where the addresses are.
        module: held, for CUDA unloads the kernel with it.
        resident: blocks that the device runs at the same time, by their threads and bytes of
            dynamic shared memory; as far as it was asked.
        large_clusters: whether CUDA was told to allow them.
    """

    __slots__ = (
        *("_all", "addresses", "doubles", "handle", "integers"),
        *("large_clusters", "module", "name", "pointers", "resident"),
    )

    def __init__(self, handle: int, name: str, module: Any) -> None:
        self.handle, self.name, self.module = handle, name, module
        self.resident: dict[tuple[int, int], int] = {}
        self.large_clusters = False
        memory = bytearray(8 * SLOTS)
        view = memoryview(memory)
        self.pointers, self.integers = view.cast("Q"), view.cast("i")
        self.doubles = view.cast("d")
        start = ctypes.addressof((ctypes.c_char * len(memory)).from_buffer(memory))
        self._all = (ctypes.c_uint64 * SLOTS)(*range(start, start + len(memory), 8))
        self.addresses = ctypes.addressof(self._all)

    def fill(self, slot: int, value: Any) -> None:
        """Write an argument of a type that is not met often."""
        if isinstance(value, float):
            self.doubles[slot] = value
        elif isinstance(value, (int, np.integer)):
            self.integers[2 * slot] = int(value)
        else:
            pointer = getattr(getattr(value, "data", None), "ptr", None)
            if pointer is None:
                kind = type(value).__name__
                raise TypeError(f"argument {slot} of {self.name} is a {kind}: not for a kernel")
            self.pointers[slot] = pointer


class CuPyProgram(Program):
    """A program on the GPU.

    Attributes:
        compiled: the program as it was compiled, with what its kernels take.
    """

    def __init__(self, runtime: CuPyRuntime, compiled: compiler.Program) -> None:
        self.compiled = compiled
        self._runtime = runtime
        self._module = runtime.cuda.function.Module()
        try:
            self._module.load(compiled.compiled.cubin)
        except runtime.errors as error:
            raise DeviceError(
                f"{runtime.name} cannot load a compiled program ({compiler._line(error)})"
            ) from error
        self._functions: dict[str, tuple[Function, int]] = {}

    @property
    def checked(self) -> bool:  # type: ignore[override]
        """Whether the program has passed its self-check before."""
        return self.compiled.checked

    def mark_checked(self) -> None:
        """Remember that the program has passed its self-check."""
        self.compiled.mark_checked()

    def spills(self, name: str) -> int:
        return sum(k.spill_bytes for k in self.compiled.compiled.kernels if k.name == name)

    def function(self, name: str, shared: int = 0) -> Function:
        runtime = self._runtime
        if shared > runtime.shared_limit:
            raise DeviceError(
                f"the kernel {name} needs {shared} bytes of shared memory, and a block of "
                f"{runtime.name} may have {runtime.shared_limit}"
            )
        runtime.enter()
        function, allowed = self._functions.get(name, (None, USUAL_SHARED))
        driver = runtime.cuda.driver
        try:
            if function is None:
                held = self._module.get_function(name)
                # The object holds its module, which is unloaded when the last of both goes.
                function = Function(int(held.ptr), name, held)
            if shared > allowed:  # never less than before: launches may be under way
                attribute = driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                driver.funcSetAttribute(function.handle, attribute, shared)
                allowed = shared
        except runtime.errors as error:
            raise DeviceError(
                f"the kernel {name} cannot be used with {shared} bytes of shared memory on "
                f"{runtime.name} ({compiler._line(error)})"
            ) from error
        self._functions[name] = (function, allowed)
        return function


class CuPyRuntime(Runtime):
    """One GPU and one stream; one runtime for each process.

    Attributes:
        arch: for the compiler, such as ``sm_90``.
        cuda: the module ``cupy.cuda``.
        errors: what CUDA's calls raise.
    """

    def __init__(self, device: int = 0) -> None:
        problem = missing_gpu()
        if problem is not None:
            raise DeviceError(problem)
        self._cupy: Any = importlib.import_module("cupy")
        self.cuda: Any = self._cupy.cuda
        self._calls: Any = self.cuda.runtime
        self._start: Any = self.cuda.driver.launchKernel
        self._start_together: Any = self.cuda.driver.launchCooperativeKernel
        self._blas: Any = _cublas()
        self._ndarray: Any = self._cupy.ndarray
        self.errors: tuple[type[Exception], ...] = (
            self._calls.CUDARuntimeError,
            self.cuda.driver.CUDADriverError,
            self._blas.CUBLASError,
        )
        self._failures: tuple[type[Exception], ...] = (DeviceError, *self.errors)
        # Kernels' arguments and the products' scratch are written and handed over in one go.
        self._lock = threading.Lock()
        self._device: Any = self.cuda.Device(device)
        self._threads: set[int] = set()
        self._programs: dict[str, CuPyProgram] = {}
        self._scratch: dict[str, Array] = {}
        self._round: Function | None = None
        self._figures: Figures | None = None
        self._measuring = threading.Lock()
        self._copies: deque[tuple[Any, Any]] = deque()
        self._cannot_record = False
        # CUDA reads these while the call lasts; it is told by cuBLAS's usual pointer mode that
        # they are the host's.
        self._scalars: dict[int, HostArray] = {
            4: np.array([1.0, 0.0], dtype=np.float32),
            8: np.array([1.0, 0.0], dtype=np.float64),
        }
        try:
            self.enter()
            properties = self._calls.getDeviceProperties(device)
            attributes = self._device.attributes
            self.arch = f"sm_{self._device.compute_capability}"
            # Its own stream, because the null stream cannot be recorded.
            self.stream: Any = self.cuda.Stream(non_blocking=True)
            self._stream = int(self.stream.ptr)
            # Its own handle, because others may change the mode of CuPy's. cuBLAS gives the same
            # bits each time as long as a handle is used in one stream: CUBLAS_WORKSPACE_CONFIG is
            # for handles that serve several at once. CuPy sets the handle's stream in every call.
            self._handle = int(self._blas.create())
        except self.errors as error:
            raise DeviceError(f"the GPU {device} cannot be used ({error})") from error
        name = properties["name"]
        name = name.decode() if isinstance(name, bytes) else str(name)
        self.name = f"{name} ({self.arch})"
        self.shared_limit = int(attributes["MaxSharedMemoryPerBlockOptin"])
        self.multiprocessors = int(attributes["MultiProcessorCount"])

    def enter(self) -> None:
        """Make the device the thread's, once for each thread."""
        thread = threading.get_ident()
        if thread not in self._threads:
            self._device.use()
            self._calls.free(0)  # makes the context now, which kernels are loaded into
            self._threads.add(thread)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        self.enter()
        try:
            with self.stream:
                return self._cupy.empty(shape, dtype)
        except (self.cuda.memory.OutOfMemoryError, *self.errors) as error:
            raise DeviceError(self._no_memory(shape, dtype, error)) from error

    def put(self, array: HostArray) -> Array:
        self.enter()
        try:
            with self.stream:
                # By way of pinned memory, so that the host's array may change at once and the
                # host goes on.
                made = self._cupy.array(np.atleast_1d(array), order="C")
                return made.reshape(array.shape)
        except (self.cuda.memory.OutOfMemoryError, *self.errors) as error:
            raise DeviceError(self._no_memory(array.shape, array.dtype, error)) from error

    def get(self, array: Array) -> HostArray:
        self.enter()
        with self._waiting(), self.stream:
            result = array.get(stream=self.stream)
            self.stream.synchronize()
        return np.asarray(result)

    def address(self, array: Array) -> int:
        return int(array.data.ptr)

    def is_mine(self, array: Any) -> bool:
        return isinstance(array, self._ndarray) and array.device.id == self._device.id

    def copy(self, target: Array, source: Array) -> None:
        if target.nbytes != source.nbytes:
            raise ValueError(f"{source.nbytes} bytes are not copied to {target.nbytes}")
        if target.nbytes:
            self.enter()
            kind = self._calls.memcpyDeviceToDevice
            with self._waiting():
                self._calls.memcpyAsync(
                    target.data.ptr, source.data.ptr, target.nbytes, kind, self._stream
                )

    def clear(self, target: Array) -> None:
        if target.nbytes:
            self.enter()
            with self._waiting():
                self._calls.memsetAsync(target.data.ptr, 0, target.nbytes, self._stream)

    def load(self, source: str) -> CuPyProgram:
        program = self._programs.get(source)
        if program is None:
            self.enter()
            program = CuPyProgram(self, compiler.load_program(source, self.arch))
            self._programs[source] = program
        return program

    def launch(self, launch: Launch) -> None:
        # Thousands for a window: nothing here that is not needed.
        if threading.get_ident() not in self._threads:
            self.enter()
        function = launch.function
        together = launch.together
        if together or launch.cluster > PORTABLE_CLUSTER:
            self._allow(launch)
        pointers, integers, doubles = function.pointers, function.integers, function.doubles
        ndarray = self._ndarray
        with self._lock:
            for slot, value in enumerate(launch.arguments):
                kind = type(value)
                if kind is ndarray:
                    pointers[slot] = value.data.ptr
                elif kind is int:
                    integers[2 * slot] = value
                elif kind is float:
                    doubles[slot] = value
                elif value is None:
                    pointers[slot] = 0
                else:
                    function.fill(slot, value)
            across, down = launch.grid
            handle, addresses, stream = function.handle, function.addresses, self._stream
            block, shared = launch.block, launch.shared
            try:
                if together:
                    self._start_together(
                        handle, across, down, 1, block, 1, 1, shared, stream, addresses
                    )
                else:
                    self._start(handle, across, down, 1, block, 1, 1, shared, stream, addresses, 0)
            except self.errors as error:
                raise DeviceError(
                    f"{self.name} cannot start the kernel {function.name} ({across} x {down} "
                    f"blocks of {block} threads, {shared} bytes of shared memory): "
                    f"{compiler._line(error)}"
                ) from error

    def _allow(self, launch: Launch) -> None:
        """Allow a large cluster; refuse a grid whose blocks would wait for each other forever."""
        function, (across, down) = launch.function, launch.grid
        if launch.cluster > PORTABLE_CLUSTER and not function.large_clusters:
            try:
                self.cuda.driver.funcSetAttribute(function.handle, LARGE_CLUSTERS, 1)
            except self.errors as error:
                raise DeviceError(
                    f"the kernel {function.name} cannot have clusters of {launch.cluster} blocks "
                    f"on {self.name} ({compiler._line(error)})"
                ) from error
            function.large_clusters = True
        if launch.together:
            most = self.resident(function, launch.block, launch.shared)
            if across * down > most:
                raise DeviceError(
                    f"the {across * down} blocks of the kernel {function.name} would wait for each "
                    f"other forever: {self.name} runs {most} of them at the same time"
                )

    def resident(self, function: Function, block: int, shared: int) -> int:
        found = function.resident.get((block, shared))
        if found is None:
            self.enter()
            count = self.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor
            with self._waiting():
                found = int(count(function.handle, block, shared)) * self.multiprocessors
            function.resident[block, shared] = found
        return found

    def figures(self) -> Figures:
        self.enter()
        # One thread measures: all are to choose by the same times.
        with self._measuring:
            if self._figures is None:
                with self._waiting():
                    known = self._known()
                self._figures = self._measured(known)
            return self._figures

    def _known(self) -> Figures:
        """The device's figures, as CUDA and the table tell them."""
        attributes = self._device.attributes
        kilohertz = int(attributes["ClockRate"])
        # Two transfers for each clock of the memory; CUDA tells 0 where it has none of its own.
        transfers = 2e3 * int(attributes.get("MemoryClockRate", 0))
        memory = transfers * int(attributes.get("GlobalMemoryBusWidth", 0)) / 8
        return figures_of(
            self.name,
            int(self._device.compute_capability),
            multiprocessors=self.multiprocessors,
            registers=int(attributes["MaxRegistersPerMultiprocessor"]),
            shared=self.shared_limit,
            clock=1e3 * kilohertz,
            memory=memory or UNKNOWN_MEMORY,
        )

    def _measured(self, figures: Figures) -> Figures:
        """Figures with the barriers' times on this very device, where they can be measured."""
        try:
            return figures.with_measured(
                *measured_barriers(self, clusters=figures.cluster_barrier is not None)
            )
        except self._failures as error:
            log.warning(
                "how long blocks wait for each other on %s is estimated, not measured (%s)",
                self.name, compiler._line(error),
            )  # fmt: skip
            return figures

    def product(self, a: Matrix, b: Matrix, out: Matrix, precision: str, add: bool = False) -> None:
        # cuBLAS's matrices lie by columns: ours are their transposed, and
        # out^T = (a @ b)^T = b^T @ a^T, so that the operands change places.
        size = int(out.array.dtype.itemsize)
        if precision not in PRECISIONS:
            raise ValueError(f"there is no precision {precision!r}")
        rows, columns = out.rows, out.columns
        inner = a.rows if a.turned else a.columns
        if rows == 0 or columns == 0:
            return
        self.enter()
        kind, compute = CUDA_R_32F, COMPUTE_32F
        if size == 8:  # for checks; there is nothing to round
            kind, compute = CUDA_R_64F, COMPUTE_64F
        elif precision == "tf32":
            compute = COMPUTE_32F_FAST_TF32
        elif precision == "bf16" and inner:
            kind = CUDA_R_16BF
        result = CUDA_R_64F if size == 8 else CUDA_R_32F
        one = self._scalars[size].ctypes.data
        with self._lock, self._waiting(), self.stream:
            if kind == CUDA_R_16BF:
                left, left_stride = self._rounded(b, "b")
                right, right_stride = self._rounded(a, "a")
            else:
                left, left_stride = _address(b, size), b.stride
                right, right_stride = _address(a, size), a.stride
            self._blas.gemmEx(
                *(self._handle, OP_T if b.turned else OP_N, OP_T if a.turned else OP_N),
                *(columns, rows, inner, one),
                *(left, kind, max(1, left_stride), right, kind, max(1, right_stride)),
                *(one if add else one + size, _address(out, size), result, max(1, out.stride)),
                *(compute, GEMM_DEFAULT),
            )

    def recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        if self._cannot_record:
            return work
        self.enter()
        stream = self.stream
        try:
            with stream:
                stream.begin_capture()
                try:
                    work()
                finally:
                    # A capture that failed has to be ended too, or the stream stays unusable.
                    graph = stream.end_capture()
        except self._failures as error:
            self._cannot_record = True
            log.warning(
                "kernels cannot be recorded on %s and are started one by one, which is slower (%s)",
                self.name, compiler._line(error),
            )  # fmt: skip
            return work

        # ``work`` is held, for what it holds is the memory that the graph's kernels work on.
        def start(held: Callable[[], None] = work) -> None:
            self.enter()
            with self._waiting():
                graph.launch(stream)

        return start

    def late(self, array: Array) -> Callable[[], HostArray]:
        self.enter()
        shape, dtype, size = array.shape, np.dtype(array.dtype), int(array.nbytes)
        if size == 0:
            return lambda: np.empty(shape, dtype)
        with self._waiting(), self.stream:
            source = array if array.flags.c_contiguous else self._cupy.ascontiguousarray(array)
            # Only into pinned memory does CUDA copy while the host goes on.
            pinned = self.cuda.alloc_pinned_memory(size)
            kind = self._calls.memcpyDeviceToHost
            self._calls.memcpyAsync(pinned.ptr, source.data.ptr, size, kind, self._stream)
            event = self.cuda.Event(disable_timing=True)
            event.record(self.stream)
        # Held until the copy is there, or pinned memory that nobody asked for in the end would
        # be handed out while CUDA writes into it.
        self._copies.append((event, pinned))
        while self._copies and self._copies[0][0].done:
            self._copies.popleft()

        def result() -> HostArray:
            self.enter()
            with self._waiting():
                event.synchronize()
            values = np.frombuffer(pinned, dtype, math.prod(shape)).reshape(shape)
            return values.copy()  # the pinned memory is used again

        return result

    def sender(self) -> Callable[[Mapping[str, HostArray]], Mapping[str, Array]]:
        return _Sender(self)

    def synchronize(self) -> None:
        self.enter()
        with self._waiting():
            self.stream.synchronize()

    def elapsed(self, work: Callable[[], None]) -> float:
        self.enter()
        first, last = self.cuda.Event(), self.cuda.Event()
        with self._waiting():
            first.record(self.stream)
            work()
            last.record(self.stream)
            last.synchronize()
            return float(self.cuda.get_elapsed_time(first, last)) / 1000

    def _rounded(self, matrix: Matrix, role: str) -> tuple[int, int]:
        """A matrix in bfloat16, in memory that the next product takes again: its address and the
        elements between its rows. One stream keeps the two products apart."""
        if self._round is None:
            self._round = self.load(BF16).function("rnnfarm_round_bf16")
        rows, columns = matrix.rows, matrix.columns
        width = -(-columns // 8) * 8  # rows that start at 16 bytes, for cuBLAS's faster kernels
        scratch = self._scratch.get(role)
        if scratch is None or scratch.size < rows * width:
            self._scratch.pop(role, None)
            scratch = self._scratch[role] = self.empty((rows * width,), np.uint16)
        function = self._round
        function.pointers[0] = _address(matrix, 4)
        function.pointers[1] = scratch.data.ptr
        for slot, number in enumerate((rows, columns, matrix.stride, width), start=2):
            function.integers[2 * slot] = number
        grid = (-(-columns // THREADS), min(rows, MOST_ROWS))
        self._start(
            *(function.handle, *grid, 1, THREADS, 1, 1),
            *(0, self._stream, function.addresses, 0),
        )
        return int(scratch.data.ptr), width

    @contextlib.contextmanager
    def _waiting(self) -> Any:
        """What CUDA raises, as DeviceError. A kernel's mistake is raised by a later call."""
        try:
            yield
        except self.cuda.memory.OutOfMemoryError as error:
            raise DeviceError(f"{self.name} has too little memory ({error})") from error
        except self.errors as error:
            raise DeviceError(
                f"{self.name} failed ({compiler._line(error)}), now or in a kernel before"
            ) from error

    def _no_memory(self, shape: tuple[int, ...], dtype: Any, error: Exception) -> str:
        """Why an array was not had."""
        if not isinstance(error, MemoryError):
            return f"{self.name} failed ({compiler._line(error)}), now or in a kernel before"
        asked = math.prod(shape) * np.dtype(dtype).itemsize
        try:
            free, total = self._calls.memGetInfo()
            with self.stream:
                # What the pool holds unused is as good as free, but for its pieces' sizes.
                free += self._cupy.get_default_memory_pool().free_bytes()
            left = f"{_mebibytes(free)} of {_mebibytes(total)} are free"
        except self.errors:
            left = "less is free"
        return (
            f"{self.name} has too little memory: {_mebibytes(asked)} were asked for, and {left}; "
            "lower training.batch, training.window or a layer's hidden"
        )


class _Slot:
    """Memory of a window on its way: pinned on the host, and as much on the device."""

    def __init__(self) -> None:
        self.pinned: Any = None
        self.device: Any = None
        self.size = 0
        #: When the last copy out of the pinned memory was through.
        self.copied: Any = None


class _Sender:
    """Copies windows in a stream of its own, so that the copy runs beside the work on the one
    before. Two slots take turns."""

    def __init__(self, runtime: CuPyRuntime) -> None:
        self._runtime = runtime
        self._slots = [_Slot(), _Slot()]
        self._stream: Any = None
        #: When everything was through that had been queued at the call before.
        self._before: Any = None

    def __call__(self, arrays: Mapping[str, HostArray]) -> Mapping[str, Array]:
        runtime = self._runtime
        runtime.enter()
        cuda, compute = runtime.cuda, runtime.stream
        with runtime._waiting():
            if self._stream is None:
                self._stream = cuda.Stream(non_blocking=True)
            slot = self._slots[0]
            self._slots.reverse()
            now = cuda.Event(disable_timing=True)
            now.record(compute)
            places, size = {}, 0
            for name, array in arrays.items():
                places[name] = size
                size += -(-array.nbytes // 256) * 256
            if slot.copied is not None:
                slot.copied.synchronize()  # of two windows before: it is through
            if slot.size < size:
                slot.pinned = cuda.alloc_pinned_memory(size)
                slot.device = runtime.empty((size,), np.uint8)
                slot.size = size
                # The pool may give memory that queued work still reads.
                self._stream.wait_event(now)
            elif self._before is not None:
                # What was queued at the call before had read this slot's window.
                self._stream.wait_event(self._before)
            self._before = now
            for name, array in arrays.items():
                count = array.nbytes
                there = np.frombuffer(slot.pinned, np.uint8, count, places[name])
                there[...] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            kind = runtime._calls.memcpyHostToDevice
            target, source = slot.device.data.ptr, slot.pinned.ptr
            if size:
                runtime._calls.memcpyAsync(target, source, size, kind, int(self._stream.ptr))
            slot.copied = cuda.Event(disable_timing=True)
            slot.copied.record(self._stream)
            compute.wait_event(slot.copied)
            return {
                name: slot.device[places[name] : places[name] + array.nbytes]
                .view(array.dtype)
                .reshape(array.shape)
                for name, array in arrays.items()
            }


def _address(matrix: Matrix, size: int) -> int:
    return int(matrix.array.data.ptr) + matrix.offset * size


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
