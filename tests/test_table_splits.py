"""Which rows of tables are for training, validation and test."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from data_tools import sentence_of
from table_tools import build, build_with, first_values, notes, origins, sequences, table

from rnnfarm.builtin.tables import CSV
from rnnfarm.data.examples import Examples
from rnnfarm.data.forecasts import Forecasts
from rnnfarm.data.streams import Streams
from rnnfarm.data.table_splits import hold_out
from rnnfarm.errors import JobError

DAYS = table(
    "when,who,x", ((f"2024-01-{day:02}", who, day) for day in range(1, 11) for who in "ab")
)


def grouped(groups: int, rows: int = 4) -> str:
    return table("who,x", ((f"g{group}", group) for group in range(groups) for _ in range(rows)))


def test_splits_by_date(tmp_path: Path) -> None:
    settings = {"time": "when", "group": "who", "values": ["x"], "valid_from": "2024-01-07"}
    dataset = build(tmp_path, DAYS, **settings, test_from="2024-01-09")
    for split, days in (("train", range(1, 7)), ("valid", (7, 8)), ("test", (9, 10))):
        assert first_values(dataset, split) == [list(days)] * 2
    dataset = build(tmp_path, DAYS, **settings)
    assert first_values(dataset, "valid") == [[7, 8, 9, 10]] * 2
    assert "test" not in dataset.splits
    settings["valid_from"] = None
    dataset = build(tmp_path, DAYS, **settings, test_from="2024-01-06 12:00", valid=0.5)
    assert first_values(dataset, "train") == [[1, 2, 3]] * 2
    assert first_values(dataset, "valid") == [[4, 5, 6]] * 2
    assert first_values(dataset, "test") == [[7, 8, 9, 10]] * 2


def test_groups_that_are_named(tmp_path: Path) -> None:
    settings = {"group": "who", "valid_groups": ["g3", "g1"], "test_groups": ["g0"]}
    dataset = build(tmp_path, grouped(5), **settings)
    names = {split: [origin.name for origin in origins(dataset, split)] for split in dataset.splits}
    assert names == {"train": ["g2", "g4"], "valid": ["g1", "g3"], "test": ["g0"]}
    settings = {"group": "who", "test_groups": ["g0"], "valid": 0.25}
    dataset = build(tmp_path, grouped(3), **settings)
    assert first_values(dataset, "valid") == [[1], [2]]
    assert first_values(dataset, "test") == [[0] * 4]


def test_groups_that_a_hash_picks(tmp_path: Path) -> None:
    dataset = build(tmp_path, grouped(19), group="who", split="group", valid=0.2, test=0.1)
    names = {split: {origin.name for origin in origins(dataset, split)} for split in dataset.splits}
    assert {split: len(held) for split, held in names.items()} == {
        "train": 13, "valid": 4, "test": 2,
    }  # fmt: skip
    order = sorted((f"g{i}" for i in range(19)), key=lambda n: hashlib.sha256(n.encode()).digest())
    assert names["valid"] | names["test"] == {order[i] for i in (1, 4, 8, 11, 14, 18)}
    # The order of the rows decides nothing.
    lines = grouped(19).splitlines()
    again = "\n".join([lines[0], *reversed(lines[1:])]) + "\n"
    other = build(tmp_path, again, group="who", split="group", valid=0.2, test=0.1)
    for split, held in names.items():
        assert {origin.name for origin in origins(other, split)} == held


def place(name: str) -> float:
    """A number from 0 to 1: the first 48 bits of the name's SHA-256."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:12], 16) / 16**12


def test_of_many_groups_each_ones_hash_decides(tmp_path: Path) -> None:
    dataset = build(tmp_path, grouped(40), group="who", split="group", valid=0.2, test=0.1)
    for split, low, high in (("test", 0, 0.1), ("valid", 0.1, 0.3), ("train", 0.3, 1)):
        wanted = [f"g{i}" for i in range(40) if low <= place(f"g{i}") < high]
        assert [origin.name for origin in origins(dataset, split)] == wanted


@pytest.mark.parametrize("labels", [1, 2])
def test_groups_stay_as_others_come_and_go(labels: int) -> None:
    groups = [(f"shop {i}", i % labels) for i in range(100)]
    held = hold_out(groups, 0.2, 0.1)
    for others in (groups[1:], groups[::-1][:60], [*groups, *((f"new {i}", 0) for i in range(9))]):
        found = hold_out(others, 0.2, 0.1)
        assert {n: found.get(n) for n, _ in groups if (n, 0) in others or (n, 1) in others} == {
            n: held.get(n) for n, _ in groups if (n, 0) in others or (n, 1) in others
        }


def test_a_part_of_many_groups_gets_at_least_one() -> None:
    names = [f"g{i}" for i in range(30)]
    smallest = min(names, key=place)
    assert place(smallest) > 0.001
    assert hold_out([(n, -1) for n in names], 0.0, 0.001) == {smallest: "test"}
    held = hold_out([(n, -1) for n in names], 0.001, 0.001)
    assert held[smallest] == "test"
    assert set(held.values()) == {"test", "valid"}
    assert len(held) == 2
    largest = max(names, key=place)
    everything = hold_out([(n, -1) for n in names], 0.999, 0.0)
    assert names.count(largest) - (largest in everything) == 1
    assert len(everything) == 29
    assert hold_out([(n, -1) for n in names], 0.0, 0.0) == {}


def test_a_rare_label_is_spread_evenly_beside_a_frequent_one() -> None:
    frequent = [(f"g{i}", 0) for i in range(50)]
    rare = [(f"r{i}", 1) for i in range(10)]
    held = hold_out(frequent + rare, 0.2, 0.1)
    assert [sum(held.get(n) == s for n, _ in rare) for s in ("valid", "test")] == [2, 1]
    assert {n: s for n, s in held.items() if n[0] == "g"} == hold_out(frequent, 0.2, 0.1)


@pytest.mark.parametrize(("names", "valid", "test"), [(2, 0.1, 0), (2, 0.9, 0), (3, 0.1, 0.1)])
def test_some_are_held_out_and_never_all(names: int, valid: float, test: float) -> None:
    held = hold_out([(str(name), -1) for name in range(names)], valid, test)
    assert 0 < len(held) < names
    assert hold_out([("a", -1)], valid, test) == {}


def test_sequences_of_a_group_stay_together(tmp_path: Path) -> None:
    rows = [(f"2024-01-{day:02}", who, who) for who in range(8) for day in (1, 2, 3, 6, 7)]
    settings = {"time": "when", "group": "who", "values": ["x"], "gaps": "split", "split": "group"}
    dataset = build(tmp_path, table("when,who,x", rows), **settings, valid=0.25)
    held = first_values(dataset, "valid")
    assert [len(rows) for rows in held] == [3, 2] * 2
    assert len({rows[0] for rows in held}) == 2
    assert not {rows[0] for rows in held} & {rows[0] for rows in first_values(dataset)}


def test_files_that_a_hash_picks(tmp_path: Path) -> None:
    for name in "abcdef":
        (tmp_path / f"{name}.csv").write_text(table("x", [[ord(name)]] * 3))
    dataset = build_with(CSV(files=["*.csv"], split="group", valid=0.34), tmp_path)
    order = sorted("abcdef", key=lambda n: hashlib.sha256(f"{n}.csv".encode()).digest())
    assert first_values(dataset, "valid") == [
        [ord(n)] * 3 for n in sorted(order[i] for i in (1, 4))
    ]
    assert {origin.name for origin in origins(dataset)} == {""}


def test_looking_back_from_validation(tmp_path: Path) -> None:
    text = table("x", ([i] for i in range(20)))
    dataset = build(tmp_path, text, valid=0.2, test=0.1, lookback=3)
    for split, low, counted, high in (
        ("train", 0, 0, 14),
        ("valid", 11, 14, 18),
        ("test", 15, 18, 20),
    ):
        assert first_values(dataset, split) == [list(range(low, high))]
        (observed,) = sequences(dataset, split, "observed")
        assert observed.tolist() == [0] * (counted - low) + [1] * (high - counted)
    assert [origin.row for origin in origins(dataset, "valid")] == [13]  # the line of row 11


def test_rows_looked_back_at_are_read_and_never_count(tmp_path: Path) -> None:
    text = table("x", ([i] for i in range(40)))
    split = build(tmp_path, text, valid=0.25, lookback=6).split("valid")
    reading: dict[str, Any] = {"input": "values", "batch": 1, "observed": "observed"}
    forecasts = Forecasts(
        split, target="values", window=6, horizon=2, seed=0, shuffle=False, **reading
    )
    targets = [forecasts.read(n).target[0, 0].tolist() for n in range(forecasts.windows_in_epoch())]
    assert targets == [[day, day + 1] for day in range(30, 39)]
    assert forecasts.read(0).x[:, 0, 0].tolist() == list(range(24, 30))
    streams = Streams(split, target="next", window=5, **reading)
    counted = [w.target[w.valid].ravel().tolist() for w in map(streams.read, range(3))]
    assert [x for xs in counted for x in xs] == list(range(30, 40))
    examples = Examples(split, target="next", window=20, seed=0, **reading)
    window = examples.read(0)
    assert window.target[window.valid].ravel().tolist() == list(range(30, 40))
    assert window.x[0, 0, 0] == 24


def test_looking_back_where_cells_are_missing(tmp_path: Path) -> None:
    text = table("x,no", ([None if i == 8 else i, "-"] for i in range(10)))
    dataset = build(tmp_path, text, values=["x"], valid=0.3, lookback=2, missing="mask")
    assert sequences(dataset, "valid", "observed")[0].tolist() == [0, 0, 1, 0, 1]
    assert sequences(dataset, "valid")[0].tolist() == [[5, 1], [6, 1], [7, 1], [7, 0], [9, 1]]


def test_sequences_too_short_for_a_part_are_said(tmp_path: Path) -> None:
    rows = [("a", 0)] * 10 + [("b", 1)] + [("c", 2)] * 2
    dataset = build(tmp_path, table("who,x", rows), group="who", valid=0.2)
    assert first_values(dataset, "valid") == [[0, 0]]
    at = f"(the first: {tmp_path / 't.csv'}, line 12)"
    assert f"2 sequences are too short for a part in 'valid' {at}" in notes(dataset)
    assert f"1 sequence has one row alone {at}" in notes(dataset)


def test_sequences_without_rows_of_a_part_are_said(tmp_path: Path) -> None:
    rows = [("2024-01-01", "a", 1), ("2024-01-05", "a", 2), ("2024-01-05", "b", 3)]
    settings = {"time": "when", "group": "who", "values": ["x"], "valid_from": "2024-01-03"}
    dataset = build(tmp_path, table("when,who,x", rows), **settings)
    said = "1 sequence has no rows at that time for a part in 'train'"
    assert f"{said} (the first: {tmp_path / 't.csv'}, line 4)" in notes(dataset)
    assert "part in 'valid'" not in notes(dataset)
    whole = build(tmp_path, grouped(4, 1), group="who", valid_groups=["g1"])
    assert "for a part" not in notes(whole)


def test_rows_beyond_the_first_are_counted(tmp_path: Path) -> None:
    dataset = build(tmp_path, grouped(3, 5), group="who", first=3)
    said = "6 rows beyond the first 3 of a sequence are left out"
    assert f"{said} (the first: {tmp_path / 't.csv'}, line 5)" in notes(dataset)


@pytest.mark.parametrize("valid", [0.2, 0.1])
def test_a_part_that_got_nothing_is_said(tmp_path: Path, valid: float) -> None:
    dataset = build(tmp_path, grouped(4, 1), group="who", valid=valid)
    assert set(dataset.splits) == {"train"}
    assert f"valid = {valid} gives no sequence for 'valid'" in notes(dataset)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"valid_from": "2024-01-07", "valid": 0.3}, "'valid' and 'valid_from': leave one out"),
        ({"valid_from": "2024-01-07", "valid_groups": ["a"]}, "'valid_from' and 'valid_groups'"),
        (
            {"valid_from": "2024-01-07", "test": 0.1},
            "'valid_from' and 'test': say with 'test_from'",
        ),
        ({"valid_groups": ["a"], "test": 0.1}, "'valid_groups' and 'test': say with 'test_groups'"),
        ({"valid_from": "soon"}, "'valid_from': 'soon' is no date; write it as 2020-12-31"),
        ({"valid_from": "2024-01-07", "test_from": "2024-01-07"}, "the test part comes last"),
        ({"valid_from": "2024-01-07", "time": None}, "'valid_from': name the column in 'time' too"),
        ({"valid_from": "2024-01-07", "split": "group"}, "'split': dates cut sequences"),
        ({"valid_groups": ["c"]}, r"'valid_groups': there is no group 'c'; "),
        ({"valid_groups": ["a"], "group": None}, "name the column in 'group'"),
        ({"lookback": 2, "split": "group"}, "'lookback': with split = 'group' no sequence"),
        ({"lookback": 2, "valid_groups": ["a"]}, "'lookback': the parts are whole groups"),
        ({"valid_groups": ["a"], "test_groups": ["b", "a"]}, "'test_groups': both name 'a'"),
    ],
)
def test_wrong_splits(tmp_path: Path, settings: dict[str, Any], what: str) -> None:
    usual = {"time": "when", "group": "who", "values": ["x"]}
    with pytest.raises(JobError, match=what) as raised:
        build(tmp_path, DAYS, **usual | settings)
    sentence_of(raised.value)


def test_predictions_read_the_whole_file(tmp_path: Path) -> None:
    settings = {"files": ["t.csv"], "time": "when", "group": "who", "values": ["x"]}
    splits = {"valid_from": "2024-01-05", "lookback": 2}
    dataset = build(tmp_path, DAYS, **settings, **splits)
    reader = CSV(**settings, **splits)
    assert dataset.provenance is not None
    reader.recall(dataset.provenance.learned, {})
    pieces = list(reader.inputs(tmp_path / "t.csv"))
    assert [piece.columns["values"][:, 0].tolist() for piece in pieces] == [list(range(1, 11))] * 2
    assert [piece.origin.name for piece in pieces] == ["a", "b"]
    for piece in pieces:  # no row is only looked back at
        assert set(piece.columns) == {"values", "observed", "values:observed"}
        assert piece.columns["observed"].tolist() == [1] * 10
