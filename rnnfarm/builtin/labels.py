"""The reader of texts with a label each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from rnnfarm.data.inputs import FilePattern
from rnnfarm.data.lines import Counts, leave_something, numbered_lines, split_by_hash
from rnnfarm.data.manifest import Column
from rnnfarm.data.reader import Reader, Sequence
from rnnfarm.data.text import TOKENS
from rnnfarm.data.vocabulary import UNKNOWN, Vocabulary
from rnnfarm.errors import DataError, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

LABEL = "label"
MOST_LABELS = 10_000


class LabelledText(Reader):
    """UTF-8 text with an example a line: a label and a text.

    files: the files, by glob patterns; valid_files, test_files: those for validation and test, or
    valid, test: the parts of the lines of `files` for them, from 0 to 1, as a hash of the text
    decides, so that equal texts lie in one part; label: whether it stands first or last in its
    line; separator: what is between it and the text, `space` for any white space, or `tab`.
    unit: what a token is; lower: in lower case; least: words and characters that occur more rarely
    become `<unk>`; most: at most so many entries, the most frequent ones. Both are counted in the
    training part. Blank lines are left out.
    """

    files: list[FilePattern]
    valid_files: list[FilePattern] = []
    test_files: list[FilePattern] = []
    valid: Annotated[float, Field(ge=0, lt=1)] = 0.1
    test: Annotated[float, Field(ge=0, lt=1)] = 0.0
    label: Literal["first", "last"] = "first"
    separator: Literal["space", "tab"] = "space"
    unit: Literal["words", "characters", "bytes"] = "words"
    lower: bool = False
    least: Annotated[int, Field(ge=1)] = 1
    most: Annotated[int, Field(ge=2)] = 50_000

    def columns(self) -> dict[str, Column]:
        """`tokens`, and the own column `label`; a first pass over `files`."""
        self._valid = 0.0 if self.valid_files else self.valid
        self._test = 0.0 if self.test_files else self.test
        leave_something(self._valid, self._test)
        self._held = {
            "valid": self.find_files(self.valid_files, "valid_files"),
            "test": self.find_files(self.test_files, "test_files"),
        }
        held = {path for paths in self._held.values() for path in paths}
        found = self.find_files(self.files, "files")
        self._train = [path for path in found if path not in held]
        self._learn()
        return {
            TOKENS: Column.tokens(self._tokens.size),
            LABEL: Column.tokens(self._labels.size, own=True),
        }

    def vocabularies(self) -> dict[str, Vocabulary]:
        """The units of the text, and the labels in order."""
        return {TOKENS: self._tokens, LABEL: self._labels}

    def sequences(self) -> Iterator[Sequence]:
        """A sequence a line."""
        for path in self._train:
            for number, label, text in self._examples(path):
                yield self._sequence(self._split(text), path, number, label, text)
        for split, paths in self._held.items():
            for path in paths:
                for number, label, text in self._examples(path):
                    yield self._sequence(split, path, number, label, text)

    def _sequence(self, split: str, path: Path, number: int, label: str, text: str) -> Sequence:
        place = self._labels.index.get(label)
        if place is None:
            raise DataError(
                f"{path}, line {number}: no line of 'files' has the label '{label}'; mend it"
                f" ({suggestion(label, self._labels.index)})"
            )
        return Sequence(split, {TOKENS: self._encode(text), LABEL: np.array([place], np.int32)})

    def _learn(self) -> None:
        """The vocabularies."""
        labels: set[str] = set()
        counts = Counts()
        for path in self._train:
            for number, label, text in self._examples(path):
                labels.add(label)
                if len(labels) > MOST_LABELS:
                    raise DataError(
                        f"{path}, line {number}: there are more than {MOST_LABELS:,} labels, of"
                        f" which '{label}' is one; mend the setting 'label' or 'separator'"
                    )
                if self.unit != "bytes" and self._split(text) == "train":
                    counts.add(text.split() if self.unit == "words" else text)
        if not labels:
            raise DataError("setting 'files': no file holds a line; give files that hold data")
        self._labels = Vocabulary("word", in_order(labels))
        entries = counts.entries([UNKNOWN], self.least, self.most)
        if self.unit == "bytes":
            self._tokens = Vocabulary("byte")
        else:
            self._tokens = Vocabulary("word" if self.unit == "words" else "character", entries)

    def _split(self, text: str) -> str:
        return split_by_hash(text, self._valid, self._test)

    def _encode(self, text: str) -> npt.NDArray[Any]:
        return (
            self._tokens.encode_words(text.split())
            if self.unit == "words"
            else (self._tokens.encode(text))
        )

    def _examples(self, path: Path) -> Iterator[tuple[int, str, str]]:
        """The number, the label and the text of each line."""
        for number, line in numbered_lines(path):
            if not line.strip():
                continue
            label, text = self._parts(line)
            if not label or not text:
                what = "tab" if self.separator == "tab" else "space"
                raise DataError(
                    f"{path}, line {number}: has no {what} between a label and a text; mend the"
                    " line, or the setting 'separator'"
                )
            yield number, label, text.lower() if self.lower else text

    def _parts(self, line: str) -> tuple[str, str]:
        """The label and the text of a line; empty where there is none."""
        if self.separator == "tab":
            parts = line.split("\t", 1) if self.label == "first" else line.rsplit("\t", 1)
        else:
            parts = line.split(None, 1) if self.label == "first" else line.rsplit(None, 1)
        if len(parts) < 2:
            return "", ""
        label, text = parts if self.label == "first" else reversed(parts)
        return label.strip(), text.strip()


def in_order(labels: set[str]) -> list[str]:
    """Labels in the order of their text, or of their numbers where all are whole numbers."""
    if all(label.isdecimal() for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)
