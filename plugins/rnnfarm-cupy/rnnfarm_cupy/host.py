"""Generated CUDA on this CPU: what a machine without a GPU checks kernels with.

The same text is compiled by the machine's C++ compiler against ``shim.h``. It is thousands of times
slower than a GPU, and meant for tests alone: ``RNNFARM_CUDA=host`` makes the plugin use it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from rnnfarm.errors import DeviceError
from rnnfarm_cupy.figures import H200, Figures
from rnnfarm_cupy.runtime import HostArray, Launch, Matrix, Program, Runtime

FLAGS = ["-std=c++17", "-O1", "-fPIC", "-shared", "-U_FORTIFY_SOURCE", "-ffp-contract=off", "-w"]
KERNEL = re.compile(r'^extern "C" __global__ void (?:__\w+__\([^)]*\)\s+)*(\w+)\(', re.M)


class DeviceLike(np.ndarray):
    """An array that stands for one on a GPU: the host can slice and reshape it, and no more.

    So code that would work on NumPy's arrays and fail on a GPU's fails here too.
    """

    def __array_ufunc__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("NumPy cannot compute with an array of the device")

    def __array_function__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("NumPy cannot compute with an array of the device")

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return found if isinstance(found, DeviceLike) else self._refused()

    def _refused(self, *_: Any, **__: Any) -> Any:
        raise TypeError("the host cannot read or write an array of the device")

    __float__ = __int__ = __bool__ = __iter__ = __setitem__ = _refused
    tobytes = tolist = copy = astype = fill = sum = max = min = item = _refused


def _seen(array: Any) -> HostArray:
    """The host's view of a device's array."""
    return array.view(np.ndarray) if isinstance(array, DeviceLike) else array


def find_compiler() -> list[str] | None:
    """The command of a C++ compiler, or None."""
    wanted = os.environ.get("CXX")
    for command in [wanted] if wanted else ["g++", "clang++", "c++"]:
        words = shlex.split(command)
        if words and shutil.which(words[0]):
            return words
    return None


class HostProgram(Program):
    """A program as a shared library; one launch at a time."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._lock = threading.Lock()

    def function(self, name: str, shared: int = 0) -> Any:
        found = getattr(self._library, f"{name}_launch")
        found.restype = ctypes.c_char_p
        found.argtypes = [
            ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_int, ctypes.c_int,
            ctypes.c_int, ctypes.POINTER(ctypes.c_void_p),
        ]  # fmt: skip

        def run(launch: Launch, backwards: bool, table: Any) -> None:
            if launch.shared > max(shared, 48 << 10):
                raise AssertionError(f"{name} takes more shared memory than it was prepared for")
            sizes = (*launch.grid, launch.block, launch.shared)
            with self._lock:
                fault = found(*sizes, backwards, launch.together, launch.cluster, table)
            if fault:
                raise AssertionError(f"{name}: {fault.decode()}")

        run.__name__ = name  # for messages
        return run


#: Every program of the process: a library has one block's state, whoever launches it.
_programs: dict[str, Program] = {}
_loading = threading.Lock()


class HostRuntime(Runtime):
    """A CPU that runs CUDA.

    Attributes:
        backwards: whether blocks and threads run from the last to the first; no bit may change.
        most_blocks: how many blocks run at the same time, where they wait for each other.
        launches: how many kernels were started, by themselves or in a recording.
    """

    name = "the host's stand-in for a GPU"
    shared_limit = 99 << 10
    multiprocessors = 4

    def __init__(self, backwards: bool = False, most_blocks: int = 64) -> None:
        self.backwards = backwards
        self.most_blocks = most_blocks
        self.launches = 0
        self._recording: list[Callable[[], None]] | None = None

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        kind = np.dtype(dtype)
        size = int(np.prod(shape)) * kind.itemsize
        # A GPU's arrays start at 256 bytes; fresh memory holds NaN, or what is no small number.
        memory = np.full(size + 256, 0xFF, np.uint8)
        start = -memory.ctypes.data % 256
        return memory[start : start + size].view(kind).reshape(shape).view(DeviceLike)

    def _not_recorded(self) -> None:
        if self._recording is not None:
            raise AssertionError("a recording has launches and clears alone")

    def put(self, array: HostArray) -> Any:
        self._not_recorded()
        made = self.empty(array.shape, array.dtype)
        _seen(made)[...] = array
        return made

    def get(self, array: Any) -> HostArray:
        self._not_recorded()
        return _seen(array).copy()

    def address(self, array: Any) -> int:
        return int(array.ctypes.data)

    def is_mine(self, array: Any) -> bool:
        return isinstance(array, DeviceLike)

    def copy(self, target: Any, source: Any) -> None:
        self._not_recorded()
        _contiguous(target, source)
        _seen(target)[...] = _seen(source).reshape(target.shape)

    def clear(self, target: Any) -> None:
        _contiguous(target)
        if self._recording is not None:
            self._recording.append(partial(self.clear, target))
            return
        _seen(target)[...] = 0

    def load(self, source: str) -> Program:
        with _loading:
            if source not in _programs:
                _programs[source] = HostProgram(ctypes.CDLL(str(_library(source))))
            return _programs[source]

    def resident(self, function: Any, block: int, shared: int) -> int:
        return self.most_blocks

    def launch(self, launch: Launch) -> None:
        if min(launch.grid) < 1:
            raise AssertionError("a grid without blocks")
        self._refuse_too_many(launch)
        if self._recording is not None:
            self._recording.append(partial(self.launch, launch))
            return
        self.launches += 1
        values: list[Any] = []
        for argument in launch.arguments:
            if argument is None:
                values.append(ctypes.c_void_p(None))
            elif isinstance(argument, DeviceLike):
                values.append(ctypes.c_void_p(argument.ctypes.data))
            elif isinstance(argument, float):
                values.append(ctypes.c_double(argument))
            elif isinstance(argument, int):
                values.append(ctypes.c_int(argument))
            else:
                raise TypeError(f"a kernel takes no {type(argument).__name__}")
        table = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        launch.function(launch, self.backwards, table)

    def _refuse_too_many(self, launch: Launch) -> None:
        blocks = launch.grid[0] * launch.grid[1]
        most = self.resident(launch.function, launch.block, launch.shared)
        if launch.together and blocks > most:
            raise DeviceError(
                f"{launch.function.__name__} has {blocks} blocks and only {most} of them can run "
                "at once, so they would wait for each other forever"
            )

    def product(self, a: Matrix, b: Matrix, out: Matrix, precision: str, add: bool = False) -> None:
        self._not_recorded()
        left, right = (_rounded(_matrix(one), precision) for one in (a, b))
        target = _matrix(out)
        target[...] = target + left @ right if add else left @ right

    def recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        actions: list[Callable[[], None]] = []
        self._recording = actions
        try:
            work()
        finally:
            self._recording = None

        def replay() -> None:
            for action in actions:
                action()

        return replay

    def late(self, array: Any) -> Callable[[], HostArray]:
        found = self.get(array)
        return lambda: found

    def sender(self) -> Callable[[Mapping[str, HostArray]], Mapping[str, Any]]:
        slots: list[Mapping[str, Any]] = [{}, {}]

        def send(arrays: Mapping[str, HostArray]) -> Mapping[str, Any]:
            # What is given twice later is written over: nobody may read it any more.
            for array in slots.pop(0).values():
                _seen(array).view(np.uint8)[...] = 0xFF
            slots.append({name: self.put(array) for name, array in arrays.items()})
            return slots[-1]

        return send

    def synchronize(self) -> None:
        pass

    def elapsed(self, work: Callable[[], None]) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    def figures(self) -> Figures:
        # Barriers that last so long that kernels whose blocks wait for each other are never
        # predicted to be the faster ones: the stand-in runs them where a test asks for them.
        few = replace(H200, name=self.name, multiprocessors=self.multiprocessors)
        return replace(few, shared=self.shared_limit).with_measured(1.0, 1.0)


def _contiguous(*arrays: Any) -> None:
    for array in arrays:
        if not isinstance(array, DeviceLike) or not array.flags.c_contiguous:
            raise TypeError("copies and clears are of contiguous arrays of the device")


def _matrix(one: Matrix) -> HostArray:
    flat = _seen(one.array).reshape(-1)
    size = flat.itemsize
    if one.offset + (one.rows - 1) * one.stride + one.columns > flat.size:
        raise AssertionError("a matrix ends outside its array")
    strides = (one.stride * size, size)
    view = np.lib.stride_tricks.as_strided(flat[one.offset :], (one.rows, one.columns), strides)
    return view.T if one.turned else view


def _rounded(array: HostArray, precision: str) -> HostArray:
    """Operands as a GPU's matrix units take them."""
    if precision == "full" or array.dtype != np.float32:
        return array
    bits = np.ascontiguousarray(array).view(np.uint32)
    if precision == "tf32":
        rounded = (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    else:
        rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        rounded &= np.uint32(0xFFFF0000)
    return np.where(np.isfinite(array), rounded.view(np.float32), array)


def _library(source: str) -> Path:
    """The shared library of a program, compiled if it is not there."""
    compiler = find_compiler()
    if compiler is None:
        raise DeviceError("checking CUDA on this machine takes a C++ compiler; install g++")
    shim = files(__package__).joinpath("shim.h").read_text()
    kernels = "\n".join(f"RNN_KERNEL({name})" for name in KERNEL.findall(source))
    mode = re.search(r"^#define RNN_MODE \d$", source, re.M)
    text = f"{mode.group() if mode else ''}\n{shim}\n{source}\n{kernels}\n"
    key = hashlib.sha256(repr((text, compiler, FLAGS)).encode()).hexdigest()[:32]
    root = os.environ.get("RNNFARM_CACHE")
    folder = Path(root) / "cuda-host" if root else Path(tempfile.gettempdir()) / _private_name()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{key}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            (Path(scratch) / "kernels.cpp").write_text(text)
            made = Path(scratch) / "kernels.so"
            command = [*compiler, *FLAGS, "kernels.cpp", "-o", str(made), "-lm"]
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
            if done.returncode:
                raise DeviceError(f"{compiler[0]} cannot compile a kernel: {done.stderr[:2000]}")
            made.rename(path)
    return path


def _private_name() -> str:
    return f"rnnfarm-cuda-host-{os.getuid()}"
