"""Attention of a decoder's steps to an encoder's (Luong et al. 2015, section 3.1)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rnnfarm.errors import JobError
from rnnfarm.nn.dense import weight_of
from rnnfarm.nn.layer import Arrays, FloatArray, Layer, Pass

KINDS = ("dot", "general", "additive")


class Attention(Layer):
    """``(L, B, D)`` and ``(T, B, E)`` → ``(L, B, D)``: tanh([context; decoder] W).

    The context is the encoder's mean weighted by the softmax over valid steps of a score: ``dot``
    dᵀe / √D, ``general`` dᵀ W e / √D, ``additive`` vᵀ tanh(W d + U e) (Bahdanau et al. 2015).
    Without the division (Vaswani et al. 2017, section 3.2.1) the softmax of wide layers takes one
    step alone, and learns no better one. It is computed by the host, whatever the device.
    """

    def __init__(self, name: str, kind: str, width: int, encoded: int) -> None:
        self.name, self.kind, self.width = name, kind, width
        if kind == "dot" and width != encoded:
            raise JobError(
                f"model.decoder.attention: 'dot' needs a decoder as wide as the encoder; they are "
                f"{width} and {encoded} wide; take 'general', or make them equal"
            )
        shapes = {"out": (width + encoded, width)}
        if kind == "general":
            shapes["score"] = (width, encoded)
        if kind == "additive":
            shapes |= {"query": (width, width), "key": (encoded, width), "vector": (width, 1)}
        self.parameters = {
            f"{name}.{part}": weight_of(f"{name}.{part}", *shape) for part, shape in shapes.items()
        }
        #: The weights of the last pass, (B, L, T), for pictures.
        self.weights: FloatArray | None = None

    def forward(self, parameters: Arrays, x: Any, run: Pass) -> tuple[Any, Any]:
        """The output, and ``backward(d_output, gradients) -> d_decoded, d_encoded``.

        ``x``: decoded ``(L, B, D)``, encoded ``(T, B, E)``, and the mask ``(T, B, 1)`` bool of the
        encoder's steps, or None.
        """
        decoded, encoded, mask = x
        get, put = run.device.get, run.device.put
        d = np.ascontiguousarray(get(decoded).swapaxes(0, 1))  # (B, L, D)
        e = np.ascontiguousarray(get(encoded).swapaxes(0, 1))  # (B, T, E)
        given = {n.rpartition(".")[2]: get(parameters[n]) for n in self.parameters}
        scores, scores_back = self._scores(d, e, given)  # (B, L, T)
        if mask is not None:
            scores = np.where(get(mask)[..., 0].T[:, None], scores, -np.inf)
        top = scores.max(-1, keepdims=True)
        weights = np.exp(scores - np.where(np.isfinite(top), top, 0))
        weights /= np.maximum(weights.sum(-1, keepdims=True), np.finfo(d.dtype).tiny)
        self.weights = weights = weights.astype(d.dtype)
        context = weights @ e  # (B, L, E)
        joined = np.concatenate([context, d], axis=-1)
        output = np.tanh(joined @ given["out"])  # (B, L, D)

        def backward(d_output: Any, gradients: Arrays) -> tuple[Any, Any]:
            d_inner = get(d_output).swapaxes(0, 1) * (1 - output * output)
            found = {"out": _outer(joined, d_inner)}
            d_joined = d_inner @ given["out"].T
            split = e.shape[-1]
            d_context, d_d = d_joined[..., :split], d_joined[..., split:]
            d_weights = d_context @ e.swapaxes(1, 2)
            d_scores = weights * (d_weights - (weights * d_weights).sum(-1, keepdims=True))
            more_d, more_e, more = scores_back(d_scores)
            d_e = weights.swapaxes(1, 2) @ d_context + more_e
            for part, gradient in (found | more).items():
                run.device.load(gradients[f"{self.name}.{part}"], gradient)
            return tuple(
                put(np.ascontiguousarray(one.swapaxes(0, 1), d.dtype))
                for one in (d_d + more_d, d_e)
            )

        return put(np.ascontiguousarray(output.swapaxes(0, 1))), backward

    def _scores(self, d: FloatArray, e: FloatArray, given: dict[str, FloatArray]) -> Any:
        """``(B, L, T)``, and from its gradient those of decoder, encoder and weights."""
        if self.kind == "additive":
            return _additive(d, e, given)
        key = e if self.kind == "dot" else e @ given["score"].T  # (B, T, D)
        scale = 1 / math.sqrt(d.shape[-1])

        def backward(d_scores: FloatArray) -> tuple[FloatArray, FloatArray, dict[str, FloatArray]]:
            d_scores = d_scores * scale
            d_key = d_scores.swapaxes(1, 2) @ d
            if self.kind == "dot":
                return d_scores @ key, d_key, {}
            return d_scores @ key, d_key @ given["score"], {"score": _outer(d_key, e)}

        return d @ key.swapaxes(1, 2) * scale, backward


def _additive(d: FloatArray, e: FloatArray, given: dict[str, FloatArray]) -> Any:
    """Scores of a step of the decoder at a time, for all at once would take (B, L, T, D)."""
    query, key = d @ given["query"], e @ given["key"]  # (B, L, D), (B, T, D)
    vector = given["vector"][:, 0]

    def inner_of(step: int) -> FloatArray:
        inner: FloatArray = np.tanh(query[:, step, None] + key)  # (B, T, D)
        return inner

    def backward(d_scores: FloatArray) -> tuple[FloatArray, FloatArray, dict[str, FloatArray]]:
        d_query, d_key, d_vector = np.empty_like(query), np.zeros_like(key), np.zeros_like(vector)
        for step in range(d.shape[1]):
            inner = inner_of(step)
            d_vector += np.einsum("bt,btd->d", d_scores[:, step], inner)
            d_inner = d_scores[:, step, :, None] * vector * (1 - inner * inner)
            d_query[:, step] = d_inner.sum(1)
            d_key += d_inner
        gradients = {
            "query": _outer(d, d_query),
            "key": _outer(e, d_key),
            "vector": d_vector[:, None],
        }
        return d_query @ given["query"].T, d_key @ given["key"].T, gradients

    scores = np.stack([inner_of(step) @ vector for step in range(d.shape[1])], axis=1)
    return scores, backward


def _outer(left: FloatArray, right: FloatArray) -> FloatArray:
    """The sum over rows and steps of the outer products."""
    product: FloatArray = left.reshape(-1, left.shape[-1]).T @ right.reshape(-1, right.shape[-1])
    return product
