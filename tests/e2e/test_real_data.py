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
from thorough import THOROUGH

from rnnfarm.data.build import ensure_dataset
from rnnfarm.job import load_job
from rnnfarm.plugins import Registry
from rnnfarm.training.setup import make_model, make_windows

pytestmark = pytest.mark.slow
RARE = pytest.mark.skipif(not THOROUGH, reason="a minute of training (RNNFARM_THOROUGH)")
JOBS = Path(__file__).parents[2] / "jobs"
#: For each job: where the files lie, and the settings that name them.
FILES = {
    "series": ("japanese-vowels", {"files": "TRAIN.ts", "test_files": "TEST.ts"}),
    "sentiment": (
        "sst2",
        {"files": "train.txt", "valid_files": "dev.txt", "test_files": "test.txt"},
    ),
    "spoken-digits": ("fsdd/recordings", {"files": "*.wav"}),
    "translate": (
        "multi30k",
        {
            f"{side}.{part}": f"{name}.{language}"
            for side, language in (("source", "de"), ("target", "en"))
            for part, name in (("train", "train"), ("valid", "val"), ("test", "test_2016"))
        },
    ),
    "horizon": ("ett", {"files": "ETTh1.csv"}),
}


def settings_of(job: str, folder: Path) -> list[str]:
    """What the real data of a job need set; the test is skipped where these are not."""
    place, files = FILES[job]
    found = [f"data.build.{k}={json.dumps([str(real_data(place) / v)])}" for k, v in files.items()]
    return [f"data.path={folder / 'data'}", *found]


def run(folder: Path, *arguments: str) -> Any:
    command = [sys.executable, "-m", "rnnfarm", *arguments, "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def measured(job: str, folder: Path, *settings: str) -> Any:
    """What a job reaches on the test part, with other settings."""
    chosen = [word for one in [*settings_of(job, folder), *settings] for word in ("--set", one)]
    run(folder, "train", str(JOBS / f"{job}.toml"), "--out", "run", *chosen)
    return run(folder, "evaluate", "run", "--split", "test")


def test_series(tmp_path: Path) -> None:
    assert measured("series", tmp_path)["accuracy"] > 0.93


def test_spoken_digits(tmp_path: Path) -> None:
    assert measured("spoken-digits", tmp_path, "training.steps=400")["accuracy"] > 0.9


@RARE
def test_sentiment(tmp_path: Path) -> None:
    report = measured("sentiment", tmp_path, "training.steps=600")
    assert report["accuracy"] > 0.7 > report["baseline"]["accuracy"]


@RARE
def test_a_translation(tmp_path: Path) -> None:
    """A small network for a minute: what it writes is nearer than chance."""
    report = measured("translate", tmp_path, "training.steps=250", "data.build.first=8000")
    assert np.exp(report["loss"]) < 100
    assert report["bleu"] > 1


def test_a_forecast(tmp_path: Path) -> None:
    report = measured("horizon", tmp_path, "data.build.first=14400", "training.steps=150")
    assert report["mse_scaled"] < 0.73
    assert 0.75 < report["coverage"] < 0.9


@pytest.mark.parametrize("name", ["series", "sentiment", "spoken-digits", "translate"])
def test_there_is_little_padding(name: str, tmp_path: Path) -> None:
    """Of the steps of an epoch, and of what a decoder writes, nine tenths are of a sequence."""
    registry = Registry.load()
    job = load_job(JOBS / f"{name}.toml", settings_of(name, tmp_path), registry)
    dataset = ensure_dataset(job, registry)
    windows = make_windows(job, make_model(job, dataset, registry), dataset, "train")
    steps = []
    for number in range(windows.windows_in_epoch()):
        window = windows.read(number)
        steps.append(np.ones(window.x.shape[:2], bool) if window.mask is None else window.mask)
        if window.fed is not None:
            steps.append(window.valid)
    assert sum(one.sum() for one in steps) / sum(one.size for one in steps) > 0.9
