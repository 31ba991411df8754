"""Two cells that are in none of the usual libraries; their gradients are derived."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from rnnfarm import Cell, affine, layer_norm, relu, sigmoid, tanh

Positive = Annotated[float, Field(gt=0)]


class LiGRU(Cell):
    """The light gated recurrent unit (Ravanelli et al. 2018): no reset gate, and relu.

    The paper normalises what comes from the input over the batch; a row here must not depend on
    the other rows, so it is normalised over the units instead.
    """

    def step(self, x: Any, h: Any) -> Any:
        z, a = affine(x, gates=("z", "a"), name="input")
        u, v = affine(h, gates=("z", "a"), bias=False, name="recurrent")
        z = sigmoid(layer_norm(z) + u)
        return z * h + (1 - z) * relu(layer_norm(a) + v)


class CoRNN(Cell):
    """Coupled oscillators (Rusch and Mishra 2021): each unit is a damped, driven pendulum.

    dt: the time that one step takes; gamma, epsilon: how stiff and how damped the oscillators are.
    """

    states = ("y", "z")
    dt: Positive = 0.05
    gamma: Positive = 2.0
    epsilon: Positive = 4.0

    def step(self, x: Any, y: Any, z: Any) -> Any:
        force = tanh(affine(x, y, z))
        z = z + self.dt * (force - self.gamma * y - self.epsilon * z)
        return y + self.dt * z, z
