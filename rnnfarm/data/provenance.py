"""What a dataset was built from: its source files with their checksums."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from rnnfarm.data.manifest import Provenance, SourceFile
from rnnfarm.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from rnnfarm.data.reader import Reader


def describe_build(reader: Reader, name: str) -> Provenance:
    """Return what a build by `reader`, whose `sequences` have ended, was made from."""
    files = [describe_file(path) for path in reader.sources()]
    return Provenance(name, reader.settings(), files, reader.learned(), reader.notes())


def describe_file(path: Path) -> SourceFile:
    """Return the size, the time and the checksum of a file; DataError where it cannot be read."""
    try:
        with path.open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); fix its permissions") from None
    return SourceFile(str(path), status.st_size, status.st_mtime_ns, checksum)
