"""Text files as sequences of tokens, read in blocks."""

from __future__ import annotations

import codecs
import io
import os
from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from rnnfarm.data.inputs import FilePattern, bounds, cut, pick_files
from rnnfarm.data.manifest import Column
from rnnfarm.data.reader import Reader, Sequence
from rnnfarm.errors import DataError, JobError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from rnnfarm.data.inputs import Bounds
    from rnnfarm.data.vocabulary import Vocabulary

TOKENS = "tokens"
BLOCK = 1 << 20


class TokenReader(Reader):
    """Base of the readers whose one column is `tokens`.

    sequence: whether a sequence is a whole file or one line.
    """

    sequence: Literal["file", "line"] = "file"

    def columns(self) -> dict[str, Column]:
        """One column, `tokens`."""
        self._files = self._find()
        return {TOKENS: Column.tokens(self._prepare([path for path, _ in self._files]).size)}

    def vocabularies(self) -> dict[str, Vocabulary]:
        """The vocabulary of `tokens`."""
        return {TOKENS: self._prepared}

    def sequences(self) -> Iterator[Sequence]:
        """The files one after the other, or their lines."""
        newline = self._newline()
        for path, valid in self._files:
            parts = bounds(self._count(path), valid)
            if self.sequence == "line" and newline is not None:
                yield from _lines(self._tokens(path), parts, newline)
            else:
                yield from _whole(self._tokens(path), parts)

    def _prepare(self, files: list[Path]) -> Vocabulary:
        self._prepared = self._learn(files)
        return self._prepared

    @abstractmethod
    def _find(self) -> list[tuple[Path, float]]:
        """The files, and the fraction at the end of each that is for validation."""

    @abstractmethod
    def _learn(self, files: list[Path]) -> Vocabulary:
        """The vocabulary, by a first pass over the files where it takes one."""

    @abstractmethod
    def _count(self, path: Path) -> int:
        """The tokens of a file."""

    @abstractmethod
    def _tokens(self, path: Path) -> Iterator[npt.NDArray[Any]]:
        """The tokens of a file in blocks."""

    @abstractmethod
    def _newline(self) -> int | None:
        """The token that ends a line, None where there is none."""


class TextReader(TokenReader):
    """Base of the readers of text files that a user names.

    files: the files, by glob patterns; valid: the part for validation, from 0 to 1, taken from the
    end of every file (split = "tail") or as whole files (split = "file"); valid_files: the files
    for validation, instead of a part; split: where `valid` is taken from.

    A line keeps its end, which tells a model where lines end; blank lines are left out.
    """

    files: list[FilePattern]
    valid: Annotated[float, Field(ge=0, lt=1)] = 0.1
    valid_files: list[FilePattern] = []
    split: Literal["tail", "file"] = "tail"

    def _find(self) -> list[tuple[Path, float]]:
        files = self.find_files(self.files, "files")
        if self.valid_files:
            valid = self.find_files(self.valid_files, "valid_files")
            train = [(path, 0.0) for path in files if path not in valid]
            return train + [(path, 1.0) for path in valid]
        if self.split == "tail":
            return [(path, self.valid) for path in files]
        if len(files) < 2 and self.valid:
            raise JobError(
                f"setting 'split': a single file ({files[0]}) cannot be split by file; use"
                " split = \"tail\", or name 'valid_files'"
                if files
                else "setting 'files': all files are empty; give files that hold data"
            )
        held = pick_files({self._name(path): path.stat().st_size for path in files}, self.valid)
        return [(path, float(self._name(path) in held)) for path in files]

    def _name(self, path: Path) -> str:
        # Relative, so that the same files in another place are split alike.
        return os.path.relpath(path, self.base).replace(os.sep, "/")


def _whole(blocks: Iterator[npt.NDArray[Any]], parts: Bounds) -> Iterator[Sequence]:
    position = 0
    for block in blocks:
        for split, part, continues in cut(parts, position, len(block)):
            yield Sequence(split, {TOKENS: block[part]}, continues)
        position += len(block)


def _lines(blocks: Iterator[npt.NDArray[Any]], parts: Bounds, newline: int) -> Iterator[Sequence]:
    """Every line a sequence, in the split in which it begins."""
    position, continues, split = 0, False, parts[0][0]
    for block in blocks:
        ends = np.flatnonzero(block == newline) + 1
        low = 0
        for high in [*ends.tolist(), len(block)]:
            if not continues:
                split = next((name for name, end in parts if position + low < end), split)
            blank = not continues and high - low == 1 and block[low] == newline
            if low < high and not blank:
                yield Sequence(split, {TOKENS: block[low:high]}, continues)
            if low < high:
                continues = block[high - 1] != newline
            low = high
        position += len(block)


def byte_blocks(path: Path) -> Iterator[bytes]:
    """A file in blocks of BLOCK bytes."""
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                yield block
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); mend its permissions"
        ) from None


def text_blocks(path: Path) -> Iterator[str]:
    """A UTF-8 file in blocks of text, without its byte order mark, every line end as `\\n`.

    DataError that names the line where the file is no UTF-8.
    """
    utf8 = codecs.getincrementaldecoder("utf-8-sig")()
    decoder = io.IncrementalNewlineDecoder(utf8, translate=True)
    try:
        for block in byte_blocks(path):
            if text := decoder.decode(block):
                yield text
        if text := decoder.decode(b"", final=True):
            yield text
    except UnicodeDecodeError:
        raise _not_utf8(path) from None


def _not_utf8(path: Path) -> DataError:
    with path.open("rb") as file:
        if file.read(2) == b"\x1f\x8b":
            return DataError(f"{path}: is compressed; unpack it first (gunzip)")
        file.seek(0)
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                byte = line[error.start]
                return DataError(
                    f"{path}, line {number}: byte {byte:#04x} is not UTF-8; convert the file to"
                    " UTF-8 (iconv), or read it with the reader 'bytes'"
                )
    return DataError(f"{path}: ends in the middle of a character; convert the file to UTF-8")
