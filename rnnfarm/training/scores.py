"""The metrics of a task, each beside that of the simplest thing that could have been done.

What is kept while answers are added is sums, of a decoder's answers the sentences too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from rnnfarm.data.split import Split
from rnnfarm.data.vocabulary import Vocabulary
from rnnfarm.metrics import text
from rnnfarm.metrics.mean import Mean
from rnnfarm.training.answers import Answer
from rnnfarm.training.class_scores import ClassScores
from rnnfarm.training.names import written
from rnnfarm.training.run import OpenRun
from rnnfarm.training.value_scores import ForecastScores, OneValueScores

Metrics = dict[str, Any]


class Scores(Protocol):
    """Answers that were added up."""

    def add(self, batch: Sequence[Answer]) -> None:
        """Add answers, at least one."""

    def result(self) -> tuple[Metrics, Metrics]:
        """Return the metrics of all answers, and those of the baseline by the same names."""


def scores_of(opened: OpenRun, train: Split, part: Split) -> Scores:
    """Return what adds up a model's answers for a split; baselines learn from ``train``."""
    model = opened.model
    if opened.job.data.mode == "forecast":
        return ForecastScores(opened, train, part)
    if model.goal == "labels":
        return LabelScores(opened, train)
    if model.goal == "decoded":
        return SentenceScores(opened, train)
    if model.loss.loss.target_kind == "classes":
        return ClassScores(opened, train)
    return OneValueScores(opened, train)


class LabelScores:
    """Of the labels that CTC finds, beside the most frequent labels of the training part."""

    def __init__(self, opened: OpenRun, train: Split) -> None:
        self.vocabulary = opened.dataset.vocabulary(opened.model.target)
        self.usual = most_frequent(train, opened.model.target)
        self.sums = [LabelErrors(self.vocabulary), LabelErrors(self.vocabulary)]

    def add(self, batch: Sequence[Answer]) -> None:
        """Add answers."""
        wanted = [one.target for one in batch]
        self.sums[0].add(wanted, [one.found for one in batch])
        self.sums[1].add(wanted, [self.usual] * len(batch))

    def result(self) -> tuple[Metrics, Metrics]:
        """Return the metrics of the model, and those of the most frequent labels."""
        return self.sums[0].metrics(), self.sums[1].metrics()


class LabelErrors:
    """The error rates of labels, of words too where a blank is one of the labels."""

    def __init__(self, vocabulary: Vocabulary | None) -> None:
        self.vocabulary = vocabulary
        self.letters, self.words, self.exact = Mean(), Mean(), Mean()
        entries = None if vocabulary is None else vocabulary.entries
        self.has_words = entries is not None and " " in entries

    def add(self, wanted: Sequence[Any], found: Sequence[Any]) -> None:
        """Add labels, and what was found of them."""
        self.letters += text.letter_edits(wanted, found)
        self.exact += text.exact_matches(wanted, found)
        if self.has_words:
            lines = [
                ["".join(written(self.vocabulary, row)) for row in rows] for rows in (wanted, found)
            ]
            self.words += text.word_edits(*lines)

    def metrics(self) -> Metrics:
        """Return the rates."""
        rates = {"letter_error_rate": self.letters.value(), "exact": self.exact.value()}
        return rates | ({"word_error_rate": self.words.value()} if self.has_words else {})


class SentenceScores:
    """Of what a decoder writes, beside the most frequent sentence of the training part."""

    def __init__(self, opened: OpenRun, train: Split) -> None:
        self.vocabulary = opened.dataset.vocabulary(opened.model.target)
        self.usual = " ".join(written(self.vocabulary, most_frequent(train, opened.model.target)))
        self.references: list[str] = []
        self.hypotheses: list[str] = []

    def add(self, batch: Sequence[Answer]) -> None:
        """Add answers."""
        # A word that the vocabulary has not is never right, whatever was said for it.
        unknown = "<?>"
        self.references += [" ".join(written(self.vocabulary, o.target, unknown)) for o in batch]
        self.hypotheses += [" ".join(written(self.vocabulary, o.found)) for o in batch]

    def result(self) -> tuple[Metrics, Metrics]:
        """Return the metrics of the model, and those of the most frequent sentence."""
        return self._metrics(self.hypotheses), self._metrics([self.usual] * len(self.references))

    def _metrics(self, hypotheses: Sequence[str]) -> Metrics:
        return {
            "bleu": text.bleu(self.references, hypotheses),
            "exact": text.exact_match_rate(self.references, hypotheses),
        }


def most_frequent(train: Split, target: str) -> list[int]:
    """Return the list of labels that most sequences of the training part have."""
    counts: Counter[bytes] = Counter()
    for chunk in train.chunks(0, train.steps):
        places, entries = chunk.own[target]
        for low, high in pairwise(places.tolist()):
            counts[entries[low:high].tobytes()] += 1
    dtype = train.column(target).numpy
    found: list[int] = np.frombuffer(counts.most_common(1)[0][0], dtype).tolist()
    return found
