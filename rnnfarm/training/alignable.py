"""Finding, before a model is trained or measured, the sequences whose labels CTC cannot align."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from rnnfarm.builtin.losses import CTC
from rnnfarm.data.shown import show_sequence
from rnnfarm.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from rnnfarm.data.dataset import Dataset
    from rnnfarm.data.split import Split
    from rnnfarm.training.setup import Model

log = logging.getLogger("rnnfarm")


def check_alignable(model: Model, part: Split, dataset: Dataset | None) -> None:
    """Raise DataError where a sequence of a split has fewer steps than CTC takes for its labels.

    Warns instead where the loss leaves such sequences out. Reads lengths and labels alone;
    `dataset` is that of the split, None where it is of one file.
    """
    loss = model.loss.loss
    if not isinstance(loss, CTC):
        return
    short = list(_short(part, model.target))
    if not short:
        return
    number, start, steps, labels, needed = short[0]
    sequence = show_sequence(part, number, start, dataset)
    if loss.impossible == "error":
        raise DataError(
            f"{sequence} has {steps} steps, and CTC takes {needed} for its {labels} labels in"
            f" '{model.target}' (equal ones need a blank between them)"
            + (f", as have {len(short) - 1:,} more" if len(short) > 1 else "")
            + '; leave it out, or set model.loss.impossible = "skip"'
        )
    log.warning(
        "%d sequences of %s do not count, as they have fewer steps than CTC takes for their "
        "labels; the first is %s", len(short), part.name, sequence,
    )  # fmt: skip


def _short(part: Split, target: str) -> Iterator[tuple[int, int, int, int, int]]:
    """The number, first step, steps, labels and steps that are needed of each such sequence."""
    starts = part.starts()
    steps = np.diff(starts, append=part.steps)
    number = 0
    for chunk in part.chunks(0, part.steps):
        count = len(chunk.starts)
        labels, needed = _needed(*chunk.own[target])
        for i in np.flatnonzero(steps[number : number + count] < needed).tolist():
            at = number + i
            yield at, int(starts[at]), int(steps[at]), int(labels[i]), int(needed[i])
        number += count


def _needed(
    places: npt.NDArray[np.int64], labels: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How many labels each sequence has, and how many steps they take: one for each, and one for a
    blank between two that are equal."""
    counts = np.diff(places)
    equal = np.zeros(int(places[-1]) + 1, np.int64)  # whether a label is the one before it
    equal[1 : places[-1]] = labels[1 : places[-1]] == labels[: max(places[-1] - 1, 0)]
    equal[places[:-1]] = 0  # the first label of a sequence follows none
    before = np.concatenate([[0], np.cumsum(equal)])
    return counts, counts + before[places[1:]] - before[places[:-1]]
