"""The error types, and the exit code that the command line gives for each.

Every message is one sentence that names what was wrong, where, and how to mend it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

#: Characters of a text, and names of a list, that a sentence quotes at most.
MOST_SHOWN, MOST_NAMES = 200, 50
#: Names among which the nearest one is looked for, which takes long.
MOST_NEAR = 5_000


class RnnfarmError(Exception):
    """Base of every error that rnnfarm raises on purpose."""

    exit_code: ClassVar[int] = 1


class RunError(RnnfarmError):
    """A run failed: its loss became NaN, a file could not be written, …"""

    exit_code = 1


class JobError(RnnfarmError):
    """A wrong job, or wrong usage; carries every sentence that is wrong with it."""

    exit_code = 2

    def __init__(self, errors: str | Sequence[str]) -> None:
        self.errors: list[str] = [errors] if isinstance(errors, str) else list(errors)
        super().__init__("\n".join(self.errors))


class PluginError(RnnfarmError):
    """A plugin or one of its parts is missing, unknown or broken."""

    exit_code = 3


class CellError(PluginError):
    """A mistake in the equations of a cell, a loss or an optimizer."""


class DeviceError(RnnfarmError):
    """A device, a kernel for it or a cluster is not there."""

    exit_code = 4


class DataError(RnnfarmError):
    """A dataset, a shard or a checkpoint is missing or damaged."""

    exit_code = 5


class Interrupted(RnnfarmError):  # noqa: N818  (it is no error of the run)
    """The user stopped the run; its checkpoint is written."""

    exit_code = 130


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence about the unknown ``name``: the nearest name, or all names.

    >>> suggestion("lstn", ["lstm", "gru"])
    "did you mean 'lstm'?"
    """
    import difflib

    names = sorted(known)
    near = (
        difflib.get_close_matches(name[:MOST_SHOWN], names, n=1) if len(names) < MOST_NEAR else []
    )
    if near:
        return f"did you mean '{shortened(near[0])}'?"
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    shown = ", ".join(map(shortened, names[:MOST_NAMES]))
    return f"known: {shown}{more}" if names else "there are none"


def shortened(text: str) -> str:
    """Return a text of the user's as a sentence quotes it: its beginning, where it is long.

    >>> shortened("a" * 200)[-5:]
    'aaaa…'
    """
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 1] + "…"


def article(word: str) -> str:
    """Return a word, such as the name of a class, behind "a" or "an".

    >>> article("int")
    'an int'
    """
    return word if word == "NoneType" else f"{'an' if word[0].lower() in 'aeiou' else 'a'} {word}"


def printable(text: str) -> str:
    """Return ``text`` on one line, with what a terminal would act on written as an escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def foreign_part(error: Exception) -> str:
    """``CLASS.METHOD (FILE, line N): `` of the plugin's part that an exception went through."""
    import traceback

    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        kind = type(frame.f_locals.get("self"))
        homes = [base.__module__.partition(".")[0] for base in kind.__mro__]
        if homes[0] != "rnnfarm" and "rnnfarm" in homes:
            code = frame.f_code
            found = f"{kind.__name__}.{code.co_name} ({code.co_filename}, line {line}): "
    return found
