"""What a model is to answer: the sequences of a split of its dataset, or those of a file."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rnnfarm.data.blocks import text_blocks
from rnnfarm.data.dataset import open_dataset
from rnnfarm.data.examples import Examples
from rnnfarm.data.forecasts import Forecasts
from rnnfarm.data.lines import numbered_lines
from rnnfarm.data.manifest import Column
from rnnfarm.data.numpy_files import load_arrays
from rnnfarm.data.reader import Reader, Sequence
from rnnfarm.data.split import Split
from rnnfarm.data.window import NEXT, Windows
from rnnfarm.data.writer import DatasetWriter
from rnnfarm.errors import DataError, JobError
from rnnfarm.plugins import Registry
from rnnfarm.training.run import OpenRun
from rnnfarm.training.run_reader import run_reader
from rnnfarm.training.setup import forecast_of, make_windows, reading_of

log = logging.getLogger("rnnfarm")


@dataclass(frozen=True)
class Source:
    """What is to be answered: a split of the run's dataset, or a file."""

    opened: OpenRun
    registry: Registry
    split: str
    file: Path | None

    def read(self, folder: Path, *, lines: bool) -> Split:
        """Its sequences; those of a file as a dataset in ``folder``, of a text each of its lines
        where there are to be ``lines``."""
        if self.file is None:
            return self.opened.dataset.split(self.split)
        place = folder / "input"
        columns = _columns_read(self.opened)
        with DatasetWriter(str(place), columns, origins=True) as writer:
            for piece in _pieces_of_file(self, self.file, folder, lines):
                _check_piece(self.file, piece, columns)
                named = {name: piece.columns[name] for name in columns}
                writer.append("input", named, piece.continues, piece.origin)
        return open_dataset(place).split("input")

    def windows(self, folder: Path) -> Windows:
        """Windows of which answers for whole sequences are made, or forecasts."""
        if self.file is None:
            return make_windows(self.opened.job, self.opened.model, self.opened.dataset, self.split)
        return _windows_of(self.opened, self.read(folder, lines=True))


def _columns_read(opened: OpenRun) -> dict[str, Column]:
    """The columns that answers need: the input, and that of which a forecast is made."""
    model = opened.model
    columns = {model.input: model.column}
    if opened.job.data.mode == "forecast" and model.target != NEXT:
        columns[model.target] = opened.dataset.columns[model.target]
    return columns


def _windows_of(opened: OpenRun, split: Split) -> Windows:
    """Windows that hold whole sequences, or the ends of those that a forecast is made of."""
    job = opened.job
    batch = min(job.training.batch, split.sequences)
    if job.data.mode != "forecast":
        return in_order(opened, split, batch, longest(split))
    reading = reading_of(job, opened.model) | {"batch": batch}
    return Forecasts(split, seed=0, shuffle=False, known=False, **forecast_of(job), **reading)


def _pieces_of_file(source: Source, path: Path, folder: Path, lines: bool) -> Iterator[Sequence]:
    """The sequences of a file, in pieces."""
    opened = source.opened
    model = opened.model
    path = local_file(path, folder)
    if model.column.kind == "values" and path.suffix in (".npy", ".npz"):
        yield Sequence("input", {model.input: _read_values(opened, path)})
        return
    reader = run_reader(opened, source.registry)
    if model.column.kind == "tokens" and (reader is None or type(reader).inputs is Reader.inputs):
        pieces = _text_by_vocabulary(opened, path, lines)
    elif reader is None:
        raise JobError(
            f"{path}: the run's job does not say what reader its data are from (data.build), "
            "so the model reads .npy"
        )
    else:
        pieces = (Sequence(*piece) for piece in reader.inputs(path.absolute()))
    some = False
    for piece in pieces:
        some = True
        yield piece
    if not some:
        raise JobError(f"{path}: the file holds nothing to answer; give at least one step")
    for note in [] if reader is None else reader.notes():
        log.warning("%s: %s", path, note)


def local_file(path: Path, folder: Path) -> Path:
    """Return a file that is there: of standard input, which ``-`` stands for, a copy in a folder.

    Raises JobError where there is none.
    """
    if str(path) == "-":
        path = folder / "standard-input"
        path.write_bytes(sys.stdin.buffer.read())
    elif not path.is_file():
        what = "is a folder" if path.is_dir() else "there is no such file"
        raise JobError(f"{path}: {what}; correct the path")
    return path


def _text_by_vocabulary(opened: OpenRun, path: Path, lines: bool) -> Iterator[Sequence]:
    """The text of a file, or each of its lines, where no reader says how text is read."""
    name = opened.model.input
    vocabulary = opened.dataset.vocabulary(name)
    if vocabulary is None:
        raise JobError(
            f"{path}: the model's tokens have no vocabulary of text, so a text file cannot be "
            "read for it; use --split"
        )
    texts = (line for _, line in numbered_lines(path)) if lines else ["".join(text_blocks(path))]
    for text in texts:
        if text.strip():
            yield Sequence("input", {name: vocabulary.encode(text)})


def _check_piece(path: Path, piece: Sequence, columns: Mapping[str, Column]) -> None:
    for name, column in columns.items():
        if name not in piece.columns:
            raise JobError(
                f"{path}: has nothing for the column '{name}' of the run's data, which a forecast "
                "is made of; give all columns that the data were built from"
            )
        width = piece.columns[name].shape[1] if column.kind == "values" else None
        if width is not None and width != column.width:
            raise JobError(
                f"{path}: gives {width} values a step in the column '{name}', and the model reads "
                f"{column.width}; give the columns that the data were built from"
            )


def longest(split: Split) -> int:
    return int(np.diff(split.starts(), append=split.steps).max())


def in_order(opened: OpenRun, split: Split, batch: int, window: int) -> Examples:
    """The sequences of a split in order; no step of them is left out, as the input is its own
    target."""
    itself = {"target": opened.model.input, "batch": batch, "window": window}
    reading = reading_of(opened.job, opened.model) | itself
    return Examples(split, seed=0, shuffle=False, **reading)


def _read_values(opened: OpenRun, path: Path) -> Any:
    width = opened.model.column.width
    if not path.is_file():
        raise JobError(f"{path}: there is no such file; correct the path")
    loaded = load_arrays(path, mmap_mode=None)
    array = loaded.get("", np.empty(0))
    if array.ndim != 2 or array.shape[1] != width or not len(array):
        held = array.shape if "" in loaded else f"arrays ({', '.join(loaded)})"
        raise JobError(
            f"{path}: holds {held}; the model reads one array of (steps, {width}) values"
        )
    if array.dtype.kind not in "fiub":
        raise JobError(f"{path}: holds {array.dtype}; the model reads numbers")
    with np.errstate(over="ignore"):
        values = array.astype(np.float32)
    if not np.isfinite(values).all():
        step = int(np.argmin(np.isfinite(values).all(axis=1)))
        raise DataError(f"{path}: step {step} has a value that is not finite; mend the array")
    return values
