"""Every job of jobs/ runs, at a reduced size, on data that are made here."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from wave import open as wave_file

import numpy as np
import pytest
from conftest import Call
from thorough import THOROUGH

ROOT = Path(__file__).parents[2]
JOBS = ROOT / "jobs"
SMALL = {
    "quickstart.toml": ["data.build.max_bytes=200000", "training.steps=6"],
    "text.toml": ["training.steps=6", "training.evaluate_windows=2"],
    "forecast.toml": ["training.steps=60"],
    "horizon.toml": ["training.steps=60", "training.window=48"],
    "series.toml": ["training.steps=60"],
    "sentiment.toml": ["training.steps=60", "data.build.least=1"],
    "spoken-digits.toml": ["training.steps=40"],
    "speech.toml": ["training.steps=40"],
    "translate.toml": ["training.steps=150", "model.decoder.layers.0.hidden=32"],
    "handwriting.toml": ["training.steps=5", "data.build.examples=60", *(
        f"data.build.{split}_examples=20" for split in ("valid", "test")
    )],
    "caption.toml": ["training.steps=5", "data.build.examples=60", *(
        f"data.build.{split}_examples=20" for split in ("valid", "test")
    )],
    "adding.toml": ["training.steps=40", "data.build.length=10"],
}  # fmt: skip
#: What `rnnfarm evaluate` says of them, and the split that it is asked for.
FIGURES = {
    "horizon.toml": ("test", ["mse", "mase", "coverage"]),
    "series.toml": ("test", ["accuracy", "macro_f1"]),
    "sentiment.toml": ("test", ["accuracy", "f1"]),
    "spoken-digits.toml": ("test", ["accuracy"]),
    "speech.toml": ("test", ["letter_error_rate"]),
    "translate.toml": ("test", ["bleu", "exact"]),
    "handwriting.toml": ("test", ["letter_error_rate", "exact"]),
    "caption.toml": ("test", ["bleu", "exact"]),
    "adding.toml": ("valid", ["mse"]),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_files(tmp_path)
    return tmp_path


def write_files(folder: Path) -> None:
    """Write a copy of jobs/, with the files beside it that the jobs' own comments speak of."""
    shutil.copytree(JOBS, folder / "jobs")
    (folder / "texts").mkdir()
    for k in range(3):
        lines = [f"Chapter {k}, line {n}: it was a dark and stormy night. Ä\n" for n in range(400)]
        (folder / "texts" / f"{k}.txt").write_text("".join(lines), encoding="utf-8")
    rows = [f"2026-01-01,{math.sin(t / 5):.4f},{math.cos(t / 5):.4f}\n" for t in range(2000)]
    (folder / "series.csv").write_text("date,sine,cosine\n" + "".join(rows))
    hours = [f"{math.sin(t / 24 * 6.2832):.4f},{math.cos(t / 12):.4f}\n" for t in range(1500)]
    (folder / "hours.csv").write_text("a,b\n" + "".join(hours))
    write_sequences(folder)


def write_sequences(folder: Path) -> None:
    """What the jobs read that have a target for each sequence: small, and easy to learn."""
    rng = np.random.default_rng(0)
    for name in ("series", "sentiment", "translation", "speech"):
        (folder / name).mkdir()
    head = "@problemName p\n@timeStamps false\n@univariate false\n@dimensions 2\n"
    for part in ("TRAIN", "TEST"):
        lines = []
        for k in range(40):
            wave = np.sin(np.arange(8 + k % 5) * (0.3 if k % 2 else 1.5)) + 0.1 * rng.random()
            text = ",".join(f"{x:.4f}" for x in wave)
            lines.append(f"{text}:{text}:{'slow' if k % 2 else 'fast'}\n")
        text = f"{head}@classLabel true slow fast\n@data\n{''.join(lines)}"
        (folder / "series" / f"{part}.ts").write_text(text)
    for part in ("train", "dev", "test"):
        words = [rng.choice(["the", "film", "is", "so"], 4) for _ in range(60)]
        lines = [f"{k % 2} {' '.join(w)} {('bad', 'good')[k % 2]}\n" for k, w in enumerate(words)]
        (folder / "sentiment" / f"{part}.txt").write_text("".join(lines))
    for part in ("train", "val", "test_2016"):
        pairs = [rng.choice(list("abcd"), 1 + k % 4) for k in range(80)]
        source = ["".join(f"{w} " for w in pair) + "\n" for pair in pairs]
        target = ["".join(f"{w.upper()} " for w in pair) + "\n" for pair in pairs]
        (folder / "translation" / f"{part}.de").write_text("".join(source))
        (folder / "translation" / f"{part}.en").write_text("".join(target))
    for digit, speaker, index in itertools.product((0, 1), ("ann", "bob"), range(8)):
        time = np.arange(4000) / 8000
        tone = 0.5 * np.sin(6.2832 * (300 + 900 * digit) * time) + 0.01 * rng.random(4000)
        with wave_file(str(folder / "speech" / f"{digit}_{speaker}_{index}.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes((tone * 30000).astype("<i2").tobytes())


def rnnfarm(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "rnnfarm", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_job_is_tried() -> None:
    assert {path.name for path in JOBS.glob("*.toml")} == set(SMALL)


@pytest.mark.parametrize("job", SMALL)
def test_job(job: str, folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained in a process of its own; what comes after it in this one, which is faster."""
    monkeypatch.chdir(folder)

    def after(*arguments: str) -> str:
        code, out, err = call(*arguments)
        assert code == 0, err
        return out

    if job in ("handwriting.toml", "caption.toml"):
        pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    small = [word for setting in SMALL[job] for word in ("--set", setting)]
    result = json.loads(rnnfarm(folder, "train", f"jobs/{job}", "--json", *small))
    assert result["run"] == f"runs/{Path(job).stem}"
    assert math.isfinite(result["valid_loss"])
    if job == "forecast.toml":
        # Waves of ±1: to forecast their mean gives ½ (½ + ½) a step.
        assert result["valid_loss"] < 0.1
        rows = after("predict", "runs/forecast", "--split", "valid").splitlines()
        assert len(json.loads(rows[0])["prediction"][0]) == 2
    elif job in FIGURES:
        split, names = FIGURES[job]
        report = json.loads(after("evaluate", result["run"], "--split", split, "--json"))
        assert all(math.isfinite(report[name]) for name in names)
        rows = after("predict", result["run"], "--split", split).splitlines()
        assert "prediction" in json.loads(rows[0])
        if job == "translate.toml":
            assert report["bleu"] > 50
        if job in ("series.toml", "sentiment.toml"):
            assert report["accuracy"] > 0.9 > report["baseline"]["accuracy"]
    else:
        run = result["run"]
        text = after("generate", run, "--prompt", "it ", "--length", "20", "--json")
        assert json.loads(text)["text"]


@pytest.mark.skipif(not THOROUGH, reason="a Ray of its own for every job (RNNFARM_THOROUGH)")
@pytest.mark.parametrize("job", SMALL)
def test_workers_give_the_same_bits(job: str, folder: Path) -> None:
    if job in ("handwriting.toml", "caption.toml"):
        pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    small = [word for setting in SMALL[job] for word in ("--set", setting)]
    found = []
    for number, more in enumerate(([], ["--workers", "2"])):
        words = ["train", f"jobs/{job}", "--out", str(number), "--json", *small, *more]
        found.append(json.loads(rnnfarm(folder, *words)))
    assert found[1]["workers"] == 2
    names = ("parameters_sha256", "train_loss", "valid_loss")
    assert [found[0][name] for name in names] == [found[1][name] for name in names]


def test_what_the_comments_say_to_set(folder: Path) -> None:
    """The table may be anywhere: its place is a setting."""
    (folder / "series.csv").rename(folder / "my table.csv")
    files = f"data.build.files=[{str(folder / 'my table.csv')!r}]"
    rnnfarm(folder, "train", "jobs/forecast.toml", "--set", files, "--set", "training.steps=2")
