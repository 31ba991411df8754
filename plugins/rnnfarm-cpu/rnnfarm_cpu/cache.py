"""Compiled programs, kept from run to run.

A program is compiled once for its source, flags, compiler and processor. Everything is written
under a temporary name and renamed, so that processes that compile the same at once do not disturb
each other. A library is loaded only where its bytes have the checksum that was written beside it:
a damaged one could end the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import json
import logging
import os
import stat
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnfarm.errors import DeviceError
from rnnfarm.small_files import UnreadableError, read_json
from rnnfarm_cpu.compiler import Compiler
from rnnfarm_cpu.processor import Target

log = logging.getLogger("rnnfarm")
VARIABLE = "RNNFARM_CACHE"
FORMAT = 1
#: Programs that are kept at most, and the seconds for which each is kept at least.
MOST, YOUNG = 512, 86_400


@dataclass
class Library:
    """A compiled program.

    Attributes:
        compiled: whether it was compiled now, not found.
        checked: whether it has passed its self-check on this machine before.
        sha256: of the file that was loaded, whatever has become of it since.
    """

    path: Path
    handle: ctypes.CDLL
    compiled: bool
    checked: bool
    sha256: str

    def mark_checked(self) -> None:
        """Remember that the program has passed its self-check."""
        self.checked = True
        with contextlib.suppress(OSError):  # then it is checked again
            _write_facts(self.path, {"sha256": self.sha256, "checked": True})


def load_library(
    source: str, target: Target, compiler: Compiler, folder: Path | None = None
) -> Library:
    """The program of a source, compiled if it is not there whole.

    Raises DeviceError where the compiler cannot compile it, or the result cannot be loaded.
    """
    folder = private_folder(os.environ.get(VARIABLE)) if folder is None else folder
    key = _key(source, target, compiler)
    path = folder / f"{key}.so"
    found = _load(path)
    if found is not None:
        with contextlib.suppress(OSError):  # when it was used last
            os.utime(path)
        return found
    digest = _compile(source, path, target, compiler)
    _prune(folder)
    try:
        handle = ctypes.CDLL(str(path))
    except OSError as error:
        raise DeviceError(
            f"the compiled program cannot be loaded ({error}); where programs may not be run from "
            f"{folder}, name another folder with {VARIABLE}"
        ) from error
    return Library(path, handle, compiled=True, checked=False, sha256=digest)


def _key(source: str, target: Target, compiler: Compiler) -> str:
    facts = [FORMAT, source, compiler.flags(target), compiler.command, compiler.identity]
    return _digest(json.dumps([*facts, target.processor]).encode())[:32]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _load(path: Path) -> Library | None:
    """The library of a path, if it is whole."""
    try:
        facts = read_json(path.with_suffix(".json"))
        digest = _digest(path.read_bytes())
        handle = ctypes.CDLL(str(path)) if facts["sha256"] == digest else None
    except (UnreadableError, OSError, ValueError, KeyError, TypeError):
        return None
    if handle is None:
        return None
    checked = facts.get("checked") is True
    return Library(path, handle, compiled=False, checked=checked, sha256=digest)


def _compile(source: str, path: Path, target: Target, compiler: Compiler) -> str:
    """Compile a source to ``path``; return the library's checksum."""
    kept = path.with_suffix(".c")
    _write(kept, source.encode())
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".so", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        compiler.run(kept, temporary, target)
        digest = _digest(temporary.read_bytes())
        _write_facts(path, {"sha256": digest, "checked": False})
        os.replace(temporary, path)
        return digest
    finally:
        temporary.unlink(missing_ok=True)


def _write_facts(path: Path, facts: Mapping[str, Any]) -> None:
    _write(path.with_suffix(".json"), json.dumps(facts).encode())


def _write(path: Path, data: bytes) -> None:
    """Write a file whole, or not at all."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@functools.cache
def private_folder(wanted: str | None) -> Path:
    """The folder of compiled programs: one that nobody else can write into.

    What others could put there would be run. Where there is none such, a temporary one that lasts
    as long as the process.
    """
    folder = Path(wanted or "~/.cache/rnnfarm/cpu")
    try:
        folder = Path(wanted) if wanted else default_folder(os.environ)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        problem = _problem(folder)
    except (OSError, RuntimeError) as error:  # the latter where there is no home folder
        problem = str(error)
    if problem is None:
        return folder
    temporary = tempfile.TemporaryDirectory(prefix="rnnfarm-cpu-")
    _temporary.append(temporary)
    log.warning(
        "%s cannot keep compiled kernels (%s); they are compiled anew in every process; name "
        "another folder with %s",
        folder, problem, VARIABLE,
    )  # fmt: skip
    return Path(temporary.name)


#: Removed when the process ends.
_temporary: list[tempfile.TemporaryDirectory[str]] = []


def default_folder(environ: Mapping[str, str]) -> Path:
    """Where programs are kept unless ``RNNFARM_CACHE`` says otherwise."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "rnnfarm" / "cpu"
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rnnfarm" / "cpu"


def _problem(folder: Path) -> str | None:
    """Why a folder does not serve."""
    facts = folder.stat()
    if facts.st_uid != os.geteuid():
        return "it belongs to another user"
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write into it; chmod go-w {folder}"
    if not os.access(folder, os.W_OK | os.X_OK):
        return "it cannot be written into"
    return None


def _prune(folder: Path) -> None:
    """Remove the programs that were used longest ago, where there are too many."""
    used: list[tuple[float, Path]] = []
    for path in folder.glob("*.so"):
        with contextlib.suppress(OSError):  # another process may be removing it
            used.append((path.stat().st_mtime, path))
    used.sort()
    limit = time.time() - YOUNG
    for moment, path in used[: max(0, len(used) - MOST)]:
        if moment < limit:
            for suffix in (".so", ".json", ".c"):
                path.with_suffix(suffix).unlink(missing_ok=True)
