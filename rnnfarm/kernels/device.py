"""Where a network's arrays lie, and what is done with them outside the kernels.

A layer that looks at one step alone is written in the operations of a ``Device``, so that it runs
wherever the kernels of the recurrent layers do.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

HostArray = npt.NDArray[Any]
#: An array of a device. It has a shape and a dtype, and can be sliced and reshaped without a copy.
Array = Any


class Late:
    """A number that a device is still computing: ``float`` waits for it."""

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read
        self._value: float | None = None

    def __float__(self) -> float:
        if self._value is None:
            self._value = self._read()
        return self._value

    def __add__(self, other: Any) -> Late:
        return Late(lambda: float(self) + float(other))

    def __radd__(self, other: Any) -> Late:
        return Late(lambda: float(other) + float(self))

    def __mul__(self, factor: float) -> Late:
        return Late(lambda: float(self) * factor)


class Device(ABC):
    """A kind of memory and what computes there.

    Attributes:
        name: as a job calls it, such as ``cpu``.
        immediate: whether every call has computed its result when it returns; otherwise work is
            queued, and figures are ``Late``.
    """

    name: str
    immediate: bool = True

    # -- memory -----------------------------------------------------------------------------------

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array with arbitrary contents."""

    @abstractmethod
    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array of zeros."""

    @abstractmethod
    def put(self, array: HostArray) -> Array:
        """A host's array on the device; the same one where that is the host."""

    @abstractmethod
    def get(self, array: Array) -> HostArray:
        """A device's array on the host; the same one where that is the host."""

    @abstractmethod
    def copy(self, array: Array) -> Array:
        """A contiguous array of its own with the same contents."""

    @abstractmethod
    def load(self, target: Array, array: HostArray) -> None:
        """Write a host's array into a contiguous one of the device."""

    @abstractmethod
    def assign(self, target: Array, source: Array) -> None:
        """Copy a contiguous array of the device into another."""

    @abstractmethod
    def clear(self, target: Array) -> None:
        """Fill a contiguous array with zeros."""

    def sender(self) -> Callable[[Mapping[str, HostArray | None]], Mapping[str, Any]]:
        """What brings one lane's windows to the device, one after the other.

        Called with a window's arrays it gives them on the device, ready when what is queued next
        reads them. They hold until the call after the next; the host's may be changed at once.
        """
        return lambda arrays: arrays

    # -- arithmetic -------------------------------------------------------------------------------

    @abstractmethod
    def matmul(self, a: Array, b: Array, out: Array) -> None:
        """``out = a @ b``; matrices, of which ``a`` and ``b`` may be transposed views."""

    @abstractmethod
    def add(self, a: Array, b: Array, out: Array) -> None:
        """``out = a + b``, element by element; ``out`` may be one of them."""

    @abstractmethod
    def multiply(self, a: Array, b: Array, out: Array) -> None:
        """``out = a * b``, element by element; ``out`` may be one of them."""

    @abstractmethod
    def add_vector(self, rows: Array, vector: Array) -> None:
        """Add a vector (W,) to every row of (T, B, W), in place."""

    @abstractmethod
    def sum_rows(self, rows: Array, out: Array) -> None:
        """``out`` (W,) = the sum over rows and steps of (T, B, W), in a fixed order."""

    @abstractmethod
    def take_rows(self, table: Array, numbers: Array, out: Array) -> None:
        """``out[k] = table[numbers[k]]``; all numbers are rows of the table."""

    @abstractmethod
    def add_rows(self, target: Array, numbers: Array, values: Array) -> None:
        """``target[numbers[k]] += values[k]`` for all k, added up in the order of k."""

    @abstractmethod
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
        """Copy columns of (T, B, ·) into others, from the last step to the first where ``turned``.

        ``add``: add them to what is there.
        """

    # -- random numbers: each device gives the same bits ------------------------------------------

    @abstractmethod
    def dropped(self, random: np.random.Generator, p: float, out: Array) -> None:
        """For each element 0 with probability ``p``, else ``1 / (1 - p)``: float32 draws."""

    @abstractmethod
    def chosen(self, random: np.random.Generator, p: float, out: Array) -> None:
        """Truth values that are true with probability ``p``: float32 draws."""

    # -- losses and updates -----------------------------------------------------------------------

    @abstractmethod
    def total(self, rows: Array, counts: Array, d_output: Array | None) -> Any:
        """The sum of ``rows`` (N, 1) where ``counts`` (N,) is true, in float64, in order.

        Elsewhere the rows of ``d_output`` (N, O) become zeros.
        """

    @abstractmethod
    def correct(self, output: Array, target: Array, counts: Array) -> Any:
        """How many rows of (N, O) are largest at their target (N,), among those that count."""

    @abstractmethod
    def norm_and_scale(self, gradient: Array, scale: float, most: float | None) -> tuple[Any, Any]:
        """The norm of ``scale * gradient``, and what to scale by so that it is at most ``most``.

        Where the norm is no number, neither is the scale of a device that is not immediate.
        """


class Host(Device):
    """The CPU, whose arrays are NumPy's."""

    name = "cpu"

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return np.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return np.zeros(shape, dtype)

    def put(self, array: HostArray) -> Array:
        return array

    def get(self, array: Array) -> HostArray:
        return np.asarray(array)

    def copy(self, array: Array) -> Array:
        return np.array(array, order="C")

    def load(self, target: Array, array: HostArray) -> None:
        target[...] = array

    def assign(self, target: Array, source: Array) -> None:
        target[...] = source

    def clear(self, target: Array) -> None:
        target.fill(0)

    def matmul(self, a: Array, b: Array, out: Array) -> None:
        np.matmul(a, b, out=out)

    def add(self, a: Array, b: Array, out: Array) -> None:
        np.add(a, b, out=out)

    def multiply(self, a: Array, b: Array, out: Array) -> None:
        np.multiply(a, b, out=out)

    def add_vector(self, rows: Array, vector: Array) -> None:
        rows += vector

    def sum_rows(self, rows: Array, out: Array) -> None:
        np.add.reduce(np.add.reduce(rows, 1), 0, out=out)

    def take_rows(self, table: Array, numbers: Array, out: Array) -> None:
        np.take(table, numbers, axis=0, out=out, mode="clip")  # 'raise' would copy the output

    def add_rows(self, target: Array, numbers: Array, values: Array) -> None:
        order = np.argsort(numbers, kind="stable")
        used, starts = np.unique(numbers[order], return_index=True)
        target[used] += np.add.reduceat(values[order], starts, axis=0)

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
        columns = (source[::-1] if turned else source)[..., first : first + width]
        if add:
            target[..., start : start + width] += columns
        else:
            target[..., start : start + width] = columns

    def dropped(self, random: np.random.Generator, p: float, out: Array) -> None:
        if out.dtype == np.float32 and out.flags.c_contiguous:
            draws = random.random(out=out, dtype=np.float32)
        else:
            draws = random.random(out.shape, dtype=np.float32)
        np.greater_equal(draws, p, out=out, casting="unsafe")
        out *= 1.0 / (1.0 - p)

    def chosen(self, random: np.random.Generator, p: float, out: Array) -> None:
        np.less(random.random(out.shape, dtype=np.float32), p, out=out)

    def total(self, rows: Array, counts: Array, d_output: Array | None) -> Any:
        if not counts.all():
            rows[~counts] = 0.0
            if d_output is not None:
                d_output[~counts] = 0.0
        return float(rows.sum(dtype=np.float64))

    def correct(self, output: Array, target: Array, counts: Array) -> Any:
        return int(np.sum((output.argmax(-1) == target) & counts))

    def norm_and_scale(self, gradient: Array, scale: float, most: float | None) -> tuple[Any, Any]:
        norm = global_norm(gradient) * scale
        return norm, clipped_scale(norm, scale, most)


def global_norm(gradient: HostArray) -> float:
    """The Euclidean norm; blocks are added in float64, in order."""
    block = 1 << 16
    total = 0.0
    with np.errstate(over="ignore"):
        for start in range(0, gradient.size, block):
            part = gradient[start : start + block]
            squares = float(np.dot(part, part))
            if not math.isfinite(squares):  # a gradient that explodes has a norm all the same
                part = part.astype(np.float64)
                squares = float(np.dot(part, part))
            total += squares
    return math.sqrt(total)


def clipped_scale(norm: float, scale: float, most: float | None) -> float:
    """What a gradient is scaled by: ``scale``, or less where the norm after it is above ``most``
    (Pascanu et al. 2013)."""
    return scale * most / norm if most is not None and norm > most else scale


#: This machine's CPU.
HOST = Host()
