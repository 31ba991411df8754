"""What readers share: finding input files, and cutting them into splits."""

from __future__ import annotations

import glob
import hashlib
import os
from typing import TYPE_CHECKING

from rnnfarm.errors import DataError, JobError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    # Where each split of a file or sequence ends, in order; the first one begins at 0.
    Bounds = list[tuple[str, int]]


def find_files(patterns: Sequence[str], base: Path, setting: str) -> list[Path]:
    """The files that glob patterns relative to `base` match, each once, sorted within a pattern.

    JobError for a pattern that matches no file; DataError for an empty file named outright (one
    that a pattern matches is left out).
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = base / os.path.expanduser(pattern)
        if path.is_file():
            if path.stat().st_size == 0:
                raise DataError(f"{path}: the file is empty; give one that holds data")
            found[path] = None
            continue
        if path.is_dir():
            raise JobError(
                f"{path} in setting '{setting}' is a folder; name its files by a pattern, as"
                f" '{pattern.rstrip('/')}/*.txt'"
            )
        matched = [base / name for name in sorted(glob.glob(str(path), recursive=True))]
        files = [name for name in matched if name.is_file()]
        if not files:
            raise JobError(f"{path} in setting '{setting}' matches no file; mend the path")
        found.update((name, None) for name in files if name.stat().st_size)
    return list(found)


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


def pick_files(sizes: Mapping[str, int], fraction: float) -> set[str]:
    """The names to hold out: about `fraction` of all bytes, taken in the order of the hash.

    One name at least, where the fraction is not 0, and never all of them.
    """
    room = fraction * sum(sizes.values())
    held: set[str] = set()
    for name in by_hash(sizes)[:-1]:
        if fraction and (not held or sizes[name] <= room):
            held.add(name)
            room -= sizes[name]
    return held


def by_hash(names: Mapping[str, int] | Sequence[str]) -> list[str]:
    """The names in an order that is the same everywhere and has nothing to do with what is in the
    files."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
