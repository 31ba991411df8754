"""What a trained model gives for each step of given sequences, or for each sequence."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnfarm.data.dataset import Dataset
from rnnfarm.data.split import Split
from rnnfarm.plugins import Registry
from rnnfarm.training.answers import Answer, answers
from rnnfarm.training.run import OpenRun, limited, open_run
from rnnfarm.training.scores import middle
from rnnfarm.training.search import Search
from rnnfarm.training.setup import Model
from rnnfarm.training.source import Source, in_order, longest
from rnnfarm.training.tbptt import Lane

if TYPE_CHECKING:
    from rnnfarm.training.pictures import Pictures


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
        Rows with ``sequence``, ``start`` (the window's first step) and ``prediction``: for values
        the output of each step, for classes the likeliest class, and ``text`` where they are text.

    Raises JobError for a file that does not fit the model, DataError for one that is damaged.
    """
    opened = open_run(run, registry, checkpoint, reads_data=input is None)
    whole = opened.model.goal != "steps" or opened.job.data.mode == "forecast"
    pictures = None
    if plot is not None:
        from rnnfarm.training.pictures import Pictures

        pictures = Pictures(opened, plot)
    source = Source(opened, registry, split or "valid", input)
    rows = _answers(source, search or Search(), pictures) if whole else _rows(source)
    return limited(rows, opened.job.training.blas_threads)


def _answers(source: Source, search: Search, pictures: Pictures | None) -> Iterator[dict[str, Any]]:
    opened = source.opened
    with tempfile.TemporaryDirectory() as folder:
        windows = source.windows(Path(folder))
        for one in answers(opened, windows, search, known=source.file is None):
            if pictures is not None:
                pictures.add(one)
            yield _answered(opened, one)


def _answered(opened: OpenRun, one: Answer) -> dict[str, Any]:
    """An answer as JSON has it."""
    model, data = opened.model, opened.job.data
    row: dict[str, Any] = {"sequence": one.sequence}
    if model.loss.loss.target_kind == "values":
        width = model.loss.targets
        shape = (data.horizon,) if data.mode == "forecast" else ()
        return row | _ranges(model, middle(model, one, width), shape)
    row["prediction"] = one.found
    vocabulary = opened.dataset.vocabulary(model.target)
    if vocabulary is not None and vocabulary.entries is not None:
        tokens = one.found if isinstance(one.found, list) else [one.found]
        joined = "" if model.goal == "labels" else " "
        row["text"] = joined.join(vocabulary.entries[token] for token in tokens)
    return row


def _rows(source: Source) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        yield from _rows_of(source.opened, source.read(Path(folder), lines=False))


def _rows_of(opened: OpenRun, split: Split) -> Iterator[dict[str, Any]]:
    model, training = opened.model, opened.job.training
    window = training.window
    if any(layer.bidirectional for layer in opened.job.model.layers):
        window = longest(split)
    windows = in_order(opened, split, 1, window)
    lane = Lane(0, slice(0, 1), model.network, model.loss)
    start = 0
    for number in range(windows.windows_in_epoch(0)):
        read = windows.read(number)
        output = lane.output(read, number, opened.parameters, training.seed, window)
        if read.reset is not None:
            start = 0
        row = {"sequence": int(windows.examples(number)[0]), "start": start}
        yield row | _described(opened, output[:, 0])
        start += len(read.x)


def unscaled(model: Model, values: Any) -> Any:
    """Values (…, W) of the target as they were before they were scaled."""
    scale = model.scales.get(model.input if model.target == "next" else model.target)
    if scale is None or values.shape[-1] != len(scale.mean):
        return values
    return scale.undo(values)


def _ranges(model: Model, parts: Iterable[Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """What is said of values, and the ends of its interval where there is one, as JSON has it."""
    return {
        name: unscaled(model, values.astype(float).reshape(*shape, -1)).tolist()
        for name, values in zip(("prediction", "low", "high"), parts, strict=True)
        if values is not None
    }


def _described(opened: OpenRun, output: Any) -> dict[str, Any]:
    """A window's output ``(T, O)`` as JSON has it."""
    model = opened.model
    if model.loss.loss.target_kind == "values":
        return _ranges(
            model, model.loss.loss.interval(output, model.loss.targets), output.shape[:1]
        )
    classes = output.argmax(-1)
    row: dict[str, Any] = {"prediction": classes.tolist()}
    dataset: Dataset = opened.dataset
    vocabulary = dataset.vocabulary(model.input if model.target == "next" else model.target)
    if vocabulary is not None:
        row["text"] = vocabulary.decode(classes)
    return row
