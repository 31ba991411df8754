"""The C compiler of this machine."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from rnnfarm.errors import DeviceError
from rnnfarm.kernels import progress
from rnnfarm_cpu.processor import Target

NAMES = ("cc", "gcc", "clang")
NO_COMPILER = (
    "there is no C compiler (CC, cc, gcc, clang or the package ziglang); install one, or run "
    "pip install 'rnnfarm-cpu[zig]'"
)
#: Nothing here changes what NaN or infinity do, or the order of sums; and a product and a sum are
#: one operation only where the source says so, not where one copy of a loop happens to allow it.
FLAGS = (
    *("-O3", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
    *("-fPIC", "-shared", "-pthread", "-w"),
)


@dataclass(frozen=True)
class Compiler:
    """How to call the compiler.

    Attributes:
        command: the words that its arguments follow.
        identity: changes with the compiler; no process is started to learn it.
    """

    command: tuple[str, ...]
    identity: str

    def flags(self, target: Target) -> tuple[str, ...]:
        """All flags for a target."""
        if not self.zig:
            return (*FLAGS, *target.flags)
        # zig checks undefined behaviour unless told not to, and compiles for exactly this
        # processor unless told for which.
        native = any(flag.endswith("=native") for flag in target.flags)
        baseline = () if native else ("-mcpu=baseline",)
        return (*FLAGS, *baseline, *target.flags, "-fno-sanitize=undefined")

    @property
    def zig(self) -> bool:
        """Whether this is zig, as a package or as a program."""
        return any(Path(word).name in ("zig", "ziglang") for word in self.command)

    def run(self, source: Path, result: Path, target: Target) -> None:
        """Compile a file into a shared library. DeviceError says what the compiler said."""
        command = [*self.command, *self.flags(target), str(source), "-o", str(result)]
        try:
            code, output = _run(command, self._environment(source))
        except OSError as error:
            raise DeviceError(f"{self.command[0]} cannot be run: {error}; set CC") from error
        if code:
            lines = output.splitlines()
            first = next((line for line in lines if "error" in line), "".join(lines[:1]))
            raise DeviceError(
                f"{shlex.join(self.command)} could not compile {source}: {first.strip()}"
            )
        if not result.stat().st_size:
            raise DeviceError(
                f"{shlex.join(self.command)} wrote no library for {source}; set CC to a C compiler"
            )

    def _environment(self, source: Path) -> dict[str, str]:
        environment = {**os.environ, "LC_ALL": "C"}  # 'error' is what run() looks for
        if self.zig:
            # zig's own place for what it keeps is in the home folder, which may be read-only.
            environment.setdefault("ZIG_GLOBAL_CACHE_DIR", str(source.parent / "zig"))
        return environment


def _run(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """The exit code of a command, and all that it printed.

    It may take as long as it takes, which is said. Where this process is interrupted, the processes
    that it started end with it.
    """
    started = time.monotonic()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", env=environment, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            while True:
                try:
                    output, _ = process.communicate(timeout=progress.EVERY)
                    return process.returncode, output
                except subprocess.TimeoutExpired:
                    progress.waited(time.monotonic() - started)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def find_compiler(environ: Mapping[str, str] | None = None) -> Compiler | None:
    """The compiler that ``CC`` names, the first of cc, gcc and clang, or the package ziglang.

    Raises DeviceError where ``CC`` names what cannot be run.
    """
    environ = os.environ if environ is None else environ
    path = environ.get("PATH", os.defpath)
    wanted = environ.get("CC", "").strip()
    if wanted:
        try:
            words = shlex.split(wanted)
        except ValueError as error:
            raise DeviceError(f"CC={wanted!r}: {error}; mend it, or unset it") from None
        found = shutil.which(words[0], path=path)
        if found is None:
            raise DeviceError(
                f"CC={wanted!r}: {words[0]} is no program on PATH; mend it, or unset it"
            )
        return _compiler(found, *words[1:])
    for name in NAMES:
        found = shutil.which(name, path=path)
        if found is not None:
            return _compiler(found)
    if find_spec("ziglang") is not None:
        return Compiler((sys.executable, "-m", "ziglang", "cc"), f"ziglang {version('ziglang')}")
    return None


def _compiler(program: str, *arguments: str) -> Compiler:
    real = Path(program).resolve()
    facts = real.stat()
    return Compiler((program, *arguments), f"{real} {facts.st_size} {facts.st_mtime_ns}")
