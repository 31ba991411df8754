"""The built-in cells, each as its paper's equations.

``x`` is the step's input, the other arguments of ``step`` are the states of the step before.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from rnnfarm.equations.graph import Symbol
from rnnfarm.equations.language import (
    ACTIVATIONS,
    affine,
    layer_norm,
    parameter,
    relu,
    sigmoid,
    tanh,
)
from rnnfarm.equations.parts import Cell


class Elman(Cell):
    """The simple recurrent network (Elman 1990).

    With ``activation = "relu"`` its recurrent weights start as the identity: the IRNN (Le et al.
    2015).

    activation: what the new state goes through.
    """

    activation: Literal["tanh", "sigmoid", "relu"] = "tanh"

    def step(self, x: Symbol, h: Symbol) -> Symbol:
        init = "identity" if self.activation == "relu" else "orthogonal"
        return ACTIVATIONS[self.activation](affine(x, h, init=init))


class Jordan(Cell):
    """The network whose state is its own output (Jordan 1986); two stages a step.

    activation: what the hidden units go through.
    """

    states = ("y",)
    activation: Literal["tanh", "sigmoid", "relu"] = "tanh"

    def step(self, x: Symbol, y: Symbol) -> Any:
        h = ACTIVATIONS[self.activation](affine(x, y))
        return affine(h)


class LSTM(Cell):
    """Long short-term memory with a forget gate (Gers et al. 2000), forget bias 1.

    forget_bias: what the bias of the forget gate starts from.
    """

    states = ("h", "c")
    forget_bias: float = 1.0

    def step(self, x: Symbol, h: Symbol, c: Symbol) -> tuple[Symbol, Symbol]:
        i, f, g, o = affine(x, h, gates="ifgo", bias={"f": self.forget_bias})
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(c), c


class LSTMPeephole(Cell):
    """LSTM whose gates see the cell state (Gers and Schmidhuber 2000).

    forget_bias: what the bias of the forget gate starts from.
    """

    states = ("h", "c")
    forget_bias: float = 1.0

    def step(self, x: Symbol, h: Symbol, c: Symbol) -> tuple[Symbol, Symbol]:
        i, f, g, o = affine(x, h, gates="ifgo", bias={"f": self.forget_bias})
        i = sigmoid(i + parameter("peephole.i", init="uniform:0.1") * c)
        f = sigmoid(f + parameter("peephole.f", init="uniform:0.1") * c)
        c = f * c + i * tanh(g)
        o = sigmoid(o + parameter("peephole.o", init="uniform:0.1") * c)
        return o * tanh(c), c


class LSTMProjection(Cell):
    """LSTM whose output is projected to ``projection`` units (Sak et al. 2014).

    projection: the width of the output, which is also what is fed back;
    forget_bias: what the bias of the forget gate starts from.
    """

    states = ("h", "c")
    projection: int
    forget_bias: float = 1.0

    def widths(self, hidden: int) -> dict[str, int]:
        return {"h": self.projection}

    def step(self, x: Symbol, h: Symbol, c: Symbol) -> tuple[Symbol, Symbol]:
        i, f, g, o = affine(x, h, gates="ifgo", bias={"f": self.forget_bias})
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        r = affine(sigmoid(o) * tanh(c), units=self.projection, bias=False, name="projection")
        return r, c


class LSTMLayerNorm(Cell):
    """LSTM with layer normalisation of every gate and of the cell state (Ba et al. 2016).

    forget_bias: what the bias of the forget gate starts from.
    """

    states = ("h", "c")
    forget_bias: float = 1.0

    def step(self, x: Symbol, h: Symbol, c: Symbol) -> tuple[Symbol, Symbol]:
        gates = affine(x, h, gates="ifgo", bias=False)
        start = {"f": self.forget_bias}
        i, f, g, o = (
            self.normed(v, k, start.get(k, 0.0)) for v, k in zip(gates, "ifgo", strict=True)
        )
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(self.normed(c, "c", 0.0)), c

    @staticmethod
    def normed(v: Symbol, name: str, bias: float) -> Symbol:
        gain = parameter(f"gain.{name}", init="ones")
        return layer_norm(v) * gain + parameter(f"shift.{name}", init=f"constant:{bias:g}")


class GRU(Cell):
    """Gated recurrent unit with the reset after the product, as cuDNN and ONNX compute it.

    Cho et al. 2014, version 1 of the paper; one stage a step.
    """

    def step(self, x: Symbol, h: Symbol) -> Symbol:
        z, r = affine(x, h, gates="zr")
        n = tanh(affine(x, name="N") + sigmoid(r) * affine(h, name="M"))
        z = sigmoid(z)
        return n + z * (h - n)


class GRUResetBefore(Cell):
    """Gated recurrent unit with the reset before the product (Cho et al. 2014, version 3).

    Two stages a step.
    """

    def step(self, x: Symbol, h: Symbol) -> Symbol:
        z, r = affine(x, h, gates="zr")
        n = tanh(affine(x, sigmoid(r) * h, name="N"))
        z = sigmoid(z)
        return n + z * (h - n)


class MGU(Cell):
    """Minimal gated unit (Zhou et al. 2016): one gate; two stages a step."""

    def step(self, x: Symbol, h: Symbol) -> Symbol:
        f = sigmoid(affine(x, h, bias=1.0))
        n = tanh(affine(x, f * h))
        return h + f * (n - h)


class MGUGateAfter(Cell):
    """Minimal gated unit with the gate after the product, as ``GRU`` has its reset; one stage."""

    def step(self, x: Symbol, h: Symbol) -> Symbol:
        f = sigmoid(affine(x, h, bias=1.0))
        n = tanh(affine(x, name="N") + f * affine(h, name="M"))
        return h + f * (n - h)


class IndRNN(Cell):
    """Independently recurrent network (Li et al. 2018): each unit sees only itself.

    activation: what the new state goes through.
    reach: over how many steps a state may grow twofold at most. Recurrent weights are kept within
        ±2^(1/reach) at every update (section 3.1); without it they are free.
    """

    activation: Literal["relu", "tanh"] = "relu"
    reach: Annotated[int, Field(ge=1)] | None = None

    def step(self, x: Symbol, h: Symbol) -> Symbol:
        bound = None if self.reach is None else 2.0 ** (1 / self.reach)
        u = parameter("u", init="uniform:1", bound=bound)
        return {"relu": relu, "tanh": tanh}[self.activation](affine(x) + u * h)
