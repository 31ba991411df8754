"""The reader of texts and their translations."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import Field

from rnnfarm.data.inputs import FilePattern
from rnnfarm.data.lines import Counts, LineTokens, blank_lines, numbered_lines
from rnnfarm.data.manifest import Column
from rnnfarm.data.reader import Reader, Sequence
from rnnfarm.data.unknown import INPUT, UnknownCounts
from rnnfarm.data.vocabulary import UNKNOWN, Vocabulary
from rnnfarm.errors import DataError, JobError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

SOURCE = "source"
TARGET = "target"
BEGIN = "<s>"
END = "</s>"

Files = dict[Literal["train", "valid", "test"], list[FilePattern]]


class _Pair(NamedTuple):
    """A pair of lines: the words of its sides, and its line in the file of the source."""

    path: Path
    line: int
    source: list[str]
    target: list[str]


class ParallelText(Reader):
    """Pairs of UTF-8 files with equally many lines: line n of one says what line n of the other
    says in another language, or in other words.

    source, target: the files of each part, as { train = ["a.de"], valid = ["b.de"] }, by glob
    patterns; the first file of one belongs to the first of the other. A token is what white space
    separates. least: words that occur more rarely in the training part become `<unk>`; most: at
    most so many entries of a vocabulary, the most frequent ones; lower: in lower case; longest:
    pairs with more words on a side are left out, in every part; first: only so many pairs of the
    training part, from its start. Pairs with a blank side are left out too; how many pairs were
    is said.

    The entries 0, 1 and 2 of the target's vocabulary are `<s>`, `</s>` and `<unk>`; the target
    itself is the words alone.
    """

    source: Files
    target: Files
    least: Annotated[int, Field(ge=1)] = 2
    most: Annotated[int, Field(ge=4)] = 50_000
    lower: bool = False
    longest: Annotated[int, Field(ge=1)] | None = None
    first: Annotated[int, Field(ge=1)] | None = None

    def columns(self) -> dict[str, Column]:
        """`source`, and the own column `target`; a first pass over all files."""
        self._files = self._find()
        counts = {SOURCE: Counts(), TARGET: Counts()}
        for split in self._files:
            for pair in self._pairs(split, whole=True):
                if split == "train" and self._fits(pair):
                    counts[SOURCE].add(pair.source)
                    counts[TARGET].add(pair.target)
        reserved = {SOURCE: [UNKNOWN], TARGET: [BEGIN, END, UNKNOWN]}
        self._begin(
            {
                name: Vocabulary("word", counts[name].entries(entries, self.least, self.most))
                for name, entries in reserved.items()
            }
        )
        return {
            name: Column.tokens(vocabulary.size, own=name == TARGET)
            for name, vocabulary in self._vocabularies.items()
        }

    def vocabularies(self) -> dict[str, Vocabulary]:
        """The words of either side."""
        return self._vocabularies

    def sequences(self) -> Iterator[Sequence]:
        """A sequence a pair."""
        for split in self._files:
            left_out = total = 0
            for pair in self._pairs(split):
                total += 1
                if self._fits(pair):
                    sides = {
                        SOURCE: self._encode(split, SOURCE, pair.source),
                        TARGET: self._encode(split, TARGET, pair.target),
                    }
                    yield Sequence(split, sides, origin=self.origin(pair.path, pair.line))
                else:
                    left_out += 1
            if left_out:
                longer = f" or longer than {self.longest} words" if self.longest else ""
                self._remarks.append(
                    f"{split}: left out {left_out:,} of {total:,} pairs, blank{longer} on a side"
                )

    def notes(self) -> list[str]:
        """Say how many pairs were left out, and how many words are not in the vocabularies."""
        unknown = [note for counts in self._unknown.values() for note in counts.notes()]
        return [*super().notes(), *self._remarks, *unknown]

    def recall(self, learned: Mapping[str, Any], vocabularies: Mapping[str, Vocabulary]) -> None:
        """Take the vocabularies of an earlier build."""
        super().recall(learned, vocabularies)
        self._begin(dict(vocabularies))

    def inputs(self, path: Path) -> Iterator[Sequence]:
        """A sequence a line of a file that holds the source alone."""
        blank = 0
        for number, line in numbered_lines(path):
            if words := self._words(line, SOURCE):
                tokens = self._encode(INPUT, SOURCE, words)
                yield Sequence(INPUT, {SOURCE: tokens}, origin=self.origin(path, number))
            else:
                blank += 1
        self._remarks += blank_lines(blank)

    def inputs_with_targets(self, path: Path) -> Iterator[Sequence]:
        """JobError, as the two sides of pairs are never in one file."""
        raise JobError(
            f"{path}: pairs of lines stand in two files, so that one of them cannot be measured;"
            " name both in 'source.test' and 'target.test' of the data, and take --split test"
        )

    def encode(self, text: str) -> npt.NDArray[Any]:
        """Return the words of a text of the source, as those of a line."""
        return self._encode(INPUT, SOURCE, self._words(text, SOURCE))

    def _begin(self, vocabularies: dict[str, Vocabulary]) -> None:
        self._vocabularies = vocabularies
        self._unknown = {name: UnknownCounts(v, name) for name, v in vocabularies.items()}
        self._remarks: list[str] = []

    def _encode(self, split: str, side: str, words: list[str]) -> npt.NDArray[Any]:
        tokens = self._vocabularies[side].encode_words(words)
        self._unknown[side].add(split, tokens)
        return tokens

    def _fits(self, pair: _Pair) -> bool:
        """Whether a pair is taken."""
        sizes = (len(pair.source), len(pair.target))
        return min(sizes) > 0 and (self.longest is None or max(sizes) <= self.longest)

    def _find(self) -> dict[str, list[tuple[Path, Path]]]:
        """The pairs of files of each split."""
        if "train" not in self.source or self.source.keys() != self.target.keys():
            raise JobError(
                "settings 'source' and 'target': both name files for train, and for the same other"
                f" parts, not {', '.join(self.source)} and {', '.join(self.target)}"
            )
        found: dict[str, list[tuple[Path, Path]]] = {}
        for split, patterns in self.source.items():
            sources = self.find_files(patterns, f"source.{split}")
            targets = self.find_files(self.target[split], f"target.{split}")
            if len(sources) != len(targets):
                raise JobError(
                    f"settings 'source.{split}' and 'target.{split}': {len(sources)} and"
                    f" {len(targets)} files make no pairs; name equally many"
                )
            found[split] = list(zip(sources, targets, strict=True))
        return found

    def _pairs(self, split: str, whole: bool = False) -> Iterator[_Pair]:
        """The words of both sides of each pair, the first ones of the training part alone.

        With `whole` the files are read to their ends, so that their lines are counted.
        """
        left = self.first if split == "train" else None
        for source, target in self._files[split]:
            for number, one, other in self._lines(source, target):
                if left is not None and left <= 0:
                    if whole:
                        continue
                    return
                left = left if left is None else left - 1
                sides = self._words(one, SOURCE), self._words(other, TARGET)
                yield _Pair(source, number, *sides)

    def _lines(self, source: Path, target: Path) -> Iterator[tuple[int, str, str]]:
        for one, other in zip_longest(numbered_lines(source), numbered_lines(target)):
            if one is None or other is None:
                lines = [sum(1 for _ in numbered_lines(path)) for path in (source, target)]
                raise DataError(
                    f"{source} has {lines[0]:,} lines and {target} has {lines[1]:,}; give files"
                    " whose lines are pairs"
                )
            yield one[0], one[1], other[1]

    def _words(self, line: str, side: str) -> list[str]:
        rules = LineTokens("words", self.lower)
        words = list(rules.items(rules.clean(line)))
        if side == TARGET:
            # These mean something to the training, so that no text may have them.
            return [UNKNOWN if word in (BEGIN, END) else word for word in words]
        return words
