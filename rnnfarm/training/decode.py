"""What a decoder writes: the likeliest word after word, or by beam search."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rnnfarm.data.window import BEGIN, END
from rnnfarm.nn.layer import Arrays, Pass
from rnnfarm.nn.network import Network

States = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Written:
    """What was written for a row.

    Attributes:
        tokens: without BEGIN and END.
        score: its log probability, after what the length has changed of it.
        weights: ``(L, T)`` of the attention to the input's steps, where there is one.
    """

    tokens: list[int]
    score: float
    weights: Any = None


def write(
    network: Network,
    parameters: Arrays,
    x: Any,
    run: Pass,
    rows: Iterable[int],
    *,
    beam: int,
    most: int,
    penalty: float,
) -> dict[int, Written]:
    """What the decoder writes for rows of a window.

    Args:
        beam: how many beginnings are kept; 1 takes the likeliest token each time.
        most: tokens at most.
        penalty: the exponent of the length that log probabilities are divided by,
            ``((5 + L) / 6) ** penalty`` (Wu et al. 2016, section 7).
    """
    decoder = network.decoder
    assert decoder is not None
    pooled, encoded = network.read(parameters, x, run)
    states, _ = decoder.bridge.forward(parameters, pooled, run)
    return {
        row: _Row(network, parameters, encoded, states, run, row, beam).search(most, penalty)
        for row in rows
    }


class _Row:
    """The search for one row: ``beam`` beginnings side by side, as the rows of a batch."""

    def __init__(
        self,
        network: Network,
        parameters: Arrays,
        encoded: Any,
        states: States,
        run: Pass,
        row: int,
        beam: int,
    ) -> None:
        get, put = network.device.get, network.device.put
        self.network, self.parameters, self.beam = network, parameters, beam
        steps = len(encoded)
        mask = None if run.mask is None else get(run.mask)[:, row]  # (T, 1)
        if mask is not None:
            steps = int(mask.sum())
        self.steps = steps
        alone = np.ascontiguousarray(get(encoded)[:steps, row])  # (T, E)
        self.encoded = put(np.repeat(alone[:, None], beam, 1))
        self.states: States = {
            layer: {n: put(np.repeat(get(a)[row : row + 1], beam, 0)) for n, a in given.items()}
            for layer, given in states.items()
        }
        self.run = replace(run, mask=None, reset=None, training=False)

    def search(self, most: int, penalty: float) -> Written:
        """The best of what ended, or of what was begun where nothing did."""
        tokens: list[list[int]] = [[] for _ in range(self.beam)]
        weights: list[list[Any]] = [[] for _ in range(self.beam)]
        scores = np.full(self.beam, -np.inf)
        scores[0] = 0.0
        last = np.full((1, self.beam), BEGIN, np.int32)
        ended: list[Written] = []
        for length in range(1, most + 1):
            likely, here = self._next(last)  # (K, V), (K, T)
            total = scores[:, None] + likely
            order = np.argsort(-total, axis=None, kind="stable")[: 2 * self.beam]
            kept: list[tuple[int, int, float]] = []
            for place in order:
                parent, token = divmod(int(place), likely.shape[1])
                score = float(total[parent, token])
                if not np.isfinite(score):
                    continue
                if token == END:
                    # A beginning that ends below what is kept would not have been followed.
                    if len(kept) < self.beam:
                        ended.append(
                            Written(
                                tokens[parent],
                                score / ((5 + length) / 6) ** penalty,
                                _stacked(weights[parent]),
                            )
                        )
                elif len(kept) < self.beam:
                    kept.append((parent, token, score))
            if not kept or len(ended) >= self.beam:
                break
            tokens = [[*tokens[parent], token] for parent, token, _ in kept]
            weights = [[*weights[p], None if here is None else here[p]] for p, _, _ in kept]
            scores = np.full(self.beam, -np.inf)
            scores[: len(kept)] = [score for _, _, score in kept]
            parents = [parent for parent, _, _ in kept]
            while len(parents) < self.beam:
                parents.append(parents[0])
                tokens.append(tokens[0])
                weights.append(weights[0])
            self._follow(parents)
            last = np.array([[one[-1] for one in tokens]], np.int32)
        if not ended:
            ended = [Written(tokens[0], float(scores[0]), _stacked(weights[0]))]
        return max(ended, key=lambda one: one.score)

    def _next(self, last: Any) -> tuple[Any, Any]:
        """The log probabilities of the next token, and the attention that they come from."""
        decoder, device = self.network.decoder, self.network.device
        assert decoder is not None
        run = replace(self.run, fed=device.put(last), fed_mask=None, new_states={})
        output, self.states = decoder.step(self.parameters, self.encoded, run, self.states)
        logits = device.get(output)[0].astype(np.float64)  # (K, V)
        logits = logits - logits.max(-1, keepdims=True)
        likely = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        attention = decoder.attention
        weights = None if attention is None or attention.weights is None else attention.weights
        return likely, None if weights is None else weights[:, 0].copy()

    def _follow(self, parents: list[int]) -> None:
        get, put = self.network.device.get, self.network.device.put
        self.states = {
            layer: {n: put(np.ascontiguousarray(get(a)[parents])) for n, a in given.items()}
            for layer, given in self.states.items()
        }


def _stacked(weights: list[Any]) -> Any:
    return None if not weights or weights[0] is None else np.stack(weights)
