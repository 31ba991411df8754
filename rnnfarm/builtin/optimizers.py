"""The built-in optimizers, each as its equations for one element of the parameters.

``weight_decay`` is added to the gradient (L2) except in AdamW and Lion, which shrink the parameter
by itself. Parts of the arena that do not decay (biases) are updated with ``weight_decay`` 0.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from rnnfarm.equations.graph import Symbol
from rnnfarm.equations.language import sign, sqrt
from rnnfarm.equations.parts import Optimizer

Decay = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class _Classic(Optimizer):
    """An optimizer whose weight decay is the gradient of ½ weight_decay · p².

    weight_decay: the share of the parameters that is added to their gradients (L2).
    """

    weight_decay: NotNegative = 0.0

    def decayed(self, param: Symbol, grad: Symbol) -> Symbol:
        return grad + self.weight_decay * param if self.weight_decay else grad


class SGD(_Classic):
    """Gradient descent: p - lr · g."""

    lr: Positive = 0.01

    def step(self, param: Symbol, grad: Symbol, *, lr: Symbol, t: Symbol) -> Any:
        return param - lr * self.decayed(param, grad)


class Momentum(_Classic):
    """Gradient descent with a velocity v ← βv + g (Polyak 1964): p - lr · v.

    beta: how much of the velocity is kept at each step.
    """

    states = ("velocity",)
    lr: Positive = 0.01
    beta: Decay = 0.9

    def step(self, param: Symbol, grad: Symbol, v: Symbol, *, lr: Symbol, t: Symbol) -> Any:
        v = self.beta * v + self.decayed(param, grad)
        return param - lr * v, v


class Nesterov(_Classic):
    """Nesterov's momentum in the form of Sutskever et al. 2013: p - lr · (g + βv), v ← βv + g.

    beta: how much of the velocity is kept at each step.
    """

    states = ("velocity",)
    lr: Positive = 0.01
    beta: Decay = 0.9

    def step(self, param: Symbol, grad: Symbol, v: Symbol, *, lr: Symbol, t: Symbol) -> Any:
        grad = self.decayed(param, grad)
        v = self.beta * v + grad
        return param - lr * (grad + self.beta * v), v


class Adagrad(_Classic):
    """Steps divided by the root of the sum of all squared gradients (Duchi et al. 2011).

    epsilon: is added to the root, so that nothing is divided by 0.
    """

    states = ("squares",)
    lr: Positive = 0.01
    epsilon: Positive = 1e-10

    def step(self, param: Symbol, grad: Symbol, s: Symbol, *, lr: Symbol, t: Symbol) -> Any:
        grad = self.decayed(param, grad)
        s = s + grad * grad
        return param - lr * grad / (sqrt(s) + self.epsilon), s


class RMSProp(_Classic):
    """Steps divided by the root of a running mean of squares (Tieleman and Hinton 2012).

    rho: how much of the mean of squares is kept at each step; epsilon: is added to the root, so
    that nothing is divided by 0.
    """

    states = ("squares",)
    lr: Positive = 1e-3
    rho: Decay = 0.9
    epsilon: Positive = 1e-8

    def step(self, param: Symbol, grad: Symbol, s: Symbol, *, lr: Symbol, t: Symbol) -> Any:
        grad = self.decayed(param, grad)
        s = self.rho * s + (1 - self.rho) * grad * grad
        return param - lr * grad / (sqrt(s) + self.epsilon), s


class Adam(_Classic):
    """Running means of gradients and their squares, corrected for their start at 0.

    Kingma and Ba 2015, algorithm 1, with the corrections folded into the learning rate and the
    root, which changes nothing but the rounding.

    beta1, beta2: how much of the mean of gradients, and of that of squares, is kept at each step;
    epsilon: is added to the root, so that nothing is divided by 0.
    """

    states = ("mean", "squares")
    lr: Positive = 1e-3
    beta1: Decay = 0.9
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    epsilon: Positive = 1e-8

    def step(
        self, param: Symbol, grad: Symbol, m: Symbol, s: Symbol, *, lr: Symbol, t: Symbol
    ) -> Any:
        return self.update(param, self.decayed(param, grad), m, s, lr, t)

    def update(
        self, param: Symbol, grad: Symbol, m: Symbol, s: Symbol, lr: Symbol, t: Symbol
    ) -> tuple[Symbol, Symbol, Symbol]:
        """The new parameter, mean and mean of squares."""
        m = self.beta1 * m + (1 - self.beta1) * grad
        s = self.beta2 * s + (1 - self.beta2) * grad * grad
        mean_scale = lr / (1 - self.beta1**t) if self.beta1 else lr
        root_scale = 1 / sqrt(1 - self.beta2**t)
        return param - mean_scale * m / (root_scale * sqrt(s) + self.epsilon), m, s


class AdamW(Adam):
    """Adam whose weight decay is apart from the gradient (Loshchilov and Hutter 2019).

    weight_decay: the share of a parameter that a step of learning rate 1 takes away from it.
    """

    weight_decay: NotNegative = 0.01

    def step(
        self, param: Symbol, grad: Symbol, m: Symbol, s: Symbol, *, lr: Symbol, t: Symbol
    ) -> Any:
        if self.weight_decay:
            param = (1 - lr * self.weight_decay) * param
        return self.update(param, grad, m, s, lr, t)


class Lion(Optimizer):
    """The sign of a running mean (Chen et al. 2023, algorithm 2), with decoupled weight decay.

    weight_decay: the share of a parameter that a step of learning rate 1 takes away from it; beta1:
    the share of the mean in the direction of a step; beta2: how much of the mean is kept at each
    step.
    """

    states = ("mean",)
    lr: Positive = 1e-4
    weight_decay: NotNegative = 0.0
    beta1: Decay = 0.9
    beta2: Decay = 0.99

    def step(self, param: Symbol, grad: Symbol, m: Symbol, *, lr: Symbol, t: Symbol) -> Any:
        direction = sign(self.beta1 * m + (1 - self.beta1) * grad)
        if self.weight_decay:
            param = (1 - lr * self.weight_decay) * param
        return param - lr * direction, self.beta2 * m + (1 - self.beta2) * grad
