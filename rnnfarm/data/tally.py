"""Counts of what a reader meets, with the first place of each kind."""

from __future__ import annotations

from typing import NamedTuple


class Counted(NamedTuple):
    """How often something was met, and the number of the row where it was first."""

    total: int
    first: int


class Tally:
    """Counts by kind."""

    def __init__(self) -> None:
        self._kinds: dict[str, Counted] = {}

    def add(self, kind: str, count: int, first: int) -> None:
        """Count `count` more of a kind, the first of them at the row of that number."""
        known = self._kinds.get(kind)
        if count:
            self._kinds[kind] = Counted(count, first) if known is None else _more(known, count)

    def get(self, kind: str) -> Counted | None:
        """Return what was counted of a kind, None where there was nothing."""
        return self._kinds.get(kind)


def _more(known: Counted, count: int) -> Counted:
    return Counted(known.total + count, known.first)
