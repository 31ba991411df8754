"""The number, as a person counts, of each row of a file: its line in a text, or its row."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class RowNumbers:
    """The numbers of a file's rows, which are counted from 0.

    first: the number of the first row. Where other rows do not follow each other one by one (empty
    lines, line ends inside cells), `numbers` gives the numbers of all rows in order; what is kept
    of them is where they jump.
    """

    def __init__(self, first: int, numbers: Iterable[int] = ()) -> None:
        self._rows, self._shifts = [0], [first]
        for row, number in enumerate(numbers):
            if number - row != self._shifts[-1]:
                self._rows.append(row)
                self._shifts.append(number - row)

    def __getitem__(self, row: int) -> int:
        return row + self._shifts[bisect_right(self._rows, row) - 1]
