"""Parts: declaring settings, checking them, and the sentence for each wrong one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pytest
from pydantic import Field

from rnnfarm.errors import JobError, PluginError
from rnnfarm.settings import Part


class Example(Part):
    states: ClassVar[tuple[str, ...]] = ("h",)
    unannotated = 3
    _private: int = 4
    rate: float = 0.1
    share: Annotated[float, Field(ge=0, lt=1)] = 0.5
    betas: tuple[float, float] = (0.9, 0.999)
    kind: Literal["tanh", "relu"] = "tanh"
    files: list[str] = []
    folder: Path = Path("here")
    either: int | list[int] = 1


class Derived(Example):
    rate = 0.2
    size: int


def test_defaults_are_set_without_pydantic() -> None:
    code = (
        "import sys; from rnnfarm.settings import Part\n"
        "class P(Part):\n    rate: float = 0.1\n"
        "assert P().rate == 0.1; assert 'pydantic' not in sys.modules\n"
        "assert P(rate=1).rate == 1.0; assert 'pydantic' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_settings_are_the_annotated_public_attributes() -> None:
    assert list(Example().settings()) == [
        *("rate", "share", "betas", "kind", "files", "folder", "either")
    ]
    assert list(Derived.settings_model().model_fields)[-1] == "size"


def test_resolved_settings_are_plain_and_make_the_same_part() -> None:
    part = Example(betas=[0.5, 0.6], folder="a/b", rate=np.float32(0.5), either=np.int64(3))
    assert part.betas == (0.5, 0.6)
    assert part.folder == Path("a/b")
    resolved = part.settings()
    assert resolved["betas"] == [0.5, 0.6]
    assert resolved["folder"] == "a/b"
    assert Example(**resolved).settings() == resolved


def test_a_derived_class_changes_a_default_and_adds_a_required_setting() -> None:
    assert Derived(size=3).rate == 0.2
    with pytest.raises(JobError, match=r"^Derived: size: is required; give it a value$"):
        Derived()


def test_mutable_defaults_are_not_shared() -> None:
    Example().files.append("x")
    assert Example().files == []
    Example(rate=1).files.append("x")
    assert Example(rate=1).files == []


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rat": 1}, "Example: rat: unknown key; did you mean 'rate'?"),
        ({"rate": "3"}, "Example: rate: should be a valid number, not '3'"),
        ({"rate": True}, "Example: rate: should be a valid number, not True"),
        ({"share": 1}, "Example: share: should be less than 1, not 1"),
        ({"betas": [1]}, "Example: betas.1: is required; give it a value"),
        ({"betas": 1}, "Example: betas: should be a list, not 1"),
        ({"kind": "tan"}, "Example: kind: should be 'tanh' or 'relu', not 'tan'"),
        ({"files": "x"}, "Example: files: should be a list, not 'x'"),
        ({"files": [1]}, "Example: files.0: should be a valid string, not 1"),
        (
            {"either": "x"},
            "Example: either: should be a valid integer, not 'x'; or should be a list, not 'x'",
        ),
        ({"states": ["c"]}, "Example: states: unknown key; "),
        ({"_private": 1}, "Example: _private: unknown key; "),
    ],
)
def test_a_wrong_setting_gets_one_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(JobError) as caught:
        Example(**settings)
    assert len(caught.value.errors) == 1
    assert str(caught.value).startswith(sentence)


def test_every_wrong_setting_is_listed() -> None:
    with pytest.raises(JobError) as caught:
        Example(rate="x", share=2, nothing=1)
    assert len(caught.value.errors) == 3


def test_an_annotation_that_cannot_be_read_is_the_plugins_fault() -> None:
    class Unreadable(Part):
        size: NoSuchType = 3  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(PluginError, match=r"annotation of 'size' cannot be read .*NoSuchType"):
        Unreadable(size=3)


def test_a_type_that_pydantic_cannot_check_is_the_plugins_fault() -> None:
    class Odd(Part):
        value: np.random.Generator

    with pytest.raises(
        PluginError, match=r"Odd: its settings cannot be checked .*; use plain types"
    ):
        Odd(value=1)
