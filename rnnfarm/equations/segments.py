"""Values cut into segments, so that slices and joins cost nothing.

A kernel that computes unit by unit needs no slice and no join: it reads the unit where it is.
``Segments`` cuts every value at the units where some slice or join begins or ends. What is left of
an elementwise operation is then a loop over the units of one segment, whose arguments are segments
of the same width or numbers of width 1. The four gates of an LSTM, say, are computed as one value
``4 H`` wide and used as four slices; here they are four segments of that value, ``H`` wide each.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rnnfarm.equations.graph import Symbol

#: Operations that are no function of the same unit of their arguments.
ACROSS_UNITS = frozenset({"matmul", "matmul_transposed", "row_sum", "row_max", "pick"})
#: Of these, what reduces a row to one number.
REDUCTIONS = frozenset({"row_sum", "row_max", "pick"})
#: What a segment is never of: its units are those of something else.
_VIEWS = ("slice", "concat")


@dataclass(frozen=True)
class Segment:
    """Units ``start`` to ``stop`` of a symbol that is neither a slice nor a join."""

    symbol: Symbol
    start: int
    stop: int

    @property
    def width(self) -> int:
        return self.stop - self.start

    @property
    def op(self) -> str:
        return self.symbol.op


class Segments:
    """The segments of all symbols of a graph."""

    def __init__(self, symbols: Iterable[Symbol]) -> None:
        self._cuts = _all_cuts(list(symbols))
        self._args: dict[Segment, tuple[Segment, ...]] = {}

    def of(self, symbol: Symbol) -> tuple[Segment, ...]:
        """The segments of a symbol, side by side."""
        cuts = self._cuts[symbol]
        return tuple(
            self._resolved(symbol, start, stop) for start, stop in itertools.pairwise(cuts)
        )

    def numbered(self, symbol: Symbol) -> list[tuple[Segment, int]]:
        """The segments of a symbol, each with the number that its first unit has in it."""
        found, position = [], 0
        for segment in self.of(symbol):
            found.append((segment, position))
            position += segment.width
        return found

    def args(self, segment: Segment) -> tuple[Segment, ...]:
        """What an elementwise segment is computed from: one segment for each argument."""
        known = self._args.get(segment)
        if known is None:
            known = tuple(self._arg(segment, arg) for arg in segment.symbol.args)
            self._args[segment] = known
        return known

    def _arg(self, segment: Segment, arg: Symbol) -> Segment:
        if arg.width == 1 or segment.op in ("fill", "place"):
            return self._resolved(arg, 0, 1)
        return self._resolved(arg, segment.start, segment.stop)

    def _resolved(self, symbol: Symbol, start: int, stop: int) -> Segment:
        while symbol.op in _VIEWS:
            if symbol.op == "slice":
                offset = symbol.attribute[0]
                symbol, start, stop = symbol.args[0], start + offset, stop + offset
                continue
            position = 0
            for part in symbol.args:
                if start < position + part.width:
                    break
                position += part.width
            symbol, start, stop = part, start - position, stop - position
        return Segment(symbol, start, stop)


def _all_cuts(symbols: list[Symbol]) -> dict[Symbol, tuple[int, ...]]:
    cuts: dict[Symbol, set[int]] = {s: {0, s.width} for s in symbols}
    for symbol in symbols:
        if symbol.op == "matmul":
            position = 0
            for weight in symbol.attribute:
                position += weight.shape[1]
                cuts[symbol].add(position)
    links = [link for symbol in symbols for link in _links(symbol)]
    changed = True
    while changed:
        changed = False
        for part, whole, offset in links:
            known, wider = cuts[part], cuts[whole]
            up = {cut + offset for cut in known} - wider
            down = {cut - offset for cut in wider if 0 <= cut - offset <= part.width} - known
            wider |= up
            known |= down
            changed = changed or bool(up or down)
    return {symbol: tuple(sorted(found)) for symbol, found in cuts.items()}


def _links(symbol: Symbol) -> Iterator[tuple[Symbol, Symbol, int]]:
    """``(part, whole, offset)``: unit ``k`` of the part goes with ``k + offset`` of the whole."""
    if symbol.op == "slice":
        yield symbol, symbol.args[0], symbol.attribute[0]
    elif symbol.op == "concat":
        position = 0
        for part in symbol.args:
            yield part, symbol, position
            position += part.width
    elif symbol.op not in ACROSS_UNITS:
        for arg in symbol.args:
            if arg.width == symbol.width:
                yield arg, symbol, 0
