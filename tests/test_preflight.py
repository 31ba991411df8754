"""What is refused before the first step, and what the error says."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_tools import sentence_of
from table_tools import build, table
from test_loop import gaps_job, write_gaps
from training_tools import REGISTRY, entries, make_job, token_job, value_job, write_tokens

from rnnfarm.data import Column, DatasetWriter
from rnnfarm.errors import JobError, RunError
from rnnfarm.training.result import Result
from rnnfarm.training.session import train


def run_of(raw: dict[str, Any], out: Path, **more: Any) -> Result:
    return train(make_job(raw), REGISTRY, out=out, **more)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("preflight") / "tokens"
    write_tokens(path, {"train": [80, 60, 33], "valid": [50, 21]})
    return path


def test_a_folder_with_a_run_is_refused_before_the_data_are_built(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("some text to learn from " * 50)
    build = {"reader": "characters", "files": [str(tmp_path / "t.txt")]}
    raw = token_job(tmp_path / "d", data={"build": build}, steps=1)
    run_of(raw, tmp_path / "run")
    shutil.rmtree(tmp_path / "d")
    with pytest.raises(JobError, match="there is a run in this folder"):
        run_of(raw, tmp_path / "run")
    raw["training"]["batch"] = 8
    with pytest.raises(JobError, match=r"training\.batch was 4 and is now 8"):
        run_of(raw, tmp_path / "run", resume=True)
    assert not (tmp_path / "d").exists()


# -- learning rates of the past --------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_other_steps_are_refused_where_they_change_what_was_done(
    tokens: Path, tmp_path: Path, schedule: str
) -> None:
    raw = token_job(tokens, steps=6, schedule={"name": schedule, "warmup": 2})
    run_of(raw, tmp_path / "run")
    raw["training"]["steps"] = 9
    with pytest.raises(JobError) as error:
        run_of(raw, tmp_path / "run", resume=True)
    found = sentence_of(error.value)
    assert f"schedule '{schedule}' ends with the run" in found
    assert "its steps from 4 on would have had other learning rates" in found
    # What the sentence says to do.
    raw["training"]["schedule"]["steps"] = 6
    assert run_of(raw, tmp_path / "run", resume=True).steps == 9
    rates = {e["step"]: e["lr"] for e in entries(tmp_path / "run") if "lr" in e}
    assert rates[9] == 0.0
    whole = run_of(raw, tmp_path / "whole")
    assert {e["step"]: e["lr"] for e in entries(tmp_path / "whole") if "lr" in e} == rates
    assert whole.steps == 9


@pytest.mark.parametrize("schedule", ["constant", "inverse_sqrt", {"name": "step", "every": 2}])
def test_schedules_that_do_not_end_with_the_run_go_on(
    tokens: Path, tmp_path: Path, schedule: Any
) -> None:
    raw = token_job(tokens, steps=3, schedule=schedule)
    run_of(raw, tmp_path / "run")
    raw["training"]["steps"] = 5
    assert run_of(raw, tmp_path / "run", resume=True).steps == 5


# -- targets ---------------------------------------------------------------------------------------


HOURLY = table("when,x,y", ((f"2026-01-01 {h:02}:00", h, h % 5 or None) for h in range(24)))
CALENDAR = {"time": "when", "calendar": ["hour"]}
NEXT_IS_MORE = (
    "data.target: 'next' learns, and is measured by, all of the next step, which holds {} besides "
    "what was measured; set data.mode = 'forecast' to learn that alone"
)
COPIES = (
    "data.target: 'target' is of the same step as the input, which holds {} too, so that a model "
    "learns to copy; leave data.target out to learn the next step, set data.mode = 'forecast', or "
    "build the data with other columns in 'values'"
)


@pytest.mark.parametrize(
    ("settings", "data", "said"),
    [
        ({}, {}, NEXT_IS_MORE.format("'x:observed', 'y:observed'")),
        (CALENDAR, {"mode": "examples"},
         NEXT_IS_MORE.format("'hour:sin', 'hour:cos', 'x:observed' and 1 more")),
        ({}, {"target": "target"}, COPIES.format("'x', 'y'")),
        ({"values": ["x", "y"], "target": ["y"]}, {"target": "target"}, COPIES.format("'y'")),
        ({"values": ["x"], "target": ["y"]}, {"target": "target"}, None),
        ({}, {"mode": "forecast", "horizon": 1}, None),
    ],
)  # fmt: skip
def test_targets_that_are_hardly_meant_are_said(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    settings: dict[str, Any],
    data: dict[str, Any],
    said: str | None,
) -> None:
    made = build(tmp_path, HOURLY, missing="mask", **{"time": "when"} | settings)
    raw = value_job(made.path, data=data, batch=1, window=4, steps=1)
    if data.get("mode") == "forecast":
        raw["model"]["pool"] = "last"
    with caplog.at_level(logging.WARNING, "rnnfarm"):
        run_of(raw, tmp_path / "run")
    targets = [r.getMessage() for r in caplog.records if r.getMessage().startswith("data.target")]
    assert targets == ([] if said is None else [said])


@pytest.mark.parametrize(("gone", "what"), [("train", "learned"), ("valid", "measured")])
def test_a_split_of_which_no_target_was_observed(tmp_path: Path, gone: str, what: str) -> None:
    seen = {"train": "1" * 32, "valid": "1" * 16}
    seen[gone] = "0" * len(seen[gone])
    path = write_gaps(tmp_path / "d", **seen)
    with pytest.raises(JobError) as error:
        run_of(gaps_job(path), tmp_path / "run")
    assert f"no target of split '{gone}' counts, so that nothing can be {what}" in str(error.value)
    assert "none of them was observed" in sentence_of(error.value)
    assert not (tmp_path / "run").exists()


def test_windows_of_an_evaluation_without_a_target(tmp_path: Path) -> None:
    path = write_gaps(tmp_path / "d", "1" * 32, "0" * 64 + "1" * 64)
    raw = gaps_job(path, evaluate_windows=2)
    with pytest.raises(JobError, match=r"the first 2 windows have none; raise training\.evaluate_"):
        run_of(raw, tmp_path / "run")
    raw["training"] |= {"evaluate_windows": 0, "steps": 1}
    assert run_of(raw, tmp_path / "run").valid_loss is not None


def test_sequences_of_one_step(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "d", {"values": Column.values(1)}) as writer:
        for k in range(40):
            writer.append("train", {"values": np.full((1, 1), k, np.float32)})
    with pytest.raises(
        JobError, match="each of its 40 sequences has one step, after which nothing"
    ):
        run_of(value_job(tmp_path / "d"), tmp_path / "run")


def test_a_class_that_is_always_ignored(tmp_path: Path) -> None:
    columns = {"tokens": Column.tokens(4), "labels": Column.tokens(3)}
    with DatasetWriter(tmp_path / "d", columns) as writer:
        writer.append("train", {"tokens": np.arange(60) % 4, "labels": np.zeros(60, int)})
    loss = {"name": "cross_entropy", "ignore": 0}
    raw = token_job(tmp_path / "d", data={"target": "labels"}, model={"loss": loss})
    with pytest.raises(JobError, match=r"all of them are ignored by model\.loss"):
        run_of(raw, tmp_path / "run")


def test_a_run_whose_steps_had_no_target_ends_with_an_error(tmp_path: Path) -> None:
    """There are some, but the run is over before it comes to them; going on it does."""
    path = write_gaps(tmp_path / "d", "0" * 24 + "1" * 24, "1" * 16)
    with pytest.raises(RunError) as error:
        run_of(gaps_job(path, steps=3), tmp_path / "run")
    assert "no target counted in any of the 3 steps" in sentence_of(error.value)
    assert not (tmp_path / "run" / "run.json").exists()
    found = [e for e in entries(tmp_path / "run") if "train_loss" in e]
    assert [e["train_loss"] for e in found] == [None] * 3
    result = run_of(gaps_job(path, steps=4), tmp_path / "run", resume=True)
    assert result.train_loss is not None


def test_keys_without_effect_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_tokens(tmp_path / "d", {"train": [80]})
    raw = token_job(tmp_path / "d", steps=1, evaluate_every=1, precision="bf16", kernel="numpy")
    run_of(raw, tmp_path / "run")
    assert "training.evaluate_every: nothing is evaluated, as the dataset has no" in caplog.text
    assert "training.precision: 'bf16' is how a GPU rounds" in caplog.text
    caplog.clear()
    run_of(token_job(tmp_path / "d", steps=1), tmp_path / "other")
    assert caplog.text == ""


TARGETS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "next, though a target was built": (
        {"target": ["b"]}, {}, "so 'values' one step later is learned, and not 'target'"),
    "next, as the job says": ({"target": ["b"]}, {"target": "next"}, ""),
    "the target": ({"target": ["b"]}, {"target": "target"}, ""),
    "next of a table alone": ({}, {}, ""),
    "a forecast of a column that is not read": (
        {"target": ["b"], "values": ["a"]}, {"mode": "forecast", "horizon": 2},
        "the past of 'b', which is forecast, is not among the inputs (a)"),
    "a forecast of a column that is read": (
        {"target": ["b"], "values": ["a", "b"]}, {"mode": "forecast", "horizon": 2}, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_that_may_not_be_meant(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    build, data, wanted = TARGETS[name]
    lines = [f"{i % 5},{i % 7}" for i in range(100)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b", *lines]) + "\n")
    build = {"reader": "csv", "files": [str(tmp_path / "t.csv")], "valid": 0.2, **build}
    model = {"pool": "last"} if data.get("mode") == "forecast" else {}
    raw = value_job(tmp_path / "d", steps=1, data={"build": build, **data}, model=model)
    run_of(raw, tmp_path / "run")
    assert wanted in caplog.text
    assert ("data.target" in caplog.text) == bool(wanted)
