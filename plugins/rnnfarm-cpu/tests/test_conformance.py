"""The compiled kernel against the NumPy reference: every cell, odd sizes, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from random_cells import cell_of, plan_options, recipes
from rnnfarm_cpu.compiler import find_compiler
from rnnfarm_cpu.kernel import CPUKernel
from rnnfarm_example.cells import CoRNN, LiGRU

from rnnfarm.builtin import cells
from rnnfarm.equations.parts import Cell
from rnnfarm.equations.plan import make_plan
from rnnfarm.kernels.case import Case, case_of, disagreement, variants
from rnnfarm.kernels.numpy import NumPyKernel

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="there is no C compiler")

ODD = (1, 2, 3, 5, 17, 31, 33, 100)
CELLS: dict[str, Cell] = {
    "elman": cells.Elman(),
    "elman-relu": cells.Elman(activation="relu"),
    "jordan": cells.Jordan(),
    "lstm": cells.LSTM(),
    "lstm-peephole": cells.LSTMPeephole(),
    "lstm-projection": cells.LSTMProjection(projection=5),
    "lstm-layer-norm": cells.LSTMLayerNorm(),
    "gru": cells.GRU(),
    "gru-reset-before": cells.GRUResetBefore(),
    "mgu": cells.MGU(),
    "indrnn": cells.IndRNN(),
    "ligru": LiGRU(),
    "cornn": CoRNN(),
}
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}


def compare(cell: Cell, options: Any, inputs: int, hidden: int, windows: Any, dtype: str) -> None:
    """Both kernels on windows of several sizes, which one compiled program serves."""
    plan = make_plan(cell, inputs, hidden, options)
    ours, theirs = CPUKernel().build(plan, dtype), NumPyKernel().build(plan, "float64")
    for number, (steps, rows) in enumerate(windows):
        found = tamed(case_of(ours, (steps, rows), number, dtype))
        expected = tamed(case_of(theirs, (steps, rows), number, dtype))
        expected = as_float64(expected)
        found.workspace = ours.workspace(steps, rows, 1 + number % 3)
        with np.errstate(all="ignore"):
            problem = disagreement(found.arrays(), expected.arrays(), TOLERANCE[dtype])
        assert problem is None, f"(T, B, I, H) = {(steps, rows, inputs, hidden)}: {problem}"


def tamed(case: Case) -> Case:
    """Weights so small that the states do not run away over a hundred steps."""
    for name, array in case.parameters.items():
        root = np.sqrt(len(array)) if array.ndim == 2 else 2.0
        case.parameters[name] = array / array.dtype.type(root)
    return case


def as_float64(case: Case) -> Case:
    for mapping in (case.parameters, case.states, case.extras, case.d_states):
        for name, array in mapping.items():
            if array.dtype != np.bool_:
                mapping[name] = array.astype(np.float64)
    case.x, case.d_output = case.x.astype(np.float64), case.d_output.astype(np.float64)
    return case


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("hidden", ODD)
def test_every_cell_at_odd_sizes(name: str, hidden: int) -> None:
    """Inputs, rows and steps go through the odd sizes in other orders than the hidden units."""
    cell, place = CELLS[name], ODD.index(hidden)
    kinds = list(variants(cell.states).values())
    options = kinds[(place + list(CELLS).index(name)) % len(kinds)]
    inputs = ODD[(place * 3 + 1) % len(ODD)]
    windows = [(ODD[(place + k) % 8], ODD[(place * 5 + 3 * k + 2) % 8]) for k in range(4)]
    compare(cell, options, inputs, hidden, windows, "float32")


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("kind", ["plain", "all"])
def test_every_cell_in_float64(name: str, kind: str) -> None:
    cell = CELLS[name]
    compare(cell, variants(cell.states)[kind], 5, 17, [(3, 31), (33, 1), (2, 5)], "float64")


@pytest.mark.parametrize("part", range(10))
def test_random_cells(part: int) -> None:
    """Two hundred cells with random equations, twenty in each part."""

    @seed(part)
    @settings(
        max_examples=20,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # to shrink a failure would compile hundreds of programs
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def check(data: st.DataObject) -> None:
        inputs, hidden = data.draw(st.sampled_from(ODD[:6])), data.draw(st.sampled_from(ODD[:7]))
        cell = cell_of(data.draw(recipes()), inputs)
        options = data.draw(plan_options())
        compare(cell, options, inputs, hidden, [(5, 3), (2, 17)], "float64")

    check()
