"""Tokens that a cell reads as one-hot vectors, without making any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rnnfarm.equations.graph import Parameter
from rnnfarm.nn.layer import Arrays, FloatArray, Pass, flat


class Gather:
    """The rows of weight matrices at each token, side by side; ``(T, B)`` → ``(T, B, W)``.

    Args:
        name: the layer's.
        weights: the matrices, ``(V, ·)`` each, as the layer calls them.
        turned: whether the steps are given from the last to the first.
    """

    def __init__(self, name: str, weights: tuple[Parameter, ...], turned: bool = False) -> None:
        self.name, self.weights, self.turned = name, weights, turned
        self.width = sum(weight.shape[1] for weight in weights)

    def forward(
        self, parameters: Arrays, x: Any, run: Pass
    ) -> tuple[FloatArray, Callable[[FloatArray, Arrays], None]]:
        """The rows, and ``backward(d_rows, gradients)``."""
        device, memory = run.device, run.memory
        dtype = parameters[f"{self.name}.{self.weights[0].name}"].dtype
        whole = memory.array(f"{self.name}.gathered", (*x.shape, self.width), dtype)
        position = 0
        for weight in self.weights:
            width = weight.shape[1]
            part = memory.array(f"{self.name}.rows", (*x.shape, width), dtype)
            device.take_rows(parameters[f"{self.name}.{weight.name}"], x, part)
            device.copy_columns(part, 0, whole, position, width, turned=self.turned)
            position += width

        def backward(d_rows: FloatArray, gradients: Arrays) -> None:
            position = 0
            for weight in self.weights:
                width = weight.shape[1]
                part = memory.array(f"{self.name}.rows", (*x.shape, width), dtype)
                device.copy_columns(d_rows, position, part, 0, width, turned=self.turned)
                gradient = gradients[f"{self.name}.{weight.name}"]
                device.clear(gradient)
                device.add_rows(gradient, x.reshape(-1), flat(part))
                position += width

        return whole, backward
