"""What the initial values of parameters do to the results of small tasks, as JSON lines.

Each task is trained with each start (settings of ``init``) and each seed, for a small budget, and
evaluated on what it has not seen. Rows that ``--out`` has already are not computed again. With
``--table`` the rows of that file are shown as a Markdown table of means and standard deviations.

    python benchmarks/defaults.py --data DIR --out rows.jsonl [--tasks NAME]... [--starts NAME]...
    python benchmarks/defaults.py --out rows.jsonl --table

DIR holds the data sets of the field, as RNNFARM_TEST_DATA does; tasks without theirs are left out.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rnnfarm
from rnnfarm.data.build import ensure_dataset
from rnnfarm.job import load_job
from rnnfarm.plugins import Registry
from rnnfarm.training.evaluate import evaluate_run

JOBS = Path(__file__).parents[1] / "jobs"


def _job(name: str, *settings: str) -> Any:
    return lambda data: (JOBS / f"{name}.toml", [s.replace("DATA", str(data)) for s in settings])


def _words(optimizer: str, clip: float, file: str, most: int, steps: int) -> Any:
    """A small language model of words: an LSTM of 64 units, 10 rows of text, windows of 20."""
    common = [
        f'data.build={{ reader = "words", valid = 0.05, max_size = {most} }}',
        f'data.build.files=["{file}"]',
        'model.input={ kind = "embedding", size = 64, dropout = 0.1 }',
        'model.layers=[{ cell = "lstm", hidden = 64, dropout = 0.1 }]',
        f"training.optimizer={optimizer}",
        f"training.clip={clip}",
        f"training.steps={steps}",
        "training.batch=10",
        "training.window=20",
        "training.evaluate_every=0",
        "training.evaluate_windows=0",
        "training.gradient_flow_every=0",
        "training.schedule.warmup=0",
    ]
    return _job("text", *common)


PYTHON_DOCS = "python-docs.txt"
TASKS: dict[str, tuple[Any, str, str]] = {
    # name: the job and its settings, the metric, and the split that it is measured on
    "vowels": (
        _job(
            "series",
            'data.build.files=["DATA/japanese-vowels/TRAIN.ts"]',
            'data.build.test_files=["DATA/japanese-vowels/TEST.ts"]',
            "training.steps=400",
        ),
        "loss",
        "test",
    ),
    "digits": (
        _job(
            "spoken-digits", 'data.build.files=["DATA/fsdd/recordings/*.wav"]', "training.steps=250"
        ),
        "loss",
        "test",
    ),
    "sst2": (
        _job(
            "sentiment",
            'data.build.files=["DATA/sst2/train.txt"]',
            'data.build.valid_files=["DATA/sst2/dev.txt"]',
            'data.build.test_files=["DATA/sst2/test.txt"]',
            "training.steps=500",
        ),
        "loss",
        "test",
    ),
    "etth1": (
        _job(
            "horizon",
            'data.build.files=["DATA/ett/ETTh1.csv"]',
            "data.build.time=date",
            "data.build.first=14400",
            "training.steps=200",
        ),
        "loss",
        "test",
    ),
    "adding": (
        _job("adding", "data.build.length=50", "training.steps=500", "training.window=50"),
        "loss",
        "valid",
    ),
    "characters": (
        _job(
            "text",
            'data.build.files=["DATA/tinyshakespeare/input.txt"]',
            'model.layers=[{ cell = "lstm", hidden = 128 }]',
            "training.steps=500",
            "training.evaluate_every=0",
            "training.schedule.warmup=20",
        ),
        "loss",
        "valid",
    ),
    "words, adam": (
        _words('{ name = "adam", lr = 2e-3 }', 1.0, "DATA/multi30k/train.en", 2000, 400),
        "perplexity",
        "valid",
    ),
    "words, adam, long": (
        _words('{ name = "adam", lr = 2e-3 }', 1.0, "DATA/multi30k/train.en", 2000, 3000),
        "perplexity",
        "valid",
    ),
    "words, sgd": (
        _words('{ name = "sgd", lr = 20.0 }', 0.25, f"TEXTS/{PYTHON_DOCS}", 2000, 500),
        "perplexity",
        "valid",
    ),
}
#: Settings that every start is added to.
STARTS: dict[str, dict[str, str]] = {
    "default": {},
    "pytorch": {"model": "pytorch"},
    "keras": {"model": "keras"},
    "output 1/sqrt(H)": {"output": "pytorch"},
    "embedding 0.1": {"embedding": "uniform:0.1"},
    "embedding 0.1, output 1/sqrt(H)": {"embedding": "uniform:0.1", "output": "pytorch"},
    "embedding 0.1, output 0.1": {"embedding": "uniform:0.1", "output": "uniform:0.1"},
    "output lecun": {"output": "lecun_uniform"},
    "embedding sqrt(size/V)": {"embedding": "normal:FEW"},
    "embedding 1/sqrt(size)": {"embedding": "normal:ROOT"},
    "embedding 0.3": {"embedding": "normal:0.3"},
    "embedding sqrt(size/V), output lecun": {
        "embedding": "normal:FEW",
        "output": "lecun_uniform",
    },
    "embedding sqrt(size/V), output 1/sqrt(H)": {"embedding": "normal:FEW", "output": "pytorch"},
    "forget bias 0": {"forget": "0"},
    "recurrent glorot": {"recurrent": "glorot_uniform"},
    "embedding 0.1, cells and output 1/sqrt(H)": {
        "embedding": "uniform:0.1",
        "output": "pytorch",
        "cells": "pytorch",
    },
}


def settings_of(start: dict[str, str], job: Any) -> list[str]:
    """The ``--set`` words of a start for a job."""
    found = []
    if job.model.input.kind == "embedding":
        registry = Registry.load()
        tokens = ensure_dataset(job, registry).columns[job.data.input or "tokens"].vocabulary or 1
        size = job.model.input.size
        few, root = min(1.0, (size / tokens) ** 0.5), size**-0.5
        changed = (init.replace("FEW", f"{few:g}") for init in start.values())
        changed = (init.replace("ROOT", f"{root:g}") for init in changed)
        start = dict(zip(start, changed, strict=True))
    for part, init in start.items():
        layers = list(enumerate(job.model.layers))
        if part == "forget":
            found += [f"model.layers.{k}.forget_bias=0" for k, one in layers if one.cell == "lstm"]
        elif part == "recurrent":
            found += [f'model.layers.{k}.init={{ recurrent = "{init}" }}' for k, _ in layers]
        elif part == "cells":
            found += [f"model.layers.{k}.init={init}" for k, _ in layers]
        elif part == "embedding":
            found += [f"model.input.init={init}"] * (job.model.input.kind == "embedding")
        else:
            found.append("model.init=" + init if part == "model" else f"model.{part}.init={init}")
    return found


def rows(given: argparse.Namespace, done: set[tuple[str, str, int]]) -> Iterator[dict[str, Any]]:
    """Train and measure all that is not done, the first seed of everything first."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / PYTHON_DOCS).write_text(python_docs(), encoding="utf-8")
        for seed in given.seeds:
            for task in given.tasks:
                make, metric, split = TASKS[task]
                path, settings = make(given.data)
                settings = [s.replace("TEXTS", folder) for s in settings]
                settings += [f"data.path={folder}/data {task}", f"training.seed={seed}"]
                job = load_job(path, settings, Registry.load())
                seen: list[list[str]] = []
                for start in given.starts:
                    words = settings_of(STARTS[start], job)
                    same = words in seen or (bool(STARTS[start]) and not words)
                    seen.append(words)
                    # Of a task that has no such part a start is the same as another one.
                    if same or (task, start, seed) in done:
                        continue
                    run = Path(folder) / f"run {task} {start.replace('/', ' ')} {seed}"
                    begin = time.perf_counter()
                    rnnfarm.train(path, out=run, overrides=[*settings, *words])
                    seconds = time.perf_counter() - begin
                    report = evaluate_run(run, Registry.load(), split=split)
                    yield {
                        "benchmark": "defaults",
                        "task": task,
                        "start": start,
                        "seed": seed,
                        "metric": metric,
                        "value": report[metric],
                        "accuracy": report.get("accuracy"),
                        "seconds": round(seconds, 1),
                    }


def python_docs() -> str:
    """The text of Python's own help topics, words and signs apart."""
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics))
    return "\n".join(
        " ".join(re.findall(r"\w+|[^\w\s]", line)) for line in text.splitlines() if line.strip()
    )


def table(found: list[dict[str, Any]]) -> str:
    """Means and standard deviations over seeds, as Markdown."""
    tasks = list(dict.fromkeys(row["task"] for row in found))
    starts = list(dict.fromkeys(row["start"] for row in found))
    lines = ["| start | " + " | ".join(tasks) + " |", "| --- |" + " --- |" * len(tasks)]
    for start in starts:
        cells = []
        for task in tasks:
            values = [r["value"] for r in found if (r["task"], r["start"]) == (task, start)]
            cells.append(_cell(values))
        lines.append(f"| {start} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    mean = statistics.mean(values)
    digits = max(0, 3 - math.floor(math.log10(abs(mean) or 1)))
    spread = statistics.stdev(values) if values[1:] else 0.0
    return f"{mean:.{digits}f} ± {spread:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("absent"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--starts", nargs="+", default=list(STARTS), choices=STARTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    text = given.out.read_text() if given.out and given.out.exists() else ""
    found = [json.loads(line) for line in text.splitlines()]
    if given.table:
        print(table(found))
        return
    done = {(row["task"], row["start"], row["seed"]) for row in found}
    with given.out.open("a") if given.out else sys.stdout as out:
        for row in rows(given, done):
            print(json.dumps(row), file=out, flush=True)


if __name__ == "__main__":
    main()
