"""The axes of charts: where a value lies, which values have a tick, and how each is written."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

#: Below this a double has lost digits, and 10 ** k is 0 in the end.
TINY = 1e-300
#: The last power of ten that is a double.
LAST = 308
LARGEST = sys.float_info.max


class Axis:
    """Where a value lies between two ends, in pixels, and the ticks.

    Args:
        values: what has to fit; finite, and above 0 on a logarithmic axis.
        log: whether the axis is logarithmic.
        whole: whether values are counts, which no tick lies between.
    """

    def __init__(
        self,
        values: Sequence[float],
        start: float,
        end: float,
        log: bool = False,
        whole: bool = False,
    ) -> None:
        self.start, self.end = start, end
        self.log = log
        low, high = min(values), max(values)
        if log:
            self._by_powers(max(low, TINY), max(high, TINY))
        elif high / 5 - low / 5 <= max(TINY, 1e-12 * max(abs(low), abs(high))):
            self._around(low)
        else:
            self.low, self.high = low, high
            step = nice(high / 5 - low / 5)
            self.step = max(1.0, step) if whole else step
            first, last = math.ceil(low / self.step - 1e-9), math.floor(high / self.step + 1e-9)
            self.ticks = [k * self.step for k in range(first, last + 1)] or [low]

    def _around(self, value: float) -> None:
        """One tick, at the only value that there is."""
        margin = abs(value) / 2 if abs(value) > TINY else 1.0
        self.low, self.high = max(value - margin, -LARGEST), min(value + margin, LARGEST)
        self.ticks, self.step = [value], 0.0

    def _by_powers(self, low: float, high: float) -> None:
        self.low = math.floor(math.log10(low))
        self.high = max(math.ceil(math.log10(high)), self.low + 1)
        stride = math.ceil((self.high - self.low) / 6)
        self.ticks = [10.0**k for k in range(int(self.low), min(int(self.high), LAST) + 1, stride)]
        self.step = 0.0

    def __call__(self, value: float) -> float:
        at = math.log10(max(value, TINY)) if self.log else value
        # Halves, since the difference of two large numbers may overflow.
        share = (at / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        return self.start + share * (self.end - self.start)

    def label(self, tick: float) -> str:
        """A tick as text, with as many digits as tell it from its neighbours."""
        return number(tick, self.step)


def nice(step: float) -> float:
    """The next of 1, 2, 5, 10, 20, … from ``step`` on."""
    size: float = 10.0 ** math.floor(math.log10(step))
    return next(size * k for k in (1, 2, 5, 10) if size * k >= step * 0.999)


def number(value: float, step: float = 0.0) -> str:
    """A value to six digits, or to the digits of ``step`` where the next value is that far away."""
    if not math.isfinite(value):
        return "-"
    if not value or abs(value) < step / 2:
        return "0"
    size = math.floor(math.log10(abs(value)))
    digits = 6 if not step else min(17, max(1, size - math.floor(math.log10(step) + 1e-9) + 1))
    if not -3 <= size < 6:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        if "." in mantissa:
            mantissa = mantissa.rstrip("0").rstrip(".")
        return f"{mantissa}e{int(exponent)}"
    text = f"{value:,.{max(0, digits - 1 - size)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
