"""The parts of the example do what rnnfarm expects, and what their papers say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rnnfarm_example", reason="pip install --editable plugins/rnnfarm-example")

from rnnfarm_example.cells import CoRNN, LiGRU
from rnnfarm_example.losses import LogCosh
from rnnfarm_example.optimizers import SignMomentum

import rnnfarm
from rnnfarm.plugins import Registry
from rnnfarm.testing import check_cell, check_loss, check_optimizer


def test_ligru() -> None:
    check_cell(LiGRU())


def test_cornn() -> None:
    check_cell(CoRNN())
    check_cell(CoRNN(dt=0.2, gamma=1.0, epsilon=0.5))


def test_log_cosh() -> None:
    check_loss(LogCosh())


def test_sign_momentum() -> None:
    check_optimizer(SignMomentum())
    check_optimizer(SignMomentum(beta=0.0, weight_decay=0.01))


def test_cornn_is_the_recurrence_of_its_paper() -> None:
    """Equation 3 of the paper, step by step in NumPy."""
    cell = CoRNN(dt=0.1)
    layer = rnnfarm.Recurrent(cell, inputs=3, hidden=4, dtype="float64")
    parameters = layer.init(seed=1)
    x = np.random.default_rng(0).standard_normal((6, 2, 3))
    found, _, _ = layer.forward(parameters, x)
    y, z = np.zeros((2, 4)), np.zeros((2, 4))
    weights = [parameters[f"W.{name}"] for name in ("x", "y", "z")]
    for t in range(6):
        drive = sum(v @ w for v, w in zip((x[t], y, z), weights, strict=True))
        force = np.tanh(drive + parameters["W.bias"])
        z = z + 0.1 * (force - 2.0 * y - 4.0 * z)
        y = y + 0.1 * z
        np.testing.assert_allclose(found[t], y, rtol=1e-12, atol=1e-14)


def test_rnnfarm_finds_the_parts() -> None:
    registry = Registry.load()
    assert registry.get("cells", "rnnfarm-example:ligru") is LiGRU
    assert "log_cosh" in registry.names("losses")
    assert "sign_momentum" in registry.names("optimizers")


def test_a_job_with_all_of_them(tmp_path: Path) -> None:
    """A sine is forecast better than by its mean."""
    wave = np.sin(np.arange(3000) * 0.1).astype(np.float32)[:, None]
    np.save(tmp_path / "wave.npy", wave)
    job = {
        "data": {
            "path": str(tmp_path / "wave"),
            "build": {"reader": "numpy", "files": [str(tmp_path / "wave.npy")]},
        },
        "model": {
            "input": {"kind": "none"},
            "layers": [{"cell": "cornn", "hidden": 16, "dt": 0.1}, {"cell": "ligru", "hidden": 16}],
            "loss": "log_cosh",
        },
        "training": {
            "batch": 8,
            "window": 16,
            "steps": 150,
            "optimizer": {"name": "sign_momentum", "lr": 2e-3},
            "schedule": "linear",
        },
    }
    result = rnnfarm.train(job, out=tmp_path / "run")
    mean_alone = float(np.log(np.cosh(wave)).mean())
    assert result.valid_loss < mean_alone / 4
