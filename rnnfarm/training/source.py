"""What a model is to answer: the sequences of a split of its dataset, or those of a file."""

from __future__ import annotations

import logging
import shutil
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
from rnnfarm.data.inputs import match_files
from rnnfarm.data.lines import numbered_lines
from rnnfarm.data.manifest import Column
from rnnfarm.data.numpy_files import load_arrays
from rnnfarm.data.observed import UnobservedEnds, counted_by
from rnnfarm.data.origin import Origin
from rnnfarm.data.reader import Reader, Sequence
from rnnfarm.data.split import Split
from rnnfarm.data.window import NEXT
from rnnfarm.data.writer import DatasetWriter
from rnnfarm.errors import DataError, JobError, RnnfarmError
from rnnfarm.plugins import Registry
from rnnfarm.small_files import irregular
from rnnfarm.training.run import OpenRun
from rnnfarm.training.run_reader import run_reader, settings_fixed
from rnnfarm.training.setup import (
    Measured,
    forecast_of,
    longest_sequence,
    measured_windows,
    reading_of,
    reads_whole,
)

log = logging.getLogger("rnnfarm")

STDIN, COPY = "standard input", "standard-input"


@dataclass(frozen=True)
class Source:
    """What is to be answered: a split of the run's dataset, or a file, or those of a glob pattern.

    ``measured``: whether the answers are compared with targets, which a file then has too.
    """

    opened: OpenRun
    registry: Registry
    split: str
    file: Path | None
    measured: bool = False

    @property
    def known(self) -> bool:
        """Whether it has what should be answered."""
        return self.measured or self.file is None

    @property
    def name(self) -> str | None:
        """What its file is called, None where it is a split."""
        return None if self.file is None else str(self.file)

    @property
    def files(self) -> list[Path]:
        """Return the files that a pattern names, the one file where it is none."""
        if self.file is None or str(self.file) == "-":
            return [] if self.file is None else [self.file]
        return match_files(str(self.file), Path()) or [self.file]

    def read(self, folder: Path) -> Split:
        """Return its sequences; those of a file as a dataset in ``folder``."""
        if self.file is None:
            return self.opened.dataset.split(self.split)
        place = folder / "input"
        columns = _columns_read(self.opened, self.measured)
        with DatasetWriter(str(place), columns, origins=True) as writer:
            for number, file in enumerate(self.files):
                pieces = _pieces_of_file(self, file, columns, folder)
                for piece in _naming(file, folder, pieces):
                    named = {n: piece.columns[n] for n in _columns_of(piece, columns)}
                    origin = piece.origin._replace(file=number)
                    writer.append("input", named, piece.continues, origin)
        return open_dataset(place, verify=False).split("input")

    def windows(self, part: Split) -> Measured:
        """Return windows over what ``read`` gave, of which answers are made."""
        opened = self.opened
        if self.known:
            return measured_windows(opened.job, opened.model, part)
        job = opened.job
        if job.data.mode != "forecast":
            return in_order(opened, part, min(job.training.batch, part.sequences))
        reading = reading_of(job, opened.model) | {"batch": min(job.training.batch, part.sequences)}
        return Forecasts(part, seed=0, shuffle=False, known=False, **forecast_of(job), **reading)


def whole_answers(opened: OpenRun) -> bool:
    """Return whether a model answers once for a sequence or a forecast, not at every step."""
    return opened.model.goal != "steps" or opened.job.data.mode == "forecast"


def _columns_read(opened: OpenRun, measured: bool) -> dict[str, Column]:
    """Return the columns that answers need: the input, that of which a forecast is made, and what
    they are measured by."""
    model, columns = opened.model, opened.dataset.columns
    names = {model.input: None}
    if measured or opened.job.data.mode == "forecast":
        names[model.target_column] = None
    observed = counted_by(columns, model.target_column)
    if measured and observed is not None:
        names[observed] = None
    return {name: columns[name] for name in names}


def _pieces_of_file(
    source: Source, path: Path, columns: Mapping[str, Column], folder: Path
) -> Iterator[Sequence]:
    """The sequences of a file, in pieces that all have the `columns`."""
    opened = source.opened
    model = opened.model
    labelled = source.measured and model.target != NEXT
    path = local_file(path, folder)
    if model.column.kind == "values" and path.suffix in (".npy", ".npz"):
        array = Sequence("input", {model.input: _read_values(opened, path)})
        _check_piece(path, array, columns, None)
        yield array
        return
    reader = run_reader(opened, source.registry)
    by_itself = reader is None or type(reader).inputs is Reader.inputs
    if model.column.kind == "tokens" and by_itself and not labelled:
        pieces = _text_by_vocabulary(opened, path, whole_answers(opened))
    elif reader is None:
        raise JobError(
            f"{path}: the run's job does not say what reader its data are from (data.build), "
            "so the model reads .npy"
        )
    else:
        reader.expect(columns)
        pieces = _pieces_by(reader, source, path.absolute())
    some = False
    ends = UnobservedEnds(counted_by(opened.dataset.columns, model.target_column))
    for piece in pieces:
        some = True
        _check_piece(path, piece, columns, reader)
        ends.add(piece)
        yield piece
    if not some:
        raise JobError(f"{path}: the file holds nothing to answer; give at least one step")
    forecast = opened.job.data.mode == "forecast" and not source.measured
    for note in [*([] if reader is None else reader.notes()), *(ends.notes() if forecast else [])]:
        log.warning("%s", _shown(f"{path}: {note}", folder))


def _naming(path: Path, folder: Path, pieces: Iterator[Sequence]) -> Iterator[Sequence]:
    """Give the pieces of a file; errors name standard input, not the copy of it."""
    try:
        yield from pieces
    except RnnfarmError as error:
        if str(path) != "-":
            raise
        raise type(error)(_shown(str(error), folder)) from None


def _shown(text: str, folder: Path) -> str:
    """Return a message in which the copy of standard input is called what it is of."""
    return text.replace(str((folder / COPY).absolute()), STDIN)


def _pieces_by(reader: Reader, source: Source, path: Path) -> Iterator[Sequence]:
    """The sequences of a file as the reader of the run's data reads it."""
    read = reader.inputs
    if source.measured:
        read = reader.inputs_with_targets
    elif source.opened.job.data.mode == "forecast":
        read = reader.inputs_to_forecast
    with settings_fixed(reader):
        yield from (Sequence(*piece) for piece in read(path))


def local_file(path: Path, folder: Path) -> Path:
    """Return a file that is there: of standard input, which ``-`` stands for, a copy in a folder.

    Raises JobError where there is none.
    """
    if str(path) == "-":
        path = folder / COPY
        with path.open("wb") as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
    elif not path.is_file():
        if path.exists() and not path.is_dir():
            raise JobError(
                f"{path}: {irregular(path.stat().st_mode)}; give a file, or - for standard input"
            )
        if path.is_dir():
            raise JobError(
                f"{path}: is a folder; name a file, or several by a pattern in quotes, as"
                f" '{path}/*.wav'"
            )
        raise JobError(f"{path}: there is no such file; correct the path")
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
    texts = numbered_lines(path) if lines else [(1, "".join(text_blocks(path)))]
    for number, text in texts:
        if text.strip():
            origin = Origin(file=0, row=number)
            yield Sequence("input", {name: vocabulary.encode(text)}, origin=origin)


def _columns_of(piece: Sequence, columns: Mapping[str, Column]) -> dict[str, Column]:
    """Return the columns that a piece has: what a sequence has of its own is in its first piece."""
    return {name: one for name, one in columns.items() if not (one.own and piece.continues)}


def _check_piece(
    path: Path, piece: Sequence, columns: Mapping[str, Column], reader: Reader | None
) -> None:
    """JobError for a piece without a column that is needed, or with too few or many values."""
    for name, column in _columns_of(piece, columns).items():
        if name not in piece.columns:
            lacks = None if reader is None else reader.lacks(name)
            what = lacks or f"has nothing for the column '{name}' of the run's data"
            raise JobError(
                f"{path}: {what}, which a forecast is made of, or answers are measured by; give all"
                " columns that the data were built from"
            )
        width = piece.columns[name].shape[1] if column.kind == "values" else None
        if width is not None and width != column.width:
            raise JobError(
                f"{path}: gives {width} values a step in the column '{name}', and the model reads "
                f"{column.width}; give the columns that the data were built from"
            )


def in_order(opened: OpenRun, split: Split, batch: int) -> Examples:
    """Return windows over the sequences of a split in order, in which no step of them is left out,
    as the input is its own target."""
    model, window = opened.model, opened.job.training.window
    if whole_answers(opened) or reads_whole(opened.job, model):
        window = longest_sequence(split)
    itself = {"target": model.input, "batch": batch, "window": window}
    reading = reading_of(opened.job, model) | itself
    return Examples(split, seed=0, shuffle=False, **reading)


def _read_values(opened: OpenRun, path: Path) -> Any:
    width = opened.model.column.width
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
