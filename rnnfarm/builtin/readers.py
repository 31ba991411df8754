"""The built-in readers: text, tables, NumPy arrays, and Python's own sources."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from rnnfarm.builtin.arrays import NumPyArrays
from rnnfarm.builtin.tables import CSV, Parquet
from rnnfarm.data.blocks import byte_blocks, clean_text, text_blocks
from rnnfarm.data.held_out import Fraction, InputFile
from rnnfarm.data.inputs import by_hash, pick_files
from rnnfarm.data.lines import Counts, leave_something
from rnnfarm.data.text import TextReader, TokenReader
from rnnfarm.data.vocabulary import NEWLINE, UNKNOWN, Vocabulary, words
from rnnfarm.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

__all__ = ["CSV", "Bytes", "Characters", "NumPyArrays", "Parquet", "PythonSource", "Words"]

WORD_LIMIT = 1 << 20  # characters without white space that are cut as if they were a word


class _ByteTokens(TokenReader):
    """Tokens are the bytes of a file."""

    _newline = ord(NEWLINE)

    def _learn(self) -> Vocabulary:
        return Vocabulary("byte")

    def _count(self, path: Path) -> int:
        return path.stat().st_size

    def _blocks(self, path: Path) -> Iterator[bytes]:
        return byte_blocks(path)

    def _encode(self, block: bytes) -> npt.NDArray[Any]:
        return np.frombuffer(block, np.uint8)


class Bytes(_ByteTokens, TextReader):
    """Any files, a token a byte."""


class _Decoded(TextReader):
    """UTF-8 text."""

    _newline = NEWLINE

    def encode(self, text: str) -> npt.NDArray[Any]:
        """Return the tokens of a text, by the rules by which files are read."""
        return super().encode(clean_text(text))


class Characters(_Decoded):
    """UTF-8 text, a token a character.

    min_count: characters that occur more rarely in the training part become `<unk>`.

    The vocabulary is that of the training part, in the order of the code points. Where another part
    has a character that it lacks, `<unk>` comes after them.
    """

    min_count: Annotated[int, Field(ge=1)] = 1

    def _learn(self) -> Vocabulary:
        counts = {"train": np.zeros(0x110000, np.int64)}
        other = np.zeros(0x110000, np.int64)
        for split, text in self._parts():
            assert isinstance(text, str)
            points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
            found, times = np.unique(points, return_counts=True)
            counts.get(split, other)[found] += times
        train = counts["train"]
        kept = np.flatnonzero(train >= self.min_count).tolist()
        if train[ord(NEWLINE)] and ord(NEWLINE) not in kept:
            kept.insert(0, ord(NEWLINE))
        entries = [chr(point) for point in kept]
        if self.min_count > 1:
            entries.insert(0, UNKNOWN)
        elif (other[train == 0] > 0).any():
            entries.append(UNKNOWN)
        return Vocabulary("character", entries)

    def _blocks(self, path: Path) -> Iterator[str]:
        return text_blocks(path)

    def _encode(self, block: str) -> npt.NDArray[Any]:
        return self._vocabulary.encode_characters(block)


class Words(_Decoded):
    """UTF-8 text, a token a word: what white space separates, and each line end.

    min_count: words that occur more rarely in the training part become `<unk>`; max_size: at most
    so many entries, the most frequent ones of the training part; lower: in lower case.

    While counting, the rarest words are forgotten whenever there are more than a million, so that
    any text is read in constant memory.
    """

    min_count: Annotated[int, Field(ge=1)] = 1
    max_size: Annotated[int, Field(ge=3)] = 50_000
    lower: bool = False

    def _learn(self) -> Vocabulary:
        counts, lines = Counts(), False
        for split, block in self._parts():
            if split == "train":
                assert isinstance(block, list)
                counts.add(block)
                lines = lines or NEWLINE in block
        first = [UNKNOWN, NEWLINE] if lines else [UNKNOWN]
        return Vocabulary("word", counts.entries(first, self.min_count, self.max_size))

    def encode(self, text: str) -> npt.NDArray[Any]:
        """Return the words of a text, in lower case where the files were read so."""
        return super().encode(text.lower() if self.lower else text)

    def _blocks(self, path: Path) -> Iterator[list[str]]:
        rest = ""
        for text in text_blocks(path):
            rest += text
            end = 1 + max(rest.rfind(space) for space in (" ", NEWLINE, "\t"))
            if end == 0 and len(rest) > WORD_LIMIT:
                end = len(rest)
            if end:
                yield self._words(rest[:end])
                rest = rest[end:]
        if rest:
            yield self._words(rest)

    def _words(self, text: str) -> list[str]:
        # Whole words, as the lower case of a letter may depend on those beside it.
        return words(text.lower() if self.lower else text)

    def _encode(self, block: list[str]) -> npt.NDArray[Any]:
        return self._vocabulary.encode_words(block)


class PythonSource(_ByteTokens):
    """The sources of the running interpreter's standard library, a token a byte.

    valid, test: the parts of the bytes that are for validation and test, as whole files; max_bytes:
    about so much in all, 0 for everything; tests: whether the library's tests are read too.

    The files are taken in the order of a hash of their names, so that the choice is the same
    everywhere.
    """

    valid: Fraction = 0.1
    test: Fraction = 0.0
    max_bytes: Annotated[int, Field(ge=0)] = 6_000_000
    tests: bool = False

    def _find(self) -> list[InputFile]:
        leave_something(self.valid, self.test)
        root = Path(sysconfig.get_path("stdlib"))
        left_out = {"site-packages", "dist-packages", "__pycache__"}
        if not self.tests:
            left_out |= {"test", "tests", "idle_test"}
        sizes = {}
        for path in root.rglob("*.py"):
            name = path.relative_to(root)
            if left_out.isdisjoint(name.parts) and (size := path.stat().st_size):
                sizes[name.as_posix()] = size
        if not sizes:
            raise DataError(
                f"{root}: this Python has no sources of its standard library; use another reader"
            )
        sizes = self._limit(sizes)
        valid = pick_files(sizes, self.valid)
        test = pick_files(sizes, self.test, valid)
        files = [
            InputFile(root / name, float(name in valid), float(name in test))
            for name in by_hash(sizes)
        ]
        self.reads.add((file.path for file in files), None)
        return files

    def _limit(self, sizes: dict[str, int]) -> dict[str, int]:
        if not self.max_bytes:
            return sizes
        taken: dict[str, int] = {}
        total = 0
        for name in by_hash(sizes):
            if taken and total + sizes[name] > self.max_bytes:
                continue
            taken[name] = sizes[name]
            total += sizes[name]
        return taken
