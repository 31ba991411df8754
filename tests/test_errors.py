"""The error types, and the pieces that sentences are made of."""

from __future__ import annotations

import pytest

from rnnfarm import errors
from rnnfarm.errors import JobError, RnnfarmError, printable, suggestion


def test_every_error_has_a_documented_exit_code() -> None:
    found = {
        name: value.exit_code
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, RnnfarmError)
    }
    assert found == {
        "RnnfarmError": 1,
        "RunError": 1,
        "JobError": 2,
        "PluginError": 3,
        "CellError": 3,
        "DeviceError": 4,
        "DataError": 5,
        "Interrupted": 130,
    }


def test_a_job_error_carries_every_sentence() -> None:
    assert JobError("one").errors == ["one"]
    assert JobError(["one", "two"]).errors == ["one", "two"]
    assert str(JobError(["one", "two"])) == "one\ntwo"


@pytest.mark.parametrize(
    ("name", "known", "sentence"),
    [
        ("lstn", ["lstm", "gru"], "did you mean 'lstm'?"),
        ("xyz", ["lstm", "gru"], "known: gru, lstm"),
        ("xyz", [], "there are none"),
    ],
)
def test_suggestion(name: str, known: list[str], sentence: str) -> None:
    assert suggestion(name, known) == sentence


def test_what_a_terminal_would_act_on_is_written_as_an_escape() -> None:
    assert printable("a\nb\x1b[31m\u2028é") == "a\\nb\\x1b[31m\\u2028é"


def test_long_names_and_many_are_shortened() -> None:
    assert suggestion("x", ["a" * 5000]) == f"known: {'a' * 199}…"
    assert suggestion("a" * 5000, ["a" * 200]) == f"did you mean '{'a' * 200}'?"
    many = [f"c{k:05d}" for k in range(6000)]
    said = suggestion("zzz", many)
    assert said.endswith("c00049 and 5,950 more")
