"""Every job of jobs/ runs, at a reduced size, on data that are made here."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
JOBS = ROOT / "jobs"
SMALL = {
    "quickstart.toml": ["data.build.max_bytes=200000", "training.steps=6"],
    "text.toml": ["training.steps=6", "training.evaluate_windows=2"],
    "forecast.toml": ["training.steps=60"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of jobs/, with the files beside it that the jobs' own comments speak of."""
    shutil.copytree(JOBS, tmp_path / "jobs")
    (tmp_path / "texts").mkdir()
    for k in range(3):
        lines = [f"Chapter {k}, line {n}: it was a dark and stormy night. Ä\n" for n in range(400)]
        (tmp_path / "texts" / f"{k}.txt").write_text("".join(lines), encoding="utf-8")
    rows = [f"2026-01-01,{math.sin(t / 5):.4f},{math.cos(t / 5):.4f}\n" for t in range(2000)]
    (tmp_path / "series.csv").write_text("date,sine,cosine\n" + "".join(rows))
    return tmp_path


def rnnfarm(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "rnnfarm", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_job_is_tried() -> None:
    assert {path.name for path in JOBS.glob("*.toml")} == set(SMALL)


@pytest.mark.parametrize("job", SMALL)
def test_job(job: str, folder: Path) -> None:
    small = [word for setting in SMALL[job] for word in ("--set", setting)]
    result = json.loads(rnnfarm(folder, "train", f"jobs/{job}", "--json", *small))
    assert result["run"] == f"runs/{Path(job).stem}"
    assert math.isfinite(result["valid_loss"])
    if job == "forecast.toml":
        # Waves of ±1: to forecast their mean gives ½ (½ + ½) a step.
        assert result["valid_loss"] < 0.1
        rows = rnnfarm(folder, "predict", "runs/forecast", "--split", "valid").splitlines()
        assert len(json.loads(rows[0])["prediction"][0]) == 2
    else:
        run = result["run"]
        text = rnnfarm(folder, "generate", run, "--prompt", "it ", "--length", "20", "--json")
        assert json.loads(text)["text"]


def test_what_the_comments_say_to_set(folder: Path) -> None:
    """The table may be anywhere: its place is a setting."""
    (folder / "series.csv").rename(folder / "my table.csv")
    files = f"data.build.files=[{str(folder / 'my table.csv')!r}]"
    rnnfarm(folder, "train", "jobs/forecast.toml", "--set", files, "--set", "training.steps=2")
