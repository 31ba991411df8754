"""Draws parameters, as ``rnnfarm.equations.initial`` names their initialisers.

A matrix made of gates is drawn gate by gate, so that the widths count as one gate's; one that has a
`share` of a larger matrix gets its columns of that.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from rnnfarm.equations.graph import Parameter
from rnnfarm.equations.initial import OF_MATRICES, parse
from rnnfarm.errors import CellError

Values = npt.NDArray[np.float64]


def drawn(parameter: Parameter, random: np.random.Generator) -> Values:
    """Return the initial values of a parameter in its shape.

    Raises CellError for an initialiser that there is not.
    """
    share, width = parameter.share, parameter.shape[-1]
    columns = width if share is None else share.columns
    shape = (*parameter.shape[:-1], columns // len(parameter.init))
    blocks = [_draw(init, shape, random, parameter.name) for init in parameter.init]
    values = np.concatenate(blocks, axis=-1)
    if share is not None:
        values = values[:, share.first : share.first + width]
    return values if parameter.bound is None else np.clip(values, *parameter.bound)


def drawn_around(parameter: Parameter, random: np.random.Generator) -> Values:
    """Return values near those that the parameter begins with, none of which is left at 0.

    Each is changed by some tenths of itself, so that one which has to be above 0 stays there.
    """
    start = drawn(parameter, random)
    change = np.clip(random.standard_normal(start.shape), -2.5, 2.5)
    values: Values = np.where(start == 0.0, 0.5 * change, start * (1.0 + 0.2 * change))
    return values if parameter.bound is None else np.clip(values, *parameter.bound)


def _draw(init: str, shape: tuple[int, ...], random: np.random.Generator, parameter: str) -> Values:
    try:
        name, numbers = parse(init)
    except ValueError as error:
        raise CellError(f"parameter {parameter!r}: {error}") from None
    if name in OF_MATRICES and len(shape) != 2:
        raise CellError(f"parameter {parameter!r}: {init!r} is for matrices; it is a vector")
    return _DRAWS[name](shape, random, *numbers)


def _uniform(random: np.random.Generator, square: float, shape: tuple[int, ...]) -> Values:
    """Uniform up to a limit, of which this is the square."""
    limit = np.sqrt(square)
    return random.uniform(-limit, limit, shape)


def _normal(random: np.random.Generator, variance: float, shape: tuple[int, ...]) -> Values:
    return random.normal(0.0, np.sqrt(variance), shape)


def _orthogonal(shape: tuple[int, ...], random: np.random.Generator, gain: float) -> Values:
    rows, columns = shape
    normal = random.standard_normal((max(shape), min(shape)))
    with threadpool_limits(1):  # the last bits of a LAPACK result depend on its threads
        q, r = np.linalg.qr(normal)
    q = q * np.sign(np.diagonal(r))  # makes the distribution uniform (Mezzadri 2007)
    matrix: Values = gain * (q if rows >= columns else q.T)
    return matrix


#: What draws the values.
_DRAWS: dict[str, Callable[..., Values]] = {
    "zeros": lambda shape, random: np.zeros(shape),
    "ones": lambda shape, random: np.ones(shape),
    "constant": lambda shape, random, value: np.full(shape, value),
    "linspace": lambda shape, random, low, high: (
        np.zeros(shape) + np.linspace(low, high, shape[-1])
    ),
    "uniform": lambda shape, random, limit: random.uniform(-limit, limit, shape),
    "triangular": lambda shape, random, limit: random.triangular(-limit, 0.0, limit, shape),
    "normal": lambda shape, random, deviation: random.normal(0.0, deviation, shape),
    "chrono": lambda shape, random, steps: np.log(random.uniform(1.0, steps - 1.0, shape)),
    "glorot_uniform": lambda shape, random: _uniform(random, 6 / (shape[0] + shape[-1]), shape),
    "glorot_normal": lambda shape, random: _normal(random, 2 / (shape[0] + shape[-1]), shape),
    "he_uniform": lambda shape, random: _uniform(random, 6 / shape[0], shape),
    "he_normal": lambda shape, random: _normal(random, 2 / shape[0], shape),
    "lecun_uniform": lambda shape, random: _uniform(random, 3 / shape[0], shape),
    "orthogonal": _orthogonal,
    "identity": lambda shape, random, gain: gain * np.eye(shape[0], shape[1]),
}
