"""The one way in which rnnfarm writes JSON: strict, null where a value is NaN or infinite.

Python's own ``json.dumps`` writes ``NaN`` and ``Infinity``, which are no JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def to_json(value: Any, **options: Any) -> str:
    """Return ``value`` as JSON that any parser reads; ``options`` are those of ``json.dumps``.

    Scalars and arrays of NumPy are written as numbers and lists. TypeError for what JSON has not.
    """
    try:
        return json.dumps(value, allow_nan=False, default=_plain, **options)
    except ValueError:  # something is not finite
        return json.dumps(finite(value), allow_nan=False, default=_plain, **options)


def finite(value: Any) -> Any:
    """Return ``value`` with None in the place of every NaN and infinity in it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return finite(_plain(value)) if hasattr(value, "tolist") else value


def _plain(value: Any) -> Any:
    """Return a scalar or an array of NumPy as Python has it."""
    if not hasattr(value, "tolist"):
        raise TypeError(f"{type(value).__name__} is nothing that JSON has")
    return finite(value.tolist())
