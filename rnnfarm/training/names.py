"""What classes and tokens are called."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rnnfarm.data.dataset import Dataset
from rnnfarm.data.vocabulary import Vocabulary


def class_names(dataset: Dataset, column: str) -> Callable[[int], str]:
    """Return what gives the name of a class of a column: its text, or its number."""
    vocabulary = dataset.vocabulary(column)
    if vocabulary is None or vocabulary.entries is None:
        return str
    return vocabulary.entries.__getitem__


def written(
    vocabulary: Vocabulary | None, tokens: Iterable[int], unknown: str | None = None
) -> list[str]:
    """Return what each token is called; ``unknown`` stands for what the vocabulary has not."""
    if vocabulary is None or vocabulary.entries is None:
        return [str(token) for token in tokens]
    other = {} if unknown is None else {vocabulary.unknown: unknown}
    return [other.get(token, vocabulary.entries[token]) for token in tokens]
