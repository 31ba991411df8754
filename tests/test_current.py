"""What training does with a dataset that is out of date: refuse it, rebuild it, or use it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from training_tools import REGISTRY, make_job

from rnnfarm.cli import cli
from rnnfarm.data import DatasetWriter, build_from_settings, open_dataset
from rnnfarm.errors import DataError, JobError
from rnnfarm.training.evaluate import evaluate_run
from rnnfarm.training.predict import predict
from rnnfarm.training.session import Result, train


def table(path: Path, count: int, factor: float = 1.0) -> None:
    path.write_text("y\n" + "".join(f"{factor * np.sin(k / 3):.4f}\n" for k in range(count)))


def job(folder: Path, /, **data: Any) -> dict[str, Any]:
    build = {"reader": "csv", "files": ["y.csv"], "valid": 0.25}
    return {
        "data": {"path": "d", "base": str(folder), "build": build} | data,
        "model": {
            "input": {"kind": "none"},
            "layers": [{"cell": "gru", "hidden": 3}],
            "loss": "mse",
        },
        "training": {"batch": 2, "window": 5, "steps": 3, "checkpoint_every": 3},
    }


def run(folder: Path, out: str, resume: bool = False, **changes: Any) -> Result:
    return train(make_job(job(folder, **changes)), REGISTRY, out=folder / out, resume=resume)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    table(tmp_path / "y.csv", 80)
    run(tmp_path, "r")
    return tmp_path


def steps(folder: Path) -> int:
    return sum(split.steps for split in open_dataset(folder / "d").splits.values())


def test_a_new_run_refuses_it_and_says_what_has_changed(trained: Path) -> None:
    table(trained / "y.csv", 90)
    build = job(trained)["data"]["build"] | {"valid": 0.5}
    with pytest.raises(JobError) as raised:
        run(trained, "r2", build=build)
    sentence = str(raised.value)
    assert f"{trained / 'y.csv'} has changed" in sentence
    assert "data.build.valid was 0.25 and is 0.5; build it anew with --rebuild" in sentence
    assert "\n" not in sentence
    assert steps(trained) == 80


def test_it_is_used_as_it_is_where_the_job_says_so(
    trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table(trained / "y.csv", 90)
    first = json.loads((trained / "r" / "run.json").read_text())
    assert run(trained, "r2", stale="use").parameters_sha256 == first["parameters_sha256"]
    assert "y.csv has changed" in caplog.text
    assert "it is used as it is" in caplog.text


def test_it_is_rebuilt_where_the_job_says_so(trained: Path) -> None:
    shard = trained / "d" / "shard-00000.arrow"
    before = shard.stat().st_ino
    run(trained, "r2", stale="rebuild")
    assert shard.stat().st_ino == before  # nothing has changed
    table(trained / "y.csv", 90)
    result = run(trained, "r3", stale="rebuild")
    assert steps(trained) == 90
    run(trained, "r4")  # and now it is up to date
    assert result.parameters_sha256 == run(trained, "r5").parameters_sha256
    assert sorted(path.name for path in trained.iterdir()) == [
        "d", "r", "r2", "r3", "r4", "r5", "y.csv",
    ]  # fmt: skip


def test_what_cannot_be_rebuilt_stays(trained: Path) -> None:
    before = {path: path.read_bytes() for path in (trained / "d").iterdir()}
    (trained / "y.csv").write_text("y\nno number\n" * 40)
    with pytest.raises((DataError, JobError), match=r"y\.csv"):
        run(trained, "r2", stale="rebuild")
    assert {path: path.read_bytes() for path in (trained / "d").iterdir()} == before
    assert [path.name for path in trained.glob("d*")] == ["d"]


def test_a_resumed_run_goes_on_with_its_data(
    trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table(trained / "y.csv", 90)
    result = train(
        make_job(job(trained) | {"training": job(trained)["training"] | {"steps": 6}}),
        REGISTRY,
        out=trained / "r",
        resume=True,
    )
    assert result.steps == 6
    assert "y.csv has changed" in caplog.text
    with pytest.raises(JobError, match="out of date"):
        run(trained, "other", resume=True)  # there is nothing to go on with


def test_a_dataset_of_unknown_origin_is_used_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table(tmp_path / "y.csv", 80)
    run(tmp_path, "r")
    known = open_dataset(tmp_path / "d")
    with DatasetWriter(tmp_path / "e", known.columns) as writer:
        writer.append("train", {"values": np.ones((40, 1), np.float32)})
    with caplog.at_level(logging.WARNING):
        run(tmp_path, "r2", path="e")
    assert caplog.text == ""


def test_a_dataset_built_by_the_command_is_compared_with_its_own_files(tmp_path: Path) -> None:
    table(tmp_path / "y.csv", 80)
    settings = {"files": [str(tmp_path / "y.csv")]}
    build_from_settings("csv", settings, tmp_path / "d", REGISTRY)
    run(tmp_path, "r", build=None)
    table(tmp_path / "y.csv", 90)
    with pytest.raises(JobError, match=r"out of date: .*y\.csv has changed"):
        run(tmp_path, "r2", build=None)
    run(tmp_path, "r2", build=None, stale="rebuild")
    assert steps(tmp_path) == 90


def test_evaluate_and_predict_warn_of_another_dataset(
    trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table(trained / "y.csv", 90, factor=100.0)
    evaluate_run(trained / "r", REGISTRY)
    assert "y.csv has changed" in caplog.text
    assert "is not the dataset that" not in caplog.text  # it is: its file has changed since
    caplog.clear()
    run(trained, "r2", stale="rebuild")
    for use in (
        lambda: evaluate_run(trained / "r", REGISTRY),
        lambda: list(predict(trained / "r", REGISTRY, split="valid")),
    ):
        caplog.clear()
        use()
        assert "is not the dataset that" in caplog.text
        assert "(its train and valid differ)" in caplog.text
    caplog.clear()
    evaluate_run(trained / "r2", REGISTRY)
    assert caplog.text == ""


def test_a_dataset_that_is_gone_is_built_again_or_its_place_is_asked_for(
    trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    measured = evaluate_run(trained / "r", REGISTRY)["loss"]
    (trained / "d").rename(trained / "gone")
    assert evaluate_run(trained / "r", REGISTRY)["loss"] == measured
    assert "is not the dataset that" not in caplog.text
    (trained / "d").rename(trained / "gone too")
    (trained / "y.csv").unlink()
    with pytest.raises(DataError) as raised:
        evaluate_run(trained / "r", REGISTRY)
    assert f"write its new place into data.path of {trained / 'r' / 'job.toml'}" in str(
        raised.value
    )


def test_the_options_of_the_command_line(trained: Path) -> None:
    table(trained / "y.csv", 90)
    (trained / "job.toml").write_text(
        """
[data]
path = "d"
build = { reader = "csv", files = ["y.csv"], valid = 0.25 }
[model]
input = { kind = "none" }
layers = [{ cell = "gru", hidden = 3 }]
loss = "mse"
[training]
batch = 2
window = 5
steps = 1
"""
    )
    train_it = ["train", str(trained / "job.toml"), "--quiet", "--out"]
    runner = CliRunner()
    assert runner.invoke(cli, [*train_it, str(trained / "a")]).exit_code != 0
    assert runner.invoke(cli, [*train_it, str(trained / "b"), "--stale"]).exit_code == 0
    assert steps(trained) == 80
    assert runner.invoke(cli, [*train_it, str(trained / "c"), "--rebuild"]).exit_code == 0
    assert steps(trained) == 90
    build = ["data", "build", "csv", str(trained / "d"), str(trained / "y.csv"), "--quiet"]
    table(trained / "y.csv", 70)
    assert runner.invoke(cli, build).exit_code != 0
    assert steps(trained) == 90
    assert runner.invoke(cli, [*build, "--rebuild"]).exit_code == 0
    assert steps(trained) == 70
