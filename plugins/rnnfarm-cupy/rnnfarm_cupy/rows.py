"""Losses and optimizers as one fused pass over rows of numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from rnnfarm.equations.emit import c_expression
from rnnfarm.equations.graph import Symbol, ancestors, is_condition, ordered
from rnnfarm.equations.memory import Buffer, Buffers
from rnnfarm.kernels.fused_rows import row_schedule
from rnnfarm.kernels.interface import Array, RowKernel
from rnnfarm.kernels.rows import ScalarProgram
from rnnfarm_cupy.runtime import Launch, Runtime
from rnnfarm_cupy.source import THREADS, RowsCode, header, rows_code

#: Blocks of a grid at most where threads go on to further rows.
BLOCKS = 4096


class CUDARows(RowKernel):
    """Symbols over rows, compiled to CUDA.

    Where every symbol is one number, as in an optimizer, each thread has rows of its own; otherwise
    a block has one row, whose units its threads share. An array of one row is the same for all.
    """

    def __init__(
        self,
        name: str,
        results: Mapping[str, Symbol],
        dtype: str,
        scalars: Collection[str],
        integers: Collection[str],
        runtime: Runtime,
    ) -> None:
        self.runtime = runtime
        self.dtype = np.dtype(dtype)
        self._integers = integers
        needed = ordered(ancestors(results.values()))
        self._scalars = ScalarProgram(name, list(results.values()), scalars)
        self._wide = max(s.width for s in needed) > 1
        self.buffers = Buffers("rows")
        if self._wide:
            text = self._by_rows(results)
        else:
            text = self._by_threads(needed, results)
        self.source = f"{header(dtype, 'full')}\n{text}"
        self._program = runtime.load(self.source)
        self._function = self._program.function("rows")

    @property
    def checked(self) -> bool:  # type: ignore[override]
        """Whether this very program has passed its self-check on this GPU before."""
        return self._program.checked

    def mark_checked(self) -> None:
        self._program.mark_checked()

    def spans(self, start: int, stop: int) -> list[tuple[int, int]]:
        return [(start, stop)]

    def __call__(
        self,
        arrays: Mapping[str, Array],
        spans: Iterable[tuple[int, int]],
        scalars: Mapping[str, float] | None = None,
        threads: int = 1,
    ) -> None:
        numbers = self._scalars(scalars or {})
        for start, stop in spans:
            if stop > start:
                given = {name: self._part(name, arrays[name], start, stop) for name in self._names}
                self._launch(given, stop - start, numbers)

    def _part(self, name: str, array: Array, start: int, stop: int) -> Array:
        dtype = np.dtype(np.int64) if name in self._integers else self.dtype
        if array.dtype != dtype or not array.flags.c_contiguous:
            raise ValueError(f"{name}: it must be a contiguous array of {dtype} on the device")
        return array if len(array) == 1 else array[start:stop]

    # -- rows of many units -------------------------------------------------------------------

    def _by_rows(self, results: Mapping[str, Symbol]) -> str:
        if self._scalars.symbols:
            count = len(self._scalars.symbols)
            self.buffers.add("scalars", Buffer("vector", count, "double", given=True))
        schedule = row_schedule(results, self._scalars, self._integers, self.buffers)
        self._code: RowsCode = rows_code("rows", schedule, schedule.passes(), self.buffers)
        known = {number: name for name, number in self.buffers.number.items()}
        self._order = [known[number] for number in self._code.buffers]
        self._names = [n for n in self._order if n not in ("scalars", "scratch")]
        return self._code.text

    # -- rows of one number -------------------------------------------------------------------

    def _by_threads(self, needed: Sequence[Symbol], results: Mapping[str, Symbol]) -> str:
        texts: dict[Symbol, str] = {}
        lines: list[str] = []
        names: list[str] = []

        def place(name: str) -> str:
            if name not in names:
                names.append(name)
            number = names.index(name)
            return f"a{number}[i * n{number}]"

        for symbol in needed:
            text = texts[symbol] = f"q{len(texts)}"
            kind = "bool" if is_condition(symbol) else "real"
            if symbol in self._scalars.symbols:
                value = f"s{self._scalars.symbols.index(symbol)}"
            elif symbol in self._scalars.computed:
                continue  # only what is computed from it beforehand is read
            elif symbol.op == "input":
                value = place(symbol.attribute)
            else:
                value = c_expression(symbol, [texts[arg] for arg in symbol.args], "rnn_splat(0)")
            lines.append(f"        const {kind} {text} = ({kind})({value});")
        lines += [f"        {place(name)} = {texts[symbol]};" for name, symbol in results.items()]
        self._names = names
        numbers = [f"double s{k}" for k in range(len(self._scalars.symbols))]
        arrays = [f"real *a{k}, int n{k}" for k in range(len(names))]
        return "\n".join([
            f'extern "C" __global__ void __launch_bounds__({THREADS}, 1) '
            f"rows({', '.join(['int count', *numbers, *arrays])}) {{",
            "    for (long i = blockIdx.x * (long)blockDim.x + threadIdx.x; i < count;",
            "         i += (long)gridDim.x * blockDim.x) {",
            *lines,
            "    }",
            "}",
            "",
        ])  # fmt: skip

    # -- launches -----------------------------------------------------------------------------

    def _launch(self, given: Mapping[str, Array], count: int, numbers: list[float]) -> None:
        if not self._wide:
            flat = [(array, int(len(array) > 1)) for array in given.values()]
            arguments = [count, *map(float, numbers), *(x for pair in flat for x in pair)]
            grid = (min(BLOCKS, -(-count // THREADS)), 1)
            self.runtime.launch(Launch(self._function, grid, THREADS, 0, arguments))
            return
        arrays = dict(given)
        if "scalars" in self._order:
            arrays["scalars"] = self.runtime.put(np.array(numbers, np.float64))
        if "scratch" in self._order:
            width = self.buffers.known["scratch"].width
            arrays["scratch"] = self.runtime.empty((count, width), self.dtype)
        threads = self._code.threads
        pointers = [arrays[name] for name in self._order]
        shared = threads * self.dtype.itemsize
        launch = Launch(self._function, (count, 1), threads, shared, [0, 1, 1, 1, count, *pointers])
        self.runtime.launch(launch)
