"""Cutting the arena into buckets, each exchanged once its layers' gradients are there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from rnnfarm.nn.layer import FloatArray
from rnnfarm.nn.network import Network

#: Elements below which a layer shares its bucket with the next: each message costs some ms.
LEAST = 1 << 20
#: Elements below which a layer is not cut further, however many workers could add up a part.
PIECE = 1 << 17
#: Elements that are exchanged in the time that a message costs besides.
MESSAGE = 1 << 20


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
        return _size(self.spans)

    def of(self, arena: FloatArray) -> list[FloatArray]:
        """Views of the bucket's parts."""
        return [arena[start:stop] for start, stop in self.spans]


def make_buckets(network: Network, workers: int) -> list[Bucket]:
    """The arena's buckets, in the order in which the backward pass fills them.

    Small layers share a bucket. Where buckets have owners, large ones are cut so that every worker
    can add up a like part of the whole. The sums do not depend on it.
    """
    layout = network.layout
    largest = layout.size
    if owners_pay(layout.size, workers):
        largest = max(PIECE, -(-layout.size // workers))
    least = min(LEAST, largest)
    buckets: list[Bucket] = []
    spans: list[tuple[int, int]] = []

    def close(layer: str) -> None:
        buckets.append(Bucket(tuple(spans), layer))
        spans.clear()

    last = ""
    for layer in (layer for layer in reversed(network.layers) if layer.parameters):
        last = layer.name
        for name, parameter in layer.parameters.items():
            start, size = layout.starts[name], int(np.prod(parameter.shape))
            for first in range(start, start + size, largest):
                spans.append((first, min(first + largest, start + size)))
                if _size(spans) >= largest:
                    close(last)
        if _size(spans) >= least:
            close(last)
    if spans:
        if buckets and _size(spans) < least:  # not worth a message of its own
            spans[:0] = buckets.pop().spans
        close(last)
    return buckets


def owners_pay(elements: int, workers: int) -> bool:
    """Whether one worker should add up a bucket for all, instead of each for itself.

    With owners a worker reads twice the gradient in all, in two rounds; without, that of each other
    worker in one.
    """
    return workers > 2 and elements * (workers - 2) > 2 * MESSAGE * workers


def _size(spans: Iterable[tuple[int, int]]) -> int:
    return sum(stop - start for start, stop in spans)
