"""The training step: what it reports, and what a step does of which nothing counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_tools import REGISTRY, entries, make_job, value_job, write_values

from rnnfarm.data import Column, DatasetWriter, open_dataset
from rnnfarm.training.checkpoint import newest_checkpoint
from rnnfarm.training.loop import Trainer
from rnnfarm.training.session import train
from rnnfarm.training.setup import make_model, make_windows


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("loop") / "waves"
    write_values(path, {"train": [80, 33], "valid": [50]})
    return path


def trainer_of(raw: dict[str, Any]) -> Trainer:
    job = make_job(raw)
    dataset = open_dataset(job.data.path)
    model = make_model(job, dataset, REGISTRY)
    return Trainer(job, REGISTRY, model, make_windows(job, model, dataset, "train"))


def first_errors(trainer: Trainer) -> np.ndarray:
    """The errors (N, W) of the targets that count in the first window, before any step."""
    window = trainer.windows.read(0)
    lane = trainer.lanes[0]
    output = lane.output(window, 0, trainer.parameters, 0, trainer.windows.stride)
    errors: np.ndarray = (window.target - output)[window.valid]
    return errors


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("scale", ["none", "standard"])
def test_the_loss_of_mse_and_what_people_call_mse(waves: Path, reduction: str, scale: str) -> None:
    loss = {"name": "mse", "reduction": reduction}
    raw = value_job(waves, dtype="float64", model={"loss": loss}, data={"scale": scale})
    errors = first_errors(trainer_of(raw))
    entry = trainer_of(raw).train_step()
    assert entry["train_loss"] == pytest.approx(0.5 * (errors**2).sum(1).mean(), rel=1e-12)
    name = "train_mse" if scale == "none" else "train_mse_scaled"
    assert entry[name] == pytest.approx((errors**2).mean(), rel=1e-12)


def test_a_sum_learns_as_much_faster_as_there_are_steps(waves: Path) -> None:
    moved = {}
    for reduction in ("mean", "sum"):
        loss = {"name": "mse", "reduction": reduction}
        raw = value_job(waves, dtype="float64", model={"loss": loss}, optimizer="sgd")
        trainer = trainer_of(raw)
        before = trainer.arena.copy()
        trainer.train_step()
        moved[reduction] = trainer.arena - before
        count = trainer.count
    np.testing.assert_allclose(moved["sum"], count * moved["mean"], rtol=1e-9, atol=1e-15)


def test_evaluations_have_the_mean_over_values(waves: Path, tmp_path: Path) -> None:
    job = make_job(value_job(waves, steps=2, evaluate_every=2, model={"loss": "mse"}))
    train(job, REGISTRY, out=tmp_path / "run")
    (entry,) = [e for e in entries(tmp_path / "run") if "valid_loss" in e]
    assert entry["valid_mse"] == pytest.approx(entry["valid_loss"] * 2 / 2)  # of two values
    steps = [e for e in entries(tmp_path / "run") if "train_loss" in e]
    assert [e["train_mse"] for e in steps] == pytest.approx([e["train_loss"] for e in steps])


def write_gaps(path: Path, train: str, valid: str) -> Path:
    """Waves whose targets were observed where ``train`` and ``valid`` have a 1."""
    columns = {"values": Column.values(1), "target": Column.values(1), "observed": Column.tokens(2)}
    with DatasetWriter(path, columns) as writer:
        for split, text in (("train", train), ("valid", valid)):
            seen = np.array([int(c) for c in text], np.int32)
            values = np.sin(np.arange(len(seen)) / 3).astype(np.float32)[:, None]
            writer.append(split, {"values": values, "target": 2 * values, "observed": seen})
    return path


def gaps_job(path: Path, /, **training: Any) -> dict[str, Any]:
    settings = {"batch": 1, "window": 8, "optimizer": {"name": "adam", "lr": 0.1}} | training
    return value_job(path, data={"target": "target"}, **settings)


def test_a_step_without_any_target_changes_nothing(tmp_path: Path) -> None:
    path = write_gaps(tmp_path / "d", "1" * 8 + "0" * 8 + "1" * 16, "1" * 16)
    trainer = trainer_of(gaps_job(path))
    first = trainer.train_step()
    kept = trainer.arena.copy(), {k: v.copy() for k, v in trainer.optimizer_states.items()}
    second = trainer.train_step()
    assert (second["step"], second["train_loss"], second["train_mse"]) == (2, None, None)
    assert second["grad_norm"] == 0.0
    assert trainer.arena.tobytes() == kept[0].tobytes()
    for name, state in trainer.optimizer_states.items():
        assert state.tobytes() == kept[1][name].tobytes()
    assert (trainer.step, trainer.learned, trainer.train_loss) == (2, 8, first["train_loss"])
    third = trainer.train_step()
    assert third["train_loss"] > 0
    assert trainer.arena.tobytes() != kept[0].tobytes()


def test_a_step_without_any_target_is_no_update(tmp_path: Path) -> None:
    """Adam's first update is by lr whatever the gradient, as nothing has passed before it."""
    path = write_gaps(tmp_path / "d", "0" * 16 + "1" * 32, "1" * 16)
    trainer = trainer_of(gaps_job(path, dtype="float64"))
    before = trainer.arena.copy()
    counts = [trainer.train_step()["train_loss"] is not None for _ in range(3)]
    assert (counts, trainer.step, trainer.updates) == ([False, False, True], 3, 1)
    gradient = trainer.last_gradient
    moved = (trainer.arena - before)[np.abs(gradient) > 1e-4]
    assert len(moved) > 10
    np.testing.assert_allclose(np.abs(moved), 0.1, rtol=1e-3)


def test_a_checkpoint_has_the_number_of_updates(tmp_path: Path) -> None:
    path = write_gaps(tmp_path / "d", "1" * 8 + "0" * 16 + "1" * 32, "1" * 16)
    whole = train(make_job(gaps_job(path, steps=6)), REGISTRY, out=tmp_path / "whole")
    for steps in (2, 6):
        job = make_job(gaps_job(path, steps=steps))
        pieces = train(job, REGISTRY, out=tmp_path / "pieces", resume=True)
    assert pieces.parameters_sha256 == whole.parameters_sha256
    found = newest_checkpoint(tmp_path / "pieces" / "checkpoints")
    assert found is not None
    assert found.facts["updates"] == 4
