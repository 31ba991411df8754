"""Small files are read as plain values, and whatever is wrong with one is a clause."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

import rnnfarm
from rnnfarm.small_files import (
    UnreadableError,
    parse_json,
    parse_toml,
    read_json,
    read_small,
    read_toml,
)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"", "is not readable as JSON"),
        (b'{"a": 1,}', "is not readable as JSON"),
        (b'{"a": "\xff"}', r"is no UTF-8 text \(byte 7\)"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"a":' * 100_000, "is nested too deeply"),
        (b"9" * 5_000, "holds an integer of thousands of digits"),
        (b"[NaN]", "NaN is no number of JSON"),
        (b'{"a": -Infinity}', "-Infinity is no number of JSON"),
        (b'["\\ud800"]', "half a character"),
        (b'{"a\\uDC00": 1}', "half a character"),
    ],
)
def test_what_is_no_json(text: bytes, what: str) -> None:
    with pytest.raises(UnreadableError, match=what) as error:
        parse_json(text)
    assert "\n" not in str(error.value)


def test_characters_of_two_halves_are_read() -> None:
    assert parse_json(b'["\\ud83d\\ude00", "\xc3\xa7", null, 1e3]') == ["😀", "ç", None, 1000.0]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"a =\nb = 1", r"is no valid TOML: .*line 1"),
        (b"a = 1\n\xff", r"is no UTF-8 text \(byte 6\)"),
        (b"a = " + b"[" * 100_000, "is nested too deeply"),
        (b"a = " + b"9" * 5_000, "holds an integer of thousands of digits"),
        (b"a = 2026-13-01", "TOML|no number or date"),
        (b"\0", "is no valid TOML"),
    ],
)
def test_what_is_no_toml(text: bytes, what: str) -> None:
    with pytest.raises(UnreadableError, match=what):
        parse_toml(text)


def test_a_byte_order_mark_of_toml_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbfa = 1\n")
    assert read_toml(tmp_path / "a.toml") == {"a": 1}


def test_only_regular_files_up_to_a_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "socket"))
        for path, what in {
            tmp_path / "pipe": "is a pipe, a device or a socket",
            Path("/dev/zero"): "is a pipe, a device or a socket",
            tmp_path / "socket": "cannot be read",
            tmp_path: "is a folder",
            tmp_path / "a\0b": "is no path that there can be",
            tmp_path / ("x" * 5_000): "cannot be read",
            tmp_path / "absent": "is missing",
        }.items():
            with pytest.raises(UnreadableError, match=what) as error:
                read_small(path, 10)
            assert error.value.missing == (path.name == "absent")
    (tmp_path / "ten").write_bytes(b"1" * 10)
    assert read_small(tmp_path / "ten", 10) == b"1" * 10
    with pytest.raises(UnreadableError, match="is larger than"):
        read_small(tmp_path / "ten", 9)
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UnreadableError, match="is larger than 64 MiB"):
        read_json(tmp_path / "hole")


#: Where JSON or TOML is parsed in another way, or a whole file is read, and why.
ELSEWHERE = {
    "small_files.py": "it is what reads",
    "training/checkpoint.py": "facts on their way to a file, as they will be read",
    "discovery.py": "the entry points of a distribution",
    "cluster/submitted.py": "what the cluster's own command was given",
    "cluster/pack.py": "what pip has written about a distribution",
    "testing/tools.py": "whether settings come back from JSON",
    "testing/schedules.py": "whether a state comes back from JSON",
}


def test_nothing_else_parses_files() -> None:
    package = Path(rnnfarm.__file__).parent
    parses = re.compile(r"\bjson\.loads?\(|\btomllib\.loads?\(|\.read_(text|bytes)\(|\bpickle\b")
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if parses.search(path.read_text(encoding="utf-8"))
    }
    assert found == ELSEWHERE.keys()
