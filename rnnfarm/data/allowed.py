"""Which values a column of a dataset may hold: ids of its vocabulary, or finite numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from rnnfarm.data.manifest import Column

LARGEST = np.finfo(np.float32).max  # a float32, by which halves are compared as such


def first_forbidden(column: Column, figures: npt.NDArray[Any]) -> tuple[int, str] | None:
    """Return the place of the first step that a column may not hold, and what is wrong with it.

    `figures` are the steps of the column, tokens (steps,) or values (steps, width). None where all
    are allowed, which is found out in one pass over the memory.
    """
    if not figures.size:
        return None
    with np.errstate(invalid="ignore"):
        low, high = figures.min(), figures.max()  # NaN where there is one
    if column.vocabulary is not None:
        if int(low) >= 0 and int(high) < column.vocabulary:
            return None
        good = (figures >= 0) & (figures < column.vocabulary)
        what = f"lies outside the vocabulary of {column.vocabulary}"
    else:
        if low >= -LARGEST and high <= LARGEST:
            return None
        good = (np.abs(figures) <= LARGEST).all(axis=1)
        what = "is not a finite number of float32"
    return int(np.argmin(good)), what
