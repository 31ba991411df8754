"""The settings of a part on a help page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import pytest
from pydantic import Field

from rnnfarm.plugins import Registry
from rnnfarm.setting_help import setting_lines
from rnnfarm.settings import Part

Call = Callable[..., tuple[int, str, str]]


class Several(Part):
    """A part.

    size: how large; names: what they are called; kind: which; needed: of a table.
    """

    size: Annotated[int, Field(ge=2, lt=9)] | None = None
    names: list[str] = ["ä", "b"]
    kind: Literal["one", "two"] = "one"
    silent: bool | float = True
    needed: dict[str, list[int]]


def test_types_defaults_and_meanings() -> None:
    assert setting_lines(Several) == [
        ("needed", "of a table [table of list of integer; required]"),
        ("size", "how large [integer, at least 2, below 9; default none]"),
        ("names", 'what they are called [list of text; default ["ä", "b"]]'),
        ("kind", 'which ["one" | "two"; default "one"]'),
        ("silent", "- [true or false or number; default true]"),
    ]


@pytest.mark.parametrize("name", Registry.load().names("readers"))
def test_help_of_a_build_lists_every_setting_of_its_reader(name: str, call: Call) -> None:
    code, out, _ = call("data", "build", name, "--help")
    assert code == 0
    shown = out.partition(f"Settings of the reader '{name}'")[2]
    first = {line.split()[0] for line in shown.splitlines() if line.strip()}
    assert set(Registry.load().get("readers", name).settings_model().model_fields) <= first


def test_help_of_a_build_without_a_reader_and_with_a_wrong_one(call: Call) -> None:
    code, out, _ = call("data", "build", "--help")
    assert code == 0
    assert "data build READER --help' shows its settings" in " ".join(out.split())
    assert "Settings of the reader" not in out
    code, _, errors = call("data", "build", "csw", "--help")
    assert code == 3
    assert "there is no reader 'csw'; did you mean 'csv'?" in errors
    code, out, _ = call("data", "build", "--set", "valid=0.2", "csv", "x", "y.csv", "--help")
    assert code == 0
    assert "Settings of the reader 'csv'" in out
