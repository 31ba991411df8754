"""Generated Python source made into a function."""

from __future__ import annotations

import linecache
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np


def compiled(source: str, function: str, title: str, names: Mapping[str, Any] | None = None) -> Any:
    """The function that the source defines; its lines show in tracebacks and profiles.

    Args:
        function: its name in the source.
        title: what tracebacks call the program.
        names: what the source may use besides ``np``.
    """
    # Named by its contents: the same program made again takes no more room.
    filename = f"<rnnfarm {title} {zlib.crc32(source.encode()):08x}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    namespace: dict[str, Any] = {"np": np, **(names or {})}
    exec(compile(source, filename, "exec"), namespace)
    return namespace[function]
