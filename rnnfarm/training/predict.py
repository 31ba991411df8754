"""What a trained model gives for each step of given sequences, or for each sequence."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnfarm.data.split import Split
from rnnfarm.plugins import Registry
from rnnfarm.training.answers import answers, outputs
from rnnfarm.training.described import Describer
from rnnfarm.training.run import OpenRun, limited, open_run
from rnnfarm.training.search import Search
from rnnfarm.training.source import Source, in_order, whole_answers

if TYPE_CHECKING:
    from rnnfarm.training.pictures import Pictures

log = logging.getLogger("rnnfarm")


def predict(
    run: Path,
    registry: Registry,
    *,
    split: str | None = None,
    input: Path | None = None,
    checkpoint: str | None = None,
    search: Search | None = None,
    plot: Path | None = None,
) -> Iterator[dict[str, Any]]:
    """One row for every window of every sequence, in order, or one for every sequence.

    Args:
        split: a split of the run's dataset.
        input: instead, a file, or ``-`` for what standard input has: UTF-8 text for a model of
            tokens; for one of values ``.npy`` ``(T, F)``, or what the reader of the run's data
            reads, as a table or WAV. Where the model answers once a sequence, a line of text is
            one. Of a table a forecast is made of what comes after its end.
        plot: a folder for pictures of the first answers.

    Returns:
        Rows with ``sequence`` (its number), ``start`` (the step of it at which what is answered
        begins; none of an answer for a whole sequence) and ``prediction``: for values those of each
        step, in the order of ``columns``, for classes the likeliest class, and ``text`` where they
        are text. Classes have ``probabilities`` by name, of more than 20 those of the likeliest.
        ``name``, ``file`` (of a split) and ``row`` say where the sequence is from, where that is
        known, and
        ``truth`` is what should have been answered, where that is.

    Raises JobError for a file that does not fit the model, DataError for one that is damaged.
    """
    opened = open_run(run, registry, checkpoint, reads_data=input is None)
    pictures = None
    if plot is not None:
        from rnnfarm.training.pictures import Pictures

        pictures = Pictures(opened, plot)
    source = Source(opened, registry, split or "valid", input)
    rows = _rows(source, search or Search(), pictures)
    return limited(rows, opened.job.training.blas_threads)


def _rows(source: Source, search: Search, pictures: Pictures | None) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        part = source.read(Path(folder))
        yield from _answered(source, part, search, pictures)
        part.confirm_whole()


def _answered(
    source: Source, part: Split, search: Search, pictures: Pictures | None
) -> Iterator[dict[str, Any]]:
    """Give the rows of a split, or of a file as ``Source.read`` gives it."""
    describer = Describer(source, part)
    if not whole_answers(source.opened):
        yield from _steps(source.opened, part, describer)
        return
    windows = source.windows(part)
    for sentence in windows.left_out().sentences(part):
        log.warning("%s", sentence)
    for one in answers(source.opened, windows, search, known=source.known):
        if pictures is not None:
            pictures.add(one)
        yield describer.answer(one)


def _steps(opened: OpenRun, part: Split, describer: Describer) -> Iterator[dict[str, Any]]:
    """Give a row for each window of each sequence, in order."""
    windows = in_order(opened, part, 1)
    for number, _, output in outputs(opened, windows):
        (place,) = windows.places(number)
        assert place is not None
        yield describer.steps(place, output[:, 0])
