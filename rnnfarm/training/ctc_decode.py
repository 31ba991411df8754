"""Labels out of the outputs of a network that was trained with connectionist temporal
classification (``rnnfarm.nn.ctc``).

T are the steps of one sequence, V the classes with blank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnfarm.metrics.text import edit_distance
from rnnfarm.nn.ctc import log_softmax

Array = npt.NDArray[Any]


def greedy(logits: Array, blank: int = 0) -> list[int]:
    """The labels of the most probable path: best path decoding (Graves et al. 2006, eq. 4).

    Args:
        logits: ``(T, V)``, or log probabilities. Of equal ones the first class is taken.
    """
    best = logits.argmax(-1)
    given = best != blank
    given[1:] &= best[1:] != best[:-1]
    labels: list[int] = best[given].tolist()
    return labels


def greedy_edits(output: Array, target: Array, valid: Array) -> tuple[int, int]:
    """The edit distances between greedy labels and those of the target, and the latter's number.

    Args:
        output: ``(T, B, V)`` logits.
        target: ``(L, B)``, 0 after a row's last label.
        valid: ``(T, B)``; a row without a valid step does not count.
    """
    edits = labels = 0
    for row in np.flatnonzero(valid.any(0)):
        wanted = target[target[:, row] != 0, row]
        edits += edit_distance(wanted, greedy(output[: int(valid[:, row].sum()), row]))
        labels += len(wanted)
    return edits, labels


def beam(logits: Array, width: int, blank: int = 0, most: int = 1) -> list[tuple[list[int], float]]:
    """The most probable labels: prefix beam search.

    A. Hannun, A. Maas, D. Jurafsky, A. Ng: "First-pass large vocabulary continuous speech
    recognition using bi-directional recurrent DNNs", 2014, algorithm 1 without its language model.
    A prefix that left the beam and comes back starts anew, with what the beam leads to it.

    Args:
        logits: ``(T, V)``, or log probabilities.
        width: how many prefixes are kept at each step.
        most: how many labellings are wanted.

    Returns:
        At most ``most`` labellings, the most probable first, each with the log probability of those
        of its paths that the beam has kept: of all, where it is wide enough. Of equally probable
        prefixes those that are kept unchanged come first, then the extensions of better prefixes,
        then smaller labels.
    """
    if width < 1:
        raise ValueError(f"the beam must keep 1 prefix or more, not {width}")
    kept = _Beam([()], np.zeros(1), np.full(1, -np.inf))
    with np.errstate(all="ignore"):
        for likely in log_softmax(logits):
            kept = kept.after(likely, width, blank)
        scores = kept.scores.tolist()
    found = zip(map(list, kept.prefixes), scores, strict=True)
    return list(found)[:most]


@dataclass(frozen=True)
class _Beam:
    """W prefixes, the most probable first.

    Attributes:
        prefixes: their labels.
        blank: ``(W,)`` the log probability of the paths to a prefix that end with blank.
        label: ``(W,)`` of those that end with its last label.
    """

    prefixes: list[tuple[int, ...]]
    blank: Array
    label: Array

    @property
    def scores(self) -> Array:
        """``(W,)`` the log probability of all paths to a prefix."""
        scores: Array = np.logaddexp(self.blank, self.label)
        return scores

    def after(self, likely: Array, width: int, blank: int) -> _Beam:
        """The beam a step later, the log probabilities of whose classes are ``likely`` (V,)."""
        stay_blank = self.scores + likely[blank]
        more = self._extended(likely, blank)
        stay_label = self._repeated(likely, blank, more)
        every = np.concatenate([np.logaddexp(stay_blank, stay_label), more.reshape(-1)])
        order = np.argsort(-every, kind="stable")[:width]
        order = order[every[order] != -np.inf]
        # An extension ends with its label.
        ends_blank = np.concatenate([stay_blank, np.full(more.size, -np.inf)])
        ends_label = np.concatenate([stay_label, more.reshape(-1)])
        prefixes = [self._prefix(place, len(likely)) for place in order.tolist()]
        return _Beam(prefixes, ends_blank[order], ends_label[order])

    def _extended(self, likely: Array, blank: int) -> Array:
        """``(W, V)`` the log probability of each prefix with each class behind it."""
        more = self.scores[:, None] + likely
        for place, prefix in enumerate(self.prefixes):
            if prefix:
                # Without a blank between, the same label again is no label more.
                more[place, prefix[-1]] = self.blank[place] + likely[prefix[-1]]
        more[:, blank] = -np.inf
        return more

    def _repeated(self, likely: Array, blank: int, more: Array) -> Array:
        """``(W,)`` the paths to each prefix that end with its last label: that label again, or an
        extension of another prefix of the beam, which moves here out of ``more``."""
        at = {prefix: place for place, prefix in enumerate(self.prefixes)}
        last = [prefix[-1] if prefix else blank for prefix in self.prefixes]
        repeated: Array = self.label + likely[last]
        for place, prefix in enumerate(self.prefixes):
            parent = at.get(prefix[:-1]) if prefix else None
            if parent is not None:
                repeated[place] = np.logaddexp(repeated[place], more[parent, prefix[-1]])
                more[parent, prefix[-1]] = -np.inf
        return repeated

    def _prefix(self, place: int, classes: int) -> tuple[int, ...]:
        """The labels of a place in the prefixes and, behind them, their extensions."""
        if place < len(self.prefixes):
            return self.prefixes[place]
        parent, label = divmod(place - len(self.prefixes), classes)
        return (*self.prefixes[parent], label)
