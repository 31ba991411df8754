"""What ``explain`` prints is what is computed: tests read its lines as formulas and run them."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from kernel_tools import VARIANTS, Case, make_case
from random_cells import Recipe, cell_of, recipes
from test_gradients import CELLS, ODD_CELLS

from rnnfarm import affine, tanh
from rnnfarm.builtin import cells
from rnnfarm.equations.explain import Explanation, explain
from rnnfarm.equations.parts import Cell
from rnnfarm.errors import CellError

SIZES = (1, 3, 3, 4)  # one step, so that a window's gradients are those of a step


class Matrix(np.ndarray):
    """An array of which ``**`` is a product of matrices, since ``·`` binds as tightly."""

    def __pow__(self, other):
        return np.matmul(self, other)

    def square(self):
        return self * self


def _centred(v):
    return v - v.mean(-1, keepdims=True)


def _matrix(function):
    return lambda *args: np.asarray(function(*args)).view(Matrix)


PLAIN = {
    "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
    "relu": lambda v: np.maximum(v, 0),
    "softplus": lambda v: np.logaddexp(v, 0),
    "layer_norm": lambda v, epsilon=1e-5: _centred(v) / np.sqrt(v.var(-1, keepdims=True) + epsilon),
    "unit_index": lambda width: np.arange(float(width)),
    "row_sum": lambda v: v.sum(-1, keepdims=True),
    "row_max": lambda v: v.max(-1, keepdims=True),
    **{name: getattr(np, name) for name in ("tanh", "exp", "log", "sqrt", "abs", "sign", "where")},
    "joined": lambda parts: np.concatenate(np.broadcast_arrays(*parts, np.zeros((1, 1)))[:-1], -1),
    **{name: getattr(np, name) for name in ("minimum", "maximum", "equal")},
}
FUNCTIONS = {name: _matrix(function) for name, function in PLAIN.items()}


class Formulas:
    """Runs printed lines, each of which defines a name."""

    def __init__(self, case: Case) -> None:
        self.values: dict[str, Matrix] = {}
        self.define("x", case.x[0])
        for name, array in (*case.states.items(), *case.parameters.items()):
            self.define(name, array)

    def define(self, name: str, value) -> None:
        self.values[name] = np.asarray(value).view(Matrix)

    def run(self, text: str):
        text = re.sub(r"∂\(([^()]*)\)", self._joined, text)
        text = re.sub(r"\[(\d+):(\d+)\]", r"[..., \1:\2]", text)
        text = text.replace("²", " .square()").replace("ᵀ", " .T").replace("·", "**")
        known = sorted(self.values, key=len, reverse=True)
        pattern = "|".join(re.escape(name) for name in known)
        text = re.sub(
            rf"(?<![\w∂δ.'])(?:{pattern})(?![\w'(.])",
            lambda match: f"V[{match.group()!r}]",
            text,
        )
        return eval(text, {"V": self.values, **FUNCTIONS})

    def _joined(self, match: re.Match) -> str:
        return f"joined([{', '.join('∂' + n for n in match.group(1).split(', '))}])"

    def line(self, names: str, text: str) -> None:
        value = np.atleast_2d(self.run(text))
        parts = names.split(", ")
        for name, part in zip(parts, np.split(value, len(parts), -1), strict=True):
            self.define(name, part)


def run(case: Case, explanation: Explanation) -> None:
    """Compare what the printed formulas give with what the kernel gives."""
    _, after = case.forward()
    gradients = case.backward()
    formulas = Formulas(case)
    for line in explanation.equations:
        formulas.line(line.name, line.text)
    for name, state in after.items():
        close(formulas.values[f"{name}'"], state)
        arriving = case.d_states[name] + (case.d_output[0] if name == explanation.output else 0)
        formulas.define(f"δ{name}", arriving)
    for line in explanation.gradients:
        formulas.line(line.name, line.text)
    close(formulas.values["∂x"], gradients["x"][0])
    for name in explanation.states:
        close(formulas.values[f"∂{name}"], gradients[f"state {name}"])
    rows = len(case.x[0])
    for line in explanation.parameter_gradients:
        name = line.name.removeprefix("∂")
        if line.text.startswith("0"):
            value = 0.0
        else:
            value = formulas.run(line.text.removeprefix("Σ "))
        if line.text.startswith("Σ ") and len(case.parameters[name].shape) == 1:
            value = np.broadcast_to(value, (rows, value.shape[-1])).sum(0)
        close(value, gradients[f"parameter {name}"])


def close(found, expected) -> None:
    np.testing.assert_allclose(np.broadcast_to(found, expected.shape), expected, atol=1e-10)


def example(cell: Cell) -> tuple[Case, Explanation]:
    return make_case(cell, VARIANTS["plain"], SIZES), explain(cell, SIZES[2], SIZES[3])


@pytest.mark.parametrize("cell", CELLS)
def test_the_printed_formulas_of_built_in_cells_are_right(cell: str) -> None:
    run(*example(CELLS[cell]))


@pytest.mark.parametrize("cell", ODD_CELLS)
def test_the_printed_formulas_of_odd_cells_are_right(cell: type[Cell]) -> None:
    run(*example(cell()))


@settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(recipe=recipes())
def test_the_printed_formulas_of_random_cells_are_right(recipe: Recipe) -> None:
    run(*example(cell_of(recipe, SIZES[2])))


def test_an_explanation_says_what_the_plan_holds() -> None:
    found = explain(cells.LSTM(), 8, 16, source="def forward(): ...")
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["schema"] == 1
    assert plain["states"] == {"h": 16, "c": 16}
    assert plain["output"] == "h"
    assert plain["parameter_count"] == 8 * 64 + 16 * 64 + 64
    assert [p["name"] for p in plain["parameters"]] == ["W.x", "W.h", "W.bias"]
    assert plain["hoisted"] == [{"text": "x·W.x", "inputs": 8, "outputs": 64}]
    (stage,) = plain["stages"]
    assert stage["products"] == [{"text": "h·W.h", "inputs": 16, "outputs": 64}]
    saved = {value["text"]: value["bytes"] for value in plain["saved"]}
    gates = ["sigmoid(i)", "sigmoid(f)", "tanh(g)", "sigmoid(o)"]
    assert saved == dict.fromkeys(["h", "c", *gates, "tanh(c')"], 16 * 4)
    assert plain["saved_bytes"] == sum(saved.values())
    assert plain["source"] == "def forward(): ..."


def test_the_page_of_an_lstm() -> None:
    text = explain(cells.LSTM(), 8, 16, source="def forward():\n    pass").text()
    for line in (
        "LSTM: 8 inputs, 16 units; states h (16), c (16); output h",
        "  i, f, g, o = x·W.x + W.bias + h·W.h",
        "  c'         = c * sigmoid(f) + sigmoid(i) * tanh(g)",
        "  h'         = sigmoid(o) * tanh(c')",
        "  ∂g  = sigmoid(i) * ∂c' * (1 - tanh(g)²)",
        "  ∂h  = ∂(i, f, g, o)·W.hᵀ",
        "  stage 1   h·W.h (16 → 64), then 14 elementwise operations",
        "      pass",
    ):
        assert line in text.splitlines()


def test_a_page_has_no_source_unless_it_is_given() -> None:
    assert "source" not in explain(cells.GRU()).text()


def test_a_page_says_how_it_runs_where_that_is_told() -> None:
    found = explain(cells.GRU(), remarks=["One launch.", "It is short."])
    assert found.text().endswith("\n\nHow it runs\n  One launch.\n  It is short.\n")
    assert json.loads(json.dumps(found.to_dict()))["remarks"] == ["One launch.", "It is short."]
    assert "How it runs" not in explain(cells.GRU()).text()


def test_explaining_leaves_profilers_alone() -> None:
    calls = []
    sys.setprofile(lambda *event: calls.append(event))
    try:
        before = sys.getprofile()
        explain(cells.Elman(), 2, 2)
        assert sys.getprofile() is before
    finally:
        sys.setprofile(None)


def test_a_mistake_in_a_cell_is_still_its_own() -> None:
    class Wrong(Cell):
        def step(self, x, h):
            return h + x

    with pytest.raises(CellError, match="Wrong: the widths do not fit"):
        explain(Wrong(), 2, 3)
    assert sys.getprofile() is None


def test_deep_equations_are_written_in_pieces() -> None:
    class Deep(Cell):
        def step(self, x, h):
            v = affine(x, h)
            for _ in range(1000):
                v = tanh(v + 0.1 * h)
            return v

    lines = explain(Deep()).text().splitlines()
    assert max(map(len, lines)) < 1000
