"""Whether the targets of a split are those that a loss can learn, before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnfarm.data.dataset import Dataset
from rnnfarm.data.examples import Goal
from rnnfarm.data.shards import Chunk
from rnnfarm.data.split import Split
from rnnfarm.equations.parts import Loss, part_name
from rnnfarm.errors import DataError

#: Entries of a target of its own that mean something to the training: how many, and what.
KEPT: dict[Goal, tuple[int, str]] = {
    "labels": (1, "entry 0 for the blank between labels; give labels from 1 on"),
    "decoded": (2, "the entries 0 and 1 for the begin and the end; give tokens from 2 on"),
}
Test = Callable[[npt.NDArray[Any]], Any]


def check_targets(
    dataset: Dataset, part: Split, column: str, loss: Loss, goal: Goal, observed: str | None
) -> None:
    """Read the targets of a split where the loss or the model cannot learn just any.

    DataError that names the first sequence with one that it cannot learn.
    """
    if goal in KEPT:
        first, why = KEPT[goal]
        who = part_name(loss) if goal == "labels" else "a decoder"
        _refuse_first(dataset, part, column, lambda own: own < first, None, f"{who} keeps {why}")
    elif loss.target_range is not None:
        low, high = loss.target_range
        why = f"{part_name(loss)} learns targets from {low:g} to {high:g}; take another loss, or"

        def outside(values: npt.NDArray[Any]) -> Any:
            return ((values < low) | (values > high)).any(axis=-1)

        _refuse_first(dataset, part, column, outside, observed, f"{why} give such a column")


def _refuse_first(
    dataset: Dataset, part: Split, column: str, wrong: Test, observed: str | None, why: str
) -> None:
    for before, chunk, entries, starts in _parts(part, column):
        found = wrong(entries)
        if observed is not None and not part.columns[column].own:
            found &= chunk.columns[observed] != 0
        if not found.any():
            continue
        at = int(found.argmax())
        number = int(np.searchsorted(starts, at, side="right")) - 1
        where = f"sequence {before + number}{_origin(dataset, chunk, number)}"
        raise DataError(
            f"{dataset.path}: split '{part.name}', {where}: column '{column}' holds "
            f"{entries[at].tolist()}, and {why}"
        )


def _origin(dataset: Dataset, chunk: Chunk, number: int) -> str:
    """The file and the row of the sequence of that number in a record batch, where known."""
    if number < 0 or dataset.provenance is None:
        return ""
    origin, files = chunk.origin(number), dataset.provenance.files
    if not 0 <= origin.file < len(files):
        return ""
    return f" ({files[origin.file].path}" + (f", row {origin.row})" if origin.row >= 0 else ")")


def _parts(
    part: Split, column: str
) -> Iterator[tuple[int, Chunk, npt.NDArray[Any], npt.NDArray[np.int64]]]:
    """The record batches of a split: how many sequences begin before, the batch, its entries of a
    column, and where in them those of each sequence begin."""
    before = 0
    for chunk in part.chunks(0, part.steps):
        if part.columns[column].own:
            places, figures = chunk.own[column]
            yield before, chunk, figures[places[0] : places[-1]], places[:-1] - places[0]
        else:
            yield before, chunk, chunk.columns[column], chunk.starts - chunk.low
        before += len(chunk.starts)
