"""A Ray cluster of several nodes on this machine, and runs on it whose workers are disturbed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from training_tools import REGISTRY, make_job, token_job

from rnnfarm.cluster.engine import ClusterTrainer
from rnnfarm.cluster.train import train_with_workers
from rnnfarm.report import Progress
from rnnfarm.training.session import Result


@contextmanager
def ray_cluster(nodes: int, cpus: int, path: Path | None = None) -> Iterator[Cluster]:
    """A head without CPUs and ``nodes`` nodes, on free ports, in a temporary folder of its own.

    ``path`` is a folder that workers import from.
    """
    folder = tempfile.mkdtemp(prefix="rt-", dir="/tmp")  # sockets below it need a short path
    new = {"RAY_TMPDIR": folder, "RAY_worker_niceness": "0", "PYTHONPATH": str(path or "")}
    before = {name: os.environ.get(name) for name in new}
    os.environ |= new
    (Path(folder) / "ray").mkdir()  # where Ray itself would make it too late
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": False,
            # A dead node is noticed after 2 s instead of 15.
            "_system_config": {"health_check_period_ms": 500, "health_check_failure_threshold": 4},
        },
    )
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=cpus, object_store_memory=600 << 20)
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)


def cluster_job(data: Path, **changes: Any) -> dict[str, Any]:
    """Four lanes, dropout between layers and within the recurrence, evaluations."""
    layers = [{"cell": "lstm", "hidden": 8, "dropout": 0.2, "recurrent_dropout": 0.1}] * 2
    cluster = changes.pop("cluster", {})
    settings = {"lanes": 4, "evaluate_every": 5, "checkpoint_every": 7} | changes
    job = token_job(data, model={"layers": layers}, **settings)
    return job | {"cluster": {"snapshot_every": 4, "deadline": 4.0} | cluster}


class Disturbed(ClusterTrainer):
    """A trainer that is disturbed before some steps.

    ``sizes`` holds how many workers did each step, ``recovered`` the seconds from a disturbance to
    the end of the first step of the new group.
    """

    at: dict[int, Callable[[Disturbed], None]]

    def prepare(self, at: dict[int, Callable[[Disturbed], None]]) -> None:
        self.at, self.sizes, self.recovered = dict(at), [], []
        self.struck = 0.0

    def train_step(self) -> dict[str, Any]:
        disturb = self.at.pop(self.step, None)
        losses = self.losses
        if disturb is not None:
            disturb(self)
        metrics = super().train_step()
        if self.losses > losses:
            self.recovered.append(time.monotonic() - self.struck)
        self.sizes.append(self.workers)
        return metrics

    def pid(self, rank: int) -> int:
        home = self.group.members[rank].home
        return int(home.pid)

    def strike(self, rank: int, seconds: float, number: int = signal.SIGKILL) -> int:
        """Send a worker a signal a moment later, in the middle of a step; its process."""
        pid = self.pid(rank)

        def send() -> None:
            self.struck = time.monotonic()
            os.kill(pid, number)

        threading.Timer(seconds, send).start()
        return pid


def run_disturbed(
    monkeypatch: pytest.MonkeyPatch,
    raw: dict[str, Any],
    workers: int | tuple[int, int],
    out: Path,
    at: dict[int, Callable[[Disturbed], None]],
) -> tuple[Result, Disturbed]:
    """Train on the cluster that this process is connected to, with disturbances by step."""
    made: list[Disturbed] = []

    def make(*arguments: Any, **options: Any) -> Disturbed:
        made.append(Disturbed(*arguments, **options))
        made[-1].prepare(at)
        return made[-1]

    monkeypatch.setattr("rnnfarm.cluster.train.ClusterTrainer", make)
    result = train_with_workers(
        make_job(raw), REGISTRY, workers, out=out, progress=Progress(quiet=False)
    )
    return result, made[0]


def nothing_left() -> None:
    """Assert that no actor and no placement group of a run is there any more."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        groups = [g for g in ray.util.placement_group_table().values() if g["state"] != "REMOVED"]
        free, have = ray.available_resources(), ray.cluster_resources()
        if not groups and free.get("CPU") == have.get("CPU"):
            return
        time.sleep(0.1)
    raise AssertionError(f"left behind: {groups}, CPUs {free.get('CPU')} of {have.get('CPU')}")


def is_alive(pid: int) -> bool:
    """Whether a process is there, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def start_rnnfarm(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """A command in a process of its own, with what it prints in pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "rnnfarm", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
