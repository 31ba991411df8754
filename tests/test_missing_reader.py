"""A reader that only the machine which built the dataset has."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from conftest import Call

READER = """
from rnnfarm.data import Column, Reader, Sequence
import numpy as np

class Ramps(Reader):
    size: int = 6
    def columns(self):
        return {"values": Column.values(1)}
    def sequences(self):
        for split, count in (("train", 8), ("valid", 4)):
            for k in range(count):
                yield Sequence(split, {"values": np.linspace(0, k, self.size)[:, None]})
"""


@pytest.fixture
def folder(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job, its dataset and a run of it, and no reader any more."""
    raw: dict[str, Any] = {
        "data": {"path": "ramps", "build": {"reader": "only_there:Ramps", "size": 7}},
        "model": {
            "input": {"kind": "none"},
            "layers": [{"cell": "elman", "hidden": 2}],
            "loss": "mse",
        },
        "training": {"batch": 2, "window": 3, "steps": 2, "kernel": "numpy"},
    }
    (tmp_path / "job.toml").write_text(tomli_w.dumps(raw))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "only_there.py").write_text(READER)
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as there:
        there.syspath_prepend(str(tmp_path / "there"))
        code, _, errors = call("train", "job.toml", "--out", "run", "--quiet")
    assert code == 0, errors
    forget(monkeypatch)
    return tmp_path


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "only_there", raising=False)


def test_a_run_is_used_without_it(folder: Path, call: Call) -> None:
    code, out, errors = call("evaluate", "run", "--json")
    assert code == 0, errors
    assert errors == ""
    assert json.loads(out)["loss"] > 0
    code, out, errors = call("predict", "run", "--split", "valid")
    assert (code, errors) == (0, "")
    assert {json.loads(line)["sequence"] for line in out.splitlines()} == {0, 1, 2, 3}


def test_training_warns_where_the_dataset_is_there(
    folder: Path, call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    code, _, errors = call("train", "job.toml", "--out", "again", "--quiet")
    assert code == 0, errors
    (warning,) = [r.getMessage() for r in caplog.records if "data.build" in r.getMessage()]
    assert (
        "job.toml: the settings in data.build are not checked, since reader 'only_there:Ramps'"
        in (warning)
    )
    assert "does not load: ModuleNotFoundError: No module named 'only_there'" in warning
    first, second = (
        json.loads((folder / run / "run.json").read_text())["parameters_sha256"]
        for run in ("run", "again")
    )
    assert first == second


def test_what_else_is_wrong_is_refused_all_the_same(folder: Path, call: Call) -> None:
    code, _, errors = call("train", "job.toml", "--set", "model.loss=mze", "--out", "x")
    assert code == 3
    assert "there is no loss 'mze'" in errors


def test_without_the_dataset_it_is_missed(folder: Path, call: Call) -> None:
    shutil.rmtree(folder / "ramps")
    code, _, errors = call("train", "job.toml", "--out", "x")
    assert code == 3
    assert (
        "job.toml: data.build.reader: reader 'only_there:Ramps': 'only_there:Ramps' does not"
        in (errors)
    )
    code, _, errors = call("evaluate", "run")
    assert code == 3
    assert "No module named 'only_there'" in errors
    assert errors.count("\n") == 1
