"""The adding problem."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from rnnfarm.data.draws import MadeUpReader
from rnnfarm.data.manifest import Column
from rnnfarm.data.reader import Sequence
from rnnfarm.data.tables import TARGET, VALUES

if TYPE_CHECKING:
    from collections.abc import Iterator


class Adding(MadeUpReader):
    """The adding problem: the sum of the two marked numbers of a long sequence.

    Hochreiter and Schmidhuber (1997), in the form of Le et al. (2015): a step is a number from 0
    to 1 and a marker, 1 at one step in each half of the sequence and 0 at all others. Whoever
    always answers 1 has a mean squared error of 1/6.

    length: the steps of a sequence; examples, valid_examples, test_examples: how many there are;
    seed: other examples for another seed.
    """

    length: Annotated[int, Field(ge=2, le=1 << 20)] = 100

    def columns(self) -> dict[str, Column]:
        """`values`, a number and a marker, and the own column `target`, the sum."""
        return {VALUES: Column.values(2), TARGET: Column.values(1, own=True)}

    def sequences(self) -> Iterator[Sequence]:
        """The examples."""
        half = self.length // 2
        for split, draws in self._draws():
            values = np.zeros((self.length, 2), np.float32)
            values[:, 0] = draws.fractions(self.length)
            marked = [draws.below(half), half + draws.below(self.length - half)]
            values[marked, 1] = 1
            total = values[marked, 0].sum(dtype=np.float32)
            yield Sequence(split, {VALUES: values, TARGET: np.array([[total]], np.float32)})
