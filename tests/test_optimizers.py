"""The optimizers against plain implementations, and what their result does not depend on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rnnfarm.builtin import rnnfarm_optimizers
from rnnfarm.builtin.optimizers import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Lion,
    Momentum,
    Nesterov,
    RMSProp,
)
from rnnfarm.equations.language import equal, parameter, where
from rnnfarm.equations.parts import Optimizer
from rnnfarm.errors import CellError, JobError
from rnnfarm.nn.arena import Segment
from rnnfarm.training.optimizer import OptimizerPass

SIZE, STEPS = 37, 25
# Matrices decay, what lies between them does not.
SEGMENTS = [(0, 10, True), (10, 13, False), (13, 30, True), (30, 35, False), (35, SIZE, False)]
DECAYS = np.concatenate([np.full(stop - start, decay) for start, stop, decay in SEGMENTS])

State = dict[str, np.ndarray]
Reference = Callable[[np.ndarray, np.ndarray, State, float, int, Any, np.ndarray], np.ndarray]


def l2(p: np.ndarray, g: np.ndarray, o: Any, decays: np.ndarray) -> np.ndarray:
    return g + o.weight_decay * decays * p


def sgd(p, g, s, lr, t, o, decays):  # type: ignore[no-untyped-def]
    return p - lr * l2(p, g, o, decays)


def momentum(p, g, s, lr, t, o, decays):  # type: ignore[no-untyped-def]
    s["velocity"] = o.beta * s["velocity"] + l2(p, g, o, decays)
    return p - lr * s["velocity"]


def nesterov(p, g, s, lr, t, o, decays):  # type: ignore[no-untyped-def]
    g = l2(p, g, o, decays)
    s["velocity"] = o.beta * s["velocity"] + g
    return p - lr * (g + o.beta * s["velocity"])


def adagrad(p, g, s, lr, t, o, decays):  # type: ignore[no-untyped-def]
    g = l2(p, g, o, decays)
    s["squares"] = s["squares"] + np.square(g)
    return p - lr * g / (np.sqrt(s["squares"]) + o.epsilon)


def rmsprop(p, g, s, lr, t, o, decays):  # type: ignore[no-untyped-def]
    g = l2(p, g, o, decays)
    s["squares"] = o.rho * s["squares"] + (1 - o.rho) * np.square(g)
    return p - lr * g / (np.sqrt(s["squares"]) + o.epsilon)


def adam(p, g, s, lr, t, o, decays):  # type: ignore[no-untyped-def]
    return adam_direction(p, l2(p, g, o, decays), s, lr, t, o)


def adam_direction(p, g, s, lr, t, o):  # type: ignore[no-untyped-def]
    s["mean"] = o.beta1 * s["mean"] + (1 - o.beta1) * g
    s["squares"] = o.beta2 * s["squares"] + (1 - o.beta2) * np.square(g)
    mean = s["mean"] / (1 - math.pow(o.beta1, t))
    squares = s["squares"] / (1 - math.pow(o.beta2, t))
    return p - lr * mean / (np.sqrt(squares) + o.epsilon)


def adamw(p, g, s, lr, t, o, decays):  # type: ignore[no-untyped-def]
    return adam_direction(p, g, s, lr, t, o) - lr * o.weight_decay * decays * p


def lion(p, g, s, lr, t, o, decays):  # type: ignore[no-untyped-def]
    direction = np.sign(o.beta1 * s["mean"] + (1 - o.beta1) * g)
    s["mean"] = o.beta2 * s["mean"] + (1 - o.beta2) * g
    return p - lr * (direction + o.weight_decay * decays * p)


CASES: dict[str, tuple[Optimizer, Reference]] = {
    "sgd": (SGD(), sgd),
    "momentum": (Momentum(), momentum),
    "momentum 0": (Momentum(beta=0.0), momentum),
    "nesterov": (Nesterov(beta=0.8), nesterov),
    "adagrad": (Adagrad(), adagrad),
    "rmsprop": (RMSProp(), rmsprop),
    "adam": (Adam(), adam),
    "adam 0": (Adam(beta1=0.0), adam),
    "adamw": (AdamW(weight_decay=0.0), adamw),
    "lion": (Lion(), lion),
}
CASES |= {
    f"{name} decay": (type(o)(**o.settings() | {"weight_decay": 0.1}), reference)
    for name, (o, reference) in CASES.items()
}
each = pytest.mark.parametrize("name", CASES)


def run(
    optimizer: Optimizer,
    dtype: str = "float64",
    steps: int = STEPS,
    block: int = 1 << 16,
    segments: list[tuple[int, int, bool]] = SEGMENTS,
) -> tuple[np.ndarray, State]:
    """Parameters and states after some steps on the same gradients."""
    rng = np.random.default_rng(0)
    update = OptimizerPass(optimizer, segments, dtype, block=block)
    params = rng.normal(size=SIZE).astype(dtype)
    states = update.states(SIZE)
    for t in range(1, steps + 1):
        grads = (3.0 * params + rng.normal(size=SIZE)).astype(dtype)
        update.apply(params, grads, states, 0.01 / math.sqrt(t), t)
    return params, states


def test_every_built_in_optimizer_has_a_case() -> None:
    assert set(CASES) >= set(rnnfarm_optimizers())


@each
def test_against_a_plain_implementation(name: str) -> None:
    optimizer, reference = CASES[name]
    rng = np.random.default_rng(0)
    params = rng.normal(size=SIZE)
    states = {state: np.zeros(SIZE) for state in optimizer.states}
    for t in range(1, STEPS + 1):
        grads = 3.0 * params + rng.normal(size=SIZE)
        lr = 0.01 / math.sqrt(t)
        params = reference(params, grads, states, lr, t, optimizer, DECAYS)
    got, got_states = run(optimizer)
    assert np.allclose(got, params, rtol=1e-10, atol=1e-13)
    assert set(got_states) == set(states)
    for state, expected in states.items():
        assert np.allclose(got_states[state], expected, rtol=1e-10, atol=1e-13), state


@each
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_blocks_change_no_bit(name: str, dtype: str) -> None:
    optimizer, _ = CASES[name]
    params, states = run(optimizer, dtype)
    for block in (1, 3, 8, 16, 33):
        other, other_states = run(optimizer, dtype, block=block)
        assert other.tobytes() == params.tobytes()
        for state in states:
            assert other_states[state].tobytes() == states[state].tobytes()


@each
def test_segments_change_no_bit(name: str) -> None:
    """Where nothing decays, neither how the arena is cut nor in which order changes anything."""
    optimizer, _ = CASES[name]
    whole, _ = run(optimizer, "float32", segments=[(0, SIZE, False)])
    cut = [(20, SIZE, False), (0, 7, False), (7, 20, False)]
    assert run(optimizer, "float32", segments=cut)[0].tobytes() == whole.tobytes()


@pytest.mark.parametrize("name", [name for name in CASES if name.endswith("decay")])
def test_decay_leaves_biases_out(name: str) -> None:
    """Exactly what does not decay is as it would be without weight decay."""
    optimizer, _ = CASES[name]
    plain = type(optimizer)(**optimizer.settings() | {"weight_decay": 0.0})
    moved = run(optimizer, steps=1)[0] != run(plain, steps=1)[0]
    if name in ("adagrad decay", "rmsprop decay", "adam decay", "adam 0 decay"):
        # Their first step is lr times the gradient's sign; the second one tells.
        moved = run(optimizer, steps=2)[0] != run(plain, steps=2)[0]
    assert np.array_equal(moved, DECAYS)
    assert optimizer.weight_decay == 0.1


@each
def test_float32_follows_float64(name: str) -> None:
    optimizer, _ = CASES[name]
    params, states = run(optimizer, "float32", steps=10)
    assert params.dtype == np.float32
    assert all(state.dtype == np.float32 for state in states.values())
    assert np.allclose(params, run(optimizer, "float64", steps=10)[0], atol=1e-5)


@each
def test_finds_a_minimum(name: str) -> None:
    """½ Σ kᵢ (pᵢ - cᵢ)², with a learning rate that falls to 0."""
    optimizer = type(CASES[name][0])(**CASES[name][0].settings() | {"weight_decay": 0.0})
    rng = np.random.default_rng(1)
    scale, centre = np.linspace(0.5, 5.0, SIZE), rng.normal(size=SIZE)
    update = OptimizerPass(optimizer, [(0, SIZE, True)], "float64")
    params, states = np.zeros(SIZE), update.states(SIZE)
    for t in range(1, 801):
        lr = {"adagrad": 0.5}.get(name.split()[0], 0.05) * (1 - t / 801)
        update.apply(params, scale * (params - centre), states, lr, t)
    assert np.abs(params - centre).max() < 1e-2


def test_bias_correction_is_exact_in_float32() -> None:
    """βᵗ is computed in float64 also for a float32 arena: far out it would be lost otherwise."""
    update = OptimizerPass(Adam(epsilon=1e-30), [(0, 1, True)], "float32")
    for t in (1, 2, 1000, 10**6):
        params = np.zeros(1, np.float32)
        states = {"mean": np.ones(1, np.float32), "squares": np.ones(1, np.float32)}
        update.apply(params, np.ones(1, np.float32), states, 1e-3, t)
        expected = 1e-3 / (1 - 0.9**t) * math.sqrt(1 - 0.999**t)
        assert params[0] == pytest.approx(-expected, rel=3e-7)


class Late(Optimizer):
    """Conditions, divisions by zero and states that change places, all of the step's number."""

    states = ("a", "b")

    def step(self, param: Any, grad: Any, a: Any, b: Any, *, lr: Any, t: Any) -> Any:
        rate = where(t > 2, lr / (t - 2), 0.0)
        return param - where(equal(t, 1), 0.0, rate * grad), b, grad


def test_an_optimizer_of_ones_own() -> None:
    update = OptimizerPass(Late(), [(0, 4, True)], "float64")
    params, states = np.zeros(4), update.states(4)
    grads = [np.full(4, float(t)) for t in range(1, 5)]
    for t, grad in enumerate(grads, 1):
        update.apply(params, grad, states, 0.5, t)
    assert params.tolist() == [-(0.5 * 3 / 1 + 0.5 * 4 / 2)] * 4
    assert states["a"].tolist() == [3.0] * 4
    assert states["b"].tolist() == [4.0] * 4


class TooFew(Optimizer):
    states = ("m",)

    def step(self, param: Any, grad: Any, m: Any, *, lr: Any, t: Any) -> Any:
        return param - lr * grad


class Taken(Optimizer):
    states = ("grad",)

    def step(self, param: Any, grad: Any, m: Any, *, lr: Any, t: Any) -> Any:
        return param, m


class Text(TooFew):
    states = "mean"


class Spaced(TooFew):
    states = ("the mean",)


class Learned(Optimizer):
    def step(self, param: Any, grad: Any, *, lr: Any, t: Any) -> Any:
        return param - parameter("rate") * grad


@pytest.mark.parametrize(
    ("optimizer", "match"),
    [
        (Optimizer(), r"no equations; write def step\(self, param, grad, \*, lr, t\)"),
        (TooFew(), "returns 1 values, not 2"),
        (Taken(), "must differ"),
        (Text(), "states = 'mean'; write a tuple of names"),
        (Spaced(), "'the mean' is no Python name"),
        (Learned(), "no learned parameters"),
    ],
)
def test_mistakes_in_an_optimizer(optimizer: Optimizer, match: str) -> None:
    with pytest.raises(CellError, match=f"^{type(optimizer).__name__}: .*{match}"):
        OptimizerPass(optimizer, SEGMENTS, "float32")


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        (SGD, {"lr": 0.0}),
        (SGD, {"weight_decay": -0.1}),
        (Momentum, {"beta": 1.0}),
        (Adam, {"beta2": 0.0}),
        (AdamW, {"weight_decay": -1.0}),
        (Lion, {"betta1": 0.5}),
    ],
)
def test_settings_out_of_range(part: type[Optimizer], settings: dict[str, float]) -> None:
    with pytest.raises(JobError, match=next(iter(settings))):
        part(**settings)


@each
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_update_is_brought_back_within_the_bound(name: str, dtype: str) -> None:
    """Exactly what the optimizer gives, clipped; its states know nothing of that."""
    optimizer, _ = CASES[name]
    rng = np.random.default_rng(2)
    cut = [(0, 12, True), Segment(12, 31, False, (-0.5, 0.25)), (31, SIZE, False)]
    free = OptimizerPass(optimizer, [one[:3] for one in cut], dtype)
    bounded = OptimizerPass(optimizer, cut, dtype)
    params = rng.normal(size=SIZE).astype(dtype)
    params[12:31] = params[12:31].clip(-0.5, 0.25)
    states, touched = bounded.states(SIZE), 0
    for t in range(1, 13):
        grads = rng.normal(size=SIZE).astype(dtype)
        wanted, wanted_states = params.copy(), {k: v.copy() for k, v in states.items()}
        free.apply(wanted, grads, wanted_states, 0.2, t)
        touched += int((np.abs(wanted[12:31] + 0.125) > 0.375).sum())
        wanted[12:31] = wanted[12:31].clip(-0.5, 0.25)
        bounded.apply(params, grads, states, 0.2, t)
        assert params.tobytes() == wanted.tobytes()
        assert all(states[key].tobytes() == wanted_states[key].tobytes() for key in states)
    assert touched > 10


def test_a_weight_at_its_bound_comes_back_when_its_gradient_says_so() -> None:
    update = OptimizerPass(SGD(lr=1.0), [Segment(0, 2, False, (-1.0, 1.0))], "float64")
    params = np.array([0.9, -3.0])  # the second one lies beyond, as an older run may leave it
    update.apply(params, np.array([-5.0, 0.0]), {}, 1.0, 1)
    assert params.tolist() == [1.0, -1.0]
    update.apply(params, np.array([0.25, -0.5]), {}, 1.0, 2)
    assert params.tolist() == [0.75, -0.5]


def test_a_bound_hides_no_nan() -> None:
    update = OptimizerPass(SGD(lr=1.0), [Segment(0, 1, False, (-1.0, 1.0))], "float32")
    params = np.zeros(1, np.float32)
    update.apply(params, np.array([np.nan], np.float32), {}, 1.0, 1)
    assert np.isnan(params[0])
