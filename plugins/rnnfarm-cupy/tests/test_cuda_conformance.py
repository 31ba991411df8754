"""Generated CUDA against the NumPy reference, run on this CPU: every cell, odd sizes, both ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conformance_tools import CELLS, ODD, RANDOM_CELLS, as_float64, tamed, with_random_cells
from hypothesis import strategies as st
from random_cells import cell_of, plan_options, recipes
from rnnfarm_cupy.host import HostRuntime, find_compiler
from rnnfarm_cupy.kernel import CUDAKernel
from rnnfarm_example.cells import LiGRU
from thorough import THOROUGH

from rnnfarm.builtin import cells
from rnnfarm.equations.language import affine, sigmoid, tanh
from rnnfarm.equations.parts import Cell
from rnnfarm.equations.plan import make_plan
from rnnfarm.kernels.case import case_of, disagreement, variants
from rnnfarm.kernels.numpy import NumPyKernel

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")

#: The largest difference, relative to the largest element; what is rounded to 10 bits agrees to
#: some of them, what is rounded to 7 bits likewise.
TOLERANCE = {"float64": 1e-10, "full": 1e-5, "tf32": 4e-3, "bf16": 4e-2}
RUNTIME = HostRuntime()
#: Cells whose slope jumps: a rounded state may fall on the other side of the jump.
JUMPING = ("elman-relu", "indrnn", "ligru")
#: Usually half of the sizes, other ones for every second cell.
AT_SIZES = [
    (hidden, name)
    for turn, name in enumerate(CELLS)
    for place, hidden in enumerate(ODD)
    if THOROUGH or (turn + place) % 2 == 0
]


def kernel(precision: str = "full") -> CUDAKernel:
    return CUDAKernel(RUNTIME, precision)


def compare(
    cell: Cell,
    options: Any,
    inputs: int,
    hidden: int,
    windows: Any,
    dtype: str = "float32",
    precision: str = "full",
) -> None:
    """Both kernels on windows of several sizes, which one compiled program serves."""
    plan = make_plan(cell, inputs, hidden, options)
    ours = kernel(precision).build(plan, dtype)
    theirs = NumPyKernel().build(plan, "float64")
    for number, (steps, rows) in enumerate(windows):
        found = tamed(case_of(ours, (steps, rows), number, dtype))
        expected = as_float64(tamed(case_of(theirs, (steps, rows), number, dtype)))
        tolerance = TOLERANCE["float64" if dtype == "float64" else precision]
        if hidden <= 3 and isinstance(cell, cells.LSTMLayerNorm | LiGRU):
            tolerance *= 10  # to normalise two or three numbers takes away most of their digits
        with np.errstate(all="ignore"):
            problem = disagreement(found.arrays(), expected.arrays(), tolerance)
        assert problem is None, f"(T, B, I, H) = {(steps, rows, inputs, hidden)}: {problem}"


@pytest.mark.parametrize(("hidden", "name"), AT_SIZES)
def test_every_cell_at_odd_sizes(name: str, hidden: int) -> None:
    """Inputs, rows and steps go through the odd sizes in other orders than the hidden units."""
    cell, place = CELLS[name], ODD.index(hidden)
    kinds = list(variants(cell.states).values())
    options = kinds[(place + list(CELLS).index(name)) % len(kinds)]
    inputs = ODD[(place * 3 + 1) % len(ODD)]
    windows = [(ODD[(place + k) % 8], ODD[(place * 5 + 3 * k + 2) % 8]) for k in range(2)]
    compare(cell, options, inputs, hidden, windows)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("kind", ["plain", "all"])
def test_every_cell_in_float64(name: str, kind: str) -> None:
    cell = CELLS[name]
    compare(cell, variants(cell.states)[kind], 5, 17, [(3, 31), (2, 5)], "float64")


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("name", [name for name in CELLS if name not in JUMPING])
def test_every_cell_with_rounded_operands(name: str, precision: str) -> None:
    cell = CELLS[name]
    compare(cell, variants(cell.states)["all"], 33, 70, [(3, 19), (5, 70)], "float32", precision)


class Direct(Cell):
    """The input goes to one gate as it is: its gradient is a part of the gates'."""

    states = ("h",)

    def step(self, x: Any, h: Any) -> Any:
        a, b, c = affine(h, gates="abc")
        return sigmoid(a) * tanh(b + x) + c


@pytest.mark.parametrize("kind", ["plain", "all"])
def test_an_input_that_goes_to_one_gate(kind: str) -> None:
    compare(Direct(), variants(("h",))[kind], 17, 17, [(5, 3), (1, 33)])


@pytest.mark.parametrize("part", range(10))
def test_random_cells(part: int) -> None:
    """Cells with random equations: a hundred where RNNFARM_THOROUGH is set."""

    @with_random_cells(part, RANDOM_CELLS)
    def check(data: st.DataObject) -> None:
        inputs, hidden = data.draw(st.sampled_from(ODD[:6])), data.draw(st.sampled_from(ODD[:7]))
        cell = cell_of(data.draw(recipes()), inputs)
        options = data.draw(plan_options())
        compare(cell, options, inputs, hidden, [(5, 3), (2, 17)], "float64")

    check()


@pytest.mark.parametrize("precision", ["full", "tf32", "bf16"])
@pytest.mark.parametrize("name", ["lstm", "gru-reset-before", "lstm-layer-norm"])
def test_a_rows_bits_do_not_depend_on_the_other_rows(name: str, precision: str) -> None:
    """What the plugin's own kernels compute; with an x of zeros the BLAS's products are exact."""
    plan = make_plan(CELLS[name], 7, 33)
    many = case_of(kernel(precision).build(plan, "float32"), (6, 70), 0, "float32")
    many.x[...] = 0
    whole, _ = many.forward()
    for rows in (slice(3, 4), slice(20, 52)):
        few = case_of(many.kernel, (6, rows.stop - rows.start), 0, "float32")
        few.parameters = many.parameters
        few.x[...] = 0
        few.states = {n: np.ascontiguousarray(a[rows]) for n, a in many.states.items()}
        output, _ = few.forward()
        assert output.tobytes() == whole[:, rows].tobytes()


def test_a_window_gives_the_same_bits_again() -> None:
    built = kernel().build(make_plan(CELLS["lstm"], 5, 31, variants()["all"]), "float32")
    case = case_of(built, (9, 21), 0, "float32")
    first = case.results()
    assert case.results() == first
    assert case_of(built, (9, 21), 0, "float32").results() == first


@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "full") for name in CELLS), ("lstm", "tf32"), ("gru", "bf16")]
)
def test_no_bit_depends_on_the_order_of_threads(name: str, precision: str) -> None:
    """Where a barrier were missing, one order would see what another does not."""
    options = variants(CELLS[name].states)["all"]
    results = []
    for backwards in (False, True):
        made = CUDAKernel(HostRuntime(backwards), precision)
        built = made.build(make_plan(CELLS[name], 70, 130, options), "float32")
        results.append(case_of(built, (3, 37), 0, "float32").results())
    assert results[0] == results[1]


def test_steps_are_one_graph() -> None:
    """A window's steps are recorded when they come again; without products they are one launch."""
    built = kernel().build(make_plan(CELLS["lstm"], 5, 31), "float32")
    lstm, d_output = case_of(built, (9, 3), 0, "float32"), RUNTIME.put(np.ones((9, 3, 31), "f4"))
    gradients = {n: RUNTIME.put(a) for n, a in lstm.parameters.items()}
    arrays = [
        {n: RUNTIME.put(a) for n, a in lstm.parameters.items()},
        RUNTIME.put(lstm.x),
        {n: RUNTIME.put(a) for n, a in lstm.states.items()},
        {},
    ]
    outputs = []
    for graphs in (0, 2, 2):
        y = built.forward(lstm.workspace, *arrays)
        built.backward(lstm.workspace, d_output, {}, gradients)
        outputs.append((RUNTIME.get(y).tobytes(), RUNTIME.get(gradients["W.h"]).tobytes()))
        assert len(lstm.workspace._graphs) == graphs
    assert outputs[0] == outputs[1] == outputs[2]
    plan = make_plan(CELLS["indrnn"], 5, 31)
    indrnn = case_of(kernel().build(plan, "float32"), (90, 3), 0, "float32")
    before = RUNTIME.launches
    indrnn.forward()
    assert RUNTIME.launches - before == 1
