"""What is printed in a worker, kept as whole lines until the driver asks for it."""

from __future__ import annotations

import io
import sys
from threading import Lock, local

#: Lines that are kept between two questions; a flood must not fill the memory.
MOST = 1000


class Lines:
    """Takes the place of ``sys.stdout`` and ``sys.stderr``.

    Threads write lines of their own, so that no two are mixed.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[str, str]] = []
        self._dropped = 0
        self._lock = Lock()

    def install(self) -> None:
        sys.stdout, sys.stderr = _Stream(self, "stdout"), _Stream(self, "stderr")

    def add(self, stream: str, line: str) -> None:
        with self._lock:
            if len(self._kept) < MOST:
                self._kept.append((stream, line))
            else:
                self._dropped += 1

    def drain(self) -> list[tuple[str, str]]:
        """``(stream, line)`` of what was written since the last call."""
        with self._lock:
            kept, self._kept = self._kept, []
            if self._dropped:
                kept.append(("stderr", f"… and {self._dropped} more lines"))
            self._dropped = 0
        return kept


class _Stream(io.TextIOBase):
    def __init__(self, lines: Lines, name: str) -> None:
        self._lines = lines
        self._name = name
        self._begun = local()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *whole, rest = (getattr(self._begun, "text", "") + text).split("\n")
        self._begun.text = rest
        for line in whole:
            self._lines.add(self._name, line)
        return len(text)
