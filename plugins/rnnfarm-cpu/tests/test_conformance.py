"""The compiled kernel against the NumPy reference: every cell, odd sizes, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conformance_tools import CELLS, ODD, RANDOM_CELLS, as_float64, tamed, with_random_cells
from hypothesis import strategies as st
from random_cells import cell_of, plan_options, recipes
from rnnfarm_cpu.compiler import find_compiler
from rnnfarm_cpu.kernel import CPUKernel

from rnnfarm.equations.parts import Cell
from rnnfarm.equations.plan import make_plan
from rnnfarm.kernels.case import case_of, disagreement, variants
from rnnfarm.kernels.numpy import NumPyKernel

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="there is no C compiler")

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
    """Cells with random equations: two hundred where RNNFARM_THOROUGH is set."""

    @with_random_cells(part, 2 * RANDOM_CELLS)
    def check(data: st.DataObject) -> None:
        inputs, hidden = data.draw(st.sampled_from(ODD[:6])), data.draw(st.sampled_from(ODD[:7]))
        cell = cell_of(data.draw(recipes()), inputs)
        options = data.draw(plan_options())
        compare(cell, options, inputs, hidden, [(5, 3), (2, 17)], "float64")

    check()
