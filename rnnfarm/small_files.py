"""The one way in which rnnfarm reads files of its own: regular ones, up to a size, as plain values.

A pipe or a device in place of a file would hang, a huge file fill the memory, and what parses text
raises a handful of exceptions: here all of it becomes ``UnreadableError``.
"""

from __future__ import annotations

import json
import os
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

from rnnfarm.strict_json import to_json

#: The largest size of each kind of file, in bytes.
MOST_JOB = 4 << 20
MOST_MANIFEST = 256 << 20
MOST_FACTS = 64 << 20


class UnreadableError(Exception):
    """Why a file cannot be read, as the end of a sentence about it: "is a folder".

    Attributes:
        missing: whether there is nothing at the path.
    """

    def __init__(self, what: str, *, missing: bool = False) -> None:
        super().__init__(what)
        self.missing = missing


def open_regular(path: Path) -> IO[bytes]:
    """Open a file for reading; UnreadableError where it is missing, or no regular file."""
    try:
        # A pipe without a writer would hang here.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UnreadableError("is missing", missing=True) from None
    except OSError as error:
        raise UnreadableError(f"cannot be read ({error.strerror})") from None
    except ValueError:  # NUL in a path
        raise UnreadableError("is no path that there can be") from None
    if (what := irregular(os.fstat(descriptor).st_mode)) is not None:
        os.close(descriptor)
        raise UnreadableError(what)
    return os.fdopen(descriptor, "rb")


def irregular(mode: int) -> str | None:
    """Return what is wrong with a file of this mode in place of a regular one, if anything."""
    if stat.S_ISREG(mode):
        return None
    return "is a folder" if stat.S_ISDIR(mode) else "is a pipe, a device or a socket, not a file"


def read_small(path: Path, most: int) -> bytes:
    """Return the bytes of a file that has ``most`` of them at most."""
    with open_regular(path) as file:
        try:
            content = file.read(most + 1)
        except OSError as error:
            raise UnreadableError(f"cannot be read ({error.strerror})") from None
    if len(content) > most:
        raise UnreadableError(f"is larger than {most >> 20} MiB, the most that such a file has")
    return content


def read_json(path: Path, most: int = MOST_FACTS) -> Any:
    """Return the value in a JSON file."""
    return parse_json(read_small(path, most))


def read_toml(path: Path, most: int = MOST_JOB) -> dict[str, Any]:
    """Return the tables of a TOML file."""
    return parse_toml(read_small(path, most))


def parse_json(text: bytes) -> Any:
    """Return the value of a JSON text; UnreadableError where it is none, strictly."""
    with _explained():
        value = json.loads(text.decode("utf-8"), parse_constant=_refuse)
        if b"\\ud" in text or b"\\uD" in text:  # half a character, which nothing can write again
            to_json(value, ensure_ascii=False).encode()
    return value


def parse_toml(text: bytes) -> dict[str, Any]:
    """Return the tables of a TOML text; UnreadableError where it is none."""
    with _explained():
        return tomllib.loads(text.decode("utf-8-sig"))


@contextmanager
def _explained() -> Iterator[None]:
    """What is wrong with a text, as an UnreadableError."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UnreadableError(f"is no UTF-8 text (byte {error.start})") from None
    except UnicodeEncodeError:
        raise UnreadableError("holds half a character (a lone surrogate)") from None
    except json.JSONDecodeError as error:
        raise UnreadableError(f"is not readable as JSON ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise UnreadableError(f"is no valid TOML: {error}") from None
    except RecursionError:
        raise UnreadableError("is nested too deeply") from None
    except ValueError as error:
        raise UnreadableError(_number(error)) from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _number(error: ValueError) -> str:
    """What is wrong where a number could not be read."""
    text = str(error)
    if "digits" in text:  # Python reads no integer of more
        return "holds an integer of thousands of digits"
    return f"holds what is no number or date ({text})"
