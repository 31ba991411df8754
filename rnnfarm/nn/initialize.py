"""The values that a run's parameters start with."""

from __future__ import annotations

from rnnfarm.equations.graph import Parameter
from rnnfarm.kernels.draw import Values, drawn
from rnnfarm.nn.random import INITIALIZE, generator


def initial_values(parameter: Parameter, name: str, seed: int) -> Values:
    """The initial values of a parameter that is called ``name`` in the arena, in its shape.

    Raises CellError for an initialiser that there is not.
    """
    whole = name if parameter.share is None else parameter.share.whole
    return drawn(parameter, generator(seed, INITIALIZE, layer=whole))
