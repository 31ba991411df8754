"""The exchange through Ray's object store: no ports of its own, the same on one machine and many.

With few workers, or few bytes, each adds up everything: it reads the others' parts, in one round.
Otherwise every bucket has an owner, which adds it up and gives the sum to all: a worker then reads
and writes about twice the gradient's bytes, however many workers there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Condition
from typing import Any

import numpy as np
import ray

from rnnfarm.cluster.buckets import owners_pay
from rnnfarm.cluster.exchange import Abandoned, Exchange, Membership, Part
from rnnfarm.training.lanes import Node, reduce_tree

#: A step and a bucket of it.
Key = tuple[int, int]


class ObjectStore(Exchange):
    """Workers put their parts into the object store and tell each other's actors of them."""

    def __init__(self) -> None:
        self._place: Membership | None = None
        self._changed = Condition()
        self._parts: dict[Key, dict[Node, Part]] = {}
        self._sums: dict[Key, Part] = {}
        self._abandoned = False
        self._owners: list[int | None] = []

    def address(self) -> Any:
        return ray.get_runtime_context().current_actor

    def connect(self, place: Membership) -> None:
        with self._changed:
            self._place = place
            self._parts, self._sums = {}, {}
            self._abandoned = False
            self._owners = owners(place.sizes, place.workers)

    def send(self, step: int, bucket: int, parts: Mapping[Node, Part]) -> None:
        place, owner = self._here(), self._owners[bucket]
        if owner is None:
            self._tell(place, range(place.workers), step, bucket, dict(parts))
        elif owner != place.rank:
            self._tell(place, [owner], step, bucket, dict(parts))
            return
        self._add(place, step, bucket, parts)

    def deliver(self, message: Any) -> None:
        generation, step, bucket, parts = message
        place = self._here()
        if generation == place.generation:
            self._add(place, step, bucket, parts)

    def receive(self, step: int, bucket: int) -> Part:
        key = (step, bucket)
        with self._changed:
            self._changed.wait_for(lambda: key in self._sums or self._abandoned)
            if self._abandoned:
                raise Abandoned
            return self._sums.pop(key)

    def abandon(self) -> None:
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def _here(self) -> Membership:
        if self._place is None:
            raise RuntimeError("the exchange was used before it was connected")
        return self._place

    def _tell(
        self,
        place: Membership,
        ranks: Sequence[int],
        step: int,
        bucket: int,
        parts: dict[Node, Part],
    ) -> None:
        others = [rank for rank in ranks if rank != place.rank]
        if others:
            # Put once, and not as an argument of each call, which would copy it for each.
            content = ray.put((place.generation, step, bucket, parts))
            for rank in others:
                place.addresses[rank].deliver.options(num_returns=0).remote(content)

    def _add(self, place: Membership, step: int, bucket: int, parts: Mapping[Node, Part]) -> None:
        """Take parts of a bucket; add them up where all are there, and give the sum on."""
        key, root = (step, bucket), (0, place.lanes)
        with self._changed:
            if place is not self._place:  # connected anew in the meantime
                return
            known = self._parts.setdefault(key, {})
            known.update(parts)
            if sum(last - first for first, last in known) < place.lanes:
                return
            del self._parts[key]
        total = reduce_tree(root, known, add_parts)
        if self._owners[bucket] == place.rank and root not in parts:
            self._tell(place, range(place.workers), step, bucket, {root: total})
        with self._changed:
            if place is self._place:
                self._sums[key] = total
            self._changed.notify_all()


def add_parts(left: Part, right: Part) -> Part:
    """The sums of two parts' arrays, in place in one of them that can be written to.

    What lies in Ray's object store cannot. Which of two is the left one does not matter to a sum.
    """
    return [
        np.add(a, b, out=a if a.flags.writeable else b if b.flags.writeable else None)
        for a, b in zip(left, right, strict=True)
    ]


def owners(sizes: Sequence[int], workers: int) -> list[int | None]:
    """The worker that adds up each bucket, none having much more to do than another.

    None where everyone does.
    """
    if not owners_pay(sum(sizes), workers):
        return [None] * len(sizes)
    loads = [0] * workers
    found: list[int | None] = [None] * len(sizes)
    for bucket in sorted(range(len(sizes)), key=lambda b: -sizes[b]):
        rank = loads.index(min(loads))
        loads[rank] += sizes[bucket]
        found[bucket] = rank
    return found
