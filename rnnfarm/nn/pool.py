"""From the outputs of all steps of a sequence to one: for a label, or to start a decoder from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnfarm.nn.dense import bias_of, weight_of
from rnnfarm.nn.layer import Arrays, Backward, FloatArray, Layer, Pass

KINDS = ("last", "mean", "max", "attention")
Bools = npt.NDArray[np.bool_]


class Pool(Layer):
    """``(T, B, W)`` → ``(1, B, W)`` over the valid steps of each row.

    ``last`` is the output of the last valid step, and of a layer that reads backwards too (whose
    part starts at unit ``split``) that of the first one; ``mean`` and ``max`` are over steps;
    ``attention`` is their mean weighted by softmax(vᵀ tanh(W h + b)) (Yang et al. 2016, section
    2.2). Where a sequence has several windows, what the last three have gathered is carried on,
    and no gradient goes back beyond the window.

    It is computed by the host, whatever the device.
    """

    def __init__(self, name: str, kind: str, width: int, split: int, dtype: str) -> None:
        self.name, self.kind, self.width, self.split = name, kind, width, split
        self.dtype = np.dtype(dtype)
        self.parameters = {}
        if kind == "attention":
            self.parameters = {
                f"{name}.weight": weight_of(f"{name}.weight", width, width),
                f"{name}.bias": bias_of(f"{name}.bias", width, width),
                f"{name}.vector": weight_of(f"{name}.vector", width, 1),
            }

    def zero_states(self, rows: int) -> dict[str, FloatArray]:
        """What ``rows`` rows have gathered before anything was read."""
        if self.kind == "last":
            return {}
        sums = np.zeros((rows, self.width), self.dtype)
        if self.kind == "mean":
            return {"sum": sums, "count": np.zeros((rows, 1), self.dtype)}
        if self.kind == "max":
            return {"top": np.full((rows, self.width), -np.inf, self.dtype)}
        top = np.full((rows, 1), -np.inf, self.dtype)
        return {"sum": sums, "weight": np.zeros((rows, 1), self.dtype), "top": top}

    def forward(self, parameters: Arrays, x: Any, run: Pass) -> tuple[FloatArray, Backward]:
        get, put = run.device.get, run.device.put
        h = get(x)  # (T, B, W)
        mask = np.ones((*h.shape[:2], 1), np.bool_) if run.mask is None else get(run.mask)
        given = {name: get(parameters[name]) for name in self.parameters}
        before = {n: get(a) for n, a in (run.states.get(self.name) or {}).items()}
        before = before or self.zero_states(h.shape[1])
        if run.reset is not None and before:
            fresh, new = self.zero_states(h.shape[1]), get(run.reset)[0]  # (B, 1)
            before = {n: np.where(new, fresh[n], array) for n, array in before.items()}
        pooled = getattr(self, f"_{self.kind}")(h, mask, before, given)
        run.new_states[self.name] = {n: put(array) for n, array in pooled.after.items()}

        def backward(d_output: FloatArray, gradients: Arrays, _: Any) -> FloatArray:
            d_h, found = pooled.backward(get(d_output)[0])
            for name, gradient in found.items():
                run.device.load(gradients[name], gradient)
            d: FloatArray = put(np.ascontiguousarray(d_h))
            return d

        return put(np.ascontiguousarray(pooled.output[None])), backward

    def _last(self, h: FloatArray, mask: Bools, before: Any, given: Any) -> Pooled:
        rows = np.arange(h.shape[1])
        last = np.maximum(mask[..., 0].sum(0) - 1, 0)  # (B,)
        ahead, back = slice(0, self.split), slice(self.split, None)
        output = np.concatenate([h[last, rows, ahead], h[0, :, back]], axis=1)  # (B, W)

        def backward(d: FloatArray) -> tuple[FloatArray, dict[str, FloatArray]]:
            d_h = np.zeros_like(h)
            d_h[last, rows, ahead] = d[:, ahead]
            d_h[0, :, back] = d[:, back]
            return d_h, {}

        return Pooled(output, {}, backward)

    def _mean(self, h: FloatArray, mask: Bools, before: Any, given: Any) -> Pooled:
        total = before["sum"] + np.where(mask, h, 0).sum(0)
        count = before["count"] + mask.sum(0).astype(h.dtype)
        divisor = np.maximum(count, 1)

        def backward(d: FloatArray) -> tuple[FloatArray, dict[str, FloatArray]]:
            return np.where(mask, d / divisor, 0).astype(h.dtype), {}

        return Pooled(total / divisor, {"sum": total, "count": count}, backward)

    def _max(self, h: FloatArray, mask: Bools, before: Any, given: Any) -> Pooled:
        valid = np.where(mask, h, -np.inf)
        where = valid.argmax(0)  # (B, W): the first of equals
        here = np.take_along_axis(valid, where[None], 0)[0]
        top = np.maximum(here, before["top"]).astype(h.dtype)
        output = np.where(np.isfinite(top), top, 0).astype(h.dtype)

        def backward(d: FloatArray) -> tuple[FloatArray, dict[str, FloatArray]]:
            d_h = np.zeros_like(h)
            mine = np.where((here >= before["top"]) & np.isfinite(here), d, 0).astype(h.dtype)
            np.put_along_axis(d_h, where[None], mine[None], 0)
            return d_h, {}

        return Pooled(output, {"top": top}, backward)

    def _attention(self, h: FloatArray, mask: Bools, before: Any, given: Any) -> Pooled:
        weight, bias, vector = (given[f"{self.name}.{n}"] for n in ("weight", "bias", "vector"))
        flat = h.reshape(-1, self.width)
        inner = np.tanh(flat @ weight + bias)  # (T B, W)
        scores = np.where(mask, (inner @ vector).reshape(mask.shape), -np.inf)  # (T, B, 1)
        top = np.maximum(before["top"], scores.max(0))
        base = np.where(np.isfinite(top), top, 0)
        shares = np.exp(scores - base)
        faded = np.exp(np.where(np.isfinite(before["top"]), before["top"] - base, -np.inf))
        total = before["weight"] * faded + shares.sum(0)
        gathered = before["sum"] * faded + (shares * h).sum(0)
        divisor = np.where(total > 0, total, 1)
        output = (gathered / divisor).astype(h.dtype)
        after = {"sum": gathered, "weight": total, "top": top}

        def backward(d: FloatArray) -> tuple[FloatArray, dict[str, FloatArray]]:
            a = shares / divisor  # (T, B, 1)
            d_scores = a * ((h - output) * d).sum(-1, keepdims=True)
            d_inner = d_scores.reshape(-1, 1) * vector[:, 0] * (1 - inner * inner)
            d_h = a * d + (d_inner @ weight.T).reshape(h.shape)
            return d_h.astype(h.dtype), {
                f"{self.name}.weight": flat.T @ d_inner,
                f"{self.name}.bias": d_inner.sum(0),
                f"{self.name}.vector": inner.T @ d_scores.reshape(-1, 1),
            }

        return Pooled(output, {n: a.astype(h.dtype) for n, a in after.items()}, backward)


@dataclass(frozen=True)
class Pooled:
    """One window's result: ``(B, W)``, what is carried on, and the gradients from that of it."""

    output: FloatArray
    after: dict[str, FloatArray]
    backward: Any
