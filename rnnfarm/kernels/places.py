"""Where the values of a plan live: which part of which buffer of a workspace."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

from rnnfarm.equations.emit import may_overwrite
from rnnfarm.equations.graph import Symbol, is_condition
from rnnfarm.equations.plan import PER_WINDOW, Plan


@dataclass
class Buffer:
    """An array of a workspace.

    Attributes:
        kind: ``vector`` (W,), ``rows`` (B, W), ``window`` (T, B, W), ``history`` (T + 1, B, W) or
            ``weight`` (I, W).
        views: view name → (first step, first unit, last unit + 1).
    """

    kind: str
    width: int
    boolean: bool = False
    inputs: int = 0
    views: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    @property
    def timed(self) -> bool:
        return self.kind in ("window", "history")

    def shape(self, steps: int, rows: int) -> tuple[int, ...]:
        return {
            "vector": (self.width,),
            "rows": (rows, self.width),
            "window": (steps, rows, self.width),
            "history": (steps + 1, rows, self.width),
            "weight": (self.inputs, self.width),
        }[self.kind]


@dataclass(frozen=True)
class Place:
    """Where a value lives: part of a buffer, or (``buffer`` empty) a local of the source."""

    buffer: str
    start: int = 0
    stop: int = 0
    first: int = 0
    local: str = ""


class Places:
    """Where each value lives, at one step and over the window.

    Attributes:
        buffers: the buffers of the workspace, by name; forward and backward share them.
        step_places, window_places: where a value is while steps are computed one by one, and where
            it is as a whole.
    """

    def __init__(self, plan: Plan, buffers: dict[str, Buffer]) -> None:
        self.plan = plan
        self.buffers = buffers
        self.step_places: dict[Symbol, Place] = {}
        self.window_places: dict[Symbol, Place] = {}
        self.rowwise = _rowwise(plan)
        self.uses = _uses(plan)
        for name, width in plan.states.items():
            self.buffers.setdefault(f"state_{name}", Buffer("history", width))
            self.put(plan.inputs[name], Place(f"state_{name}", 0, width))

    def put(self, symbol: Symbol, place: Place) -> Place:
        """Fix a symbol's place, for a step and for the window alike."""
        self.step_places[symbol] = self.window_places[symbol] = place
        return place

    def own(self, symbol: Symbol, kind: str, prefix: str) -> Place:
        """A buffer of its own for a symbol."""
        name = f"{prefix}{symbol.index}"
        self.buffers.setdefault(name, Buffer(kind, symbol.width, is_condition(symbol)))
        return Place(name, 0, symbol.width)

    @staticmethod
    def part(symbol: Symbol, places: dict[Symbol, Place]) -> Place | None:
        """Where a slice lies within what it is a slice of."""
        if symbol.op != "slice" or symbol.args[0] not in places:
            return None
        base, (start, stop) = places[symbol.args[0]], symbol.attribute
        return Place(base.buffer, base.start + start, base.start + stop, base.first)

    def place_once(self, symbols: Iterable[Symbol]) -> None:
        """Places of values that are computed once a window."""
        for symbol in symbols:
            if symbol.op != "slice" or not self.is_view(symbol):
                kind = "rows" if symbol in self.rowwise else "vector"
                self.put(symbol, self.own(symbol, kind, "o"))

    def place_window(self, symbols: Sequence[Symbol]) -> None:
        """Places of values that are computed over the whole window, where they have none yet."""
        here = set(symbols)
        for symbol in symbols:
            if symbol in self.window_places or (symbol.op == "slice" and self.window_view(symbol)):
                continue
            place = self._overwritten(symbol, here) or self.own(symbol, "window", "w")
            self.window_places[symbol] = place
            self.step_places.setdefault(symbol, place)

    def _overwritten(self, symbol: Symbol, here: set[Symbol]) -> Place | None:
        """The place of an argument that is computed here and that nothing else reads."""
        for arg in symbol.args:
            if arg not in here or self.uses[arg] != 1 or not self.may_reuse(symbol, arg):
                continue
            place = self.window_places.get(arg)
            if place is None and arg.args[0] in here and self._is_cut(arg.args[0]):
                place = self.part(arg, self.window_places)
            if place is not None and place.buffer.startswith("w"):
                return place
        return None

    def _is_cut(self, symbol: Symbol) -> bool:
        """Whether all that reads a value are slices that share no unit."""
        spans = sorted(s.attribute for s in self.uses if s.op == "slice" and s.args == (symbol,))
        apart = all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
        return apart and len(spans) == self.uses[symbol]

    def place_forward(self, loop: Sequence[Symbol]) -> None:
        """Places of the new states and of what is saved for the backward."""
        for symbol in self.plan.saved:
            self.put(symbol, self.own(symbol, "window", "v"))
        computed, taken = set(loop), set()
        for name, symbol in self.plan.new.items():
            place = Place(f"state_{name}", 0, symbol.width, first=1)
            if symbol in computed and symbol.op != "slice" and symbol not in taken:
                self.put(symbol, place)
                taken.add(symbol)
            elif symbol not in self.step_places:
                # Computed elsewhere and copied; the backward finds it in the state's history.
                self.window_places[symbol] = place
                taken.add(symbol)

    def forget_scratch(self) -> None:
        """In the backward every new state is read from its history."""
        for symbol, place in self.window_places.items():
            self.step_places.setdefault(symbol, place)

    def place_backward(self) -> None:
        plan = self.plan
        for name, width in plan.states.items():
            self.buffers.setdefault(f"d_{name}", Buffer("rows", width))
            leaf = plan.inputs.get(f"d:{name}")
            if leaf is not None:
                self.step_places[leaf] = Place(f"d_{name}", 0, width)
        for symbol in sorted(plan.kept, key=lambda s: s.op != "concat"):
            place = self._part_of_kept(symbol) or self.own(symbol, "window", "k")
            if symbol.op == "input":
                self.window_places[symbol] = place
            else:
                self.put(symbol, place)

    def _part_of_kept(self, symbol: Symbol) -> Place | None:
        """The place of a kept value inside a kept joined value that it is computed into."""
        for whole in self.plan.kept:
            if whole.op == "concat" and _computed_in_place(symbol) and symbol in whole.args:
                place = self.window_places[whole]
                start = sum(a.width for a in whole.args[: whole.args.index(symbol)])
                return Place(place.buffer, start, start + symbol.width)
        return None

    def is_view(self, symbol: Symbol) -> bool:
        """Whether a slice is a view of something that has a place."""
        base = symbol.args[0]
        return base in self.step_places or base.op in ("input", "parameter", "unit_index")

    def window_view(self, symbol: Symbol) -> bool:
        base = symbol.args[0]
        return base in self.window_places or base.op in ("input", "parameter", "unit_index")

    def place_joined(
        self, symbols: Sequence[Symbol], places: dict[Symbol, Place], kind: str, prefix: str
    ) -> dict[Symbol, Place]:
        """Places of the parts of joined values: each is computed where it is to be joined."""
        result: dict[Symbol, Place] = {}
        here = set(symbols)
        for symbol in symbols:
            if symbol.op != "concat":
                continue
            place = places.get(symbol) or self.own(symbol, kind, prefix)
            places[symbol] = place
            start = place.start
            for part in symbol.args:
                unplaced = part in here and part not in places and part not in result
                if unplaced and _computed_in_place(part):
                    result[part] = Place(place.buffer, start, start + part.width, place.first)
                start += part.width
        return result

    @staticmethod
    def may_reuse(symbol: Symbol, arg: Symbol) -> bool:
        positions = [k for k, a in enumerate(symbol.args) if a is arg]
        same = symbol.width == arg.width and is_condition(symbol) == is_condition(arg)
        return bool(positions) and same and all(may_overwrite(symbol, k) for k in positions)

    def gradient_place(
        self, symbol: Symbol, d_states: dict[Symbol, str], last: dict[Symbol, float], position: int
    ) -> Place | None:
        """A state's gradient goes straight to where the step before reads it, if that is free."""
        name = d_states.get(symbol)
        if name is None or name == self.plan.output:
            return None
        leaf = self.plan.inputs[f"d:{name}"]
        end = last.get(leaf, -1)
        if end < position or (end == position and self.may_reuse(symbol, leaf)):
            return Place(f"d_{name}", 0, symbol.width)
        return None


def _uses(plan: Plan) -> Counter[Symbol]:
    """How many operations of a plan, or results that it gives, read each value."""
    stages = [s for stage in plan.stages for s in (*stage.products, *stage.elementwise)]
    regions = (plan.once, plan.prologue, stages, plan.backward_once, plan.backward_step)
    read = [arg for region in (*regions, plan.epilogue) for s in region for arg in set(s.args)]
    read += [*plan.new.values(), *plan.saved, *plan.kept]
    read += [s for s in (plan.d_x, *plan.d_states.values()) if s is not None]
    read += [s for g in plan.weight_gradients for s in (g.vector, g.gradient)]
    read += [s for parts in plan.vector_gradients.values() for s in parts]
    return Counter(read)


def _rowwise(plan: Plan) -> set[Symbol]:
    """Values that are the same at every step but differ from row to row."""
    given = {s for n, s in plan.inputs.items() if n.startswith(PER_WINDOW)}
    found = set(given)
    for symbol in plan.graph.symbols:
        if any(arg in found for arg in symbol.args):
            found.add(symbol)
    return found


def _computed_in_place(symbol: Symbol) -> bool:
    """Whether an operation can write into a part of a wider buffer."""
    return bool(symbol.args) and symbol.op not in ("slice", "matmul", "matmul_transposed")


def last_uses(symbols: Sequence[Symbol], lasting: set[Symbol]) -> dict[Symbol, float]:
    """The position of the last use of every symbol; a slice's use is one of its base."""
    last: dict[Symbol, float] = {}
    for position, symbol in enumerate(symbols):
        for arg in symbol.args:
            last[arg] = position
            if arg.op == "slice":
                last[arg.args[0]] = position
    for symbol in lasting:
        last[symbol] = inf
        if symbol.op == "slice":
            last[symbol.args[0]] = inf
    return last
