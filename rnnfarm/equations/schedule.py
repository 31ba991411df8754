"""The order in which a fused kernel computes a region of a plan: passes over the units of a row.

A pass goes once over the units of values that have one width. What can be computed unit by unit is
computed inside the pass that needs it and never leaves the registers; a value has to be stored only
where something across units comes next, a product with weights or a reduction of the row. So passes
are counted in levels: a product or a reduction stands one level above what it reads.

On a level come first the products, each with all the elementwise math that it allows (a stage's
gates), and then the passes over rows, with the reductions.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Any

from rnnfarm.equations.graph import Symbol
from rnnfarm.equations.plan import CHEAP
from rnnfarm.equations.segments import ACROSS_UNITS, REDUCTIONS, Segment, Segments

#: Where a value lies in memory; what it is, the kernel's author says.
Location = Any
#: (level, 0 for products and 1 for rows, width).
Key = tuple[int, int, int]
PRODUCTS = ("matmul", "matmul_transposed")


@dataclass
class Reduction:
    """What one pass adds up of a reduction: the segments of the pass's width.

    Each comes with the number that its first unit has in the row that is reduced.
    """

    symbol: Symbol
    segments: tuple[tuple[Segment, int], ...]
    location: Location


@dataclass
class Pass:
    """One pass over the units of a row.

    Attributes:
        key: its level, whether it is one of rows, and its width.
        products: segments of products that are computed here, tile by tile.
        whole_products: products that are computed here as a whole, over the window.
        stores: what is written, and where; nothing else leaves the pass.
        reductions: what is reduced over the units of this pass.
    """

    key: Key
    products: list[Segment] = field(default_factory=list)
    whole_products: list[Symbol] = field(default_factory=list)
    stores: list[tuple[Segment, Location]] = field(default_factory=list)
    reductions: list[Reduction] = field(default_factory=list)

    @property
    def width(self) -> int:
        return self.key[2]

    @property
    def of_rows(self) -> bool:
        return self.key[1] == 1


@dataclass(frozen=True)
class Memory:
    """What a schedule asks its kernel for.

    Attributes:
        at_hand: where a segment lies before the region begins, or None if it has to be computed.
        vector: where a product's argument lies, or is to lie, whole and contiguous, and whether it
            is there before the region begins.
        scratch: a new place for a row's values, so many units wide.
        product: where a segment of a whole product goes; absent where products are fused.
    """

    at_hand: Callable[[Segment], Location | None]
    vector: Callable[[Symbol], tuple[Location, bool]]
    scratch: Callable[[int], Location]
    product: Callable[[Segment], Location] | None = None


def _order(segment: Segment) -> tuple[int, int]:
    """Arguments come before what is computed from them."""
    return segment.symbol.index, segment.start


class Schedule:
    """The passes that compute what is stored; ask for stores first, then for ``passes``."""

    def __init__(self, segments: Segments, memory: Memory) -> None:
        self.segments = segments
        self.memory = memory
        self._passes: dict[Key, Pass] = {}
        self._hand: dict[Segment, Location | None] = {}
        self._levels: dict[Segment, int] = {}
        self._hot: dict[Segment, bool] = {}
        #: Where each value can be read that a pass has stored, and by which pass.
        self.stored: dict[Segment, tuple[Key, Location]] = {}
        self._stores: set[tuple[Segment, Location]] = set()
        self._reduced: dict[Symbol, list[Location]] = {}
        self._vectors: dict[Symbol, tuple[Location, bool]] = {}
        self._products: set[Segment] = set()

    def store(self, segment: Segment, location: Location) -> None:
        """Have a segment computed and written to a location."""
        if (segment, location) in self._stores:
            return
        self._stores.add((segment, location))
        self.require(segment)
        key = self.home(segment)
        self._pass(key).stores.append((segment, location))
        if self.at_hand(segment) is None:
            self.stored.setdefault(segment, (key, location))

    def store_whole(self, symbol: Symbol, location: Location) -> None:
        """Have all of a symbol computed and written side by side."""
        for segment, offset in self.segments.numbered(symbol):
            self.store(segment, location.shifted(offset))

    def passes(self) -> list[Pass]:
        """The passes in order; settles what is stored between them."""
        while self._share():
            pass
        return [self._passes[key] for key in sorted(self._passes)]

    def home(self, segment: Segment) -> Key:
        """The pass that can compute a segment first."""
        return self.level(segment), 0 if self.hot(segment) else 1, segment.width

    def vector(self, symbol: Symbol) -> Location:
        """Where a product's argument lies."""
        return self._vectors[symbol][0]

    def partial(self, symbol: Symbol) -> list[Location]:
        """Where the parts of a reduction lie that passes have computed."""
        return self._reduced[symbol]

    def at_hand(self, segment: Segment) -> Location | None:
        """Where a segment lies before the region begins, or None."""
        if segment not in self._hand:
            self._hand[segment] = self.memory.at_hand(segment)
        return self._hand[segment]

    def level(self, segment: Segment) -> int:
        """How many products and reductions follow one another before a segment is known."""
        for before in self._without(segment, self._levels):
            self._levels[before] = self._find_level(before)
        return self._levels[segment]

    def _without(self, segment: Segment, known: Container[Segment]) -> list[Segment]:
        """The segment and what it is computed from, arguments first: none may be too deep."""
        found: set[Segment] = set()
        waiting = [segment]
        while waiting:
            one = waiting.pop()
            if one in known or one in found:
                continue
            found.add(one)
            if self.at_hand(one) is None and one.symbol.args:
                waiting += self._reads(one)
        return sorted(found, key=_order)

    def _reads(self, segment: Segment) -> list[Segment]:
        if segment.op in ACROSS_UNITS:
            return [s for arg in segment.symbol.args for s in self.segments.of(arg)]
        return list(self.segments.args(segment))

    def _find_level(self, segment: Segment) -> int:
        if self.at_hand(segment) is not None or not segment.symbol.args:
            return 0
        op, args = segment.op, segment.symbol.args
        if op in PRODUCTS:
            there = self._vector(args[0])[1]
            return 0 if there else 1 + max(self.level(s) for s in self.segments.of(args[0]))
        if op in REDUCTIONS:
            return 1 + max(self.level(s) for s in self._reads(segment))
        return max(self.level(s) for s in self.segments.args(segment))

    def hot(self, segment: Segment) -> bool:
        """Whether a segment is computed in the pass of a product, with whose result it begins.

        A number of a row is not: it is stored and read again.
        """
        for before in self._without(segment, self._hot):
            self._hot[before] = self._find_hot(before)
        return self._hot[segment]

    def _find_hot(self, segment: Segment) -> bool:
        if self.memory.product is not None or self.at_hand(segment) is not None:
            return False
        if segment.op in PRODUCTS:
            return True
        if segment.width == 1 or not segment.symbol.args or segment.op in REDUCTIONS:
            return False
        level = self.level(segment)
        return any(
            arg.width > 1 and self.level(arg) == level and self.hot(arg)
            for arg in self.segments.args(segment)
        )

    def _vector(self, symbol: Symbol) -> tuple[Location, bool]:
        if symbol not in self._vectors:
            self._vectors[symbol] = self.memory.vector(symbol)
        return self._vectors[symbol]

    def _pass(self, key: Key) -> Pass:
        return self._passes.setdefault(key, Pass(key))

    def require(self, root: Segment) -> None:
        """Have the products and reductions computed that a segment is computed from."""
        waiting, seen = [root], set()
        while waiting:
            segment = waiting.pop()
            if segment in seen or self.at_hand(segment) is not None:
                continue
            seen.add(segment)
            if segment.op in PRODUCTS:
                self._require_product(segment)
            elif segment.op in REDUCTIONS:
                waiting += self._require_reduction(segment.symbol)
            elif segment.symbol.args:
                waiting += self.segments.args(segment)

    def _require_product(self, segment: Segment) -> None:
        if segment in self._products:
            return
        self._products.add(segment)
        argument = segment.symbol.args[0]
        location, there = self._vector(argument)
        if not there:
            self.store_whole(argument, location)
        key = (self.level(segment), 0, segment.width)
        if self.memory.product is None:
            self._pass(key).products.append(segment)
            if segment.width == 1:
                self.stored[segment] = (key, self.memory.scratch(1))
                self._pass(key).stores.append((segment, self.stored[segment][1]))
            return
        self.stored[segment] = (key, self.memory.product(segment))
        whole = self._pass((key[0], 0, 0)).whole_products
        if segment.symbol not in whole:
            whole.append(segment.symbol)

    def _require_reduction(self, symbol: Symbol) -> list[Segment]:
        """Have the parts of a reduction computed; gives what it is computed from."""
        numbered = self.segments.numbered(symbol.args[0])
        read = [s for s, _ in numbered]
        others = [s for arg in symbol.args[1:] for s in self.segments.of(arg)]
        if symbol not in self._reduced:
            level = max(self.level(s) for s in (*read, *others))
            self._reduced[symbol] = []
            for width in sorted({s.width for s in read} - {1}):
                location = self.memory.scratch(1)
                parts = tuple((s, at) for s, at in numbered if s.width == width)
                key = (level, 1, width)
                self._pass(key).reductions.append(Reduction(symbol, parts, location))
                self._reduced[symbol].append(location)
        return [*read, *others]

    def _share(self) -> bool:
        """Store one more value that several passes would compute each for itself."""
        computed: dict[Segment, list[Key]] = {}
        for key in sorted(self._passes):
            found, missing = self._computed_in(self._passes[key])
            if missing:
                for segment in sorted(missing, key=_order):
                    self._keep(segment, self.home(segment))
                return True
            for segment in found:
                computed.setdefault(segment, []).append(key)
        dear = [
            s
            for s, keys in computed.items()
            if len(keys) > 1 and s.symbol.args and s.op not in CHEAP and s.op not in REDUCTIONS
        ]
        if not dear:
            return False
        # What one of them is computed from may not have to be stored once that one is.
        covered: set[Segment] = set()
        for segment in sorted(dear, key=_order, reverse=True):
            if segment not in covered:
                self._keep(segment, computed[segment][0])
                covered.update(self._without(segment, ()))
        return True

    def _keep(self, segment: Segment, key: Key) -> None:
        location = self.memory.scratch(segment.width)
        self.stored[segment] = (key, location)
        self._passes[key].stores.append((segment, location))

    def _computed_in(self, one: Pass) -> tuple[set[Segment], set[Segment]]:
        """What a pass computes for itself, and what it needs that only another could compute."""
        found: set[Segment] = set()
        missing: set[Segment] = set()
        waiting = [s for s, _ in one.stores]
        for part in one.reductions:
            waiting += [s for s, _ in part.segments]
            waiting += [s for arg in part.symbol.args[1:] for s in self.segments.of(arg)]
        while waiting:
            segment = waiting.pop()
            if segment in found or self.readable(segment, one.key) is not None:
                continue
            if self.hot(segment) and self.home(segment) != one.key:
                missing.add(segment)
                continue
            found.add(segment)
            waiting += self.arguments(segment)
        return found, missing

    def readable(self, segment: Segment, key: Key) -> Location | None:
        """Where a pass can read a segment rather than compute it."""
        location = self.at_hand(segment)
        if location is None and segment in self.stored and self.stored[segment][0] < key:
            location = self.stored[segment][1]
        return location

    def arguments(self, segment: Segment) -> list[Segment]:
        """What a pass needs in order to compute a segment, beside parts of reductions."""
        if segment.op in PRODUCTS or not segment.symbol.args:
            return []
        if segment.op in REDUCTIONS:
            numbers = [s for s in self.segments.of(segment.symbol.args[0]) if s.width == 1]
            return numbers + [s for arg in segment.symbol.args[1:] for s in self.segments.of(arg)]
        return list(self.segments.args(segment))
