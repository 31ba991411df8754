"""Groups of tables: where they are from, and rows that are not in the order of their groups."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as papq
import pytest

from rnnfarm.builtin.tables import CSV, Parquet
from rnnfarm.data import Dataset, build_dataset, open_dataset
from rnnfarm.data.origin import Origin
from rnnfarm.data.row_numbers import RowNumbers


def origins(dataset: Dataset, split: str = "train") -> list[Origin]:
    part = dataset.split(split)
    return [part.origin(int(start)) for start in part.starts()]


def build(reader: Any, folder: Path) -> Dataset:
    reader.base = folder
    build_dataset(reader, folder / "built")
    return open_dataset(folder / "built")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("g,x\na,1\na,2\nb,3\n", [2, 4]),
        ("g,x\na,1\na,2\nb,3", [2, 4]),
        ("g,x\n\na,1\n\n\na,2\nb,3\n", [3, 7]),
        ('g,x\n"a\nb",1\n"a\nb",2\n"b\n\nc",3\n', [2, 6]),
    ],
)
def test_a_sequence_of_csv_knows_its_group_and_line(
    tmp_path: Path, text: str, lines: list[int]
) -> None:
    (tmp_path / "t.csv").write_text(text)
    (tmp_path / "u.csv").write_text("g,x\nb,1\n")
    dataset = build(CSV(files=["t.csv"], values=["x"], group="g", valid=0), tmp_path)
    names = ["a\nb", "b\n\nc"] if '"' in text else ["a", "b"]
    wanted = [Origin(name, 0, line) for name, line in zip(names, lines, strict=True)]
    assert origins(dataset) == wanted


def test_both_parts_of_a_sequence_have_its_origin(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x\n" + "1\n" * 10)
    dataset = build(CSV(files=["t.csv"], valid=0.2), tmp_path)
    assert origins(dataset, "train") == [Origin("", 0, 2)]
    assert origins(dataset, "valid") == [Origin("", 0, 10)]


def test_jumps_of_row_numbers_alone_are_kept() -> None:
    lines = [2, 3, 4, 7, 8, 12]
    numbers = RowNumbers(2, lines)
    assert [numbers[row] for row in range(6)] == lines
    assert numbers._rows == [0, 3, 5]


@pytest.mark.parametrize(
    ("groups", "names"),
    [
        (pa.array([7, 7, 8]), ["7", "8"]),
        (pa.array(["x", "x", "y"]).dictionary_encode(), ["x", "y"]),
        (pa.array([datetime.date(2024, 1, 1)] * 2 + [None]).fill_null(datetime.date(2024, 1, 2)),
         ["2024-01-01", "2024-01-02"]),
    ],
)  # fmt: skip
def test_a_sequence_of_parquet_knows_its_group_and_row(
    tmp_path: Path, groups: Any, names: list[str]
) -> None:
    papq.write_table(pa.table({"g": groups, "x": [1.0, 2.0, 3.0]}), tmp_path / "t.parquet")
    dataset = build(Parquet(files=["t.parquet"], group="g", values=["x"], valid=0), tmp_path)
    assert origins(dataset) == [Origin(names[0], 0, 1), Origin(names[1], 0, 3)]
