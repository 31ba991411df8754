"""Two Ray workers of one CPU each against one, on an LSTM language model; prints JSON.

Both groups are up at the same time in one Ray, and take turns, some steps each, so that a machine
that gets slower slows both. Beside the ratio of medians it prints what a step's time went to, as
seen by worker 0, and how long `rnnfarm train --workers 2` takes to its first finished step.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import ray

from rnnfarm.cluster.connect import ray_session
from rnnfarm.cluster.engine import ClusterTrainer
from rnnfarm.data import Column, DatasetWriter, open_dataset
from rnnfarm.job import read_job
from rnnfarm.plugins import Registry
from rnnfarm.training.setup import make_model, make_windows

VOCABULARY = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--warmup", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="of each group in a round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with DatasetWriter(place / "data", {"tokens": Column.tokens(VOCABULARY)}) as writer:
            for seed in range(options.batch):
                tokens = np.random.default_rng(seed).integers(0, VOCABULARY, 4096)
                writer.append("train", {"tokens": tokens})
        job = {
            "data": {"path": str(place / "data")},
            "model": {
                "input": {"kind": "embedding", "size": options.hidden},
                "layers": [{"cell": "lstm", "hidden": options.hidden}] * options.layers,
                "loss": "cross_entropy",
            },
            "training": {
                "batch": options.batch,
                "window": options.window,
                "lanes": max(options.workers),
                "steps": 10**6,
                "clip": 1.0,
            },
        }
        report: dict[str, Any] = vars(options) | steps_of(job, options, place)
        report["seconds_to_first_step"] = first_step(place)
    print(json.dumps(report, indent=1))


def steps_of(job: dict[str, Any], options: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Interleaved steps of a group for each number of workers."""
    with ray_session(None, sum(options.workers), place / "ray.log", 256 << 20):
        trainers = {n: trainer_of(job, n, place) for n in options.workers}
        times: dict[int, list[float]] = {n: [] for n in options.workers}
        spent: dict[int, Counter[str]] = {n: Counter() for n in options.workers}
        for trainer in trainers.values():  # until Ray's object store has used all of its memory
            for _ in range(options.warmup):
                trainer.train_step()
        for _ in range(options.rounds):
            for n, trainer in trainers.items():
                trainer.train_step()  # the first after the other group's finds cold caches
                before = trainer.seconds.copy()
                for _ in range(options.steps):
                    began = time.perf_counter()
                    trainer.train_step()
                    times[n].append(time.perf_counter() - began)
                spent[n].update(trainer.seconds - before)
        elements = options.batch * options.window
        first = median(times[options.workers[0]])
        rows = [
            {
                "workers": n,
                "step_seconds": round(median(times[n]), 4),
                "elements_per_second": round(elements / median(times[n]), 1),
                "times_as_fast": round(first / median(times[n]), 3),
                "megabytes_of_gradient": round(trainer.arena.nbytes / 1e6, 1),
                "share": shares(spent[n], sum(times[n])),
            }
            for n, trainer in trainers.items()
        ]
        assert len({trainer_hash(t) for t in trainers.values()}) == 1, "the bits differ"
        for trainer in trainers.values():
            trainer.close()
    return {"ray": ray.__version__, "rows": rows}


def shares(spent: Counter[str], total: float) -> dict[str, float]:
    """What worker 0 spent a step's time on; the rest is calls, snapshots and the driver."""
    found = {name: round(seconds / total, 4) for name, seconds in spent.items()}
    return found | {"rest": round(1 - sum(found.values()), 4)}


def trainer_of(raw: dict[str, Any], workers: int, place: Path) -> ClusterTrainer:
    registry = Registry.load()
    job = read_job(raw | {"cluster": {"workers": workers}}, registry)
    dataset = open_dataset(job.data.path)
    model = make_model(job, dataset, registry)
    return ClusterTrainer(
        job,
        registry,
        model,
        make_windows(job, model, dataset, "train"),
        session=lambda store: nullcontext(),
        log_file=place / f"ray{workers}.log",
        say=lambda line: print(line, file=sys.stderr),
    )


def trainer_hash(trainer: ClusterTrainer) -> bytes:
    trainer.take_snapshot()
    return trainer.arena.tobytes()


def first_step(place: Path, runs: int = 3) -> float:
    """Median seconds from the start of `rnnfarm train --workers 2` to its first line of metrics."""
    (place / "job.toml").write_text(
        f'[data]\npath = "{place / "data"}"\n'
        '[model]\ninput = { kind = "embedding", size = 64 }\n'
        'layers = [{ cell = "lstm", hidden = 128 }]\nloss = "cross_entropy"\n'
        "[training]\nlanes = 2\nsteps = 3\n"
    )
    found = []
    for k in range(runs):
        out = place / f"run{k}"
        began = time.perf_counter()
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "rnnfarm", "train", str(place / "job.toml")),
                *("--workers", "2", "--out", str(out), "--quiet"),
            ],
            stdout=subprocess.DEVNULL,
        )
        metrics = out / "metrics.jsonl"
        while not (metrics.exists() and metrics.stat().st_size):
            if process.poll() is not None:
                raise SystemExit("rnnfarm train failed")
            time.sleep(0.01)
        found.append(time.perf_counter() - began)
        process.wait()
    return round(median(found), 2)


if __name__ == "__main__":
    main()
