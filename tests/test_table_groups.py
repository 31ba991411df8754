"""Groups of tables: where they are from, and rows that are not in the order of their groups."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as papq
import pytest
from data_tools import sentence_of

from rnnfarm.builtin.tables import CSV, Parquet
from rnnfarm.data import Dataset, build_dataset, open_dataset
from rnnfarm.data.origin import Origin
from rnnfarm.data.row_numbers import RowNumbers
from rnnfarm.errors import DataError, JobError


def origins(dataset: Dataset, split: str = "train") -> list[Origin]:
    part = dataset.split(split)
    return [part.origin(int(start)) for start in part.starts()]


def values(dataset: Dataset, split: str = "train") -> list[Any]:
    """The values of each sequence of a split."""
    part = dataset.split(split)
    return np.split(part.read("values", 0, part.steps), part.starts()[1:].tolist())


def build(reader: Any, folder: Path) -> Dataset:
    reader.base = folder
    return build_dataset(reader, folder / f"built-{len(list(folder.glob('built-*')))}")


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


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("memory", [1 << 12, 1 << 30])
def test_groups_that_come_back_are_gathered(tmp_path: Path, kind: str, memory: int) -> None:
    rng = np.random.default_rng(3)
    groups = np.concatenate([[4, 1], rng.integers(0, 6, 3000)])
    x, y = np.arange(3002.0), rng.standard_normal(3002).astype(np.float32)
    reader: Any
    if kind == "csv":
        rows = (f"{x[i]:.0f},g{group},{float(y[i])!r}\n" for i, group in enumerate(groups))
        (tmp_path / "t.csv").write_text("x,who,y\n" + "".join(rows))
        reader = CSV(files=["t.csv"], group="who", valid=0.1)
    else:
        table = pa.table({"x": x, "who": [f"g{group}" for group in groups], "y": y})
        papq.write_table(table, tmp_path / "t.parquet", row_group_size=700)
        reader = Parquet(files=["t.parquet"], group="who", valid=0.1)
    with mock.patch("rnnfarm.data.table_rows.MEMORY", memory):
        dataset = build(reader, tmp_path)
    order = list(dict.fromkeys(groups.tolist()))
    found, held = values(dataset, "train"), values(dataset, "valid")
    for number, group in enumerate(order):
        rows = np.flatnonzero(groups == group)
        wanted = np.stack([x[rows], y[rows]], axis=1)
        np.testing.assert_array_equal(np.concatenate([found[number], held[number]]), wanted)
        first = 2 if kind == "csv" else 1
        cut = rows[len(found[number])]
        assert origins(dataset)[number] == Origin(f"g{group}", 0, int(rows[0]) + first)
        assert origins(dataset, "valid")[number] == Origin(f"g{group}", 0, int(cut) + first)
    assert dataset.provenance is not None
    notes = "\n".join(dataset.provenance.notes)
    assert "the 6 groups in 'who' are mixed" in notes


def test_the_row_at_which_a_group_comes_back_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("g,x\na,1\na,2\nb,3\na,4\n")
    dataset = build(CSV(files=["t.csv"], group="g", values=["x"], valid=0), tmp_path)
    assert [rows[:, 0].tolist() for rows in values(dataset)] == [[1, 2, 4], [3]]
    assert dataset.provenance is not None
    assert "one comes back in " + str(tmp_path / "t.csv, line 5") in "\n".join(
        dataset.provenance.notes
    )


def test_a_group_goes_on_in_the_next_file(tmp_path: Path) -> None:
    for name, start in (("b", 1), ("a", 3)):  # the names are not in the order of time
        stamps = [f"2024-01-0{start + i}" for i in range(2)]
        rows = "".join(
            f"{stamp},{group},{group}{stamp[-1]}\n" for stamp in stamps for group in "12"
        )
        (tmp_path / f"{name}.csv").write_text("when,who,x\n" + rows)
    settings = {"files": ["*.csv"], "time": "when", "group": "who", "values": ["x"], "valid": 0}
    dataset = build(CSV(**settings), tmp_path)
    assert [rows[:, 0].tolist() for rows in values(dataset)] == [[11, 12, 13, 14], [21, 22, 23, 24]]
    names = [Path(file.path).name for file in dataset.provenance.files]  # type: ignore[union-attr]
    assert [(o.name, names[o.file], o.row) for o in origins(dataset)] == [
        ("1", "b.csv", 2), ("2", "b.csv", 3),
    ]  # fmt: skip
    assert dataset.provenance is not None
    assert "in the order of their first times: b.csv, a.csv" in "\n".join(dataset.provenance.notes)


def test_files_of_one_series_are_joined(tmp_path: Path) -> None:
    for name, days in (("10", (5, 6)), ("2", (1, 2, 3)), ("9", ())):
        rows = "".join(f"2024-01-0{day},{day}\n" for day in days)
        (tmp_path / f"{name}.csv").write_text("when,x\n" + rows)
    settings = {"files": ["*.csv"], "time": "when", "valid": 0.4}
    dataset = build(CSV(**settings, join=True), tmp_path)
    assert [rows[:, 0].tolist() for rows in values(dataset)] == [[1, 2, 3]]
    assert [rows[:, 0].tolist() for rows in values(dataset, "valid")] == [[5, 6]]
    names = [Path(file.path).name for file in dataset.provenance.files]  # type: ignore[union-attr]
    (origin,) = origins(dataset, "valid")
    assert (names[origin.file], origin.row) == ("10.csv", 2)


def test_files_joined_without_times_are_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("10", "9"):
        (tmp_path / f"{name}.csv").write_text(f"x\n{name}\n{name}\n")
    dataset = build(CSV(files=["*.csv"], valid=0, join=True), tmp_path)
    assert [rows[:, 0].tolist() for rows in values(dataset)] == [[10, 10, 9, 9]]
    assert dataset.provenance is not None
    said = "in the order of their names (name a column in 'time' for theirs): 10.csv, 9.csv"
    assert said in "\n".join(dataset.provenance.notes)


def test_files_whose_times_overlap_are_not_joined(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("when,x\n2024-01-01,1\n2024-01-03,2\n")
    (tmp_path / "b.csv").write_text("when,x\n2024-01-02,3\n2024-01-04,4\n")
    settings = {"files": ["*.csv"], "time": "when", "valid": 0, "join": True}
    what = r"b.csv, line 2: .* \(2024-01-02\) is before the row before it .*a.csv, line 3\)"
    with pytest.raises(DataError, match=what) as raised:
        build(CSV(**settings), tmp_path)
    sentence_of(raised.value)
    dataset = build(CSV(**settings, sort=True), tmp_path)
    assert [rows[:, 0].tolist() for rows in values(dataset)] == [[1, 3, 2, 4]]


@pytest.mark.parametrize("memory", [1 << 10, 1 << 30])
def test_rows_are_sorted_by_time(tmp_path: Path, memory: int) -> None:
    rng = np.random.default_rng(0)
    days = rng.integers(1, 29, 500)
    groups = rng.integers(0, 3, 500)
    rows = [
        f"2024-02-{day:02},{group},{i}\n"
        for i, (day, group) in enumerate(zip(days, groups, strict=True))
    ]
    (tmp_path / "t.csv").write_text("when,who,x\n" + "".join(rows))
    settings = {"files": ["t.csv"], "time": "when", "group": "who", "values": ["x"], "valid": 0}
    with mock.patch("rnnfarm.data.table_rows.MEMORY", memory):
        dataset = build(CSV(**settings, sort=True), tmp_path)
    for group, found in zip(dict.fromkeys(groups.tolist()), values(dataset), strict=True):
        rows_of = np.flatnonzero(groups == group)
        order = np.argsort(days[rows_of], kind="stable")
        assert found[:, 0].tolist() == rows_of[order].tolist()


def test_sorting_needs_a_time(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x\n1\n")
    with pytest.raises(JobError, match="setting 'sort': name the column of times"):
        build(CSV(files=["t.csv"], sort=True), tmp_path)


def test_the_first_rows_of_mixed_groups(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("g,x\n" + "".join(f"{'ab'[i % 2]},{i}\n" for i in range(9)))
    settings = {"files": ["t.csv"], "group": "g", "values": ["x"], "valid": 0, "first": 3}
    dataset = build(CSV(**settings), tmp_path)
    assert [rows[:, 0].tolist() for rows in values(dataset)] == [[0, 2, 4], [1, 3, 5]]


PEAK = """
import functools, re, sys
import pyarrow.csv as pacsv
from rnnfarm.builtin.tables import CSV, Parquet
from rnnfarm.data import build_dataset, shards, table_rows, writer
table_rows.MEMORY = 4 << 20
writer.BATCH_BYTES = shards.BATCH_BYTES = 1 << 20
# pyarrow reads some 32 blocks ahead, which the smaller file would not fill.
pacsv.ReadOptions = functools.partial(pacsv.ReadOptions, block_size=1 << 17)
reader = CSV if sys.argv[1].endswith("csv") else Parquet
build_dataset(reader(files=[sys.argv[1]], group="who", valid=0), sys.argv[2])
status = open("/proc/self/status").read()  # what getrusage says begins with the parent's
print(int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) << 10)
"""


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_gathering_takes_constant_memory(tmp_path: Path, kind: str) -> None:
    peaks = []
    for rows in (200_000, 1_000_000):  # of 36 bytes while they are sorted
        path = tmp_path / f"{rows}.{kind}"
        columns = {f"x{i}": np.full(rows, i, np.int8) for i in range(4)}
        columns |= {"row": np.arange(rows) // 50, "who": np.arange(rows) % 50}
        if kind == "csv":
            pacsv.write_csv(pa.table(columns), path)
        else:
            papq.write_table(pa.table(columns), path, row_group_size=20_000)
        command = [sys.executable, "-c", PEAK, str(path), str(tmp_path / f"built-{rows}")]
        # Arrow's own pools keep pages that nobody needs, as many as the threads' timing lets them.
        pool = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system"}
        done = subprocess.run(command, check=True, capture_output=True, env=pool)
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 16 << 20
    split = open_dataset(tmp_path / "built-1000000").split("train")
    assert split.sequences == 50
    found = split.read("values", 19_999, 40_000)
    np.testing.assert_array_equal(found[:, 4], [19_999, *range(20_000)])


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
