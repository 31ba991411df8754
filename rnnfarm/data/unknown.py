"""Counting the tokens that a vocabulary lacks."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnfarm.data.vocabulary import UNKNOWN

if TYPE_CHECKING:
    import numpy.typing as npt

    from rnnfarm.data.vocabulary import Vocabulary

INPUT = "input"  # the split of a file that is read for predictions


class UnknownCounts:
    """How many tokens of each split are read as `<unk>`, for a reader's notes."""

    def __init__(self, vocabulary: Vocabulary, column: str = "tokens") -> None:
        self._vocabulary, self._column = vocabulary, column
        self._all: Counter[str] = Counter()
        self._unknown: Counter[str] = Counter()

    def add(self, split: str, ids: npt.NDArray[Any]) -> None:
        """Count the ids of a part of a split."""
        self._all[split] += len(ids)
        if self._vocabulary.unknown is not None:
            self._unknown[split] += int(np.count_nonzero(ids == self._vocabulary.unknown))

    def notes(self) -> list[str]:
        """Return a sentence for each split that has such tokens."""
        unit = f"{self._vocabulary.unit}s"
        what = unit if self._column == "tokens" else f"{unit} of '{self._column}'"
        return [
            f"{'' if split == INPUT else f'{split}: '}{count:,} of {self._all[split]:,} {what} are"
            f" not in the vocabulary and are read as {UNKNOWN}"
            for split, count in self._unknown.items()
            if count
        ]
