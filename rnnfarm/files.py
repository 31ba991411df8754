"""What reading texts and writing files safely needs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rnnfarm.errors import DataError, JobError


def read_text(path: Path) -> str:
    """The UTF-8 text of a file, or of standard input for ``-``.

    Raises JobError for a file that cannot be read, DataError for one that is no UTF-8.
    """
    try:
        raw = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise JobError(f"{path}: cannot be read ({error.strerror}); mend the path") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; convert the file") from None


def bring_to_disk(path: Path) -> None:
    """Wait until a file's or a folder's contents are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
