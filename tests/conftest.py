"""Fixtures of several test files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from training_tools import write_tokens

from rnnfarm.cli import main

# How long an example takes says something of the machine, not of the code.
settings.register_profile("no clock", deadline=None)
settings.load_profile("no clock")

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process; return its exit code, stdout and stderr."""

    def rnnfarm(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, out, err

    return rnnfarm


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset of tokens and labels, for runs in several processes."""
    path = tmp_path_factory.mktemp("cluster") / "data"
    write_tokens(path, {"train": [50, 3, 1, 90, 40] * 3, "valid": [60, 40] * 4})
    return path
