"""What a model answers for the sequences of a split, beside what it should have answered.

A window becomes answers by the shape of the model: a class or values for a whole sequence, the
labels that CTC finds, what a decoder writes, or the values of a horizon.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from rnnfarm.data.left_out import Place
from rnnfarm.data.window import Window
from rnnfarm.training.ctc_decode import beam as ctc_beam
from rnnfarm.training.ctc_decode import greedy as ctc_greedy
from rnnfarm.training.decode import write
from rnnfarm.training.run import OpenRun
from rnnfarm.training.search import Search
from rnnfarm.training.setup import Measured
from rnnfarm.training.tbptt import Lane

Places = list[Place | None]
#: What a decoder writes at most, as a multiple of what it reads, and beyond that.
LONGER, MORE = 2, 20


@dataclass(frozen=True)
class Answer:
    """A model's answer for one sequence.

    Attributes:
        place: the sequence, and for a forecast the first step that is forecast.
        target: what it should have been: a class, labels, or values; None where nobody says.
        found: what the model says: the same, where values may be several rows (see ``outputs``).
        output: the numbers behind it: log-odds ``(V,)``, values ``(O,)``, or ``(T, V)`` for CTC.
        weights: of a decoder's attention, ``(L, T)``.
        read: what it was made from, ``(T, F)`` or tokens ``(T,)``; of forecasts and decoders.
        base: what is to be added to the values of a forecast, (O,).
    """

    place: Place
    target: Any
    found: Any
    output: Any = None
    weights: Any = None
    read: Any = None
    base: Any = None


def answers(
    opened: OpenRun, windows: Measured, search: Search, known: bool = True
) -> Iterator[Answer]:
    """The answers for all sequences that end in the windows of one epoch, in order.

    ``known``: whether the windows have the targets; otherwise each holds whole sequences.
    """
    if opened.model.goal == "decoded":
        yield from _all_written(opened, windows, search, known)
        return
    for number, window, output in outputs(opened, windows):
        places = windows.places(number)
        if opened.model.goal == "labels":
            yield from _labels(output, window, places, search, known)
        else:
            yield from _single(opened, output, window, places, known)


def batches(found: Iterable[Answer], size: int = 256) -> Iterator[list[Answer]]:
    """Return answers in lists of ``size``, so that no more of them are kept at once."""
    rest = iter(found)
    while batch := list(islice(rest, size)):
        yield batch


def outputs(opened: OpenRun, windows: Measured) -> Iterator[tuple[int, Window, Any]]:
    """The number of each window of an epoch, the window, and the model's output for it."""
    seed = opened.job.training.seed
    lane = Lane(0, slice(0, windows.batch), opened.model.network, opened.model.loss)
    for number in range(windows.windows_in_epoch(0)):
        window = windows.read(number)
        output = lane.output(window, number, opened.parameters, seed, windows.stride)
        yield number, window, output.copy()  # the lane uses its memory again


def _all_written(
    opened: OpenRun, windows: Measured, search: Search, known: bool
) -> Iterator[Answer]:
    lane = Lane(0, slice(0, windows.batch), opened.model.network, opened.model.loss)
    for number in range(windows.windows_in_epoch(0)):
        window, places = windows.read(number), windows.places(number)
        yield from _written(opened, lane, window, places, number, windows.stride, search, known)


def _at(places: Places, row: int) -> Place:
    place = places[row]
    assert place is not None
    return place


def _single(
    opened: OpenRun, output: Any, window: Window, places: Places, known: bool
) -> Iterator[Answer]:
    """One class or one row of values for a sequence."""
    classes = opened.model.loss.loss.target_kind == "classes"
    forecast = opened.job.data.mode == "forecast"
    for row in np.flatnonzero(window.valid.any(0)).tolist():
        given = output[0, row]
        found = int(given.argmax()) if classes else given
        read = window.x[:, row] if forecast else None
        base = None if window.base is None else window.base[0, row]
        target: Any = None
        if known:
            target = window.target[0, row]
            if classes:
                target = int(target)
            elif base is not None:
                target = target + base
        yield Answer(_at(places, row), target, found, given, read=read, base=base)


def _labels(
    output: Any, window: Window, places: Places, search: Search, known: bool
) -> Iterator[Answer]:
    for row in np.flatnonzero(window.valid.any(0)).tolist():
        logits = output[: int(window.valid[:, row].sum()), row]
        target = [int(label) for label in window.target[:, row] if label] if known else None
        if search.beam > 1:
            found = ctc_beam(logits, search.beam)[0][0]
        else:
            found = ctc_greedy(logits)
        yield Answer(_at(places, row), target, found, logits)


def _written(
    opened: OpenRun,
    lane: Lane,
    window: Window,
    places: Places,
    number: int,
    stride: int,
    search: Search,
    known: bool,
) -> Iterator[Answer]:
    given = lane.shown(window)
    run = lane.start(given, number, opened.job.training.seed, stride, training=False)
    most = search.most or LONGER * len(window.x) + MORE
    rows = [int(row) for row in np.flatnonzero(window.valid.any(0))]
    with np.errstate(all="ignore"):
        written = write(
            opened.model.network, opened.parameters, given.x, run, rows,
            beam=search.beam, most=most, penalty=search.penalty,
        )  # fmt: skip
    lane.states = run.new_states
    for row in rows:
        target = None
        if known:
            length = int(window.valid[:, row].sum()) - 1
            target = [int(token) for token in window.target[:length, row]]
        one = written[row]
        there = slice(None) if window.mask is None else window.mask[:, row]
        read = window.x[there, row]
        yield Answer(_at(places, row), target, one.tokens, weights=one.weights, read=read)
