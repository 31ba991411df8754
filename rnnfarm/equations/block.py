"""The C text of what a pass computes for one row: one text for CPUs and for CUDA.

Each kind of kernel defines the types and functions that it is written in: ``vec`` is a vector of
units of a processor or one unit in a thread of a GPU, ``rnn_load(pointer, n)`` reads it where ``n``
units are left of the row, and so on.
"""

from __future__ import annotations

from collections.abc import Iterable

from rnnfarm.equations.emit import c_expression
from rnnfarm.equations.graph import Symbol, is_condition
from rnnfarm.equations.memory import Buffers, Location
from rnnfarm.equations.schedule import PRODUCTS, Pass, Schedule
from rnnfarm.equations.segments import REDUCTIONS, Segment

TYPES = {"real": "real", "bool": "unsigned char", "int": "int64_t", "double": "double"}


class Block:
    """The C text that computes segments for one row: some once a row, the others unit by unit.

    Attributes:
        head: lines for the row.
        body: lines for a vector of units, ``u`` being the first one's number.
        pointers: lines that set up pointers to the row.
    """

    def __init__(
        self, schedule: Schedule, one: Pass | None, width: int, buffers: Buffers, lanes: int
    ) -> None:
        self.schedule = schedule
        self.key = one.key if one is not None else (1 << 30, 1, width)
        self.buffers = buffers
        self.head: list[str] = []
        self.body: list[str] = []
        self.pointers: dict[str, str] = {}
        #: Units of a vector: where the width ends within one, as many as are left.
        self.count = "n" if width % lanes else "RNN_LANES"
        #: How a product's segment is read from a tile.
        self.tiles: dict[Segment, str] = {}
        self._names: dict[Segment, str] = {}

    def value(self, segment: Segment) -> str:
        """The name of a segment's value, after the lines that compute it."""
        for one in self._needed(segment):
            self._names[one] = self._line(one)
        return self._names[segment]

    def pointer(self, location: Location) -> str:
        """The name of a pointer to a row."""
        number = self.buffers.number[location.buffer]
        name = f"b{number}{'n' if location.later else ''}"
        if name not in self.pointers:
            text = address(self.buffers, location, "r")
            kind = TYPES[self.buffers.known[location.buffer].element]
            self.pointers[name] = f"{kind} *restrict const {name} = {text};"
        return name

    def store(self, segment: Segment, location: Location) -> None:
        """Write a segment's value."""
        value = self.value(segment)
        if is_condition(segment.symbol):
            value = f"rnn_from_mask({value})"
        place = f"{self.pointer(location)} + {location.offset}"
        if segment.width == 1:
            self.head.append(f"*({place}) = rnn_first({value});")
        else:
            self.body.append(f"rnn_store({place} + u, {value}, {self.count});")

    def unit(self, first: int) -> str:
        """The text of the units' numbers, where the vector's first unit has the number ``first``.

        Inside a segment ``u`` counts from its start.
        """
        return f"(rnn_splat((real)(u + {first})) + rnn_iota())"

    def _needed(self, root: Segment) -> list[Segment]:
        found: set[Segment] = set()
        waiting = [root]
        while waiting:
            segment = waiting.pop()
            if segment in found or segment in self._names:
                continue
            found.add(segment)
            if segment not in self.tiles and self.schedule.readable(segment, self.key) is None:
                waiting += self.schedule.arguments(segment)
        return sorted(found, key=lambda s: (s.symbol.index, s.start))

    def _line(self, segment: Segment) -> str:
        name = f"q{len(self._names)}"
        kind = "mask" if is_condition(segment.symbol) else "vec"
        # What is the same at every unit is computed once a row.
        lines = self.head if segment.width == 1 else self.body
        lines.append(f"const {kind} {name} = {self._text(segment)};")
        return name

    def _text(self, segment: Segment) -> str:
        if segment in self.tiles:
            return self.tiles[segment]
        location = self.schedule.readable(segment, self.key)
        if location is not None:
            return self._load(segment, location)
        if segment.op in REDUCTIONS:
            return self._reduced(segment.symbol)
        if segment.op in PRODUCTS:
            raise AssertionError(f"{segment} is read before it is computed")
        args = [self._names[arg] for arg in self.schedule.segments.args(segment)]
        if segment.symbol.op == "constant":
            return c_expression(segment.symbol, [])
        if segment.width == 1:
            return c_expression(segment.symbol, args, f"rnn_splat({segment.start})")
        return c_expression(segment.symbol, args, self.unit(segment.start))

    def _load(self, segment: Segment, location: Location) -> str:
        buffer = self.buffers.known[location.buffer]
        place = f"{self.pointer(location)} + {location.offset}"
        if segment.width == 1:
            if buffer.element == "bool":
                return f"rnn_splat_bool(*({place}))"
            text = f"rnn_splat((real)*({place}))"
        elif buffer.element == "bool":
            return f"rnn_load_bool({place} + u, {self.count})"
        else:
            text = f"rnn_load({place} + u, {self.count})"
        if is_condition(segment.symbol):
            text = f"rnn_to_mask({text})"
        if location.plus is not None:
            text += f" + {self._load(segment, location.plus)}"
        return text

    def _reduced(self, symbol: Symbol) -> str:
        """A reduction put together from what passes have left of it."""
        parts = [
            f"rnn_splat(*({self.pointer(location)} + {location.offset}))"
            for location in self.schedule.partial(symbol)
        ]
        for segment, position in self.schedule.segments.numbered(symbol.args[0]):
            if segment.width == 1:
                parts.append(self._single(symbol, self._names[segment], position))
        text = parts[0]
        for part in parts[1:]:
            text = f"rnn_maximum({text}, {part})" if symbol.op == "row_max" else f"{text} + {part}"
        return text

    def _single(self, symbol: Symbol, value: str, position: int) -> str:
        if symbol.op != "pick":
            return value
        (unit,) = self.schedule.segments.of(symbol.args[1])
        at = f"rnn_equal(rnn_splat({position}), {self._names[unit]})"
        return f"rnn_where({at}, {value}, rnn_splat(0))"

    def reduce(self, symbol: Symbol, parts: Iterable[tuple[Segment, int]], total: str) -> None:
        """Add units to what is reduced in ``total``."""
        for segment, position in parts:
            value = self.value(segment)
            if symbol.op == "row_max":
                rest = f"rnn_first_lanes({value}, {self.count}, -__builtin_inff())"
                self.body.append(f"{total} = rnn_maximum({total}, {rest});")
                continue
            if symbol.op == "pick":
                (unit,) = self.schedule.segments.of(symbol.args[1])
                at = f"rnn_equal({self.unit(position)}, {self.value(unit)})"
                value = f"rnn_where({at}, {value}, rnn_splat(0))"
            self.body.append(f"{total} += rnn_first_lanes({value}, {self.count}, 0);")


def address(buffers: Buffers, location: Location, row: str) -> str:
    """The C text of the address of a row of a buffer at step ``t``."""
    buffer = buffers.known[location.buffer]
    base = f"(({TYPES[buffer.element]} *)p[{buffers.number[location.buffer]}])"
    step = {
        "window": f"t * B + {row}",
        "history": f"(t + {int(location.later)}) * B + {row}",
        "rows": row,
        "scratch": row,
        "pair": f"({'1 - flip' if location.later else 'flip'}) * B + {row}",
        "vector": "0",
        "own": "c->id",
    }[buffer.kind]
    return base if step == "0" else f"{base} + ({step}) * {buffer.width}"


def pass_groups(passes: list[Pass]) -> list[list[Pass]]:
    """Passes over rows that follow one another, together; every pass of products alone."""
    groups: list[list[Pass]] = []
    for one in passes:
        if not one.of_rows and not (one.products or one.stores):
            continue  # whole products, which the caller makes
        if one.of_rows and groups and groups[-1][0].of_rows:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups
