"""What reading texts and writing files safely needs."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import IO

from rnnfarm.errors import DataError, JobError

#: A file in a temporary folder, locked as long as the process that made the folder lives.
LOCK = "lock"


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


def make_locked_folder(prefix: str, parent: Path) -> tuple[Path, IO[bytes]]:
    """Return a new folder, and its lock file, which is locked until it is closed.

    ``remove_unlocked`` of another process may take the lock first, and the folder with it; then
    another folder is made.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        lock = (folder / LOCK).open("xb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(lock.fileno()), (folder / LOCK).stat()):
                return folder, lock
        except FileNotFoundError:
            pass
        except OSError:
            lock.close()
            raise
        lock.close()


def remove_unlocked(folder: Path) -> bool:
    """Remove a folder of ``make_locked_folder`` whose process has ended; whether it was removed.

    One without a lock file is left alone.
    """
    try:
        with (folder / LOCK).open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
    except OSError:
        return False
    return True
