"""A mean over rows that come in batches, whatever the batches."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

# The smallest positive float64 is 2**-1074: every finite one is a whole number of them.
_UNIT_BITS = 1074


@dataclass(frozen=True)
class Mean:
    """A sum and the count that divides it: ``sum(batches, Mean()).value()``.

    The sum is exact, a whole number of 2**-1074, so that neither the order of what was added nor
    its batches change the mean, which is rounded once.
    """

    total: int = 0
    count: int = 0
    not_finite: float = 0.0  # the sum of the summands that are infinite or nan

    @classmethod
    def of(cls, summands: Iterable[float], count: int) -> Mean:
        """The mean of ``summands`` where each of them is a sum itself, over ``count`` in all."""
        total, not_finite = 0, 0.0
        for summand in summands:
            if math.isfinite(summand):
                numerator, denominator = summand.as_integer_ratio()  # the latter a power of two
                total += numerator << (_UNIT_BITS + 1 - denominator.bit_length())
            else:
                not_finite += summand
        return cls(total, count, not_finite)

    def __add__(self, other: Mean) -> Mean:
        return Mean(
            self.total + other.total,
            self.count + other.count,
            self.not_finite + other.not_finite,
        )

    def value(self) -> float:
        """Sum over count; nan where the count is 0."""
        if self.count == 0:
            return math.nan
        if self.not_finite != 0:
            return self.not_finite
        try:
            return self.total / (self.count << _UNIT_BITS)
        except OverflowError:
            return math.inf if self.total > 0 else -math.inf
