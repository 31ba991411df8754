"""The check of losses."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from rnnfarm.equations.parts import Loss
from rnnfarm.nn.loss import LossFunction
from rnnfarm.testing.tools import (
    TOLERANCE,
    Array,
    check_made_again,
    difference,
    gradient_error,
    require,
)


def check_loss(
    loss: Loss,
    *,
    width: int = 5,
    target: Array | None = None,
    largest: float = 100.0,
    tolerance: float = TOLERANCE,
) -> None:
    """Check a loss: gradients, steps that do not count, splitting into lanes, extreme outputs.

    Args:
        loss: the loss with its settings.
        width: the width of the target, or the number of classes.
        target: ``(T, B, width)`` values or ``(T, B)`` classes; random ones if absent, values
            between 0 and 1.
        largest: outputs of ± this have to give finite numbers in float32.
        tolerance: the relative error that is allowed.
    """
    check_made_again(loss)
    name = type(loss).__name__
    rng = np.random.default_rng(0)
    if loss.of_labels:
        _check_labels(loss, width, largest, tolerance)
        return
    if target is None:
        classes = loss.target_kind == "classes"
        target = (
            rng.integers(0, width, (4, 6)) if classes else rng.uniform(0.05, 0.95, (4, 6, width))
        )
    window = (target.shape[0], target.shape[1])
    output = rng.standard_normal((*window, loss.outputs(width)))
    valid = rng.random(window) < 0.7
    measure = LossFunction(loss, loss.outputs(width), width, "float64")
    with np.errstate(all="ignore"):
        gradient = np.full_like(output, np.nan)
        total = measure(output, target, valid, gradient)
        require(math.isfinite(total.total), f"{name}: is not finite for ordinary outputs")
        _check_uses_output(name, gradient, valid)
        require(
            total == measure(output, target, valid),
            f"{name}: gives another sum where no gradient is asked for",
        )
        _check_count(loss, name, total.count, int(valid.sum()))
        _check_invalid(measure, (output, target, valid), gradient, total.total)
        _check_loss_gradient(measure, (output, target, valid), gradient, tolerance)
        _check_lanes(measure, (output, target, valid), gradient, total.total)
        _check_extremes(loss, (output, target, valid), width, largest)


def _check_labels(loss: Loss, width: int, largest: float, tolerance: float) -> None:
    """A loss whose target is a list of labels (L, B) for each sequence, 0 after the last one."""
    rng = np.random.default_rng(0)
    output = rng.standard_normal((9, 6, loss.outputs(width)))
    target = rng.integers(1, width, (3, 6))
    target[2, ::2] = 0
    valid = np.arange(9)[:, None] < rng.integers(7, 10, 6)
    measure = LossFunction(loss, loss.outputs(width), width, "float64")
    with np.errstate(all="ignore"):
        gradient = np.full_like(output, np.nan)
        total = measure(output, target, valid, gradient)
        _check_uses_output(type(loss).__name__, gradient, valid)
        _check_loss_gradient(measure, (output, target, valid), gradient, tolerance)
        _check_lanes(measure, (output, target, valid), gradient, total.total)
        _check_extremes(loss, (output, target, valid), width, largest)


def _check_uses_output(name: str, gradient: Array, valid: Array) -> None:
    require(
        gradient[valid].any(),
        f"{name}: nothing of it depends on the output, so that nothing can be learned; compute it "
        "from both arguments of step",
    )


def _check_count(loss: Loss, name: str, count: int, valid: int) -> None:
    ignores = type(loss).ignored is not Loss.ignored
    require(
        count == valid or (ignores and count < valid),
        f"{name}: it counts {count} steps, and {valid} are valid",
    )


def _check_loss_gradient(
    measure: LossFunction, numbers: tuple[Array, Array, Array], found: Array, tolerance: float
) -> None:
    output, target, valid = numbers
    expected = difference(lambda: measure(output, target, valid).total, output)
    error = gradient_error(found, expected)
    require(
        error <= tolerance,  # also where error is NaN
        f"{type(measure.loss).__name__}: its gradient differs from central differences by "
        f"{error:.1e}, relative to its largest element; {tolerance:.0e} is allowed",
    )


def _check_invalid(
    measure: LossFunction, numbers: tuple[Array, Array, Array], gradient: Array, total: float
) -> None:
    """Padding may hold anything."""
    name = type(measure.loss).__name__
    output, target, valid = numbers
    output, target = output.copy(), target.copy()
    require(not gradient[~valid].any(), f"{name}: steps that are not valid get a gradient")
    output[~valid] = np.nan
    target[~valid] = -100 if target.ndim == 2 else np.nan
    found = np.full_like(output, np.nan)
    again = measure(output, target, valid, found)
    require(
        again.total == total and np.array_equal(found, gradient),
        f"{name}: what stands at steps that are not valid changes its result",
    )


def _check_lanes(
    measure: LossFunction, numbers: tuple[Array, Array, Array], gradient: Array, total: float
) -> None:
    """Rows belong to lanes, which are computed apart and at the same time."""
    name = type(measure.loss).__name__

    def lane(rows: slice) -> tuple[float, Array]:
        part = tuple(np.ascontiguousarray(a[:, rows]) for a in numbers)
        found = np.full_like(part[0], np.nan)
        return measure(part[0], part[1], part[2], found).total, found

    cut = [slice(0, 2), slice(2, None)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lane, cut * 8))
    for sum_, found in results[2:]:
        same = [r for r in results[:2] if r[0] == sum_ and np.array_equal(r[1], found)]
        require(same, f"{name}: two threads that use it at the same time disturb each other")
    require(
        math.isclose(results[0][0] + results[1][0], total, rel_tol=1e-9, abs_tol=1e-12)
        and np.allclose(np.concatenate([r[1] for r in results[:2]], 1), gradient, 1e-9, 1e-12),
        f"{name}: the sum over rows is not the sum of what its rows give",
    )


def _check_extremes(
    loss: Loss, numbers: tuple[Array, Array, Array], width: int, largest: float
) -> None:
    output, target, valid = numbers
    measure = LossFunction(loss, loss.outputs(width), width, "float32")
    far = np.where(output > 0, largest, -largest).astype(np.float32)
    found = np.empty_like(far)
    if target.ndim == 3:
        target = target.astype(np.float32)
    total = measure(far, target, valid, found)
    require(
        math.isfinite(total.total) and np.isfinite(found).all(),
        f"{type(loss).__name__}: for outputs of ±{largest:g} it is not finite in float32; write it "
        "so that nothing overflows (subtract row_max before exp, use softplus)",
    )
