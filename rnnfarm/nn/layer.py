"""What a layer is, and what one pass through the network gives it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnfarm.equations.graph import Parameter
from rnnfarm.kernels.device import HOST, Device
from rnnfarm.nn.random import generator

FloatArray = npt.NDArray[np.floating]
Arrays = Mapping[str, FloatArray]
#: ``backward(d_output, gradients, records) -> d_input``: writes the gradients of the layer's
#: parameters, and gives that of its input, or None where that is no number.
Backward = Callable[[FloatArray, Arrays, "dict[str, FloatArray] | None"], "FloatArray | None"]


class Memory:
    """Arrays of one lane that are used again at every window, by name."""

    def __init__(self, device: Device = HOST) -> None:
        self.device = device
        self._arrays: dict[str, Any] = {}
        #: Workspaces of kernels, by the layer and the kernel that they belong to.
        self.workspaces: dict[tuple[str, Any], Any] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        """An array with arbitrary contents, valid until the next request of this name."""
        size = int(np.prod(shape))
        known = self._arrays.get(name)
        if known is None or known.size < size or known.dtype != dtype:
            known = self._arrays[name] = self.device.empty((size,), dtype)
        array: npt.NDArray[Any] = known[:size].reshape(shape)
        return array


@dataclass(frozen=True)
class Pass:
    """One window's way through the network, on one lane.

    Attributes:
        training: whether dropout and zoneout draw.
        seed, step, lane: the key of all random numbers.
        mask, reset: ``(T, B, 1)`` bool, or None where every step counts, where none is reset.
        states: carried states by layer, each a mapping from a state's name to ``(B, H)``.
        carry: after how many steps the states are taken that the next window starts from.
        fed, fed_mask: the tokens ``(L, B)`` that a decoder reads, and which count ``(L, B, 1)``.
        threads: how many threads the pass may use; nothing that it computes depends on it.
        memory: the lane's arrays.
    """

    training: bool
    seed: int
    step: int
    lane: int
    mask: npt.NDArray[np.bool_] | None
    reset: npt.NDArray[np.bool_] | None
    states: Mapping[str, Arrays]
    carry: int
    memory: Memory
    threads: int = 1
    fed: Any = None
    fed_mask: Any = None
    new_states: dict[str, dict[str, FloatArray]] = field(default_factory=dict)

    @property
    def device(self) -> Device:
        """Where the arrays lie."""
        return self.memory.device

    def random(self, purpose: int, layer: str) -> np.random.Generator:
        return generator(self.seed, purpose, self.step, self.lane, layer)


class Layer(ABC):
    """Something with parameters that maps ``(T, B, I)`` to ``(T, B, O)``."""

    name: str
    width: int
    parameters: dict[str, Parameter]

    def check(self, x: npt.NDArray[Any]) -> None:
        """DataError where the host's ``x`` is nothing that the layer can read; of input layers."""
        return

    def zero_states(self, rows: int) -> dict[str, FloatArray]:
        """What it carries on from window to window, before ``rows`` rows have read anything."""
        return {}

    @abstractmethod
    def forward(self, parameters: Arrays, x: Any, run: Pass) -> tuple[FloatArray, Backward]:
        """The output, and what computes the gradients."""


def flat(array: FloatArray) -> FloatArray:
    """``(T, B, W)`` as a matrix of ``T · B`` rows."""
    return array.reshape(-1, array.shape[-1])
