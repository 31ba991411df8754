"""Layers that look at one step alone: embedding, one-hot, linear, dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rnnfarm.equations.graph import Parameter
from rnnfarm.errors import DataError
from rnnfarm.nn.layer import Arrays, Backward, FloatArray, Layer, Pass, flat
from rnnfarm.nn.random import DROPOUT


class Embedding(Layer):
    """A learned vector for each token; ``(T, B)`` whole numbers → ``(T, B, size)``."""

    def __init__(self, name: str, vocabulary: int, size: int, tied: bool) -> None:
        self.name = name
        self.width = size
        self.tied = tied
        # A tied embedding is the output's weights too, whose logits should start small. Of a large
        # vocabulary most tokens are rare, and keep for long what they start with.
        deviation = size**-0.5 if tied else min(1.0, (size / vocabulary) ** 0.5)
        shape = (vocabulary, size)
        start = (f"normal:{deviation:g}",)
        weight = Parameter(f"{name}.weight", shape, start, decay=True, role="embedding")
        self.parameters = {weight.name: weight}
        self.vocabulary = vocabulary

    def check(self, x: npt.NDArray[Any]) -> None:
        _check_tokens(x, self.vocabulary)

    def forward(self, parameters: Arrays, x: Any, run: Pass) -> tuple[FloatArray, Backward]:
        weight = parameters[f"{self.name}.weight"]
        output = run.memory.array(self.name, (*x.shape, self.width), weight.dtype)
        run.device.take_rows(weight, x, output)

        def backward(d_output: FloatArray, gradients: Arrays, _: Any) -> None:
            gradient = gradients[f"{self.name}.weight"]
            if not self.tied:  # the output layer has written its part already
                run.device.clear(gradient)
            run.device.add_rows(gradient, x.reshape(-1), flat(d_output))

        return output, backward


def _check_tokens(x: npt.NDArray[Any], vocabulary: int) -> None:
    """DataError for a token that is not in the vocabulary."""
    if x.size and int(x.max()) >= vocabulary:
        raise DataError(
            f"the data has token {int(x.max())}, and its vocabulary ends at {vocabulary - 1}; "
            "check the dataset with 'rnnfarm data verify' and build it again"
        )


class Tokens(Layer):
    """Tokens as they are, for a layer that reads them; ``(T, B)`` → ``(T, B)``."""

    def __init__(self, name: str, vocabulary: int) -> None:
        self.name = name
        self.width = vocabulary
        self.parameters = {}

    def check(self, x: npt.NDArray[Any]) -> None:
        _check_tokens(x, self.width)

    def forward(self, parameters: Arrays, x: Any, run: Pass) -> tuple[FloatArray, Backward]:
        return x, lambda d_output, gradients, _: None


class OneHot(Layer):
    """1 at the token's place, 0 elsewhere; ``(T, B)`` → ``(T, B, vocabulary)``.

    It is used where a layer does more with its input than multiply it by weights; see ``Tokens``.
    """

    def __init__(self, name: str, vocabulary: int, dtype: str) -> None:
        self.name = name
        self.width = vocabulary
        self.parameters = {}
        self._dtype = dtype

    def check(self, x: npt.NDArray[Any]) -> None:
        _check_tokens(x, self.width)

    def forward(self, parameters: Arrays, x: Any, run: Pass) -> tuple[FloatArray, Backward]:
        output = run.memory.array(self.name, (*x.shape, self.width), self._dtype)
        run.device.clear(output)
        tokens = run.device.get(x).reshape(-1)
        places = np.arange(tokens.size, dtype=tokens.dtype) * self.width + tokens
        ones = np.ones((tokens.size, 1), self._dtype)
        put = run.device.put
        run.device.add_rows(output.reshape(-1, 1), put(places), put(ones))
        return output, lambda d_output, gradients, _: None


class Values(Layer):
    """The values as they are; ``(T, B, F)`` → ``(T, B, F)``."""

    def __init__(self, name: str, width: int, dtype: str) -> None:
        self.name = name
        self.width = width
        self.parameters = {}
        self._dtype = dtype

    def forward(self, parameters: Arrays, x: Any, run: Pass) -> tuple[FloatArray, Backward]:
        if run.device.immediate:
            x = np.ascontiguousarray(x, self._dtype)
        return x, lambda d_output, gradients, _: None


def weight_of(name: str, inputs: int, outputs: int, start: str = "glorot_uniform") -> Parameter:
    """The weights of a linear map, and how they start."""
    return Parameter(name, (inputs, outputs), (start,), True, "weight", inputs)


def output_start(inputs: int, outputs: int) -> str:
    """How the weights of an output start: Glorot's limit, but at least ±1/√inputs.

    Glorot's goes to 0 as a vocabulary grows, and the logits with it.
    """
    least: float = inputs**-0.5
    return "glorot_uniform" if outputs <= 5 * inputs else f"uniform:{least!r}"


def bias_of(name: str, inputs: int, outputs: int) -> Parameter:
    """The bias of a linear map of ``inputs``."""
    return Parameter(name, (outputs,), ("zeros",), False, "bias", inputs)


class Linear(Layer):
    """``x W + b``; ``(T, B, I)`` → ``(T, B, O)``. ``tied`` names an embedding to take Wᵀ from."""

    def __init__(
        self,
        name: str,
        inputs: int,
        outputs: int,
        bias: bool,
        tied: str | None = None,
        start: str = "glorot_uniform",
    ) -> None:
        self.name = name
        self.width = outputs
        self.tied = tied
        parameters = []
        if tied is None:
            parameters.append(weight_of(f"{name}.weight", inputs, outputs, start))
        if bias:
            parameters.append(bias_of(f"{name}.bias", inputs, outputs))
        self.bias = f"{name}.bias" if bias else None
        self.parameters = {p.name: p for p in parameters}

    def _weight(self, arrays: Arrays) -> FloatArray:
        if self.tied is not None:
            return arrays[f"{self.tied}.weight"].T
        return arrays[f"{self.name}.weight"]

    def forward(self, parameters: Arrays, x: Any, run: Pass) -> tuple[FloatArray, Backward]:
        weight = self._weight(parameters)
        output = run.memory.array(self.name, (*x.shape[:2], self.width), x.dtype)
        device = run.device
        device.matmul(flat(x), weight, flat(output))
        if self.bias is not None:
            device.add_vector(output, parameters[self.bias])

        def backward(d_output: FloatArray, gradients: Arrays, _: Any) -> FloatArray:
            if self.tied is not None:
                device.matmul(flat(d_output).T, flat(x), gradients[f"{self.tied}.weight"])
            else:
                device.matmul(flat(x).T, flat(d_output), gradients[f"{self.name}.weight"])
            if self.bias is not None:
                device.sum_rows(d_output, gradients[self.bias])
            d_x = run.memory.array(f"{self.name}.d", x.shape, x.dtype)
            device.matmul(flat(d_output), weight.T, flat(d_x))
            return d_x

        return output, backward


class Dropout(Layer):
    """Drops each element with a probability, and scales the others up (Srivastava et al. 2014)."""

    def __init__(self, name: str, width: int, probability: float) -> None:
        self.name = name
        self.width = width
        self.probability = probability
        self.parameters = {}

    def forward(self, parameters: Arrays, x: Any, run: Pass) -> tuple[FloatArray, Backward]:
        if not run.training:
            return x, lambda d_output, gradients, _: d_output
        device = run.device
        factor = run.memory.array(f"{self.name}.factor", x.shape, x.dtype)
        device.dropped(run.random(DROPOUT, self.name), self.probability, factor)
        output = run.memory.array(self.name, x.shape, x.dtype)
        device.multiply(x, factor, output)

        def backward(d_output: FloatArray, gradients: Arrays, _: Any) -> FloatArray:
            d_x = run.memory.array(f"{self.name}.d", x.shape, x.dtype)
            device.multiply(d_output, factor, d_x)
            return d_x

        return output, backward
