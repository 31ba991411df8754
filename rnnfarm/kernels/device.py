"""Where the arrays of a network lie."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

HostArray = npt.NDArray[Any]


class Device(ABC):
    """A kind of memory, and what is done with arrays in it.

    Arrays of any device can be sliced and reshaped without a copy, and have a shape and a dtype.
    """

    name: str

    @abstractmethod
    def put(self, array: HostArray) -> Any:
        """A host's array on the device; the same one where that is the host."""

    @abstractmethod
    def get(self, array: Any) -> HostArray:
        """A device's array on the host; the same one where that is the host."""


class Host(Device):
    """The CPU, whose arrays are NumPy's."""

    name = "cpu"

    def put(self, array: HostArray) -> Any:
        return array

    def get(self, array: Any) -> HostArray:
        return np.asarray(array)


HOST = Host()
