"""Labels and targets of tables: for each row, or for a whole sequence."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as papq
import pytest
from data_tools import sentence_of
from table_tools import build, build_with, notes, origins, own, sequences, table

from rnnfarm.builtin.tables import CSV, Parquet
from rnnfarm.data import Dataset
from rnnfarm.data.manifest import Column
from rnnfarm.data.table_labels import in_order
from rnnfarm.errors import DataError, JobError


def labelled(labels: list[Any], rows: int = 3) -> str:
    """A table with a group of so many rows for each label."""
    cells = ((f"g{i}", i, label) for i, label in enumerate(labels) for _ in range(rows))
    return table("who,x,kind", cells)


def names(dataset: Dataset, split: str = "train") -> list[Any]:
    vocabulary = dataset.vocabulary("label")
    assert vocabulary is not None
    assert vocabulary.entries is not None
    return [vocabulary.entries[label] for (label,) in own(dataset, split, "label")]


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (["b", "a", "c"], ["a", "b", "c"]),
        (["10", "9", "-1"], ["-1", "9", "10"]),
        (["1.5", "1.25"], ["1.25", "1.5"]),
    ],
)
def test_the_order_of_labels(labels: list[str], wanted: list[str]) -> None:
    assert in_order(labels) == wanted


@pytest.mark.parametrize("kind", ["csv", "parquet", "numbers"])
def test_a_label_for_each_sequence(tmp_path: Path, kind: str) -> None:
    labels: list[Any] = ["no", "yes", "no", "maybe"]
    if kind == "numbers":
        labels = [7, 10, 7, 8]
    if kind == "csv":
        dataset = build(tmp_path, labelled(labels), group="who", label="kind")
    else:
        columns = {
            "who": np.repeat(np.arange(4), 3), "x": np.repeat(np.arange(4.0), 3),
            "kind": [label for label in labels for _ in range(3)],
        }  # fmt: skip
        papq.write_table(pa.table(columns), tmp_path / "t.parquet")
        reader = Parquet(files=["t.parquet"], group="who", label="kind", valid=0)
        dataset = build_with(reader, tmp_path)
    assert dataset.columns["label"] == Column.tokens(3, own=True)
    assert dataset.columns["values"].names == ["x"]
    assert names(dataset) == [str(label) for label in labels]
    assert [rows[0, 0] for rows in sequences(dataset)] == [0, 1, 2, 3]


def test_labels_of_mixed_groups(tmp_path: Path) -> None:
    lines = labelled(["no", "yes", "no"]).splitlines()
    mixed = "\n".join([lines[0], *(lines[i] for i in (7, 1, 4, 8, 2, 5, 9, 3, 6))]) + "\n"
    dataset = build(tmp_path, mixed, group="who", label="kind")
    assert [origin.name for origin in origins(dataset)] == ["g2", "g0", "g1"]
    assert names(dataset) == ["no", "no", "yes"]


def test_every_label_is_in_every_part(tmp_path: Path) -> None:
    labels = ["rare" if i % 10 == 3 else "usual" for i in range(100)]
    settings = {"group": "who", "label": "kind", "valid": 0.2, "test": 0.1}
    dataset = build(tmp_path, labelled(labels, 2), **settings)
    counts = {s: (names(dataset, s).count("rare"), len(names(dataset, s))) for s in dataset.splits}
    usual = [f"g{i}" for i, label in enumerate(labels) if label == "usual"]
    hashes = [hashlib.sha256(name.encode()).hexdigest() for name in usual]
    places = [int(digits[:12], 16) / 16**12 for digits in hashes]
    tested, held = sum(p < 0.1 for p in places), sum(p < 0.1 + 0.2 for p in places)
    assert counts == {
        "train": (7, 7 + 90 - held),
        "valid": (2, 2 + held - tested),
        "test": (1, 1 + tested),
    }


def test_a_label_for_each_row(tmp_path: Path) -> None:
    text = table("x,state", ((i, "on" if i % 3 else "off") for i in range(10)))
    dataset = build(tmp_path, text, label="state", label_per="row", valid=0.2)
    assert dataset.columns["label"] == Column.tokens(2)
    vocabulary = dataset.vocabulary("label")
    assert vocabulary is not None
    assert vocabulary.entries == ["off", "on"]
    assert sequences(dataset, "train", "label")[0].tolist() == [0, 1, 1, 0, 1, 1, 0, 1]
    assert sequences(dataset, "valid", "label")[0].tolist() == [1, 0]


def test_rows_without_a_label_do_not_count(tmp_path: Path) -> None:
    rows = [(1, "a"), (None, "b"), (3, None), (4, "a")]
    settings = {"label": "state", "label_per": "row", "missing": "mask"}
    dataset = build(tmp_path, table("x,state", rows), **settings)
    assert sequences(dataset, "train", "label")[0].tolist() == [0, 1, 0, 0]
    assert sequences(dataset, "train", "observed")[0].tolist() == [1, 1, 0, 1]


def test_sequences_without_a_label_are_left_out_and_said(tmp_path: Path) -> None:
    text = labelled(["a", None, "b", None])
    text = text.replace("g2,2,b", "g2,2,", 1)  # the first row of one that has a label
    dataset = build(tmp_path, text, group="who", label="kind", missing="mask")
    assert names(dataset) == ["a", "b"]
    said = "2 sequences have no label or target and are left out"
    assert f"{said} (the first: {tmp_path / 't.csv'}, line 5)" in notes(dataset)


def test_a_target_for_each_sequence(tmp_path: Path) -> None:
    text = labelled([1.5, 0.25, -2, 8])
    settings = {"group": "who", "target": ["kind"], "target_per": "sequence", "valid": 0.25}
    dataset = build(tmp_path, text, **settings)
    assert dataset.columns["target"] == Column.values(1, True, ["kind"], ["value"])
    assert dataset.columns["values"].names == ["x"]
    found = {
        o.name: t
        for s in ("train", "valid")
        for o, t in zip(origins(dataset, s), own(dataset, s, "target"), strict=True)
    }
    assert found == {"g0": [[1.5]], "g1": [[0.25]], "g2": [[-2]], "g3": [[8]]}
    assert dataset.splits["valid"].sequences == 1


def test_a_label_that_training_lacks_is_said(tmp_path: Path) -> None:
    settings = {"group": "who", "label": "kind", "valid_groups": ["g1"]}
    dataset = build(tmp_path, labelled(["a", "b", "a"]), **settings)
    assert "no sequence of the training part has the label 'b'" in notes(dataset)


@pytest.mark.parametrize(
    ("text", "settings", "error", "what"),
    [
        (table("x,kind", [(1, "a"), (2, "a"), (3, "b")]), {}, DataError,
         "line 4: column 'kind' is not what the sequence's rows before have; .* label_per = 'row'"),
        (table("x,kind", [(1, "a"), (2, None)]), {}, DataError,
         "line 3: column 'kind' has no value; .* missing = 'mask'"),
        (table("x,kind", [(1, "a"), (2, None)]), {"label_per": "row"}, DataError,
         "line 3: column 'kind' has no value"),
        (table("x,kind", [(1, None), (2, None)]), {"missing": "mask"}, DataError,
         "column 'kind' holds no label"),
        (table("x,kind", [(1, 2), (1, 3)]),
         {"label": None, "target": ["kind"], "target_per": "sequence"}, DataError,
         "line 3: column 'kind' is not what .* target_per = 'row'"),
        (table("x,kind", [(1, "a")]), {"label": "sort"}, JobError, "no column 'sort'"),
        (table("x,kind", [(1, "a")]), {"split": "tail"}, JobError, "cannot be in two parts"),
        (table("x,kind", [(1, "a")]), {"target_per": "sequence"}, JobError, "'target' too"),
        (table("x,kind", [(1, 2)]), {"values": ["kind"]}, JobError, "both name the column 'kind'"),
    ],
)  # fmt: skip
def test_wrong_labels(
    tmp_path: Path, text: str, settings: dict[str, Any], error: Any, what: str
) -> None:
    with pytest.raises(error, match=what) as raised:
        build(tmp_path, text, **{"label": "kind"} | settings)
    sentence_of(raised.value)


def test_too_many_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rnnfarm.data.table_plan.MOST_LABELS", 4)
    with pytest.raises(DataError, match="there are more than 4 labels in column 'kind'"):
        build(tmp_path, labelled(list("abcdef")), group="who", label="kind")


@pytest.mark.parametrize("label_per", ["sequence", "row"])
def test_predictions_need_no_label_and_know_those_there_were(
    tmp_path: Path, label_per: str
) -> None:
    settings = {"files": ["t.csv"], "group": "who", "label": "kind", "label_per": label_per}
    dataset = build(tmp_path, labelled(["b", "a"]), **settings)
    vocabulary = dataset.vocabulary("label")
    assert vocabulary is not None
    assert dataset.provenance is not None
    reader = CSV(**settings)
    reader.recall(dataset.provenance.learned, {"label": vocabulary})
    for number, (text, wanted) in enumerate(
        (
            (table("x,who", [(1, "g"), (2, "g")]), [None]),
            (
                table("x,who,kind", [(1, "g", "b"), (2, "h", "b"), (3, "i", "c"), (4, "j", None)]),
                [1, 1, None, None],
            ),
        )
    ):
        path = tmp_path / f"new-{number}.csv"
        path.write_text(text)
        pieces = list(reader.inputs(path))
        found = [p.columns["label"][0] if "label" in p.columns else None for p in pieces]
        assert found == wanted
