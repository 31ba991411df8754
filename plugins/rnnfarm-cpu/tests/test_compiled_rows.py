"""Losses and optimizers, compiled, against the NumPy reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from rnnfarm_cpu import rows as compiled_rows
from rnnfarm_cpu.compiler import find_compiler
from rnnfarm_cpu.kernel import CPUKernel
from rnnfarm_cpu.rows import CPURows

from rnnfarm import Loss, Optimizer, equal, maximum, minimum, where
from rnnfarm.equations.graph import Graph
from rnnfarm.kernels.choose import KernelChoice
from rnnfarm.kernels.numpy import NumPyKernel
from rnnfarm.nn.arena import Segment
from rnnfarm.nn.loss import LossFunction
from rnnfarm.plugins import Registry
from rnnfarm.training.optimizer import OptimizerPass

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="there is no C compiler")
REGISTRY = Registry.load()
SEGMENTS = [
    *((0, 1000, True), (1000, 1037, False), (1037, 2000, True)),
    Segment(2000, 2300, False, (-0.5, 0.25)),
]
TOLERANCE = {"float32": 1e-5, "float64": 1e-13}


def choice(dtype: str) -> KernelChoice:
    return KernelChoice({"cpu": CPUKernel(), "numpy": NumPyKernel()}, dtype=dtype)


@pytest.mark.parametrize("name", REGISTRY.names("optimizers"))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_optimizers(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five steps, with decay and on threads, whose number changes no bit."""
    monkeypatch.setattr(compiled_rows, "WORTH", 100)
    kind = REGISTRY.get("optimizers", name)
    results = []
    for made, threads in ((choice(dtype), 1), (choice(dtype), 3), (None, 1)):
        update = OptimizerPass(
            kind(weight_decay=0.01), SEGMENTS, dtype, choice=made, threads=threads
        )
        if made is not None:
            assert all(isinstance(program, CPURows) for program, _ in update._parts)
        rng = np.random.default_rng(0)
        params = rng.standard_normal(2300).astype(dtype)
        states = update.states(2300)
        for t in range(1, 6):
            grads = rng.standard_normal(2300).astype(dtype)
            update.apply(params, grads, states, 0.01 * t, t)
        results.append({"param": params, **states})
    alone, shared, reference = results
    assert (alone["param"][2000:].min(), alone["param"][2000:].max()) == (-0.5, 0.25)
    for key, array in reference.items():
        assert alone[key].tobytes() == shared[key].tobytes()
        np.testing.assert_allclose(alone[key], array, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("name", REGISTRY.names("losses"))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", [1, 2, 10, 33, 100])
def test_losses(name: str, dtype: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_rows, "WORTH", 50)
    loss = REGISTRY.get("losses", name)()
    if loss.evaluate is not None:
        pytest.skip("it is written by hand")
    rng = np.random.default_rng(0)
    outputs = loss.outputs(width)
    output = (rng.standard_normal((7, 5, outputs)) * 3).astype(dtype)
    valid = rng.random((7, 5)) > 0.2
    target: Any = rng.random((7, 5, width)).astype(dtype)
    if loss.target_kind == "classes":
        target = rng.integers(0, width, (7, 5))
    results = []
    for made, threads in ((choice(dtype), 1), (choice(dtype), 3), (None, 1)):
        function = LossFunction(loss, outputs, width, dtype, made)
        d_output = np.full_like(output, np.nan)
        measured = function(output, target, valid, d_output, threads)
        only = function(output, target, valid)
        assert only.total == pytest.approx(measured.total, rel=1e-6)
        results.append((measured.total, measured.count, d_output))
    assert results[0][0] == results[1][0]
    assert results[0][2].tobytes() == results[1][2].tobytes()
    assert results[0][1] == results[2][1]
    assert results[0][0] == pytest.approx(results[2][0], rel=TOLERANCE[dtype])
    scale = TOLERANCE[dtype]
    np.testing.assert_allclose(results[0][2], results[2][2], rtol=scale, atol=scale)


def test_cross_entropy_of_large_logits() -> None:
    """Infinite and very large logits, as the reference has them; no row disturbs another."""
    loss = REGISTRY.get("losses", "cross_entropy")()
    output = np.array([[[1e4, -1e4, 0.0]], [[-np.inf, 0.0, 1.0]], [[np.nan, 0.0, 1.0]]], np.float32)
    target, valid = np.array([[0], [1], [2]]), np.ones((3, 1), np.bool_)
    found = []
    for made in (choice("float32"), None):
        d_output = np.empty_like(output)
        with np.errstate(all="ignore"):
            LossFunction(loss, 3, 3, "float32", made)(output, target, valid, d_output)
        found.append(d_output)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


class Warmed(Optimizer):
    """Conditions of numbers alone, and beside those of elements."""

    states = ("m",)

    def step(self, param: Any, grad: Any, m: Any, *, lr: Any, t: Any) -> Any:
        m = where(equal(t, 1), grad, 0.9 * m + 0.1 * grad)
        moved = where(t > 2, param - lr * m, where(lr <= 0.02, param, param + m))
        return where(minimum(t, 3) < maximum(lr, 2), moved, where(grad < 0, moved, -moved)), m


class Floored(Loss):
    """Infinite and NaN constants, and conditions of constants."""

    def step(self, output: Any, target: Any) -> Any:
        floor = where(0.0 * output < 1.0, maximum(output - target, -math.inf), math.nan)
        never = where(output.graph.constant(2.0) < 1.0, math.inf, minimum(floor, math.inf))
        return never * floor


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_conditions_of_numbers(dtype: str, caplog: pytest.LogCaptureFixture) -> None:
    results = []
    for made in (choice(dtype), None):
        update = OptimizerPass(Warmed(), SEGMENTS, dtype, choice=made)
        assert update.kernel_name == ("cpu" if made else "numpy")
        rng = np.random.default_rng(0)
        params, states = rng.standard_normal(2300).astype(dtype), update.states(2300)
        for t in range(1, 5):
            update.apply(params, rng.standard_normal(2300).astype(dtype), states, 0.01 * t, t)
        results.append(params)
    assert not caplog.text
    scale = TOLERANCE[dtype]
    np.testing.assert_allclose(results[0], results[1], rtol=scale, atol=scale)


def test_constants_that_are_not_finite(caplog: pytest.LogCaptureFixture) -> None:
    output, target = np.array([[[1.5, -2.0, 0.0]]]), np.zeros((1, 1, 3))
    for made in (choice("float64"), None):
        function = LossFunction(Floored(), 3, 3, "float64", made)
        assert function.kernel_name == ("cpu" if made else "numpy")
        d_output = np.empty_like(output)
        assert function(output, target, np.ones((1, 1), np.bool_), d_output).total == 6.25
        np.testing.assert_allclose(d_output, 2 * output)
    assert not caplog.text


def test_what_stays_with_the_reference() -> None:
    """Truth values, and classes of more units than the dtype can count."""
    graph = Graph()
    value = graph.input("value", 4)
    assert CPUKernel().rows("x", {"out": value < 1.0}, "float32") is None
    many = Graph().input("value", 1 << 25)
    picked = many.graph.pick(many, many.graph.input("unit", 1))
    assert CPUKernel().rows("x", {"out": picked}, "float32", integers=("unit",)) is None
