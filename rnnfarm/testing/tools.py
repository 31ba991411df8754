"""What the checks share: their sentence, differences, and how settings are tried."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnfarm.kernels.case import Case
from rnnfarm.settings import Part

Array = npt.NDArray[Any]
TOLERANCE = 1e-6


def require(condition: object, message: str) -> None:
    if not condition:  # no assert statement: python -O would drop it
        raise AssertionError(message)


def difference(function: Callable[[], float], variable: Array, step: float = 1e-5) -> Array:
    """The central differences of ``function`` by each element of ``variable``.

    ``function`` reads ``variable``, which is changed in place and restored.
    """
    result = np.zeros(variable.shape)
    for place in np.ndindex(variable.shape):
        value = variable[place]
        variable[place] = value + step
        above = function()
        variable[place] = value - step
        result[place] = (above - function()) / (2 * step)
        variable[place] = value
    return result


def gradient_error(found: Array, expected: Array) -> float:
    """The largest difference, relative to the largest gradient.

    A gradient that is about zero is compared with what differences can resolve.
    """
    error = np.abs(found - expected).max(initial=0.0)
    return float(error / max(np.abs(expected).max(initial=0.0), 1e-3))


def check_gradients(case: Case, tolerance: float = TOLERANCE) -> None:
    """All gradients of a float64 case agree with central differences."""
    who = f"{case.plan.cell} at (T, B, I, H) = {sizes_of(case)}"
    value = case.loss()
    require(math.isfinite(value), f"{who}: its output is not finite for ordinary numbers")
    found = case.backward()
    for name, variable in case.variables().items():
        require(np.isfinite(found[name]).all(), f"{who}: the gradient of {name} is not finite")
        error = gradient_error(found[name], difference(case.loss, variable))
        require(
            error <= tolerance,
            f"{who}: the gradient of {name} differs from central differences by {error:.1e}, "
            f"relative to its largest element; {tolerance:.0e} is allowed",
        )


def sizes_of(case: Case) -> tuple[int, ...]:
    return (*case.x.shape, case.plan.hidden)


def check_made_again(part: Part) -> None:
    """A part comes from a job file and goes into one: its settings are plain and complete."""
    require(
        isinstance(part, Part),
        f"{part!r} is no part with its settings; make one, such as check_cell(MyCell())",
    )
    who = type(part).__name__
    try:
        settings = json.loads(json.dumps(part.settings()))
        again = type(part)(**settings).settings()
    except Exception as error:
        raise AssertionError(
            f"{who}: cannot be made again from its own settings {part.settings()} ({error}); "
            "a checkpoint and a resumed run need that"
        ) from error
    require(again == settings, f"{who}: made from the settings {settings} it has {again}")
