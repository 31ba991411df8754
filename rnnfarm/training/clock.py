"""How long a run took, over all the pieces that it was made in."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


def now() -> str:
    """Return the time, as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class Clock:
    """Counts the seconds of a run up to its last checkpoint.

    Attributes:
        started: when its first piece began.
        seconds: how long all its pieces took, up to their last checkpoints.
    """

    started: str = field(default_factory=now)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._before, self._began = self.seconds, time.monotonic()

    @classmethod
    def of(cls, facts: Mapping[str, Any] | None) -> Clock:
        """Return the clock of a run that goes on from a checkpoint, or begins."""
        if facts is None or "started" not in facts:
            return cls()
        return cls(facts["started"], facts.get("seconds", 0.0))

    def facts(self) -> dict[str, Any]:
        """What the checkpoint keeps that is written now."""
        self.seconds = self._before + time.monotonic() - self._began
        return {"started": self.started, "seconds": self.seconds}
