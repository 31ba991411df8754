"""How far data-parallel training scales: a simulation of the exchange; prints JSON or a table.

It plays the messages of one step (`cluster/object_store.py`) on workers that each have a network
link, in and out, and one thread for messages. What a message costs and how fast memory is are taken
from `exchange.py` with two workers, and how fast a worker computes from `scaling.py`; pass other
figures to see other clusters. The simulation knows nothing of stragglers, of switches that are
shared, and of Ray's own limits, so that what it gives is the best that can be had.

    python benchmarks/scaling_model.py --table
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass

from rnnfarm.cluster.buckets import PIECE, owners_pay
from rnnfarm.cluster.object_store import owners

LAYERS = 4
#: How large the window of a lane is: rows and steps.
ROWS, STEPS = 32, 64


@dataclass(frozen=True)
class Cluster:
    """What a worker is.

    Attributes:
        flops: operations a second.
        message: seconds of its message thread for a message that it sends or takes.
        memory: bytes a second that it puts into the object store and adds up.
        network: bytes a second of its link, in each direction.
    """

    flops: float
    message: float
    memory: float
    network: float


def step_seconds(
    cluster: Cluster, workers: int, megabytes: float, lanes: int
) -> tuple[float, float]:
    """``(computing, whole)`` seconds of a step of a model whose gradient has so many megabytes."""
    elements = int(megabytes * 1e6 / 4)
    lane = 6 * elements * ROWS * STEPS / cluster.flops
    ready = [lane * (lanes - 2 / 3 + 2 / 3 * (k + 1) / LAYERS) for k in range(LAYERS)]
    buckets = [
        (when, size) for when in ready for size in cut(elements // LAYERS, elements, workers)
    ]
    return lane * lanes, exchange_end(cluster, workers, buckets)


def cut(layer: int, elements: int, workers: int) -> list[int]:
    """The buckets of a layer, as `cluster/buckets.py` cuts it."""
    piece = layer
    if owners_pay(elements, workers):
        piece = min(layer, max(PIECE, -(-elements // workers)))
    return [min(piece, layer - first) for first in range(0, layer, piece)]


def exchange_end(cluster: Cluster, workers: int, buckets: list[tuple[float, int]]) -> float:
    """When the last worker has the last sum; each bucket is ready everywhere at its time."""
    if workers == 1:
        return buckets[-1][0]
    out, into, thread = ([0.0] * workers for _ in range(3))
    found = owners([size for _, size in buckets], workers)
    end = 0.0

    def send(sender: int, receiver: int, when: float, size: int) -> float:
        """When a message that is ready at ``when`` has been taken."""
        data = 4 * size / cluster.network
        begin = max(when, thread[sender], out[sender])
        thread[sender] = begin + cluster.message
        arrives = max(begin + cluster.message, into[receiver]) + data
        out[sender] = begin + cluster.message + data
        into[receiver] = arrives
        thread[receiver] = max(arrives, thread[receiver]) + cluster.message
        thread[receiver] += 4 * size / cluster.memory
        return thread[receiver]

    sums: list[tuple[float, int, int]] = []
    for (when, size), owner in zip(buckets, found, strict=True):
        when += 4 * size / cluster.memory  # into the object store
        for rank in range(workers):
            targets = range(workers) if owner is None else [owner]
            for target in targets:
                if target != rank:
                    taken = send(rank, target, when, size)
                    end = max(end, taken)
        if owner is not None:
            sums.append((taken, owner, size))
    for when, owner, size in sorted(sums):
        for target in range(workers):
            if target != owner:
                end = max(end, send(owner, target, when, size))
    return end


def efficiency(
    cluster: Cluster, workers: int, megabytes: float, lanes: int = 1, node: int = 1
) -> float:
    """The share of a step that is computing; ``node`` workers add up in one memory first."""
    groups = max(workers // node, 1)
    computing, whole = step_seconds(cluster, groups, megabytes, lanes)
    if node > 1:
        within = min(node, workers)
        whole += 2 * (within - 1) * (cluster.message + megabytes * 1e6 / within / cluster.memory)
    return computing / max(whole, computing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flops", type=float, default=76e9, help="of one core")
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 16], help="of a worker")
    parser.add_argument("--message", type=float, default=0.9e-3)
    parser.add_argument("--memory", type=float, default=12e9)
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--megabytes", type=float, nargs="+", default=[4, 40, 400])
    parser.add_argument("--gigabits", type=float, nargs="+", default=[10, 100])
    parser.add_argument("--table", action="store_true", help="Markdown instead of JSON")
    options = parser.parse_args()
    rows = []
    for cores in options.cores:
        for gigabits in options.gigabits:
            cluster = Cluster(
                options.flops * cores, options.message, options.memory, gigabits * 1e9 / 8
            )
            for megabytes in options.megabytes:
                for workers in options.workers:
                    found = {
                        "plain": efficiency(cluster, workers, megabytes),
                        "8 lanes a worker": efficiency(cluster, workers, megabytes, lanes=8),
                        "8 workers a node": efficiency(cluster, workers, megabytes, node=8),
                        "both": efficiency(cluster, workers, megabytes, lanes=8, node=8),
                    }
                    rows.append(
                        {
                            "cores": cores,
                            "gigabits": gigabits,
                            "megabytes": megabytes,
                            "workers": workers,
                            **{name: round(share, 3) for name, share in found.items()},
                        }
                    )
    check = Cluster(1.0, options.message, options.memory, math.inf)
    two = {
        megabytes: round(1e3 * exchange_end(check, 2, [(0.0, int(megabytes * 1e6 / 4))]), 1)
        for megabytes in (0.001, 1, 4, 16, 64)
    }
    if not options.table:
        print(json.dumps({"benchmark": "scaling_model", "two_workers_ms": two, "rows": rows}))
        return
    print("| " + " | ".join(rows[0]) + " |\n|" + " --- |" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(f"{value:g}" for value in row.values()) + " |")
    print(f"\nThe exchange alone, two workers of one machine, by megabytes, in ms: {two}")


if __name__ == "__main__":
    main()
