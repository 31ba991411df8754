"""Whether a dataset is what its reader, settings and source files would give now."""

from __future__ import annotations

import os
import reprlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnfarm.data.inputs import find_files
from rnnfarm.data.provenance import checksum_of
from rnnfarm.data.sources import stamp
from rnnfarm.errors import DataError, JobError, PluginError
from rnnfarm.settings import declared, plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rnnfarm.data.manifest import Provenance, SourceFile
    from rnnfarm.plugins import Registry

SHOWN = 3  # changes that a sentence names


@dataclass(frozen=True)
class Build:
    """How a dataset is made: a reader's name, its settings, and where relative paths start."""

    reader: str
    settings: Mapping[str, Any]
    base: Path

    @classmethod
    def of(cls, built: Provenance) -> Build:
        """Return the build that a dataset was made by."""
        return cls(built.reader, built.settings, Path(built.base))


@dataclass
class Changes:
    """What differs from a dataset's build: a clause for each change, and the files that are gone.

    A file that is gone is no change: it may be on another machine.
    """

    changed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def clause(self) -> str:
        """Return the first changes, as part of a sentence."""
        more = len(self.changed) - SHOWN
        return ", ".join(self.changed[:SHOWN] + [f"and {more} more changes"] * (more > 0))


def changes_since(built: Provenance, build: Build, registry: Registry) -> Changes:
    """Return how a build differs from the one that a dataset was made by.

    Settings are compared with their defaults filled in, and files by size and time first, by
    checksum only where these differ. Files and folders that were moved are no change.
    """
    if not _same_reader(built.reader, build.reader, registry):
        return Changes([f"data.build.reader was {built.reader!r} and is {build.reader!r}"])
    found = Changes()
    defaults = defaults_of(build.reader, registry)
    before, now = (_flat(defaults | dict(part.settings)) for part in (built, build))
    for key in sorted(before.keys() | now.keys() | built.named.keys()):
        old, new = before.get(key), now.get(key)
        if key in built.named:
            files = [built.files[number] for number in built.named[key]]
            _compare_named(found, key, (old, new), files, built.base, build.base)
        elif old != new and (not defaults or key.partition(".")[0] in defaults):
            found.changed.append(_setting_changed(key, old, new))
    named = {number for numbers in built.named.values() for number in numbers}
    for number, file in enumerate(built.files):
        if number not in named:
            _compare_file(found, file, Path(file.path))
    return found


def _same_reader(one: str, other: str, registry: Registry) -> bool:
    """Whether two names are of one reader, also where one is an import string."""
    try:
        return one == other or registry.get("readers", one) is registry.get("readers", other)
    except (PluginError, JobError):
        return False


def defaults_of(reader: str, registry: Registry) -> dict[str, Any]:
    """Return the settings of a reader with their defaults, None for those without; empty where the
    reader cannot be had."""
    try:
        part = registry.get("readers", reader)
    except (PluginError, JobError):
        return {}
    return {name: plain(getattr(part, name, None)) for name in declared(part)}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted keys, without those that are None."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            found[prefix + key] = value
    return found


def _setting_changed(key: str, old: Any, new: Any) -> str:
    was = "was not set" if old is None else f"was {reprlib.repr(old)}"
    return f"data.build.{key} {was} and is {'not set' if new is None else reprlib.repr(new)}"


def _compare_named(
    found: Changes,
    setting: str,
    patterns: tuple[Any, Any],
    files: list[SourceFile],
    old_base: str,
    base: Path,
) -> None:
    """Compare the files that a setting named with those that it names now."""
    old, new = patterns
    expected = [_place(file, old_base, base) for file in files]
    try:
        now = find_files([new] if isinstance(new, str) else new or [], base, setting)
    except (JobError, DataError, TypeError):  # they are gone, or empty, or no patterns
        now = expected if old == new else []
    other = Changes()
    same_names = [path.name for path in now] == [path.name for path in expected]
    if same_names:
        for file, path in zip(files, now, strict=True):
            _compare_file(other, file, path)
    if old != new and (other.changed or not same_names):
        found.changed.append(_setting_changed(setting, old, new))
    elif same_names:
        found.changed += other.changed
        found.missing += other.missing
    else:
        by_place = dict(zip(map(os.path.abspath, expected), files, strict=True))
        places = [os.path.abspath(path) for path in now]
        found.changed += [f"{place} is new" for place in places if place not in by_place]
        for place, file in by_place.items():
            _compare_file(found, file, Path(place))


def _place(file: SourceFile, old_base: str, base: Path) -> Path:
    """Where a file is to be looked for, after its folder may have been moved."""
    inner = os.path.relpath(file.path, old_base)
    moved = base / inner
    return moved if moved.exists() and not inner.startswith("..") else Path(file.path)


def _compare_file(found: Changes, file: SourceFile, path: Path) -> None:
    try:
        size, modified = stamp(path)
        if size != file.bytes:
            what = f"{path} has changed ({file.bytes:,} bytes then, {size:,} now)"
            found.changed.append(what)
        elif modified != file.modified and checksum_of(path) != file.sha256:
            found.changed.append(f"{path} has changed (its size has not)")
    except DataError:
        found.missing.append(str(path))
