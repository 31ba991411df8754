"""Ray workers whose arrays lie on a device: here each has the CPU's stand-in for a GPU.

Each run is a process of its own, since Ray keeps to how it was first started in one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from cluster_tools import cluster_job
from rnnfarm_cupy import kernel
from rnnfarm_cupy.host import find_compiler
from training_tools import write_tokens

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler"),
]


def run(job: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rnnfarm", "train", str(job), "--out", str(out), "--json"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment[kernel.VARIABLE] = "host"
    return subprocess.run(
        [*command, *options], capture_output=True, text=True, check=False, env=environment
    )


def write_job(folder: Path, **cluster: Any) -> Path:
    write_tokens(folder / "data", {"train": [90, 70] * 4, "valid": [60] * 4})
    raw = cluster_job(folder / "data")
    raw["training"] |= {"device": "cuda", "steps": 6, "checkpoint_every": 3}
    raw["cluster"] = {**raw.get("cluster", {}), **cluster}
    job = folder / "job.toml"
    job.write_text(tomli_w.dumps(raw))
    return job


def test_workers_give_the_bits_of_one_process(tmp_path: Path) -> None:
    """Gradients are brought to the host and added there, as where there is no NCCL."""
    job = write_job(tmp_path, gpus=0, exchange="object_store")
    results = []
    for number, options in enumerate([(), ("--workers", "2")]):
        done = run(job, tmp_path / str(number), *options)
        assert done.returncode == 0, done.stderr[-2000:]
        results.append(json.loads(done.stdout))
    alone, shared = results
    assert alone["kernel"] == shared["kernel"] == "cuda"
    assert shared["workers"] == 2
    for key in ("parameters_sha256", "train_loss", "valid_loss"):
        assert alone[key] == shared[key], key


def test_a_cluster_without_gpus(tmp_path: Path) -> None:
    job = write_job(tmp_path, start_timeout=2.0)
    done = run(job, tmp_path / "run", "--workers", "2")
    assert done.returncode == 4
    assert "GPU" in done.stderr
    assert "Traceback" not in done.stderr
