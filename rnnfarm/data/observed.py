"""Which values of a dataset were measured, and which were filled in for a cell without one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rnnfarm.data.window import OBSERVED

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from rnnfarm.data.manifest import Column
    from rnnfarm.data.reader import Sequence

#: The column that holds the flag of a value, and the flag's place in it.
Flag = tuple[str, int]


def counted_by(columns: Mapping[str, Column], target: str) -> str | None:
    """Return the column of flags that says at which steps a column counts as a target.

    That is the one which names it in ``counts_for``, else ``observed`` where that names no columns
    and so speaks of all of them. None where the target counts at every step.
    """
    if columns[target].own:
        return None
    flags = {name: column.counts_for for name, column in columns.items() if column.is_flag}
    named = (name for name, spoken_of in flags.items() if target in (spoken_of or ()))
    every = OBSERVED if OBSERVED in flags and flags[OBSERVED] is None else None
    return next(named, every)


class Observed:
    """Tells of every value of a column whether it was measured.

    A value's flag says so (see ``Column.roles``), in whatever column of the dataset it is. Of a
    target's value without a flag the column of ``counted_by`` does, which speaks of all values of a
    step at once, where the dataset has values that were filled in or does not say. Any other value
    was measured.
    """

    def __init__(self, columns: Mapping[str, Column], name: str, is_target: bool) -> None:
        column, known = columns[name], _flags(columns)
        steps = counted_by(columns, name) if is_target else None
        # Of a table without filled-in cells a flag says only which rows are looked back at.
        filled = bool(known) or column.roles is None
        by_step: Flag | None = (steps, 0) if steps is not None and filled else None
        names = column.names or [""] * column.width
        roles = column.roles or ["value"] * column.width
        self._flags = [
            known.get(value, by_step) if role == "value" else None
            for value, role in zip(names, roles, strict=True)
        ]

    @property
    def always(self) -> bool:
        """Whether every value was measured."""
        return not any(self._flags)

    @property
    def columns(self) -> set[str]:
        """The columns that ``of`` reads."""
        return {flag[0] for flag in self._flags if flag is not None}

    def of(self, steps: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.bool_]:
        """Return (steps, width) for the steps whose ``columns`` are given."""
        count = len(next(iter(steps.values())))
        seen = np.ones((count, len(self._flags)), np.bool_)
        for place, flag in enumerate(self._flags):
            if flag is not None:
                seen[:, place] = steps[flag[0]].reshape(count, -1)[:, flag[1]] != 0
        return seen


class UnobservedEnds:
    """Counts the rows at the ends of sequences whose targets were not observed.

    A forecast of what comes after such rows is not one of the rows themselves, which somebody may
    have added in order to forecast them.
    """

    def __init__(self, flag: str | None) -> None:
        self._flag = flag  # the column of flags that speaks of the target
        self._names: list[str] = []
        self._rows: list[int] = []

    def add(self, piece: Sequence) -> None:
        """Look at a sequence, or at a piece that carries on the last one."""
        if not piece.continues:
            self._names.append(piece.origin.name)
            self._rows.append(0)
        if self._flag is not None and self._flag in piece.columns:
            seen = np.flatnonzero(piece.columns[self._flag])
            size = len(piece.columns[self._flag])
            self._rows[-1] = size - 1 - int(seen[-1]) if seen.size else self._rows[-1] + size

    def notes(self) -> list[str]:
        """Return a sentence where there are any."""
        ends = [(name, rows) for name, rows in zip(self._names, self._rows, strict=True) if rows]
        if not ends:
            return []
        name, rows = ends[0]
        named = f" of '{name}'" if name else ""
        others = len(ends) - 1
        more = f", and of {others:,} other sequence{'s' if others > 1 else ''}" if others else ""
        last = "row" if rows == 1 else f"{rows:,} rows"
        return [
            f"the last {last}{named}{more} lack a value of the target, and the forecast is of what"
            " comes after them; leave them out to forecast them"
        ]


def _flags(columns: Mapping[str, Column]) -> dict[str, Flag]:
    """Return the flag of every value that has one, by the value's name."""
    found: dict[str, Flag] = {}
    for name, column in columns.items():
        if column.names is not None and column.roles is not None:
            roles = list(enumerate(column.roles))
            values = [column.names[place] for place, role in roles if role == "value"]
            flags = [(name, place) for place, role in roles if role == "observed"]
            found |= dict(zip(values, flags, strict=False))
    return found
