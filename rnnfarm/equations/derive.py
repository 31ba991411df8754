"""The derivative of a graph by reverse mode.

For every operation there is one rule: given the gradient of its result, the gradients of its
arguments, as symbols of the same graph. A rule prefers the operation's result over its argument
(``1 - y²`` for tanh), since results are what a kernel has at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rnnfarm.equations.graph import Parameter, Symbol, ancestors, depends_on


@dataclass
class Derivative:
    """What ``derive`` found.

    Attributes:
        of: the gradient of every symbol that it was asked for and that has one.
        weights: for every product with weights, ``(weights, argument, gradient of the product)``:
            the weights' gradient is ``argumentᵀ @ gradient`` over all rows and steps.
        vectors: for every learned vector, the gradient whose sum over rows and steps is its own.
    """

    of: dict[Symbol, Symbol] = field(default_factory=dict)
    weights: list[tuple[tuple[Parameter, ...], Symbol, Symbol]] = field(default_factory=list)
    vectors: dict[str, Symbol] = field(default_factory=dict)


def derive(seeds: Mapping[Symbol, Symbol], wanted: list[Symbol]) -> Derivative:
    """Reverse-mode derivative.

    Args:
        seeds: results, with the gradient that arrives at each.
        wanted: inputs whose gradients are asked for; learned parameters always get theirs.
    """
    if not seeds:
        return Derivative()
    result = Derivative()
    graph = next(iter(seeds)).graph
    reachable = ancestors(seeds)
    sources = {s for s in reachable if s.op == "parameter" or s.op == "matmul"} | set(wanted)
    relevant = depends_on(reachable, sources)
    parts: dict[Symbol, list[Symbol]] = {}
    pieces: dict[Symbol, dict[tuple[int, int], list[Symbol]]] = {}

    def arrive(symbol: Symbol, gradient: Symbol) -> None:
        if symbol not in relevant:
            return
        gradient = _to_width(gradient, symbol)
        if symbol.op == "slice":
            # Slices of one symbol are gathered and joined once, not padded and added.
            pieces.setdefault(symbol.args[0], {}).setdefault(symbol.attribute, []).append(gradient)
        else:
            parts.setdefault(symbol, []).append(gradient)

    for symbol, gradient in seeds.items():
        arrive(symbol, gradient)
    for symbol in sorted(reachable, key=lambda s: -s.index):
        if symbol in pieces:
            parts.setdefault(symbol, []).extend(_join(symbol, pieces.pop(symbol)))
        if symbol not in parts:
            continue
        total = _sum(parts.pop(symbol))
        result.of[symbol] = total
        if symbol.op == "parameter":
            result.vectors[symbol.attribute] = total
        elif symbol.op == "matmul":
            result.weights.append((symbol.attribute, symbol.args[0], total))
            if symbol.args[0] in relevant:
                back = graph.make(
                    "matmul_transposed", (total,), symbol.attribute, symbol.args[0].width
                )
                arrive(symbol.args[0], back)
        elif symbol.args:
            for arg, gradient in _RULES[symbol.op](symbol, total):
                arrive(arg, gradient)
    result.of = {s: g for s, g in result.of.items() if s in wanted}
    return result


def _sum(gradients: list[Symbol]) -> Symbol:
    total = gradients[0]
    for gradient in gradients[1:]:
        total = total + gradient
    return total


def _join(symbol: Symbol, pieces: dict[tuple[int, int], list[Symbol]]) -> list[Symbol]:
    """The gradients of slices of a symbol, joined to gradients of the whole.

    Slices that overlap go into several wholes, which are then added.
    """
    graph = symbol.graph
    zero = graph.constant(0.0)
    waiting = sorted((span, _sum(gradients)) for span, gradients in pieces.items())
    wholes = []
    while waiting:
        row, rest, position = [], [], 0
        for (start, stop), gradient in waiting:
            if start < position:
                rest.append(((start, stop), gradient))
                continue
            if start > position:
                row.append(graph.fill(zero, start - position))
            row.append(graph.fill(gradient, stop - start))
            position = stop
        if position < symbol.width:
            row.append(graph.fill(zero, symbol.width - position))
        wholes.append(graph.concat(tuple(row)))
        waiting = rest
    return wholes


def _to_width(gradient: Symbol, symbol: Symbol) -> Symbol:
    """The gradient of a symbol that was broadcast: its sum over the units."""
    if symbol.width == 1 and gradient.width > 1:
        if gradient.op == "neg":  # change the sign of one number a row, not of all units
            return -gradient.graph.reduce("row_sum", gradient.args[0])
        return gradient.graph.reduce("row_sum", gradient)
    return gradient


Rule = Callable[[Symbol, Symbol], list[tuple[Symbol, Symbol]]]


def _minimum(y: Symbol, g: Symbol) -> list[tuple[Symbol, Symbol]]:
    a, b = y.args
    return _choose(a <= b, a, b, g)


def _maximum(y: Symbol, g: Symbol) -> list[tuple[Symbol, Symbol]]:
    a, b = y.args
    return _choose(b <= a, a, b, g)


def _choose(first: Symbol, a: Symbol, b: Symbol, gradient: Symbol) -> list[tuple[Symbol, Symbol]]:
    where = gradient.graph.apply
    return [(a, where("where", first, gradient, 0.0)), (b, where("where", first, 0.0, gradient))]


def _where(y: Symbol, g: Symbol) -> list[tuple[Symbol, Symbol]]:
    condition, a, b = y.args
    return _choose(condition, a, b, g)


def _divide(y: Symbol, g: Symbol) -> list[tuple[Symbol, Symbol]]:
    a, b = y.args
    by = g / b
    # A row's own width-1 divisor is summed over the units only here, so y's width decides.
    return [(a, by), (b, -(by * y))]


def _mul(y: Symbol, g: Symbol) -> list[tuple[Symbol, Symbol]]:
    a, b = y.args
    if a is b:
        return [(a, 2.0 * g * a)]
    return [(a, g * b), (b, g * a)]


def _concat(y: Symbol, g: Symbol) -> list[tuple[Symbol, Symbol]]:
    result, position = [], 0
    for part in y.args:
        piece = g.graph.slice(g.graph.fill(g, y.width), position, position + part.width)
        result.append((part, piece))
        position += part.width
    return result


def _row_sum(y: Symbol, g: Symbol) -> list[tuple[Symbol, Symbol]]:
    (v,) = y.args
    return [(v, g.graph.fill(g, v.width))]


def _pick(y: Symbol, g: Symbol) -> list[tuple[Symbol, Symbol]]:
    v, unit = y.args
    return [(v, g.graph.make("place", (g, unit), None, v.width))]


_RULES: dict[str, Rule] = {
    "add": lambda y, g: [(y.args[0], g), (y.args[1], g)],
    "sub": lambda y, g: [(y.args[0], g), (y.args[1], -g)],
    "mul": _mul,
    "div": _divide,
    "neg": lambda y, g: [(y.args[0], -g)],
    "tanh": lambda y, g: [(y.args[0], g * (1.0 - y * y))],
    "sigmoid": lambda y, g: [(y.args[0], g * y * (1.0 - y))],
    "relu": lambda y, g: [(y.args[0], g.graph.apply("where", y > 0, g, 0.0))],
    "softplus": lambda y, g: [(y.args[0], g * g.graph.apply("sigmoid", y.args[0]))],
    "exp": lambda y, g: [(y.args[0], g * y)],
    "log": lambda y, g: [(y.args[0], g / y.args[0])],
    "sqrt": lambda y, g: [(y.args[0], g * 0.5 / y)],
    "abs": lambda y, g: [(y.args[0], g * g.graph.apply("sign", y.args[0]))],
    "sign": lambda y, g: [],
    "minimum": _minimum,
    "maximum": _maximum,
    "where": _where,
    "row_sum": _row_sum,
    "row_max": lambda y, g: [],
    "pick": _pick,
    "concat": _concat,
    "fill": lambda y, g: [(y.args[0], g.graph.reduce("row_sum", g))],
}
