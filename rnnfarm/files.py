"""What writing files safely needs."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

from rnnfarm.errors import RunError

#: A file in a temporary folder, locked as long as the process that made the folder lives.
LOCK = "lock"


def write_whole(path: Path, text: str) -> None:
    """Write a small file so that a kill leaves the old contents or the new; may raise RunError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise RunError(
            f"{path} could not be written ({error.strerror}); make room or permission there, and "
            "go on with --resume"
        ) from error


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


def remove_locked(folder: Path) -> None:
    """Remove a folder whose lock is held; its lock file last, so that a kill leaves what
    ``remove_unlocked`` removes."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
    shutil.rmtree(folder)


def remove_unlocked(folder: Path) -> bool:
    """Remove a folder of ``make_locked_folder`` whose process has ended; whether it was removed.

    One without a lock file is left alone.
    """
    try:
        with (folder / LOCK).open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_locked(folder)
    except OSError:
        return False
    return True


def remove_lock(folder: Path) -> bool:
    """Remove the lock file that a killed process left in a folder that is to stay; whether there
    was one."""
    try:
        with (folder / LOCK).open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not lock.read(1):  # a file with something in it is another's
                (folder / LOCK).unlink()
                return True
    except OSError:
        pass
    return False


def exchange_folders(new: Path, old: Path) -> None:
    """Give two folders of one filesystem each other's name; OSError where that fails.

    Where the system can do it in one step, a kill leaves the one or the other at `old`. Where it
    cannot, `old` has no folder for a moment, and a kill then leaves its contents beside it.
    """
    try:
        _exchange_at_once(new, old)
    except (OSError, AttributeError, ImportError):
        aside = Path(tempfile.mkdtemp(prefix=f"{old.name}.replaced-", dir=old.parent))
        old.rename(aside)
        try:
            new.rename(old)
        except OSError:
            aside.rename(old)
            raise
        aside.rename(new)


def _exchange_at_once(one: Path, other: Path) -> None:
    """The system call renameat2 with RENAME_EXCHANGE, which Linux has and Python has not."""
    import ctypes

    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    system = ctypes.CDLL(None, use_errno=True)
    if system.renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange):
        raise OSError(ctypes.get_errno(), "renameat2")
