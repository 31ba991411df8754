"""Cutting the blocks of a file of tokens into sequences, and into the splits they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from rnnfarm.data.inputs import cut

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rnnfarm.data.inputs import Bounds

    # Tokens that are not encoded yet, one an item: bytes, a text, or a list of words.
    Block = bytes | str | list[str]


class Piece(NamedTuple):
    """A part of a block that is a sequence of a split, or carries on that split's last one.

    `part` is where it lies in its block, and `line` the line of the file at which it begins. A
    line that holds nothing has an empty `split`: it is left out.
    """

    split: str
    part: slice
    continues: bool
    line: int


def whole_pieces(
    blocks: Iterable[Block], parts: Bounds, newline: Any
) -> Iterator[tuple[Block, list[Piece]]]:
    """Return each block with its pieces, where the part of a file in a split is one sequence."""
    position, line = 0, 1
    for block in blocks:
        found = []
        for split, part, continues in cut(parts, position, len(block)):
            begin = line if part.start == 0 else line + block[: part.start].count(newline)
            found.append(Piece(split, part, continues, begin))
        yield block, found
        position += len(block)
        line += block.count(newline)


def line_pieces(
    blocks: Iterable[Block], parts: Bounds, newline: Any
) -> Iterator[tuple[Block, list[Piece]]]:
    """Return each block with its pieces, where each line is a sequence of the split in which it
    begins."""
    position, line, continues, split = 0, 1, False, parts[0][0]
    for block in blocks:
        found, low = [], 0
        for high in [*_ends(block, newline), len(block)]:
            if low == high:
                continue
            if not continues:
                split = next((name for name, end in parts if position + low < end), split)
            ended = block[high - 1] == newline
            blank = not continues and ended and high - low == 1
            found.append(Piece("" if blank else split, slice(low, high), continues, line))
            continues = not ended
            line += ended
            low = high
        yield block, found
        position += len(block)


def _ends(block: Any, newline: Any) -> Iterator[int]:
    """Where the lines of a block end, one past their last token."""
    at = 0
    while True:
        try:
            at = block.index(newline, at) + 1
        except ValueError:
            return
        yield at
