"""The functions that equations are written with.

    from rnnfarm import Cell, affine, sigmoid, tanh

Each takes symbols (and plain numbers) and gives a symbol; the equations are traced once, before
any number is known. ``+ - * /``, unary ``-``, ``abs()``, ``** n`` and the comparisons ``< <= > >=``
work on symbols too. docs/language.md has it all on one page. What cannot be is a CellError, which
``step``'s caller completes with the cell, the line and the code there.
"""

from __future__ import annotations

import contextvars
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rnnfarm.equations.graph import Graph, Parameter, Role, Symbol, Value, ancestors
from rnnfarm.equations.initial import parse
from rnnfarm.errors import CellError

Kind = Literal["cell", "loss", "optimizer"]
#: What helps where widths do not fit.
FITTING: dict[Kind, str] = {
    "cell": "bring them to one width with affine(…, units=…)",
    "loss": "say in outputs(width) how wide the output is, and cut it with split or pick",
    "optimizer": "compute with single elements alone",
}


class Trace:
    """What is known while one part's equations run: its graph and default width."""

    def __init__(self, units: int, kind: Kind = "cell") -> None:
        self.kind = kind
        self.graph = Graph(FITTING[kind])
        self.units = units
        #: The gates that maps give: name, gate, and the map that it is a part of.
        self.gates: list[tuple[str, Symbol, Symbol]] = []
        self.affine_count = 0
        #: Names of the symbols that the part was given, for naming weights.
        self.given: dict[Symbol, str] = {}
        #: Symbols that depend on the previous step's states.
        self.states: set[Symbol] = set()

    def declare(self, parameter: Parameter) -> Parameter:
        """Check a new parameter's name and width."""
        name = parameter.name
        if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
            raise CellError(f"the parameter name {name!r}: use letters, digits, '_', '.' and '-'")
        for init in parameter.init:
            if not isinstance(init, str):
                raise CellError(
                    f"init={init!r} of the parameter {name!r}: an initialiser is a text, such as "
                    "'zeros', 'constant:0.5' or 'uniform:0.1'"
                )
            try:
                parse(init)
            except ValueError as error:
                raise CellError(f"parameter {name!r}: {error}") from None
        if name in self.graph.parameters:
            raise CellError(
                f"the parameter {name!r} is declared twice; give each its own name, or keep the "
                "first one's symbol in a variable and use that again"
            )
        self.graph.declare(parameter)
        return parameter

    def is_recurrent(self, symbol: Symbol) -> bool:
        """Whether a symbol depends on a state of the step before."""
        return not self.states.isdisjoint(ancestors([symbol]))


_current: contextvars.ContextVar[Trace] = contextvars.ContextVar("rnnfarm_trace")


def current_trace() -> Trace:
    try:
        return _current.get()
    except LookupError:
        raise CellError(
            "affine() and parameter() were called outside step(); they belong to a cell's equations"
        ) from None


def affine(
    *vectors: Symbol,
    gates: str | Sequence[str] | None = None,
    units: int | None = None,
    bias: bool | float | str | Mapping[str, float | str] = True,
    init: str | Mapping[str, str] | None = None,
    name: str | None = None,
) -> Any:
    """A learned linear map: ``v₁ W₁ + v₂ W₂ + … + b``.

    Args:
        vectors: symbols, each multiplied by a weight matrix of its own.
        gates: one name per gate, as a string of letters or a sequence of words; the map then gives
            that many symbols of ``units`` each, in that order.
        units: the width of (each gate of) the result; the cell's hidden width by default.
        bias: whether there is a bias; a number or an initialiser, or one per gate, says how it
            starts (``bias={"f": 1.0}``, ``bias={"f": "linspace:3:6"}``), with 0 otherwise.
        init: initialiser of the recurrent weights, or a mapping from a vector's name to one:
            ``orthogonal`` (the default for recurrent ones), ``glorot_uniform`` (the default for all
            others), or another of those that ``rnnfarm.equations.initial`` lists.
        name: names the weights (``NAME.x``, ``NAME.h``, ``NAME.bias``); ``W``, ``W2``, … if absent.

    Returns:
        One symbol, or one per gate where ``gates`` has more than one.
    """
    trace = current_trace()
    graph = trace.graph
    if gates is not None and not isinstance(gates, Sequence):
        raise CellError(f"affine(gates={gates!r}): write a name for each, such as gates='ifgo'")
    names = list(gates) if gates is not None else [""]
    if len(set(names)) < len(names) or not names:
        raise CellError(f"affine(gates={gates!r}): gate names must differ, and there must be one")
    if not vectors:
        raise CellError("affine() without vectors is only a learned vector; write parameter(name)")
    for given in vectors:
        graph.own(given, "affine")
    width = _checked_units(trace, units, "affine")
    _check_keys("bias", bias, names, "gates")
    labels = [trace.given.get(vector, f"v{k}") for k, vector in enumerate(vectors)]
    # A map of the input or a state makes gates; one of other vectors is a projection.
    gates_of = "cell" if any(vector in trace.given for vector in vectors) else ""
    _check_keys("init", init, labels, "vectors")
    trace.affine_count += 1
    prefix = name or ("W" if trace.affine_count == 1 else f"W{trace.affine_count}")

    def product(label: str, vector: Symbol) -> Symbol:
        if all(s.op != "input" for s in ancestors([vector])):
            raise CellError(
                "affine() of something that depends on no input and no state is only a learned "
                "vector; write parameter(name)"
            )
        recurrent = trace.is_recurrent(vector)
        chosen = (_weight_init(init, label, recurrent),) * len(names)
        shape = (vector.width, width * len(names))
        role: Role = "recurrent" if recurrent else "weight"
        parameter = Parameter(
            f"{prefix}.{label}", shape, chosen, True, role, trace.units, gates=gates_of
        )
        return graph.matmul(vector, (trace.declare(parameter),))

    products = [product(label, vector) for label, vector in zip(labels, vectors, strict=True)]
    # What depends on x alone comes first, so that its sum is hoisted out of the time loop.
    products.sort(key=trace.is_recurrent)
    if bias is not False:
        initial = tuple(_bias_init(bias, gate) for gate in names)
        kind: Role = "joint_bias" if len(vectors) > 1 else "bias"
        shape = (width * len(names),)
        vector = Parameter(f"{prefix}.bias", shape, initial, False, kind, trace.units)
        first_recurrent = sum(not trace.is_recurrent(p) for p in products)
        products.insert(first_recurrent, graph.vector(trace.declare(vector)))
    total = products[0]
    for term in products[1:]:
        total = total + term
    parts = tuple(graph.slice(total, k * width, (k + 1) * width) for k in range(len(names)))
    if len(names) == 1:
        return parts[0]
    for part, gate in zip(parts, names, strict=True):
        part.label = part.label or gate
        trace.gates.append((gate, part, total))
    return parts


def _weight_init(init: str | Mapping[str, str] | None, label: str, recurrent: bool) -> str:
    """The initialiser of the weights of the vector ``label``."""
    default = "orthogonal" if recurrent else "glorot_uniform"
    if isinstance(init, Mapping):
        return init.get(label, default)
    return init if init is not None and recurrent else default


def _bias_init(bias: bool | float | str | Mapping[str, float | str], gate: str) -> str:
    """The initialiser of a gate's bias."""
    value = bias.get(gate, 0.0) if isinstance(bias, Mapping) else bias
    if isinstance(value, str):
        return value
    if not isinstance(value, (int, float)):
        raise CellError(
            f"affine(bias={bias!r}): write True, False, a number or an initialiser, or one per gate"
        )
    return _constant(0.0 if value is True else float(value))


def _constant(value: float) -> str:
    """The initialiser of this very number, short where it can be."""
    short = f"{value:g}"
    return f"constant:{short if float(short) == value else repr(value)}"


def _checked_units(trace: Trace, units: int | None, function: str) -> int:
    width = trace.units if units is None else units
    if not isinstance(width, int) or width < 1:
        raise CellError(f"{function}(units={units!r}): units must be a whole number above 0")
    return width


def _check_keys(argument: str, given: object, known: Sequence[str], what: str) -> None:
    """Refuse a mapping that names something that is not there."""
    unknown = [key for key in given if key not in known] if isinstance(given, Mapping) else []
    if unknown:
        raise CellError(
            f"affine({argument}=…): {unknown[0]!r} is none of its {what}, which are {list(known)}"
        )


def parameter(
    name: str,
    units: int | None = None,
    init: str = "zeros",
    decay: bool = False,
    bound: float | tuple[float, float] | None = None,
) -> Symbol:
    """A learned vector, the same for every row (peepholes, diagonal recurrence, a gain).

    Args:
        name: its name within the cell.
        units: its width, the cell's hidden width by default.
        init: initialiser, such as ``zeros``, ``ones``, ``constant:0.5`` or ``uniform:1``.
        decay: whether weight decay applies to it.
        bound: a number L where its elements must lie in [-L, L], or a pair (low, high). Initial
            values, and what the optimizer gives at every step, are brought back between the two.
            Unlike ``minimum`` and ``maximum`` in the equations, this leaves an element at a bound
            its gradient, so that it can come back.
    """
    trace = current_trace()
    width = _checked_units(trace, units, "parameter")
    limits = _checked_bound(name, bound)
    made = Parameter(name, (width,), (init,), decay, bound=limits)
    return trace.graph.vector(trace.declare(made))


def _checked_bound(name: str, bound: object) -> tuple[float, float] | None:
    """The least and the largest value of a bound; CellError where it is none."""
    if bound is None:
        return None
    pair = bound if isinstance(bound, tuple | list) else (bound, bound)
    if len(pair) == 2 and all(isinstance(each, int | float) for each in pair):
        low, high = float(pair[0]), float(pair[1])
        low = low if pair is bound else -high
        if math.isfinite(low) and math.isfinite(high) and low < high:
            return low, high
    raise CellError(
        f"parameter({name!r}, bound={bound!r}): write a number above 0, or the least and the "
        "largest value as a pair"
    )


def layer_norm(vector: Symbol, epsilon: float = 1e-5) -> Symbol:
    """The row brought to mean 0 and variance 1 (Ba et al. 2016, eq. 4), without gain and bias.

    Multiply by a ``parameter(…, init="ones")`` and add another for gain and bias.
    """
    _check_row("layer_norm")
    width = _symbol(vector).width
    centred = vector - row_sum(vector) / width
    return centred / sqrt(row_sum(centred * centred) / width + epsilon)


def row_sum(vector: Symbol) -> Symbol:
    """The sum over the units of each row, of width 1."""
    _check_row("row_sum")
    return _symbol(vector).graph.reduce("row_sum", vector)


def row_max(vector: Symbol) -> Symbol:
    """The largest unit of each row, of width 1. Its gradient is taken as zero.

    Use it where it cancels, as in a stabilised logarithm of a sum of exponentials.
    """
    _check_row("row_max")
    return _symbol(vector).graph.reduce("row_max", vector)


def pick(vector: Symbol, unit: Value) -> Symbol:
    """The unit number ``unit`` of each row, of width 1: the logit of a class, say.

    ``unit`` is a whole number from 0 to the vector's width - 1, one a row.
    """
    _check_row("pick")
    return _symbol(vector).graph.pick(vector, unit)


def split(vector: Symbol, parts: int) -> tuple[Symbol, ...]:
    """The vector cut into ``parts`` equally wide vectors."""
    _check_row("split")
    graph = _symbol(vector).graph
    graph.own(vector, "split")
    if not isinstance(parts, int) or parts < 1:
        raise CellError(f"split(v, {parts!r}): the number of parts is a whole number above 0")
    width, rest = divmod(vector.width, parts)
    if rest:
        raise CellError(f"split(v, {parts}): v is {vector.width} wide, which does not divide so")
    return tuple(graph.slice(vector, k * width, (k + 1) * width) for k in range(parts))


def unit_index(width: int) -> Symbol:
    """The vector 0, 1, …, width - 1: ``equal(unit_index(n), k)`` is true at unit ``k``."""
    _check_row("unit_index")
    if not isinstance(width, int) or width < 1:
        raise CellError(f"unit_index({width!r}): write a width, such as unit_index(h.width)")
    return current_trace().graph.unit_index(width)


def tanh(v: Symbol) -> Symbol:
    """Hyperbolic tangent."""
    return _symbol(v).graph.apply("tanh", v)


def sigmoid(v: Symbol) -> Symbol:
    """The logistic function 1 / (1 + exp(-v))."""
    return _symbol(v).graph.apply("sigmoid", v)


def relu(v: Symbol) -> Symbol:
    """max(v, 0); its gradient at 0 is 0."""
    return _symbol(v).graph.apply("relu", v)


def softplus(v: Symbol) -> Symbol:
    """log(1 + exp(v))."""
    return _symbol(v).graph.apply("softplus", v)


def exp(v: Symbol) -> Symbol:
    """The exponential function."""
    return _symbol(v).graph.apply("exp", v)


def log(v: Symbol) -> Symbol:
    """The natural logarithm."""
    return _symbol(v).graph.apply("log", v)


def sqrt(v: Symbol) -> Symbol:
    """The square root."""
    return _symbol(v).graph.apply("sqrt", v)


def minimum(a: Value, b: Value) -> Symbol:
    """The smaller of two; where they are equal the gradient goes to the first."""
    return _graph_of(a, b).apply("minimum", a, b)


def maximum(a: Value, b: Value) -> Symbol:
    """The larger of two; where they are equal the gradient goes to the first.

    ``maximum(v, 0)`` is ``relu(v)``.
    """
    return _graph_of(a, b).apply("maximum", a, b)


def equal(a: Value, b: Value) -> Symbol:
    """Whether two are equal, for ``where``."""
    return _graph_of(a, b).apply("equal", a, b)


def where(condition: Symbol, a: Value, b: Value) -> Symbol:
    """``a`` where the condition holds, ``b`` elsewhere."""
    return _graph_of(condition, a, b).apply("where", condition, a, b)


def sign(v: Symbol) -> Symbol:
    """-1, 0 or 1; its gradient is 0."""
    return _symbol(v).graph.apply("sign", v)


def _check_row(function: str) -> None:
    """Refuse what is of a row's units in the equations of an optimizer, which have no row."""
    trace = _current.get(None)
    if trace is not None and trace.kind == "optimizer":
        raise CellError(
            f"{function} in an optimizer, whose equations are of one element of a parameter: "
            "there is no row of units; use elementwise operations alone"
        )


def _symbol(value: Symbol) -> Symbol:
    if isinstance(value, tuple | list):
        raise CellError(
            "several values at once, such as affine(…, gates=…) gives; take them one by one"
        )
    if not isinstance(value, Symbol):
        raise CellError(f"{value!r} is no symbol; compute with plain numbers in Python (math.…)")
    return value


def _graph_of(*values: Value) -> Graph:
    for value in values:
        if isinstance(value, Symbol):
            return value.graph
    raise CellError("none of the arguments is a symbol; compute with plain numbers in Python")


ACTIVATIONS = {"tanh": tanh, "sigmoid": sigmoid, "relu": relu, "softplus": softplus}
