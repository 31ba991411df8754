"""What a run keeps of its dataset, and what becomes of it where it meets another one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_tools import REGISTRY, build_text, entries, make_job, token_job, value_job

from rnnfarm.data import Column, DatasetWriter, build_from_settings, open_dataset
from rnnfarm.errors import DataError
from rnnfarm.job import Job
from rnnfarm.training.checkpoint import best_checkpoint, read_checkpoint
from rnnfarm.training.evaluate import evaluate_run
from rnnfarm.training.generate import generate
from rnnfarm.training.predict import predict
from rnnfarm.training.session import train


@pytest.fixture
def language_model(tmp_path: Path) -> Path:
    """A run that was moved to where its dataset is not."""
    train(make_job(token_job(build_text(tmp_path), steps=3)), REGISTRY, out=tmp_path / "r")
    (tmp_path / "in.txt").write_text("class Cat:\n    name\n")
    return tmp_path


def test_a_run_keeps_the_manifest(language_model: Path) -> None:
    kept = (language_model / "r" / "manifest.json").read_bytes()
    assert kept == (language_model / "data" / "dataset.json").read_bytes()


def test_a_moved_run_generates_and_predicts_without_its_dataset(language_model: Path) -> None:
    run = language_model / "r"
    said = "".join(generate(run, REGISTRY, prompt="def ", length=30, temperature=0))
    rows = list(predict(run, REGISTRY, input=language_model / "in.txt"))
    (language_model / "data").rename(language_model / "gone")
    (language_model / "text.txt").unlink()
    moved = run.rename(language_model / "moved")
    assert "".join(generate(moved, REGISTRY, prompt="def ", length=30, temperature=0)) == said
    assert list(predict(moved, REGISTRY, input=language_model / "in.txt")) == rows
    with pytest.raises(DataError, match=r"is not there any more; .* data\.path of .*moved"):
        evaluate_run(moved, REGISTRY)


def test_a_moved_run_forecasts_a_table_without_its_dataset(tmp_path: Path) -> None:
    values = np.sin(np.arange(100) / 3)
    (tmp_path / "y.csv").write_text("y\n" + "".join(f"{v:.4f}\n" for v in values))
    build_from_settings("csv", {"files": [str(tmp_path / "y.csv")]}, tmp_path / "data", REGISTRY)
    raw = token_job(tmp_path / "data", steps=2, data={"mode": "forecast", "scale": "standard"})
    raw["model"] |= {"input": {"kind": "none"}, "loss": "mse", "pool": "last"}
    train(make_job(raw), REGISTRY, out=tmp_path / "r")  # the job does not name the reader
    rows = list(predict(tmp_path / "r", REGISTRY, input=tmp_path / "y.csv"))
    (tmp_path / "data").rename(tmp_path / "gone")
    assert list(predict(tmp_path / "r", REGISTRY, input=tmp_path / "y.csv")) == rows


def test_a_damaged_copy_is_named(language_model: Path) -> None:
    copy = language_model / "r" / "manifest.json"
    copy.write_bytes(copy.read_bytes()[:-40])
    with pytest.raises(
        DataError, match=rf"{copy}: not a dataset's manifest, it is not readable as JSON"
    ):
        list(generate(language_model / "r", REGISTRY, length=3))


def test_an_older_run_reads_its_dataset(language_model: Path) -> None:
    said = "".join(generate(language_model / "r", REGISTRY, length=9))
    (language_model / "r" / "manifest.json").unlink()
    assert "".join(generate(language_model / "r", REGISTRY, length=9)) == said


def test_the_copy_has_what_the_dataset_was_built_from(language_model: Path) -> None:
    kept = json.loads((language_model / "r" / "manifest.json").read_text())
    (file,) = kept["provenance"]["files"]
    assert file["path"] == str(language_model / "text.txt")
    assert open_dataset(language_model / "data").provenance is not None


def write_walks(path: Path, train_mean: float, valid_mean: float) -> Path:
    """Noisy values around two means; in training, one class is rarer the higher the mean is."""
    random = np.random.default_rng(int(train_mean))
    with DatasetWriter(path, {"x": Column.values(1), "kind": Column.tokens(2)}) as writer:
        for split, mean in (("train", train_mean), ("valid", valid_mean)):
            noise = np.random.default_rng(7) if split == "valid" else random
            x = (mean + noise.standard_normal((60, 1))).astype(np.float32)
            kind = np.arange(60) % (2 + int(train_mean) * (split == "train")) == 0
            writer.append(split, {"x": x, "kind": kind.astype(np.int32)})
    return path


def walks_job(data: Path, /, steps: int, **training: Any) -> Job:
    often = {"steps": steps, "evaluate_every": 2, "checkpoint_every": 2, "keep": 9}
    return make_job(value_job(data, data={"scale": "standard"}, **often, **training))


WAITING = {
    "callbacks": [{"name": "early_stopping", "patience": 2}],
    "schedule": {"name": "plateau", "patience": 1},
    "optimizer": {"name": "sgd", "lr": 1e-30},  # so that nothing becomes better
}


def facts_of(run: Path, step: int) -> dict[str, Any]:
    return read_checkpoint(run / "checkpoints" / f"step-{step:08d}").facts


def test_a_run_that_goes_on_with_other_data_keeps_its_scale_and_forgets_what_was_best(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, run = write_walks(tmp_path / "first", 1, 1), tmp_path / "r"
    second = write_walks(tmp_path / "second", 9, 40)
    stopped = train(walks_job(first, 20, **WAITING), REGISTRY, out=run)
    assert stopped.steps == 6
    assert stopped.best is not None
    # What was measured on other data cannot stop it, nor be better than what follows.
    result = train(walks_job(second, 10, **WAITING), REGISTRY, out=run, resume=True)
    assert "the validation data are others" in caplog.text
    measured = {e["step"]: e["valid_loss"] for e in entries(run) if "valid_loss" in e}
    assert result.steps == 10
    assert result.best is not None
    assert result.best.step == 8
    assert result.best.value == measured[8] > 100 * stopped.best.value
    rates = {e["step"]: e["lr"] for e in entries(run) if "lr" in e}
    # It fell after steps 4 and 6; step 8 has no other to be worse than.
    assert [rates[k] / 1e-30 for k in (4, 5, 7, 9)] == pytest.approx([1, 0.5, 0.25, 0.25])
    values = open_dataset(first).split("train").read("x", 0, 60).astype(np.float64)
    for step in (6, 10):
        scale = facts_of(run, step)["scales"]["x"]
        np.testing.assert_allclose(scale["mean"], values.mean(0), rtol=1e-12)
        np.testing.assert_allclose(scale["deviation"], values.std(0), rtol=1e-12)
    assert best_checkpoint(run / "checkpoints") == run / f"checkpoints/step-{result.best.step:08d}"
    found = evaluate_run(run, REGISTRY)["best"]
    assert (found["step"], found["value"]) == (result.best.step, result.best.value)


def test_with_the_same_validation_data_the_best_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, run = write_walks(tmp_path / "first", 1, 1), tmp_path / "r"
    second = write_walks(tmp_path / "second", 9, 1)
    train(walks_job(first, 20, **WAITING), REGISTRY, out=run)
    result = train(walks_job(second, 10, **WAITING), REGISTRY, out=run, resume=True)
    assert "(its train differs)" in caplog.text
    assert "forgotten" not in caplog.text
    assert (result.steps, result.best and result.best.step) == (6, 2)


def test_evaluate_shows_no_best_of_other_data(tmp_path: Path) -> None:
    first, run = write_walks(tmp_path / "first", 1, 1), tmp_path / "r"
    train(walks_job(first, 4), REGISTRY, out=run)
    assert evaluate_run(run, REGISTRY)["best"]["step"] in (2, 4)
    first.rename(tmp_path / "gone")
    write_walks(first, 1, 5)
    assert evaluate_run(run, REGISTRY)["best"] is None


def test_a_run_that_goes_on_with_other_data_keeps_its_class_weights(tmp_path: Path) -> None:
    balanced = {"loss": {"name": "cross_entropy", "weights": "balanced"}}

    def job(data: Path, steps: int) -> Job:
        raw = value_job(data, steps=steps, checkpoint_every=2, model=balanced)
        raw["data"]["target"] = "kind"
        return make_job(raw)

    first, run = write_walks(tmp_path / "first", 1, 1), tmp_path / "r"  # a third is of class 1
    train(job(first, 2), REGISTRY, out=run)
    train(job(write_walks(tmp_path / "second", 4, 1), 4), REGISTRY, out=run, resume=True)
    for step in (2, 4):
        assert facts_of(run, step)["loss"]["weights"] == pytest.approx([0.75, 1.5])
