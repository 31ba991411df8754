"""What a trained model gives for each step of given sequences."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnfarm.data.dataset import Dataset, open_dataset
from rnnfarm.data.examples import Examples
from rnnfarm.data.split import Split
from rnnfarm.data.window import Windows
from rnnfarm.data.writer import DatasetWriter
from rnnfarm.errors import DataError, JobError
from rnnfarm.plugins import Registry
from rnnfarm.training.answers import Answer, answers
from rnnfarm.training.run import OpenRun, limited, open_run
from rnnfarm.training.scores import middle
from rnnfarm.training.search import Search
from rnnfarm.training.setup import Model, make_windows
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
        input: instead, a file: UTF-8 text for a model of tokens, ``.npy`` ``(T, F)`` for values,
            ``.wav`` for a model of speech. Where the model answers once a sequence, a line of text
            is one.
        plot: a folder for pictures of the first answers.

    Returns:
        Rows with ``sequence``, ``start`` (the window's first step) and ``prediction``: for values
        the output of each step, for classes the likeliest class, and ``text`` where they are text.

    Raises JobError for a file that does not fit the model, DataError for one that is damaged.
    """
    opened = open_run(run, registry, checkpoint)
    whole = opened.model.goal != "steps" or opened.job.data.mode == "forecast"
    pictures = None
    if plot is not None:
        from rnnfarm.training.pictures import Pictures

        pictures = Pictures(opened, plot)
    if whole:
        rows = _answers(opened, split or "valid", input, search or Search(), pictures)
    elif input is None:
        rows = _rows(opened, opened.dataset.split(split or "valid"))
    else:
        rows = _rows_of_file(opened, input)
    return limited(rows, opened.job.training.blas_threads)


def _answers(
    opened: OpenRun, split: str, source: Path | None, search: Search, pictures: Pictures | None
) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        if source is None:
            windows: Windows = make_windows(opened.job, opened.model, opened.dataset, split)
        else:
            windows = _windows_of_file(opened, source, Path(folder))
        for one in answers(opened, windows, search, known=source is None):
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


def _windows_of_file(opened: OpenRun, path: Path, folder: Path) -> Windows:
    """Windows that hold the whole sequences of a file."""
    model, data = opened.model, opened.job.data
    if data.mode == "forecast":
        raise JobError(
            f"{path}: a forecast is made for a split of a dataset; build one from the table with "
            "'rnnfarm data build', name it in data.path of the run's job.toml, and use --split"
        )
    if model.column.kind == "tokens":
        vocabulary = opened.dataset.vocabulary(model.input)
        lines = [line for line in _text_of(opened, path).splitlines() if line.strip()]
        arrays = [vocabulary.encode(line) for line in lines] if vocabulary is not None else []
    elif path.suffix == ".wav":
        arrays = [_read_speech(opened, path)]
    else:
        arrays = [_read_values(opened, path)]
    split = _split_of(opened, arrays, folder)
    batch = min(opened.job.training.batch, split.sequences)
    return _in_order(opened, split, batch, _longest(split))


def _split_of(opened: OpenRun, arrays: Iterable[Any], folder: Path) -> Split:
    """Sequences of the model's input as a split of a dataset in ``folder``."""
    model, place = opened.model, folder / "input"
    with DatasetWriter(str(place), {model.input: model.column}) as writer:
        for array in arrays:
            writer.append("input", {model.input: array})
    return open_dataset(place).split("input")


def _longest(split: Split) -> int:
    return int(np.diff(split.starts(), append=split.steps).max())


def _in_order(opened: OpenRun, split: Split, batch: int, window: int) -> Examples:
    """The sequences of a split in order; no step of them is left out, as the input is its own
    target."""
    model = opened.model
    return Examples(
        split,
        input=model.input,
        target=model.input,
        batch=batch,
        window=window,
        seed=0,
        shuffle=False,
        dtype=opened.job.training.dtype,
        scales=model.scales,
    )


def _read_speech(opened: OpenRun, path: Path) -> Any:
    """The features of a WAV file, as the reader of the run's data makes them."""
    from rnnfarm.builtin.audio import Wav

    build = opened.job.data.build
    if build is None or build.reader != "wav":
        raise JobError(f"{path}: the model's data were not made from WAV files, so it reads .npy")
    return Wav(**build.settings).features(path)


def _rows_of_file(opened: OpenRun, path: Path) -> Iterator[dict[str, Any]]:
    tokens = opened.model.column.kind == "tokens"
    array = _read_text(opened, path) if tokens else _read_values(opened, path)
    with tempfile.TemporaryDirectory() as folder:
        yield from _rows(opened, _split_of(opened, [array], Path(folder)))


def _read_text(opened: OpenRun, path: Path) -> Any:
    text = _text_of(opened, path)
    vocabulary = opened.dataset.vocabulary(opened.model.input)
    assert vocabulary is not None
    return vocabulary.encode(text)


def _text_of(opened: OpenRun, path: Path) -> str:
    """The text of a file, or of standard input for ``-``."""
    if opened.dataset.vocabulary(opened.model.input) is None:
        raise JobError(
            f"{path}: the model's tokens have no vocabulary of text, so a text file cannot be "
            "read for it; use --split"
        )
    try:
        if str(path) == "-":
            text = sys.stdin.buffer.read().decode("utf-8-sig")
        else:
            text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise JobError(f"{path}: cannot be read ({error.strerror}); mend the path") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; convert the file") from None
    if not text.strip():
        raise JobError(f"{path}: the file is empty; give at least one token")
    return text


def _read_values(opened: OpenRun, path: Path) -> Any:
    width = opened.model.column.width
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise JobError(f"{path}: cannot be read ({error}); mend the path") from None
    except (ValueError, EOFError) as error:
        raise DataError(  # NumPy takes any other file for a pickle, and says how to open that
            f"{path}: not a NumPy .npy file of numbers, or a damaged one; write it with numpy.save"
        ) from error
    if (
        not isinstance(array, np.ndarray)
        or array.ndim != 2
        or array.shape[1] != width
        or not len(array)
    ):
        raise JobError(
            f"{path}: holds {getattr(array, 'shape', 'several arrays')}; the model reads one array "
            f"of (steps, {width}) values"
        )
    if array.dtype.kind not in "fiub":
        raise JobError(f"{path}: holds {array.dtype}; the model reads numbers")
    with np.errstate(over="ignore"):
        values = array.astype(np.float32)
    if not np.isfinite(values).all():
        step = int(np.argmin(np.isfinite(values).all(axis=1)))
        raise DataError(f"{path}: step {step} has a value that is not finite; mend the array")
    return values


def _rows(opened: OpenRun, split: Split) -> Iterator[dict[str, Any]]:
    model, training = opened.model, opened.job.training
    window = training.window
    if any(layer.bidirectional for layer in opened.job.model.layers):
        window = _longest(split)
    windows = _in_order(opened, split, 1, window)
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
