"""What settings mean, as docstrings and annotations say it."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Field

from rnnfarm.job_tables import PartTable, Table
from rnnfarm.plugins import Registry
from rnnfarm.setting_docs import described, descriptions
from rnnfarm.settings import Part


class Base(Part):
    """A base.

    size: how
        large; near, far: the two
    distances.

    Nothing of a setting. far
    """

    size: int
    near: float = 0.0
    far: float = 1.0
    kind: str = ""


class Derived(Base):
    """``far`` is told anew; far: the far one, or kind: of what kind."""

    silent: int = 0
    own: Annotated[int, Field(description="in the annotation")] = 0


def test_a_docstring_describes_settings_by_name() -> None:
    names = ("size", "near", "far", "kind", "silent", "own")
    assert described(Derived, names) == {
        "size": "how large",
        "near": "the two distances",
        "far": "the far one",
        "kind": "of what kind",
    }


def test_the_model_of_the_settings_says_it() -> None:
    fields = Derived.settings_model().model_fields
    assert fields["size"].description == "how large"
    assert fields["own"].description == "in the annotation"
    assert fields["silent"].description is None


def installed_parts() -> list[tuple[str, str, Any]]:
    """The parts of the project and its example, with settings."""
    registry = Registry.load()
    kinds = ("cells", "losses", "optimizers", "schedules", "readers", "callbacks")
    return [(kind, n, registry.get(kind, n)) for kind in kinds for n in registry.names(kind)]


@pytest.mark.parametrize(("kind", "name", "part"), installed_parts())
def test_every_setting_of_every_part_is_described(kind: str, name: str, part: Any) -> None:
    silent = [k for k, f in part.settings_model().model_fields.items() if not f.description]
    assert not silent, f"{part.__qualname__}: write '{silent[0]}: …' in its docstring"


@pytest.mark.parametrize(("kind", "name", "part"), installed_parts())
def test_a_docstring_describes_no_setting_twice(kind: str, name: str, part: Any) -> None:
    """A second one is words of another description, as "rows of one time: …", which cuts both."""
    places = [(b, n) for b, n, _ in descriptions(part, list(part.settings_model().model_fields))]
    twice = {f"{base.__qualname__}: '{n}: …'" for base, n in places if places.count((base, n)) > 1}
    assert not twice


class Twice(Part):
    """A part.

    size: how large; kind: what becomes of those that have one size: nothing.
    """

    size: int = 0
    kind: str = ""


def test_a_description_within_another_is_seen() -> None:
    assert [(b, n) for b, n, _ in descriptions(Twice, ["size", "kind"])] == [
        (Twice, "size"), (Twice, "kind"), (Twice, "size"),
    ]  # fmt: skip


def tables(table: type[Table]) -> list[type[Table]]:
    return [table, *(deeper for each in table.__subclasses__() for deeper in tables(each))]


@pytest.mark.parametrize("table", tables(Table), ids=lambda table: table.__name__)
def test_every_key_of_a_job_is_described(table: type[Table]) -> None:
    silent = [k for k, f in table.model_fields.items() if not f.description]
    assert silent == (["settings"] if issubclass(table, PartTable) else [])
