"""The decoder of an encoder-decoder network: what reads a sequence's tokens and says the next one.

pooled encoder (1, B, E) → states; tokens (L, B) → embedding → recurrent layers → attention → output
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnfarm.kernels.choose import KernelChoice
from rnnfarm.nn.attention import Attention
from rnnfarm.nn.dense import Dropout, Embedding, Linear, bias_of, output_start, weight_of
from rnnfarm.nn.layer import Arrays, FloatArray, Layer, Pass
from rnnfarm.nn.random import SCHEDULED
from rnnfarm.nn.recurrent import RecurrentLayer

if TYPE_CHECKING:
    from rnnfarm.nn.network import LayerSpec


@dataclass(frozen=True)
class DecoderSpec:
    """The shape of a decoder.

    Attributes:
        vocabulary: how many tokens there are.
        size: the width of their embedding.
        attention: ``none``, ``dot``, ``general`` or ``additive``.
        sampling: scheduled sampling: the probability with which a step reads the token that the
            model itself would have written, and not the right one (Bengio et al. 2015). All steps
            are predicted at once, from the right ones (Duckworth et al. 2019).
        input_dropout: of the embedded tokens.
    """

    vocabulary: int
    size: int
    layers: Sequence[LayerSpec]
    attention: str = "none"
    sampling: float = 0.0
    input_dropout: float = 0.0


class Bridge(Layer):
    """The states that a decoder starts from: tanh of a linear map of what was read."""

    def __init__(self, name: str, inputs: int, states: dict[str, dict[str, int]]) -> None:
        self.name, self.inputs, self.states = name, inputs, states
        self.width = sum(w for widths in states.values() for w in widths.values())
        self.parameters = {}
        for layer, widths in states.items():
            for state, width in widths.items():
                key = f"{name}.{layer}.{state}"
                self.parameters[f"{key}.weight"] = weight_of(f"{key}.weight", inputs, width)
                self.parameters[f"{key}.bias"] = bias_of(f"{key}.bias", inputs, width)

    def forward(self, parameters: Arrays, x: Any, run: Pass) -> Any:
        """From ``(1, B, E)`` the states by layer, and ``backward(d_states, gradients) -> d_x``."""
        get, put = run.device.get, run.device.put
        read = get(x)[0]  # (B, E)
        found: dict[str, dict[str, FloatArray]] = {}
        for layer, widths in self.states.items():
            for state in widths:
                weight, bias = (get(array) for array in self._given(parameters, layer, state))
                found.setdefault(layer, {})[state] = np.tanh(read @ weight + bias)

        def backward(d_states: dict[str, dict[str, Any]], gradients: Arrays) -> Any:
            d_read = np.zeros_like(read)
            for layer, states in found.items():
                for state, value in states.items():
                    d = get(d_states[layer][state]) * (1 - value * value)
                    weight, bias = self._given(gradients, layer, state)
                    run.device.load(weight, read.T @ d)
                    run.device.load(bias, d.sum(0))
                    d_read += d @ get(self._given(parameters, layer, state)[0]).T
            return put(d_read[None])

        states = {k: {n: put(a) for n, a in v.items()} for k, v in found.items()}
        return states, backward

    def _given(self, arrays: Arrays, layer: str, state: str) -> tuple[Any, Any]:
        key = f"{self.name}.{layer}.{state}"
        return arrays[f"{key}.weight"], arrays[f"{key}.bias"]


class Decoder:
    """A decoder for ``encoded`` wide outputs of an encoder.

    Attributes:
        layers: everything that has parameters, in the order in which it is gone through.
    """

    def __init__(self, spec: DecoderSpec, encoded: int, outputs: int, choice: KernelChoice) -> None:
        self.spec = spec
        self.input = Embedding("decoder.input", spec.vocabulary, spec.size, tied=False)
        self.input_dropout = Dropout("decoder.input.dropout", spec.size, spec.input_dropout)
        self.recurrent: list[RecurrentLayer] = []
        self.dropouts: list[Dropout] = []
        width = spec.size
        for number, one in enumerate(spec.layers, 1):
            name = f"decoder.layer{number}"
            layer = RecurrentLayer(name, one.cell, width, one.hidden, one.recurrence, choice)
            self.recurrent.append(layer)
            width = layer.width
            self.dropouts.append(Dropout(f"{name}.dropout", width, one.dropout))
        states = {layer.name: dict(layer.plan.states) for layer in self.recurrent}
        self.bridge = Bridge("decoder.bridge", encoded, states)
        self.attention: Attention | None = None
        if spec.attention != "none":
            self.attention = Attention("decoder.attention", spec.attention, width, encoded)
        start = output_start(width, outputs)
        self.output = Linear("output", width, outputs, bias=True, start=start)
        attending = [self.attention] if self.attention else []
        self.layers: list[Layer] = [
            *(self.input, self.bridge), *self.recurrent, *attending, self.output,
        ]  # fmt: skip

    def forward(
        self, parameters: Arrays, pooled: Any, encoded: Any, run: Pass
    ) -> tuple[FloatArray, Callable[..., tuple[Any, Any]]]:
        """The output ``(L, B, V)``, and ``backward(d_output, gradients, records, ready)``, which
        gives the gradients of ``pooled`` (1, B, E) and of ``encoded`` (T, B, E)."""
        states, bridge_back = self.bridge.forward(parameters, pooled, run)
        given = run
        if run.training and self.spec.sampling:
            first, _, _ = self._decode(parameters, encoded, run, states)
            given = replace(run, fed=self._sampled(first, run))
        output, back, _ = self._decode(parameters, encoded, given, states)

        def backward(
            d_output: Any, gradients: Arrays, records: Any, ready: Callable[[str], None] | None
        ) -> tuple[Any, Any]:
            d_states, d_encoded = back(d_output, gradients, records, ready)
            d_pooled = bridge_back(d_states, gradients)
            if ready is not None:
                ready(self.bridge.name)
                ready(self.input.name)
            return d_pooled, d_encoded

        return output, backward

    def step(
        self, parameters: Arrays, encoded: Any, run: Pass, states: Any
    ) -> tuple[FloatArray, dict[str, dict[str, FloatArray]]]:
        """The output after ``run.fed`` (L, B) from given states, and the states after it."""
        output, _, after = self._decode(parameters, encoded, run, states)
        return output, after

    def _decode(self, parameters: Arrays, encoded: Any, run: Pass, states: Any) -> Any:
        assert run.fed is not None
        mine = replace(
            run,
            mask=run.fed_mask,
            reset=None,
            states=states,
            carry=len(run.fed),
            new_states={},
        )
        value, input_back = self.input.forward(parameters, run.fed, mine)
        backs: list[Any] = [input_back]
        if self.spec.input_dropout:
            value, back = self.input_dropout.forward(parameters, value, mine)
            backs.append(back)
        for layer, dropout in zip(self.recurrent, self.dropouts, strict=True):
            value, back = layer.forward(parameters, value, mine)
            backs.append((layer, back))
            if dropout.probability:
                value, back = dropout.forward(parameters, value, mine)
                backs.append(back)
        attention_back = None
        if self.attention is not None:
            read = (value, encoded, run.mask)
            value, attention_back = self.attention.forward(parameters, read, mine)
        output, output_back = self.output.forward(parameters, value, mine)

        def backward(
            d_output: Any, gradients: Arrays, records: Any, ready: Callable[[str], None] | None
        ) -> tuple[Any, Any]:
            tell = ready or (lambda _: None)
            d: Any = output_back(d_output, gradients, records)
            d_encoded: Any = None
            d_states: dict[str, Any] = {}
            tell(self.output.name)
            if attention_back is not None:
                d, d_encoded = attention_back(d, gradients)
                tell(self.attention.name)  # type: ignore[union-attr]
            for back in reversed(backs[1:]):
                if not isinstance(back, tuple):
                    d = back(d, gradients, records)
                    continue
                layer, window = back
                record = None
                if records is not None:
                    record = run.device.empty(d.shape, d.dtype)
                    records[layer.name] = record
                d, d_states[layer.name] = window.run(d, gradients, None, record)
                tell(layer.name)
            backs[0](d, gradients, records)
            return d_states, d_encoded

        return output, backward, mine.new_states

    def _sampled(self, output: FloatArray, run: Pass) -> Any:
        """What is fed where some tokens are those that the model would have written."""
        fed = run.device.get(run.fed)  # (L, B)
        written = run.device.get(output).argmax(-1)
        mixed = fed.copy()
        chosen = run.random(SCHEDULED, "decoder").random(fed.shape) < self.spec.sampling
        mixed[1:] = np.where(chosen[1:], written[:-1], fed[1:])
        return run.device.put(mixed)
