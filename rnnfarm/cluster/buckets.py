"""Cutting the arena into buckets, each exchanged once its layers' gradients are there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rnnfarm.nn.layer import FloatArray
from rnnfarm.nn.network import Network

#: Elements below which a bucket is not worth a message: a message takes as long as 1 MB.
LEAST = 1 << 18


@dataclass(frozen=True)
class Bucket:
    """Parts of the arena that are exchanged together.

    Attributes:
        spans: ``(start, stop)`` of each part.
        after: the layer whose backward writes the last of them.
    """

    spans: tuple[tuple[int, int], ...]
    after: str

    @property
    def size(self) -> int:
        return sum(stop - start for start, stop in self.spans)

    def of(self, arena: FloatArray) -> list[FloatArray]:
        """Views of the bucket's parts."""
        return [arena[start:stop] for start, stop in self.spans]


def make_buckets(network: Network, workers: int, least: int = LEAST) -> list[Bucket]:
    """The arena's buckets, in the order in which the backward pass fills them.

    Small layers share a bucket, and large ones are cut so that every worker can add up a like part
    of the whole. The sums do not depend on it.
    """
    largest = max(least, -(-network.layout.size // workers))
    buckets: list[Bucket] = []
    spans: list[tuple[int, int]] = []
    for layer, span in _pieces(network, largest):
        spans.append(span)
        if sum(stop - start for start, stop in spans) >= least:
            buckets.append(Bucket(tuple(spans), layer))
            spans = []
    if spans:
        buckets.append(Bucket(tuple(spans), layer))
    return buckets


def _pieces(network: Network, largest: int) -> list[tuple[str, tuple[int, int]]]:
    """``(layer, span)`` of every parameter, the highest layer first, none above ``largest``."""
    layout = network.layout
    pieces = []
    for layer in reversed(network.layers):
        for name, parameter in layer.parameters.items():
            start, size = layout.starts[name], int(np.prod(parameter.shape))
            pieces += [
                (layer.name, (first, min(first + largest, start + size)))
                for first in range(start, start + size, largest)
            ]
    return pieces
