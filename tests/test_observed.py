"""Which steps count follows from the column that is the target, in everything that counts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from table_tools import build, sequences, table
from training_tools import REGISTRY

from rnnfarm.data import Column, Dataset, DatasetWriter, open_dataset
from rnnfarm.data.examples import Examples
from rnnfarm.data.forecasts import Forecasts
from rnnfarm.data.observed import counted_by
from rnnfarm.data.scale import Scale
from rnnfarm.data.streams import Streams
from rnnfarm.job import read_job
from rnnfarm.training.counts import target_counts
from rnnfarm.training.evaluate import evaluate_run
from rnnfarm.training.session import train

Cells = npt.NDArray[np.float64]
ROWS, VALID = 120, 40


def cells() -> tuple[Cells, list[str | None]]:
    """Two columns and a label, each of which is missing in other rows."""
    random = np.random.default_rng(5)
    numbers = random.normal([10, -4], 1, (ROWS, 2)).round(3)
    for column, every in enumerate((5, 7)):
        numbers[column + 2 :: every, column] = np.nan
    labels = [None if row % 3 == 1 else "ab"[row % 2] for row in range(ROWS)]
    return numbers, labels


def text(*, labelled: bool = True) -> str:
    numbers, labels = cells()
    rows = [
        [None if np.isnan(v) else v for v in row] + ([label] if labelled else [])
        for row, label in zip(numbers.tolist(), labels, strict=True)
    ]
    return table("x,y,kind" if labelled else "x,y", rows)


MASK: dict[str, Any] = {"missing": "mask", "valid": VALID / ROWS}
LABELS: dict[str, Any] = {"label": "kind", "label_per": "row"}
X_TO_Y: dict[str, Any] = {"values": ["x"], "target": ["y"]}
#: What a dataset is built with, and the names of its columns of flags.
BUILT = {
    "alike": ({}, False, {"observed": None}),
    "labels": (
        LABELS, True, {"observed": ["label"], "target:observed": ["target", "values"]}
    ),
    "target": (X_TO_Y, False, {"observed": ["target"], "values:observed": ["values"]}),
    "all": (
        LABELS | X_TO_Y, True,
        {"observed": ["label"], "target:observed": ["target"], "values:observed": ["values"]},
    ),
}  # fmt: skip


def dataset_of(folder: Path, kind: str, **more: Any) -> tuple[Dataset, dict[str, Any]]:
    """Return a dataset, and which rows have a target of each of its columns, by the cells."""
    settings, labelled, _ = BUILT[kind]
    dataset = build(folder, text(labelled=labelled), **MASK, **settings, **more)
    numbers, labels = cells()
    there = ~np.isnan(numbers)
    of_values = there[:, 0] if "values" in settings else there.all(1)
    wanted = {"values": of_values, "target": there[:, 1] if "target" in settings else of_values}
    if labelled:
        wanted["label"] = np.array([label is not None for label in labels])
    return dataset, wanted


@pytest.mark.parametrize("kind", BUILT)
def test_a_column_of_flags_for_all_targets_that_are_at_the_same_rows(
    tmp_path: Path, kind: str
) -> None:
    dataset, wanted = dataset_of(tmp_path, kind)
    flags = {name: c.counts_for for name, c in dataset.columns.items() if c.is_flag}
    flags.pop("label", None)
    assert flags == BUILT[kind][2]
    for column, rows in wanted.items():
        name = counted_by(dataset.columns, column)
        assert name is not None
        found = np.concatenate([sequences(dataset, s, name)[0] for s in ("train", "valid")])
        assert found.tolist() == rows.astype(int).tolist()


def counted(dataset: Dataset, mode: str, target: str) -> set[int]:
    """Return the rows of the validation part that are counted as targets, of forecasts the first
    ones of a horizon of two."""
    split = dataset.split("valid")
    column = "values" if target == "next" else target
    name = counted_by(dataset.columns, column)
    reading: dict[str, Any] = {"input": "values", "target": target, "window": 6, "observed": name}
    if mode == "forecast":
        windows = Forecasts(split, horizon=2, seed=0, batch=1, **reading)
        return {int(begin) + 6 for begin in windows.begins}
    made = (
        Streams(split, batch=1, **reading)
        if mode == "streams"
        else Examples(split, seed=0, batch=1, **reading)
    )
    ahead, found, at = int(target == "next"), set(), 0
    for n in range(made.windows_in_epoch()):
        valid = made.read(n).valid[:, 0]
        found |= {at + int(step) + ahead for step in np.flatnonzero(valid)}
        at += len(valid)
    return found


@pytest.mark.parametrize("lookback", [0, 6])
@pytest.mark.parametrize("kind", BUILT)
def test_rows_count_by_the_column_that_is_the_target(
    tmp_path: Path, kind: str, lookback: int
) -> None:
    """Also the rows looked back at, which never count, whatever the target is."""
    dataset, wanted = dataset_of(tmp_path, kind, lookback=lookback)
    low = ROWS - VALID - lookback
    for column, rows in wanted.items():
        there = rows[low:].copy()
        there[:lookback] = False
        at = set(np.flatnonzero(there).tolist())
        assert counted(dataset, "examples", column) == at
        whole = len(there) // 6 * 6  # a stream leaves the rest out
        assert counted(dataset, "streams", column) == {row for row in at if row < whole}
        if column == "label":
            continue
        both = {row for row in range(6, len(there) - 1) if there[row] and there[row + 1]}
        assert counted(dataset, "forecast", column) == both
        if column == "values":
            assert counted(dataset, "examples", "next") == at - {0}


def test_a_dataset_that_does_not_say_of_which_column_it_speaks(tmp_path: Path) -> None:
    columns = {
        "values": Column.values(1),
        "label": Column.tokens(3),
        "own": Column.tokens(3, own=True),
    }
    assert counted_by(columns, "values") is None
    plain = columns | {"observed": Column.tokens(2)}
    assert [counted_by(plain, name) for name in columns] == ["observed", "observed", None]
    other = columns | {"observed": Column.values(1)}
    assert counted_by(other, "label") is None
    named = columns | {"observed": Column.flags(["label"]), "far": Column.flags(["own"])}
    assert [counted_by(named, name) for name in columns] == [None, "observed", None]
    with DatasetWriter(str(tmp_path / "d"), {"values": Column.values(1)} | {
        "observed": Column.tokens(2), "more": Column.flags(["values"])}) as writer:  # fmt: skip
        zeros = np.zeros(4, np.uint8)
        values = np.zeros((4, 1), np.float32)
        writer.append("train", {"values": values, "observed": zeros, "more": zeros})
    kept = open_dataset(tmp_path / "d")
    assert counted_by(kept.columns, "values") == "more"
    manifest = (tmp_path / "d" / "dataset.json").read_text()
    assert manifest.count("counts_for") == 1  # as it was before, where it says nothing


def test_scales_and_counts_are_of_what_was_there(tmp_path: Path) -> None:
    dataset, _ = dataset_of(tmp_path, "all")
    numbers, labels = cells()
    train_part = ROWS - VALID
    known = numbers[:train_part, 1].astype(np.float32).astype(np.float64)
    scale = Scale.of(dataset.split("train"), "target", is_target=True)
    assert scale.mean == pytest.approx([np.nanmean(known)], rel=1e-12)
    assert scale.deviation == pytest.approx([np.nanstd(known)], rel=1e-9)
    found = target_counts(dataset.split("train"), "label", ahead=False, goal="steps")
    assert found.tolist() == [labels[:train_part].count(kind) for kind in "ab"]


def run_of(folder: Path, data: dict[str, Any], kind: str, model: dict[str, Any]) -> Path:
    """Train a model for a few steps; return its run."""
    settings, labelled, _ = BUILT[kind]
    folder.mkdir()
    (folder / "t.csv").write_text(text(labelled=labelled))
    raw = {
        "data": {
            "path": "data",
            "build": {"reader": "csv", "files": ["t.csv"], **MASK, **settings},
            **data,
        },
        "model": {
            "input": {"kind": "linear", "size": 3},
            "layers": [{"cell": "gru", "hidden": 3}],
            "loss": "mse",
            **model,
        },
        "training": {"batch": 2, "window": 6, "steps": 2},
    }
    train(read_job(raw, REGISTRY, folder), REGISTRY, out=folder / "run")
    return folder / "run"


def test_forecasts_of_a_table_with_labels_are_those_of_one_without(tmp_path: Path) -> None:
    """All that is learned and measured; and by hand what the last value is wrong by."""
    data, model = {"mode": "forecast", "horizon": 1}, {"pool": "last"}
    runs = [run_of(tmp_path / kind, data, kind, model) for kind in ("alike", "labels")]
    plain, labelled = (evaluate_run(run, REGISTRY) for run in runs)
    for name in ("loss", "mse", "mae", "mase", "baseline", "left_out"):
        assert labelled[name] == plain[name]
    numbers = cells()[0][ROWS - VALID :].astype(np.float32).astype(np.float64)
    before = cells()[0]
    filled = np.zeros_like(numbers)
    for column in range(2):
        last = 0.0
        for row in range(VALID):  # gaps are filled over the whole sequence
            if np.isnan(numbers[row, column]):
                seen = before[: ROWS - VALID + row, column]
                last = float(np.float32(seen[~np.isnan(seen)][-1]))
            else:
                last = numbers[row, column]
            filled[row, column] = last
    rows = [row for row in range(6, VALID) if not np.isnan(numbers[row]).any()]
    errors = [numbers[row] - filled[row - 1] for row in rows]
    assert labelled["baseline"]["mse"] == pytest.approx(np.mean(np.square(errors)))
    assert labelled["left_out"]["unobserved"] == VALID - 6 - len(rows)


def test_a_file_is_measured_by_the_flags_of_the_target(tmp_path: Path) -> None:
    """As the split that holds the same rows; also where it lacks a label that is not asked for."""
    run = run_of(tmp_path / "d", {"mode": "forecast", "horizon": 1}, "labels", {"pool": "last"})
    lines = text().splitlines()
    for name, header, cut in (("with", "x,y,kind", None), ("without", "x,y", 2)):
        rows = [",".join(line.split(",")[:cut]) for line in lines[1:]]
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *rows]) + "\n")
    found = [
        evaluate_run(run, REGISTRY, input=tmp_path / f"{name}.csv") for name in ("with", "without")
    ]
    there = ~np.isnan(cells()[0]).any(axis=1)
    for metrics in found:
        assert metrics["left_out"]["unobserved"] == np.count_nonzero(~there[6:])
    assert found[0]["mse"] == found[1]["mse"]


def test_a_file_is_measured_where_the_data_look_back(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(table("x", ([row % 7] for row in range(60))))
    build = {"reader": "csv", "files": ["t.csv"], "lookback": 4, "valid": 0.25}
    raw = {
        "data": {"path": "data", "build": build},
        "model": {
            "input": {"kind": "linear", "size": 3},
            "layers": [{"cell": "gru", "hidden": 3}],
            "loss": "mse",
        },
        "training": {"batch": 2, "window": 6, "steps": 2},
    }
    train(read_job(raw, REGISTRY, tmp_path), REGISTRY, out=tmp_path / "run")
    (tmp_path / "new.csv").write_text(table("x", ([row] for row in (2, 5, 9))))
    found = evaluate_run(tmp_path / "run", REGISTRY, input=tmp_path / "new.csv")
    assert found["baseline"]["mse"] == pytest.approx((3**2 + 4**2) / 2)
