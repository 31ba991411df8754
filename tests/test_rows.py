"""Programs over rows: every value right, whichever arrays are written over."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_tools import make_case

from rnnfarm.equations.graph import Graph, Symbol
from rnnfarm.equations.language import affine, equal, pick, row_sum, split, unit_index, where
from rnnfarm.equations.parts import Cell
from rnnfarm.kernels.rows import RowProgram

ROWS = 11
NAMES = ("a", "b", "c")
WIDTHS = {"a": 1, "b": 4, "c": 4}
BINARY = ("add", "sub", "mul", "minimum", "maximum")


def evaluate(symbol: Symbol, given: dict[str, Any]) -> Any:
    """A symbol's value, the plain way."""
    args = [evaluate(a, given) for a in symbol.args]
    match symbol.op:
        case "constant":
            return np.float64(symbol.attribute)
        case "input":
            return given[symbol.attribute]
        case "unit_index":
            return np.arange(symbol.width)
        case "slice":
            return args[0][..., slice(*symbol.attribute)]
        case "concat":
            return np.concatenate([np.broadcast_to(a, (ROWS, a.shape[-1])) for a in args], -1)
        case "fill" | "copy":
            return np.broadcast_to(args[0], (ROWS, symbol.width))
        case "row_sum":
            return args[0].sum(-1, keepdims=True)
        case "where":
            return np.where(*args)
        case "less":
            return args[0] < args[1]
        case "relu":
            return np.maximum(args[0], 0.0)
        case "neg":
            return -args[0]
        case "tanh":
            return np.tanh(args[0])
    numpy_name = {"add": "add", "sub": "subtract", "mul": "multiply"}.get(symbol.op, symbol.op)
    return getattr(np, numpy_name)(*args)


@st.composite
def programs(draw: st.DrawFn) -> dict[str, Symbol]:
    """Results named as the inputs, of random operations on them."""
    graph = Graph()
    pool = [graph.input(name, WIDTHS[name]) for name in NAMES]
    pool += [graph.input("lr", 1), graph.constant(0.5)]
    for _ in range(draw(st.integers(1, 25))):
        first, second, third = (draw(st.sampled_from(pool)) for _ in range(3))
        kind = draw(st.sampled_from(["binary", "unary", "where", "row_sum", "halves"]))
        if kind == "binary":
            made = graph.apply(draw(st.sampled_from(BINARY)), first, second)
        elif kind == "unary":
            made = graph.apply(draw(st.sampled_from(["tanh", "neg", "relu"])), first)
        elif kind == "where":
            made = graph.apply("where", first < second, first, third)
        elif kind == "row_sum":
            made = graph.reduce("row_sum", first)
        else:
            wide = graph.fill(first, 4) if first.width == 1 else first
            made = graph.concat((graph.slice(wide, 2, 4), graph.slice(wide, 0, 2)))
        pool.append(made)
    return {
        name: draw(st.sampled_from([s for s in pool if s.width == WIDTHS[name]]))
        for name in draw(st.permutations(NAMES))
    }


@given(programs(), st.sampled_from([1, 12, 1 << 16]))
@settings(max_examples=300, deadline=None)
def test_results_written_over_inputs(results: dict[str, Symbol], block: int) -> None:
    rng = np.random.default_rng(0)
    before = {name: rng.normal(size=(ROWS, WIDTHS[name])) for name in NAMES}
    arrays = {name: array.copy() for name, array in before.items()}
    program = RowProgram("test", results, "float64", scalars=["lr"], block=block)
    program(arrays, program.spans(0, ROWS), {"lr": 0.3})
    for name, symbol in results.items():
        expected = evaluate(symbol, before | {"lr": np.float64(0.3)})
        assert np.allclose(arrays[name], expected, rtol=1e-12, atol=1e-12), program.source


def test_rows_outside_the_spans_are_left_alone() -> None:
    graph = Graph()
    program = RowProgram("test", {"a": graph.input("a", 1) + 1.0}, "float64", block=4)
    array = np.zeros((20, 1))
    program({"a": array}, [*program.spans(2, 9), *program.spans(15, 16)])
    assert np.flatnonzero(array).tolist() == [2, 3, 4, 5, 6, 7, 8, 15]


def test_scalars_are_computed_once_in_float64() -> None:
    graph = Graph()
    t = graph.input("t", 1)
    tiny = graph.apply("exp", t * -60.0)  # 0 in float32
    result = graph.input("a", 1) * (tiny * 1e40)
    program = RowProgram("test", {"a": result}, "float32", scalars=["t"])
    array = np.ones((3, 1), np.float32)
    program({"a": array}, program.spans(0, 3), {"t": 1.6})
    assert np.allclose(array, np.exp(-96.0) * 1e40, rtol=1e-6)
    assert program.source.count("np.exp") == 1
    assert program.source.index("np.exp") < program.source.index("for start")


def test_a_result_that_is_a_number() -> None:
    graph = Graph()
    results = {"a": graph.constant(2.5), "b": graph.input("lr", 1)}
    program = RowProgram("test", results, "float32", scalars=["lr"])
    arrays = {name: np.zeros((3, 1), np.float32) for name in results}
    program(arrays, program.spans(0, 3), {"lr": 0.5})
    assert arrays["a"].ravel().tolist() == [2.5] * 3
    assert arrays["b"].ravel().tolist() == [0.5] * 3


def unit_of(x: Any) -> Any:
    """1 or 2 in each row."""
    return where(split(x, 3)[0] > 0, 1.0, 2.0)


class Picking(Cell):
    def step(self, x: Any, h: Any) -> Any:
        return affine(x, h) * pick(h, unit_of(x)) + h


class Choosing(Cell):
    """The same as ``Picking`` without ``pick``."""

    def step(self, x: Any, h: Any) -> Any:
        chosen = where(equal(unit_index(h.width), unit_of(x)), h, 0.0)
        return affine(x, h) * row_sum(chosen) + h


def test_pick_in_a_cell() -> None:
    picking, choosing = make_case(Picking()), make_case(Choosing())
    assert np.allclose(picking.forward()[0], choosing.forward()[0], rtol=1e-12)
    expected = choosing.backward()
    for name, gradient in picking.backward().items():
        assert np.allclose(gradient, expected[name], rtol=1e-10), name
