"""Rows of one time, and gaps in time, of the sequences of a table."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rnnfarm.data.external_sort import concatenate, len_of, take
from rnnfarm.data.table_labels import NO_LABEL
from rnnfarm.data.table_rows import Run
from rnnfarm.data.timeline import show_time
from rnnfarm.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rnnfarm.data.external_sort import Block
    from rnnfarm.data.tally import Tally
    from rnnfarm.data.time_steps import Step

Duplicates = Literal["keep", "error", "first", "last", "mean"]
Gaps = Literal["keep", "error", "fill", "split"]

MOST_FILLED = 1 << 20  # rows that one gap is filled with


def treat_duplicates(
    runs: Iterable[Run], how: Duplicates, tally: Tally, where: Callable[[int], str]
) -> Iterator[Run]:
    """Make one row of rows of a sequence that have one time, and count them.

    With "first" and "last" it is one of them, with "mean" it has the mean of the cells that have a
    value, and the label, of which there must be one. "keep" only counts, and "error" is a DataError
    that names the second row.
    """
    runs = _counted(runs, how, tally, where)
    return runs if how in ("keep", "error") else _merged(runs, how, where)


def _counted(
    runs: Iterable[Run], how: Duplicates, tally: Tally, where: Callable[[int], str]
) -> Iterator[Run]:
    last: Block | None = None
    for run in runs:
        last = None if run.begins else last
        rows = run.rows if last is None else concatenate([last, run.rows])
        double = np.flatnonzero(np.diff(rows["instant"]) == 0) + 1
        if double.size:
            number = int(rows["number"][double[0]])
            tally.add("duplicates", double.size, number)
            if how == "error":
                raise DataError(
                    f"{where(number)}: has the time of the row before it"
                    f" ({show_time(rows['local'][double[0]])}); drop one, or set duplicates ="
                    " 'first', 'last' or 'mean'"
                )
        last = take(run.rows, slice(-1, None))
        yield run


def _merged(runs: Iterable[Run], how: Duplicates, where: Callable[[int], str]) -> Iterator[Run]:
    """One row of rows of one time; those of the last time wait, as others may come."""
    waiting: Block | None = None
    begins = False
    for run in runs:
        if run.begins and waiting is not None:
            yield Run(_one_of_each(waiting, how, where), begins)
        begins = run.begins or begins
        rows = run.rows if run.begins or waiting is None else concatenate([waiting, run.rows])
        last = int(np.searchsorted(rows["instant"], rows["instant"][-1], "left"))
        waiting = take(rows, slice(last, None))
        if last:
            yield Run(_one_of_each(take(rows, slice(0, last)), how, where), begins)
            begins = False
    if waiting is not None:
        yield Run(_one_of_each(waiting, how, where), begins)


def _one_of_each(rows: Block, how: Duplicates, where: Callable[[int], str]) -> Block:
    new = np.append(True, np.diff(rows["instant"]) != 0)
    starts = np.flatnonzero(new)
    if how == "last":
        return take(rows, np.append(starts[1:], len(new)) - 1)
    found = take(rows, starts)
    if how == "mean" and "cells" in rows:
        there = ~np.isnan(rows["cells"])
        sums = np.add.reduceat(np.where(there, rows["cells"], 0.0).astype(np.float64), starts)
        counts = np.add.reduceat(there.astype(np.int64), starts)
        means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
        found["cells"] = means.astype(np.float32)
    if how == "mean" and "label" in rows:
        found["label"] = _label_of_each(rows, np.cumsum(new) - 1, where)
    return found


def _label_of_each(rows: Block, times: Any, where: Callable[[int], str]) -> Any:
    """The label of each time; `times`: that of each row, numbered from 0. DataError where rows of
    one time have several."""
    labels = rows["label"]
    there = np.flatnonzero(labels != NO_LABEL)
    labelled, first = np.unique(times[there], return_index=True)
    found = np.full(times[-1] + 1, NO_LABEL, labels.dtype)
    found[labelled] = labels[there[first]]
    wrong = there[labels[there] != found[times[there]]]
    if wrong.size:
        at = wrong[0]
        raise DataError(
            f"{where(int(rows['number'][at]))}: has another label than a row before it of the same"
            f" time ({show_time(rows['local'][at])}), and labels have no mean; fix the row, or set"
            " duplicates = 'first' or 'last'"
        )
    return found


def treat_gaps(
    runs: Iterable[Run], how: Gaps, step: Step, tally: Tally, where: Callable[[int], str]
) -> Iterator[Run]:
    """Look for gaps in time, of more than a step between two rows of a sequence, and count them.

    "fill" puts rows without values there, and "split" begins another sequence after each; "keep"
    only counts, and "error" is a DataError that names the row after a gap. With "fill" rows that
    are no whole number of steps apart are a DataError.
    """
    last: Block | None = None
    for run in runs:
        last = None if run.begins else last
        rows = run.rows if last is None else concatenate([last, run.rows])
        apart = np.diff(step.positions(rows))
        gaps = np.flatnonzero(apart > step.size)
        if gaps.size:
            tally.add("gaps", gaps.size, int(rows["number"][gaps[0] + 1]))
        if gaps.size and how == "error":
            raise _gap(rows, int(gaps[0]), step, where)
        if how == "fill":
            filled = _fill(rows, apart, step, tally, where)
            yield Run(filled if last is None else take(filled, slice(1, None)), run.begins)
        elif how == "split":
            yield from _split(rows, gaps, last is not None, run.begins)
        else:
            yield run
        last = take(run.rows, slice(-1, None))


def _split(rows: Block, gaps: Any, known: bool, begins: bool) -> Iterator[Run]:
    """Rows cut after each gap; `known`: the first row was given before."""
    edges = [int(known), *(gaps + 1).tolist(), len_of(rows)]
    for number, (low, high) in enumerate(pairwise(edges)):
        if low < high:
            yield Run(take(rows, slice(low, high)), begins or number > 0)


def _fill(rows: Block, apart: Any, step: Step, tally: Tally, where: Callable[[int], str]) -> Block:
    """Rows with further ones in their gaps."""
    wrong = np.flatnonzero((apart % step.size != 0) | (apart < step.size))
    if wrong.size:
        raise _off_the_grid(rows, int(wrong[0]), step, where)
    missing = np.append(apart // step.size - 1, 0)
    if missing.max() > MOST_FILLED:
        raise _gap(rows, int(missing.argmax()), step, where)
    if not missing.any():
        return rows
    sources = np.repeat(np.arange(len(missing)), missing + 1)
    steps = np.arange(len(sources)) - np.repeat(np.cumsum(missing + 1) - missing - 1, missing + 1)
    filled = step.later(take(rows, sources), steps)
    new = steps > 0
    tally.add("filled", int(new.sum()), int(rows["number"][0]))
    if "cells" in filled:
        filled["cells"][new] = np.nan
    if "label" in filled:
        filled["label"][new] = NO_LABEL
    return filled


def _between(rows: Block, at: int, where: Callable[[int], str]) -> tuple[str, str, str]:
    """The place of row `at + 1`, its time, and that of the row before it."""
    before, after = (show_time(rows["local"][row]) for row in (at, at + 1))
    return where(int(rows["number"][at + 1])), after, before


def _gap(rows: Block, at: int, step: Step, where: Callable[[int], str]) -> DataError:
    place, after, before = _between(rows, at, where)
    return DataError(
        f"{place}: the time {after} is more than a step of {step} after that of the row before it"
        f" ({before}); add the rows that are missing, set gaps = 'fill' or 'split', or say in"
        " 'every' what a step is"
    )


def _off_the_grid(rows: Block, at: int, step: Step, where: Callable[[int], str]) -> DataError:
    place, after, before = _between(rows, at, where)
    if after == before:
        return DataError(
            f"{place}: has the time of the row before it ({before}), so the gaps cannot be filled;"
            " drop one, or set duplicates = 'first', 'last' or 'mean'"
        )
    return DataError(
        f"{place}: the time {after} is no whole number of steps of {step} after that of the row"
        f" before it ({before}), so the gaps cannot be filled; say in 'every' what a step is, or"
        " set gaps = 'split'"
    )
