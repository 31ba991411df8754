"""What a dataset keeps of what it was built from, and where its sequences are from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rnnfarm.builtin.labels import LabelledText
from rnnfarm.data import Column, DatasetWriter, Reader, Sequence, build_dataset, open_dataset
from rnnfarm.data.origin import NOWHERE, Origin


class Pairs(Reader):
    """Files of numbers, two values a step, a sequence a line.

    files: the files.
    """

    files: list[str]

    def columns(self) -> dict[str, Column]:
        self._paths = self.find_files(self.files, "files")
        return {"values": Column.values(2, names=["low", "high"], roles=["value", "value"])}

    def sequences(self) -> Iterator[Sequence]:
        for path in self._paths:
            for number, line in enumerate(path.read_text().splitlines(), 1):
                values = np.array(line.split(), np.float32).reshape(-1, 2)
                origin = self.origin(path, number, f"line of {path.stem}")
                yield Sequence("train", {"values": values[:1]}, origin=origin)
                yield Sequence("train", {"values": values[1:]}, continues=True)

    def learned(self) -> dict[str, Any]:
        return {"width": 2}

    def notes(self) -> list[str]:
        return ["nothing was left out"]


@pytest.fixture
def built(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text("1 2 3 4\n5 6 7 8 9 10\n")
    (tmp_path / "b.txt").write_text("0 0 1 1\n")
    reader = Pairs(files=["a.txt", "b.txt"])
    reader.base = tmp_path
    said: list[str] = []
    build_dataset(reader, tmp_path / "d", progress=said.append, name="pairs")
    assert said[-1].endswith("nothing was left out")
    return tmp_path / "d"


def test_a_dataset_says_what_it_was_built_from(built: Path) -> None:
    provenance = open_dataset(built).provenance
    assert provenance is not None
    assert (provenance.reader, provenance.settings) == ("pairs", {"files": ["a.txt", "b.txt"]})
    assert (provenance.learned, provenance.notes) == ({"width": 2}, ["nothing was left out"])
    for file in provenance.files:
        path = Path(file.path)
        assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (file.bytes, file.modified) == (path.stat().st_size, path.stat().st_mtime_ns)
    assert [Path(file.path).name for file in provenance.files] == ["a.txt", "b.txt"]
    info = open_dataset(built).info()
    assert info["built_from"]["files"][1]["path"] == str(built.parent / "b.txt")
    assert info["columns"]["values"]["names"] == ["low", "high"]


def test_each_sequence_has_its_origin(built: Path) -> None:
    split = open_dataset(built).split("train")
    assert split.starts().tolist() == [0, 2, 5]
    assert [split.origin(start) for start in (0, 2, 5)] == [
        Origin("line of a", 0, 1), Origin("line of a", 0, 2), Origin("line of b", 1, 1),
    ]  # fmt: skip
    with pa.ipc.open_file(str(built / "shard-00000.arrow")) as file:
        assert file.read_all().column("origin_row").to_pylist() == [1, -1, 2, -1, 1, -1]


def test_a_dataset_without_origins_or_provenance(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "d", {"t": Column.tokens(9)}) as writer:
        writer.append("train", {"t": np.arange(5)}, origin=Origin("x", 0, 1))
    dataset = open_dataset(tmp_path / "d")
    assert dataset.provenance is None
    assert dataset.info()["built_from"] is None
    assert dataset.split("train").origin(0) == NOWHERE
    manifest = json.loads((tmp_path / "d" / "dataset.json").read_text())
    assert "provenance" not in manifest
    assert "origins" not in manifest


def test_names_are_as_many_as_values(built: Path) -> None:
    manifest = json.loads((built / "dataset.json").read_text())
    manifest["columns"]["values"]["names"] = ["low"]
    (built / "dataset.json").write_text(json.dumps(manifest))
    with pytest.raises(Exception, match=r"columns\.values: names has 1 entries for 2 values"):
        open_dataset(built)


def test_what_was_learned_is_recalled() -> None:
    reader = Pairs(files=[])
    reader.recall({"width": 2}, {})
    assert reader._recalled == {"width": 2}


def test_a_part_that_gets_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("yes good\nno bad\n")
    reader = LabelledText(files=["t.txt"], valid=0.001)
    reader.base = tmp_path
    build_dataset(reader, tmp_path / "d")
    provenance = open_dataset(tmp_path / "d").provenance
    assert provenance is not None
    said = "valid = 0.001 gives no sequence for 'valid'; there is no such part"
    assert said in provenance.notes
