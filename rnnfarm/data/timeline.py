"""The order of the rows of a sequence in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rnnfarm.data.external_sort import take
from rnnfarm.data.times import shown
from rnnfarm.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rnnfarm.data.external_sort import Block
    from rnnfarm.data.table_rows import Run


def check_order(runs: Iterable[Run], time: str, where: Callable[[int], str]) -> Iterator[Run]:
    """Pass runs of rows on, whose times must not go back in a sequence.

    time: the column of times; where: says where a row is by its number. DataError that names a row
    whose time is before that of the row before it.
    """
    last: Block | None = None
    for run in runs:
        last = None if run.begins else last
        instants = run.rows["instant"]
        if last is not None:
            instants = np.append(last["instant"], instants)
        earlier = np.diff(instants) < 0
        if earlier.any():
            row = int(np.argmax(earlier)) + (last is None)
            before = last if row == 0 else take(run.rows, slice(row - 1, row))
            assert before is not None
            raise _back_in_time(take(run.rows, slice(row, row + 1)), before, time, where)
        last = take(run.rows, slice(-1, None))
        yield run


def show_time(microseconds: Any) -> str:
    """Return a time of an array `local` as a person writes it."""
    return shown(np.int64(microseconds).view("datetime64[us]"))


def _back_in_time(row: Block, before: Block, time: str, where: Callable[[int], str]) -> DataError:
    at, other = (where(int(block["number"][0])) for block in (row, before))
    fix = (
        "sort the rows or set sort = true, or name the column in 'group' that tells sequences apart"
    )
    if at.rpartition(", ")[0] != other.rpartition(", ")[0]:
        fix = "set join = false where the files are no parts of one table, or sort = true"
    return DataError(
        f"{at}: column '{time}' ({show_time(row['local'][0])}) is before the row before it in the"
        f" same sequence ({show_time(before['local'][0])} in {other}); {fix}"
    )
