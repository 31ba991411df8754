"""What a device does besides kernels, losses and optimizers, against the host's."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rnnfarm_cupy.device import CUDADevice
from rnnfarm_cupy.host import HostRuntime, find_compiler
from rnnfarm_cupy.kernel import CUDAKernel
from rnnfarm_cupy.rows import CUDARows

from rnnfarm import Optimizer, equal, maximum, minimum, where
from rnnfarm.kernels.choose import KernelChoice
from rnnfarm.kernels.device import HOST, Device
from rnnfarm.nn.arena import Segment
from rnnfarm.nn.loss import LossFunction
from rnnfarm.nn.random import DROPOUT, generator
from rnnfarm.plugins import Registry
from rnnfarm.training.optimizer import OptimizerPass

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")
REGISTRY = Registry.load()
RUNTIME = HostRuntime()
DEVICE = CUDADevice(RUNTIME)
SEGMENTS = [
    *((0, 1000, True), (1000, 1037, False), (1037, 2000, True)),
    Segment(2000, 2300, False, (-0.5, 0.25)),
]
TOLERANCE = {"float32": 1e-5, "float64": 1e-13}


def both(act: Any, *arrays: Any, close: float = 0.0) -> None:
    """``act(device, *arrays)`` on both devices, whose last array is the result."""
    results = []
    for device in (HOST, DEVICE):
        made = [device.put(a.copy() if isinstance(a, np.ndarray) else a) for a in arrays]
        act(device, *made)
        results.append(device.get(made[-1]))
    np.testing.assert_allclose(results[1], results[0], rtol=close, atol=close)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arithmetic(dtype: str) -> None:
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(dtype)

    close = TOLERANCE[dtype]
    both(lambda d, a, b, out: d.add(a, b, out), normal(7, 5), normal(7, 5), normal(7, 5))
    both(lambda d, a, b, out: d.multiply(a, b, out), normal(7, 5), normal(7, 5), normal(7, 5))
    both(lambda d, v, rows: d.add_vector(rows, v), normal(5), normal(4, 7, 5))
    rows = normal(40, 33, 70)
    both(lambda d, r, out: d.sum_rows(r, out), rows, normal(70), close=50 * close)
    numbers, values, table = random.integers(0, 9, 700), normal(700, 6), normal(9, 6)
    both(lambda d, t, n, out: d.take_rows(t, n, out), table, numbers, values)
    both(lambda d, n, v, out: d.add_rows(out, n, v), numbers, values, table, close=30 * close)
    a, b, out = normal(7, 5), normal(5, 3), normal(7, 3)
    turned_a, turned_b = np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)
    both(lambda d, a, b, out: d.matmul(a, b, out), a, b, out, close=close)
    both(lambda d, a, b, out: d.matmul(a.T, b, out), turned_a, b, out, close=close)
    both(lambda d, a, b, out: d.matmul(a, b.T, out), a, turned_b, out, close=close)


def test_added_rows_are_added_in_their_order() -> None:
    """In float32 another order gives other bits."""
    random = np.random.default_rng(1)
    numbers, values = random.integers(0, 3, 600), random.standard_normal((600, 5))
    target, expected = np.zeros((3, 5), np.float32), np.zeros((3, 5), np.float32)
    for number, row in zip(numbers, values.astype(np.float32), strict=True):
        expected[number] += row
    there = DEVICE.put(target)
    DEVICE.add_rows(there, DEVICE.put(numbers), DEVICE.put(values.astype(np.float32)))
    assert DEVICE.get(there).tobytes() == expected.tobytes()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("add", [False, True])
def test_columns(turned: bool, add: bool) -> None:
    source, target = np.arange(60.0).reshape(5, 3, 4), np.ones((5, 3, 6))
    both(lambda d, s, t: d.copy_columns(s, 1, t, 2, 3, turned, add), source, target)
    if not add:
        flags = source % 3 == 0
        both(lambda d, s, t: d.copy_columns(s, 1, t, 2, 3, turned), flags, target > 2)


@pytest.mark.parametrize("count", [1, 7, 8, 4097])
@pytest.mark.parametrize("key", [(0, 0, 0), (2**62, 2**40, 5)])
def test_random_numbers_are_numpys(count: int, key: tuple[int, int, int]) -> None:
    """Bit for bit, so that a job draws the same on every device."""

    def random() -> np.random.Generator:
        return generator(key[0], DROPOUT, key[1], key[2], "layer1.dropout")

    for dtype in ("float32", "float64"):
        found, expected = DEVICE.empty((count,), dtype), HOST.empty((count,), dtype)
        DEVICE.dropped(random(), 0.3, found)
        HOST.dropped(random(), 0.3, expected)
        assert DEVICE.get(found).tobytes() == expected.tobytes()
    chosen, expected = DEVICE.empty((count,), np.bool_), HOST.empty((count,), np.bool_)
    DEVICE.chosen(random(), 0.7, chosen)
    HOST.chosen(random(), 0.7, expected)
    assert DEVICE.get(chosen).tobytes() == expected.tobytes()
    counter = np.array([2**64 - 2, 2**64 - 1, 3, 4], np.uint64)
    carried = np.random.Generator(np.random.Philox(key=[1, 2], counter=counter))
    again = np.random.Generator(np.random.Philox(key=[1, 2], counter=counter))
    flags = DEVICE.empty((64,), np.bool_)
    DEVICE.chosen(carried, 0.5, flags)
    assert DEVICE.get(flags).tobytes() == (again.random(64, dtype=np.float32) < 0.5).tobytes()


@pytest.mark.parametrize("scale", [1.0, 0.01])
@pytest.mark.parametrize("most", [None, 0.5])
def test_norm_and_scale(scale: float, most: float | None) -> None:
    gradient = np.random.default_rng(0).standard_normal(20_001).astype(np.float32)
    norm, factor = HOST.norm_and_scale(gradient, scale, most)
    there, by = DEVICE.norm_and_scale(DEVICE.put(gradient), scale, most)
    assert float(there) == pytest.approx(norm, rel=1e-6)
    assert DEVICE.get(by)[0] == pytest.approx(factor, rel=1e-6)
    gradient[7] = np.nan
    there, by = DEVICE.norm_and_scale(DEVICE.put(gradient), scale, most)
    assert np.isnan(float(there))
    assert np.isnan(DEVICE.get(by)[0])


def test_totals_and_hits() -> None:
    random = np.random.default_rng(0)
    rows, counts = random.standard_normal((700, 1)).astype(np.float32), random.random(700) > 0.3
    d_output = random.standard_normal((700, 9)).astype(np.float32)
    there = [DEVICE.put(a) for a in (rows, counts, d_output)]
    total = DEVICE.total(*there)
    expected = d_output.copy()
    assert float(total) == pytest.approx(HOST.total(rows.copy(), counts, expected), rel=1e-6)
    assert DEVICE.get(there[2]).tobytes() == expected.tobytes()
    target = random.integers(0, 9, 700)
    d_output[::5] = 1.0  # the first of equals
    arrays = (d_output, target, counts)
    assert float(DEVICE.correct(*map(DEVICE.put, arrays))) == HOST.correct(*arrays)


def choice(dtype: str) -> KernelChoice:
    return KernelChoice({"cuda": CUDAKernel(RUNTIME)}, device="cuda", dtype=dtype)


@pytest.mark.parametrize("name", REGISTRY.names("optimizers"))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_optimizers(name: str, dtype: str) -> None:
    """Five steps with decay, scaled and clipped; a scale that is no number changes nothing."""
    kind = REGISTRY.get("optimizers", name)
    results = []
    for made in (choice(dtype), None):
        device: Device = HOST if made is None else made.where
        update = OptimizerPass(kind(weight_decay=0.01), SEGMENTS, dtype, choice=made, bound=0.9)
        if made is not None:
            assert all(isinstance(program, CUDARows) for program, _ in update._parts)
        rng = np.random.default_rng(0)
        params = device.put(rng.standard_normal(2300).astype(dtype))
        states = update.states(2300)
        for t in range(1, 6):
            grads = device.put(rng.standard_normal(2300).astype(dtype))
            scale: Any = 0.5 if made is None else device.put(np.array([0.5], dtype))
            update.apply(params, grads, states, 0.01 * t, t, scale)
        if made is not None:
            update.apply(params, grads, states, 0.1, 6, device.put(np.array([np.nan], dtype)))
        results.append({n: device.get(a) for n, a in {"param": params, **states}.items()})
    for key, array in results[1].items():
        scale = TOLERANCE[dtype]
        np.testing.assert_allclose(results[0][key], array, rtol=scale, atol=scale)


class Warmed(Optimizer):
    """Conditions of numbers alone, and an infinite constant."""

    def step(self, param: Any, grad: Any, *, lr: Any, t: Any) -> Any:
        moved = where(minimum(t, 3) < maximum(lr, 2), param - lr * grad, param + lr * grad)
        return where(equal(t, 1), param, maximum(moved, -math.inf))


def test_conditions_of_numbers() -> None:
    results = []
    for made in (choice("float32"), None):
        device: Device = HOST if made is None else made.where
        update = OptimizerPass(Warmed(), SEGMENTS, "float32", choice=made)
        assert update.kernel_name == ("numpy" if made is None else "cuda")
        rng = np.random.default_rng(0)
        params = device.put(rng.standard_normal(2300).astype(np.float32))
        for t in range(1, 5):
            grads = device.put(rng.standard_normal(2300).astype(np.float32))
            scale: Any = 1.0 if made is None else device.put(np.ones(1, np.float32))
            update.apply(params, grads, {}, 0.1 * t, t, scale)
        results.append(device.get(params))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in REGISTRY.names("losses") if n != "ctc"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", [1, 2, 33, 300])
def test_losses(name: str, dtype: str, width: int) -> None:
    loss = REGISTRY.get("losses", name)()
    rng = np.random.default_rng(0)
    outputs = loss.outputs(width)
    output = (rng.standard_normal((7, 5, outputs)) * 3).astype(dtype)
    valid = rng.random((7, 5)) > 0.2
    target: Any = rng.random((7, 5, width)).astype(dtype)
    if loss.target_kind == "classes":
        target = rng.integers(0, width, (7, 5))
    made = choice(dtype)
    theirs = LossFunction(loss, outputs, width, dtype)
    ours = LossFunction(loss, outputs, width, dtype, made)
    if width * outputs > 1:
        assert loss.evaluate is not None or isinstance(ours._gradient, CUDARows)
    expected = np.full_like(output, np.nan)
    goal = theirs.goal(target, valid)
    total = theirs.compare(output, goal, expected).total
    there = DEVICE.put(np.full_like(output, np.nan))
    goal = ours.goal(target, valid)
    goal = replace(goal, target=DEVICE.put(goal.target), counts=DEVICE.put(goal.counts))
    measured = ours.compare(DEVICE.put(output), goal, there, device=DEVICE)
    assert float(measured.total) == pytest.approx(total, rel=TOLERANCE[dtype])
    scale = TOLERANCE[dtype]
    np.testing.assert_allclose(DEVICE.get(there), expected, rtol=scale, atol=scale)


def test_a_sender_keeps_two_windows() -> None:
    send = DEVICE.sender()
    first = send({"x": np.arange(3), "mask": None})
    second = send({"x": np.arange(3, 6), "mask": None})
    assert first["mask"] is None
    assert DEVICE.get(first["x"]).tolist() == [0, 1, 2]
    assert DEVICE.get(second["x"]).tolist() == [3, 4, 5]


def test_the_host_cannot_touch_arrays_of_the_device() -> None:
    """What would fail on a GPU fails in these tests too."""
    array = DEVICE.zeros((3,), np.float32)
    for act in (
        lambda: array + 1, lambda: np.sum(array), lambda: float(array[0]), lambda: array.copy(),
        lambda: array.__setitem__(0, 1.0), lambda: list(array),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            act()
