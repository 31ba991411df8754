"""Which texts in a part's settings name files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from rnnfarm.data import FilePattern
from rnnfarm.input_settings import map_files
from rnnfarm.settings import Part

Sides = dict[Literal["left", "right"], list[FilePattern]]


class Several(Part):
    """A part with texts of every kind."""

    one: FilePattern = ""
    maybe: FilePattern | None = None
    many: list[FilePattern] = []
    sides: Sides = {}
    either: list[FilePattern] | FilePattern = ""
    path: Path = Path()
    paths: Annotated[list[Path], "of anything"] = []
    names: list[str] = []
    text: str = ""
    table: dict[str, str] = {}
    files: list[str] = []
    test_files: list[str] = []
    profiles: list[str] = []
    size: int = 0


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"one": "a"}, {"one": "a"}),
        ({"maybe": "a"}, {"maybe": "a"}),
        ({"maybe": None}, {}),
        ({"many": ["a", "b"]}, {"many.0": "a", "many.1": "b"}),
        ({"sides": {"left": ["a"], "right": ["b"]}}, {"sides.left.0": "a", "sides.right.0": "b"}),
        ({"either": ["a"]}, {"either.0": "a"}),
        ({"either": "a"}, {"either": "a"}),
        ({"path": "a", "paths": ["b"]}, {"path": "a", "paths.0": "b"}),
        ({"names": ["a"], "text": "b", "table": {"c": "d"}, "size": 3}, {}),
        (
            {"files": ["a"], "test_files": ["b"], "profiles": ["c"]},
            {"files.0": "a", "test_files.0": "b"},
        ),
        ({"unknown": "a"}, {}),
    ],
)
def test_texts_that_name_files_are_found_and_changed(
    settings: dict[str, Any], found: dict[str, str]
) -> None:
    seen: dict[str, str] = {}

    def change(setting: str, text: str) -> str:
        seen[setting] = text
        return f"new {text}"

    before = repr(settings)
    changed = map_files(Several, settings, change)
    assert seen == found
    assert repr(settings) == before
    assert list(changed) == list(settings)
    for setting, text in found.items():
        here: Any = changed
        for key in setting.split("."):
            here = here[int(key)] if isinstance(here, list) else here[key]
        assert here == f"new {text}"
