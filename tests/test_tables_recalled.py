"""Files that are read for a prediction: by the names and the rules of the training data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as papq
import pytest
from data_tools import sentence_of

from rnnfarm.builtin.csv_files import CSV
from rnnfarm.builtin.parquet_files import Parquet
from rnnfarm.data import Dataset, build_dataset
from rnnfarm.data.tables import TableReader
from rnnfarm.errors import DataError, JobError


def built(folder: Path, reader: TableReader) -> Dataset:
    reader.base = folder
    return build_dataset(reader, folder / "d")


def recalled(
    dataset: Dataset, kind: type[TableReader], path: Path, **settings: Any
) -> tuple[dict[str, Any], list[str]]:
    """The columns of a file as the dataset's reader reads it, and what there is to say of it."""
    reader = kind(**{"files": ["nothing"], **settings})
    assert dataset.provenance is not None
    reader.recall(dataset.provenance.learned, {})
    pieces = list(reader.inputs(path))
    names = pieces[0].columns
    return {
        name: np.concatenate([p.columns[name] for p in pieces]) for name in names
    }, reader.notes()


TRAIN = "when,temp,load,open,city\n" + "".join(
    f"{1 + i}.2.2024,{i / 4},{i * i},{'yes' if i % 3 else 'no'},{'abc'[i % 3]}\n" for i in range(20)
)
SETTINGS = {"time": "when", "calendar": ["weekday"], "categories": ["city"], "valid": 0.0}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    (tmp_path / "train.csv").write_text(TRAIN)
    return built(tmp_path, CSV(files=["train.csv"], **SETTINGS))


def test_the_file_of_the_build_gives_its_values(tmp_path: Path, dataset: Dataset) -> None:
    found, said = recalled(dataset, CSV, tmp_path / "train.csv", **SETTINGS)
    split = dataset.split("train")
    np.testing.assert_array_equal(found["values"], split.read("values", 0, split.steps))
    assert said == []


def test_columns_are_found_by_name(tmp_path: Path, dataset: Dataset) -> None:
    table = [line.split(",") for line in TRAIN.splitlines()]
    mixed = [[row[3], "9" if i else "more", *row[2::-1], row[4]] for i, row in enumerate(table)]
    text = "\n".join(";".join(row) for row in mixed) + "\n"
    (tmp_path / "other.csv").write_text(text.replace("yes", "TRUE"))
    found, said = recalled(dataset, CSV, tmp_path / "other.csv", **SETTINGS)
    split = dataset.split("train")
    np.testing.assert_array_equal(found["values"], split.read("values", 0, split.steps))
    assert said == ["columns that the run's data had not are not read: 'more'"]


@pytest.mark.parametrize(
    ("text", "error", "what"),
    [
        ("when,tmep,load,open,city\n", JobError, "no column 'temp', which the run's data hav"),
        ("when,temp,load,open\n", JobError, r"no column 'city' \(setting 'categories'\)"),
        ("when,temp,temp,load,open,city\n", DataError, "has 2 columns 'temp'"),
        ("when,temp,load,open,city\n1.2.2024,1 C,1,no,a\n", DataError, "line 2: column 'temp' is"),
        ("when,temp,load,open,city\n1.2.2024,1,1,0,a\n", DataError, "line 2: column 'open' is"),
        ("when,temp,load,open,city\n2024-02-01,1,1,no,a\n", DataError, "write it as '%d.%m.%Y'"),
        ("when,temp,load,open,city\n1.2.2024,1,1,no,\n", DataError, "column 'city' has no value"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit(
    tmp_path: Path, dataset: Dataset, text: str, error: type[Exception], what: str
) -> None:
    (tmp_path / "other.csv").write_text(text)
    with pytest.raises(error, match=what) as raised:
        recalled(dataset, CSV, tmp_path / "other.csv", **SETTINGS)
    sentence_of(raised.value)  # type: ignore[arg-type]


def test_a_category_that_was_not_there_is_none_of_them(tmp_path: Path, dataset: Dataset) -> None:
    (tmp_path / "other.csv").write_text(
        "when,temp,load,open,city\n1.2.2024,1,2,no,z\n2.2.2024,1,2,no,a\n"
    )
    found, said = recalled(dataset, CSV, tmp_path / "other.csv", **SETTINGS)
    np.testing.assert_array_equal(found["values"][0, :6], [1, 2, 0, 0, 0, 0])
    assert said == [
        "column 'city' has a category that was not there when the data were built ('z'); it is read"
        " as none of them"
    ]


def test_numbers_are_read_as_in_the_build(tmp_path: Path) -> None:
    """What one file leaves open, the training data have told."""
    (tmp_path / "train.csv").write_text('x,day,y\n"1,234.5",31/01/2024,2\n"1,000",01/02/2024,3\n')
    settings = {"time": "day", "calendar": ["month"], "valid": 0.0}
    dataset = built(tmp_path, CSV(files=["train.csv"], **settings))
    (tmp_path / "other.csv").write_text('x,day,y\n"1,234",01/02/2024,5\n')
    found, _ = recalled(dataset, CSV, tmp_path / "other.csv", **settings)
    wanted = [1234, 5, np.sin(np.pi / 6), np.cos(np.pi / 6)]
    np.testing.assert_allclose(found["values"][0], wanted, rtol=1e-6)


def test_a_column_that_has_no_value_in_the_new_file(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a,b\n1,2\n3,4\n")
    settings = {"missing": "mask", "valid": 0.0}
    dataset = built(tmp_path, CSV(files=["train.csv"], **settings))
    (tmp_path / "other.csv").write_text("b,a\n,1\n,2\n")
    found, _ = recalled(dataset, CSV, tmp_path / "other.csv", **settings)
    assert found["values"].tolist() == [[1, 0, 1, 0], [2, 0, 1, 0]]


def test_types_of_parquet_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    papq.write_table(pa.table({"a": [1, 2], "on": [True, False], "id": [1, 2]}), path)
    settings = {"valid": 0.0, "values": ["a", "on"]}
    dataset = built(tmp_path, Parquet(files=[str(path)], **settings))
    other = tmp_path / "other.parquet"
    papq.write_table(pa.table({"on": [False], "a": [2.5]}), other)
    found, _ = recalled(dataset, Parquet, other, **settings)
    assert found["values"].tolist() == [[2.5, 0]]
    for columns, what in (
        ({"a": ["2"], "on": [True]}, "column 'a' holds string, not numbers"),
        ({"a": [True], "on": [True]}, "column 'a' holds bool, not numbers"),
        ({"a": [1], "on": [1]}, "column 'on' holds int64, not truth values"),
        ({"a": [1]}, r"has no column 'on' \(setting 'values'\)"),
    ):
        papq.write_table(pa.table(columns), other)
        with pytest.raises(JobError, match=what) as error:
            recalled(dataset, Parquet, other, **settings)
        sentence_of(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"values": 3},
        {"columns": {"temp": 1}},
        {"columns": []},
        {"columns": {"temp": {"kind": "text"}}},
        {"columns": {}},
        {"decimal": "x"},
        {"thousands": "''"},
        {"left_out": ["id"]},
        {"time": "day"},
        {"every": 5},
    ],
)
def test_what_was_learned_is_checked_by_type(dataset: Dataset, change: dict[str, Any]) -> None:
    assert dataset.provenance is not None
    reader = CSV(files=["other.csv"], **SETTINGS)
    reader.recall(dataset.provenance.learned, {})
    with pytest.raises(ValueError, match=r"."):
        reader.recall(dataset.provenance.learned | change, {})
