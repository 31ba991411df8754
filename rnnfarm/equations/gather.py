"""A cell whose input is a token: rows of its weights in place of products with one-hot vectors."""

from __future__ import annotations

from rnnfarm.equations.graph import Graph, Parameter, Symbol, ancestors, copied, ordered
from rnnfarm.equations.parts import CellTrace


def gather_products(trace: CellTrace) -> tuple[CellTrace, tuple[Parameter, ...]] | None:
    """Return the trace with the products of ``x`` as its input, side by side, and their weights.

    The product of a one-hot vector with a matrix is the matrix's row, which can be looked up. None
    where the equations use ``x`` in another way too.
    """
    needed = ordered(ancestors(trace.new_states.values()))
    products = [symbol for symbol in needed if trace.x in symbol.args]
    if not products or any(symbol.op != "matmul" for symbol in products):
        return None
    weights = tuple(weight for product in products for weight in product.attribute)
    graph = Graph()
    x = graph.input("x", sum(product.width for product in products))
    states = {name: graph.input(name, s.width) for name, s in trace.states.items()}
    image: dict[Symbol, Symbol] = {s: states[name] for name, s in trace.states.items()}
    position = 0
    for product in products:
        image[product] = graph.slice(x, position, position + product.width)
        position += product.width
    for symbol in needed:
        if symbol not in image and symbol is not trace.x:
            image[symbol] = copied(graph, symbol, tuple(image[a] for a in symbol.args))
        if symbol is not trace.x:
            image[symbol].label = image[symbol].label or symbol.label
    for parameter in trace.graph.parameters.values():
        if parameter not in weights:
            graph.declare(parameter)
    new = {name: image[symbol] for name, symbol in trace.new_states.items()}
    return CellTrace(trace.name, graph, x, states, new), weights
