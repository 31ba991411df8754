"""The labels of tables: one for a sequence, or one for each row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rnnfarm.data.vocabulary import Vocabulary
from rnnfarm.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy.typing as npt

    from rnnfarm.data.external_sort import Block

MOST_LABELS = 10_000
NO_LABEL = -1


def in_order(labels: Iterable[str]) -> list[str]:
    """Return labels in the order of their text, or of their numbers where all are whole numbers."""
    texts = sorted(set(labels))
    if all(text.removeprefix("-").isdecimal() for text in texts):
        return sorted(texts, key=int)
    return texts


def vocabulary_of(
    codes: dict[str, int], known: Vocabulary | None
) -> tuple[Vocabulary, npt.NDArray[np.int64]]:
    """Return the vocabulary of labels, and the id in it of each of their `codes` 0, 1, 2, …

    known: the vocabulary that there is already; a label that it has not is NO_LABEL.
    """
    vocabulary = known or Vocabulary("word", in_order(codes))
    ids = [vocabulary.index.get(text, NO_LABEL) for text in codes]
    return vocabulary, np.array(ids, np.int64)


class Belonging:
    """What belongs to a whole sequence, and must so be the same in all of its rows.

    column: what it is called in errors; where: says where a row is by its number; needed: whether
    every row must have a value; fix: what can be done where rows differ.
    """

    def __init__(self, column: str, where: Callable[[int], str], *, needed: bool, fix: str) -> None:
        self.column = column
        self.where = where
        self.needed = needed
        self.fix = fix

    def add(
        self, known: Any, values: npt.NDArray[Any], there: npt.NDArray[np.bool_], rows: Block
    ) -> Any:
        """Return what belongs to a sequence, given what its rows before had, or None.

        values, there (rows,): what these rows have, and where they have anything. DataError that
        names a row that has something else, or nothing where it must.
        """
        if self.needed and not there.all():
            number = int(rows["number"][int(np.argmin(there))])
            raise DataError(
                f"{self.where(number)}: column '{self.column}' has no value; fill or drop the row,"
                " or set missing = 'mask' where values may be missing"
            )
        if not there.any():
            return known
        known = values[int(np.argmax(there))] if known is None else known
        wrong = there & (values != known)
        if wrong.any():
            number = int(rows["number"][int(np.argmax(wrong))])
            raise DataError(
                f"{self.where(number)}: column '{self.column}' is not what the sequence's rows"
                f" before have; {self.fix}"
            )
        return known
