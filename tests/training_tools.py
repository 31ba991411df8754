"""What the tests of training share: small datasets, small jobs, and a network's gradient."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np

from rnnfarm.data import Column, Dataset, DatasetWriter, build_dataset, open_dataset
from rnnfarm.job import Job, read_job
from rnnfarm.kernels.choose import KernelChoice
from rnnfarm.kernels.numpy import NumPyKernel
from rnnfarm.nn.layer import Memory, Pass
from rnnfarm.nn.network import Network, NetworkSpec
from rnnfarm.plugins import Registry

REGISTRY = Registry.load()
VOCABULARY = 7
TEXT = "def add(a, b):\n    return a + b  # çé\n\nclass Cat:\n    name = 'tom'\n\n"


def numpy_choice(dtype: str = "float64") -> KernelChoice:
    return KernelChoice({"numpy": NumPyKernel()}, dtype=dtype)


def make_network(spec: NetworkSpec, dtype: str = "float64") -> Network:
    return Network(spec, numpy_choice(dtype))


def make_pass(
    mask: np.ndarray | None = None,
    reset: np.ndarray | None = None,
    states: dict[str, dict[str, np.ndarray]] | None = None,
    training: bool = True,
    carry: int = 1 << 30,
    **key: int,
) -> Pass:
    """A pass with memory of its own; ``mask`` and ``reset`` are ``(T, B)``."""
    return Pass(
        training=training,
        seed=key.get("seed", 0),
        step=key.get("step", 0),
        lane=key.get("lane", 0),
        mask=None if mask is None else mask[..., None],
        reset=None if reset is None else reset[..., None],
        states=states or {},
        carry=carry,
        memory=Memory(),
    )


def write_tokens(path: Path, lengths: dict[str, list[int]], seed: int = 0) -> Dataset:
    """A dataset of random tokens with a pattern that can be learned."""
    random = np.random.default_rng(seed)
    columns = {"tokens": Column.tokens(VOCABULARY), "labels": Column.tokens(3)}
    with DatasetWriter(path, columns) as writer:
        for split, sequences in lengths.items():
            for length in sequences:
                tokens = np.cumsum(random.integers(0, 3, length)) % VOCABULARY
                writer.append(split, {"tokens": tokens, "labels": tokens % 3})
    return open_dataset(path)


def write_values(path: Path, lengths: dict[str, list[int]], width: int = 2) -> Dataset:
    """A dataset of noisy waves, with the sum of each step's values, and whether that is positive,
    as other columns."""
    random = np.random.default_rng(1)
    columns = {
        "values": Column.values(width), "total": Column.values(1), "positive": Column.values(1),
    }  # fmt: skip
    with DatasetWriter(path, columns) as writer:
        for split, sequences in lengths.items():
            for length in sequences:
                phase = random.uniform(0, 6, width)
                waves = np.sin(np.arange(length)[:, None] / 3 + phase)
                values = (waves + 0.1 * random.standard_normal((length, width))).astype(np.float32)
                total = values.sum(1, keepdims=True)
                writer.append(split, {"values": values, "total": total, "positive": total > 0})
    return open_dataset(path)


def build_text(folder: Path, reader: str = "characters", repeat: int = 60) -> Path:
    """A dataset of a text with a vocabulary."""
    (folder / "text.txt").write_text(TEXT * repeat, encoding="utf-8")
    kind = REGISTRY.get("readers", reader)
    build_dataset(kind(files=[str(folder / "text.txt")], valid=0.2), folder / "data")
    return folder / "data"


def token_job(data: Path, /, **training: Any) -> dict[str, Any]:
    """A small job over tokens; ``model`` and ``data`` may be given as tables to change."""
    changes = {name: training.pop(name, {}) for name in ("data", "model")}
    job: dict[str, Any] = {
        "data": {"path": str(data)},
        "model": {
            "input": {"kind": "embedding", "size": 6},
            "layers": [{"cell": "lstm", "hidden": 8}],
            "loss": "cross_entropy",
        },
        "training": {"batch": 4, "window": 6, "steps": 12, "optimizer": {"name": "adam"}},
    }
    for name, change in changes.items():
        job[name] |= change
    job["training"] |= training
    return job


def value_job(data: Path, /, **training: Any) -> dict[str, Any]:
    """A small job over values."""
    job = token_job(data, **training)
    changed = training.get("model", {})
    job["model"] |= {"input": {"kind": "none"}, "loss": "mse"} | changed
    return job


def make_job(raw: dict[str, Any]) -> Job:
    return read_job(copy.deepcopy(raw), REGISTRY)


def entries(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
