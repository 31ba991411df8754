"""The arena: one contiguous array that holds all parameters of a network.

Gradients and optimizer states have the same layout, so that an optimizer is one pass over memory
and a reduction is one addition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rnnfarm.equations.graph import Parameter
from rnnfarm.errors import JobError
from rnnfarm.nn.initialize import initial_values


class Segment(NamedTuple):
    """A part of the arena that is updated alike.

    Attributes:
        start, stop: its elements.
        decay: whether weight decay applies.
        bound: between which two values every update is brought back, or None.
    """

    start: int
    stop: int
    decay: bool
    bound: tuple[float, float] | None = None


@dataclass(frozen=True)
class Layout:
    """Where each parameter lies in the arena.

    Attributes:
        parameters: by name, in the order of the arena: those that decay first.
        starts: the first element of each.
        size: the number of elements.
    """

    parameters: dict[str, Parameter]
    starts: dict[str, int]
    size: int

    @staticmethod
    def of(parameters: Mapping[str, Parameter]) -> Layout:
        """Lay out parameters; weights that decay first, so that each kind is one segment."""
        order = sorted(parameters, key=lambda name: not parameters[name].decay)
        starts, position = {}, 0
        for name in order:
            starts[name] = position
            position += int(np.prod(parameters[name].shape))
        return Layout({name: parameters[name] for name in order}, starts, position)

    @property
    def segments(self) -> list[Segment]:
        """The arena's segments in order; neighbours that are updated alike are one."""
        found: list[Segment] = []
        for name, parameter in self.parameters.items():
            start = self.starts[name]
            stop = start + int(np.prod(parameter.shape))
            kind = parameter.decay, parameter.bound
            if found and found[-1][2:] == kind:
                start = found.pop().start
            found.append(Segment(start, stop, *kind))
        return found

    def views(self, arena: npt.NDArray[np.floating]) -> dict[str, npt.NDArray[np.floating]]:
        """Every parameter as a view of the arena, in its own shape."""
        return {
            name: arena[start : start + int(np.prod(self.parameters[name].shape))].reshape(
                self.parameters[name].shape
            )
            for name, start in self.starts.items()
        }

    def initialized(self, seed: int, dtype: str) -> npt.NDArray[np.floating]:
        """A new arena with initial values; each parameter's depend on the seed and its name.

        Raises JobError where there is no memory for it.
        """
        try:
            arena = np.zeros(self.size, dtype)
        except (MemoryError, ValueError):  # more than there is, more than can be addressed
            gigabytes = self.size * np.dtype(dtype).itemsize / 1e9
            raise JobError(
                f"model: its {self.size:,} parameters take {gigabytes:,.0f} GB, which cannot be "
                "had here; lower model.input.size or the layers' hidden"
            ) from None
        for name, view in self.views(arena).items():
            view[...] = initial_values(self.parameters[name], name, seed)
        return arena
