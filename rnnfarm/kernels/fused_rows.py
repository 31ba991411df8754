"""What fused programs over rows have in common: which symbols they can compute, and in what order.

A plugin's kernel writes the passes down for its own kind of device.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from rnnfarm.equations.graph import Symbol, ancestors, is_condition
from rnnfarm.equations.memory import Buffer, Buffers, Location
from rnnfarm.equations.schedule import Memory, Schedule
from rnnfarm.equations.segments import ACROSS_UNITS, Segment, Segments
from rnnfarm.kernels.rows import ScalarProgram


def row_schedule(
    results: Mapping[str, Symbol],
    scalars: ScalarProgram,
    integers: Collection[str],
    buffers: Buffers,
) -> Schedule:
    """The passes of a fused program over rows of many units; adds the arrays to its buffers.

    Numbers of all rows lie in the buffer ``scalars``, as ``scalars`` computes them.
    """
    outputs = {
        name: buffers.add(name, Buffer("rows", symbol.width, given=True))
        for name, symbol in results.items()
    }

    def at_hand(segment: Segment) -> Location | None:
        symbol = segment.symbol
        if symbol in scalars.symbols:
            return Location("scalars", scalars.symbols.index(symbol))
        if symbol.op != "input":
            return None
        name = symbol.attribute
        if name not in outputs:
            element = "int" if name in integers else "real"
            buffers.add(name, Buffer("rows", symbol.width, element, given=True))
        return Location(name, segment.start)

    def vector(symbol: Symbol) -> tuple[Location, bool]:
        raise AssertionError("a loss has no products")

    segments = Segments(next(iter(results.values())).graph.symbols)
    schedule = Schedule(segments, Memory(at_hand, vector, buffers.scratch))
    for name, symbol in results.items():
        schedule.store_whole(symbol, Location(name))
    return schedule


def can_be_fused(results: Mapping[str, Symbol], integers: Collection[str], dtype: str) -> bool:
    """Whether a fused program can compute the symbols: truth values, and whole numbers where every
    symbol is one number, it cannot."""
    needed = ancestors(results.values())
    if any(is_condition(symbol) for symbol in results.values()):
        return False
    wide = any(s.width > 1 for s in needed)
    if any(s.op in ACROSS_UNITS for s in needed) and not wide:
        return False
    whole = {s for s in needed if s.op == "input" and s.attribute in integers}
    # A class number has to be a number of the dtype.
    largest = 1 << (24 if dtype == "float32" else 53)
    return not whole or (wide and max(s.width for s in needed) <= largest)
