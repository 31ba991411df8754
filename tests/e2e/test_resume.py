"""A run that is killed or interrupted at any moment ends with the bits of one that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from thorough import times
from training_tools import build_text, entries, token_job

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
STEPS = 150
END = 138  # where early stopping ends it: a first evaluation, and 22 that were no better
KILLS = times(usual=5, thorough=20)
#: Figures of a run that are times, not results.
TIMES = {"steps_per_second", "elements_per_second", "run", "seconds"}


@dataclass
class Uninterrupted:
    """The job, and what it gives where nothing disturbs it."""

    job: Path
    result: dict[str, Any]
    metrics: list[dict[str, Any]]


def start(job: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rnnfarm", "train", str(job), "--out", str(out), "--json"]
    return subprocess.Popen(
        [*command, *more],
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return out, err


def untimed(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in TIMES}


def lines(out: Path) -> int:
    metrics = out / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def await_lines(process: subprocess.Popen[str], out: Path, count: int) -> None:
    """Wait until the run has logged ``count`` lines more, or has ended."""
    wanted = lines(out) + count
    while lines(out) < wanted and process.poll() is None:
        time.sleep(0.001)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    folder = tmp_path_factory.mktemp("resume")
    raw = token_job(
        build_text(folder),
        steps=STEPS, batch=8, lanes=2, window=12, stride=8, checkpoint_every=4, keep=2,
        evaluate_every=6, gradient_flow_every=10, clip=1.0, log_every=1,
        optimizer={"name": "adamw", "lr": 0.01},
        schedule={"name": "plateau", "gamma": 0.8, "patience": 1, "min_delta": 0.1, "warmup": 5},
        callbacks=[{"name": "early_stopping", "patience": 22, "min_delta": 100.0}],
        model={
            "input": {"kind": "embedding", "size": 8, "dropout": 0.1},
            "layers": [
                {"cell": "lstm", "hidden": 12, "dropout": 0.2, "recurrent_dropout": 0.1},
                {"cell": "gru", "hidden": 12, "zoneout": 0.1, "initial": "learned"},
            ],
        },
    )  # fmt: skip
    job = folder / "job.toml"
    job.write_text(tomli_w.dumps(raw))
    out, _ = finish(start(job, folder / "run"))
    return Uninterrupted(job, json.loads(out), entries(folder / "run"))


def assert_same_run(whole: Uninterrupted, out: Path, result: dict[str, Any]) -> None:
    assert result["parameters_sha256"] == whole.result["parameters_sha256"]
    assert untimed(result) == untimed(whole.result)
    found = entries(out)
    for kind in ("train_loss", "valid_loss", "gradient_flow"):
        mine, theirs = (
            [untimed(entry) for entry in metrics if kind in entry]
            for metrics in (found, whole.metrics)
        )
        assert mine == theirs
    steps = [entry["step"] for entry in found if "train_loss" in entry]
    assert steps == [*range(1, END + 1)]
    left = {path.name for path in out.iterdir()}
    assert left == {"job.toml", "metrics.jsonl", "run.json", "checkpoints", "manifest.json"}
    assert all(path.name.startswith("step-") for path in (out / "checkpoints").iterdir())


def test_the_uninterrupted_run_exercises_what_a_checkpoint_keeps(whole: Uninterrupted) -> None:
    rates = {entry["lr"] for entry in whole.metrics if "lr" in entry}
    assert len(rates) > 7  # the plateau has lowered it after the warm-up
    assert whole.result["steps"] == END
    assert whole.result["valid_loss"] < 2.8


def moments() -> Iterator[tuple[int, float]]:
    """How many lines of metrics a run may write before it is killed, and how long it goes on."""
    drawn = random.Random(20)
    for number in range(KILLS):
        yield 0 if number % 5 == 4 else drawn.randint(1, 40), drawn.uniform(0, 0.02)


def test_kill_9_at_random_moments(whole: Uninterrupted, tmp_path: Path) -> None:
    """In chains: each kill is followed by ``--resume``, which may be killed again."""
    chain, killed, ended = 0, 0, 0
    for count, pause in moments():
        out = tmp_path / f"chain{chain}"
        process = start(whole.job, out, "--resume")
        if count:
            await_lines(process, out, count)
            time.sleep(pause)
        else:  # while it starts
            time.sleep(pause * 30)
        process.kill()
        _, err = process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0), err
        killed += process.returncode != 0
        if killed % 4 == 0 or process.returncode == 0:
            result, _ = finish(start(whole.job, out, "--resume"))
            assert_same_run(whole, out, json.loads(result))
            chain, ended = chain + 1, ended + 1
    assert killed >= KILLS - 1
    assert ended >= KILLS // 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_writes_a_checkpoint(
    whole: Uninterrupted, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "run"
    process = start(whole.job, out, "--set", "training.checkpoint_every=0")
    await_lines(process, out, 9)
    process.send_signal(number)
    printed, err = finish(process, 130)
    assert printed == ""
    last = [entry["step"] for entry in entries(out) if "train_loss" in entry][-1]
    assert last < END
    assert f"interrupted after step {last}" in err
    assert f"--resume --out {out}" in err
    # Beside those of the evaluations that were the best so far, at every sixth step.
    written = sorted(int(path.name[5:]) for path in (out / "checkpoints").iterdir())
    assert written[-1] == last
    assert all(step % 6 == 0 for step in written[:-1])
    assert not (out / "run.json").exists()
    result, _ = finish(start(whole.job, out, "--resume"))
    assert_same_run(whole, out, json.loads(result))


def test_interrupting_twice_ends_at_once(whole: Uninterrupted, tmp_path: Path) -> None:
    out = tmp_path / "run"
    # A step of seconds, in which the first interruption waits.
    process = start(
        whole.job, out, "--set", "training.window=1500", "--set", "training.stride=1500",
        "--set", "training.batch=2", "--set", "model.layers.0.hidden=600",
        "--set", "model.layers.1.hidden=600",
    )  # fmt: skip
    while not (out / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, err = finish(process, 130)
    assert "interrupted" in err
    assert time.monotonic() - began < 1
    assert not list((out / "checkpoints").glob("step-*"))
    assert lines(out) == 0


def test_a_folder_with_a_run_is_not_written_over(whole: Uninterrupted, tmp_path: Path) -> None:
    out = whole.job.parent / "run"
    before = (out / "metrics.jsonl").read_bytes()
    _, err = finish(start(whole.job, out), 2)
    assert "there is a run in this folder" in err
    assert "--resume" in err
    assert (out / "metrics.jsonl").read_bytes() == before


def test_a_resumed_run_keeps_its_job(whole: Uninterrupted, tmp_path: Path) -> None:
    changes = ["training.batch=16", "model.layers.1.hidden=13", "training.optimizer.lr=0.02"]
    settings = [text for change in changes for text in ("--set", change)]
    _, err = finish(start(whole.job, whole.job.parent / "run", "--resume", *settings), 2)
    found = err.strip().splitlines()
    assert len(found) == 3
    assert "training.batch was 8 and is now 16" in err
    assert "training.optimizer.lr was 0.01 and is now 0.02" in err
    assert "start another run with --out" in found[0]
    assert "hidden" in err


def test_resuming_a_finished_run_returns_its_result(whole: Uninterrupted) -> None:
    out = whole.job.parent / "run"
    kept = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    printed, _ = finish(start(whole.job, out, "--resume"))
    result = json.loads(printed)
    assert untimed(result) == untimed(whole.result)
    assert result["elements_per_second"] is None
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == kept


def test_a_finished_run_can_be_trained_further(whole: Uninterrupted, tmp_path: Path) -> None:
    """With more steps it goes on, to where a run of that many steps ends."""
    out = tmp_path / "run"
    finish(start(whole.job, out, "--set", "training.steps=50"))
    printed, _ = finish(start(whole.job, out, "--resume"))
    result = json.loads(printed)
    assert untimed(result) == untimed(whole.result)
    # It has measured itself at its first end, too, which changed nothing of what came after.
    found = [untimed(e) for e in entries(out) if not ("valid_loss" in e and e["step"] == 50)]
    assert found == [untimed(e) for e in whole.metrics]
    folders = [sorted(p.name for p in (run / "checkpoints").iterdir())
               for run in (out, whole.job.parent / "run")]  # fmt: skip
    assert folders[0] == folders[1]


def test_a_damaged_newest_checkpoint_costs_steps_but_no_bits(
    whole: Uninterrupted, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = start(whole.job, out)
    await_lines(process, out, 40)
    process.kill()
    process.communicate()
    newest = max((out / "checkpoints").glob("step-*"))
    state = newest / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1] + b"\0")
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])
    printed, err = finish(start(whole.job, out, "--resume"))
    assert f"{newest} is damaged and was skipped" in err
    assert json.loads(printed)["parameters_sha256"] == whole.result["parameters_sha256"]
    assert (out / "checkpoints" / f"{newest.name}.damaged-1").is_dir()
