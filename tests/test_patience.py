"""What waits for a network ends: with its answer, after a time, or by Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
from pyarrow import fs

from rnnfarm.data import open_dataset, patience
from rnnfarm.data.patience import patiently
from rnnfarm.errors import DataError


def test_the_answer_and_the_error_of_a_call_are_given() -> None:
    assert patiently("x", divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        patiently("x", divmod, 7, 0)


class Silent(fs.FileSystemHandler):
    """A filesystem whose server never answers."""

    def __init__(self) -> None:
        self.end = threading.Event()

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        self.end.wait()
        return []

    def get_type_name(self) -> str:
        return "silent"


for _name in fs.FileSystemHandler.__abstractmethods__ - {"get_file_info", "get_type_name"}:
    setattr(Silent, _name, lambda self, *arguments: None)
Silent.__abstractmethods__ = frozenset()


def test_a_silent_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE", 0.05)
    handler = Silent()
    with pytest.raises(DataError, match="bucket/data: gives no answer in 0 s"):
        open_dataset("bucket/data", filesystem=fs.PyFileSystem(handler))
    handler.end.set()


WAITING = """
import ctypes, os
from rnnfarm.data.patience import patiently
try:
    print("ready", flush=True)
    # As pyarrow does, C code waits without looking at signals: the C library restarts its poll.
    patiently("x", ctypes.CDLL(None).pause)
except KeyboardInterrupt:
    os._exit(130)
"""


def test_waiting_can_be_interrupted() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=30) == 130
