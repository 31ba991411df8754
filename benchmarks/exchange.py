"""The exchange of a gradient alone, between workers of this machine; prints JSON.

For each number of workers and each size the median time from the first `send` to the last `receive`
of a step, all buckets being ready at once. What it prints calibrates `scaling_model.py`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import ray

from rnnfarm.cluster.buckets import PIECE, owners_pay
from rnnfarm.cluster.connect import ray_session
from rnnfarm.cluster.exchange import Membership
from rnnfarm.cluster.object_store import ObjectStore

#: Bytes of the object store.
STORE = 600 << 20


class Member:
    """A worker that has nothing to compute."""

    def __init__(self) -> None:
        self.exchange = ObjectStore()

    def address(self) -> Any:
        return self.exchange.address()

    def connect(self, rank: int, addresses: list[Any], sizes: list[int]) -> None:
        workers = len(addresses)
        lanes = tuple(range(k, k + 1) for k in range(workers))
        place = Membership(1, rank, workers, lanes, tuple(addresses), tuple(sizes))
        self.exchange.connect(place)
        self.node = (rank, rank + 1)
        self.buckets = [np.ones(size, np.float32) for size in sizes]

    def step(self, number: int) -> float:
        began = time.perf_counter()
        for k, bucket in enumerate(self.buckets):
            self.exchange.send(number, k, {self.node: [bucket]})
        for k in range(len(self.buckets)):
            self.exchange.receive(number, k)
        return time.perf_counter() - began

    @ray.method(concurrency_group="mail")
    def deliver(self, message: Any) -> None:
        self.exchange.deliver(message)


def buckets(elements: int, workers: int) -> list[int]:
    """As `cluster/buckets.py` cuts one large layer."""
    piece = max(PIECE, -(-elements // workers)) if owners_pay(elements, workers) else elements
    return [min(piece, elements - first) for first in range(0, elements, piece)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--megabytes", type=float, nargs="+", default=[0.001, 1, 4, 16, 64])
    parser.add_argument("--steps", type=int, default=15)
    options = parser.parse_args()
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        ray_session(None, max(options.workers), Path(folder) / "ray.log", STORE),
    ):
        for workers in options.workers:
            remote: Any = ray.remote
            kind = remote(num_cpus=1, concurrency_groups={"mail": 1})(Member)
            members = [kind.remote() for _ in range(workers)]
            addresses = ray.get([m.address.remote() for m in members])
            for megabytes in options.megabytes:
                sizes = buckets(max(int(megabytes * 1e6 / 4), 1), workers)
                calls = [m.connect.remote(k, addresses, sizes) for k, m in enumerate(members)]
                ray.get(calls)
                # Until the object store has used all of its memory once; no more than a minute.
                warmup = 5 + min(100, int(STORE / 1e6 / (workers * megabytes)))
                times = [
                    max(ray.get([m.step.remote(number) for m in members]))
                    for number in range(options.steps + warmup)
                ]
                rows.append(
                    {
                        "workers": workers,
                        "megabytes": megabytes,
                        "buckets": len(sizes),
                        "median_ms": round(1e3 * median(times[warmup:]), 2),
                    }
                )
            for member in members:
                ray.kill(member)
    print(json.dumps({"benchmark": "exchange", "ray": ray.__version__, "rows": rows}))


if __name__ == "__main__":
    main()
