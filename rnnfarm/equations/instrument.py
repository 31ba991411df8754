"""What every cell gets alike, put into its traced equations.

State resets, padding masks, zoneout and variational dropout of the recurrence become ordinary
operations of the graph, so that no kernel needs to know of them. Products that share their input
are joined into one here as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from rnnfarm.equations.graph import (
    Graph,
    Parameter,
    Symbol,
    ancestors,
    copied,
    depends_on,
    ordered,
)
from rnnfarm.equations.parts import CellTrace


@dataclass(frozen=True)
class PlanOptions:
    """What a plan has beyond the cell's own equations.

    Attributes:
        masked: there is a padding mask; where it is 0 a state keeps its value.
        resets: there are resets; where one is 1 a step starts from the initial state.
        initial: the initial state: ``zero``, ``learned`` (a parameter), or ``random`` (given).
        training: derive the backward; draw zoneout instead of averaging it.
        zoneout: the probability that a unit of a state keeps its value (Krueger et al. 2017).
        recurrent_dropout: the probability that a unit that enters a recurrent product is dropped,
            the same one for a whole window (Gal and Ghahramani 2016).
    """

    masked: bool = False
    resets: bool = False
    initial: str = "zero"
    training: bool = True
    zoneout: tuple[tuple[str, float], ...] = ()
    recurrent_dropout: float = 0.0


@dataclass(frozen=True)
class Step:
    """A traced time step, with everything put in that a plan adds."""

    name: str
    graph: Graph
    x: Symbol
    previous: dict[str, Symbol]
    new: dict[str, Symbol]


def instrument(trace: CellTrace, options: PlanOptions) -> Step:
    """Rebuild a trace with resets, masks, zoneout and dropout, and with products joined."""
    graph = Graph()
    x = graph.input("x", trace.x.width)
    previous = {name: graph.input(name, s.width) for name, s in trace.states.items()}
    current = {name: _start(graph, name, s, options) for name, s in previous.items()}
    needed = ordered(ancestors(trace.new_states.values()))
    recurrent = depends_on(needed, set(trace.states.values()))
    products: dict[Symbol, list[Symbol]] = {}
    for symbol in needed:
        if symbol.op == "matmul":
            products.setdefault(symbol.args[0], []).append(symbol)
    dropped = [v for v in products if v in recurrent] if options.recurrent_dropout else []
    image: dict[Symbol, Symbol] = {trace.x: x}
    image |= {symbol: current[name] for name, symbol in trace.states.items()}
    if options.recurrent_dropout and not dropped:
        # A cell without recurrent products (IndRNN) has its states dropped where they enter.
        for k, symbol in enumerate(trace.states.values()):
            image[symbol] = image[symbol] * graph.input(f"drop:{k}", symbol.width)
    for symbol in needed:
        if symbol in image:
            continue
        if symbol.op == "matmul":
            vector = image[symbol.args[0]]
            if symbol.args[0] in dropped:
                vector = vector * graph.input(f"drop:{dropped.index(symbol.args[0])}", vector.width)
            _join_products(graph, vector, products[symbol.args[0]], image)
        else:
            image[symbol] = copied(graph, symbol, tuple(image[a] for a in symbol.args))
        image[symbol].label = image[symbol].label or symbol.label
    new = {}
    for name, symbol in trace.new_states.items():
        new[name] = _finish(graph, name, image[symbol], current[name], options)
    for parameter in trace.graph.parameters.values():
        graph.declare(parameter)
    return Step(trace.name, graph, x, previous, new)


def _start(graph: Graph, name: str, previous: Symbol, options: PlanOptions) -> Symbol:
    """The state that a step starts from: the one before, or where it is reset the initial one."""
    if options.initial == "learned":
        initial = graph.vector(Parameter(f"initial.{name}", (previous.width,), ("zeros",), False))
    if not options.resets:
        return previous
    reset = graph.input("reset?", 1)
    if options.initial == "zero":
        return graph.apply("where", reset, 0.0, previous)
    if options.initial == "random":
        initial = graph.input(f"initial:{name}", previous.width)
    return graph.apply("where", reset, initial, previous)


def _finish(graph: Graph, name: str, new: Symbol, old: Symbol, options: PlanOptions) -> Symbol:
    """A new state after zoneout and padding."""
    probability = dict(options.zoneout).get(name, 0.0)
    if probability and options.training:
        new = graph.apply("where", graph.input(f"zoneout:{name}?", new.width), old, new)
    elif probability:
        new = old * probability + new * (1.0 - probability)
    if options.masked:
        new = graph.apply("where", graph.input("mask?", 1), new, old)
    return new


def _join_products(
    graph: Graph, vector: Symbol, products: list[Symbol], image: dict[Symbol, Symbol]
) -> None:
    """One product for all that share their input; each of them becomes a slice of it."""
    weights = tuple(weight for product in products for weight in product.attribute)
    joined = graph.matmul(vector, weights)
    position = 0
    for product in products:
        image[product] = graph.slice(joined, position, position + product.width)
        position += product.width
