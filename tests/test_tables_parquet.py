"""Parquet files: what their types become, and which columns are left out."""

from __future__ import annotations

import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as papq
import pytest
from data_tools import sentence_of
from table_tools import notes, values

from rnnfarm.builtin.parquet_files import Parquet
from rnnfarm.data import Dataset, build_dataset
from rnnfarm.errors import DataError, JobError, RnnfarmError


def build(folder: Path, columns: dict[str, Any], name: str = "d", **settings: Any) -> Dataset:
    papq.write_table(pa.table(columns), folder / "t.parquet")
    reader = Parquet(files=["t.parquet"], **{"valid": 0.0, **settings})
    reader.base = folder
    return build_dataset(reader, folder / name)


def refused(folder: Path, columns: dict[str, Any], **settings: Any) -> RnnfarmError:
    with pytest.raises((JobError, DataError)) as error:
        build(folder, columns, **settings)
    sentence_of(error.value)
    assert "t.parquet" in str(error.value)
    return error.value


NUMBERS = {
    "int8": pa.array([1, -2, 3], pa.int8()),
    "uint64": pa.array([1, 2, 1 << 24], pa.uint64()),
    "float16": pa.array(np.array([0.5, 1.5, -2], np.float16)),
    "float64": pa.array([0.1, 1e-3, 1e30]),
    "decimal": pa.array([decimal.Decimal("1.25"), decimal.Decimal("-3.5"), decimal.Decimal(2)]),
    "bool": pa.array([True, False, True]),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_types_that_are_numbers(tmp_path: Path, name: str) -> None:
    dataset = build(tmp_path, {name: NUMBERS[name]})
    wanted = [[float(np.float32(float(value)))] for value in NUMBERS[name].to_pylist()]
    assert values(dataset) == wanted
    assert ("true and yes are read as 1" in notes(dataset)) == (name == "bool")


def test_columns_that_are_left_out_are_named(tmp_path: Path) -> None:
    columns = {
        "x": [1.0, 5.0, 2.0],
        "text": ["a", "b", "c"],
        "digits": ["1", "2", "3"],
        "day": pa.array([1, 2, 3], pa.int32()).cast(pa.date32()),
        "list": [[1], [2], [3]],
        "hole": pa.array([None] * 3, pa.float64()),
        "null": pa.nulls(3),
        "__index_level_0__": [7, 8, 9],
    }
    dataset = build(tmp_path, columns)
    assert dataset.columns["values"].names == ["x"]
    said = notes(dataset)
    for sentence in (
        "column 'text' is left out: it holds text ('a')",
        "column 'digits' is left out: it holds texts that look like numbers",
        "column 'day' is left out: it holds dates or times; name it in 'time'",
        "column 'list' is left out: it holds list<element: int64>, not numbers",
        "columns 'hole', 'null' are left out: they have no value in any row",
        "column '__index_level_0__' is left out: it is the index that pandas writes",
    ):
        assert sentence in said
    named = build(tmp_path, columns, "named", values=["__index_level_0__"])
    assert values(named) == [[7], [8], [9]]


GROUPS = {
    "text": pa.array(["a", "a", "b"]),
    "dictionary": pa.array(["a", "a", "b"]).dictionary_encode(),
    "int": pa.array([3, 3, -1]),
    "bool": pa.array([True, True, False]),
    "date": pa.array([5, 5, 6], pa.int32()).cast(pa.date32()),
    "time": pa.array([5, 5, 6], pa.timestamp("ms")),
}


@pytest.mark.parametrize("name", GROUPS)
def test_types_that_tell_sequences_apart(tmp_path: Path, name: str) -> None:
    columns = {"g": GROUPS[name], "x": [1, 2, 5]}
    split = build(tmp_path, columns, group="g", values=["x"]).split("train")
    assert split.starts().tolist() == [0, 2]
    assert split.origin(0).name == str(GROUPS[name].cast(pa.string())[0])


@pytest.mark.parametrize(
    "column", [[[1], [1], [2]], [{"a": 1}] * 3, [0.5, 0.5, 1.5], [b"a", b"a", b"b"]]
)
def test_types_that_do_not_tell_sequences_apart(tmp_path: Path, column: Any) -> None:
    error = refused(tmp_path, {"g": column, "x": [1, 2, 5]}, group="g")
    assert error.exit_code == 2
    assert "column 'g' holds" in str(error)
    assert "name another column" in str(error)


@pytest.mark.parametrize(
    ("columns", "settings", "code", "what"),
    [
        ({"x": [1.0, 1e39]}, {}, 5, "row 2: column 'x' holds a value that float32 cannot hold"),
        ({"x": [1.0, None]}, {}, 5, "row 2: column 'x' has no value"),
        ({"x": [1.0, float("nan")]}, {}, 5, "row 2: column 'x' has no value"),
        ({"x": [True, None]}, {}, 5, "row 2: column 'x' has no value"),
        ({"x": [1.0], "s": ["1"]}, {"target": ["s"]}, 2, "'s' (setting 'target') holds no numbers"),
        ({"x": [1.0], "t": [[1]]}, {"time": "t"}, 2, "'t' holds list<element: int64>, not dates"),
        ({"x": [1.0], "c": [0.5]}, {"categories": ["c"]}, 2, "column 'c' holds double, and categ"),
        ({"s": ["a"]}, {}, 2, "has no column of numbers to read ('s': it holds text ('a'))"),
    ],
)
def test_messages(
    tmp_path: Path, columns: Any, settings: dict[str, Any], code: int, what: str
) -> None:
    error = refused(tmp_path, columns, **settings)
    assert error.exit_code == code
    assert what in str(error)


def test_null_and_nan_are_both_no_value(tmp_path: Path) -> None:
    columns = {"x": pa.array([1.0, None, float("nan"), 4.0], from_pandas=False)}
    assert values(build(tmp_path, columns, missing="mask")) == [[1, 1], [1, 0], [1, 0], [4, 1]]


def test_whole_numbers_that_float32_rounds_are_said(tmp_path: Path) -> None:
    numbers = [(1 << 24) + i for i in range(5)]
    dataset = build(tmp_path, {"id": numbers, "ok": [n - 5 for n in numbers]})
    rounded = sum(int(np.float32(n)) != n for n in numbers)
    assert f"column 'id' has {rounded} whole numbers that float32 rounds" in notes(dataset)
    assert "column 'ok' has" not in notes(dataset)


def test_categories_of_any_type(tmp_path: Path) -> None:
    columns = {
        "x": [1.0, 2.0, 3.0],
        "n": pa.array([10, 9, 10]),
        "on": [True, False, True],
        "d": pa.array(["u", "v", "u"]).dictionary_encode(),
    }
    dataset = build(tmp_path, columns, categories=["n", "on", "d"])
    assert dataset.columns["values"].names == [
        "x", "n=9", "n=10", "on=false", "on=true", "d=u", "d=v",
    ]  # fmt: skip
    assert values(dataset) == [
        [1, 0, 1, 0, 1, 1, 0],
        [2, 1, 0, 1, 0, 0, 1],
        [3, 0, 1, 0, 1, 1, 0],
    ]
