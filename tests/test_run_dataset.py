"""What a run keeps of its dataset: enough to answer files where the dataset is gone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from training_tools import REGISTRY, build_text, make_job, token_job

from rnnfarm.data import build_from_settings, open_dataset
from rnnfarm.errors import DataError
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
    with pytest.raises(DataError, match=rf"{copy}: not readable as JSON"):
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
