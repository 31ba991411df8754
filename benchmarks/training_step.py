"""Where the time of a whole training step goes: recurrent kernels, matrix products, all else.

Trains a job for some steps on one thread, where nothing overlaps, and times every call of a
recurrent kernel and every product of the layers around it. ``else`` is what a step takes beyond
them: embedding, loss, optimizer, reading, clipping, Python.

    python benchmarks/training_step.py [--job jobs/quickstart.toml] [--kernel auto] [--steps 60]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from rnnfarm.data.build import ensure_dataset
from rnnfarm.job import load_job
from rnnfarm.kernels.interface import WindowKernel
from rnnfarm.nn import dense
from rnnfarm.plugins import Registry
from rnnfarm.training.loop import Trainer
from rnnfarm.training.setup import make_model, make_windows

TARGET = 0.15
JOB = Path(__file__).parents[1] / "jobs" / "quickstart.toml"


class Clock:
    """Adds up the time of calls, by kind."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def timed(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **named)
            self.spent[kind] = self.spent.get(kind, 0.0) + time.perf_counter() - start
            return result

        return call


class TimedNumPy:
    """NumPy, whose products are timed."""

    def __init__(self, clock: Clock) -> None:
        self.matmul = clock.timed("products", np.matmul)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--job", type=Path, default=JOB)
    parser.add_argument("--kernel", default="auto")
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    clock = Clock()
    dense.np = TimedNumPy(clock)  # type: ignore[attr-defined]
    with threadpool_limits(1):
        trainer = make_trainer(options.job, options.kernel)
        for layer in trainer.model.network.recurrent:
            for _, kernel in layer._kernels.values():
                time_kernel(kernel, clock)
        shares, steps = [], []
        for step in range(options.steps + 5):
            clock.spent.clear()
            start = time.perf_counter()
            trainer.train_step()
            took = time.perf_counter() - start
            if step >= 5:  # the first ones warm the caches
                steps.append(took)
                shares.append({kind: t / took for kind, t in clock.spent.items()})
        trainer.close()
    median = {
        kind: round(statistics.median(share[kind] for share in shares), 4) for kind in shares[0]
    }
    rest = round(statistics.median(1 - sum(share.values()) for share in shares), 4)
    print(
        json.dumps(
            {
                "schema": 1,
                "job": options.job.name,
                "kernels": trainer.model.network.kernels,
                "step_ms": round(statistics.median(steps) * 1e3, 2),
                "shares": {**median, "else": rest},
                "target": TARGET,
            }
        )
    )


def make_trainer(path: Path, kernel: str) -> Trainer:
    """A trainer of the job; builds its data where they are not there."""
    registry = Registry.load()
    job = load_job(path, [f"training.kernel={kernel}", "training.threads=1"], registry)
    dataset = ensure_dataset(job, registry)
    model = make_model(job, dataset, registry)
    return Trainer(job, registry, model, make_windows(job, model, dataset, "train"))


def time_kernel(kernel: WindowKernel, clock: Clock) -> None:
    kernel.forward = clock.timed("kernels", kernel.forward)  # type: ignore[method-assign]
    kernel.backward = clock.timed("kernels", kernel.backward)  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
