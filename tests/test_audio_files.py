"""Labels of sound files from names, folders and tables, and the splits they are put into."""

from __future__ import annotations

import wave
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_tools import sentence_of
from training_tools import REGISTRY

from rnnfarm.builtin.audio import Wav
from rnnfarm.data import Dataset, build_dataset
from rnnfarm.errors import DataError, JobError
from rnnfarm.input_settings import map_files
from rnnfarm.job import read_job
from rnnfarm.training.evaluate import evaluate_run
from rnnfarm.training.session import train


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(np.arange(400, dtype="<i2").tobytes())


def build(folder: Path, name: str = "data", **settings: Any) -> Dataset:
    reader = Wav(**{"files": ["**/*.wav"], "valid": 0.0, "mels": 2} | settings)
    reader.base = folder
    return build_dataset(reader, folder / name)


def files(dataset: Dataset, split: str) -> list[tuple[str, str]]:
    """The name and the label of the files of a split."""
    part, vocabulary = dataset.split(split), dataset.vocabulary("label")
    assert vocabulary is not None
    assert vocabulary.entries is not None
    assert dataset.provenance is not None
    found = []
    for start in part.starts().tolist():
        path = Path(dataset.provenance.files[part.origin(start).file].path)
        found.append((path.name, vocabulary.entries[int(part.own("label", start)[0])]))
    return found


def notes(dataset: Dataset) -> list[str]:
    assert dataset.provenance is not None
    return dataset.provenance.notes


def test_labels_from_folders(tmp_path: Path) -> None:
    for split in ("training", "testing"):
        for label in ("yes", "no"):
            write(tmp_path / split / label / f"{split[0]}{label}.wav")
    held = {"test": {"folder": ["testing"]}}
    dataset = build(tmp_path, labels="folder", **held)
    assert sorted(files(dataset, "train")) == [("tno.wav", "no"), ("tyes.wav", "yes")]
    assert sorted(files(dataset, "test")) == [("tno.wav", "no"), ("tyes.wav", "yes")]
    with pytest.raises(JobError, match="no file has 'tests' as its folder; did you mean 'testing'"):
        build(tmp_path, "wrong", labels="folder", test={"folder": ["tests"]})


TABLES = {
    "paths": "file,label,part\nx/a.wav,cat,train\nx/b.wav,dog,dev\ny/c.wav,cat,train\n",
    "names": "part;label;file\ntrain;cat;a.wav\ndev;dog;b.wav\ntrain;cat;c.wav\n",
    "stems": "file\tlabel\tpart\na\tcat\ttrain\n\nb\tdog\tdev\nc\tcat\ttrain\n",
    "quotes": '\ufefffile,label,part\r\n"a.wav","cat","train"\r\nb.wav,dog,dev\r\n'
    "c.wav,cat,train\r\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_labels_from_a_table(tmp_path: Path, name: str) -> None:
    for path in ("x/a.wav", "x/b.wav", "y/c.wav"):
        write(tmp_path / path)
    (tmp_path / "labels.csv").write_text(TABLES[name], encoding="utf-8")
    dataset = build(tmp_path, table="labels.csv", valid={"part": ["dev"]})
    assert files(dataset, "train") == [("a.wav", "cat"), ("c.wav", "cat")]
    assert files(dataset, "valid") == [("b.wav", "dog")]
    assert notes(dataset) == []
    assert dataset.provenance is not None
    assert str(tmp_path / "labels.csv") in [file.path for file in dataset.provenance.files]


def test_what_a_table_does_not_name_is_said(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.wav")
    (tmp_path / "t.csv").write_text("file,label\na,x\nz,y\nb,x\n")
    dataset = build(tmp_path, table="t.csv")
    assert [name for name, _ in files(dataset, "train")] == ["a.wav", "b.wav"]
    table = tmp_path / "t.csv"
    assert notes(dataset) == [
        f"left out 1 of 3 files that {table} does not name, such as {tmp_path / 'c.wav'}",
        f"1 of 3 rows of {table} name no file of 'files', such as 'z'",
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("path,label\na,x\n", r"line 1: has no column 'file'; name the columns file and label"),
        ("file,labels\na,x\n", r"line 1: has no column 'label'; .*\(did you mean 'labels'"),
        ("file,label\na,x\nb\n", r"line 3: has 1 cells where line 1 names 2 columns"),
        ("file,label\na,x\n\nb,\n", r"line 4: has nothing in its column 'label'"),
        ("file,label\na,x\na,y\n", r"line 3: names 'a' again"),
        ("file,label\nq,x\n", r"names none of the files of 'files', such as .*a\.wav"),
        ("file,label\nc.wav,x\n", r"'c\.wav' may be any of 2 files"),
    ],
)
def test_wrong_tables(tmp_path: Path, text: str, what: str) -> None:
    for path in ("a.wav", "b.wav", "x/c.wav", "y/c.wav"):
        write(tmp_path / path)
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=what) as error:
        build(tmp_path, table="t.csv")
    assert str(tmp_path / "t.csv") in sentence_of(error.value)


def test_every_label_gives_its_part(tmp_path: Path) -> None:
    counts = {"few": 10, "many": 40}
    for label, count in counts.items():
        for i in range(count):
            write(tmp_path / f"{label}_{i}.wav")
    dataset = build(tmp_path, valid=0.2, test=0.1, stratified=True)
    found = {
        split: Counter(label for _, label in files(dataset, split)) for split in dataset.splits
    }
    assert found == {
        "train": {"few": 7, "many": 28}, "valid": {"few": 2, "many": 8},
        "test": {"few": 1, "many": 4},
    }  # fmt: skip
    again = build(tmp_path, "again", valid=0.2, test=0.1, stratified=True)
    assert files(again, "valid") == files(dataset, "valid")


def test_groups_before_shares(tmp_path: Path) -> None:
    for label in "ab":
        for i in range(12):
            write(tmp_path / f"{label}_{'ann' if i < 2 else 'bob'}_{i}.wav")
    pattern = "(?P<label>[ab])_(?P<speaker>[a-z]+)_.*"
    held = {"test": {"speaker": ["ann"]}, "valid": 0.2}
    dataset = build(tmp_path, pattern=pattern, stratified=True, **held)
    assert len(files(dataset, "test")) == 4
    assert all("ann" in name for name, _ in files(dataset, "test"))
    assert Counter(label for _, label in files(dataset, "valid")) == {"a": 2, "b": 2}


def test_a_name_without_a_label_says_what_else_there_is(tmp_path: Path) -> None:
    write(tmp_path / "yes" / "001.wav")
    with pytest.raises(DataError, match=r'001\.wav: its name .* \(labels = "folder"\)') as error:
        build(tmp_path)
    sentence_of(error.value)


def test_the_label_of_a_file_that_is_measured(tmp_path: Path) -> None:
    for name in ("a_1", "b_1"):
        write(tmp_path / f"{name}.wav")
    spell = {"a": "ax", "b": "xb"}
    dataset = build(tmp_path, spell=spell)
    vocabularies = {name: dataset.vocabulary(name) for name in ("label", "letters")}
    reader = Wav(files=["*.wav"], mels=2, spell=spell)
    reader.recall({"rate": 8000}, {name: v for name, v in vocabularies.items() if v is not None})
    write(tmp_path / "new" / "b_9.wav")
    (piece,) = reader.inputs_with_targets(tmp_path / "new" / "b_9.wav")
    assert piece.columns["label"].tolist() == [1]
    assert piece.columns["letters"].tolist() == [3, 2]  # after the blank: a, b, x
    assert piece.columns["features"].shape[1] == 2
    write(tmp_path / "new" / "c_9.wav")
    with pytest.raises(DataError, match=r"c_9\.wav: no file of the data has its label 'c'") as e:
        list(reader.inputs_with_targets(tmp_path / "new" / "c_9.wav"))
    sentence_of(e.value)


def test_the_table_travels_with_a_job() -> None:
    settings = {"files": ["a/*.wav"], "table": "t.csv", "labels": "folder"}
    assert map_files(Wav, settings, lambda at, pattern: f"{at}={pattern}") == {
        "files": ["files.0=a/*.wav"], "table": "table=t.csv", "labels": "folder",
    }  # fmt: skip


def test_a_run_finds_the_table_of_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abcd":
        write(tmp_path / "w" / f"{name}.wav")
    (tmp_path / "w" / "t.csv").write_text("file,label\na,x\nb,y\nc,x\nd,y\n")
    raw = {
        "data": {
            "path": "d", "mode": "examples", "target": "label",
            "build": {
                "reader": "wav", "files": ["w/[ab].wav"], "table": "w/t.csv", "mels": 2,
                "valid": 0.0,
            },
        },
        "model": {
            "input": {"kind": "none"}, "layers": [{"cell": "gru", "hidden": 2}], "pool": "last",
            "loss": "cross_entropy",
        },
        "training": {"batch": 1, "window": 8, "steps": 1},
    }  # fmt: skip
    train(read_job(raw, REGISTRY, tmp_path), REGISTRY, out=tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = evaluate_run(tmp_path / "run", REGISTRY, input=tmp_path / "w" / "c.wav")
    assert found["accuracy"] in (0.0, 1.0)
