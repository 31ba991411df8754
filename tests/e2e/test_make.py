"""The Makefile: its targets, and the interpreter that it chooses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(
    folder: Path, *arguments: str, path: str | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=environment | ({"PATH": path} if path else {}),
        capture_output=True,
        text=True,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


def test_help_names_every_target(folder: Path) -> None:
    shown = make(folder).stdout
    for target in ("quickstart", "test", "check", "bench", "clean"):
        assert f"make {target} " in shown
        assert make(folder, "--dry-run", target).returncode == 0


def test_no_interpreter_that_would_do(folder: Path) -> None:
    done = make(folder, "PYTHON=no-such-python", "quickstart")
    assert done.returncode != 0
    assert "rnnfarm needs Python 3.11 or newer, and there is none in no-such-python" in done.stderr
    assert not (folder / ".venv").exists()


def test_an_interpreter_that_is_too_old_or_broken_is_passed_over(folder: Path) -> None:
    """As with a version manager's python3.13 that only says that it is not installed."""
    bin = folder / "bin"
    bin.mkdir()
    for name in ("python3.13", "python3.12"):
        (bin / name).write_text("#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
        (bin / name).chmod(0o755)
    (bin / "python3.11").symlink_to(sys.executable)
    done = make(folder, ".venv/bin/python", path=f"{bin}{os.pathsep}{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    assert "making .venv with Python 3." in done.stdout
    assert (folder / ".venv" / "bin" / "python").exists()
    assert "up to date" in make(folder, ".venv/bin/python").stdout
    make(folder, "clean")
    assert not (folder / ".venv").exists()
