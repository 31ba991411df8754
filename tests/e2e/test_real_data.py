"""Jobs on the data that the README's figures are of, where they lie on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from data_tools import real_data

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


def test_spoken_digits(tmp_path: Path) -> None:
    files = [str(real_data("fsdd/recordings") / "*.wav")]
    out = trained(tmp_path, "spoken-digits.toml", data__build__files=files, training__steps=400)
    report = run(tmp_path, "evaluate", str(out), "--split", "test")
    assert report["accuracy"] > 0.9


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
