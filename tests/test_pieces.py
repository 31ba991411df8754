"""A run that is made in pieces is the run in one piece, whatever schedule and callback it has."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from training_tools import REGISTRY, entries, make_job, token_job, write_tokens

from rnnfarm import builtin
from rnnfarm.builtin.callbacks import EarlyStopping
from rnnfarm.training.result import Result
from rnnfarm.training.session import train

STEPS = 34
#: Where the pieces end: at none, one or all of what is due, and one right after another.
ENDS = [5, 9, 12, 13, 20, 28, STEPS]
#: Settings with which a schedule changes the rate soon; those of a course have their own steps.
SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": {"warmup": 7},
    "step": {"every": 6, "gamma": 0.5},
    "cosine": {"steps": STEPS, "warmup": 3},
    "linear": {"steps": 20},
    "inverse_sqrt": {"warmup": 4},
    "plateau": {"patience": 1, "gamma": 0.5, "min_delta": 0.02, "metric": "valid_accuracy"},
}
CALLBACKS: dict[str, dict[str, Any]] = {"early_stopping": {"patience": 4, "min_delta": 0.4}}
TIMES = {"steps_per_second", "elements_per_second", "seconds", "run"}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pieces") / "tokens"
    write_tokens(path, {"train": [80, 60, 33], "valid": [50, 21]})
    return path


def job_of(tokens: Path, steps: int, **changes: Any) -> dict[str, Any]:
    settings = {"evaluate_every": 3, "checkpoint_every": 4, "keep": 2} | changes
    return token_job(tokens, steps=steps, optimizer={"name": "adam", "lr": 0.1}, **settings)


def run_of(raw: dict[str, Any], out: Path) -> Result:
    return train(make_job(raw), REGISTRY, out=out, resume=True)


def untimed(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in TIMES}


def facts_of(run: Path) -> dict[str, dict[str, Any]]:
    """What the checkpoints of a run know, without their times and the job's steps.

    And without what a piece has measured only because it ended: it counts for the last one alone.
    """
    found = {}
    paths = sorted((run / "checkpoints").iterdir())
    for path in paths:
        facts = json.loads((path / "checkpoint.json").read_text())
        drop = ["started", "seconds", "sha256", "job"]
        if path != paths[-1] and (facts["only_at_end"] or facts["evaluation"] is None):
            drop += ["valid_loss", "evaluation", "monitored", "only_at_end"]
        found[path.name] = {name: fact for name, fact in facts.items() if name not in drop}
    return found


def test_every_schedule_and_callback_is_tried() -> None:
    assert SCHEDULES.keys() == builtin.rnnfarm_schedules().keys()
    assert CALLBACKS.keys() == builtin.rnnfarm_callbacks().keys()


@pytest.mark.parametrize(
    "parts",
    [{"schedule": {"name": name, **more}} for name, more in SCHEDULES.items()]
    + [{"callbacks": [{"name": name, **more}]} for name, more in CALLBACKS.items()]
    + [{"evaluate_every": 0}, {"monitor": "valid_accuracy"}],
    ids=[*SCHEDULES, *CALLBACKS, "only at the end", "monitored accuracy"],
)
def test_pieces(tokens: Path, tmp_path: Path, parts: dict[str, Any]) -> None:
    whole = run_of(job_of(tokens, STEPS, **parts), tmp_path / "whole")
    for steps in ENDS:
        result = run_of(job_of(tokens, steps, **parts), tmp_path / "pieces")
    assert untimed(result.to_dict()) == untimed(whole.to_dict())
    due = parts.get("evaluate_every", 3)
    runs = [[untimed(e) for e in entries(tmp_path / name)] for name in ("whole", "pieces")]
    extra = [s for s in ENDS[:-1] if not due or s % due]  # measured at the end of a piece alone
    extra = [s for s in extra if s < whole.steps]
    runs[1] = [e for e in runs[1] if not ("valid_loss" in e and e["step"] in extra)]
    assert runs[0] == runs[1]
    assert facts_of(tmp_path / "whole") == facts_of(tmp_path / "pieces")
    if "callbacks" in parts:
        assert whole.steps < STEPS
    described = [
        json.loads((tmp_path / name / "run.json").read_text()) for name in ("whole", "pieces")
    ]
    assert described[0]["best"] == described[1]["best"]


def test_a_run_that_stopped_stays_stopped(tokens: Path, tmp_path: Path) -> None:
    callback = {"name": "early_stopping", "patience": 1, "min_delta": 9.0}
    first = run_of(job_of(tokens, STEPS, callbacks=[callback]), tmp_path / "run")
    again = run_of(job_of(tokens, 2 * STEPS, callbacks=[callback]), tmp_path / "run")
    assert first.steps == again.steps == 6
    assert first.seconds == again.seconds > 0


def test_what_a_run_took_is_summed_over_its_pieces(tokens: Path, tmp_path: Path) -> None:
    seconds, started = [], []
    for steps in (5, 10, 15):
        result = run_of(job_of(tokens, steps), tmp_path / "run")
        described = json.loads((tmp_path / "run" / "run.json").read_text())
        assert described["seconds"] == result.seconds
        assert described["started"] <= described["ended"]
        seconds.append(result.seconds)
        started.append(described["started"])
    assert 0 < seconds[0] < seconds[1] < seconds[2]
    assert len(set(started)) == 1


def test_the_best_is_said_where_a_run_stops(
    tokens: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import io

    from rnnfarm.report import Progress

    said = io.StringIO()
    callback = {"name": "early_stopping", "patience": 2, "min_delta": 9.0}
    job = make_job(job_of(tokens, STEPS, callbacks=[callback]))
    with caplog.at_level(logging.WARNING):
        result = train(
            job, REGISTRY, out=tmp_path / "run", progress=Progress(quiet=False, stream=said)
        )
    assert result.best is not None
    assert f"; the best was valid_loss {result.best.value:.6g} at step " in said.getvalue()
    table = result.summary()
    assert list(table)[:4] == ["run", "steps", "best", "last step"]
    assert table["last valid_loss"] == result.valid_loss


def test_a_callback_is_told_which_evaluation_is_only_the_last(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int]] = []
    for name in ("on_evaluation", "on_last_evaluation"):
        monkeypatch.setattr(
            EarlyStopping, name, lambda self, e, name=name: told.append((name, e["step"]))
        )
    run_of(job_of(tokens, 7, callbacks=[{"name": "early_stopping"}]), tmp_path / "a")
    assert told == [("on_evaluation", 3), ("on_evaluation", 6), ("on_last_evaluation", 7)]
    told.clear()
    run_of(job_of(tokens, 6, callbacks=[{"name": "early_stopping"}]), tmp_path / "b")
    assert told == [("on_evaluation", 3), ("on_evaluation", 6)]


def test_a_run_that_a_callback_stops_is_measured_where_it_stopped(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: EarlyStopping, metrics: dict[str, Any]) -> None:
        self.stop = "enough" if metrics["step"] == 5 else None

    monkeypatch.setattr(EarlyStopping, "on_step", stop)
    result = run_of(job_of(tokens, 9, callbacks=[{"name": "early_stopping"}]), tmp_path / "run")
    assert result.last is not None
    assert (result.steps, result.last["step"]) == (5, 5)
