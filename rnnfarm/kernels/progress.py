"""What is said of kernels that take long to compile.

How long a compiler may take is not limited: a machine under load would then compute with another
kernel, and give other bits. So whoever waits is told for what.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

log = logging.getLogger("rnnfarm")
#: Seconds between two lines.
EVERY = 10.0
_what: ContextVar[str] = ContextVar("rnnfarm_compiling", default="a kernel")
_listeners: list[Callable[[str], None]] = []


@contextmanager
def compiling(what: str) -> Iterator[None]:
    """Name what is compiled meanwhile in this thread, such as ``layer1``."""
    token = _what.set(what)
    try:
        yield
    finally:
        _what.reset(token)


def waited(seconds: float) -> None:
    """Say that a compiler has been running for so long and goes on."""
    line = f"compiling {_what.get()}, {seconds:.0f} s"
    log.warning("%s", line)
    for listener in _listeners:
        listener(line)


def listen(listener: Callable[[str], None]) -> None:
    """Have ``listener`` told every line too, as long as the process lasts."""
    _listeners.append(listener)
