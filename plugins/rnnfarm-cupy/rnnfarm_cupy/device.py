"""The GPU as the core sees it: where a network's arrays lie, and what is done with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.resources import files
from typing import Any

import numpy as np

from rnnfarm.kernels.device import Device, HostArray, Late
from rnnfarm_cupy.runtime import Array, Launch, Matrix, Runtime
from rnnfarm_cupy.source import header

THREADS = 256
#: Blocks of a grid at most where threads go on to further elements.
BLOCKS = 4096
#: Parts of the rows that are summed apart, and of a gradient whose norm is taken.
SUM_PARTS, NORM_PARTS = 64, 512


class CUDADevice(Device):
    """Arrays of one runtime.

    Attributes:
        precision: how operands of matrix products are rounded.
    """

    name = "cuda"
    immediate = False

    def __init__(self, runtime: Runtime, precision: str = "full") -> None:
        self.runtime = runtime
        self.precision = precision
        self._functions: dict[tuple[str, str], Any] = {}

    # -- memory -----------------------------------------------------------------------------------

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return self.runtime.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        made = self.runtime.empty(shape, dtype)
        self.runtime.clear(made)
        return made

    def put(self, array: HostArray) -> Array:
        return self.runtime.put(_wide(array))

    def get(self, array: Array) -> HostArray:
        return self.runtime.get(array)

    def copy(self, array: Array) -> Array:
        made = self.runtime.empty(array.shape, array.dtype)
        self.runtime.copy(made, array)
        return made

    def load(self, target: Array, array: HostArray) -> None:
        self.runtime.copy(target, self.runtime.put(np.ascontiguousarray(array, target.dtype)))

    def assign(self, target: Array, source: Array) -> None:
        self.runtime.copy(target, source)

    def clear(self, target: Array) -> None:
        self.runtime.clear(target)

    def sender(self) -> Callable[[Mapping[str, HostArray | None]], Mapping[str, Any]]:
        send = self.runtime.sender()

        def sent(arrays: Mapping[str, HostArray | None]) -> Mapping[str, Any]:
            there = send({name: _wide(a) for name, a in arrays.items() if a is not None})
            return {name: there.get(name) for name in arrays}

        return sent

    # -- arithmetic -------------------------------------------------------------------------------

    def matmul(self, a: Array, b: Array, out: Array) -> None:
        self.runtime.product(_matrix(a), _matrix(b), _matrix(out), self.precision)

    def add(self, a: Array, b: Array, out: Array) -> None:
        self._each("rnn_add", out, out.size, a, b, out)

    def multiply(self, a: Array, b: Array, out: Array) -> None:
        self._each("rnn_multiply", out, out.size, a, b, out)

    def add_vector(self, rows: Array, vector: Array) -> None:
        self._each("rnn_add_vector", rows, rows.size, rows.shape[-1], rows, vector)

    def sum_rows(self, rows: Array, out: Array) -> None:
        width = rows.shape[-1]
        count = rows.size // width
        parts = max(1, min(SUM_PARTS, count // 64))
        partial = self.empty((parts * width,), rows.dtype)
        shared = THREADS * rows.dtype.itemsize
        arguments = (count, width, parts, rows, partial)
        self._launch("rnn_sum_rows", rows, (-(-width // 32), parts), shared, *arguments)
        grid = (-(-width // THREADS), 1)
        self._launch("rnn_sum_rows_end", rows, grid, 0, width, parts, partial, out)

    def take_rows(self, table: Array, numbers: Array, out: Array) -> None:
        grid = (numbers.size, 1)
        self._launch("rnn_take_rows", table, grid, 0, table.shape[1], table, numbers, out)

    def add_rows(self, target: Array, numbers: Array, values: Array) -> None:
        count, width = values.shape
        arguments = (count, width, target, numbers, values)
        self._launch("rnn_add_rows", target, (count, 1), 2 * THREADS * 4, *arguments)

    def copy_columns(
        self,
        source: Array,
        first: int,
        target: Array,
        start: int,
        width: int,
        turned: bool = False,
        add: bool = False,
    ) -> None:
        steps, rows, there = target.shape
        places = (first, source.shape[-1], start, there)
        arguments = (steps, rows, width, int(turned), int(add), *places, source, target)
        name = "rnn_copy_bytes" if target.dtype == np.bool_ else "rnn_copy_columns"
        self._launch(name, target, _blocks(steps * rows * width), 0, *arguments)

    # -- random numbers ---------------------------------------------------------------------------

    def dropped(self, random: np.random.Generator, p: float, out: Array) -> None:
        arguments = (out.size, float(p), 1.0 / (1.0 - p), self._state(random), out)
        self._launch("rnn_dropped", out, _blocks(out.size), 0, *arguments)

    def chosen(self, random: np.random.Generator, p: float, out: Array) -> None:
        arguments = (out.size, float(p), self._state(random), out)
        self._launch("rnn_chosen", None, _blocks(out.size), 0, *arguments)

    def _state(self, random: np.random.Generator) -> Array:
        """A fresh generator's counter and key."""
        state: Any = random.bit_generator.state
        if state["bit_generator"] != "Philox" or state["buffer_pos"] != 4 or state["has_uint32"]:
            raise ValueError("random numbers come from a fresh Philox generator")
        words = np.concatenate([state["state"]["counter"], state["state"]["key"]])
        return self.runtime.put(words.astype(np.uint64))

    # -- losses and updates -----------------------------------------------------------------------

    def total(self, rows: Array, counts: Array, d_output: Array | None) -> Any:
        if d_output is not None:
            width = d_output.shape[-1]
            grid = (counts.size, 1)
            self._launch("rnn_mask_rows", rows, grid, 0, width, counts, d_output)
        return self._late(self._total(rows, counts))

    def _total(self, rows: Array, counts: Array) -> Array:
        out = self.empty((1,), np.float64)
        self._launch("rnn_total", rows, (1, 1), THREADS * 8, counts.size, rows, counts, out)
        return out

    def correct(self, output: Array, target: Array, counts: Array) -> Any:
        rows = self.empty((counts.size, 1), output.dtype)
        width = output.shape[-1]
        shared = THREADS * (output.dtype.itemsize + 4)
        arguments = (width, output, target, rows)
        self._launch("rnn_correct", output, (counts.size, 1), shared, *arguments)
        return self._late(self._total(rows, counts))

    def norm_and_scale(self, gradient: Array, scale: float, most: float | None) -> tuple[Any, Any]:
        parts = max(1, min(NORM_PARTS, gradient.size // (16 * THREADS)))
        partial, norm = self.empty((parts,), np.float64), self.empty((1,), np.float64)
        factor = self.empty((1,), gradient.dtype)
        shared = THREADS * 8
        self._launch("rnn_norm", gradient, (parts, 1), shared, gradient.size, gradient, partial)
        bound = -1.0 if most is None else float(most)
        arguments = (parts, float(scale), bound, partial, norm, factor)
        self._launch("rnn_norm_end", gradient, (1, 1), shared, *arguments)
        return self._late(norm), factor

    def _late(self, number: Array) -> Late:
        read = self.runtime.late(number)
        return Late(lambda: float(read()[0]))

    # -- launches ---------------------------------------------------------------------------------

    @cached_property
    def _programs(self) -> dict[str, Any]:
        """The library, for each kind of real."""
        text = files(__package__).joinpath("library.cuh").read_text()
        return {
            dtype: self.runtime.load(f"{header(dtype, 'full')}\n{text}")
            for dtype in ("float32", "float64")
        }

    def _launch(
        self, name: str, like: Array | None, grid: tuple[int, int], shared: int, *arguments: Any
    ) -> None:
        """Start a kernel of the library that is compiled for arrays like one."""
        dtype = "float64" if like is not None and like.dtype == np.float64 else "float32"
        if (name, dtype) not in self._functions:
            self._functions[name, dtype] = self._programs[dtype].function(name)
        function = self._functions[name, dtype]
        for argument in arguments:
            if not isinstance(argument, int | float) and not argument.flags.c_contiguous:
                raise ValueError(f"{name} takes contiguous arrays")
        self.runtime.launch(Launch(function, grid, THREADS, shared, arguments))

    def _each(self, name: str, like: Array, count: int, *arguments: Any) -> None:
        self._launch(name, like, _blocks(count), 0, count, *arguments)


def _blocks(count: int) -> tuple[int, int]:
    return max(1, min(BLOCKS, -(-count // THREADS))), 1


def _wide(array: HostArray) -> HostArray:
    """Whole numbers as kernels read them."""
    kept = array.dtype.kind not in "iu" or array.dtype == np.uint64
    return np.ascontiguousarray(array, None if kept else np.int64)


def _matrix(array: Array) -> Matrix:
    """A contiguous matrix, or a transposed view of one."""
    rows, columns = array.shape
    if array.flags.c_contiguous:
        return Matrix(array, rows, columns, columns)
    turned = array.T
    if not turned.flags.c_contiguous:
        raise ValueError("a matrix is contiguous, or a transposed view of one that is")
    return Matrix(turned, columns, rows, rows, turned=True)
