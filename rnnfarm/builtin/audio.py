"""The reader of WAV files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
from pydantic import Field

from rnnfarm.builtin.labels import LABEL, in_order
from rnnfarm.data.audio import LogMel, read_wav
from rnnfarm.data.inputs import FilePattern
from rnnfarm.data.lines import leave_something, share
from rnnfarm.data.manifest import Column
from rnnfarm.data.reader import Reader, Sequence
from rnnfarm.data.vocabulary import Vocabulary
from rnnfarm.errors import DataError, JobError, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


FEATURES = "features"
LETTERS = "letters"
BLANK = "<blank>"

Held = Annotated[
    Annotated[float, Field(ge=0, lt=1)] | dict[str, list[str]],
    Field(description='a number from 0 to below 1, or a table such as { speaker = ["ann"] }'),
]


class _File(NamedTuple):
    path: Path
    split: str
    label: str


class Wav(Reader):
    """WAV files, an utterance each, as log-mel features.

    files: the files, by glob patterns; pattern: a regular expression of a file's name without
    `.wav`, with the group `(?P<label>…)` and others that the splits go by; valid, test: the part
    of the files for validation and test, from 0 to 1, as a hash of the name decides, or the values
    of groups that files for it have, as { speaker = ["ann", "bob"] }.
    spell: how each label is spelled, as { "0" = "zero" }, for the column `letters`, whose entry 0
    is the blank of CTC.
    window, step: in milliseconds; mels: the number of filters; emphasis: of high frequencies;
    floor: the least power; deltas: orders of change over time that are appended; normalise: mean 0
    and deviation 1 for each figure of an utterance.
    """

    files: list[FilePattern]
    pattern: str = "(?P<label>[^_]+)_.*"
    valid: Held = 0.1
    test: Held = 0.0
    spell: dict[str, Annotated[str, Field(min_length=1)]] = {}
    window: Annotated[float, Field(gt=0, le=1000)] = 25.0
    step: Annotated[float, Field(gt=0, le=1000)] = 10.0
    mels: Annotated[int, Field(ge=1, le=1000)] = 40
    emphasis: Annotated[float, Field(ge=0, lt=1)] = 0.97
    floor: Annotated[float, Field(gt=0)] = 1e-10
    deltas: Annotated[int, Field(ge=0, le=2)] = 0
    normalise: bool = True

    def columns(self) -> dict[str, Column]:
        """`features`, and the own columns `label` and, with `spell`, `letters`."""
        self._files = self._sort()
        self._labels = Vocabulary("word", in_order({file.label for file in self._files}))
        self._check_spelling()
        letters = sorted(set("".join(self.spell.values())))
        self._letters = Vocabulary("character", [BLANK, *letters])
        first = self._files[0].path
        self._mel = self._features(read_wav(first)[1])
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
            samples, rate = read_wav(path)
            if rate != self._mel.rate:
                raise DataError(
                    f"{path}: has {rate} samples a second where {self._files[0].path} has"
                    f" {self._mel.rate}; convert it to that rate"
                )
            figures = {
                FEATURES: self._mel(samples),
                LABEL: np.array([self._labels.index[label]], np.int32),
            }
            if self.spell:
                figures[LETTERS] = self._letters.encode_characters(self.spell[label])
            yield Sequence(split, figures)

    def inputs(self, path: Path) -> Iterator[Sequence]:
        """The features of one file, whatever its name."""
        samples, rate = read_wav(path)
        yield Sequence("input", {FEATURES: self._features(rate)(samples)})

    def _features(self, rate: int) -> LogMel:
        names = ("window", "step", "mels", "emphasis", "floor", "deltas", "normalise")
        return LogMel(rate, **{name: getattr(self, name) for name in names})

    def _sort(self) -> list[_File]:
        """The files with their labels, and the splits they belong to."""
        pattern = self._pattern()
        met: dict[str, set[str]] = {group: set() for group in pattern.groupindex}
        found = []
        for path in self.find_files(self.files, "files"):
            match = pattern.fullmatch(path.stem)
            if match is None or not match["label"]:
                raise DataError(
                    f"{path}: its name does not fit the setting 'pattern' ({self.pattern}); mend"
                    " the pattern, or leave the file out of 'files'"
                )
            groups = match.groupdict(default="")
            for group, value in groups.items():
                met[group].add(value)
            found.append(_File(path, self._split(path.stem, groups), match["label"]))
        if not found:
            raise DataError("setting 'files': all files are empty; give files that hold data")
        self._check_rules(met)
        return found

    def _pattern(self) -> re.Pattern[str]:
        try:
            pattern = re.compile(self.pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise JobError(
                f"setting 'pattern': is no regular expression ({error}); mend it"
            ) from None
        if "label" not in pattern.groupindex:
            raise JobError("setting 'pattern': has no group (?P<label>…); name one so")
        if isinstance(self.valid, float) and isinstance(self.test, float):
            leave_something(self.valid, self.test)
        return pattern

    def _split(self, name: str, groups: dict[str, str]) -> str:
        place = share(name)
        for split, rule in (("test", self.test), ("valid", self.valid)):
            if isinstance(rule, dict):
                if rule and all(groups.get(group) in values for group, values in rule.items()):
                    return split
            elif place < rule:
                return split
            else:
                place -= rule
        return "train"

    def _check_rules(self, met: dict[str, set[str]]) -> None:
        """JobError where a rule names a group or a value that there is not."""
        for setting, rule in (("valid", self.valid), ("test", self.test)):
            for group, values in rule.items() if isinstance(rule, dict) else ():
                if group not in met:
                    raise JobError(
                        f"setting '{setting}': 'pattern' has no group '{group}';"
                        f" {suggestion(group, met)}"
                    )
                for value in values:
                    if value not in met[group]:
                        raise JobError(
                            f"setting '{setting}': no file has '{value}' as its {group};"
                            f" {suggestion(value, met[group])}"
                        )

    def _check_spelling(self) -> None:
        for file in self._files if self.spell else ():
            if file.label not in self.spell:
                raise JobError(
                    f"setting 'spell': does not say how the label '{file.label}' of {file.path} is"
                    " spelled; add it"
                )
