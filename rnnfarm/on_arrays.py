"""A loss or an optimizer on plain arrays, for notebooks and tests of plugins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnfarm.equations.parts import Loss, Optimizer
from rnnfarm.nn.loss import LossFunction
from rnnfarm.training.optimizer import OptimizerPass

Array = npt.NDArray[Any]


def evaluate_loss(
    loss: Loss, output: npt.ArrayLike, target: npt.ArrayLike, valid: npt.ArrayLike | None = None
) -> tuple[float, Array]:
    """Return the mean of a loss over the steps that count, and the gradient of that by the output.

    All is computed in float64.

    Args:
        loss: the loss with its settings, such as ``MyLoss(delta=0.5)``.
        output: ``(T, B, O)``, what a network gives.
        target: ``(T, B)`` classes or ``(T, B, W)`` values.
        valid: ``(T, B)``, whether a step counts; all do if absent.
    """
    given, wanted = np.ascontiguousarray(output, np.float64), np.asarray(target)
    counts = np.ones(given.shape[:2], np.bool_) if valid is None else np.asarray(valid, np.bool_)
    measure = LossFunction(loss, given.shape[-1], wanted.shape[-1], "float64")
    gradient = np.empty_like(given)
    total = measure(given, wanted, counts, gradient)
    share = 1.0 / total.weight if total.weight else 0.0
    return float(total.total) * share, gradient * share


def apply_optimizer(
    optimizer: Optimizer,
    parameters: npt.ArrayLike,
    gradients: npt.ArrayLike,
    states: Mapping[str, Array] | None = None,
    *,
    lr: float | None = None,
    t: int = 1,
) -> tuple[Array, dict[str, Array]]:
    """Return parameters after one update, and the optimizer's states after it, in float64.

    Args:
        optimizer: the optimizer with its settings.
        parameters: of any shape.
        gradients: of the same shape.
        states: what the update before has given; zeros if absent.
        lr: the learning rate of this update; the optimizer's own if absent.
        t: the number of this update, from 1.
    """
    before = np.array(parameters, np.float64)
    update = OptimizerPass(optimizer, [(0, before.size, True)], "float64")
    flat = before.reshape(-1)
    kept = update.states(before.size)
    for name, array in kept.items():
        array[...] = 0.0 if states is None else np.asarray(states[name]).reshape(-1)
    slope = np.array(gradients, np.float64).reshape(-1)
    update.apply(flat, slope, kept, optimizer.lr if lr is None else lr, t)
    return before, {name: array.reshape(before.shape) for name, array in kept.items()}
