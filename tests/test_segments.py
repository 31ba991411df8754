"""Values cut into segments, and the C text of an operation."""

from __future__ import annotations

import pytest

from rnnfarm.builtin import cells
from rnnfarm.equations.emit import c_expression, c_number
from rnnfarm.equations.graph import Graph, Parameter
from rnnfarm.equations.plan import make_plan
from rnnfarm.equations.segments import Segment, Segments


def test_gates_are_segments_of_what_they_are_slices_of() -> None:
    """The sum of products and bias is 4 H wide; it and its arguments are cut where gates begin."""
    plan = make_plan(cells.LSTM(), 3, 5)
    segments = Segments(plan.graph.symbols)
    (product,) = plan.stages[0].products
    spans = [(s.start, s.stop) for s in segments.of(product)]
    assert spans == [(0, 5), (5, 10), (10, 15), (15, 20)]
    (gate, *_) = (s for s in plan.stages[0].elementwise if s.op == "slice" and s.attribute[0] == 5)
    (segment,) = segments.of(gate)
    assert (segment.op, segment.start, segment.stop) == ("add", 5, 10)
    assert {(s.op, s.start) for s in segments.args(segment)} == {("matmul", 5), ("add", 5)}


def test_joins_are_seen_through() -> None:
    graph = Graph()
    a, b = graph.input("a", 2), graph.input("b", 3)
    joined = graph.concat((a, b))
    part = graph.slice(joined * 2.0, 1, 4)
    segments = Segments(graph.symbols)
    assert [(s.symbol.op, s.start, s.stop) for s in segments.of(part)] == [
        ("mul", 1, 2),
        ("mul", 2, 4),
    ]
    read = [segments.args(s)[0] for s in segments.of(part)]
    assert read == [Segment(a, 1, 2), Segment(b, 0, 2)]
    # What the slice cuts, it cuts in all that lies below it.
    assert [(s.symbol, s.start) for s in segments.of(joined)] == [(a, 0), (a, 1), (b, 0), (b, 2)]


def test_one_number_a_row_is_read_by_every_segment() -> None:
    graph = Graph()
    v, k = graph.input("v", 4), graph.input("k", 1)
    total = v * k
    graph.slice(total, 0, 2)
    segments = Segments(graph.symbols)
    assert [segments.args(s)[1] for s in segments.of(total)] == [Segment(k, 0, 1)] * 2


def test_products_are_cut_between_their_weights() -> None:
    graph = Graph()
    weights = (Parameter("W", (3, 2), ("zeros",), True), Parameter("M", (3, 4), ("zeros",), True))
    product = graph.matmul(graph.input("x", 3), weights)
    assert [s.width for s in Segments(graph.symbols).of(product)] == [2, 4]


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (lambda a, b: a + b, "p + q"),
        (lambda a, b: -a, "-p"),
        (lambda a, b: a.graph.apply("tanh", a), "rnn_tanh(p)"),
        (lambda a, b: a.graph.apply("where", a < b, a, b), "rnn_where(p, q, r)"),
        (
            lambda a, b: a.graph.make("place", (a, b), None, 3),
            "rnn_where(rnn_equal(u, q), p, rnn_splat(0))",
        ),
    ],
)
def test_c_text(made: object, text: str) -> None:
    graph = Graph()
    assert callable(made)
    symbol = made(graph.input("a", 3), graph.input("b", 3))
    assert c_expression(symbol, ["p", "q", "r"][: len(symbol.args)], "u") == text


@pytest.mark.parametrize("value", [0.1, 1e-30, -2.5, 3.0])
def test_numbers_read_back(value: float) -> None:
    assert float(c_number(value).removeprefix("(real)")) == value


def test_numbers_that_are_none() -> None:
    assert "nan" in c_number(float("nan"))
    assert c_number(float("-inf")) == "-__builtin_inff()"
