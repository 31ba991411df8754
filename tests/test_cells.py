"""A mistake in a cell is one sentence with the cell, the file, the line and the mend."""

from __future__ import annotations

import inspect
import math
import re

import numpy as np
import pytest

from rnnfarm import Recurrent
from rnnfarm.builtin import cells
from rnnfarm.equations.graph import Symbol
from rnnfarm.equations.language import (
    affine,
    layer_norm,
    parameter,
    pick,
    row_sum,
    sigmoid,
    sign,
    split,
    tanh,
    unit_index,
    where,
)
from rnnfarm.equations.parts import Cell, trace_cell
from rnnfarm.equations.plan import make_plan
from rnnfarm.errors import CellError

OTHER_TRACE = []


def keep(symbol):
    OTHER_TRACE.append(symbol)
    return symbol


def if_on_a_symbol(x, h):
    if h > 0:
        return h
    return tanh(affine(x, h))


#: The equations of a cell with one state, and what the message says. Each body is one line, which
#: the message has to quote.
MISTAKES = {
    "and": (lambda x, h: where((h > 0) and (h < 1), h, 0.0), "Python 'if'.*write where"),
    "or": (lambda x, h: where((h > 0) or (h < 1), h, 0.0), "Python 'if'.*write where"),
    "not": (lambda x, h: where(not (h > 0), h, 0.0), "Python 'if'.*write where"),
    "chained comparison": (lambda x, h: where(0 < h < 1, h, 0.0), "Python 'if'.*write where"),
    "conditional": (lambda x, h: h if h > 0 else -h, "Python 'if'.*write where"),
    "min": (lambda x, h: min(h, 2 * h), "write where.*minimum or maximum"),
    "widths": (lambda x, h: x + h, r"widths.*'x' \(3 wide\) and 'h' \(4 wide\).*affine\("),
    "numpy function": (lambda x, h: np.sin(h), "numpy.sin on a symbol.*rnnfarm's tanh"),
    "numpy array function": (lambda x, h: np.concatenate([h, h]), "numpy.concatenate on a symbol"),
    "numpy number": (lambda x, h: np.float32(2) * h, "numpy.multiply.*use plain numbers"),
    "numpy array": (lambda x, h: h * np.ones(4), "ndarray.*only symbols and plain numbers"),
    "math function": (lambda x, h: math.sin(h), "where Python wants a number.*rnnfarm's tanh"),
    "attribute": (lambda x, h: h.foo, r"'\.foo' on a symbol.*only arithmetic"),
    "method": (lambda x, h: h.sum(), r"'\.sum' on a symbol.*row_sum"),
    "index": (lambda x, h: h[0], r"indexed with \[…\].*gates="),
    "slice": (lambda x, h: h[:2], r"indexed with \[…\].*gates="),
    "loop": (lambda x, h: sum(v for v in h), "looped over.*gates="),
    "unpacking": (lambda x, h: next(a for a, b in [h]), "unpacked or looped over.*gates="),
    "matmul": (lambda x, h: h @ h, "'@' on a symbol.*affine"),
    "modulo": (lambda x, h: h % 2, "unsupported operand.*%"),
    "equals a number": (lambda x, h: where(h == 0, h, 0.0), r"'=='.*write equal\(a, b\)"),
    "equals a symbol": (lambda x, h: where(h == 2 * h, h, 0.0), r"'=='.*write equal\(a, b\)"),
    "differs": (lambda x, h: where(h != 2 * h, h, 0.0), r"'!='.*write equal\(a, b\)"),
    "text": (lambda x, h: h + "a", "'a' of type str.*plain numbers"),
    "none": (lambda x, h: h + None, "NoneType.*plain numbers"),
    "power": (lambda x, h: h**2.5, r"2\.5.*exp\(p \* log\(v\)\)"),
    "power of a symbol": (lambda x, h: h**h, r"exponent.*exp\(b \* log\(a\)\)"),
    "base": (lambda x, h: (-2) ** h, "base must be a number above 0"),
    "condition": (lambda x, h: where(h, h, 0.0), "wants a comparison first"),
    "comparison as a number": (lambda x, h: (h > 0) + h, "comparison is used as a number"),
    "function of a number": (lambda x, h: h * tanh(2.0), "2.0 is no symbol"),
    "layer_norm of a number": (lambda x, h: h * layer_norm(2.0), "2.0 is no symbol"),
    "unknown name": (lambda x, h: tnh(h), "NameError.*tnh"),  # noqa: F821
    "Python's own error": (lambda x, h: h * (1 / 0), "ZeroDivisionError"),
    "gate names": (lambda x, h: affine(x, gates="ii")[0], "gate names must differ"),
    "no gates": (lambda x, h: affine(x, gates="")[0], "there must be one"),
    "too few gates": (lambda x, h: (lambda a, b: a)(*affine(x, gates="abc")), "positional arg"),
    "no vectors": (lambda x, h: h + affine(), r"without vectors.*parameter\(name\)"),
    "affine of a number": (lambda x, h: affine(3.0), "takes symbols that are numbers"),
    "affine of a comparison": (lambda x, h: affine(h > 0), "takes symbols that are numbers"),
    "affine of a parameter": (lambda x, h: affine(parameter("p")), "depends on no input"),
    "affine twice": (lambda x, h: affine(h, h), "'W.h' is declared twice.*variable"),
    "units": (lambda x, h: affine(x, units=0), "units must be a whole number above 0"),
    "bias for no gate": (lambda x, h: affine(x, gates="ab", bias={"z": 1})[0], "'z'.*none of its"),
    "bias": (lambda x, h: affine(x, bias=[1]), "a number or an initialiser"),
    "init for no vector": (lambda x, h: affine(x, init={"q": "zeros"}), "'q'.*none of its vectors"),
    "weights' names": (lambda x, h: affine(x, name="A") + affine(x, name="A"), "'A.x'.*twice"),
    "parameters' names": (lambda x, h: parameter("u") * parameter("u"), "'u'.*twice.*own name"),
    "parameters' shapes": (lambda x, h: h * parameter("u", 1) + parameter("u"), "'u'.*twice"),
    "parameter's name": (lambda x, h: h * parameter('"'), "use letters, digits"),
    "parameter's units": (lambda x, h: h * parameter("u", units=-1), "units must be"),
    "another cell's symbol": (lambda x, h: h + OTHER_TRACE[0], "another cell"),
    "another cell's affine": (lambda x, h: affine(x, OTHER_TRACE[0]), "another cell"),
    "affine of a list": (lambda x, h: affine([x, h]), "takes symbols that are numbers"),
    "gates by number": (lambda x, h: affine(x, gates=3)[0], "gates=3.*write a name for each"),
    "init as a number": (lambda x, h: affine(h, init=0.1), "init=0.1.*'W.h'.*is a text"),
    "parameter's init": (lambda x, h: h * parameter("u", init=0.5), "init=0.5.*'u'.*is a text"),
    "number as a name": (lambda x, h: h * parameter(3), "name 3: use letters"),
    "reduction of a comparison": (lambda x, h: h * row_sum(h > 0), "symbols that are numbers"),
    "split of a comparison": (lambda x, h: split(h > 0, 2)[0], "symbols that are numbers"),
    "split of a number": (lambda x, h: split(3, 2)[0], "3 is no symbol"),
    "split in none": (lambda x, h: split(h, 0)[0], "whole number above 0"),
    "sign of a number": (lambda x, h: h * sign(1.0), "1.0 is no symbol"),
    "pick of a number": (lambda x, h: h * pick(1.0, 0), "1.0 is no symbol"),
    "unit_index": (lambda x, h: h * unit_index(4.0), r"unit_index\(4.0\): write a width"),
    "function of gates": (lambda x, h: tanh(affine(x, gates="ab")), "take them one by one"),
    "logic": (lambda x, h: where((h > 0) & (h < 1), h, 0.0), "one where for each condition"),
    "negation": (lambda x, h: where(~(h > 0), h, 0.0), "one where for each condition"),
    "assignment": (lambda x, h: h.__setitem__(0, 1.0), "assigned to with.*write where"),
    "negative power": (lambda x, h: h**-1, r"1 / v \*\* p"),
}
#: What ``step`` gives back; the message names where it is defined.
RESULTS = {
    "a number": (lambda x, h: 3.0, r"'h' is 3\.0, which is no symbol; compute it"),
    "nothing": (lambda x, h: None, "'h' is None, which is no symbol; compute it"),
    "a comparison": (lambda x, h: h > 0, r"comparison; write where\(condition"),
    "too many": (lambda x, h: (h, h), r"returns 2 values for the states \['h'\]; return one"),
    "another width": (lambda x, h: affine(x, units=2), r"2 wide and the state is 4.*widths\(\)"),
    "another trace": (lambda x, h: OTHER_TRACE[0], "another trace; compute it from"),
    "no argument": (lambda x: x, r"cannot be called.*write def step\(self, x, h\)"),
}


def mine(equations, states=("h",), widths=None) -> Cell:
    """A cell called Mine."""
    body = {"states": states, "step": staticmethod(equations)}
    if widths is not None:
        body["widths"] = lambda self, hidden: widths
    return type("Mine", (Cell,), body)()


def refusal(cell: Cell) -> str:
    with pytest.raises(CellError) as caught:
        trace_cell(cell, 3, 4)
    assert caught.value.exit_code == 3
    return str(caught.value)


@pytest.fixture(autouse=True)
def _another_trace():
    OTHER_TRACE.clear()
    trace_cell(mine(lambda x, h: keep(tanh(h))), 3, 4)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_names_the_cell_the_line_and_the_mend(mistake: str) -> None:
    equations, pattern = MISTAKES[mistake]
    message = refusal(mine(equations))
    line = equations.__code__.co_firstlineno
    assert message.startswith("Mine: ")
    assert re.search(pattern, message), message
    assert f"({__file__}, line {line}: " in message
    assert inspect.getsource(equations).strip() in message
    assert "\n" not in message


@pytest.mark.parametrize("result", RESULTS)
def test_a_wrong_result_names_where_step_is(result: str) -> None:
    equations, pattern = RESULTS[result]
    message = refusal(mine(equations))
    assert message.startswith("Mine: ")
    assert re.search(pattern, message), message
    assert message.endswith(f"({__file__}, line {equations.__code__.co_firstlineno})")


def test_the_line_is_that_of_the_mistake_not_of_step() -> None:
    message = refusal(mine(if_on_a_symbol))
    line = if_on_a_symbol.__code__.co_firstlineno + 1
    assert f"({__file__}, line {line}: if h > 0:)" in message


def test_a_state_returned_twice_is_refused() -> None:
    message = refusal(mine(lambda x, h, c: (h, h), states=("h", "c")))
    assert "'h' and 'c' are returned as one and the same symbol; drop one" in message


@pytest.mark.parametrize(
    ("states", "pattern"),
    [
        ("h", r"write a tuple of names, such as states = \('h',\)"),
        ((), "write a tuple of names"),
        (("h", "h"), "must differ from each other"),
        (("s", "ſ"), "must differ from each other"),
        (("x",), "from 'x'"),
        (("h:1",), "'h:1' is no Python name"),
    ],
)
def test_states_misnamed(states, pattern: str) -> None:
    assert re.search(pattern, refusal(mine(lambda x, *states: x, states=states)))


@pytest.mark.parametrize("widths", [{"q": 1}, {"h": 0}, {"h": 2.5}])
def test_wrong_widths_are_refused(widths: dict) -> None:
    assert re.match(r"Mine\.widths (names|gives)", refusal(mine(lambda x, h: h, widths=widths)))


def not_a_mapping(self, hidden):
    return None


def divided_by_zero(self, hidden):
    return {"h": hidden // 0}


@pytest.mark.parametrize("widths", [not_a_mapping, divided_by_zero, {"h": 3}])
def test_widths_that_fail_are_refused(widths) -> None:
    cell = type("Mine", (Cell,), {"widths": widths, "step": lambda self, x, h: h})()
    message = refusal(cell)
    assert message.startswith("Mine.widths must be a method that gives a mapping, such as {'h': 8}")
    if widths is divided_by_zero:
        assert f'({__file__}, line {widths.__code__.co_firstlineno + 1}: return {{"h"' in message


def test_whole_powers_and_biases_are_what_they_are() -> None:
    trace = trace_cell(mine(lambda x, h: affine(h, bias=1234567.25) ** 2.0), 3, 4)
    assert trace.new_states["h"].op == "mul"
    assert trace.graph.parameters["W.bias"].init == ("constant:1234567.25",)


def test_a_cell_without_step_says_what_to_write() -> None:
    class Empty(Cell):
        states = ("h", "c")

    assert refusal(Empty()) == "Empty: it has no equations; write def step(self, x, h, c)"


def test_equations_outside_step_are_refused() -> None:
    for call in (lambda: affine(), lambda: parameter("u")):
        with pytest.raises(CellError, match="outside step"):
            call()


def test_a_python_if_on_a_setting_is_no_mistake() -> None:
    class Chooser(Cell):
        gated: bool = False

        def step(self, x, h):
            v = tanh(affine(x, h))
            return v * sigmoid(h) if self.gated else v

    plain = trace_cell(Chooser(), 3, 4).new_states["h"]
    assert plain.op == "tanh"
    assert trace_cell(Chooser(gated=True), 3, 4).new_states["h"].op == "mul"


def test_where_of_equal_numbers_is_as_wide_as_its_condition() -> None:
    trace = trace_cell(mine(lambda x, h: where(h > 0, 1.0, 1.0)), 3, 4)
    assert trace.new_states["h"].width == 4


@pytest.mark.parametrize(
    ("cell", "stages"),
    [
        (cells.Elman(), 1),
        (cells.Jordan(), 2),
        (cells.LSTM(), 1),
        (cells.LSTMPeephole(), 1),
        (cells.LSTMProjection(projection=3), 2),
        (cells.LSTMLayerNorm(), 1),
        (cells.GRU(), 1),
        (cells.GRUResetBefore(), 2),
        (cells.MGU(), 2),
        (cells.MGUGateAfter(), 1),
        (cells.IndRNN(), 0),
    ],
)
def test_plans_have_the_stages_that_they_need(cell: Cell, stages: int) -> None:
    plan = make_plan(cell, 3, 4)
    assert plan.recurrent_stages == stages
    # All that depends on the input alone is outside the loop.
    in_loop = [s for stage in plan.stages for s in stage.products]
    assert sum(s.op == "matmul" for s in plan.prologue) == 1
    assert all(s.args[0] is not plan.inputs["x"] for s in in_loop)


def test_equations_may_be_deep_and_use_values_again_and_again() -> None:
    """What is looked for must be looked at once: here there are 2 ** 1500 ways to the input."""

    def deep(x, h):
        v = affine(x, h)
        for _ in range(1500):
            v = where(v > 0, v * 0.5, h + v) + v
        return tanh(v)

    assert len(make_plan(mine(deep), 3, 4).saved) == 1500  # the conditions


def test_the_reach_is_a_bound_of_the_parameter_and_no_clamp_in_the_equations() -> None:
    bounded, free = (Recurrent(cells.IndRNN(reach=reach), 2, 4, "float64") for reach in (3, None))
    assert bounded.plan.parameters["u"].bound == (-(2 ** (1 / 3)), 2 ** (1 / 3))
    assert free.plan.parameters["u"].bound is None
    parameters = bounded.init(seed=0)
    parameters["u"][:] = [-2.0, -0.5, 1.1, 3.0]
    x = np.random.default_rng(0).standard_normal((6, 3, 2))
    output, _, saved = bounded.forward(parameters, x)
    np.testing.assert_array_equal(output, free.forward(parameters, x)[0])
    gradient = bounded.backward(saved, np.ones_like(output))[1]["u"]
    assert gradient[3] != 0  # beyond the bound: an update brings it back, no weight freezes


def test_initial_values_lie_within_the_bound() -> None:
    class Bounded(Cell):
        def step(self, x: Symbol, h: Symbol) -> Symbol:
            u = parameter("u", init="normal:5", bound=0.5)
            v = parameter("v", init="constant:3", bound=(-1, 2))
            return tanh(affine(x) + u * h + v)

    start = Recurrent(Bounded(), 2, 400, "float64").init(0)
    assert np.abs(start["u"]).max() == 0.5
    assert (start["v"] == 2).all()


@pytest.mark.parametrize("bound", [0, -1.0, math.nan, math.inf, (1.0, 1.0), (1,), "1", (None, 1)])
def test_what_is_no_bound(bound: object) -> None:
    class Wrong(Cell):
        def step(self, x: Symbol, h: Symbol) -> Symbol:
            return tanh(affine(x) + parameter("u", bound=bound) * h)  # type: ignore[arg-type]

    with pytest.raises(CellError, match=r"Wrong: parameter\('u', bound=.*number above 0, or"):
        trace_cell(Wrong(), 2, 3)
