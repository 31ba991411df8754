"""Rows of one time, gaps in time, and the step of a table's rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from data_tools import sentence_of
from table_tools import build, first_values, notes, origins, sequences, table

from rnnfarm.builtin.tables import CSV
from rnnfarm.data.external_sort import Block
from rnnfarm.data.time_steps import Differences, Step, parse_step
from rnnfarm.errors import DataError, JobError

HOUR = 3_600_000_000
HOURS = [0, 1, 2, 5, 6, 8]  # three gaps' hours are missing: 3, 4 and 7


def hourly(hours: list[int], day: str = "2024-03-01") -> str:
    return table("when,x", ((f"{day} {hour:02}:00", hour) for hour in hours))


def rows_at(stamps: list[str]) -> Block:
    times = np.array(stamps, "datetime64[us]").view(np.int64)
    return {"local": times, "instant": times, "number": np.arange(len(times))}


@pytest.mark.parametrize(
    ("text", "step", "shown"),
    [
        ("15min", Step(HOUR // 4, "microseconds"), "15min"),
        ("1.5h", Step(HOUR * 3 // 2, "microseconds"), "90min"),
        ("1 d", Step(24 * HOUR, "microseconds"), "1d"),
        ("14d", Step(14 * 24 * HOUR, "microseconds"), "2w"),
        ("3 month", Step(3, "months"), "3 month"),
        ("1 year", Step(12, "months"), "1 year"),
        ("0.5s", Step(500_000, "microseconds"), "0.5s"),
    ],
)
def test_steps_are_written_and_read(text: str, step: Step, shown: str) -> None:
    assert parse_step(text) == step
    assert str(step) == shown
    assert parse_step(shown) == step


@pytest.mark.parametrize("text", ["", "h", "0h", "1 fortnight", "1.5 month", "-1h"])
def test_what_is_no_step(text: str) -> None:
    with pytest.raises(JobError, match=r"setting 'every': .* is no step in time; write it as"):
        parse_step(text)


@pytest.mark.parametrize(
    ("stamps", "step"),
    [
        (["2024-01-01", "2024-02-01", "2024-03-01", "2024-04-01"], "1 month"),
        (["2024-01-31", "2024-02-29", "2024-03-31"], "1 month"),
        (["2023-10-01", "2024-01-01", "2024-04-01", "2024-07-01"], "3 month"),
        (["2023-01-01", "2024-01-01", "2025-01-01"], "1 year"),
        (["2024-01-01", "2024-01-31", "2024-03-01"], "30d"),
        (["2024-01-01", "2024-01-08", "2024-01-15", "2024-01-29"], "1w"),
        (["2024-01-01T00:00", "2024-01-01T00:05", "2024-01-01T00:10"], "5min"),
    ],
)
def test_the_most_frequent_step(stamps: list[str], step: str) -> None:
    differences = Differences()
    rows = rows_at(stamps)
    differences.add({name: part[:1] for name, part in rows.items()}, True)  # in two blocks
    differences.add({name: part[1:] for name, part in rows.items()}, False)
    found = differences.step()
    assert found is not None
    assert str(found[0]) == step


def test_differences_are_within_a_sequence() -> None:
    differences = Differences()
    for day in ("2024-01-01", "2025-01-01"):
        differences.add(rows_at([f"{day}T0{hour}:00" for hour in range(3)]), True)
    assert differences.step() == (Step(HOUR, "microseconds"), 1.0)
    assert differences.gaps(Step(HOUR, "microseconds")) is None


def test_gaps_and_duplicates_are_said_and_change_nothing(tmp_path: Path) -> None:
    dataset = build(tmp_path, hourly([*HOURS, 8]), time="when")
    assert first_values(dataset) == [[*HOURS, 8]]
    said = notes(dataset)
    assert "2 gaps in time of more than a step of 1h, which are left as they are" in said
    assert f"(the first: {tmp_path / 't.csv'}, line 5)" in said
    assert "1 row with the time of the row before" in said
    assert f"(the first: {tmp_path / 't.csv'}, line 8)" in said
    assert "gap" not in notes(build(tmp_path, hourly([0, 1, 2]), time="when"))


@pytest.mark.parametrize("block", [1, 2, 100])
def test_gaps_are_filled(tmp_path: Path, block: int) -> None:
    settings = {"time": "when", "gaps": "fill", "missing": "mask", "calendar": ["hour"]}
    with in_blocks(block):
        dataset = build(tmp_path, hourly(HOURS), **settings, valid=0.2)
    values = np.concatenate([*sequences(dataset), *sequences(dataset, "valid")])
    hours = np.arange(9)
    there = np.isin(hours, HOURS)
    last = np.maximum.accumulate(np.where(there, hours, 0))
    wanted = [last, np.sin(hours * np.pi / 12), np.cos(hours * np.pi / 12), there]
    np.testing.assert_allclose(values, np.stack(wanted, axis=1), atol=1e-6)
    observed = np.concatenate(
        [*sequences(dataset, "train", "observed"), *sequences(dataset, "valid", "observed")]
    )
    assert observed.tolist() == there.astype(int).tolist()
    assert "2 gaps in time of more than 1h filled with 3 rows" in notes(dataset)
    assert origins(dataset, "valid")[0].row == 6  # hour 7 is filled in after line 6


@pytest.mark.parametrize("block", [1, 2, 100])
def test_sequences_are_split_at_gaps(tmp_path: Path, block: int) -> None:
    with in_blocks(block):
        dataset = build(tmp_path, hourly(HOURS), time="when", gaps="split")
    assert first_values(dataset) == [[0, 1, 2], [5, 6], [8]]
    assert [origin.row for origin in origins(dataset)] == [2, 5, 7]
    assert "sequences are split at 2 gaps in time of more than 1h" in notes(dataset)
    assert "1 sequence has one row alone" in notes(dataset)


def test_gaps_of_months_are_filled(tmp_path: Path) -> None:
    text = table("when,x", (("2024-01", 1), ("2024-02", 2), ("2024-05", 5), ("2024-06", 6)))
    settings = {"time": "when", "gaps": "fill", "missing": "mask", "calendar": ["month"]}
    (values,) = sequences(build(tmp_path, text, **settings))
    assert values[:, 0].tolist() == [1, 2, 2, 2, 5, 6]
    np.testing.assert_allclose(values[:, 1], np.sin(np.arange(6) * np.pi / 6), atol=1e-6)


def test_days_of_another_length_are_no_gap(tmp_path: Path) -> None:
    days = ["2024-03-30T00:00+01:00", "2024-03-31T00:00+01:00", "2024-04-01T00:00+02:00"]
    days += ["2024-04-02T00:00+02:00"]
    text = table("when,x", ((day, i) for i, day in enumerate(days)))
    settings = {"time": "when", "gaps": "fill", "missing": "mask"}
    (values,) = sequences(build(tmp_path, text, **settings))
    assert values[:, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("how", "wanted"),
    [("keep", [1, 2, 4, 6, 7]), ("first", [1, 2, 7]), ("last", [1, 6, 7]), ("mean", [1, 4, 7])],
)
@pytest.mark.parametrize("block", [1, 2, 3, 100])
def test_duplicates(tmp_path: Path, how: str, wanted: list[float], block: int) -> None:
    rows = [("2024-01-01", 1), *(("2024-01-02", x) for x in (2, 4, 6)), ("2024-01-03", 7)]
    with in_blocks(block):
        dataset = build(tmp_path, table("when,x", rows), time="when", duplicates=how)
    assert first_values(dataset) == [wanted]
    assert "2 rows with the time of the row before" in notes(dataset)
    assert f"(the first: {tmp_path / 't.csv'}, line 4)" in notes(dataset)


def test_the_mean_is_of_what_is_there(tmp_path: Path) -> None:
    rows = [("2024-01-01", None, 3), ("2024-01-01", 2, None), ("2024-01-01", 4, None)]
    settings = {"time": "when", "duplicates": "mean", "missing": "mask"}
    (values,) = sequences(build(tmp_path, table("when,x,y", rows), **settings))
    assert values.tolist() == [[3, 3, 1, 1]]


def test_the_mean_keeps_the_one_label_of_a_time(tmp_path: Path) -> None:
    rows = [("2024-01-01", 1, None), ("2024-01-01", 3, "b"), ("2024-01-02", 5, "a")]
    settings = {"time": "when", "label": "kind", "label_per": "row", "duplicates": "mean"}
    dataset = build(tmp_path, table("when,x,kind", rows), missing="mask", **settings)
    assert sequences(dataset, "train", "label")[0].tolist() == [1, 0]
    assert first_values(dataset) == [[2, 5]]


@pytest.mark.parametrize("label_per", ["row", "sequence"])
def test_labels_of_one_time_have_no_mean(tmp_path: Path, label_per: str) -> None:
    rows = [("2024-01-01", 1, "a"), ("2024-01-02", 3, "b"), ("2024-01-02", 5, "a")]
    settings = {"time": "when", "label": "kind", "label_per": label_per, "duplicates": "mean"}
    with pytest.raises(DataError, match=r"line 4: has another label .* \(2024-01-02") as raised:
        build(tmp_path, table("when,x,kind", rows), **settings)
    sentence_of(raised.value)
    settings |= {"duplicates": "first", "label_per": "row"}
    dataset = build(tmp_path, table("when,x,kind", rows), **settings)
    assert sequences(dataset, "train", "label")[0].tolist() == [0, 1]


def test_one_time_in_two_sequences_is_no_duplicate(tmp_path: Path) -> None:
    rows = [("2024-01-01", "a", 1), ("2024-01-01", "b", 2)]
    settings = {"time": "when", "group": "g", "values": ["x"], "duplicates": "error"}
    assert first_values(build(tmp_path, table("when,g,x", rows), **settings)) == [[1], [2]]


@pytest.mark.parametrize(
    ("hours", "settings", "error", "what"),
    [
        (HOURS, {"gaps": "error"}, DataError,
         r"line 5: the time 2024-03-01 05.* is more than a step of 1h after .*\(2024-03-01 02"),
        ([0, 1, 1], {"duplicates": "error"}, DataError, "line 4: has the time of the row before"),
        (HOURS, {"gaps": "fill"}, JobError, "set missing = 'mask'"),
        (HOURS, {"gaps": "fill", "missing": "mask", "every": "2h"}, DataError,
         "line 3: the time .* is no whole number of steps of 2h after that of the row before"),
        ([0, 1, 1, 2, 4], {"gaps": "fill", "missing": "mask"}, DataError,
         r"line 4: has the time of the row before it \(2024-03-01 01.*set duplicates = 'first'"),
        ([0, 1, 3, 6, 10], {"gaps": "split"}, JobError, r"at no regular steps \(.*, 1h, is 25%"),
        (HOURS, {"gaps": "split", "time": None}, JobError, "'gaps': name the column of times"),
        (HOURS, {"every": "1 moon"}, JobError, "'1 moon' is no step"),
    ],
)  # fmt: skip
def test_wrong_times(
    tmp_path: Path, hours: list[int], settings: dict[str, Any], error: Any, what: str
) -> None:
    with pytest.raises(error, match=what) as raised:
        build(tmp_path, hourly(hours), **{"time": "when"} | settings)
    sentence_of(raised.value)


def test_a_step_that_is_given(tmp_path: Path) -> None:
    dataset = build(tmp_path, hourly([0, 3, 6, 12]), time="when", gaps="split", every="3h")
    assert first_values(dataset) == [[0, 3, 6], [12]]


def test_predictions_go_by_the_step_of_the_build(tmp_path: Path) -> None:
    settings = {"files": ["t.csv"], "time": "when", "gaps": "fill", "missing": "mask"}
    dataset = build(tmp_path, hourly([0, 1, 2]), **settings)
    assert dataset.provenance is not None
    assert dataset.provenance.learned["every"] == "1h"
    reader = CSV(**settings)
    reader.recall(dataset.provenance.learned, {})
    (tmp_path / "new.csv").write_text(hourly([4, 6, 8]))  # of itself it has a step of two hours
    pieces = [piece.columns["values"] for piece in reader.inputs(tmp_path / "new.csv")]
    assert np.concatenate(pieces)[:, 0].tolist() == [4, 4, 6, 6, 8]


def test_a_gap_of_a_wrong_year_is_not_filled(tmp_path: Path) -> None:
    text = table("when,x", (("1024-01-01 00:00", 1), ("1024-01-01 00:01", 1), ("2024-01-01", 1)))
    settings = {"time": "when", "gaps": "fill", "missing": "mask", "every": "1min"}
    with pytest.raises(DataError, match=r"line 4: the time 2024-01-01 .* after that of the row"):
        build(tmp_path, text, **settings)


def in_blocks(rows: int) -> Any:
    """Have tables read in blocks of so many rows."""
    from rnnfarm.data.external_sort import len_of, take
    from rnnfarm.data.table_rows import TableRows

    whole = TableRows._read_rows

    def cut(self: Any, source: Any, names: list[str]) -> Any:
        for block in whole(self, source, names):
            for low in range(0, len_of(block), rows):
                yield take(block, slice(low, low + rows))

    return mock.patch.object(TableRows, "_read_rows", cut)
