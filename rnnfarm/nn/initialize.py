"""Initial values of parameters.

An initialiser is a text, ``NAME`` or ``NAME:NUMBER``:

================== =============================================================================
``zeros ones``     constants
``constant:V``     every element V
``uniform:L``      uniform in [-L, L]
``normal:S``       normal with standard deviation S
``glorot_uniform`` uniform, limit sqrt(6 / (inputs + outputs)) (Glorot and Bengio 2010)
``he_normal``      normal, standard deviation sqrt(2 / inputs) (He et al. 2015)
``orthogonal``     a random orthogonal matrix (Saxe et al. 2014)
``identity``       ones on the diagonal (Le et al. 2015)
================== =============================================================================

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
    name, _, number = init.partition(":")
    if name not in _INITIALIZERS:
        raise CellError(
            f"parameter {parameter!r}: there is no initialiser {init!r}; "
            + suggestion(name, _INITIALIZERS)
        )
    try:
        value = float(number) if number else 1.0
    except ValueError:
        raise CellError(
            f"parameter {parameter!r}: the initialiser {init!r} needs a number after ':'"
        ) from None
    if name in ("orthogonal", "identity") and len(shape) != 2:
        raise CellError(f"parameter {parameter!r}: {init!r} is for matrices; it is a vector")
    return _INITIALIZERS[name](shape, value, random)


def _glorot(shape: tuple[int, ...], _: float, random: np.random.Generator) -> Values:
    limit = np.sqrt(6.0 / (shape[0] + shape[-1]))
    return random.uniform(-limit, limit, shape)


def _orthogonal(shape: tuple[int, ...], gain: float, random: np.random.Generator) -> Values:
    rows, columns = shape
    normal = random.standard_normal((max(shape), min(shape)))
    with threadpool_limits(1):  # the last bits of a LAPACK result depend on its threads
        q, r = np.linalg.qr(normal)
    q = q * np.sign(np.diagonal(r))  # makes the distribution uniform (Mezzadri 2007)
    matrix: Values = gain * (q if rows >= columns else q.T)
    return matrix


_INITIALIZERS: dict[str, Callable[[tuple[int, ...], float, np.random.Generator], Values]] = {
    "zeros": lambda shape, _, random: np.zeros(shape),
    "ones": lambda shape, _, random: np.ones(shape),
    "constant": lambda shape, value, random: np.full(shape, value),
    "uniform": lambda shape, limit, random: random.uniform(-limit, limit, shape),
    "normal": lambda shape, deviation, random: random.normal(0.0, deviation, shape),
    "glorot_uniform": _glorot,
    "he_normal": lambda shape, _, random: random.normal(0.0, np.sqrt(2.0 / shape[0]), shape),
    "orthogonal": _orthogonal,
    "identity": lambda shape, gain, random: gain * np.eye(shape[0], shape[1]),
}
