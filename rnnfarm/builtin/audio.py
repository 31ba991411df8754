"""The reader of sound files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from rnnfarm.builtin.audio_files import (
    LabelledFile,
    label_by_folder,
    label_by_name,
    label_by_table,
    split_files,
)
from rnnfarm.builtin.labels import LABEL, in_order
from rnnfarm.data.audio import LogMel
from rnnfarm.data.inputs import FilePattern
from rnnfarm.data.lines import leave_something
from rnnfarm.data.manifest import Column
from rnnfarm.data.reader import Reader, Sequence
from rnnfarm.data.sound import read_sound, resample
from rnnfarm.data.vocabulary import Vocabulary
from rnnfarm.errors import DataError, JobError, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

FEATURES = "features"
LETTERS = "letters"
BLANK = "<blank>"
PATTERN = "(?P<label>[^_]+)_.*"

Held = Annotated[
    Annotated[float, Field(ge=0, lt=1)] | dict[str, list[str]],
    Field(description='a number from 0 to below 1, or a table such as { speaker = ["ann"] }'),
]


class _File(NamedTuple):
    path: Path
    split: str
    label: str


class Wav(Reader):
    """Sound files, an utterance each, as log-mel features.

    WAV files of PCM or floats; FLAC, Ogg, MP3 and others with `pip install 'rnnfarm[audio]'`.

    files: the files, by glob patterns; labels: where the labels are: in the names of the files
    (name), or those of the folders in which they lie (folder); table: instead, a CSV file with the
    columns `file` and `label`, and others that the splits go by; pattern: a regular expression of a
    file's name without its ending, with the group `(?P<label>…)` where labels are in names, and
    others that the splits go by.

    valid, test: the part of the files for validation and test, from 0 to 1, as a hash of the name
    decides, or the values of groups that files for it have, as { speaker = ["ann", "bob"] }: groups
    of `pattern`, columns of `table`, and `folder`, any of those in which a file lies; stratified:
    whether every label gives its part.

    spell: how each label is spelled, as { "0" = "zero" }, for the column `letters`, whose entry 0
    is the blank of CTC.

    rate: samples a second to which every file is brought (`pip install 'rnnfarm[audio]'`), where
    they have not all the same; window: the length of a window in milliseconds; step: milliseconds
    from one window to the next; mels: the number of filters; emphasis: how much of each sample is
    taken from the next, which lifts high frequencies; floor: the least power; deltas: orders of
    change over time that are appended; normalise: mean 0 and deviation 1 for each value of an
    utterance.
    """

    files: list[FilePattern]
    labels: Literal["name", "folder"] = "name"
    table: FilePattern | None = None
    pattern: str = PATTERN
    valid: Held = 0.1
    test: Held = 0.0
    stratified: bool = False
    spell: dict[str, Annotated[str, Field(min_length=1)]] = {}
    rate: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    window: Annotated[float, Field(gt=0, le=1000)] = 25.0
    step: Annotated[float, Field(gt=0, le=1000)] = 10.0
    mels: Annotated[int, Field(ge=1, le=1000)] = 40
    emphasis: Annotated[float, Field(ge=0, lt=1)] = 0.97
    floor: Annotated[float, Field(gt=0)] = 1e-10
    deltas: Annotated[int, Field(ge=0, le=2)] = 0
    normalise: bool = True

    def columns(self) -> dict[str, Column]:
        """`features`, and the own columns `label` and, with `spell`, `letters`."""
        self._remarks: list[str] = []
        self._files = self._sort()
        self._labels = Vocabulary("word", in_order({file.label for file in self._files}))
        self._check_spelling()
        letters = sorted(set("".join(self.spell.values())))
        self._letters = Vocabulary("character", [BLANK, *letters])
        first = self._files[0].path
        self._of_rate(self.rate or read_sound(first)[1], f"where {first} has")
        self._mel.filters  # noqa: B018  (refuses what cannot be, before anything is read)
        columns = {
            FEATURES: Column.values(self._mel.width),
            LABEL: Column.tokens(self._labels.size, own=True),
        }
        if self.spell:
            columns[LETTERS] = Column.tokens(self._letters.size, own=True)
        return columns

    def vocabularies(self) -> dict[str, Vocabulary]:
        """The labels, and with `spell` the letters after the blank."""
        found = {LABEL: self._labels}
        return found | {LETTERS: self._letters} if self.spell else found

    def sequences(self) -> Iterator[Sequence]:
        """A sequence a file."""
        for path, split, label in self._files:
            columns = {FEATURES: self._features(path), **self._own_columns(label)}
            yield Sequence(split, columns, origin=self.origin(path))

    def learned(self) -> dict[str, Any]:
        """The rate of the sound."""
        return {"rate": self._mel.rate}

    def notes(self) -> list[str]:
        """Say which files were left out."""
        return [*super().notes(), *self._remarks]

    def recall(self, learned: Mapping[str, Any], vocabularies: Mapping[str, Vocabulary]) -> None:
        """Take the rate, the labels and the letters of an earlier build."""
        super().recall(learned, vocabularies)
        self._labels = vocabularies[LABEL]
        self._letters = vocabularies.get(LETTERS, self._labels)
        self._remarks = []
        self._known_rate: int | None = learned.get("rate")
        if not isinstance(self._known_rate, int | None):
            raise ValueError(f"the rate is {self._known_rate!r}")

    def inputs(self, path: Path) -> Iterator[Sequence]:
        """The features of one file, whatever its name."""
        rate = self._known_rate or self.rate
        if rate is None:
            rate = read_sound(path)[1]
            self._remarks.append(
                f"is taken to have the rate of the data, {rate} Hz, which the dataset does not say"
            )
        self._of_rate(rate, "where the data have")
        yield Sequence("input", {FEATURES: self._features(path)}, origin=self.origin(path))

    def inputs_with_targets(self, path: Path) -> Iterator[Sequence]:
        """The features of one file, and its label, as the files of the build have theirs."""
        (file,), _ = self._label([path])
        place = self._labels.index.get(file.label)
        if place is None:
            raise DataError(
                f"{path}: no file of the data has its label '{file.label}'; correct it"
                f" ({suggestion(file.label, self._labels.index)})"
            )
        for piece in self.inputs(path):
            own = self._own_columns(file.label)
            yield piece._replace(columns={**piece.columns, **own})

    def _own_columns(self, label: str) -> dict[str, npt.NDArray[np.int32]]:
        """The label, and its letters where labels are spelled."""
        columns = {LABEL: np.array([self._labels.index[label]], np.int32)}
        if self.spell:
            columns[LETTERS] = self._letters.encode_characters(self.spell[label])
        return columns

    def _of_rate(self, rate: int, whose: str) -> None:
        names = ("window", "step", "mels", "emphasis", "floor", "deltas", "normalise")
        self._mel = LogMel(rate, **{name: getattr(self, name) for name in names})
        self._whose = whose

    def _features(self, path: Path) -> npt.NDArray[np.float32]:
        samples, rate = read_sound(path)
        wanted = self._mel.rate
        if rate != wanted and self.rate is None:
            raise DataError(
                f"{path}: has {rate} samples a second {self._whose} {wanted}; convert it to that"
                f" rate, or build the data with rate = {wanted}, which brings every file to it"
            )
        return self._mel(resample(samples, rate, wanted))

    def _sort(self) -> list[_File]:
        """The files with their labels, and the splits they belong to."""
        found, self._remarks = self._label(self.find_files(self.files, "files"))
        if not found:
            raise DataError("setting 'files': all files are empty; give files that hold data")
        splits = split_files(found, {"test": self.test, "valid": self.valid}, self.stratified)
        return [
            _File(file.path, split, file.label) for file, split in zip(found, splits, strict=True)
        ]

    def _label(self, paths: list[Path]) -> tuple[list[LabelledFile], list[str]]:
        """The files that have labels, and what is to be said of the others."""
        pattern = self._pattern()
        if self.table is not None:
            (table,) = self.find_files([self.table], "table")
            return label_by_table(paths, self.base, pattern, table)
        if self.labels == "folder":
            return label_by_folder(paths, self.base, pattern), []
        assert pattern is not None
        return label_by_name(paths, self.base, pattern), []

    def _pattern(self) -> re.Pattern[str] | None:
        """What file names have to fit; None where the labels are elsewhere and none is given."""
        if isinstance(self.valid, float) and isinstance(self.test, float):
            leave_something(self.valid, self.test)
        in_names = self.table is None and self.labels == "name"
        if self.pattern == PATTERN and not in_names:
            return None
        try:
            pattern = re.compile(self.pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise JobError(
                f"setting 'pattern': is no regular expression ({error}); correct it"
            ) from None
        if in_names and "label" not in pattern.groupindex:
            raise JobError("setting 'pattern': has no group (?P<label>…); name one so")
        return pattern

    def _check_spelling(self) -> None:
        for file in self._files if self.spell else ():
            if file.label not in self.spell:
                raise JobError(
                    f"setting 'spell': does not say how the label '{file.label}' of {file.path} is"
                    " spelled; add it"
                )
