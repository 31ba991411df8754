"""The check of optimizers."""

from __future__ import annotations

import math

import numpy as np

from rnnfarm.equations.parts import Optimizer
from rnnfarm.testing.tools import Array, check_made_again, require
from rnnfarm.training.optimizer import OptimizerPass

SIZE = 37


def check_optimizer(optimizer: Optimizer, *, steps: int = 500) -> None:
    """Check an optimizer: it finds a minimum, heeds the learning rate, and stays finite.

    Args:
        optimizer: the optimizer with its settings.
        steps: how many it may take for a bowl of 37 dimensions, at the best of some learning rates.
    """
    check_made_again(optimizer)
    name = type(optimizer).__name__
    with np.errstate(all="ignore"):
        still = _bowl(optimizer, 0.0, 5)[0]
        require(
            np.array_equal(still, np.ones(SIZE)),
            f"{name}: parameters move although lr is 0, so no schedule can slow it down",
        )
        _check_blocks(optimizer, name)
        _check_odd_gradients(optimizer, name)
        reached = {lr: _bowl(optimizer, lr, steps)[1] for lr in (1e-3, 1e-2, 0.1, 1.0)}
    best = min((v for v in reached.values() if math.isfinite(v)), default=math.inf)
    require(
        best < 0.1,
        f"{name}: in {steps} steps down a bowl it leaves {best:.2g} of the loss at the best of the "
        f"learning rates {list(reached)}; a tenth at most is expected (is the sign right?)",
    )


def _bowl(optimizer: Optimizer, lr: float, steps: int, block: int = 1 << 14) -> tuple[Array, float]:
    """½ Σ kᵢ pᵢ² from p = 1, with a learning rate that falls to 0: p, and what is left of it."""
    update = OptimizerPass(optimizer, [(0, SIZE, False)], "float64", block)
    slope = np.linspace(0.5, 5.0, SIZE)
    params, states = np.ones(SIZE), update.states(SIZE)
    for t in range(1, steps + 1):
        update.apply(params, slope * params, states, lr * (1 - (t - 1) / steps), t)
    return params, float((slope * params**2).sum() / slope.sum())


def _check_blocks(optimizer: Optimizer, name: str) -> None:
    whole = _bowl(optimizer, 0.01, 5)[0]
    require(
        all(np.array_equal(whole, _bowl(optimizer, 0.01, 5, block)[0]) for block in (1, 8)),
        f"{name}: an element's update depends on its neighbours",
    )


def _check_odd_gradients(optimizer: Optimizer, name: str) -> None:
    """Zero, tiny and large gradients come up in every run."""
    for size in (0.0, 1e-30, 1e15):
        update = OptimizerPass(optimizer, [(0, 4, True)], "float32")
        params, states = np.ones(4, np.float32), update.states(4)
        for t in range(1, 4):
            update.apply(params, np.full(4, size, np.float32), states, 1e-3, t)
        require(
            all(np.isfinite(a).all() for a in (params, *states.values())),
            f"{name}: gradients of {size:g} make it give numbers that are not finite in float32; "
            "add a small epsilon to what it divides by",
        )
