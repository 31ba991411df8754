"""What docs/language.md says: its code runs, and it names every function of the language."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnfarm
from rnnfarm import Cell, Loss, Optimizer
from rnnfarm.builtin.losses import CrossEntropy, MeanSquaredError
from rnnfarm.builtin.optimizers import Adam
from rnnfarm.equations import language
from rnnfarm.testing import check_cell, check_loss, check_optimizer

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "language.md").read_text()


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the page's code defines."""
    found: dict[str, Any] = {"__name__": __name__}
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.S):
        exec(compile(block, "docs/language.md", "exec", dont_inherit=True), found)
    return found


def test_the_parts_pass_their_checks(names: dict[str, Any]) -> None:
    check_cell(names["Peephole"]())
    check_cell(names["Halves"]())
    check_loss(names["Margin"]())
    check_optimizer(names["Signum"]())


def test_the_arrays_are_what_they_are_said_to_be(names: dict[str, Any]) -> None:
    assert names["y"].shape == (5, 2, 4)
    assert names["mean"] == pytest.approx(np.log(1.0 + 6 * np.e))
    assert names["gradient"].shape == (5, 2, 7)
    np.testing.assert_allclose(names["param"], [0.9, -2.1])


def test_every_function_is_there_and_the_page_is_linked() -> None:
    functions = rnnfarm._HOME["rnnfarm.equations.language"].split()
    assert not [name for name in functions if not re.search(rf"\b{name}\b", TEXT)]
    for kind in (Cell, Loss, Optimizer):
        assert kind.__name__ in TEXT
    assert "docs/language.md" in str(rnnfarm.__doc__)
    assert "docs/language.md" in str(language.__doc__)
    assert "[docs/language.md](docs/language.md)" in (ROOT / "README.md").read_text()


def test_a_loss_on_arrays() -> None:
    rng = np.random.default_rng(0)
    output, target = rng.standard_normal((4, 3, 5)), rng.standard_normal((4, 3, 5))
    valid = rng.random((4, 3)) < 0.6
    mean, gradient = rnnfarm.evaluate_loss(MeanSquaredError(), output, target, valid)
    error = (output - target) * valid[..., None]
    assert mean == pytest.approx(0.5 * (error**2).sum() / valid.sum())
    np.testing.assert_allclose(gradient, error / valid.sum())
    classes = rng.integers(0, 5, (4, 3))
    mean, gradient = rnnfarm.evaluate_loss(CrossEntropy(), output, classes)
    shares = np.exp(output) / np.exp(output).sum(-1, keepdims=True)
    np.testing.assert_allclose(gradient, (shares - np.eye(5)[classes]) / 12)


def test_an_optimizer_on_arrays() -> None:
    param, states = np.ones((2, 3)), None
    for t in (1, 2):
        param, states = rnnfarm.apply_optimizer(Adam(), param, np.full((2, 3), 2.0), states, t=t)
    np.testing.assert_allclose(param, 1.0 - 2e-3, rtol=1e-6)
    assert set(states) == set(Adam.states)
    assert all(array.shape == (2, 3) for array in states.values())
