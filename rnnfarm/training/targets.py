"""Whether the targets of a split are those that a model can learn, before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnfarm.data.chunks import Chunk
from rnnfarm.data.dataset import Dataset
from rnnfarm.data.examples import Goal
from rnnfarm.data.observed import counted_by
from rnnfarm.data.shown import show_sequence
from rnnfarm.data.split import Split
from rnnfarm.equations.parts import part_name
from rnnfarm.errors import DataError
from rnnfarm.training.alignable import check_alignable
from rnnfarm.training.setup import Model

#: Entries of a target of its own that mean something to the training: how many, and what.
KEPT: dict[Goal, tuple[int, str]] = {
    "labels": (1, "CTC keeps entry 0 for the blank between labels; give labels from 1 on"),
    "decoded": (2, "a decoder keeps 0 and 1 for the begin and the end; give tokens from 2 on"),
}
Test = Callable[[npt.NDArray[Any]], Any]


def check_targets(model: Model, part: Split, dataset: Dataset | None) -> None:
    """Read the targets of a split, where the model cannot learn just any.

    DataError that names the first sequence with one that it cannot learn. `dataset` is that of the
    split, None where it is of one file.
    """
    loss, column = model.loss.loss, model.target_column
    if model.goal in KEPT:
        first, why = KEPT[model.goal]
        _refuse_first(part, dataset, column, lambda entries: entries < first, why)
    elif loss.target_range is not None:
        low, high = loss.target_range
        why = f"{part_name(loss)} learns targets from {low:g} to {high:g}; take another loss, or"

        def outside(values: npt.NDArray[Any]) -> Any:
            return ((values < low) | (values > high)).any(axis=-1)

        _refuse_first(part, dataset, column, outside, f"{why} give such a column")
    check_alignable(model, part, dataset)


def _refuse_first(part: Split, dataset: Dataset | None, column: str, wrong: Test, why: str) -> None:
    observed = counted_by(part.columns, column)
    number = start = 0  # of the last sequence that began
    for chunk, entries, begins in _parts(part, column):
        found = wrong(entries)
        if observed is not None:
            found &= chunk.columns[observed] != 0
        if found.any():
            at = int(found.argmax())
            into = int(np.searchsorted(begins, at, side="right"))
            if into:
                number, start = number + into, int(chunk.starts[into - 1])
            raise DataError(
                f"{show_sequence(part, number - 1, start, dataset)}: column '{column}' holds "
                f"{entries[at].tolist()}, and {why}"
            )
        number += len(chunk.starts)
        start = int(chunk.starts[-1]) if len(chunk.starts) else start


def _parts(
    part: Split, column: str
) -> Iterator[tuple[Chunk, npt.NDArray[Any], npt.NDArray[np.int64]]]:
    """The record batches of a split, with their entries of a column, and where in these the
    entries of each sequence begin."""
    for chunk in part.chunks(0, part.steps):
        if part.columns[column].own:
            places, figures = chunk.own[column]
            yield chunk, figures[places[0] : places[-1]], places[:-1] - places[0]
        else:
            yield chunk, chunk.columns[column], chunk.starts - chunk.low
