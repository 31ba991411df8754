"""What ``rnnfarm data build`` and ``data info`` print."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from rnnfarm.cli import cli
from rnnfarm.data import Column, DatasetWriter, Reader, Sequence, open_dataset


def call(*words: str | Path) -> Result:
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [f"2024-01-{day:02d},{day},{2 * day},word" for day in range(1, 31)]
    (tmp_path / "t.csv").write_text("date,rain,wind,what\n" + "\n".join(rows) + "\n")
    return tmp_path


def build(table: Path, *more: str) -> Result:
    settings = ["--set", "time=date", "--set", 'calendar=["weekday"]']
    return call("data", "build", "csv", table / "d", table / "t.csv", *settings, *more)


def test_the_summary_names_columns_settings_and_files(table: Path) -> None:
    build(table)
    lines = call("data", "info", table / "d").stdout.splitlines()
    assert "reader: csv" in lines
    assert "  time = date" in lines
    assert "  calendar = [weekday]" in lines
    assert not [line for line in lines if line.startswith("  missing")]  # its default
    size = (table / "t.csv").stat().st_size
    assert f"files: 1, {size:,} bytes" in lines
    assert f"  {table / 't.csv'}: {size:,} bytes" in lines
    (values,) = [line for line in lines if line.startswith("  values: kind")]
    assert "width 4" in values
    assert "names [rain, wind, " in values
    assert "roles 2 value, 2 calendar" in values


class Noting(Reader):
    """A reader that leaves something out."""

    def columns(self) -> dict[str, Column]:
        return {"t": Column.tokens(3)}

    def sequences(self) -> Iterator[Sequence]:
        yield Sequence("train", {"t": np.zeros(5, np.int32)})

    def notes(self) -> list[str]:
        return ["the column 'what' is left out, which holds no numbers"]


def test_what_was_left_out_is_said_once(tmp_path: Path) -> None:
    words = ("data", "build", "test_dataset_text:Noting", tmp_path / "d")
    loud, quiet = call(*words), call(*words, "--quiet", "--rebuild")
    for result in (loud, quiet):
        assert result.output.count("'what' is left out") == 1
    assert "'what'" in loud.stderr
    assert "'what'" in quiet.stdout
    assert "'what'" in call("data", "info", tmp_path / "d").stdout
    told = json.loads(call("data", "info", tmp_path / "d", "--json").stdout)
    assert told["built_from"]["notes"] == ["the column 'what' is left out, which holds no numbers"]


def test_json_has_all_of_it(table: Path) -> None:
    built = json.loads(build(table, "--json").stdout)
    assert built == json.loads(call("data", "info", table / "d", "--json").stdout)
    assert built["built_from"]["settings"]["calendar"] == ["weekday"]
    assert built["built_from"]["files"][0]["path"] == str(table / "t.csv")
    assert built["columns"]["values"]["roles"] == ["value", "value", "calendar", "calendar"]


def test_a_thousand_names_are_shortened(tmp_path: Path) -> None:
    names = [f"sensor-{k}" for k in range(1000)]
    with DatasetWriter(tmp_path / "d", {"values": Column.values(1000, names=names)}) as writer:
        writer.append("train", {"values": np.zeros((2, 1000))})
    text = call("data", "info", tmp_path / "d").stdout
    assert "names [sensor-0, " in text
    assert "sensor-9] and 990 more" in text
    assert max(map(len, text.splitlines())) < 300
    told = json.loads(call("data", "info", tmp_path / "d", "--json").stdout)
    assert told["columns"]["values"]["names"] == names


def test_a_name_does_not_reach_the_terminal_as_it_is(tmp_path: Path) -> None:
    columns = {"values": Column.values(1, names=["\x1b[2Jrain"])}
    with DatasetWriter(tmp_path / "d", columns) as writer:
        writer.append("train", {"values": np.zeros((2, 1))})
    assert "\x1b" not in call("data", "info", tmp_path / "d").stdout


def test_labels_are_shown_in_the_order_of_their_ids(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i % 24},{i}.5\n" for i in range(48))
    (tmp_path / "t.csv").write_text("who,what,x\n" + rows)
    settings = ["--set", "group=who", "--set", "label=what", "--set", 'values=["x"]']
    call("data", "build", "csv", tmp_path / "d", tmp_path / "t.csv", *settings)
    lines = call("data", "info", tmp_path / "d").stdout.splitlines()
    (label,) = [line for line in lines if line.startswith("  label: kind")]
    names = open_dataset(tmp_path / "d").vocabulary("label").entries  # type: ignore[union-attr]
    assert names is not None
    shown = ", ".join(f"{id} {name}" for id, name in enumerate(names[:20]))
    assert f"labels [{shown}] and 4 more" in label
    columns = json.loads(call("data", "info", tmp_path / "d", "--json").stdout)["columns"]
    assert columns["label"]["labels"] == names
    assert columns["values"]["labels"] is None


def test_a_vocabulary_of_text_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(
        "".join(f"{['yes', 'no'][i % 2]} it is {i}\n" for i in range(40))
    )
    call("data", "build", "labelled-text", tmp_path / "d", tmp_path / "t.txt")
    columns = json.loads(call("data", "info", tmp_path / "d", "--json").stdout)["columns"]
    assert columns["label"]["labels"] == ["no", "yes"]
    assert columns["tokens"]["labels"] is None
