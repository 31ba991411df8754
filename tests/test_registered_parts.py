"""What holds for every loss and optimizer that is registered here, whoever's it is."""

from __future__ import annotations

import numpy as np
import pytest

from rnnfarm.equations.parts import Loss, Optimizer
from rnnfarm.nn.loss import LossFunction
from rnnfarm.plugins import Registry
from rnnfarm.training.optimizer import OptimizerPass

REGISTRY = Registry.load()
WIDTH, STEPS, ROWS = 4, 3, 5


@pytest.fixture(params=REGISTRY.names("losses"))
def loss(request: pytest.FixtureRequest) -> Loss:
    return REGISTRY.get("losses", request.param)()


@pytest.fixture(params=REGISTRY.names("optimizers"))
def optimizer(request: pytest.FixtureRequest) -> Optimizer:
    return REGISTRY.get("optimizers", request.param)()


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_of_a_loss(loss: Loss, seed: int) -> None:
    if loss.of_labels:
        pytest.skip("it is no function of single steps; check_loss tries it")
    rng = np.random.default_rng(seed)
    outputs = loss.outputs(WIDTH)
    output = rng.normal(size=(STEPS, ROWS, outputs))
    if loss.target_kind == "classes":
        target = rng.integers(0, WIDTH, (STEPS, ROWS))
    else:
        target = rng.random((STEPS, ROWS, WIDTH))
    valid = rng.random((STEPS, ROWS)) < 0.8
    function = LossFunction(loss, outputs, WIDTH, "float64")
    gradient = np.full_like(output, np.nan)
    result = function(output, target, valid, gradient)
    assert result.count == valid.sum()
    assert (gradient[~valid] == 0).all()
    for _ in range(10):
        along = rng.normal(size=output.shape)
        ends = [function(output + e * along, target, valid).total for e in (1e-6, -1e-6)]
        expected = (ends[0] - ends[1]) / 2e-6
        assert np.vdot(gradient, along) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_optimizer_goes_downhill(optimizer: Optimizer, dtype: str) -> None:
    """½ ‖p‖², from all sides and at any scale of the learning rate's own default."""
    update = OptimizerPass(optimizer, [(0, 6, True), (6, 8, False)], dtype)
    params = np.array([1, -1, 2, -2, 0.5, -0.5, 3, -3], dtype)
    before = np.abs(params)
    states = update.states(len(params))
    for t in range(1, 51):
        update.apply(params, params.copy(), states, optimizer.lr, t)
    assert (np.abs(params) < before).all()
    assert params.dtype == dtype


def test_an_optimizer_does_not_look_at_other_elements(optimizer: Optimizer) -> None:
    rng = np.random.default_rng(0)
    grads = rng.normal(size=(20, 50)).astype(np.float32)

    def run(block: int, chosen: slice) -> bytes:
        start = np.linspace(-1, 1, 50, dtype=np.float32)[chosen].copy()
        update = OptimizerPass(optimizer, [(0, len(start), True)], "float32", block=block)
        states = update.states(len(start))
        for t, grad in enumerate(grads, 1):
            update.apply(start, grad[chosen].copy(), states, optimizer.lr, t)
        return b"".join(array.tobytes() for array in (start, *states.values()))

    whole = run(1 << 16, slice(None))
    assert run(7, slice(None)) == whole
    part = np.frombuffer(whole, np.float32).reshape(-1, 50)[:, 10:31]
    assert run(1 << 16, slice(10, 31)) == part.tobytes()
