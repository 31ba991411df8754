"""The built-in readers: text, tables, NumPy arrays, and Python's own sources."""

from __future__ import annotations

import sysconfig
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from rnnfarm.builtin.arrays import NumPyArrays
from rnnfarm.builtin.tables import CSV, Parquet
from rnnfarm.data.inputs import by_hash, pick_files
from rnnfarm.data.text import TextReader, TokenReader, byte_blocks, text_blocks
from rnnfarm.data.vocabulary import NEWLINE, UNKNOWN, Vocabulary, words
from rnnfarm.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

__all__ = ["CSV", "Bytes", "Characters", "NumPyArrays", "Parquet", "PythonSource", "Words"]

WORD_LIMIT = 1 << 20  # characters without white space that are cut as if they were a word
COUNTED_WORDS = 1 << 20


class _ByteTokens(TokenReader):
    """Tokens are the bytes of a file."""

    def _learn(self, files: list[Path]) -> Vocabulary:
        return Vocabulary("byte")

    def _count(self, path: Path) -> int:
        return path.stat().st_size

    def _tokens(self, path: Path) -> Iterator[npt.NDArray[Any]]:
        for block in byte_blocks(path):
            yield np.frombuffer(block, np.uint8)

    def _newline(self) -> int:
        return ord(NEWLINE)


class Bytes(_ByteTokens, TextReader):
    """Any files, a token a byte."""


class Characters(TextReader):
    """UTF-8 text, a token a character.

    min_count: characters that occur more rarely in all files become `<unk>`.
    """

    min_count: Annotated[int, Field(ge=1)] = 1

    def _learn(self, files: list[Path]) -> Vocabulary:
        counts = np.zeros(0x110000, np.int64)
        self._counts: dict[Path, int] = {}
        for path in files:
            self._counts[path] = 0
            for text in text_blocks(path):
                points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
                found, times = np.unique(points, return_counts=True)
                counts[found] += times
                self._counts[path] += len(text)
        kept = np.flatnonzero(counts >= self.min_count).tolist()
        if counts[ord(NEWLINE)] and ord(NEWLINE) not in kept:
            kept.insert(0, ord(NEWLINE))
        unknown = [UNKNOWN] if self.min_count > 1 else []
        return Vocabulary("character", unknown + [chr(point) for point in kept])

    def _count(self, path: Path) -> int:
        return self._counts[path]

    def _tokens(self, path: Path) -> Iterator[npt.NDArray[Any]]:
        for text in text_blocks(path):
            yield self._prepared.encode_characters(text)

    def _newline(self) -> int | None:
        return self._prepared.index.get(NEWLINE)


class Words(TextReader):
    """UTF-8 text, a token a word: what white space separates, and each line end.

    min_count: words that occur more rarely in all files become `<unk>`; max_size: at most so many
    entries, the most frequent ones; lower: in lower case. While counting, the rarest words are
    forgotten whenever there are more than a million, so that any text is read in constant memory.
    """

    min_count: Annotated[int, Field(ge=1)] = 1
    max_size: Annotated[int, Field(ge=3)] = 50_000
    lower: bool = False

    def _learn(self, files: list[Path]) -> Vocabulary:
        counts: Counter[str] = Counter()
        self._counts: dict[Path, int] = {}
        least = 1
        for path in files:
            self._counts[path] = 0
            for block in self._words(path):
                counts.update(block)
                self._counts[path] += len(block)
                while len(counts) > COUNTED_WORDS:
                    least += 1
                    counts = Counter({w: n for w, n in counts.items() if n >= least})
        lines = counts.pop(NEWLINE, 0)
        counts.pop(UNKNOWN, None)
        kept = [UNKNOWN] + ([NEWLINE] if lines else [])
        frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        kept += [w for w, n in frequent[: self.max_size - len(kept)] if n >= self.min_count]
        return Vocabulary("word", kept)

    def _words(self, path: Path) -> Iterator[list[str]]:
        rest = ""
        for text in text_blocks(path):
            rest += text.lower() if self.lower else text
            end = 1 + max(rest.rfind(space) for space in (" ", NEWLINE, "\t"))
            if end == 0 and len(rest) > WORD_LIMIT:
                end = len(rest)
            if end:
                yield words(rest[:end])
                rest = rest[end:]
        if rest:
            yield words(rest)

    def _count(self, path: Path) -> int:
        return self._counts[path]

    def _tokens(self, path: Path) -> Iterator[npt.NDArray[Any]]:
        for block in self._words(path):
            yield self._prepared.encode_words(block)

    def _newline(self) -> int | None:
        return self._prepared.index.get(NEWLINE)


class PythonSource(_ByteTokens):
    """The sources of the running interpreter's standard library, a token a byte.

    valid: the part of the bytes that is for validation, as whole files; max_bytes: about so much
    in all, 0 for everything; tests: whether the library's tests are read too. The files are taken
    in the order of a hash of their names, so that the choice is the same everywhere.
    """

    valid: Annotated[float, Field(ge=0, lt=1)] = 0.1
    max_bytes: Annotated[int, Field(ge=0)] = 6_000_000
    tests: bool = False

    def _find(self) -> list[tuple[Path, float]]:
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
        held = pick_files(sizes, self.valid)
        files = [(root / name, float(name in held)) for name in by_hash(sizes)]
        self.reads.add((path for path, _ in files), None)
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
