"""What docs/tables.md says of settings: they exist, and take the values that it gives."""

from __future__ import annotations

import re
import tomllib
import typing
from pathlib import Path

import pytest

from rnnfarm.builtin.tables import CSV, Parquet
from rnnfarm.data.time_steps import parse_step
from rnnfarm.settings import declared

TEXT = (Path(__file__).parents[1] / "docs" / "tables.md").read_text()


@pytest.mark.parametrize("reader", [CSV, Parquet])
def test_settings_are_those_of_the_readers(reader: type[CSV]) -> None:
    given = re.findall(r"`([a-z_]+\s=\s[^`]+)`", TEXT)
    assert len(given) > 15
    for line in given:
        setting = tomllib.loads(" ".join(line.split()))
        reader(files=["t"], **setting)
    named = {setting for line in given for setting in tomllib.loads(" ".join(line.split()))}
    for setting in ("join", "gaps", "duplicates", "every", "lookback", "test_from", "test_groups"):
        assert setting in declared(reader)
        assert setting in named or f"`{setting}`" in TEXT


def test_choices_and_steps_are_all_there() -> None:
    rows = dict(re.findall(r"^\| `([a-z]+)`: [^|]*\| (.*) \|$", TEXT, re.MULTILINE))
    for setting in ("duplicates", "gaps"):
        named = re.findall(r"`([a-z]+)`", rows[setting])
        assert set(named) == set(typing.get_args(declared(CSV)[setting]))
    for step in re.findall(r"`([^`]+)`", rows["every"]):
        parse_step(step)
