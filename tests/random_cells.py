"""A hypothesis strategy of cells: random equations over the whole language.

A cell is a list of instructions. Each takes symbols from a pool, which starts as the input and the
states, and puts its result into the pool; the new states are taken from it at the end. Operations
are kept away from singularities (``log``, ``sqrt`` and ``/`` see numbers well above 0, ``exp`` sees
numbers in -1 … 1) and new states are bounded, so that differences are exact enough to compare with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from hypothesis import strategies as st

from rnnfarm.equations.graph import Symbol
from rnnfarm.equations.language import (
    affine,
    equal,
    exp,
    layer_norm,
    log,
    maximum,
    minimum,
    parameter,
    relu,
    row_max,
    row_sum,
    sigmoid,
    sign,
    softplus,
    sqrt,
    tanh,
    unit_index,
    where,
)
from rnnfarm.equations.parts import Cell
from rnnfarm.equations.plan import PlanOptions

OTHER = 3  #: The width of what is neither as wide as the hidden states nor as the input.


def _log_sum_exp(v: Symbol) -> Symbol:
    top = row_max(v)
    return log(row_sum(exp(v - top))) + top


UNARY: dict[str, Callable[[Symbol], Symbol]] = {
    "tanh": tanh,
    "sigmoid": sigmoid,
    "relu": relu,
    "softplus": softplus,
    "exp": lambda v: exp(tanh(v)),
    "log": lambda v: log(softplus(v) + 0.5),
    "sqrt": lambda v: sqrt(v * v + 0.3),
    "abs": abs,
    "sign": lambda v: sign(v) * 0.5 * v,
    "neg": lambda v: -v,
    "square": lambda v: v**2,
    "half": lambda v: 0.5 * v,
    "one minus": lambda v: 1.0 - v,
    "over": lambda v: 1.0 / (1.0 + v * v),
    "floor": lambda v: maximum(v, -0.2),
    "layer_norm": lambda v: layer_norm(v, epsilon=0.3),
    "row_sum": row_sum,
    "log_sum_exp": _log_sum_exp,
    "first": lambda v: where(equal(unit_index(v.width), 0), v, 0.0),
}
BINARY: dict[str, Callable[[Symbol, Symbol], Symbol]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / (1.0 + b * b),
    "minimum": minimum,
    "maximum": maximum,
    "greater": lambda a, b: where(a > b, a * 0.7, b),
    "less": lambda a, b: where(a <= 0.3, b, a),
    "blend": lambda a, b: b + sigmoid(a) * (a - b),
}
LEARNED = ("gates", "joined", "single", "other", "parameter", "gain", "bias-free")


@dataclass(frozen=True)
class Recipe:
    """What a random cell does.

    Attributes:
        widths: of every state: ``hidden``, ``input`` or ``other``.
        instructions: operation and the positions of its arguments in the pool.
        results: for every state, how its new value is found, and a position.
    """

    widths: tuple[str, ...]
    instructions: tuple[tuple[str, int, int, int], ...]
    results: tuple[tuple[str, int], ...]


class RandomCell(Cell):
    """The cell of a recipe; subclasses carry it."""

    recipe: ClassVar[Recipe]

    def widths(self, hidden: int) -> dict[str, int]:
        other = {"input": self._inputs, "other": OTHER}
        named = zip(self.states, self.recipe.widths, strict=True)
        return {name: other[kind] for name, kind in named if kind in other}

    def step(self, x: Symbol, *states: Symbol) -> Any:
        pool = _Pool(x, states)
        for number, instruction in enumerate(self.recipe.instructions):
            pool.run(number, *instruction)
        new: list[Symbol] = []
        for state, (kind, position) in zip(states, self.recipe.results, strict=True):
            symbol = pool.result(kind, position, state)
            while symbol in new:
                symbol = symbol * 0.5
            new.append(symbol)
        return tuple(new)


class _Pool:
    """The symbols that an instruction may use."""

    def __init__(self, x: Symbol, states: tuple[Symbol, ...]) -> None:
        self.states = states
        self.symbols = [x, *states]
        #: Those that depend on the input or a state, which affine() insists on.
        self.grounded = [x, *states]

    def take(self, position: int, width: int | None = None) -> Symbol:
        fitting = [s for s in self.symbols if width is None or s.width in (1, width)]
        return fitting[-1 - position % len(fitting)] if fitting else self.symbols[0]

    def add(self, *symbols: Symbol, grounded: bool = True) -> None:
        self.symbols.extend(symbols)
        if grounded:
            self.grounded.extend(symbols)

    def run(self, number: int, op: str, first: int, second: int, third: int) -> None:
        if op in LEARNED:
            self.learn(number, op, first, second)
            return
        a = self.take(first)
        if op in UNARY:
            self.add(UNARY[op](a), grounded=a in self.grounded)
            return
        b = self.take(second, None if a.width == 1 else a.width)
        if op == "where":
            width = max(a.width, b.width)
            c = self.take(third, None if width == 1 else width)
            self.add(where(a < b, b * 0.5, c), grounded=False)
            return
        self.add(BINARY[op](a, b), grounded=a in self.grounded or b in self.grounded)

    def learn(self, number: int, op: str, first: int, second: int) -> None:
        a = self.grounded[-1 - first % len(self.grounded)]
        b = self.grounded[-1 - second % len(self.grounded)]
        vectors = (a,) if a is b else (a, b)
        if op == "gates":
            self.add(*affine(*vectors, gates="abc"))
        elif op == "joined":
            self.add(*affine(*vectors, gates=("left", "right"), units=OTHER))
        elif op == "other":
            self.add(affine(*vectors, units=OTHER))
        elif op == "single":
            self.add(affine(*vectors))
        elif op == "bias-free":
            self.add(affine(a, bias=False))
        elif op == "gain":
            wide = self.take(first)
            self.add(wide * parameter(f"gain{number}", units=wide.width), grounded=False)
        else:
            self.add(parameter(f"p{number}"), grounded=False)

    def result(self, kind: str, position: int, state: Symbol) -> Symbol:
        if kind == "keep":
            return state
        if kind == "delay":
            fitting = [s for s in (*self.states, self.symbols[0]) if s.width == state.width]
            return fitting[position % len(fitting)]
        symbol = self.take(position)
        if symbol.width != state.width:
            grounded = self.grounded[-1 - position % len(self.grounded)]
            symbol = affine(grounded, units=state.width)
        return {"tanh": tanh, "sigmoid": sigmoid, "soft": _soft_sign}[kind](symbol)


def _soft_sign(v: Symbol) -> Symbol:
    return v / sqrt(1.0 + v * v)


_POSITION = st.integers(0, 7)
_OPERATIONS = (*UNARY, *BINARY, "where", *LEARNED, "gates", "single", "single", "joined")


#: What keeps to the width of its arguments, and to their units.
OF_UNITS = (
    *(name for name in UNARY if name not in ("layer_norm", "row_sum", "log_sum_exp")),
    *BINARY, "where", "gates", "single", "bias-free", "parameter", "gain", "gates", "single",
)  # fmt: skip


@st.composite
def recipes_of_units(draw: st.DrawFn) -> Recipe:
    """Of cells where only products go across units, if the input is as wide as the states."""
    instruction = st.tuples(st.sampled_from(OF_UNITS), _POSITION, _POSITION, _POSITION)
    start = draw(st.sampled_from(("gates", "single")))
    instructions = [(start, 0, 9, 0), *draw(st.lists(instruction, min_size=2, max_size=8))]
    kinds = st.sampled_from(("tanh", "soft", "sigmoid"))
    result = st.tuples(kinds, st.integers(0, 4))
    results = draw(st.lists(result, min_size=1, max_size=3))
    return Recipe(("hidden",) * len(results), tuple(instructions), tuple(results))


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    kinds = st.sampled_from(("hidden", "hidden", "other", "input"))
    widths = draw(st.lists(kinds, min_size=1, max_size=3))
    instruction = st.tuples(st.sampled_from(_OPERATIONS), _POSITION, _POSITION, _POSITION)
    # Most start with a recurrent product, so that there are stages to speak of.
    start = draw(st.sampled_from((("gates", 0, 9), ("single", 0, 9), ("joined", 0, 9), ())))
    instructions = draw(st.lists(instruction, min_size=2, max_size=12))
    instructions[:0] = [(*start, 0)] if start else []
    kinds = st.sampled_from(("tanh", "soft", "sigmoid", "tanh", "soft", "delay", "keep"))
    result = st.tuples(kinds, st.integers(0, 4))
    results = draw(st.lists(result, min_size=len(widths), max_size=len(widths)))
    return Recipe(tuple(widths), tuple(instructions), tuple(results))


def cell_of(recipe: Recipe, inputs: int) -> Cell:
    """The cell of a recipe; ``inputs`` is the width of its input."""
    names = ("h", "c", "y")[: len(recipe.widths)]
    body = {"recipe": recipe, "states": names, "_inputs": inputs}
    return type("RandomCell", (RandomCell,), body)()


@st.composite
def plan_options(draw: st.DrawFn) -> PlanOptions:
    zoned = draw(st.sets(st.sampled_from(("h", "c", "y")), max_size=2))
    return PlanOptions(
        masked=draw(st.booleans()),
        resets=draw(st.booleans()),
        initial=draw(st.sampled_from(("zero", "learned", "random"))),
        zoneout=tuple((name, 0.3) for name in sorted(zoned)),
        recurrent_dropout=draw(st.sampled_from((0.0, 0.0, 0.3))),
    )
