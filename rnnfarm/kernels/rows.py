"""Straight-line programs over rows, for losses and optimizers.

Symbols of a graph become the source of one Python function that goes over the rows block by block,
each operation one NumPy call into a scratch buffer that stays in the cache. What depends on scalars
alone is computed once a call, in float64.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from rnnfarm.equations.emit import may_overwrite, numpy_calls, numpy_number
from rnnfarm.equations.graph import Symbol, ancestors, base_of, is_condition, ordered
from rnnfarm.kernels.compiled import compiled
from rnnfarm.kernels.interface import Array, RowKernel

#: Elements of the widest value of a block: small enough for what is worked on to stay in the cache,
#: large enough for a NumPy call's own cost not to count.
BLOCK = 65_536


class RowProgram(RowKernel):
    """Computes some symbols of a graph for every row of arrays.

    Args:
        name: what tracebacks call the program.
        results: the symbols to compute, by the name of the array that each is written to.
        scalars: names of the inputs that are one Python float for all rows.
        dtype: of scratch buffers; inputs and outputs should have it too.
        block: elements of the widest value that are worked on at a time; no result depends on it.

    A result may have the name of an input and then be written over it.
    """

    def __init__(
        self,
        name: str,
        results: Mapping[str, Symbol],
        dtype: str,
        scalars: Collection[str] = (),
        block: int = BLOCK,
    ) -> None:
        writer = _Writer(results, scalars)
        #: The generated program.
        self.source = writer.source()
        self.rows = max(1, block // writer.widest)
        self._buffers = [(width, np.bool_ if b else np.dtype(dtype)) for width, b in writer.buffers]
        names = {index: np.arange(width, dtype=dtype) for index, width in writer.indices.items()}
        self._run = compiled(self.source, "run", name, names)

    def spans(self, start: int, stop: int) -> list[tuple[int, int]]:
        return [(at, min(at + self.rows, stop)) for at in range(start, stop, self.rows)]

    def __call__(
        self,
        arrays: Mapping[str, Array],
        spans: Iterable[tuple[int, int]],
        scalars: Mapping[str, float] | None = None,
        threads: int = 1,
    ) -> None:
        """As ``RowKernel.__call__``; it runs on one thread."""
        scratch = [np.empty((self.rows, width), dtype) for width, dtype in self._buffers]
        # The caller looks at its results for NaN; a warning besides would say less.
        with np.errstate(all="ignore"):
            self._run(arrays, spans, scalars or {}, scratch)


class ScalarProgram:
    """Computes what depends on scalars alone, in float64.

    Attributes:
        computed: every symbol that is one number for all rows, constants apart.
        symbols: those of them that others read; a call gives their values in this order.
    """

    def __init__(self, name: str, results: Collection[Symbol], names: Collection[str]) -> None:
        needed = ordered(ancestors(results))
        scalar = _scalar(needed, names)
        self.computed = {s for s in scalar if s.op != "constant"}
        read = {arg for s in needed if s not in scalar for arg in s.args} | set(results)
        self.symbols = [s for s in needed if s in read and s in self.computed]
        texts: dict[Symbol, str] = {}
        lines = ["def run(scalars):"]
        for symbol in needed:
            if symbol.op == "constant":
                texts[symbol] = numpy_number(symbol.attribute)
            elif symbol in scalar:
                texts[symbol] = f"c{symbol.index}"
                lines += _scalar_lines(symbol, texts)
        values = ", ".join(texts[s] for s in self.symbols)
        source = "\n    ".join([*lines, f"return [{values}]"]) + "\n"
        self._run = compiled(source, "run", f"{name} scalars")

    def __call__(self, scalars: Mapping[str, float]) -> list[float]:
        with np.errstate(all="ignore"):
            values: list[float] = self._run(scalars)
        return values


def _scalar_lines(symbol: Symbol, texts: Mapping[Symbol, str]) -> list[str]:
    """The lines that compute a scalar into its name."""
    name = texts[symbol]
    if symbol.op == "input":
        return [f'{name} = scalars["{symbol.attribute}"]']
    dtype = "np.bool_" if is_condition(symbol) else "np.float64"
    return [
        f"{name} = np.empty((), {dtype})",
        *numpy_calls(symbol, [texts[a] for a in symbol.args], name),
        # As a Python float it takes the dtype of the arrays that it meets.
        f"{name} = {name}.item()",
    ]


class _Writer:
    """The lines of the program, and where each symbol's value lives."""

    def __init__(self, results: Mapping[str, Symbol], scalars: Collection[str]) -> None:
        self.results = {name: _own(symbol) for name, symbol in results.items()}
        needed = ordered(ancestors(self.results.values()))
        self.widest = max(s.width for s in needed)
        #: (width, whether boolean) of every scratch buffer.
        self.buffers: list[tuple[int, bool]] = []
        self.indices = {f"index_{s.width}": s.width for s in needed if s.op == "unit_index"}
        self.places: dict[Symbol, str] = {}
        self.head: list[str] = []
        self.views: list[str] = []
        self.body: list[str] = []
        self._inputs = {s.attribute: s for s in needed if s.op == "input"}
        scalar = _scalar(needed, scalars)
        self._name_arrays(scalar)
        self._scalars([s for s in needed if s in scalar and (s.args or s.op == "input")])
        self._rows([s for s in needed if s.args and s not in scalar and s.op != "slice"])

    def source(self) -> str:
        lines = [f"    {line}" for line in self.head]
        loop = [*self.views, *(f"s{k} = scratch[{k}][:n]" for k in range(len(self.buffers)))]
        lines += ["    for start, stop in spans:", "        n = stop - start"]
        lines += [f"        {line}" for line in (*loop, *self.body)]
        return "\n".join(["def run(arrays, spans, scalars, scratch):", *lines, ""])

    def text(self, symbol: Symbol) -> str:
        """The text of a symbol's value in a block."""
        if symbol.op == "constant":
            return numpy_number(symbol.attribute)
        if symbol.op == "unit_index":
            return f"index_{symbol.width}"
        if symbol.op == "slice":
            return self.text(symbol.args[0]) + "[..., {}:{}]".format(*symbol.attribute)
        return self.places[symbol]

    def _name_arrays(self, scalar: set[Symbol]) -> None:
        named = [("in", name) for name, s in self._inputs.items() if s not in scalar]
        for kind, name in [*named, *(("out", name) for name in self.results)]:
            local = _local(kind, name)
            self.head.append(f'all_{local} = arrays["{name}"]')
            self.views.append(f"{local} = all_{local}[start:stop]")
            if kind == "in":
                self.places[self._inputs[name]] = local

    def _scalars(self, symbols: Iterable[Symbol]) -> None:
        for symbol in symbols:
            self.places[symbol] = f"c{symbol.index}"
            texts = {one: self.text(one) for one in (symbol, *symbol.args)}
            self.head += _scalar_lines(symbol, texts)

    def _rows(self, symbols: Sequence[Symbol]) -> None:
        last = {base_of(arg): k for k, symbol in enumerate(symbols) for arg in symbol.args}
        last |= {base_of(symbol): len(symbols) for symbol in self.results.values()}
        goals = self._goals(symbols, last)
        free: list[str] = []
        held: dict[Symbol, str] = {}
        for position, symbol in enumerate(symbols):
            ending = [s for s in held if last[s] == position]
            place = self._result_place(symbol, goals.get(symbol), last, position)
            if place is None:
                free += [held.pop(s) for s in ending if _may_overwrite(symbol, s)]
                place = held[symbol] = self._scratch(symbol, free)
            self.places[symbol] = place
            self._operation(symbol)
            free += [held.pop(s) for s in ending if s in held]
        for name, symbol in self.results.items():
            target = _local("out", name)
            if self.text(symbol) != target:
                self.body.append(f"np.copyto({target}, {self.text(symbol)})")

    def _goals(self, symbols: Sequence[Symbol], last: Mapping[Symbol, int]) -> dict[Symbol, str]:
        """The results in whose arrays values are to be computed: their own, or what they become
        where the next operation is written over them."""
        goals: dict[Symbol, str] = {}
        for name, symbol in self.results.items():
            goals.setdefault(symbol, name)
        computed = set(symbols)
        for position, symbol in reversed(list(enumerate(symbols))):
            for arg in symbol.args if symbol in goals else ():
                ends = arg in computed and last[arg] == position
                if ends and arg not in goals and _may_overwrite(symbol, arg):
                    goals[arg] = goals[symbol]
                    break
        return goals

    def _result_place(
        self, symbol: Symbol, goal: str | None, last: Mapping[Symbol, int], position: int
    ) -> str | None:
        """The array of a result, unless it may be that of an input which is still needed."""
        given = self._inputs.get(goal or "")
        end = -1 if given is None else last.get(given, -1)
        over = given is not None and end == position and _may_overwrite(symbol, given)
        return _local("out", goal) if goal and (end < position or over) else None

    def _scratch(self, symbol: Symbol, free: list[str]) -> str:
        kind = (symbol.width, is_condition(symbol))
        for name in free:
            if self.buffers[int(name[1:])] == kind:
                free.remove(name)
                return name
        self.buffers.append(kind)
        return f"s{len(self.buffers) - 1}"

    def _operation(self, symbol: Symbol) -> None:
        out = self.places[symbol]
        if symbol.op != "concat":
            self.body += numpy_calls(symbol, [self.text(a) for a in symbol.args], out)
            return
        start = 0
        for part in symbol.args:
            stop = start + part.width
            self.body.append(f"np.copyto({out}[:, {start}:{stop}], {self.text(part)})")
            start = stop


def _scalar(symbols: Iterable[Symbol], names: Collection[str]) -> set[Symbol]:
    """Those symbols that are one number for all rows."""
    found: set[Symbol] = set()
    for symbol in symbols:
        given = symbol.op == "constant" or (symbol.op == "input" and symbol.attribute in names)
        computed = symbol.args and all(arg in found for arg in symbol.args)
        if given or (computed and symbol.width == 1):
            found.add(symbol)
    return found


def _own(symbol: Symbol) -> Symbol:
    """A result that is not an input's memory, which another result may be written over."""
    if base_of(symbol).op != "input":
        return symbol
    return symbol.graph.make("copy", (symbol,), None, symbol.width)


def _may_overwrite(symbol: Symbol, arg: Symbol) -> bool:
    """Whether an operation may write over ``arg``, whose last use it is."""
    same = symbol.width == arg.width and is_condition(symbol) == is_condition(arg)
    uses = [k for k, a in enumerate(symbol.args) if base_of(a) is arg]
    return same and all(symbol.args[k] is arg and may_overwrite(symbol, k) for k in uses)


def _local(kind: str, name: str) -> str:
    """The name of an array in the program."""
    return f"{kind}_" + "".join(c if c.isalnum() else "_" for c in name)
