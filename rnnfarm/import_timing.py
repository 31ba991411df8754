"""How long each plugin takes to import, in a process of its own: one that ends it is named too."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from rnnfarm.discovery import BUILTIN, sources

#: Imports what an entry point names, and prints the seconds as the last line.
_PROGRAM = """
import importlib, sys, time
module, _, name = sys.argv[1].partition(":")
started = time.perf_counter()
found = importlib.import_module(module)
print()
print("rnnfarm seconds", time.perf_counter() - started)
"""


@dataclass(frozen=True)
class ImportTime:
    """The seconds that a plugin's import takes, None where it did not end well, and then why."""

    distribution: str
    version: str
    entry_point: str
    seconds: float | None
    problem: str | None


def time_imports() -> Iterator[ImportTime]:
    """Import every plugin, one after the other, each in a new process."""
    for source in sources():
        plugin = source.plugin
        value = plugin.entry_point.partition("=")[2].strip()
        if value and value != BUILTIN:
            seconds, problem = _import(value)
            yield ImportTime(
                plugin.distribution, plugin.version, plugin.entry_point, seconds, problem
            )


def _import(value: str) -> tuple[float | None, str | None]:
    command = [sys.executable, "-c", _PROGRAM, value]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    *_, last = done.stdout.splitlines() or [""]
    if last.startswith("rnnfarm seconds "):
        return round(float(last.split()[-1]), 3), None
    errors = [line for line in done.stderr.splitlines() if line.strip()]
    if done.returncode and errors:
        return None, f"it fails to import: {errors[-1]}"
    return None, f"its import ends the process (exit code {done.returncode})"
