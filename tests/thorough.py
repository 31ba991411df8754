"""How much of what is long and rare the tests try: RNNFARM_THOROUGH=1 tries all of it."""

from __future__ import annotations

import os

THOROUGH = bool(os.environ.get("RNNFARM_THOROUGH"))


def times(usual: int, thorough: int) -> int:
    """Return how often to try something that takes seconds each time."""
    return thorough if THOROUGH else usual
