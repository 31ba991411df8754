"""Text files as sequences of tokens, read in blocks."""

from __future__ import annotations

import os
from abc import abstractmethod
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from rnnfarm.data.held_out import ENDLESS, InputFile, SplitReader
from rnnfarm.data.inputs import pick_files
from rnnfarm.data.lines import blank_lines
from rnnfarm.data.manifest import Column
from rnnfarm.data.pieces import line_pieces, whole_pieces
from rnnfarm.data.reader import Reader, Sequence
from rnnfarm.data.unknown import INPUT, UnknownCounts
from rnnfarm.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from rnnfarm.data.inputs import Bounds
    from rnnfarm.data.pieces import Block, Piece
    from rnnfarm.data.vocabulary import Vocabulary

TOKENS = "tokens"


class TokenReader(Reader):
    """Base of the readers whose one column is `tokens`.

    sequence: a sequence is a whole file, or one line.
    """

    sequence: Literal["file", "line"] = "file"

    def columns(self) -> dict[str, Column]:
        """One column, `tokens`."""
        self._files = self._find()
        self._counted: dict[Path, int] = {}
        self._begin(self._learn())
        return {TOKENS: Column.tokens(self._vocabulary.size)}

    def vocabularies(self) -> dict[str, Vocabulary]:
        """The vocabulary of `tokens`."""
        return {TOKENS: self._vocabulary}

    def sequences(self) -> Iterator[Sequence]:
        """The files one after the other, or their lines."""
        for file in self._files:
            yield from self._read(file.path, file.bounds(self._count))

    def notes(self) -> list[str]:
        """Say how much is not in the vocabulary, and what was left out."""
        return [*super().notes(), *self._unknown.notes(), *blank_lines(self._blank)]

    def inputs(self, path: Path) -> Iterator[Sequence]:
        """One file, whole or line by line as the files of the build."""
        self._begin(self._recalled_vocabularies[TOKENS])
        yield from self._read(path, [(INPUT, ENDLESS)])

    def encode(self, text: str) -> npt.NDArray[Any]:
        """Return the tokens of a text, by the rules by which files are read."""
        self._begin(self._recalled_vocabularies[TOKENS])
        ids = self._vocabulary.encode(text)
        self._unknown.add(INPUT, ids)
        return ids

    def _begin(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._unknown = UnknownCounts(vocabulary)
        self._blank = 0

    def _read(self, path: Path, parts: Bounds) -> Iterator[Sequence]:
        for block, pieces in self._pieces(path, parts):
            try:
                ids = self._encode(block)
            except JobError as error:
                line = self._line_of_unknown(block, pieces)
                raise JobError(f"{path}, line {line}: {error}") from None
            for split, part, continues, line in pieces:
                if not split:
                    self._blank += 1
                    continue
                self._unknown.add(split, ids[part])
                origin = self.origin(path, line)
                yield Sequence(split, {TOKENS: ids[part]}, continues, origin)

    def _line_of_unknown(self, block: Block, pieces: list[Piece]) -> int:
        """The line of the first item of a block that has no id."""
        known = self._vocabulary.index
        at = next(at for at, item in enumerate(block) if item not in known)
        return pieces[0].line + block[pieces[0].part.start : at].count(self._newline)

    def _pieces(self, path: Path, parts: Bounds) -> Iterator[tuple[Block, list[Piece]]]:
        pieces = line_pieces if self.sequence == "line" else whole_pieces
        return pieces(self._blocks(path), parts, self._newline)

    def _parts(self) -> Iterator[tuple[str, Block]]:
        """What of each block belongs to a split; a pass over the files."""
        for file in self._files:
            for block, pieces in self._pieces(file.path, file.bounds(self._count)):
                for split, run in groupby(pieces, lambda piece: piece.split):
                    same = list(run)
                    if split:  # not blank
                        yield split, block[same[0].part.start : same[-1].part.stop]

    def _count(self, path: Path) -> int:
        """The tokens of a file."""
        if path not in self._counted:
            self._counted[path] = sum(map(len, self._blocks(path)))
        return self._counted[path]

    #: The item of a block that ends a line.
    _newline: Any

    @abstractmethod
    def _find(self) -> list[InputFile]:
        """The files, and what of each is held out."""

    @abstractmethod
    def _learn(self) -> Vocabulary:
        """The vocabulary, by a pass over the files where it takes one."""

    @abstractmethod
    def _blocks(self, path: Path) -> Iterator[Block]:
        """The tokens of a file in blocks, not encoded yet."""

    @abstractmethod
    def _encode(self, block: Any) -> npt.NDArray[Any]:
        """The ids of a block."""


class TextReader(TokenReader, SplitReader):
    """Base of the readers of text files that a user names.

    split: where `valid` and `test` are taken from: from the end of every file (tail), or as whole
    files (file).

    A line keeps its end, which tells a model where lines end; blank lines are left out.
    """

    split: Literal["tail", "file"] = "tail"

    def _find(self) -> list[InputFile]:
        if self.split == "tail":
            return self._find_cut()
        held = self._find_held_out()
        sizes = {self._name(path): path.stat().st_size for path in held.files["train"]}
        if len(sizes) < 1 + (held.valid > 0) + (held.test > 0):
            raise JobError(
                f"setting 'split': {len(sizes)} file ({held.files['train'][0]}) cannot be split by"
                " file; use split = \"tail\", or name 'valid_files' and 'test_files'"
            )
        valid = pick_files(sizes, held.valid)
        test = pick_files(sizes, held.test, valid)
        return [
            *(
                InputFile(path, float(self._name(path) in valid), float(self._name(path) in test))
                for path in held.files["train"]
            ),
            *(InputFile(path, valid=1.0) for path in held.files["valid"]),
            *(InputFile(path, test=1.0) for path in held.files["test"]),
        ]

    def _name(self, path: Path) -> str:
        # Relative, so that the same files in another place are split alike.
        return os.path.relpath(path, self.base).replace(os.sep, "/")
