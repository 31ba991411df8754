"""The arrays of a window in flight, and the launches that go over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnfarm.equations.regions import Action, Product, Region, WeightGradient
from rnnfarm.kernels.interface import Array
from rnnfarm_cupy.resident import Resident, Room, go_through
from rnnfarm_cupy.runtime import Launch, Matrix
from rnnfarm_cupy.source import (
    SUM_PARTS,
    SUM_ROWS,
    SUM_UNITS,
    THREADS,
    Code,
    PackCode,
    RegionCode,
    RowsCode,
    StageCode,
    SumsCode,
)

if TYPE_CHECKING:
    from rnnfarm_cupy.kernel import CUDAWindowKernel

#: Graphs that a workspace keeps: one for each set of arrays that it was called with.
GRAPHS = 16
#: Launches from which on a graph is worth recording.
WORTH_RECORDING = 8


class Workspace:
    """The arrays of one window in flight.

    Attributes:
        resident: the persistent kernels that go through the steps, if there are any.
    """

    def __init__(
        self, kernel: CUDAWindowKernel, steps: int, rows: int, resident: Resident | None
    ) -> None:
        self.kernel = kernel
        self.runtime = kernel.runtime
        self.rows = rows
        self.length = 0
        self.arrays: dict[str, Array] = {}
        self.parameters: Mapping[str, Array] = {}
        self.gradients: Mapping[str, Array] = {}
        self._buffers = kernel.program.buffers
        self._graphs: dict[Any, tuple[Callable[[], None], list[Array]]] = {}
        #: What was asked for once.
        self._met: dict[Any, None] = {}
        self._partial: dict[int, Array] = {}
        for name, buffer in self._buffers.known.items():
            if buffer.given:
                continue
            dtype: Any = kernel.word_type if name in kernel.packed else kernel.dtype
            array = self.runtime.empty(buffer.shape(steps, rows), dtype)
            self.runtime.clear(array)
            self.arrays[name] = array
        self._names = {number: name for name, number in self._buffers.number.items()}
        self.resident = resident
        self._rooms: dict[str, Room] = {}

    def give(self, name: str, array: Array | None) -> None:
        """Set an array that the caller brings, if the program reads it."""
        if name not in self._buffers.number:
            return
        if array is None:
            self.arrays.pop(name, None)
            return
        element = self._buffers.known[name].element
        dtype = np.dtype(np.bool_) if element == "bool" else self.kernel.dtype
        if array.dtype != dtype or not array.flags.c_contiguous or not self.runtime.is_mine(array):
            raise ValueError(f"{name}: it must be a contiguous array of {dtype} on the device")
        self.arrays[name] = array

    def act(self, actions: list[Action]) -> None:
        """Run actions in order."""
        for action in actions:
            if isinstance(action, Region):
                self._region(action)
            elif isinstance(action, Product):
                self._multiply(action)
            else:
                self._weigh(action)

    # -- regions ------------------------------------------------------------------------------

    def _region(self, region: Region) -> None:
        resident = self.resident
        if resident is None or region.name not in resident.codes:
            self._run(self.kernel.regions[region.name])
            return
        code = resident.codes[region.name]
        if region.name not in self._rooms:
            groups = resident.groups[region.name]
            self._rooms[region.name] = Room(self.runtime, code, groups, self.kernel.word_type)
        window = (self.length, self.rows)
        go_through(self.runtime, resident, code, self._rooms[region.name], window, self._pointers)

    def _pointers(self, numbers: tuple[int, ...]) -> list[Array | None]:
        """The arrays of buffers; None where the caller has given none."""
        return [self.arrays.get(self._names[number]) for number in numbers]

    def _run(self, code: RegionCode) -> None:
        kind = code.region.kind
        if kind == "sums":
            for one in code.steps:
                assert isinstance(one, SumsCode)
                self._sum(one)
        elif kind in ("window", "once"):
            length = self.length if kind == "window" else 1
            for one in code.steps:
                self._rows(one, 0, length * self.rows, 1)
        else:
            self._steps(code)

    def _steps(self, code: RegionCode) -> None:
        """A region that goes through the steps, as a graph where that is worth it."""
        record = "given record" in self.arrays and code.record is not None
        if code.alone and not record:
            back = code.region.kind == "backward"
            first = self.length - 1 if back else 0
            self._rows(code.steps[0], first, self.rows, -1 if back else 1, self.length)
            return
        if self.length * len(code.steps) < WORTH_RECORDING:
            self._launch_steps(code, record)
            return
        arrays = [self.arrays[name] for name in self._given(code)]
        places = (self.runtime.address(array) for array in arrays)
        key = (code.region.name, self.length, record, *places)
        if key in self._graphs:
            graph, _ = self._graphs[key] = self._graphs.pop(key)  # now the youngest
            graph()
        elif key not in self._met:  # windows of every length come once: not worth a recording
            self._met[key] = None
            _shorten(self._met, 16 * GRAPHS)
            self._launch_steps(code, record)
        else:
            graph = self.runtime.recorded(lambda: self._launch_steps(code, record))
            # The arrays are kept with it, so that what lies there does not become another's.
            self._graphs[key] = graph, arrays
            _shorten(self._graphs, GRAPHS)
            graph()

    def _given(self, code: RegionCode) -> list[str]:
        """The arrays of the caller that a region reads or writes."""
        numbers = {n for one in code.steps for n in one.buffers}
        for one in code.steps:
            if isinstance(one, StageCode):
                numbers.update(n for pack in one.packs for n in pack.buffers)
        if code.record is not None:
            numbers.update(code.record.buffers)
        names = sorted(self._names[n] for n in numbers)
        return [n for n in names if self._buffers.known[n].given and n in self.arrays]

    def _launch_steps(self, code: RegionCode, record: bool) -> None:
        for one in code.steps:
            for pack in one.packs if isinstance(one, StageCode) else ():
                self._pack(pack)
        steps = range(self.length)
        for t in reversed(steps) if code.region.kind == "backward" else steps:
            if record and code.record is not None:
                self._rows(code.record, t, self.rows, 1)
            for one in code.steps:
                if isinstance(one, StageCode):
                    self._stage(one, t)
                else:
                    self._rows(one, t, self.rows, 1)

    def _launch(
        self, code: Code, grid: tuple[int, int], block: int, shared: int, *arguments: Any
    ) -> None:
        function = self.kernel.functions[code.name]
        given = [*arguments, *self._pointers(code.buffers)]
        self.runtime.launch(Launch(function, grid, block, shared, given))

    def _rows(self, code: Code, first: int, blocks: int, stride: int, count: int = 1) -> None:
        assert isinstance(code, RowsCode)
        shared = code.threads * self.kernel.dtype.itemsize
        numbers = (first, stride, count, self.length, self.rows)
        self._launch(code, (blocks, 1), code.threads, shared, *numbers)

    def _stage(self, code: StageCode, t: int) -> None:
        rows = self.kernel.rows_of(code, self.rows)
        grid = (code.tiles, -(-self.rows // rows))
        shared = code.shared(rows, self.kernel.word)
        self._launch(code, grid, 8 * rows, shared, t, self.length, self.rows)

    def _pack(self, code: PackCode) -> None:
        blocks = min(-(-code.words // THREADS), 16 * self.runtime.multiprocessors)
        self._launch(code, (blocks, 1), THREADS, 0)

    def _sum(self, code: SumsCode) -> None:
        parts = max(1, min(SUM_PARTS, self.length * self.rows // (8 * SUM_ROWS)))
        size = parts * code.count * code.width
        partial = self._partial.get(size)
        if partial is None:
            partial = self._partial[size] = self.runtime.empty((size,), self.kernel.dtype)
        grid = (-(-code.width // SUM_UNITS), parts)
        shared = THREADS * self.kernel.dtype.itemsize
        self._launch(code, grid, THREADS, shared, self.length, self.rows, parts, partial)
        self._launch(code.end, (-(-code.width // THREADS), 1), THREADS, 0, parts, partial)

    # -- products -----------------------------------------------------------------------------

    def _matrix(self, place: Any, width: int, turned: bool = False) -> Matrix:
        """What lies at a location over the window, as a matrix of ``T * B`` rows."""
        array = self.arrays[place.buffer]
        stride = self._buffers.known[place.buffer].width
        offset = int(place.later) * self.rows * stride + place.offset
        return Matrix(array, self.length * self.rows, width, stride, offset, turned)

    def _multiply(self, action: Product) -> None:
        """A product over the window; one for each weight, since weights lie apart."""
        start = 0
        inputs = action.weights[0].shape[0]
        for weight in action.weights:
            width = weight.shape[1]
            given = Matrix(self.parameters[weight.name], inputs, width, width)
            if action.transposed:
                self.runtime.product(
                    self._matrix(action.argument.shifted(start), width),
                    replace(given, turned=True),
                    self._matrix(action.result, inputs),
                    self.kernel.precision,
                    add=start > 0,
                )
            else:
                self.runtime.product(
                    self._matrix(action.argument, inputs),
                    given,
                    self._matrix(action.result.shifted(start), width),
                    self.kernel.precision,
                )
            start += width

    def _weigh(self, action: WeightGradient) -> None:
        """The gradients of weights."""
        start, inputs = 0, action.weights[0].shape[0]
        for weight in action.weights:
            width = weight.shape[1]
            self.runtime.product(
                self._matrix(action.vector, inputs, turned=True),
                self._matrix(action.gradient.shifted(start), width),
                Matrix(self.gradients[weight.name], inputs, width, width),
                self.kernel.precision,
            )
            start += width


def _shorten(entries: dict[Any, Any], most: int) -> None:
    """Forget the oldest of too many entries."""
    while len(entries) > most:
        del entries[next(iter(entries))]
