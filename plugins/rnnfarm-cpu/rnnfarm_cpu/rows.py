"""Losses and optimizers as one fused pass in C over rows of numbers."""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from rnnfarm.equations.emit import c_expression
from rnnfarm.equations.graph import Symbol, ancestors, is_condition, ordered
from rnnfarm.equations.memory import Buffer, Buffers
from rnnfarm.kernels.fused_rows import row_schedule
from rnnfarm.kernels.interface import Array, RowKernel
from rnnfarm.kernels.rows import ScalarProgram
from rnnfarm_cpu.compiled import Compiled
from rnnfarm_cpu.processor import this_target
from rnnfarm_cpu.source import SIZES, header, launch, rows_function
from rnnfarm_cpu.team import team
from rnnfarm_cpu.tiles import Tiling

#: Numbers that are worth a thread of their own.
WORTH = 16_384


class CPURows(Compiled, RowKernel):
    """Symbols over rows, compiled to C.

    Where every symbol is one number, as in an optimizer, rows are the lanes of vectors; otherwise a
    row is gone over unit by unit, and everything about it stays in the cache.
    """

    def __init__(
        self,
        name: str,
        results: Mapping[str, Symbol],
        dtype: str,
        scalars: Collection[str],
        integers: Collection[str],
    ) -> None:
        self.dtype = np.dtype(dtype)
        self._integers = integers
        needed = ordered(ancestors(results.values()))
        self._scalars = ScalarProgram(name, list(results.values()), scalars)
        target = this_target()
        tiling = Tiling.of(target, SIZES[dtype])
        self.buffers = Buffers("own")
        self.buffers.add(
            "scalars", Buffer("vector", len(self._scalars.symbols), "double", given=True)
        )
        self.width = max(s.width for s in needed)
        text = (
            self._by_rows(results, tiling.lanes)
            if self.width > 1
            else self._by_lanes(needed, results)
        )
        self.compile("\n".join([header(tiling, dtype), text, launch(["rows"])]), target)

    def spans(self, start: int, stop: int) -> list[tuple[int, int]]:
        return [(start, stop)]

    def __call__(
        self,
        arrays: Mapping[str, Array],
        spans: Iterable[tuple[int, int]],
        scalars: Mapping[str, float] | None = None,
        threads: int = 1,
    ) -> None:
        numbers = np.array(self._scalars(scalars or {}), np.float64)
        table = (ctypes.c_void_p * len(self.buffers.number))()
        table[self.buffers.number["scalars"]] = numbers.ctypes.data
        given = {n: self._given(n, a) for n, a in arrays.items() if n in self.buffers.number}
        scratch = self.buffers.known.get("scratch")
        if scratch is not None:
            own = np.empty((threads, scratch.width), self.dtype)
            table[self.buffers.number["scratch"]] = own.ctypes.data
        for start, stop in spans:
            for name, array in given.items():
                table[self.buffers.number[name]] = array[start:].ctypes.data
            count = stop - start
            wanted = min(threads, 1 + count * self.width // WORTH)
            mates = team(self.library, threads) if wanted > 1 else None
            self.run(0, table, 1, count, wanted, 0, None if mates is None else mates.pool)

    def _given(self, name: str, array: Array) -> Array:
        dtype = np.dtype(np.intp) if name in self._integers else self.dtype
        if array.dtype != dtype or not array.flags.c_contiguous:
            raise ValueError(f"{name}: it must be a contiguous array of {dtype}")
        return array

    # -- rows of many units -------------------------------------------------------------------

    def _by_rows(self, results: Mapping[str, Symbol], lanes: int) -> str:
        schedule = row_schedule(results, self._scalars, self._integers, self.buffers)
        return rows_function("rows", schedule, schedule.passes(), self.buffers, lanes)

    # -- rows of one number -------------------------------------------------------------------

    def _by_lanes(self, needed: Sequence[Symbol], results: Mapping[str, Symbol]) -> str:
        names: dict[Symbol, str] = {}
        lines: list[str] = []
        pointers: dict[str, str] = {}
        scalar = f"((const double *)p[{self.buffers.number['scalars']}])"

        def pointer(name: str) -> str:
            self.buffers.add(name, Buffer("vector", 1, given=True))
            number = self.buffers.number[name]
            pointers[name] = f"    real *const a{number} = (real *)p[{number}];"
            return f"a{number}"

        for symbol in needed:
            name = names[symbol] = f"q{len(names)}"
            kind = "mask" if is_condition(symbol) else "vec"
            if symbol in self._scalars.symbols:
                value = f"{scalar}[{self._scalars.symbols.index(symbol)}]"
                text = f"rnn_splat((real){value})"
                text = f"rnn_to_mask({text})" if kind == "mask" else text
            elif symbol in self._scalars.computed:
                continue  # only what is computed from it beforehand is read
            elif symbol.op == "input":
                text = f"rnn_load({pointer(symbol.attribute)} + u, n)"
            else:
                text = c_expression(symbol, [names[arg] for arg in symbol.args], "rnn_splat(0)")
            lines.append(f"        const {kind} {name} = {text};")
        for name, symbol in results.items():
            lines.append(f"        rnn_store({pointer(name)} + u, {names[symbol]}, n);")
        return "\n".join([
            "static void rows(const Call *c, long id) {",
            "    void **const p = c->p;",
            *pointers.values(),
            "    const long all = (c->B + RNN_LANES - 1) / RNN_LANES;",
            "    const long v1 = share(all, id + 1, c->threads);",
            "    for (long v = share(all, id, c->threads); v < v1; ++v) {",
            "        const long u = v * RNN_LANES, n = c->B - u;",
            *lines,
            "    }",
            "}",
            "",
        ])  # fmt: skip
