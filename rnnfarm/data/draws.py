"""Random numbers for made-up data, the same in every version of NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from rnnfarm.data.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

SPLITS = ("train", "valid", "test")

Count = Annotated[int, Field(ge=0, lt=1 << 31)]
Some = Annotated[int, Field(ge=1, lt=1 << 31)]


def raw_bits(seed: int, stream: int) -> np.random.Philox:
    """The bits of one stream, whose `random_raw` is the same in every version of NumPy."""
    return np.random.Philox(key=np.array([seed % (1 << 64), stream], np.uint64))


class Draws:
    """One stream of numbers for each `seed` and `stream`.

    They are made of the raw bits of Philox: what NumPy's own distributions make of them may change
    from version to version.
    """

    def __init__(self, seed: int, stream: int) -> None:
        self._bits = raw_bits(seed, stream)

    def below(self, end: int) -> int:
        """A whole number in [0, end)."""
        return int(self._bits.random_raw()) % end

    def fractions(self, count: int) -> npt.NDArray[np.float64]:
        """Numbers in [0, 1), (count,)."""
        raw = np.asarray(self._bits.random_raw(count), np.uint64)
        return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def choose(self, count: int, end: int) -> list[int]:
        """`count` different whole numbers of [0, end), ascending."""
        numbers = list(range(end))
        return sorted(numbers.pop(self.below(len(numbers))) for _ in range(count))


class MadeUpReader(Reader):
    """Base of the readers that make their examples up.

    examples, valid_examples, test_examples: how many there are in each part; seed: other examples
    for another seed.
    """

    examples: Some = 10_000
    valid_examples: Count = 1_000
    test_examples: Count = 1_000
    seed: Count = 0

    def _draws(self) -> Iterator[tuple[str, Draws]]:
        """The split of each example, and what it is drawn from."""
        counts = (self.examples, self.valid_examples, self.test_examples)
        for stream, (split, count) in enumerate(zip(SPLITS, counts, strict=True)):
            draws = Draws(self.seed, stream)
            for _ in range(count):
                yield split, draws
