"""Measures of classes: one for a sequence, or a tag for each of its steps.

Targets and predictions are integers from 0 on, in arrays of one shape, whatever it is; a mask of
that shape is true where an element counts (all do without one).
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnnfarm.metrics.mean import Mean

Counts = NDArray[np.int64]


def hits(targets: ArrayLike, predictions: ArrayLike, mask: ArrayLike | None = None) -> Mean:
    """How many predictions are right, over how many there are: the accuracy of a batch."""
    truth, guess = _pairs(targets, predictions, mask)
    return Mean.of([float(np.count_nonzero(truth == guess))], truth.size)


def accuracy(targets: ArrayLike, predictions: ArrayLike, mask: ArrayLike | None = None) -> float:
    """The share of right predictions; nan where there are none."""
    return hits(targets, predictions, mask).value()


def confusion_counts(
    targets: ArrayLike, predictions: ArrayLike, classes: int, mask: ArrayLike | None = None
) -> Counts:
    """(classes, classes) counts: how often target ``i`` was predicted as ``j``, at ``[i, j]``.

    The counts of batches are added up with ``+``.
    """
    truth, guess = _pairs(targets, predictions, mask)
    if truth.size and max(truth.max(), guess.max()) >= classes:
        raise ValueError(
            f"a class is {max(truth.max(), guess.max())}; with {classes} classes the last one "
            f"is {classes - 1}"
        )
    counts = np.bincount(truth * classes + guess, minlength=classes * classes)
    return counts.astype(np.int64).reshape(classes, classes)


def accuracy_of(counts: Counts) -> float:
    """The accuracy of confusion counts; nan where they are all 0."""
    total = int(counts.sum())
    return int(np.trace(counts)) / total if total else math.nan


def macro_f1(targets: ArrayLike, predictions: ArrayLike, mask: ArrayLike | None = None) -> float:
    """The plain mean of the classes' F1; see ``macro_f1_of``."""
    return _mean_f1(*_class_counts(*_pairs(targets, predictions, mask)))


def macro_f1_of(counts: Counts) -> float:
    """The plain mean of F1 over the classes that occur among the targets or the predictions.

    A class that occurs in neither has no F1 and is left out, as scikit-learn does; nan where
    none occurs.
    """
    return _mean_f1(np.diagonal(counts), counts.sum(axis=1), counts.sum(axis=0))


def f1(
    targets: ArrayLike, predictions: ArrayLike, positive: int = 1, mask: ArrayLike | None = None
) -> float:
    """F1 of the class ``positive``; see ``f1_of``."""
    truth, guess = _pairs(targets, predictions, mask)
    is_truth, is_guess = truth == positive, guess == positive
    return _f1(int((is_truth & is_guess).sum()), int(is_truth.sum()), int(is_guess.sum()))


def f1_of(counts: Counts, positive: int = 1) -> float:
    """F1 of a class: the harmonic mean of its precision and recall, 2 TP / (2 TP + FP + FN).

    nan where the class occurs neither among the targets nor among the predictions.
    """
    row, column = counts[positive], counts[:, positive]
    return _f1(int(row[positive]), int(row.sum()), int(column.sum()))


def majority_class(labels: ArrayLike) -> int:
    """The commonest of the training labels, the lowest of several; without labels a ValueError."""
    (classes,) = _integers(labels)
    if classes.size == 0:
        raise ValueError("no labels: the majority class of none isn't defined")
    return int(np.argmax(np.bincount(classes.reshape(-1))))


def majority_accuracy(
    labels: ArrayLike, targets: ArrayLike, mask: ArrayLike | None = None
) -> float:
    """Baseline: the accuracy where the commonest training label is predicted for every target."""
    return accuracy(targets, np.full(np.shape(targets), majority_class(labels)), mask)


class Confusions:
    """How often each class was predicted for each other one, added up over batches.

    Memory goes with the pairs that occur, so that a large vocabulary takes no square of it.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.pairs: Counter[tuple[int, int]] = Counter()

    def add(self, targets: ArrayLike, predictions: ArrayLike) -> None:
        """Add a batch of classes and what was predicted for them."""
        truth, guess = _pairs(targets, predictions, None)
        codes, counts = np.unique(truth * self.classes + guess, return_counts=True)
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
            self.pairs[divmod(code, self.classes)] += count

    def matrix(self) -> Counts:
        """Return (classes, classes) counts, as ``confusion_counts`` does."""
        counts = np.zeros((self.classes, self.classes), np.int64)
        for (truth, guess), count in self.pairs.items():
            counts[truth, guess] = count
        return counts

    def targets(self) -> Counts:
        """Return how often each class was the target, (classes,)."""
        return self._sums()[1]

    def accuracy(self) -> float:
        """Return the share of right predictions; nan where there are none."""
        right, targets, _ = self._sums()
        return int(right.sum()) / int(targets.sum()) if targets.any() else math.nan

    def macro_f1(self) -> float:
        """Return the plain mean of F1 over the classes that occur; see ``macro_f1_of``."""
        return _mean_f1(*self._sums())

    def f1(self, positive: int = 1) -> float:
        """Return F1 of a class; see ``f1_of``."""
        return _f1(*(int(counts[positive]) for counts in self._sums()))

    def worst(self, most: int) -> list[tuple[int, int, int]]:
        """Return the most frequent confusions: target, prediction, and how often."""
        wrong = [(-count, *pair) for pair, count in self.pairs.items() if pair[0] != pair[1]]
        return [(truth, guess, -count) for count, truth, guess in sorted(wrong)[:most]]

    def _sums(self) -> tuple[Counts, Counts, Counts]:
        """Return how often each class is right, a target and a prediction, (classes,) each."""
        right, targets, guesses = (np.zeros(self.classes, np.int64) for _ in range(3))
        for (truth, guess), count in self.pairs.items():
            targets[truth] += count
            guesses[guess] += count
            right[truth] += count if truth == guess else 0
        return right, targets, guesses


def _f1(both: int, of_targets: int, of_predictions: int) -> float:
    either = of_targets + of_predictions
    return 2 * both / either if either else math.nan


def _mean_f1(both: Counts, of_targets: Counts, of_predictions: Counts) -> float:
    """The mean over classes, each with its counts at one place of the arrays (classes,)."""
    counts = zip(both.tolist(), of_targets.tolist(), of_predictions.tolist(), strict=True)
    scores = [_f1(*count) for count in counts if count[1] + count[2]]
    return Mean.of(scores, len(scores)).value()


def _class_counts(truth: Counts, guess: Counts) -> tuple[Counts, Counts, Counts]:
    """How often each class is right, a target and a prediction."""
    classes = int(max(truth.max(), guess.max())) + 1 if truth.size else 0
    right, targets, predictions = (
        np.bincount(values, minlength=classes) for values in (truth[truth == guess], truth, guess)
    )
    return right, targets, predictions


def _pairs(
    targets: ArrayLike, predictions: ArrayLike, mask: ArrayLike | None
) -> tuple[Counts, Counts]:
    """The targets and predictions that count, each as one row."""
    kept: NDArray[Any] | None = None if mask is None else np.asarray(mask)
    if kept is not None and kept.dtype != np.bool_:
        raise ValueError(f"the mask is bool, not {kept.dtype}")
    shapes = {np.shape(a) for a in (targets, predictions, kept) if a is not None}
    if len(shapes) > 1:
        raise ValueError(
            "targets, predictions and mask have one shape, not "
            + " and ".join(str(shape) for shape in sorted(shapes))
        )
    if kept is not None:
        # What is masked out may be any filling, such as -1.
        targets, predictions = np.asarray(targets)[kept], np.asarray(predictions)[kept]
    truth, guess = _integers(targets, predictions)
    return truth.reshape(-1), guess.reshape(-1)


def _integers(*arrays: ArrayLike) -> list[Counts]:
    result = []
    for array in map(np.asarray, arrays):
        if array.size and array.dtype.kind not in "iub":
            raise ValueError(f"classes are integers, not {array.dtype}")
        if array.size and array.min() < 0:
            raise ValueError(f"classes are 0 or more, not {array.min()}")
        result.append(array.astype(np.int64))
    return result
