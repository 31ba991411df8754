"""A file that is measured: what of it counts, and what is left out or refused."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as pacsv
import pytest
from data_tools import sentence_of
from table_tools import table
from training_tools import REGISTRY

from rnnfarm.errors import DataError
from rnnfarm.job import read_job
from rnnfarm.training.evaluate import evaluate_run
from rnnfarm.training.predict import predict
from rnnfarm.training.session import train

LABELS = ["a", "b", "b", None, "a", None, "b", "a"]  # of groups of 3 rows


def groups(labels: list[Any], rows: int = 3) -> str:
    """A table with a group of so many rows for each label, and one of them its number."""
    cells = ((f"g{i}", i + j, label) for i, label in enumerate(labels) for j in range(rows))
    return table("who,x,kind", cells)


def run_of(folder: Path, text: str, settings: dict[str, Any], target: str, **model: Any) -> Path:
    """A run of two steps on a table in t.csv."""
    (folder / "t.csv").write_text(text)
    build = {"reader": "csv", "files": ["t.csv"], "valid": 0.3, "group": "who", **settings}
    usual = {"input": {"kind": "none"}, "layers": [{"cell": "gru", "hidden": 3}]}
    raw = {
        "data": {"path": str(folder / "data"), "build": build, "mode": "examples",
                 "target": target},
        "model": {**usual, "loss": "cross_entropy", **model},
        "training": {"batch": 2, "window": 8, "steps": 2},
    }  # fmt: skip
    train(read_job(raw, REGISTRY, folder), REGISTRY, out=folder / "run")
    return folder / "run"


def labelled_run(folder: Path) -> Path:
    settings = {"label": "kind", "missing": "mask"}
    return run_of(folder, groups(LABELS), settings, "label", pool="last")


def test_the_file_of_the_build_is_measured_without_what_has_no_label(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, path = labelled_run(tmp_path), tmp_path / "t.csv"
    caplog.clear()
    found = evaluate_run(run, REGISTRY, input=path)
    said = f"2 sequences have no label or target and are left out (the first: {path}, line 11)"
    assert [record.getMessage() for record in caplog.records] == [f"{path}: {said}"]
    caplog.clear()
    answers = {row["name"]: row["text"] for row in predict(run, REGISTRY, input=path)}
    assert len(answers) == len(LABELS)  # a prediction needs no label
    assert not caplog.records
    known = {f"g{i}": label for i, label in enumerate(LABELS) if label}
    counts = np.zeros((2, 2), int)
    for name, label in known.items():
        counts["ab".index(label), "ab".index(answers[name])] += 1
    assert found["confusion"] == {"classes": ["a", "b"], "counts": counts.tolist()}


def test_the_file_of_the_build_is_measured_without_what_has_no_target(tmp_path: Path) -> None:
    targets = [1.5, 2, None, 0.25, 8, 3, None, 1]
    settings = {"target": ["kind"], "target_per": "sequence", "missing": "mask"}
    run = run_of(tmp_path, groups(targets), settings, "target", pool="last", loss="mse")
    path = tmp_path / "t.csv"
    found = evaluate_run(run, REGISTRY, input=path)
    answers = {row["name"]: row["prediction"] for row in predict(run, REGISTRY, input=path)}
    errors = [
        np.ravel(answers[f"g{i}"])[0] - wanted
        for i, wanted in enumerate(targets)
        if wanted is not None
    ]
    assert found["mse"] == pytest.approx(np.mean(np.square(errors)), rel=1e-5)


def test_a_label_that_the_data_had_not_is_refused(tmp_path: Path) -> None:
    run, path = labelled_run(tmp_path), tmp_path / "new.csv"
    path.write_text(groups(["a", None, "c"]))
    what = r"new\.csv, line 8: column 'kind' has the label 'c', .*known: a, b"
    with pytest.raises(DataError, match=what) as raised:
        evaluate_run(run, REGISTRY, input=path)
    sentence_of(raised.value)
    assert len(list(predict(run, REGISTRY, input=path))) == 3


def test_a_label_of_a_row_that_the_data_had_not_is_refused(tmp_path: Path) -> None:
    text = table("who,x,kind", [("g", i, "ab"[i % 2] if i % 3 else None) for i in range(20)])
    settings = {"label": "kind", "label_per": "row", "missing": "mask"}
    run, path = run_of(tmp_path, text, settings, "label"), tmp_path / "new.csv"
    path.write_text(table("who,x,kind", [("g", 1, "a"), ("g", 2, None), ("g", 3, "c")]))
    with pytest.raises(DataError, match=r"new\.csv, line 4: column 'kind' has the label 'c'"):
        evaluate_run(run, REGISTRY, input=path)


def test_labels_that_nothing_is_measured_by_may_be_any(tmp_path: Path) -> None:
    """The model says the next values."""
    run = run_of(tmp_path, groups(list("abba")), {"label": "kind"}, "next", loss="mse")
    wanted = evaluate_run(run, REGISTRY, input=tmp_path / "t.csv")["mse"]
    (tmp_path / "new.csv").write_text(groups(["a", "c", None, "a"]))
    assert evaluate_run(run, REGISTRY, input=tmp_path / "new.csv")["mse"] == wanted


def test_a_file_without_any_label_is_refused(tmp_path: Path) -> None:
    run = labelled_run(tmp_path)
    (tmp_path / "new.csv").write_text(groups([None, None]))
    with pytest.raises(DataError, match=r"new\.csv, line 2: from here on, no sequence has the la"):
        evaluate_run(run, REGISTRY, input=tmp_path / "new.csv")


def test_a_sequence_with_a_label_that_is_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its label is in its first piece."""
    run, path = labelled_run(tmp_path), tmp_path / "long.csv"
    path.write_text(groups(["a", "b"], 500))
    wanted = evaluate_run(run, REGISTRY, input=path)
    small = functools.partial(pacsv.ReadOptions, block_size=1 << 10)
    monkeypatch.setattr(pacsv, "ReadOptions", small)
    assert evaluate_run(run, REGISTRY, input=path) == wanted
