"""The threads that share the work of one window.

Every Python thread that runs windows (a lane's) has a team of its own: threads of the compiled
program for its regions, and Python's for the BLAS's products. A team changes no bit: what it shares
out is cut the same way for any number of threads.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rnnfarm_cpu.cache import Library

_local = threading.local()


class Team:
    """Up to ``threads`` threads, the caller's included."""

    def __init__(self, library: Library, threads: int) -> None:
        self.threads = threads
        self.process = os.getpid()
        self._free = library.handle.rnn_pool_free
        self._free.argtypes = [ctypes.c_void_p]
        self._free.restype = None
        new = library.handle.rnn_pool_new
        new.argtypes, new.restype = [ctypes.c_long], ctypes.c_void_p
        #: The address of the program's pool.
        self.pool: int | None = new(threads)
        self._executor = ThreadPoolExecutor(threads - 1, "rnnfarm-cpu")

    def run(self, tasks: Sequence[Callable[[], Any]]) -> None:
        """Run tasks, in any order and at once."""
        shared = [(task, self._executor.submit(task)) for task in tasks[1:]]
        tasks[0]()
        for task, future in reversed(shared):
            if future.cancel():  # nobody has begun it
                task()
            else:
                future.result()

    def __del__(self) -> None:
        # In a forked child these threads do not exist.
        if getattr(self, "pool", None) and self.process == os.getpid():
            self._executor.shutdown(wait=False)
            self._free(self.pool)
            self.pool = None


def team(library: Library, threads: int) -> Team | None:
    """This thread's team, or None where it works alone."""
    if threads < 2:
        return None
    known: Team | None = getattr(_local, "team", None)
    if known is None or known.threads != threads or known.process != os.getpid():
        known = _local.team = Team(library, threads)
    return known
