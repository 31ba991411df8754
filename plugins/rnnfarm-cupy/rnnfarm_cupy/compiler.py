"""CUDA text to programs for a GPU, by NVRTC alone: neither a GPU nor NVIDIA's driver is needed.

A program is compiled once for its text, the GPU's architecture and NVRTC's version, and kept. It
is written under a temporary name and renamed, so that processes that compile the same at once do
not disturb each other, and used only where its bytes have the checksum that was written beside it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import json
import logging
import os
import re
import stat
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rnnfarm.errors import DeviceError
from rnnfarm.small_files import UnreadableError, read_json

log = logging.getLogger("rnnfarm")
VARIABLE = "RNNFARM_CACHE"
FORMAT = 1
#: Without contraction kernels that compute the same give the same bits; ptxas's report is for the
#: figures.
FLAGS = ("-std=c++17", "-w", "--fmad=false", "--ptxas-options=-v")
#: Lines of NVRTC's log in an error; later ones are mostly what the first led to.
LINES = 8
#: Programs that are kept at most, and the seconds for which each is kept at least.
MOST, YOUNG = 512, 86_400
NO_CUPY = (
    "CuPy is not installed; run pip install 'rnnfarm-cupy[cuda13]', or 'rnnfarm-cupy[cuda12]' "
    "where NVIDIA's driver is older than 580"
)


@dataclass(frozen=True)
class KernelFigures:
    """What a kernel takes.

    Attributes:
        registers: of a thread.
        shared: bytes of static shared memory of a block.
        spill_bytes: of a thread's registers that are stored to memory, for there are too few.
    """

    name: str
    registers: int
    shared: int
    spill_bytes: int


@dataclass(frozen=True)
class Compiled:
    """A program for one architecture."""

    cubin: bytes
    kernels: list[KernelFigures]


@dataclass
class Program:
    """A program, compiled or found.

    Attributes:
        found: whether it was found, not compiled now.
        checked: whether it has passed its self-check before.
        path: where it is kept; None where it cannot be.
    """

    compiled: Compiled
    found: bool
    checked: bool
    path: Path | None

    def mark_checked(self) -> None:
        """Remember that the program has passed its self-check."""
        self.checked = True
        if self.path is not None:
            with contextlib.suppress(OSError):  # then it is checked again
                _write_facts(self.path, self.compiled, checked=True)


def missing_compiler() -> str | None:
    """Why CUDA text cannot be compiled here, or None."""
    try:
        importlib.import_module("cupy")
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            return f"CuPy cannot be imported ({_line(error)}); install it again"
        return NO_CUPY
    except ImportError as error:
        return f"CuPy cannot be imported ({_line(error)}); install it again"
    try:
        nvrtc_version()
    except (ImportError, RuntimeError) as error:  # the latter where the library is not there
        return (
            f"NVRTC, CUDA's compiler, cannot be loaded ({_line(error)}); run "
            "pip install 'rnnfarm-cupy[cuda13]', or 'rnnfarm-cupy[cuda12]' for CuPy for CUDA 12"
        )
    return None


def nvrtc_version() -> tuple[int, int]:
    """NVRTC's version."""
    major, minor = _nvrtc().getVersion()
    return int(major), int(minor)


def compile_cubin(source: str, arch: str) -> Compiled:
    """Compile CUDA text for an architecture such as ``sm_90``.

    Raises DeviceError where that cannot be done.
    """
    problem = missing_compiler()
    if problem is not None:
        raise DeviceError(problem)
    nvrtc = _nvrtc()
    major, minor = nvrtc_version()
    known = sorted(int(number) for number in nvrtc.getSupportedArchs())
    number = re.fullmatch(r"sm_(\d+)[af]?", arch)
    if number is None or int(number[1]) not in known:
        raise DeviceError(
            f"NVRTC {major}.{minor} does not compile for {arch} (it does for "
            f"{', '.join(f'sm_{one}' for one in known)}); install CuPy and NVRTC of "
            f"{'an older' if number and int(number[1]) < known[0] else 'a newer'} CUDA"
        )
    # The name is what the log calls the text.
    program = nvrtc.createProgram(source, "kernel.cu", [], [])
    try:
        try:
            nvrtc.compileProgram(program, [*FLAGS, f"-arch={arch}", *_include_flags()])
        except nvrtc.NVRTCError as error:
            lines = [line for line in nvrtc.getProgramLog(program).splitlines() if line.strip()]
            told = "\n".join(lines[:LINES])
            raise DeviceError(
                f"NVRTC {major}.{minor} cannot compile a program for {arch} ({_line(error)}):\n"
                f"{told}"
            ) from error
        cubin = bytes(nvrtc.getCUBIN(program))
        return Compiled(cubin, kernel_figures(nvrtc.getProgramLog(program)))
    finally:
        nvrtc.destroyProgram(program)


def kernel_figures(report: str) -> list[KernelFigures]:
    """What ptxas reports of each kernel."""
    found = []
    # Functions that were not inlined have a part of their own after their kernel's, without
    # "Used"; the first of each figure after the kernel's name is the kernel's.
    for part in report.split("Compiling entry function '")[1:]:
        registers = re.search(r"Used (\d+) registers", part)
        shared = re.search(r"(\d+) bytes smem", part)
        spills = re.search(r"(\d+) bytes spill stores", part)
        found.append(
            KernelFigures(
                name=part.partition("'")[0],
                registers=int(registers[1]) if registers else 0,
                shared=int(shared[1]) if shared else 0,
                spill_bytes=int(spills[1]) if spills else 0,
            )
        )
    return found


def load_program(source: str, arch: str, folder: Path | None = None) -> Program:
    """The program of a text: as it was kept, or compiled.

    Raises DeviceError where it can neither be found nor compiled.
    """
    folder = private_folder(os.environ.get(VARIABLE)) if folder is None else folder
    if folder is None:
        return Program(compile_cubin(source, arch), found=False, checked=False, path=None)
    problem = missing_compiler()
    if problem is not None:
        raise DeviceError(problem)
    facts = [FORMAT, source, arch, nvrtc_version(), FLAGS]
    path = folder / f"{_digest(json.dumps(facts).encode())[:32]}.cubin"
    found = _load(path)
    if found is not None:
        with contextlib.suppress(OSError):  # when it was used last
            os.utime(path)
        return found
    program = Program(compile_cubin(source, arch), found=False, checked=False, path=path)
    try:
        # Whoever reads between the two finds a checksum that is wrong, and compiles.
        _write_facts(path, program.compiled, checked=False)
        _write(path, program.compiled.cubin)
        _prune(folder)
    except OSError as error:
        log.debug("%s cannot be kept: %s", path, error)
        program.path = None
    return program


@functools.cache
def private_folder(wanted: str | None) -> Path | None:
    """The folder of compiled programs: one that nobody else can write into; None without one.

    What others could put there would be run.
    """
    try:
        base = Path(wanted) if wanted else default_folder(os.environ)
        folder = base / "cuda"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        problem = _problem(base) or _problem(folder)
    except (OSError, RuntimeError) as error:  # the latter where there is no home folder
        problem = str(error)
    if problem is None:
        return folder
    log.warning(
        "%s cannot keep compiled GPU kernels (%s); they are compiled anew in every process; name "
        "another folder with %s",
        wanted or "~/.cache/rnnfarm", problem, VARIABLE,
    )  # fmt: skip
    return None


def default_folder(environ: Mapping[str, str]) -> Path:
    """The folder above ``cuda`` unless ``RNNFARM_CACHE`` says otherwise."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "rnnfarm"
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rnnfarm"


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


def _nvrtc() -> Any:
    # The attribute's module is imported with cupy.cuda, its library loaded by the first call.
    return importlib.import_module("cupy.cuda").nvrtc


@functools.cache
def _include_flags() -> tuple[str, ...]:
    """Where CUDA's headers lie, for texts that include any; NVRTC itself brings a few alone."""
    try:
        find = importlib.import_module("cuda.pathfinder").find_nvidia_header_directory
        folder = find("cudart")
    except Exception:  # another package's search for files; ours include nothing
        return ()
    return (f"-I{folder}",) if folder else ()


def _line(error: BaseException) -> str:
    """The first line of an error's message that says anything."""
    lines = (line.strip() for line in str(error).splitlines())
    found = next((line for line in lines if line.strip("=-")), type(error).__name__)
    # Where a library is not found, that is said once for each of its names.
    return found.partition(": No such file")[0]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _load(path: Path) -> Program | None:
    """The program of a path, if it is whole."""
    try:
        facts = read_json(path.with_suffix(".json"))
        cubin = path.read_bytes()
        if facts["sha256"] != _digest(cubin):
            return None
        kernels = [KernelFigures(**figures) for figures in facts["kernels"]]
        checked = facts.get("checked") is True
    except (UnreadableError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Program(Compiled(cubin, kernels), found=True, checked=checked, path=path)


def _write_facts(path: Path, compiled: Compiled, checked: bool) -> None:
    facts = {
        "sha256": _digest(compiled.cubin),
        "checked": checked,
        "kernels": [asdict(kernel) for kernel in compiled.kernels],
    }
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


def _prune(folder: Path) -> None:
    """Remove the programs that were used longest ago, where there are too many."""
    used: list[tuple[float, Path]] = []
    for path in folder.glob("*.cubin"):
        with contextlib.suppress(OSError):  # another process may be removing it
            used.append((path.stat().st_mtime, path))
    used.sort()
    limit = time.time() - YOUNG
    for moment, path in used[: max(0, len(used) - MOST)]:
        if moment < limit:
            for suffix in (".cubin", ".json"):
                path.with_suffix(suffix).unlink(missing_ok=True)
