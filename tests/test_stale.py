"""Whether a dataset is what its build would give now: settings, source files, moved folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from rnnfarm.builtin.readers import Characters
from rnnfarm.data import build_dataset, build_from_settings, open_dataset
from rnnfarm.data.stale import Build, changes_since
from rnnfarm.plugins import Registry

REGISTRY = Registry.load()


def write(path: Path, *values: int) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("x\n" + "".join(f"{value}\n" for value in values))


def built(folder: Path, reader: str = "csv", **settings: Any) -> None:
    build_from_settings(reader, settings, folder / "d", REGISTRY, base=folder)


def changed(folder: Path, reader: str = "csv", **settings: Any) -> tuple[list[str], list[str]]:
    provenance = open_dataset(folder / "d").provenance
    assert provenance is not None
    found = changes_since(provenance, Build(reader, settings, folder), REGISTRY)
    return found.changed, found.missing


@pytest.fixture
def table(tmp_path: Path) -> Path:
    write(tmp_path / "t" / "y.csv", *range(20))
    built(tmp_path / "t", files=["y.csv"], valid=0.2)
    return tmp_path / "t"


def test_nothing_has_changed(table: Path) -> None:
    same = {"files": ["y.csv"], "valid": 0.2}
    assert changed(table, **same) == ([], [])
    assert changed(table, **same, test=0.0, missing="error") == ([], [])  # defaults, written out
    assert changed(table, files=["./y.csv"], valid=0.2) == ([], [])
    assert changed(table, files=[str(table / "y.csv")], valid=0.2) == ([], [])
    assert changed(table, files=["?.csv"], valid=0.2) == ([], [])
    assert changed(table, "rnnfarm.builtin.tables:CSV", **same) == ([], [])


def test_a_setting_that_has_changed_is_named_with_its_values(table: Path) -> None:
    assert changed(table, files=["y.csv"], valid=0.5, first=7)[0] == [
        "data.build.first was not set and is 7", "data.build.valid was 0.2 and is 0.5",
    ]  # fmt: skip
    assert changed(table, files=["y.csv"])[0] == ["data.build.valid was 0.2 and is 0.1"]
    assert changed(table, "parquet", files=["y.csv"], valid=0.2)[0] == [
        "data.build.reader was 'csv' and is 'parquet'"
    ]


def test_a_file_that_has_changed_is_named(table: Path) -> None:
    path = table / "y.csv"
    same = {"files": ["y.csv"], "valid": 0.2}
    time = path.stat().st_mtime_ns
    path.touch()
    assert changed(table, **same) == ([], [])  # touched, but equal
    path.write_text(path.read_text().replace("7", "8"))
    assert changed(table, **same)[0] == [f"{path} has changed (its size has not)"]
    size = path.stat().st_size
    write(path, *range(30))
    os.utime(path, ns=(time, time))
    assert changed(table, **same)[0] == [
        f"{path} has changed ({size} bytes then, {path.stat().st_size} now)"
    ]
    assert changed(table, files=["z.csv"], valid=0.2)[0] == [
        "data.build.files was ['y.csv'] and is ['z.csv']"
    ]


def test_files_that_are_new_or_gone(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.csv", *range(9))
    built(tmp_path, files=["?.csv"])
    (tmp_path / "b.csv").unlink()
    assert changed(tmp_path, files=["?.csv"]) == ([], [str(tmp_path / "b.csv")])
    write(tmp_path / "d.csv", 1, 2, 3)
    assert changed(tmp_path, files=["?.csv"])[0] == [f"{tmp_path / 'd.csv'} is new"]
    for path in tmp_path.glob("*.csv"):
        path.unlink()
    assert changed(tmp_path, files=["?.csv"])[0] == []
    assert len(changed(tmp_path, files=["?.csv"])[1]) == 3


def test_a_file_that_changes_its_part_is_a_change(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(f"{name} text\n" * 20)
    built(tmp_path, "characters", files=["a.txt"], valid_files=["b.txt", "c.txt"])
    assert changed(tmp_path, "characters", files=["a.txt"], valid_files=["b.txt", "c.txt"])[0] == []
    assert changed(tmp_path, "characters", files=["a.txt", "b.txt"], valid_files=["c.txt"])[0] == [
        "data.build.files was ['a.txt'] and is ['a.txt', 'b.txt']",
        "data.build.valid_files was ['b.txt', 'c.txt'] and is ['c.txt']",
    ]


def test_files_in_a_table_of_settings(tmp_path: Path) -> None:
    for name in ("a.en", "a.de", "b.en", "b.de"):
        (tmp_path / name).write_text("one two\n" * 9)
    files: dict[str, Any] = {"source": {"train": ["a.en"]}, "target": {"train": ["a.de"]}}
    built(tmp_path, "parallel-text", **files)
    assert changed(tmp_path, "parallel-text", **files) == ([], [])
    files["source"] = {"train": ["a.en"], "valid": ["b.en"]}
    assert changed(tmp_path, "parallel-text", **files)[0] == [
        "data.build.source.valid was not set and is ['b.en']"
    ]


def test_a_folder_that_was_moved_or_copied(table: Path) -> None:
    same = {"files": ["y.csv"], "valid": 0.2}
    copy = table.with_name("copy")
    shutil.copytree(table, copy, copy_function=shutil.copyfile)  # with other times
    assert changed(copy, **same) == ([], [])
    write(copy / "y.csv", 1, 2, 3)
    assert changed(copy, **same)[0][0].startswith(f"{copy / 'y.csv'} has changed")
    assert changed(table, **same) == ([], [])
    table.rename(table.with_name("moved"))
    assert changed(table.with_name("moved"), **same) == ([], [])


def test_a_dataset_that_python_built_is_that_of_a_job(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text\n" * 20)
    build_dataset(Characters(files=[str(tmp_path / "a.txt")]), tmp_path / "d")
    assert changed(tmp_path, "characters", files=["a.txt"]) == ([], [])


def test_the_sources_of_python_are_known(tmp_path: Path) -> None:
    build_from_settings("python-source", {"max_bytes": 30_000}, tmp_path / "d", REGISTRY)
    provenance = open_dataset(tmp_path / "d").provenance
    assert provenance is not None
    assert sum(file.bytes for file in provenance.files) > 10_000
    assert changed(tmp_path, "python-source", max_bytes=30_000) == ([], [])
