"""The network: an input layer, a stack of recurrent layers, an output layer.

tokens or values (T, B[, F]) → input → recurrent layer … recurrent layer → output (T, B, O)

With a pool the output is that of a whole sequence, (1, B, O); with a decoder it is (L, B, O), for
the tokens that the decoder is fed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from rnnfarm.equations.gather import gather_products
from rnnfarm.equations.graph import Parameter
from rnnfarm.equations.initial import Init
from rnnfarm.equations.parts import Cell, trace_cell
from rnnfarm.errors import JobError
from rnnfarm.kernels.choose import KernelChoice
from rnnfarm.nn.arena import Layout
from rnnfarm.nn.decoder import Decoder, DecoderSpec
from rnnfarm.nn.dense import Dropout, Embedding, Linear, OneHot, Tokens, Values, output_start
from rnnfarm.nn.layer import Arrays, Backward, FloatArray, Layer, Pass
from rnnfarm.nn.pool import Pool
from rnnfarm.nn.recurrent import Bidirectional, Recurrence, RecurrentLayer, Residual


@dataclass(frozen=True)
class LayerSpec:
    """One recurrent layer of a network; ``dropout`` is that of its output."""

    cell: Cell
    hidden: int
    recurrence: Recurrence = field(default_factory=Recurrence)
    dropout: float = 0.0
    bidirectional: bool = False
    residual: bool = False


@dataclass(frozen=True)
class NetworkSpec:
    """The shape of a network.

    Attributes:
        input: ``embedding``, ``one_hot`` (both of tokens), ``linear`` or ``none`` (of values).
        input_width: the vocabulary's size, or the number of values of a step.
        size: the width of an embedding or a linear input layer.
        outputs: the width of the output.
        tied: whether the output's weights are the embedding's.
        pool: how the steps of a sequence become one (see ``nn.pool``), or None.
        decoder: what goes on from there, if anything does.
        init: how the parameters of a layer start, by the layer's name.
    """

    input: str
    input_width: int
    layers: Sequence[LayerSpec]
    outputs: int
    size: int | None = None
    input_dropout: float = 0.0
    output_bias: bool = True
    tied: bool = False
    pool: str | None = None
    decoder: DecoderSpec | None = None
    init: Mapping[str, Init] = field(default_factory=dict)


class NetworkBackward(Protocol):
    """``backward(d_output, gradients, records, ready) -> d_input``; see ``nn.layer.Backward``.

    ``ready`` is told the name of each layer, the highest first, once its gradients are written.
    """

    def __call__(
        self,
        d_output: FloatArray,
        gradients: Arrays,
        records: dict[str, FloatArray] | None,
        ready: Callable[[str], None] | None = None,
    ) -> FloatArray | None: ...


class Network:
    """Layers in a row, and the layout of their parameters in the arena."""

    def __init__(self, spec: NetworkSpec, choice: KernelChoice) -> None:
        #: Where its arrays lie.
        self.device = choice.where
        tokens = _reads_tokens(spec)
        first = Tokens("input", spec.input_width) if tokens else _input_layer(spec, choice.dtype)
        self.layers: list[Layer] = [first]
        self.recurrent: list[RecurrentLayer] = []
        if spec.input_dropout:
            self._add(Dropout("input.dropout", self.layers[-1].width, spec.input_dropout))
        learned_below = bool(self.layers[0].parameters)
        for number, layer in enumerate(spec.layers, 1):
            self._add_recurrent(f"layer{number}", layer, choice, learned_below, tokens)
            learned_below, tokens = True, False
        #: What reads the input, below pool and decoder or the output.
        self.reading = list(self.layers)
        width = self.layers[-1].width
        self.pool: Pool | None = None
        self.decoder: Decoder | None = None
        if spec.pool is not None:
            split = width
            if spec.layers and spec.layers[-1].bidirectional:
                split = self.recurrent[-2].width
            self.pool = Pool("pool", spec.pool, width, split, choice.dtype)
            self._add(self.pool)
        if spec.decoder is not None:
            self.decoder = Decoder(spec.decoder, width, spec.outputs, choice)
            self.layers += self.decoder.layers
            self._settle(spec.init)
            return
        tied = "input" if spec.tied else None
        if tied and (spec.input != "embedding" or spec.size != width):
            raise JobError(
                f"model.output.tied: the output's weights can be the embedding's only where both "
                f"are equally wide; the embedding is {spec.size} wide and the last layer {width}"
            )
        start = output_start(width, spec.outputs)
        self._add(Linear("output", width, spec.outputs, spec.output_bias, tied, start))
        self._settle(spec.init)

    def _settle(self, init: Mapping[str, Init]) -> None:
        parameters: dict[str, Parameter] = {}
        for layer in self.layers:
            parameters |= init.get(layer.name, Init()).started(layer.parameters)
        self.layout = Layout.of(parameters)

    def _add(self, layer: Layer) -> None:
        self.layers.append(layer)

    def _add_recurrent(
        self, name: str, spec: LayerSpec, choice: KernelChoice, learned_below: bool, tokens: bool
    ) -> None:
        inputs = self.layers[-1].width

        def direction(name: str) -> RecurrentLayer:
            layer = RecurrentLayer(
                name, spec.cell, inputs, spec.hidden, spec.recurrence, choice, tokens
            )
            layer.need_d_x = learned_below
            self.recurrent.append(layer)
            return layer

        layer: Layer = direction(name)
        if spec.bidirectional:
            layer = Bidirectional(layer, direction(f"{name}.reverse"))  # type: ignore[arg-type]
        self._add(Residual(layer, inputs) if spec.residual else layer)
        if spec.dropout:
            self._add(Dropout(f"{name}.dropout", layer.width, spec.dropout))

    @property
    def kernels(self) -> dict[str, str]:
        """The kernel of every recurrent layer."""
        return {layer.name: layer.kernel_name for layer in self.every_recurrent}

    @property
    def every_recurrent(self) -> list[RecurrentLayer]:
        """The recurrent layers, those of the decoder too."""
        return [*self.recurrent, *(self.decoder.recurrent if self.decoder is not None else [])]

    def zero_states(self, rows: int) -> dict[str, dict[str, FloatArray]]:
        """The states of ``rows`` rows before anything was read, by layer."""
        states = {layer.name: layer.zero_states(rows) for layer in self.recurrent}
        if self.pool is not None and (gathered := self.pool.zero_states(rows)):
            states[self.pool.name] = {n: self.device.put(a) for n, a in gathered.items()}
        return states

    def forward(self, parameters: Arrays, x: Any, run: Pass) -> tuple[FloatArray, NetworkBackward]:
        """The output ``(T, B, O)``, and what computes the gradients; fills ``run.new_states``."""
        value: Any = x
        below = self.reading if self.decoder is not None else self.layers
        backwards: list[Backward] = []
        for layer in below:
            value, backward = layer.forward(parameters, value, run)
            backwards.append(backward)
        decode = None
        if self.decoder is not None:
            assert self.pool is not None
            encoded = value
            pooled, pool_back = self.pool.forward(parameters, encoded, run)
            value, decode = self.decoder.forward(parameters, pooled, encoded, run)

        def backward_all(
            d_output: FloatArray,
            gradients: Arrays,
            records: dict[str, FloatArray] | None,
            ready: Callable[[str], None] | None = None,
        ) -> FloatArray | None:
            gradient: FloatArray | None = d_output
            if decode is not None:
                d_pooled, d_encoded = decode(d_output, gradients, records, ready)
                gradient = pool_back(d_pooled, gradients, records)
                if d_encoded is not None:
                    self.device.add(gradient, d_encoded, gradient)
                if ready is not None:
                    ready("pool")
            for layer, backward in zip(reversed(below), reversed(backwards), strict=True):
                if gradient is None:  # nothing below learns
                    break
                gradient = backward(gradient, gradients, records)
                if ready is not None:
                    ready(layer.name)
            return gradient

        return value, backward_all

    def read(self, parameters: Arrays, x: Any, run: Pass) -> tuple[FloatArray, FloatArray]:
        """What a decoder starts from: the pooled output (1, B, E), and that of every step."""
        assert self.pool is not None
        value: Any = x
        for layer in self.reading:
            value, _ = layer.forward(parameters, value, run)
        return self.pool.forward(parameters, value, run)[0], value

    def check(self, x: Any) -> None:
        """DataError where the host's ``x`` is nothing that the network can read."""
        self.layers[0].check(x)

    def first_not_finite(self, parameters: Arrays, x: Any, run: Pass) -> str | None:
        """The first layer whose output has an infinity or NaN, or None."""
        value: Any = x
        for layer in self.reading if self.decoder is not None else self.layers:
            value, _ = layer.forward(parameters, value, run)
            if not np.isfinite(run.device.get(value)).all():
                return layer.name
        if self.decoder is not None:
            output, _ = self.forward(parameters, x, run)
            if not np.isfinite(run.device.get(output)).all():
                return "the decoder"
        return None


def _reads_tokens(spec: NetworkSpec) -> bool:
    """Whether the first layer can look up what the product with a one-hot vector would be."""
    if spec.input != "one_hot" or spec.input_dropout or not spec.layers or spec.layers[0].residual:
        return False
    trace = trace_cell(spec.layers[0].cell, spec.input_width, spec.layers[0].hidden)
    return gather_products(trace) is not None


def _input_layer(spec: NetworkSpec, dtype: str) -> Layer:
    if spec.input in ("embedding", "linear") and spec.size is None:
        raise JobError(f"model.input: kind {spec.input!r} needs a size; add size = 64, say")
    if spec.input == "embedding":
        return Embedding("input", spec.input_width, spec.size or 0, spec.tied)
    if spec.input == "one_hot":
        return OneHot("input", spec.input_width, dtype)
    if spec.input == "none":
        return Values("input", spec.input_width, dtype)
    return Linear("input", spec.input_width, spec.size or 0, bias=True)
