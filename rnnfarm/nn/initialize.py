"""Initial values of parameters.

An initialiser is a text, ``NAME`` or ``NAME:NUMBER``; without its numbers one takes 1 for each:

===================== ==========================================================================
``zeros ones``        constants
``constant:V``        every element V
``linspace:LOW:HIGH`` from LOW at the first unit to HIGH at the last
``uniform:L``         uniform in [-L, L]
``normal:S``          normal with standard deviation S
``chrono:T``          log of uniform in [1, T - 1]: a forget bias for memories of up to T steps
                      (Tallec and Ollivier 2018)
``glorot_uniform``    uniform, limit sqrt(6 / (inputs + outputs)) (Glorot and Bengio 2010)
``he_normal``         normal, standard deviation sqrt(2 / inputs) (He et al. 2015)
``orthogonal:GAIN``   GAIN times a random orthogonal matrix (Saxe et al. 2014)
``identity:GAIN``     GAIN on the diagonal (Le et al. 2015)
===================== ==========================================================================

A matrix made of gates is initialised gate by gate, so that the widths count as one gate's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from rnnfarm.equations.graph import Parameter
from rnnfarm.errors import CellError, suggestion
from rnnfarm.nn.random import INITIALIZE, generator

Values = npt.NDArray[np.float64]


def initial_values(parameter: Parameter, name: str, seed: int) -> Values:
    """The initial values of a parameter that is called ``name`` in the arena, in its shape.

    Raises CellError for an initialiser that there is not.
    """
    random = generator(seed, INITIALIZE, layer=name)
    gates = len(parameter.init)
    shape = (*parameter.shape[:-1], parameter.shape[-1] // gates)
    blocks = [_draw(init, shape, random, parameter.name) for init in parameter.init]
    return np.concatenate(blocks, axis=-1)


def _draw(init: str, shape: tuple[int, ...], random: np.random.Generator, parameter: str) -> Values:
    name, *texts = init.split(":")
    if name not in _INITIALIZERS:
        raise CellError(
            f"parameter {parameter!r}: there is no initialiser {init!r}; "
            + suggestion(name, _INITIALIZERS)
        )
    draw, wanted = _INITIALIZERS[name]
    try:
        numbers = [float(text) for text in texts] or [1.0] * wanted
    except ValueError:
        numbers = []
    if len(numbers) != wanted:
        form = ":".join([name, *["NUMBER"] * wanted])
        raise CellError(f"parameter {parameter!r}: the initialiser {init!r} is written {form}")
    if name in ("orthogonal", "identity") and len(shape) != 2:
        raise CellError(f"parameter {parameter!r}: {init!r} is for matrices; it is a vector")
    return draw(shape, random, *numbers)


def _glorot(shape: tuple[int, ...], random: np.random.Generator) -> Values:
    limit = np.sqrt(6.0 / (shape[0] + shape[-1]))
    return random.uniform(-limit, limit, shape)


def _orthogonal(shape: tuple[int, ...], random: np.random.Generator, gain: float) -> Values:
    rows, columns = shape
    normal = random.standard_normal((max(shape), min(shape)))
    with threadpool_limits(1):  # the last bits of a LAPACK result depend on its threads
        q, r = np.linalg.qr(normal)
    q = q * np.sign(np.diagonal(r))  # makes the distribution uniform (Mezzadri 2007)
    matrix: Values = gain * (q if rows >= columns else q.T)
    return matrix


#: What draws the values, and how many numbers it takes.
_INITIALIZERS: dict[str, tuple[Callable[..., Values], int]] = {
    "zeros": (lambda shape, random: np.zeros(shape), 0),
    "ones": (lambda shape, random: np.ones(shape), 0),
    "constant": (lambda shape, random, value: np.full(shape, value), 1),
    "linspace": (
        lambda shape, random, low, high: np.zeros(shape) + np.linspace(low, high, shape[-1]),
        2,
    ),
    "uniform": (lambda shape, random, limit: random.uniform(-limit, limit, shape), 1),
    "normal": (lambda shape, random, deviation: random.normal(0.0, deviation, shape), 1),
    "chrono": (lambda shape, random, steps: np.log(random.uniform(1.0, steps - 1.0, shape)), 1),
    "glorot_uniform": (_glorot, 0),
    "he_normal": (lambda shape, random: random.normal(0.0, np.sqrt(2.0 / shape[0]), shape), 0),
    "orthogonal": (_orthogonal, 1),
    "identity": (lambda shape, random, gain: gain * np.eye(shape[0], shape[1]), 1),
}
