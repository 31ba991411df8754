"""The reader of texts with a label each."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from rnnfarm.builtin.label_hints import LabelHints, header_notes
from rnnfarm.data.held_out import SplitReader
from rnnfarm.data.lines import Counts, LineTokens, blank_lines, numbered_lines, split_by_hash
from rnnfarm.data.manifest import Column
from rnnfarm.data.reader import Sequence
from rnnfarm.data.text import TOKENS
from rnnfarm.data.unknown import INPUT, UnknownCounts
from rnnfarm.data.vocabulary import UNKNOWN, Vocabulary
from rnnfarm.errors import DataError, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

LABEL = "label"
MOST_LABELS = 10_000


class _Example(NamedTuple):
    """A line: its number, its label, and its text, clean."""

    line: int
    label: str
    text: str


class LabelledText(SplitReader):
    """UTF-8 text with an example a line: a label and a text.

    files: the files, by glob patterns; valid_files, test_files: those for validation and test, or
    valid, test: the parts of the lines of `files` for them, from 0 to 1, as a hash of the text
    decides, so that equal texts lie in one part; label: whether it stands first or last in its
    line; separator: what is between it and the text, `space` for any white space, or `tab`;
    header: whether the first line of every file names the two, and is left out.

    unit: what a token is; lower: in lower case; least: words and characters that occur more rarely
    become `<unk>`; most: at most so many entries, the most frequent ones.

    Both are counted in the training part. Blank lines are left out, and white space around a text.
    """

    label: Literal["first", "last"] = "first"
    separator: Literal["space", "tab"] = "space"
    header: bool = False
    unit: Literal["words", "characters", "bytes"] = "words"
    lower: bool = False
    least: Annotated[int, Field(ge=1)] = 1
    most: Annotated[int, Field(ge=2)] = 50_000

    def columns(self) -> dict[str, Column]:
        """`tokens`, and the own column `label`; a first pass over `files`."""
        self._held = self._find_held_out()
        self._header: str | None = None
        self._hints = LabelHints(self.header)
        self._trained = Counter[str]()  # how many lines of the training part each label has
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
        for split, paths in self._held.files.items():
            for path in paths:
                for example in self._examples(path):
                    part = self._split(example.text) if split == "train" else split
                    yield self._sequence(part, path, example)

    def learned(self) -> dict[str, Any]:
        """What the header calls the text."""
        return {} if self._header is None else {"header": self._header}

    def notes(self) -> list[str]:
        """Say what is not in the vocabulary, what was left out, and what looks wrong."""
        notes = [*super().notes(), *self._unknown.notes(), *blank_lines(self._blank)]
        return notes + self._remarks + header_notes(self._headers, self._labels.index)

    def recall(self, learned: Mapping[str, Any], vocabularies: Mapping[str, Vocabulary]) -> None:
        """Take the vocabularies of an earlier build, and what its header called the text."""
        super().recall(learned, vocabularies)
        self._header = learned.get("header")
        if not isinstance(self._header, str | None):
            raise ValueError(f"the header is {self._header!r}")
        self._begin(vocabularies[TOKENS], vocabularies[LABEL])

    def inputs(self, path: Path) -> Iterator[Sequence]:
        """A sequence a line of a file of texts without labels."""
        lines = labelled = 0
        for number, line in self._lines(path):
            if line.strip() == self._header:
                self._remarks.append(f"left out line {number}, as the header of the build")
                continue
            lines += 1
            label, _ = self._parts(line)
            if label in self._labels.index:
                labelled += 1
                if self.separator == "tab":
                    raise DataError(
                        f"{path}, line {number}: has the label '{label}' beside a tab, and a"
                        " prediction is made of a text alone; take the labels away"
                    )
            tokens = self._encode(INPUT, self._rules.clean(line))
            yield Sequence(INPUT, {TOKENS: tokens}, origin=self.origin(path, number))
        if 1 < lines == labelled:
            self._remarks.append(
                f"every line has a label {self.label}, which is read as a part of its text; take"
                " the labels away"
            )

    def inputs_with_targets(self, path: Path) -> Iterator[Sequence]:
        """A sequence a line of a file of labels and texts."""
        for example in self._examples(path):
            yield self._sequence(INPUT, path, example)

    def encode(self, text: str) -> npt.NDArray[Any]:
        """Return the tokens of a text, as those of a line."""
        return self._encode(INPUT, self._rules.clean(text))

    @property
    def _rules(self) -> LineTokens:
        return LineTokens(self.unit, self.lower)

    def _begin(self, tokens: Vocabulary, labels: Vocabulary) -> None:
        self._tokens, self._labels = tokens, labels
        self._unknown = UnknownCounts(tokens)
        self._blank = 0
        self._headers: list[tuple[Path, int, str]] = []
        self._remarks: list[str] = []

    def _sequence(self, split: str, path: Path, example: _Example) -> Sequence:
        place = self._labels.index.get(example.label)
        if place is None:
            raise DataError(
                f"{path}, line {example.line}: no line of 'files' has the label '{example.label}';"
                f" correct it ({suggestion(example.label, self._labels.index)})"
            )
        tokens = self._encode(split, example.text)
        label = np.array([place], np.int32)
        origin = self.origin(path, example.line)
        return Sequence(split, {TOKENS: tokens, LABEL: label}, origin=origin)

    def _encode(self, split: str, clean: str) -> npt.NDArray[Any]:
        tokens = self._rules.encode(clean, self._tokens)
        self._unknown.add(split, tokens)
        return tokens

    def _learn(self) -> None:
        """The vocabularies."""
        labels = Counter[str]()
        counts, rules = Counts(), self._rules
        self._begin(Vocabulary("byte"), Vocabulary("word", []))
        for path in self._held.files["train"]:
            for number, label, text in self._examples(path):
                labels[label] += 1
                if len(labels) > MOST_LABELS:
                    raise DataError(
                        f"{path}, line {number}: there are more than {MOST_LABELS:,} labels, of"
                        f" which '{label}' is one; correct the setting 'label' or 'separator'"
                    )
                self._hints.add(path, number, label, text)
                if self._split(text) == "train":
                    self._trained[label] += 1
                    if self.unit != "bytes":
                        counts.add(rules.items(text))
        if not labels:
            raise DataError("setting 'files': no file holds a line; give files that hold data")
        entries = counts.entries([UNKNOWN], self.least, self.most)
        self._begin(rules.vocabulary(entries), Vocabulary("word", in_order(set(labels))))
        self._remarks = self._hints.notes(labels, self._trained)

    def _split(self, text: str) -> str:
        return split_by_hash(text, self._held.valid, self._held.test)

    def _examples(self, path: Path) -> Iterator[_Example]:
        """The number, the label and the text of each line."""
        skipped = not self.header
        for number, line in self._lines(path):
            label, text = self._parts(line)
            if not skipped:
                skipped, self._header = True, text or line.strip()
                self._headers.append((path, number, label))
                continue
            if not label or not text:
                raise DataError(self._no_label(path, number, line))
            yield _Example(number, label, self._rules.clean(text))

    def _lines(self, path: Path) -> Iterator[tuple[int, str]]:
        """The lines of a file that are not blank, which are counted."""
        for number, line in numbered_lines(path):
            if line.strip():
                yield number, line
            else:
                self._blank += 1

    def _no_label(self, path: Path, number: int, line: str) -> str:
        if self.separator == "tab" and "\t" in line:
            lacks = "text" if self._parts(line)[0] else "label"
            return f"{path}, line {number}: has a tab, and no {lacks} beside it; correct the line"
        what = "tab" if self.separator == "tab" else "space"
        fix = "correct the line, or the setting 'separator'"
        if self.separator == "tab" and "," in line:
            fix = "write a tab for the comma that ends a label, and no quotes around texts"
        return f"{path}, line {number}: has no {what} between a label and a text; {fix}"

    def _parts(self, line: str) -> tuple[str, str]:
        """The label and the text of a line; empty where there is none."""
        separator = "\t" if self.separator == "tab" else None
        first = self.label == "first"
        parts = line.split(separator, 1) if first else line.rsplit(separator, 1)
        if len(parts) < 2:
            return "", ""
        label, text = parts if first else reversed(parts)
        return label.strip(), text.strip()


def in_order(labels: set[str]) -> list[str]:
    """Labels in the order of their text, or of their numbers where all are whole numbers."""
    if all(label.isdecimal() for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)
