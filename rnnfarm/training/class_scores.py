"""The metrics of classes: one for a sequence, or a tag for each of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rnnfarm.data.split import Split
from rnnfarm.data.window import NEXT
from rnnfarm.metrics.classes import Confusions
from rnnfarm.metrics.text import bits, perplexity, unigram_nats
from rnnfarm.training.answers import Answer
from rnnfarm.training.counts import target_counts
from rnnfarm.training.names import class_names
from rnnfarm.training.run import OpenRun

Metrics = dict[str, Any]
#: A confusion matrix has at most that many classes; of more the most frequent confusions are told.
MATRIX, PAIRS = 50, 20


class ClassScores:
    """Of classes, beside the most frequent one of the training part."""

    def __init__(self, opened: OpenRun, train: Split) -> None:
        name = opened.model.target_column
        self.column = train.column(name)
        self.names = class_names(opened.dataset, name)
        self.loss = opened.model.loss
        self.found = Confusions(self.column.vocabulary or 0)
        self.counted = counted_classes(opened)
        known = target_counts(train, name, ahead=False, goal=opened.model.goal)
        self.known = known * self.counted

    def add(self, batch: Sequence[Answer]) -> None:
        """Add answers for whole sequences."""
        kept = [one for one in batch if self.counted[one.target]]
        self.found.add([one.target for one in kept], [one.found for one in kept])

    def add_steps(self, window: Any, output: Any) -> None:
        """Add a window whose steps have a class each, and what the model gives for it."""
        counts = self.loss.counted(window.target, window.valid)
        self.found.add(window.target[counts], output[counts].argmax(-1))

    def result(self) -> tuple[Metrics, Metrics]:
        """Return the metrics of the model, and those of the most frequent class."""
        found = self.found
        metrics: Metrics = {"accuracy": found.accuracy(), "macro_f1": found.macro_f1()}
        if self.column.vocabulary == 2:
            metrics["f1"] = found.f1(1)
        targets, usual = found.targets(), int(self.known.argmax())
        total = int(targets.sum())
        right = int(targets[usual]) / total if total else float("nan")
        return metrics | self._confusion(), {"accuracy": right}

    def _confusion(self) -> Metrics:
        size = self.column.vocabulary or 0
        if size <= MATRIX:
            names = [self.names(token) for token in range(size)]
            return {"confusion": {"classes": names, "counts": self.found.matrix().tolist()}}
        pairs = [
            {"truth": self.names(truth), "prediction": self.names(said), "count": count}
            for truth, said, count in self.found.worst(PAIRS)
        ]
        return {"confused": pairs}


def unigram(opened: OpenRun, train: Split, part: Split) -> Metrics:
    """Return what a split's targets cost without their context, each as likely as it is often a
    target in the training part; and how many of them are the most frequent one."""
    name, ahead = opened.model.target_column, opened.model.target == NEXT
    counted = counted_classes(opened)
    known, found = (
        target_counts(one, name, ahead=ahead, goal=opened.model.goal) * counted
        for one in (train, part)
    )
    total = int(found.sum())
    accuracy = {"accuracy": int(found[known.argmax()]) / total if total else float("nan")}
    if not opened.model.loss.loss.in_nats:  # a loss of one's own is measured otherwise
        return accuracy
    nats = unigram_nats(known, found)
    return {"loss": nats, "bits": bits(nats), "perplexity": perplexity(nats)} | accuracy


def counted_classes(opened: OpenRun) -> Any:
    """Return which classes count, (V,) bool: all but one that the loss ignores."""
    size = opened.dataset.columns[opened.model.target_column].vocabulary or 0
    classes = np.arange(size, dtype=np.int32)[:, None]
    return opened.model.loss.counted(classes, np.ones((size, 1), np.bool_))[:, 0]
