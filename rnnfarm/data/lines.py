"""Text files line by line, counted vocabularies, and splits that a hash decides."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rnnfarm.data.blocks import text_blocks
from rnnfarm.data.vocabulary import NEWLINE, Vocabulary
from rnnfarm.errors import DataError, JobError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

LONGEST_LINE = 1 << 24  # characters; what is longer is no file of lines
COUNTED = 1 << 20


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file without their ends, and their numbers from 1.

    DataError that names the line where the file is no UTF-8, or a line has no end.
    """
    rest, number = "", 0
    for text in text_blocks(path):
        lines = (rest + text).split(NEWLINE)
        rest = lines.pop()
        for line in lines:
            number += 1
            yield number, line
        if len(rest) > LONGEST_LINE:
            raise DataError(
                f"{path}, line {number + 1}: is longer than {LONGEST_LINE:,} characters; give a"
                " file of lines"
            )
    if rest:
        yield number + 1, rest


def blank_lines(count: int) -> list[str]:
    """Return the note that blank lines were left out, where there are any."""
    return [f"left out {count:,} blank line{'s' if count > 1 else ''}"] if count else []


@dataclass(frozen=True)
class LineTokens:
    """What the tokens of a line are: words, characters or bytes, and whether in lower case."""

    unit: Literal["words", "characters", "bytes"] = "words"
    lower: bool = False

    def clean(self, line: str) -> str:
        """Return a line in lower case, if it is to be, and without white space around it."""
        return (line.lower() if self.lower else line).strip()

    def items(self, clean: str) -> Sequence[str]:
        """Return the words or characters of a clean line."""
        return clean.split() if self.unit == "words" else clean

    def vocabulary(self, entries: Sequence[str]) -> Vocabulary:
        """Return a vocabulary of these entries, or that of bytes."""
        if self.unit == "bytes":
            return Vocabulary("byte")
        return Vocabulary("word" if self.unit == "words" else "character", entries)

    def encode(self, clean: str, vocabulary: Vocabulary) -> npt.NDArray[np.int32]:
        """Return the ids of a clean line."""
        if self.unit == "words":
            return vocabulary.encode_words(clean.split())
        return vocabulary.encode(clean)


class Counts:
    """How often each word or character occurs.

    The rarest are forgotten whenever there are more than a million, so that any text is counted in
    constant memory.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._least = 1

    def add(self, items: Iterable[str]) -> None:
        """Count these."""
        self._counts.update(items)
        while len(self._counts) > COUNTED:
            self._least += 1
            kept = {item: n for item, n in self._counts.items() if n >= self._least}
            self._counts = Counter(kept)

    def entries(self, first: Sequence[str], least: int = 1, most: int | None = None) -> list[str]:
        """`first`, then what occurs `least` times or more, the most frequent before the others;
        `most` entries in all at most."""
        counted = [(n, item) for item, n in self._counts.items() if n >= least]
        frequent = [item for _, item in sorted(counted, key=lambda pair: (-pair[0], pair[1]))]
        return [*first, *(item for item in frequent if item not in first)][:most]


def share(name: str) -> float:
    """A number from 0 to below 1 that the name alone decides."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / (1 << 48)


def split_by_hash(name: str, valid: float, test: float) -> str:
    """`train`, `valid` or `test`: the same for a name wherever and beside whatever it stands."""
    place = share(name)
    if place < test:
        return "test"
    return "valid" if place < test + valid else "train"


class EvenSplit:
    """Splits the items of each label evenly over their order: every so many are for validation, and
    every so many between those for test."""

    def __init__(self, valid: float, test: float) -> None:
        self._shares = {"valid": (valid, 0.0), "test": (test, 0.5)}
        self._met: Counter[str] = Counter()
        self._given: Counter[tuple[str, str]] = Counter()

    def __call__(self, label: str) -> str:
        """Return the split of the next item of a label."""
        self._met[label] += 1
        for split, (share, begin) in self._shares.items():
            if int(self._met[label] * share + begin) > self._given[label, split]:
                self._given[label, split] += 1
                return split
        return "train"


def leave_something(valid: float, test: float) -> None:
    """JobError where the parts for validation and test leave nothing to train."""
    if valid + test >= 1:
        raise JobError(f"settings 'valid' and 'test': {valid} and {test} leave nothing to train")
