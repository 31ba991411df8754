"""How often each class is a target of a split."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfarm.data.examples import Goal
from rnnfarm.data.observed import counted_by
from rnnfarm.data.split import Split
from rnnfarm.data.window import END


def target_counts(part: Split, column: str, *, ahead: bool, goal: Goal) -> Any:
    """Return how often each class of a column is a target in a split, (classes,).

    A row that was not observed, or is only looked back at, has no target.

    ``ahead``: the target is the next step, which the first of a sequence never is. ``goal``: how
    an own column is learned; a decoder writes an END besides.
    """
    described = part.column(column)
    observed = counted_by(part.columns, column)
    counts = np.zeros(described.vocabulary or 0, np.int64)
    for chunk in part.chunks(0, part.steps):
        if described.own:
            places, entries = chunk.own[column]
            found = entries[places[0] : places[-1]]
        else:
            counted = np.ones(chunk.high - chunk.low, np.bool_)
            if observed is not None:
                counted &= chunk.columns[observed] == 1
            if ahead:
                counted[np.asarray(chunk.starts) - chunk.low] = False
            found = chunk.columns[column][counted]
        counts += np.bincount(found, minlength=len(counts))
    if goal == "decoded":
        counts[END] += part.sequences
    return counts
