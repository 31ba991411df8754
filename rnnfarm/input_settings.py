"""Which settings of a part name files of the user's, read from their annotations."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import Annotated, Any

from rnnfarm.settings import Part, declared

Change = Callable[[str, str], str]
"""What a file's pattern becomes, by the setting that it stands in, as ``source.train.0``."""


class NamesFiles:
    """Marks a setting's annotation: its text names files, as ``Annotated[str, NamesFiles()]``.

    Readers use it as ``rnnfarm.data.FilePattern``. Annotations of paths need no mark.
    """

    def __repr__(self) -> str:
        return "NamesFiles()"


def map_files(part: type[Part], settings: Mapping[str, Any], change: Change) -> dict[str, Any]:
    """Return ``settings`` of a part with each text that names files replaced by ``change``.

    A setting called ``files`` or ``…_files`` names files whatever its annotation says.
    """
    hints = declared(part)
    changed = {}
    for name, value in settings.items():
        given = [hints[name]] if name in hints else []
        if name == "files" or name.endswith("_files"):
            given.append(list[Annotated[str, NamesFiles()]])
        changed[name] = _mapped(_alternatives(given), name, value, change)
    return changed


def _mapped(hints: list[Any], at: str, value: Any, change: Change) -> Any:
    if isinstance(value, str):
        return change(at, value) if any(map(_names_files, hints)) else value
    if isinstance(value, list):
        inner = _alternatives(a for hint in hints for a in typing.get_args(hint))
        return [_mapped(inner, f"{at}.{k}", v, change) for k, v in enumerate(value)]
    if isinstance(value, Mapping):
        inner = _alternatives(a for hint in hints for a in typing.get_args(hint)[1:])
        return {k: _mapped(inner, f"{at}.{k}", v, change) for k, v in value.items()}
    return value


def _names_files(hint: Any) -> bool:
    if typing.get_origin(hint) is typing.Annotated:
        return any(isinstance(mark, NamesFiles) for mark in hint.__metadata__)
    return isinstance(hint, type) and issubclass(hint, PurePath)


def _alternatives(hints: Iterable[Any]) -> list[Any]:
    """The members of unions, and what is annotated beside its annotation."""
    found: list[Any] = []
    for hint in hints:
        origin = typing.get_origin(hint)
        if origin in (typing.Union, types.UnionType):
            found += _alternatives(typing.get_args(hint))
        elif origin is typing.Annotated:
            found += [hint, *_alternatives([hint.__origin__])]
        else:
            found.append(hint)
    return found
