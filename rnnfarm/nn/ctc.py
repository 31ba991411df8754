"""Connectionist temporal classification: the loss of a labelling without its alignment.

A. Graves, S. Fernández, F. Gomez, J. Schmidhuber: "Connectionist temporal classification:
labelling unsegmented sequence data with recurrent neural networks", ICML 2006. Equation numbers
are this paper's.

T are the steps, B the rows, V the classes with blank, L the labels, S = 2 L + 1 the states that a
path goes through: the labels with a blank before, between and after them. States come before rows
in the arrays of the recursion, which so reads whole contiguous blocks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_LOWEST = float(np.finfo(np.float64).min)


def ctc(
    logits: Array,
    lengths: Array,
    labels: Array,
    label_lengths: Array,
    d_logits: Array | None = None,
    blank: int = 0,
) -> Array:
    """-log p(labels | logits) of each row.

    Args:
        logits: ``(T, B, V)`` float32 or float64; steps beyond a row's length may hold anything.
        lengths: ``(B,)`` the valid steps of each row; a row of none does not count: its loss is 0.
        labels: ``(L, B)`` classes without blank; those beyond a row's length may be anything.
        label_lengths: ``(B,)``.
        d_logits: where given, ``(T, B, V)``, receives the gradient of the sum of the losses; it is
            0 beyond the lengths.

    Returns:
        ``(B,)`` float64. A row whose labels have no path (``impossible``) has the loss inf and the
        gradient 0. The bits of a row depend on no other row, on no padding, and not on whether the
        gradient is asked for.

    Raises ValueError for a label that is no class.
    """
    lengths, sizes = lengths.astype(np.intp), 2 * label_lengths.astype(np.intp) + 1
    steps = int(lengths.max(initial=0))
    counts = np.arange(steps)[:, None] < lengths
    states = _states(labels, label_lengths, blank)
    if states.size and not 0 <= states.min() <= states.max() < logits.shape[2]:
        raise ValueError(f"labels must be classes from 0 to {logits.shape[2] - 1}")
    # What is impossible is -inf on purpose, and what comes of a NaN is NaN, as in other losses.
    with np.errstate(all="ignore"):
        likely = log_softmax(np.where(counts[:, :, None], logits[:steps], 0.0))
        emitted = _emitted(likely, states, sizes)
        if d_logits is None:
            arrived = _arrived(emitted, _skips(states))
        else:
            arrived, left = _both_ways(emitted, states, lengths, sizes)
        total = _total(emitted, arrived, lengths, sizes)
        if d_logits is not None:
            found = np.exp(likely) - _occupied(emitted + arrived + left, states, likely.shape)
            wanted = counts & (total != -np.inf)
            d_logits[:steps] = np.where(wanted[:, :, None], found, 0.0)
            d_logits[steps:] = 0.0
    # A rounding error must not make a loss of 0 negative, or -0.0.
    losses: Array = np.maximum(0.0 - total, 0.0)
    return losses


def impossible(lengths: Array, labels: Array, label_lengths: Array) -> Array:
    """``(B,)`` bool: the rows whose labels cannot be aligned; arguments as ``ctc`` has them.

    A path needs a step for every label, and one for a blank between two that are equal. A row of
    no steps does not count, and is none of them.
    """
    second = np.arange(1, max(len(labels), 1))[:, None]
    repeats = ((labels[1:] == labels[:-1]) & (second < label_lengths)).sum(0)
    short: Array = (lengths > 0) & (lengths < label_lengths + repeats)
    return short


def align(logits: Array, length: int, labels: Array, blank: int = 0) -> Array:
    """The most probable path of one row (Viterbi).

    Args:
        logits: ``(T, V)``.
        length: its valid steps.
        labels: ``(L,)`` classes, all of which count.

    Returns:
        ``(T,)`` the place in ``labels`` of the label that each step gives, and -1 for blank and
        beyond the length.

    Raises ValueError where the labels have no path.
    """
    path = np.full(len(logits), -1, np.intp)
    if length == 0:
        return path
    states = _states(np.asarray(labels)[:, None], np.array([len(labels)]), blank)
    emitted = log_softmax(logits[:length])[:, states[:, 0]]
    score, moves = _viterbi(emitted, _skips(states)[:, 0])
    state = len(score) - 1
    if state and score[state - 1] > score[state]:
        state -= 1
    if not score[state] > -np.inf:
        raise ValueError(f"no path of {length} steps gives these {len(labels)} labels")
    for t in range(length - 1, -1, -1):
        if state % 2:
            path[t] = state // 2
        state -= moves[t, state]
    return path


def log_softmax(logits: Array) -> Array:
    """``(..., V)`` logits as log probabilities, in float64."""
    # In C order the sum over the classes is in one order, whatever the other axes are.
    logits = np.array(logits, np.float64, order="C")
    with np.errstate(all="ignore"):
        logits -= logits.max(-1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    return logits


def _states(labels: Array, label_lengths: Array, blank: int) -> Array:
    """``(S, B)`` the class of each state, l' in the paper; blank beyond a row's labels."""
    given = int(label_lengths.max(initial=0))
    states = np.full((2 * given + 1, len(label_lengths)), blank, np.intp)
    inside = np.arange(given)[:, None] < label_lengths
    states[1::2] = np.where(inside, labels[:given], blank)
    return states


def _skips(states: Array) -> Array:
    """``(S, B)`` 0 where a path may come from two states before (eq. 6), else -inf: between labels
    that differ, while blanks do not."""
    skips = np.full(states.shape, -np.inf)
    skips[2:][states[2:] != states[:-2]] = 0.0
    return skips


def _where(states: Array, shape: tuple[int, ...]) -> Array:
    """``(T, S, B)`` where the class of each state lies in an array of the shape ``(T, B, V)``."""
    steps, rows, classes = shape
    where: Array = np.arange(steps * rows).reshape(steps, 1, rows) * classes + states
    return where


def _emitted(likely: Array, states: Array, sizes: Array) -> Array:
    """``(T, S, B)`` log y: what each state gives, -inf for one that the row does not have."""
    emitted: Array = likely.reshape(-1).take(_where(states, likely.shape))
    emitted[:, np.arange(len(states))[:, None] >= sizes] = -np.inf
    return emitted


def _arrived(emitted: Array, skips: Array) -> Array:
    """``(T, S, B)`` the log forward variables (eq. 6 and 7) without what the state gives itself.

    Every operation is on elements, in one order: no result depends on another row or on padding.
    """
    steps, states, rows = emitted.shape
    arrived = np.full(emitted.shape, -np.inf)
    arrived[:1, :2] = 0.0
    # Two states before the first, which nothing comes from.
    forward = np.full((states + 2, rows), -np.inf)
    ways, most = np.empty((3, states, rows)), np.empty((states, rows))
    for t in range(1, steps):
        np.add(arrived[t - 1], emitted[t - 1], out=forward[2:])
        ways[0], ways[1] = forward[2:], forward[1:-1]
        np.add(forward[:-2], skips, out=ways[2])
        # From the lowest number, for -inf less -inf is none.
        np.maximum.reduce(ways, axis=0, out=most, initial=_LOWEST)
        ways -= most
        np.exp(ways, out=ways)
        total = arrived[t]
        np.add(ways[0], ways[1], out=total)
        total += ways[2]
        np.log(total, out=total)
        total += most
    return arrived


def _both_ways(emitted: Array, states: Array, lengths: Array, sizes: Array) -> tuple[Array, Array]:
    """``(T, S, B)`` the log forward and the log backward variables (eq. 6, 7, 10 and 11), both
    without what the state gives itself.

    Backward variables are the forward variables of the steps and the states in reverse: one loop
    over the steps computes both, as of twice the rows. What is beyond a row's end turns into its
    first step or state; a path never comes back from there.
    """
    steps, rows = len(emitted), len(lengths)
    times = np.maximum(lengths - 1 - np.arange(steps)[:, None], 0)[:, None]
    places = np.maximum(sizes - 1 - np.arange(len(states))[:, None], 0)
    turn = (times * len(states) + places) * rows + np.arange(rows)
    turned = np.take_along_axis(states, places, 0)
    both = np.concatenate([emitted, emitted.reshape(-1).take(turn)], 2)
    skips = np.concatenate([_skips(states), _skips(turned)], 1)
    arrived = _arrived(both, skips)
    return arrived[:, :, :rows], arrived[:, :, rows:].reshape(-1).take(turn)


def _total(emitted: Array, arrived: Array, lengths: Array, sizes: Array) -> Array:
    """``(B,)`` log p(labels | logits) (eq. 8): the paths that end in a row's last two states."""
    rows = np.flatnonzero(lengths > 0)
    last, end = lengths[rows] - 1, sizes[rows] - 1

    def forward(state: Array) -> Array:
        found: Array = arrived[last, state, rows] + emitted[last, state, rows]
        return found

    # Without labels there is one state.
    label = np.where(end > 0, forward(np.maximum(end - 1, 0)), -np.inf)
    total = np.zeros(len(lengths))
    total[rows] = np.logaddexp(forward(end), label)
    return total


def _occupied(paths: Array, states: Array, shape: tuple[int, ...]) -> Array:
    """``(T, B, V)`` the probability that a path of the labels gives a class at a step.

    It is the sum in eq. 16, with its Z, the sum over all states: ``paths`` ``(T, S, B)``, the log
    probability of all paths through a state at a step, need not be p(labels | logits) in all.
    """
    weights = np.exp(paths - paths.max(1, keepdims=True, initial=_LOWEST))
    # It adds one after the other, in the order of the states, whatever the shape.
    places, size = _where(states, shape).reshape(-1), math.prod(shape)
    summed = np.bincount(places, weights.reshape(-1), size).reshape(shape)
    occupied: Array = summed / summed.sum(-1, keepdims=True)
    return occupied


def _viterbi(emitted: Array, skips: Array) -> tuple[Array, Array]:
    """``(S,)`` the log probability of the best path to each state at the end, and ``(T, S)`` how
    many states before it was a step earlier; of equally good ones the nearest."""
    steps, states = emitted.shape
    moves = np.zeros(emitted.shape, np.intp)
    best = np.full(states + 2, -np.inf)
    best[2:4] = emitted[0, :2]
    for t in range(1, steps):
        ways = np.stack([best[2:], best[1:-1], best[:-2] + skips])
        moves[t] = ways.argmax(0)
        best[2:] = ways.max(0) + emitted[t]
    return best[2:], moves
