"""Symbols and operations: the graph that a part's equations become.

A graph is hash-consed: building the same operation on the same arguments twice gives the same
``Symbol``, so common subexpressions exist once. Symbols are numbered in the order in which they are
made, and an operation's arguments always come before it, so the numbering is a topological order.

A symbol stands for a row vector of ``width`` numbers, one row per batch row. Width 1 broadcasts.
The derivative of ``pick(v, k)``, a row's unit by its number, has two operations that no equation is
written with: ``place(g, k)`` is ``g`` at unit ``k`` and 0 elsewhere, ``add_at(v, g, k)`` is ``v``
with ``g`` added there.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal, NoReturn

from rnnfarm.equations.refusals import FUNCTIONS, INSTEAD, array_in_equation
from rnnfarm.errors import CellError

#: Operations whose result is a truth value, usable only as the first argument of ``where``.
COMPARISONS = frozenset({"less", "less_equal", "equal"})


Role = Literal["embedding", "weight", "recurrent", "bias", "joint_bias", "vector"]


@dataclass(frozen=True)
class Share:
    """The columns [first, first + width of the parameter) of a matrix that is drawn as a whole.

    Attributes:
        whole: by whose name the matrix is drawn.
        columns: how many the matrix has.
    """

    whole: str
    first: int
    columns: int


@dataclass(frozen=True)
class Parameter:
    """A learned array of a part.

    Attributes:
        name: unique within the part, such as ``"W.h"``.
        shape: ``(inputs, outputs)`` of a weight matrix, ``(width,)`` of a vector.
        init: initialiser, as ``rnnfarm.equations.initial`` reads it; for a matrix or vector made of
            gates, one entry per gate, each for an equal share of the last axis.
        decay: whether weight decay applies (true of matrices).
        role: what it is to its part, by which a job's ``init`` chooses; a ``joint_bias`` is added
            to the products of several vectors at once.
        fan: of weights and biases, the width whose root PyTorch's initial values are divided by:
            the inputs of a linear map, the hidden width of a cell.
        bound: the least and the largest value that it may have; every update is brought back
            between the two. None where it is free.
        gates: whose gates a weight matrix belongs to; matrices of one text, role and number of
            rows are one matrix in Keras. Empty where it is of no gate.
        share: its place in the matrix that it is drawn with; None where it is drawn by itself.
    """

    name: str
    shape: tuple[int, ...]
    init: tuple[str, ...]
    decay: bool
    role: Role = "vector"
    fan: int = 1
    bound: tuple[float, float] | None = None
    gates: str = ""
    share: Share | None = None


class Symbol:
    """One value of a graph; arithmetic on it makes further symbols."""

    __slots__ = ("args", "attribute", "graph", "index", "label", "op", "width")
    # NumPy must not try to spread a symbol over an array's elements.
    __array_priority__ = 1000

    def __init__(
        self,
        graph: Graph,
        index: int,
        op: str,
        args: tuple[Symbol, ...],
        attribute: Any,
        width: int,
    ) -> None:
        self.graph = graph
        self.index = index
        self.op = op
        self.args = args
        self.attribute = attribute
        self.width = width
        self.label: str | None = None

    def __repr__(self) -> str:
        return f"<{self.label or self.op} {self.index}, width {self.width}>"

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Symbol):
            return self is other
        raise CellError(f"'==' between a symbol and {other!r}; write equal(a, b) inside where(…)")

    def __add__(self, other: Value) -> Symbol:
        return self.graph.apply("add", self, other)

    def __radd__(self, other: Value) -> Symbol:
        return self.graph.apply("add", other, self)

    def __sub__(self, other: Value) -> Symbol:
        return self.graph.apply("sub", self, other)

    def __rsub__(self, other: Value) -> Symbol:
        return self.graph.apply("sub", other, self)

    def __mul__(self, other: Value) -> Symbol:
        return self.graph.apply("mul", self, other)

    def __rmul__(self, other: Value) -> Symbol:
        return self.graph.apply("mul", other, self)

    def __truediv__(self, other: Value) -> Symbol:
        return self.graph.apply("div", self, other)

    def __rtruediv__(self, other: Value) -> Symbol:
        return self.graph.apply("div", other, self)

    def __neg__(self) -> Symbol:
        return self.graph.apply("neg", self)

    def __matmul__(self, other: object) -> NoReturn:
        raise CellError("'@' on a symbol: a product with learned weights is affine(v)")

    __rmatmul__ = __matmul__

    def __abs__(self) -> Symbol:
        return self.graph.apply("abs", self)

    def __lt__(self, other: Value) -> Symbol:
        return self.graph.apply("less", self, other)

    def __le__(self, other: Value) -> Symbol:
        return self.graph.apply("less_equal", self, other)

    def __gt__(self, other: Value) -> Symbol:
        return self.graph.apply("less", other, self)

    def __ge__(self, other: Value) -> Symbol:
        return self.graph.apply("less_equal", other, self)

    def __pow__(self, exponent: float) -> Symbol:
        if isinstance(exponent, Symbol):
            raise CellError("'**' with a symbol as exponent; write exp(b * log(a)) for a ** b")
        if exponent == 0.5:
            return self.graph.apply("sqrt", self)
        if exponent in range(1, 9):
            power = self
            for _ in range(int(exponent) - 1):
                power = power * self
            return power
        raise CellError(
            f"'** {exponent!r}': a power is 0.5 or a whole number from 1 to 8; "
            "write 1 / v ** p for a negative one, exp(p * log(v)) for another"
        )

    def __rpow__(self, base: float) -> Symbol:
        if not isinstance(base, (int, float)) or base <= 0:
            raise CellError(f"'{base!r} ** symbol': the base must be a number above 0")
        return self.graph.apply("exp", self * math.log(base))

    def _no_logic(self, *_: object) -> NoReturn:
        raise CellError(
            "'&', '|' or '~' on a symbol: one where for each condition, "
            "where(a > 0, where(b > 0, both, other), other)"
        )

    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __invert__ = _no_logic

    def __bool__(self) -> bool:
        raise CellError(
            "a Python 'if', 'and', 'or', 'not', 'min' or 'max' on a symbol: equations are traced "
            "once, before there are numbers; write where(condition, a, b), minimum or maximum"
        )

    def __float__(self) -> float:
        raise CellError(
            f"a symbol where Python wants a number (math.…, float(…), range(…)): use {FUNCTIONS}"
        )

    __int__ = __index__ = __float__

    def __iter__(self) -> Iterator[Symbol]:
        raise CellError(
            "a symbol unpacked or looped over: split(v, parts) cuts it into equal parts, "
            "row_sum(v) adds up its units, affine(…, gates=…) gives one value per gate"
        )

    def __getitem__(self, key: object) -> NoReturn:
        raise CellError(
            "a symbol indexed with […]: split(v, parts) cuts it into equal parts, pick(v, k) is "
            "its unit number k, and gates are named through affine(…, gates=…)"
        )

    def __len__(self) -> NoReturn:
        raise CellError("len() of a symbol: the width of v is v.width")

    def __setitem__(self, key: object, value: object) -> NoReturn:
        raise CellError("a symbol assigned to with […]: write where(condition, new, old)")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in INSTEAD:
            raise CellError(f"'.{name}' on a symbol: {INSTEAD[name]}")
        raise CellError(f"'.{name}' on a symbol, which has only arithmetic: use {FUNCTIONS}")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **_: Any) -> NoReturn:
        for value in inputs:
            if not isinstance(value, Symbol) and hasattr(value, "shape"):
                raise CellError(array_in_equation(value))
        raise CellError(f"numpy.{ufunc.__name__} on a symbol: use {FUNCTIONS}")

    def __array_function__(self, function: Any, *_: Any, **__: Any) -> NoReturn:
        raise CellError(f"numpy.{function.__name__} on a symbol: use {FUNCTIONS}")


Value = Symbol | float | int


class Graph:
    """A hash-consed set of symbols, and the parameters that they use.

    ``fitting`` is the end of the sentence about widths that do not fit: what helps.
    """

    def __init__(self, fitting: str = "bring them to one width") -> None:
        self.fitting = fitting
        #: The file and line where each symbol was made, within ``recording_places``.
        self.places: dict[Symbol, tuple[str, int]] = {}
        self.symbols: list[Symbol] = []
        self.parameters: dict[str, Parameter] = {}
        self._known: dict[tuple[Any, ...], Symbol] = {}

    def make(self, op: str, args: tuple[Symbol, ...], attribute: Any, width: int) -> Symbol:
        """The symbol of this operation, made if it is new; no simplification."""
        key = (op, tuple(a.index for a in args), attribute, width)
        symbol = self._known.get(key)
        if symbol is None:
            symbol = Symbol(self, len(self.symbols), op, args, attribute, width)
            self.symbols.append(symbol)
            self._known[key] = symbol
            if _recording.get():
                self.places[symbol] = _caller()
        return symbol

    def input(self, name: str, width: int) -> Symbol:
        """A value from outside, known by its name."""
        symbol = self.make("input", (), name, width)
        symbol.label = name
        return symbol

    def own(self, value: object, function: str) -> None:
        """Refuse what is no number of this graph as an argument of ``function``."""
        if not isinstance(value, Symbol) or is_condition(value):
            raise CellError(f"{function}({value!r}): it takes symbols that are numbers")
        if value.graph is not self:
            raise CellError("a symbol of another cell is used here; a cell is traced alone")

    def constant(self, value: float) -> Symbol:
        return self.make("constant", (), float(value), 1)

    def unit_index(self, width: int) -> Symbol:
        """The vector 0, 1, …, width - 1, the same in every row."""
        return self.make("unit_index", (), None, width)

    def vector(self, parameter: Parameter) -> Symbol:
        """A learned vector of width ``parameter.shape[0]``."""
        self.declare(parameter)
        symbol = self.make("parameter", (), parameter.name, parameter.shape[0])
        symbol.label = parameter.name
        return symbol

    def matmul(self, vector: Symbol, weights: tuple[Parameter, ...]) -> Symbol:
        """``vector @ [W₁ | W₂ | …]``: one product with one or several weight matrices."""
        for weight in weights:
            self.declare(weight)
        width = sum(weight.shape[1] for weight in weights)
        return self.make("matmul", (vector,), weights, width)

    def declare(self, parameter: Parameter) -> None:
        known = self.parameters.setdefault(parameter.name, parameter)
        if known != parameter:
            raise CellError(
                f"the parameter {parameter.name!r} is declared twice, as {known.shape} and as "
                f"{parameter.shape}; give each its own name"
            )

    def fill(self, symbol: Symbol, width: int) -> Symbol:
        """A symbol of width 1 spread over ``width`` units."""
        return symbol if symbol.width == width else self.make("fill", (symbol,), None, width)

    def slice(self, symbol: Symbol, start: int, stop: int) -> Symbol:
        """Units ``start`` to ``stop`` of a symbol."""
        if (start, stop) == (0, symbol.width):
            return symbol
        if symbol.op == "slice":  # a slice of a slice is one slice of the original
            offset = symbol.attribute[0]
            return self.slice(symbol.args[0], offset + start, offset + stop)
        return self.make("slice", (symbol,), (start, stop), stop - start)

    def concat(self, parts: tuple[Symbol, ...]) -> Symbol:
        """The parts side by side."""
        parts = tuple(
            piece for part in parts for piece in (part.args if part.op == "concat" else (part,))
        )
        if len(parts) == 1:
            return parts[0]
        return self.make("concat", parts, None, sum(p.width for p in parts))

    def lift(self, value: Value) -> Symbol:
        if isinstance(value, Symbol):
            if value.graph is not self:
                raise CellError("a symbol of another cell is used here; a cell is traced alone")
            return value
        if isinstance(value, bool):
            raise CellError(
                f"{value} in an equation: if it comes from '==' or '!=' between symbols, write "
                "equal(a, b); for a setting of the cell use Python's own if"
            )
        if not isinstance(value, (int, float)):
            if hasattr(value, "shape"):
                raise CellError(array_in_equation(value))
            raise CellError(
                f"{value!r} of type {type(value).__name__} in an equation: only symbols and plain "
                "numbers can be combined"
            )
        return self.constant(value)

    def apply(self, op: str, *values: Value) -> Symbol:
        """An elementwise operation, checked and simplified."""
        args = tuple(self.lift(value) for value in values)
        widths = {a.width for a in args} - {1}
        if len(widths) > 1:
            described = " and ".join(f"{describe(a)} ({a.width} wide)" for a in args)
            raise CellError(f"the widths do not fit in {op}: {described}; {self.fitting}")
        self._check_truth_values(op, args)
        width = max(widths, default=1)
        if any(a.op != "fill" and a.width == width for a in args):
            # Broadcasting does what a fill would, without the memory.
            args = tuple(a.args[0] if a.op == "fill" else a for a in args)
        elif any(a.op == "fill" for a in args) and op not in COMPARISONS:
            # All units are alike: compute one of them.
            one = self.apply(op, *(a.args[0] if a.op == "fill" else a for a in args))
            return self.fill(one, width)
        simple = _simplify(self, op, args)
        if simple is not None:
            return simple
        if op in ("add", "mul") and args[0].index > args[1].index:
            args = (args[1], args[0])  # both commute exactly in IEEE arithmetic
        return self.make(op, args, None, width)

    def _check_truth_values(self, op: str, args: tuple[Symbol, ...]) -> None:
        for position, arg in enumerate(args):
            wanted = op == "where" and position == 0
            if wanted != is_condition(arg):
                raise CellError(
                    "where(condition, a, b) wants a comparison first, such as where(v > 0, a, b)"
                    if wanted
                    else f"a comparison is used as a number in {op}; write where(condition, a, b)"
                )

    def pick(self, symbol: Symbol, unit: Value) -> Symbol:
        """The unit of each row whose number is ``unit``, of width 1."""
        number = self.lift(unit)
        if number.width != 1 or is_condition(number):
            raise CellError(f"pick(v, k): k is one number a row, not {describe(number)}")
        if number.op == "constant":
            index = int(number.attribute)
            if index != number.attribute or not 0 <= index < symbol.width:
                raise CellError(f"pick(v, {unit!r}): v has units 0 to {symbol.width - 1}")
            return self.slice(symbol, index, index + 1)
        if symbol.width == 1:
            return symbol
        return self.make("pick", (symbol, number), None, 1)

    def reduce(self, op: str, symbol: Symbol) -> Symbol:
        """A reduction of each row to width 1."""
        self.own(symbol, op)
        if symbol.width == 1:
            return symbol
        return self.make(op, (symbol,), None, 1)


_recording: ContextVar[bool] = ContextVar("rnnfarm_recording", default=False)
_HERE = os.path.dirname(os.path.abspath(__file__))


@contextmanager
def recording_places() -> Iterator[None]:
    """Have graphs remember where their symbols are made, which takes time."""
    token = _recording.set(True)
    try:
        yield
    finally:
        _recording.reset(token)


def _caller() -> tuple[str, int]:
    """The file and line of the equations that are being traced."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back
    return ("", 0) if frame is None else (frame.f_code.co_filename, frame.f_lineno)


def copied(graph: Graph, symbol: Symbol, args: tuple[Symbol, ...]) -> Symbol:
    """The same operation on other arguments, in another graph."""
    if symbol.op == "parameter":
        return graph.vector(symbol.graph.parameters[symbol.attribute])
    if symbol.op == "slice":
        return graph.slice(args[0], *symbol.attribute)
    return graph.make(symbol.op, args, symbol.attribute, symbol.width)


def is_condition(symbol: Symbol) -> bool:
    """Whether a symbol is a truth value: a comparison, or an input named ``…?``."""
    if symbol.op == "input":
        return str(symbol.attribute).endswith("?")
    return symbol.op in COMPARISONS


def describe(symbol: Symbol) -> str:
    """A short name of a symbol for messages."""
    if symbol.label:
        return f"'{symbol.label}'"
    if symbol.op == "constant":
        return f"{symbol.attribute:g}"
    return f"the result of {symbol.op}"


def _simplify(graph: Graph, op: str, args: tuple[Symbol, ...]) -> Symbol | None:
    """The simpler symbol that an operation equals, or None."""
    if all(a.op == "constant" for a in args) and op in _FOLD:
        return graph.constant(_FOLD[op](*(a.attribute for a in args)))
    if op == "where":
        return _decided(graph, *args)
    if op == "neg" and args[0].op == "neg":
        return args[0].args[0]
    if op == "maximum" and args[1].op == "constant" and args[1].attribute == 0:
        return graph.make("relu", (args[0],), None, args[0].width)
    if len(args) != 2:
        return None
    a, b = args
    if _is(b, 0.0) and op in ("add", "sub"):
        return a
    if _is(a, 0.0) and op == "add":
        return b
    if _is(a, 0.0) and op == "sub":
        return graph.apply("neg", b)
    if _is(b, 1.0) and op in ("mul", "div"):
        return a
    if _is(a, 1.0) and op == "mul":
        return b
    if "neg" in (a.op, b.op):
        return _without_sign(graph, op, a, b)
    if op == "add" and "place" in (a.op, b.op) and a.width == b.width:
        base, placed = (a, b) if b.op == "place" else (b, a)
        return graph.make("add_at", (base, *placed.args), None, base.width)
    return None


def _decided(graph: Graph, condition: Symbol, a: Symbol, b: Symbol) -> Symbol | None:
    """What ``where`` gives if that can be told beforehand: both are alike, or numbers compared."""
    if a is b and a.width >= condition.width:
        return a
    if not condition.args or not all(arg.op == "constant" for arg in condition.args):
        return None
    holds = _COMPARE[condition.op](*(arg.attribute for arg in condition.args))
    return graph.fill(a if holds else b, max(a.width, b.width))


def _without_sign(graph: Graph, op: str, a: Symbol, b: Symbol) -> Symbol | None:
    """The same with a change of sign moved outwards, exactly: ``a + (-b)`` is ``a - b``."""
    if op == "add" and b.op == "neg":
        return graph.apply("sub", a, b.args[0])
    if op == "add":
        return graph.apply("sub", b, a.args[0])
    if op == "sub" and b.op == "neg":
        return graph.apply("add", a, b.args[0])
    if op not in ("mul", "div"):
        return None
    if a.op == "neg" and a.width >= b.width:  # the sign of a narrow one is cheaper to change
        return -graph.apply(op, a.args[0], b)
    if b.op == "neg" and b.width >= a.width:
        return -graph.apply(op, a, b.args[0])
    return None


def _is(symbol: Symbol, value: float) -> bool:
    return symbol.op == "constant" and symbol.attribute == value


_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "less": lambda a, b: a < b,
    "less_equal": lambda a, b: a <= b,
    "equal": lambda a, b: a == b,
}
_FOLD: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
    "exp": math.exp,
    "log": math.log,
    "sqrt": math.sqrt,
    "tanh": math.tanh,
    "abs": abs,
    "minimum": lambda a, b: a if a <= b or a != a else b,
    "maximum": lambda a, b: a if a >= b or a != a else b,
}


def base_of(symbol: Symbol) -> Symbol:
    """What a slice is a part of, and any other symbol itself: storing a part means storing that."""
    return symbol.args[0] if symbol.op == "slice" else symbol


def ancestors(roots: Iterable[Symbol]) -> set[Symbol]:
    """The roots and everything that they are computed from."""
    found: set[Symbol] = set()
    waiting = list(roots)
    while waiting:
        symbol = waiting.pop()
        if symbol not in found:
            found.add(symbol)
            waiting.extend(symbol.args)
    return found


def depends_on(symbols: Iterable[Symbol], sources: set[Symbol]) -> set[Symbol]:
    """Those of ``symbols`` that are computed from a source, the sources included."""
    found = set(sources)
    for symbol in ordered(symbols):
        if any(arg in found for arg in symbol.args):
            found.add(symbol)
    return found


def ordered(symbols: Iterable[Symbol]) -> tuple[Symbol, ...]:
    """The symbols in an order in which they can be computed."""
    return tuple(sorted(symbols, key=lambda s: s.index))
