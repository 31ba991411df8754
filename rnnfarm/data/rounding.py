"""What is lost where values are kept as float32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from rnnfarm.data.dataset import Dataset

#: dtypes whose every value is one of float32.
EXACT = ("bool", "int8", "uint8", "int16", "uint16", "float16", "float32")
#: The part of a feature's range within which it is no longer told apart.
COARSE = 1e-4


def precision_note(dtype: str, dataset: Dataset) -> str | None:
    """Where a run in ``dtype`` computes with more digits than its data have."""
    kept = [name for name, column in dataset.columns.items() if column.dtype == "float32"]
    if dtype != "float64" or not kept:
        return None
    return (
        f"training.dtype = 'float64' computes in float64, but {dataset.path} keeps its values "
        f"({', '.join(kept)}) as float32: about seven digits of them are read"
    )


class Rounding:
    """Follows the values of a column, and says what float32 does not keep of them.

    Rounding at the seventh digit is said only where it matters: where it is coarse beside the range
    of a feature (seconds since 1970), or changes whole numbers (ids from 2**24 on).
    """

    def __init__(self) -> None:
        self._error: npt.NDArray[np.floating] | None = None

    def see(self, values: npt.NDArray[Any]) -> None:
        """Take note of values (…, F)."""
        if values.dtype.name in EXACT or not values.size:
            return
        counts = values.dtype.kind in "iu"
        exact = values.astype(np.longdouble if counts else np.float64)
        exact = exact.reshape(-1, values.shape[-1])
        error = np.abs(exact - exact.astype(np.float32))
        low, high, error_of_all = exact.min(0), exact.max(0), error.max(0)
        # A float is a count where it is whole and small enough to have been told from the next one.
        whole = counts | ((np.rint(exact) == exact) & (np.abs(exact) < 2.0**53))
        whole = np.where(whole, error, 0).max(0)
        if self._error is None:
            self._low, self._high, self._error, self._whole = low, high, error_of_all, whole
            return
        self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)
        self._error = np.maximum(self._error, error_of_all)
        self._whole = np.maximum(self._whole, whole)

    def note(self, name: str) -> str | None:
        """What is lost of the column ``name``, if it is much."""
        if self._error is None:
            return None
        coarse = (self._error > COARSE * (self._high - self._low)) & (self._high > self._low)
        wrong = np.flatnonzero(coarse | (self._whole > 0))
        if not len(wrong):
            return None
        first = int(wrong[0])
        others = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        return (
            f"column '{name}': values of feature {first}{others}, which go from "
            f"{self._low[first]:.10g} to {self._high[first]:.10g}, are kept as float32 and so to "
            f"within {self._error[first]:.3g} only; subtract an offset or divide them before they "
            "are saved, or give ids as tokens"
        )
