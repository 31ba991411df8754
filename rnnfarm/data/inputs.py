"""What readers share: finding input files, and cutting them into splits."""

from __future__ import annotations

import glob
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rnnfarm.errors import DataError, JobError
from rnnfarm.input_settings import NamesFiles
from rnnfarm.small_files import irregular

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    # Where each split of a file or sequence ends, in order; the first one begins at 0.
    Bounds = list[tuple[str, int]]


#: A setting's text that names files, by a glob pattern relative to the job: `files:
#: list[FilePattern]`. Files that are named so travel with a submitted job.
FilePattern = Annotated[str, NamesFiles()]


def find_files(
    patterns: Sequence[str], base: Path, setting: str, empty: set[Path] | None = None
) -> list[Path]:
    """The files that glob patterns relative to `base` match, each once, sorted within a pattern.

    JobError for a pattern that matches no file; DataError for an empty file named outright. One
    that a pattern matches is left out, and added to `empty`.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        files = match_files(pattern, base)
        if files == [base / os.path.expanduser(pattern)] and files[0].stat().st_size == 0:
            raise DataError(f"{files[0]}: the file is empty; give one that holds data")
        if not files:
            raise JobError(no_match(pattern, base, f"setting '{setting}'"))
        found.update((path, None) for path in files if path.stat().st_size)
        if empty is not None:
            empty.update(path for path in files if not path.stat().st_size)
    return list(found)


def match_files(pattern: str, base: Path) -> list[Path]:
    """The files that one pattern relative to `base` names: the one of just that name, or sorted
    those that it matches as a glob pattern."""
    pattern = os.path.expanduser(pattern)
    if os.path.isfile(base / pattern):
        return [base / pattern]
    # Only the pattern is one: a folder above it may be called a[1].
    names = sorted(glob.glob(pattern, root_dir=base, recursive=True))
    return [path for path in (base / name for name in names) if os.path.isfile(path)]


def no_match(pattern: str, base: Path, where: str) -> str:
    """What is wrong with a pattern that matches no file, and the fix."""
    path = base / os.path.expanduser(pattern)
    if os.path.isdir(path):
        return (
            f"{path} in {where} is a folder; name its files by a pattern, as"
            f" '{pattern.rstrip('/')}/*.txt'"
        )
    if os.path.lexists(path):
        what = irregular(os.stat(path).st_mode) if path.exists() else "is a link to nothing"
        return f"{path} in {where} {what}; give a file"
    quoted = "; in a pattern, write [[] for [ itself" if "[" in pattern else ""
    return f"{path} in {where} matches no file; correct the path{quoted}"


def bounds(length: int, valid: float, test: float = 0.0) -> Bounds:
    """The splits of `length` steps: the train part first, then valid, then test."""
    ends = (length - round(length * (valid + test)), length - round(length * test), length)
    return list(zip(("train", "valid", "test"), ends, strict=True))


def cut(parts: Bounds, position: int, size: int) -> Iterator[tuple[str, slice, bool]]:
    """The splits of a block of `size` steps at `position`: split, part of the block, and whether
    that part carries on what came before."""
    start = 0
    for split, end in parts:
        low, high = max(position, start), min(position + size, end)
        if low < high:
            yield split, slice(low - position, high - position), low > start
        start = end


def pick_files(sizes: Mapping[str, int], fraction: float, taken: Collection[str] = ()) -> set[str]:
    """The names to hold out: about `fraction` of all bytes, taken in the order of the hash, none of
    those that are `taken` already.

    One name at least, where the fraction is not 0, and never all of them.
    """
    room = fraction * sum(sizes.values())
    held: set[str] = set()
    free = [name for name in by_hash(sizes) if name not in taken]
    for name in free[:-1]:
        if fraction and (not held or sizes[name] <= room):
            held.add(name)
            room -= sizes[name]
    return held


def by_hash(names: Mapping[str, int] | Sequence[str]) -> list[str]:
    """The names in an order that is the same everywhere and has nothing to do with what is in the
    files."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
