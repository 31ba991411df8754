"""Where the values of a generated program lie."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Buffer:
    """An array that a program reads or writes.

    Attributes:
        kind: ``window`` (T, B, W), ``history`` (T + 1, B, W), ``rows`` (B, W), ``pair`` (2, B, W)
            whose halves take turns from step to step, ``vector`` (W,), ``packed`` (W,) weights in
            the order in which tiles read them, ``scratch`` (B, W), or ``own`` (W,), one a thread.
        width: units of a row.
        element: ``real``, ``bool``, ``int`` (64 bits) or ``double``.
        given: whether the caller brings it; all others belong to the workspace.
    """

    kind: str
    width: int
    element: str = "real"
    given: bool = False

    def shape(self, steps: int, rows: int) -> tuple[int, ...]:
        return {
            "window": (steps, rows, self.width),
            "history": (steps + 1, rows, self.width),
            "rows": (rows, self.width),
            "pair": (2, rows, self.width),
            "vector": (self.width,),
            "packed": (self.width,),
            "scratch": (rows, self.width),
            "own": (self.width,),
        }[self.kind]


@dataclass(frozen=True)
class Location:
    """Units of a row of a buffer, from ``offset`` on.

    Attributes:
        later: of a history the row after the step, of a pair the half that is written.
        plus: a second location whose value is added to the first one's.
    """

    buffer: str
    offset: int = 0
    later: bool = False
    plus: Location | None = None

    def shifted(self, units: int) -> Location:
        plus = None if self.plus is None else self.plus.shifted(units)
        return replace(self, offset=self.offset + units, plus=plus)


class Buffers:
    """The buffers of a program; each has a number, its place in the table of pointers."""

    def __init__(self, scratch: str = "scratch") -> None:
        """``scratch``: the kind of the scratch rows, ``own`` where a thread needs one only."""
        self._kind = scratch
        self.known: dict[str, Buffer] = {}
        self.number: dict[str, int] = {}
        self._scratch = 0

    def add(self, name: str, buffer: Buffer) -> str:
        """A buffer's name; adds it where it is new."""
        if self.known.setdefault(name, buffer) != buffer:
            raise AssertionError(f"two buffers are called {name!r}")
        self.number.setdefault(name, len(self.number))
        return name

    def scratch(self, width: int) -> Location:
        """A new part of the scratch row, apart from all others."""
        location = Location("scratch", self._scratch)
        # Whole cache lines of either dtype.
        self._scratch += -(-width // 16) * 16
        self.number.setdefault("scratch", len(self.number))
        self.known["scratch"] = Buffer(self._kind, self._scratch)
        return location
