"""What the settings of a part mean, read from where its author has written it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator


def described(part: type, names: Collection[str]) -> dict[str, str]:
    """Return what the docstrings of ``part`` and its bases say of the settings ``names``.

    A docstring describes a setting as ``name: text``, and several by ``name, name: text``. The text
    ends with the next setting that is described, or at a blank line.
    """
    return {name: meaning for _, name, meaning in descriptions(part, names)}


def descriptions(part: type, names: Collection[str]) -> Iterator[tuple[type, str, str]]:
    """Yield each description of a setting, with the class whose docstring it is in; a class's own
    come behind those of its bases."""
    if not names:
        return
    name = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    entry = re.compile(rf"(?<![\w`.])((?:{name})(?:(?:,| and) (?:{name}))*):\s+(?=\S)")
    for base in reversed(part.__mro__):
        text = inspect.cleandoc(base.__dict__.get("__doc__") or "")
        for paragraph in re.split(r"\n\s*\n", text):
            marks = list(entry.finditer(paragraph))
            ends = [*(mark.start() for mark in marks[1:]), len(paragraph)]
            for mark, end in zip(marks, ends, strict=False):
                meaning = " ".join(paragraph[mark.end() : end].split())
                meaning = re.sub(r"[;,]?( or| and)?$", "", meaning).rstrip(".")
                for each in re.split(r",? and |, ", mark[1]):
                    yield base, each, meaning
