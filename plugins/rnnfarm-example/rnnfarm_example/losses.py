"""A loss, as its equation of one step."""

from __future__ import annotations

import math
from typing import Any

from rnnfarm import Loss, softplus


class LogCosh(Loss):
    """log cosh(output - target): half the square of a small error, the size of a large one.

    Written with softplus, since cosh overflows: log cosh e = |e| + log(1 + exp(-2|e|)) - log 2.
    """

    def step(self, output: Any, target: Any) -> Any:
        size = abs(output - target)
        return size + softplus(-2 * size) - math.log(2)
