"""Choosing kernels: what the self-check draws and compares, and which kernel is named."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from rnnfarm import Cell, Loss, affine, log, maximum, minimum, parameter, tanh, where
from rnnfarm.builtin.cells import LSTM
from rnnfarm.builtin.losses import MeanSquaredError
from rnnfarm.equations.plan import make_plan
from rnnfarm.kernels.case import case_of, disagreement, make_case
from rnnfarm.kernels.choose import KernelChoice, self_check
from rnnfarm.kernels.numpy import NumPyKernel
from rnnfarm.nn.loss import LossFunction
from rnnfarm.testing import check_cell
from rnnfarm.training.result import kernels_text


class Sensible(Cell):
    """Finite only where two of its parameters are about what they start with."""

    def step(self, x: Any, h: Any) -> Any:
        gain = log(parameter("gain", init="constant:2"))
        slope = 1.0 / parameter("slope", init="constant:-0.1", bound=(-1.0, -0.08))
        return tanh(gain * affine(x, h) + 0.1 * slope * h)


class Lopsided(Cell):
    """Not a number where its input is negative."""

    def step(self, x: Any, h: Any) -> Any:
        return tanh(affine(x, h)) + log(x)


class Infinite(Cell):
    """Infinite and NaN constants, in numbers, conditions, and what is the same at each step."""

    def step(self, x: Any, h: Any) -> Any:
        v = maximum(affine(x, h), -math.inf) + minimum(parameter("p"), math.inf)
        return where(v < math.inf, tanh(v), math.nan)


def test_a_cell_is_tried_near_what_it_starts_with() -> None:
    case = make_case(Sensible(), sizes=(5, 3, 3, 40))
    assert all(np.isfinite(array).all() for array in case.arrays().values())
    assert 0.9 < case.parameters["gain"].min() < case.parameters["gain"].max() < 3.1
    assert len(set(case.parameters["gain"])) == 40
    assert case.parameters["slope"].max() <= -0.08
    assert np.abs(case.parameters["W.bias"]).min() > 0.0  # what starts at 0 is tried elsewhere
    check_cell(Sensible())


def test_numbers_are_compared_where_there_are_any() -> None:
    plan = make_plan(Lopsided(), 4, 4)
    reference = NumPyKernel().build(plan, "float32")
    with np.errstate(all="ignore"):
        assert self_check(NumPyKernel().build(plan, "float32"), plan, "float32") is None
        expected = case_of(reference, dtype="float32").arrays()
    assert any(np.isnan(array).any() for array in expected.values())
    known = {"y": np.array([1.0, np.nan, np.inf])}
    assert disagreement({"y": np.array([1.0, 5.0, np.nan])}, known, 1e-6) is None
    wrong = disagreement({"y": np.array([np.nan, 5.0, np.nan])}, known, 1e-6)
    assert wrong == "its y differs from the reference: it is not finite where that is"
    assert "differs from the reference by" in str(
        disagreement({"y": np.array([1.1, np.nan, np.inf])}, known, 1e-6)
    )


def test_infinite_constants_in_cells() -> None:
    check_cell(Infinite())


def test_conditions_of_constants_are_settled_beforehand() -> None:
    class Settled(Loss):
        def step(self, output: Any, target: Any) -> Any:
            two = output.graph.constant(2.0)
            return where(two > 1.0, where(two <= 1.0, math.nan, output), 0.0) * output

    function = LossFunction(Settled(), 3, 3, "float64")
    assert "where" not in function._gradient.source
    output = np.arange(6.0).reshape(1, 2, 3)
    assert function(output, output, np.ones((1, 2), np.bool_)).total == (output**2).sum()


@pytest.mark.parametrize(
    ("kernels", "text"),
    [
        ({"layer1": "cpu", "layer2": "cpu", "loss": "cpu", "optimizer": "cpu"}, "cpu"),
        ({"layer1": "cpu", "optimizer": "cpu"}, "cpu"),
        ({"loss": "numpy", "optimizer": "numpy"}, "numpy"),
        (
            {"layer1": "cpu", "layer2": "numpy", "loss": "cpu", "optimizer": "numpy"},
            "layers: cpu/numpy, loss: cpu, optimizer: numpy",
        ),
        (
            {"decoder.layer1": "cpu", "loss": "cpu", "optimizer": "numpy"},
            "layers: cpu, loss: cpu, optimizer: numpy",
        ),
    ],
)
def test_the_summary_names_the_kernels_that_differ(kernels: dict[str, str], text: str) -> None:
    assert kernels_text(kernels) == text


def test_rows_name_their_kernel() -> None:
    choice = KernelChoice({"numpy": NumPyKernel()})
    assert choice.build(make_plan(LSTM(), 3, 4))[0] == "numpy"
    function = LossFunction(MeanSquaredError(), 3, 3, "float32", choice)
    assert function.kernel_name == "numpy"
