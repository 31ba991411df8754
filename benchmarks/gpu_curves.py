"""The same training on a GPU and on the CPU: do their loss curves agree?

Trains the quickstart's job for some steps with ``training.device = "cuda"`` and ``"cpu"`` from the
same seed, and prints the largest difference of the losses of a step as JSON. Exit code 1 where it
is above 1e-3, 4 where there is no GPU.

    python benchmarks/gpu_curves.py [--steps 200] [--host]

``--host`` trains a tiny model through the CPU's stand-in for a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

JOB = Path(__file__).parents[1] / "jobs" / "quickstart.toml"
#: The largest difference of two losses.
TOLERANCE = 1e-3
STEPS, HOST_STEPS = 200, 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--host", action="store_true", help="the CPU's stand-in, a tiny model")
    options = parser.parse_args()
    steps = options.steps or (HOST_STEPS if options.host else STEPS)
    if options.host:
        os.environ["RNNFARM_CUDA"] = "host"  # before rnnfarm is imported
        from rnnfarm_cupy.host import find_compiler

        problem = None if find_compiler() else "there is no C++ compiler; install g++"
    else:
        from rnnfarm_cupy.gpu import missing_gpu

        problem = missing_gpu()
    if problem is not None:
        print(problem, file=sys.stderr)
        sys.exit(4)
    raw = settings(steps, options.host)
    with tempfile.TemporaryDirectory() as folder:
        cuda, cpu = (losses(raw, device, Path(folder) / device) for device in ("cuda", "cpu"))
    apart = [abs(a - b) for a, b in zip(cuda, cpu, strict=True)]
    # Not ``max``, which a NaN may get past.
    agrees = len(apart) == steps and all(difference <= TOLERANCE for difference in apart)
    result = {
        "schema": 1,
        "steps": len(apart),
        "largest_difference": max(apart),
        "at_step": 1 + apart.index(max(apart)),
        "first_loss": {"cuda": cuda[0], "cpu": cpu[0]},
        "last_loss": {"cuda": cuda[-1], "cpu": cpu[-1]},
        "tolerance": TOLERANCE,
        "agrees": agrees,
    }
    print(json.dumps(result))
    sys.exit(not agrees)


def settings(steps: int, tiny: bool) -> dict[str, Any]:
    """The quickstart's job, as long as asked for, without what has no part in the loss."""
    raw = tomllib.loads(JOB.read_text())
    training = raw["training"]
    training |= {
        "steps": steps,
        "seed": 0,
        "evaluate_every": 0,
        "evaluate_windows": 1,
        "checkpoint_every": 0,
        "gradient_flow_every": 0,
        "log_every": 1,
    }
    training["schedule"]["warmup"] = min(training["schedule"]["warmup"], steps // 2)
    if tiny:
        training |= {"batch": 4, "window": 8, "lanes": 1}
        raw["model"]["input"]["size"] = 8
        raw["model"]["layers"] = [{"cell": "gru", "hidden": 16}]
    return raw


def losses(raw: dict[str, Any], device: str, out: Path) -> list[float]:
    """The loss of every step of a training."""
    from rnnfarm.job import read_job
    from rnnfarm.metrics_log import read_metrics
    from rnnfarm.plugins import Registry
    from rnnfarm.training.session import train

    registry = Registry.load()
    job = read_job(raw | {"training": raw["training"] | {"device": device}}, registry, JOB.parent)
    print(f"{job.training.steps} steps on {device} …", file=sys.stderr, flush=True)
    train(job, registry, out=out)
    entries = read_metrics(out / "metrics.jsonl")
    return [entry["train_loss"] for entry in entries if "train_loss" in entry]


if __name__ == "__main__":
    main()
