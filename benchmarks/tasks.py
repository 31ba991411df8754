"""What a job reaches, how long it takes, and how much of its windows is padding, as JSON.

For each seed the job is trained from its beginning and evaluated beside its baseline; a row of
JSON is printed. Seconds are of the training's command, with the start and without the dataset's
build, which is made before. The last row has the mean over seeds, and the padding: the share of
the steps of an epoch's windows of the training part (and of what a decoder writes for them) that
are none of a sequence.

    python benchmarks/tasks.py jobs/adding.toml [--set KEY=VALUE]... [--seeds 0 1 2] [--split test]
        [--beam 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rnnfarm.data.build import ensure_dataset
from rnnfarm.job import load_job
from rnnfarm.plugins import Registry
from rnnfarm.training.setup import make_model, make_windows


def rnnfarm(*words: str) -> Any:
    """What a command prints as JSON; its own errors reach stderr."""
    command = [sys.executable, "-m", "rnnfarm", *words, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    return json.loads(done.stdout)


def padding(path: Path, settings: list[str]) -> float:
    """The share of padding in an epoch of training; the dataset is made where it is not there."""
    registry = Registry.load()
    job = load_job(path, settings, registry)
    dataset = ensure_dataset(job, registry)
    windows = make_windows(job, make_model(job, dataset, registry), dataset, "train")
    steps = read = 0
    for number in range(windows.windows_in_epoch()):
        window = windows.read(number)
        rows, held = window.x.shape[1], window.mask
        steps += len(window.x) * rows
        read += len(window.x) * rows if held is None else int(held.sum())
        if window.fed is not None:  # what a decoder writes has steps of its own
            steps += window.valid.size
            read += int(window.valid.sum())
    return 1 - read / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--split", default="test")
    parser.add_argument("--beam", type=int, default=1)
    given = parser.parse_args()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"data.path={folder}/data", *given.set]
        padded = padding(given.job, settings)
        for seed in given.seeds:
            words = [*settings, f"training.seed={seed}"]
            chosen = [word for one in words for word in ("--set", one)]
            run = f"{folder}/{seed}"
            begin = time.perf_counter()
            rnnfarm("train", str(given.job), "--out", run, *chosen)
            seconds = time.perf_counter() - begin
            report = rnnfarm("evaluate", run, "--split", given.split, "--beam", str(given.beam))
            found.append({"seconds": round(seconds, 1), **report})
            row = {"benchmark": "tasks", "job": given.job.stem, "seed": seed, **found[-1]}
            print(json.dumps(row), flush=True)
    numbers = [name for name, value in found[0].items() if isinstance(value, float)]
    mean = {name: round(statistics.mean(row[name] for row in found), 4) for name in numbers}
    row = {"benchmark": "tasks", "job": given.job.stem, "seeds": given.seeds, "mean": mean}
    print(json.dumps(row | {"padding": round(padded, 3)}))


if __name__ == "__main__":
    main()
