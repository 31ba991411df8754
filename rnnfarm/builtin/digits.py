"""The readers that make pictures of handwritten digits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field

from rnnfarm.builtin.audio import BLANK
from rnnfarm.builtin.parallel import BEGIN, END
from rnnfarm.data.draws import MadeUpReader
from rnnfarm.data.manifest import Column
from rnnfarm.data.reader import Sequence
from rnnfarm.data.vocabulary import UNKNOWN, Vocabulary
from rnnfarm.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from rnnfarm.data.draws import Draws

PIXELS = "pixels"
DIGITS = "digits"
CAPTION = "caption"
SIDE = 8  # pixels of a digit, either way

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GRAMMAR = ("a", "an", "left", "right", "above", "of", "and")

# The labels of the set run through the same form of some 130 digits fourteen times; these are
# beginnings of such forms, so that no form is cut in two.
SAMPLES = {"train": (0, 1157), "valid": (1157, 1287), "test": (1287, 1797)}


class _DigitReader(MadeUpReader):
    """Base of the readers whose pictures are put together from scikit-learn's 1,797 digits.

    The digits of the test and validation examples are none of those in the training examples: the
    first 1,157 are for training, the next 130 for validation, the last 510 for test. The set's own
    documentation says that 13 people wrote it, whom the set it is from held out of 43; it does not
    say who wrote which digit, but its order follows the forms that they filled in, so that the
    parts are mostly of different hands.
    """

    def _load(self) -> None:
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise JobError(
                "the pictures of digits come with scikit-learn, which is not here; install it: pip"
                " install 'rnnfarm[digits]'"
            ) from None
        digits = load_digits()
        self._pictures = (digits.images / 16).astype(np.float32)  # (1797, 8, 8), 0 to 1
        self._digits = digits.target

    vary: Annotated[float, Field(ge=0, le=1)] = 0.0

    def _draw(self, split: str, draws: Draws) -> tuple[npt.NDArray[np.float32], int]:
        """A picture (8, 8) of the split's own, and what it shows."""
        low, high = SAMPLES[split]
        sample = low + draws.below(high - low)
        picture = self._pictures[sample]
        if split == "train" and self.vary:
            picture = _varied(picture, draws, self.vary)
        return picture, int(self._digits[sample])


def _varied(
    picture: npt.NDArray[np.float32], draws: Draws, strength: float
) -> npt.NDArray[np.float32]:
    """A picture turned, sheared, stretched and moved a little, its ink weaker or stronger."""
    turn, shear, wide, high, down, right, ink = (
        strength * (draws.below(2001) / 1000 - 1) for _ in range(7)
    )
    angle, middle = 0.3 * turn, (SIDE - 1) / 2
    cos, sin = np.cos(angle), np.sin(angle)
    rows, columns = np.mgrid[:SIDE, :SIDE] - middle
    y = (1 + 0.15 * high) * (cos * rows - sin * columns) + middle + 0.8 * down
    x = (1 + 0.15 * wide) * (sin * rows + cos * columns + 0.3 * shear * rows) + middle + 0.8 * right
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    found = np.zeros_like(picture)
    for i in (0, 1):
        for j in (0, 1):
            share = np.abs(1 - i - (y - top)) * np.abs(1 - j - (x - left))
            row, column = np.clip(top + i, 0, SIDE - 1), np.clip(left + j, 0, SIDE - 1)
            inside = (row == top + i) & (column == left + j)
            found += np.where(inside, share * picture[row, column], 0).astype(np.float32)
    varied: npt.NDArray[np.float32] = np.clip(found * np.float32(1 + 0.2 * ink), 0, 1)
    return varied


class DigitLines(_DigitReader):
    """Strips of handwritten digits, read column by column.

    shortest, longest: how many digits a strip has; gap: the most empty columns before a digit and
    at the end; jitter: the most pixels by which a digit stands lower than another, which the strip
    is higher for; vary: how much training digits are turned, sheared, stretched and moved, from 0
    to 1; examples, valid_examples, test_examples: how many strips; seed: other strips for
    another seed. Needs scikit-learn, whose pictures of 8 by 8 pixels these are; those in `test` and
    `valid` are none of those in `train`.

    The entry 0 of `digits` is the blank of CTC, and the digit d is the entry d + 1.
    """

    shortest: Annotated[int, Field(ge=1, le=1000)] = 3
    longest: Annotated[int, Field(ge=1, le=1000)] = 8
    gap: Annotated[int, Field(ge=0, le=1000)] = 4
    jitter: Annotated[int, Field(ge=0, le=100)] = 0

    def columns(self) -> dict[str, Column]:
        """`pixels`, a column of the strip a step, and the own column `digits`."""
        if self.shortest > self.longest:
            raise JobError(
                f"settings 'shortest' and 'longest': {self.shortest} is more than {self.longest}"
            )
        self._load()
        return {PIXELS: Column.values(SIDE + self.jitter), DIGITS: Column.tokens(11, own=True)}

    def vocabularies(self) -> dict[str, Vocabulary]:
        """The blank and the ten digits."""
        return {DIGITS: Vocabulary("character", [BLANK, *"0123456789"])}

    def sequences(self) -> Iterator[Sequence]:
        """A sequence a strip."""
        for split, draws in self._draws():
            count = self.shortest + draws.below(self.longest - self.shortest + 1)
            parts, digits = [], []
            for _ in range(count):
                picture, digit = self._draw(split, draws)
                parts += [self._gap(draws), self._lowered(picture, draws.below(self.jitter + 1))]
                digits.append(digit + 1)
            parts.append(self._gap(draws))
            figures = {PIXELS: np.concatenate(parts), DIGITS: np.array(digits, np.int32)}
            yield Sequence(split, figures)

    def _gap(self, draws: Draws) -> npt.NDArray[np.float32]:
        return np.zeros((draws.below(self.gap + 1), SIDE + self.jitter), np.float32)

    def _lowered(self, picture: npt.NDArray[np.float32], by: int) -> npt.NDArray[np.float32]:
        """The columns of a picture (8, height), some pixels down."""
        return np.pad(picture.T, ((0, 0), (by, self.jitter - by)))


class _Placed(NamedTuple):
    row: int
    column: int
    digit: int


class DigitScenes(_DigitReader):
    """Pictures of one to three handwritten digits on a grid, and captions that describe them.

    grid: the cells either way; most: the most digits; steps: a step is a row of pixels, a cell (in
    the order of reading), or the whole picture; vary: how much training digits are turned, sheared,
    stretched and moved, from 0 to 1; examples, valid_examples, test_examples: how many pictures;
    seed: other pictures for another seed. Needs scikit-learn, whose pictures of 8 by 8 pixels fill
    the cells; those in `test` and `valid` are none of those in `train`.

    A caption names the digits row by row and from left to right, and says how each lies to the next
    one: `a three`, `a three left of a seven`, `a three above a seven`, `a three above and left of a
    seven`, `a one left of a two above and right of an eight`. The entries 0, 1 and 2 of `caption`'s
    vocabulary are `<s>`, `</s>` and `<unk>`; the caption itself is the words alone.
    """

    grid: Annotated[int, Field(ge=1, le=32)] = 3
    most: Annotated[int, Field(ge=1, le=10)] = 3
    steps: Literal["rows", "cells", "whole"] = "rows"

    def columns(self) -> dict[str, Column]:
        """`pixels`, and the own column `caption`."""
        if self.most > self.grid**2:
            raise JobError(
                f"setting 'most': {self.most} digits have no room in {self.grid**2} cells; give"
                " fewer, or a larger 'grid'"
            )
        self._load()
        self._words = Vocabulary("word", [BEGIN, END, UNKNOWN, *GRAMMAR, *NAMES])
        width = SIDE * self.grid
        return {
            PIXELS: Column.values({"rows": width, "cells": SIDE**2, "whole": width**2}[self.steps]),
            CAPTION: Column.tokens(self._words.size, own=True),
        }

    def vocabularies(self) -> dict[str, Vocabulary]:
        """The words of captions."""
        return {CAPTION: self._words}

    def sequences(self) -> Iterator[Sequence]:
        """A sequence a picture."""
        width = SIDE * self.grid
        for split, draws in self._draws():
            picture = np.zeros((width, width), np.float32)
            placed = []
            for cell in draws.choose(1 + draws.below(self.most), self.grid**2):
                pixels, digit = self._draw(split, draws)
                row, column = divmod(cell, self.grid)
                low, left = SIDE * row, SIDE * column
                picture[low : low + SIDE, left : left + SIDE] = pixels
                placed.append(_Placed(row, column, digit))
            steps = picture if self.steps == "rows" else picture.reshape(1, -1)
            if self.steps == "cells":
                cells = picture.reshape(self.grid, SIDE, self.grid, SIDE).swapaxes(1, 2)
                steps = np.ascontiguousarray(cells.reshape(self.grid**2, SIDE**2))
            caption = self._words.encode_words(_caption(placed))
            yield Sequence(split, {PIXELS: steps, CAPTION: caption})


def _caption(placed: list[_Placed]) -> list[str]:
    """The words for digits in the order of rows, then of columns."""
    words: list[str] = []
    for i, here in enumerate(placed):
        words += ["an" if here.digit == 8 else "a", NAMES[here.digit]]
        if i + 1 < len(placed):
            words += _relation(here, placed[i + 1])
    return words


def _relation(here: _Placed, then: _Placed) -> list[str]:
    """How a digit lies to one that comes later: never below it, nor right of it in its row."""
    if here.row == then.row:
        return ["left", "of"]
    if here.column == then.column:
        return ["above"]
    return ["above", "and", "left" if here.column < then.column else "right", "of"]
