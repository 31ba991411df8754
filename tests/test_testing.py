"""The conformance kit passes every built-in part, and catches parts that are wrong on purpose."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest

from rnnfarm.equations.language import (
    affine,
    exp,
    layer_norm,
    log,
    parameter,
    relu,
    row_sum,
    sigmoid,
    split,
    sqrt,
    tanh,
)
from rnnfarm.equations.parts import Cell, Loss, Optimizer
from rnnfarm.errors import CellError
from rnnfarm.kernels.numpy import NumPyKernel, NumPyWindowKernel
from rnnfarm.plugins import Registry
from rnnfarm.testing import (
    CHECKS,
    check_cell,
    check_kernel,
    check_loss,
    check_optimizer,
    check_schedule,
)
from rnnfarm.testing.cells import usual_sizes
from rnnfarm.training.schedule import Schedule

REGISTRY = Registry.load(())
NEEDED = {"lstm_projection": {"projection": 3}, "step": {"every": 10}}
BUILT_IN = {p.distribution: p.hooks for p in REGISTRY.plugins}["rnnfarm"]


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in CHECKS for name in BUILT_IN[kind]]
)
def test_every_built_in_part_passes(kind: str, name: str) -> None:
    part = REGISTRY.get(kind, name)
    CHECKS[kind](part(**NEEDED.get(name, {})))


# -- cells ----------------------------------------------------------------------------------------


class Logarithm(Cell):
    def step(self, x, h):
        return log(affine(x, h))


class Grows(Cell):
    def step(self, x, h):
        return affine(x) + 2.0 * h


class Overflows(Cell):
    """Fine for small inputs; an exponential of them is not bounded."""

    def step(self, x, h):
        return tanh(affine(h)) + exp(affine(x)) * 1e-3


class RootOfNothing(Cell):
    """sqrt has no slope at 0, where every run starts."""

    def step(self, x, h):
        return tanh(affine(x, h)) + sqrt(abs(h))


class Random(Cell):
    def step(self, x, h):
        return tanh(affine(x, h)) * np.random.default_rng().uniform(0.5, 1.0)


class Counting(Cell):
    """Remembers how often it was traced."""

    traced = itertools.count(1)

    def step(self, x, h):
        return tanh(affine(x, h) / next(self.traced))


class Deaf(Cell):
    def step(self, x, h):
        return tanh(affine(h))


class FixedWidth(Cell):
    def step(self, x, h):
        return tanh(affine(x, units=4) + affine(h, units=4))


class Halves(Cell):
    """It wants twice as many inputs as it has units."""

    def step(self, x, h):
        left, right = split(x, 2)
        return tanh(affine(x, h)) * left * right


class NoWidth(Cell):
    def step(self, x, h):
        return tanh(affine(x, h, units=17))


class NoInitialiser(Cell):
    def step(self, x, h):
        return tanh(affine(x, h, init="orthogonl"))


class Unsettled(Cell):
    """Changes its own setting as it is made."""

    gain: float = 1.0

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.gain = self.gain * 0.5

    def step(self, x, h):
        return tanh(self.gain * affine(x, h))


@pytest.mark.parametrize(
    ("cell", "error", "sentence"),
    [
        (Logarithm, AssertionError, r"not finite for ordinary numbers"),
        (Grows, AssertionError, r"with ordinary inputs its output is not finite at step 1\d\d of"),
        (Overflows, AssertionError, r"with inputs of about 100 its output is not finite"),
        (RootOfNothing, AssertionError, r"the gradient of state h is not finite after two steps"),
        (Random, AssertionError, r"draw no numbers of its own"),
        (Counting, AssertionError, r"traced twice"),
        (Deaf, AssertionError, r"depends on its input x"),
        (NoWidth, CellError, r"17 wide"),
        (NoInitialiser, CellError, r"did you mean 'orthogonal'"),
        (Unsettled, AssertionError, r"made from the settings"),
    ],
)
def test_wrong_cells(cell: type[Cell], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence) as caught:
        check_cell(cell())
    assert cell.__name__ in str(caught.value) or "parameter 'W.h'" in str(caught.value)


def test_cells_that_do_not_take_every_width_are_checked_at_one_that_they_take() -> None:
    check_cell(FixedWidth())
    check_cell(Halves())
    assert usual_sizes(Halves()) == (5, 3, 2, 4)


def test_a_wrong_derivative_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient check itself sees a derivative that is off by a thousandth of a percent."""
    backward = NumPyWindowKernel.backward

    def off(self: Any, *arguments: Any, **options: Any) -> Any:
        d_x, d_states = backward(self, *arguments, **options)
        return d_x * 1.00001, d_states

    monkeypatch.setattr(NumPyWindowKernel, "backward", off)
    with pytest.raises(AssertionError, match="the gradient of x differs from central differences"):
        check_cell(REGISTRY.get("cells", "gru")())


def test_kinks_are_no_mistakes() -> None:
    class Kinked(Cell):
        def step(self, x, h):
            return relu(affine(x, h)) * sigmoid(layer_norm(h)) * parameter("gain", init="ones")

    check_cell(Kinked())


# -- losses ---------------------------------------------------------------------------------------


class Hand(Loss):
    """½‖output - target‖², written by hand, and wrong in the way that ``mistake`` names."""

    mistake: ClassVar[str] = ""
    _last: ClassVar[list[int]] = []

    def evaluate(self, output, target, valid, d_output):
        error = np.where(valid[..., None], output - target, 0)
        total = 0.5 * float(np.square(error).sum())
        if self.mistake == "neighbours":
            error, total = 2 * total * error, total**2
        if self.mistake == "threads":
            me = threading.get_ident()
            self._last[:] = [me]
            time.sleep(0.002)
            total += self._last != [me]
        if self.mistake == "two sums" and d_output is None:
            total += 1
        if d_output is not None:
            d_output[...] = error
            if self.mistake == "gradient":
                d_output *= 1.001
            if self.mistake == "padding":
                d_output[~valid] = 1.0
        return total, valid.size if self.mistake == "count" else int(valid.sum())


class NaiveSigmoid(Loss):
    def step(self, output, target):
        p = sigmoid(output)
        return -target * log(p) - (1 - target) * log(1 - p)


class NaiveSoftmax(Loss):
    def step(self, output, target):
        return log(row_sum(exp(output))) - row_sum(target * output)


def test_a_loss_by_hand() -> None:
    check_loss(Hand())


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        ("gradient", "differs from central differences"),
        ("padding", "not valid get a gradient"),
        ("count", "it counts 24 steps"),
        ("two sums", "another sum where no gradient"),
        ("threads", "disturb each other"),
        ("neighbours", "is not the sum of what its rows give"),
    ],
)
def test_wrong_losses(mistake: str, sentence: str) -> None:
    wrong = type("Wrong", (Hand,), {"mistake": mistake, "__module__": __name__})
    with pytest.raises(AssertionError, match=sentence):
        check_loss(wrong())


@pytest.mark.parametrize("loss", [NaiveSigmoid, NaiveSoftmax])
def test_losses_that_overflow(loss: type[Loss]) -> None:
    with pytest.raises(AssertionError, match="for outputs of ±100 it is not finite in float32"):
        check_loss(loss())
    check_loss(loss(), largest=5.0)


# -- optimizers -----------------------------------------------------------------------------------


class Uphill(Optimizer):
    def step(self, param, grad, *, lr, t):
        return param + lr * grad


class Stubborn(Optimizer):
    def step(self, param, grad, *, lr, t):
        return param - 0.01 * grad


class NoEpsilon(Optimizer):
    states = ("squares",)

    def step(self, param, grad, s, *, lr, t):
        s = 0.9 * s + 0.1 * grad * grad
        return param - lr * grad / sqrt(s), s


class Lazy(Optimizer):
    def step(self, param, grad, *, lr, t):
        return param - 1e-4 * lr * grad


@pytest.mark.parametrize(
    ("optimizer", "sentence"),
    [
        (Uphill, "is the sign right"),
        (Stubborn, "although lr is 0"),
        (NoEpsilon, "gradients of 0 make it give numbers that are not finite"),
        (Lazy, "down a bowl it leaves"),
    ],
)
def test_wrong_optimizers(optimizer: type[Optimizer], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_optimizer(optimizer())


# -- schedules ------------------------------------------------------------------------------------


class Forgets(Schedule):
    """Its state is not kept in checkpoints."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.seen = 0

    def observe(self, valid_loss: float) -> None:
        self.seen += 1

    def factor(self, step: int, steps: int) -> float:
        return 0.9**self.seen


class Below(Schedule):
    def factor(self, step: int, steps: int) -> float:
        return 1.0 - 2 * step / steps


def test_wrong_schedules() -> None:
    with pytest.raises(AssertionError, match=r"restored from its state\(\) after step 1"):
        check_schedule(Forgets())
    with pytest.raises(AssertionError, match=r"factor at step 52 of 100 is -0.02"):
        check_schedule(Below())


# -- kernels --------------------------------------------------------------------------------------


class WrongWindow(NumPyWindowKernel):
    mistake = ""

    def forward(self, workspace, parameters, x, states, extras):
        if self.mistake == "masks" and "mask?" in extras:
            extras = extras | {"mask?": np.ones_like(extras["mask?"])}
        if self.mistake == "resets" and "reset?" in extras:
            extras = extras | {"reset?": np.zeros_like(extras["reset?"])}
        y = super().forward(workspace, parameters, x, states, extras)
        if self.mistake == "rows of five" and x.shape[1] == 5:
            y[:, 4] += 1e-3
        return y

    def backward(self, workspace, d_output, d_states, gradients, need_d_x=True, record=None):
        before = {name: array.copy() for name, array in gradients.items()}
        result = super().backward(workspace, d_output, d_states, gradients, need_d_x, record)
        if self.mistake == "adds up":
            for name, array in gradients.items():
                array += before[name]
        if self.mistake == "record" and record is not None:
            record[0] = 0.0
        if self.mistake == "state":
            return result[0], {name: 0.5 * array for name, array in result[1].items()}
        if self.mistake == "restless":
            result[0][...] += np.random.default_rng().uniform(0, 1e-12)
        return result


class WrongKernel(NumPyKernel):
    def __init__(self, mistake: str) -> None:
        self.mistake = mistake

    def refusal(self, plan, device, dtype):
        return "none of them" if self.mistake == "refuses" else None

    def build(self, plan, dtype):
        built = WrongWindow(plan, dtype)
        built.mistake = self.mistake
        return built


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        ("masks", "its output differs"),
        ("resets", "its output differs"),
        ("rows of five", r"at \(T, B, I, H\) = \(7, 5, 1, 3\): its output differs"),
        ("adds up", "its gradient of parameter .* differs"),
        ("record", "its gradient of each output differs"),
        ("state", "its gradient of state h differs"),
        ("restless", "other bits the second time"),
        ("refuses", "refused every plan"),
    ],
)
def test_wrong_kernels(mistake: str, sentence: str) -> None:
    cells = [REGISTRY.get("cells", "lstm")()]
    check_kernel(WrongKernel(""), cells)
    with pytest.raises(AssertionError, match=sentence):
        check_kernel(WrongKernel(mistake), cells, dtypes=["float64"])


@pytest.mark.parametrize("check", [check_cell, check_loss, check_optimizer, check_schedule])
def test_a_class_in_the_place_of_a_part_is_named(check: Callable[[Any], None]) -> None:
    with pytest.raises(AssertionError, match=r"Logarithm.*make one, such as"):
        check(Logarithm)
