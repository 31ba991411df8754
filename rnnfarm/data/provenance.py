"""What a dataset was built from: its source files with their checksums."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from rnnfarm.data.manifest import Provenance, SourceFile
from rnnfarm.data.sources import Stamp, stamp
from rnnfarm.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from rnnfarm.data.reader import Reader


def describe_build(reader: Reader, name: str) -> Provenance:
    """Return what a build by `reader`, whose `sequences` have ended, was made from.

    DataError where a file has changed since the reader found it.
    """
    stamps = reader.reads.stamps
    return Provenance(
        name,
        reader.settings(),
        [describe_file(path, stamps.get(path)) for path in reader.sources()],
        reader.learned(),
        reader.notes(),
        os.path.abspath(reader.base),
        {setting: list(numbers) for setting, numbers in reader.reads.named.items()},
    )


def describe_file(path: Path, before: Stamp | None = None) -> SourceFile:
    """Return the size, the time and the checksum of a file; DataError where it cannot be read, or
    its size and time are not those of `before`."""
    checksum = checksum_of(path)
    size, modified = now = stamp(path)
    if before not in (None, now):
        raise DataError(f"{path}: the file has changed while it was read; build the dataset again")
    return SourceFile(os.path.abspath(path), size, modified, checksum)


def checksum_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; DataError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); fix its permissions") from None
