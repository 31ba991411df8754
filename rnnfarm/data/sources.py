"""The files that a reader has read: which settings name them, and whether they have changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rnnfarm.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: The size of a file, and the time of its last change in nanoseconds since 1970.
Stamp = tuple[int, int]


def stamp(path: Path) -> Stamp:
    """Return a file's size and time; DataError where it cannot be read."""
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); fix its permissions") from None
    return status.st_size, status.st_mtime_ns


class Sources:
    """The files that a reader has found, in the order in which it found them.

    Attributes:
        numbers: the number of each file.
        stamps: the size and the time that each file had when it was found.
        named: the numbers of the files that each setting names.
    """

    def __init__(self) -> None:
        self.numbers: dict[Path, int] = {}
        self.stamps: dict[Path, Stamp] = {}
        self.named: dict[str, dict[int, None]] = {}

    def add(self, files: Iterable[Path], setting: str | None) -> None:
        """Note files that a setting names, or that no setting names."""
        for path in files:
            if path not in self.numbers:
                self.numbers[path] = len(self.numbers)
                self.stamps[path] = stamp(path)
            if setting is not None:
                self.named.setdefault(setting, {})[self.numbers[path]] = None
