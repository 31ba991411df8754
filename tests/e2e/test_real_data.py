"""Jobs on the data that the README's figures are of, where they lie on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_tools import real_data

from rnnfarm.data.dataset import open_dataset
from rnnfarm.data.examples import EMPTY, Examples

pytestmark = pytest.mark.slow
JOBS = Path(__file__).parents[2] / "jobs"


def run(folder: Path, *arguments: str) -> Any:
    command = [sys.executable, "-m", "rnnfarm", *arguments, "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def trained(folder: Path, job: str, **settings: Any) -> Path:
    """A run of a job with other settings; names have __ for points."""
    words = [f"data.path={folder / 'data'}"]
    words += [f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in settings.items()]
    chosen = [word for one in words for word in ("--set", one)]
    run(folder, "train", str(JOBS / job), "--out", "run", *chosen)
    return folder / "run"


def padding(data: Path, batch: int) -> float:
    """The part of the steps of an epoch's windows that is padding."""
    dataset = open_dataset(str(data))
    column = next(name for name, one in dataset.columns.items() if not one.own)
    windows = Examples(
        dataset.split("train"), input=column, target=column, batch=batch, window=1 << 20, seed=0
    )
    padded = read = 0
    for number in range(windows.windows_in_epoch(0)):
        rows = windows.examples(number)
        lengths = windows.lengths[rows[rows != EMPTY]]
        padded += len(lengths) * int(lengths.max())
        read += int(lengths.sum())
    return 1 - read / padded


def test_series(tmp_path: Path) -> None:
    folder = real_data("japanese-vowels")
    out = trained(
        tmp_path,
        "series.toml",
        data__build__files=[str(folder / "TRAIN.ts")],
        data__build__test_files=[str(folder / "TEST.ts")],
    )
    report = run(tmp_path, "evaluate", str(out), "--split", "test")
    assert report["accuracy"] > 0.93
    assert padding(tmp_path / "data", 16) < 0.1


def test_spoken_digits(tmp_path: Path) -> None:
    files = [str(real_data("fsdd/recordings") / "*.wav")]
    out = trained(tmp_path, "spoken-digits.toml", data__build__files=files, training__steps=400)
    report = run(tmp_path, "evaluate", str(out), "--split", "test")
    assert report["accuracy"] > 0.9
    assert padding(tmp_path / "data", 32) < 0.1


def test_sentiment(tmp_path: Path) -> None:
    folder = real_data("sst2")
    names = {"files": "train", "valid_files": "dev", "test_files": "test"}
    settings = {f"data__build__{k}": [str(folder / f"{v}.txt")] for k, v in names.items()}
    out = trained(tmp_path, "sentiment.toml", **settings, training__steps=600)
    report = run(tmp_path, "evaluate", str(out), "--split", "test")
    assert report["accuracy"] > 0.7 > report["baseline"]["accuracy"]
    assert padding(tmp_path / "data", 50) < 0.1


def test_a_forecast(tmp_path: Path) -> None:
    out = trained(
        tmp_path,
        "horizon.toml",
        data__build__files=[str(real_data("ett") / "ETTh1.csv")],
        data__build__first=14_400,
        training__steps=150,
    )
    report = run(tmp_path, "evaluate", str(out), "--split", "test")
    assert report["mse"] < 0.73
    assert 0.75 < report["coverage"] < 0.9


def test_a_translation(tmp_path: Path) -> None:
    """A small network for a minute: what it writes is nearer than chance, and padding is little."""
    folder = real_data("multi30k")
    parts = {"train": "train", "valid": "val", "test": "test_2016"}
    sides = {
        f"data__build__{side}": {k: [str(folder / f"{v}.{language}")] for k, v in parts.items()}
        for side, language in (("source", "de"), ("target", "en"))
    }
    words = [f"{key.replace('__', '.')}={_toml(value)}" for key, value in sides.items()]
    words += ["training.steps=250", "data.build.first=8000", f"data.path={tmp_path / 'data'}"]
    chosen = [word for one in words for word in ("--set", one)]
    run(tmp_path, "train", str(JOBS / "translate.toml"), "--out", "run", *chosen)
    report = run(tmp_path, "evaluate", "run", "--split", "test")
    assert np.exp(report["loss"]) < 100
    assert report["bleu"] > 1
    assert padding(tmp_path / "data", 64) < 0.1


def _toml(table: dict[str, list[str]]) -> str:
    return "{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in table.items()) + "}"
