"""The GPU as the core sees it: where a network's arrays lie, and what is done with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rnnfarm.kernels.device import Device, HostArray
from rnnfarm_cupy.runtime import Array, Runtime


class CUDADevice(Device):
    """Arrays of one runtime."""

    name = "cuda"

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    def put(self, array: HostArray) -> Any:
        return self.runtime.put(array)

    def get(self, array: Array) -> HostArray:
        return self.runtime.get(array)

    def joined(self, arrays: Sequence[Array]) -> Array:
        """Matrices of as many rows, side by side."""
        raise NotImplementedError
