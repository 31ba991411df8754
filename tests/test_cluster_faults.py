"""Runs that lose workers and nodes, gain some, or hang: all end with the undisturbed bits."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from cluster_tools import (
    Disturbed,
    cluster_job,
    is_alive,
    nothing_left,
    ray_cluster,
    run_disturbed,
)
from ray.cluster_utils import Cluster
from thorough import times
from training_tools import REGISTRY, make_job

from rnnfarm.errors import RunError
from rnnfarm.training.result import Result
from rnnfarm.training.session import train

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]
STEPS = 16
Run = Callable[..., tuple[Result, Disturbed]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_cluster(nodes=2, cpus=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    job = make_job(cluster_job(data, steps=STEPS))
    return train(job, REGISTRY, out=tmp_path_factory.mktemp("alone")).parameters_sha256


@pytest.fixture
def run(
    cluster: Cluster, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Run]:
    """Run the job on the cluster; afterwards nothing of it may be left."""

    def run(workers: Any, at: dict[int, Callable[[Disturbed], Any]], **changes: Any) -> Any:
        job = cluster_job(data, **({"steps": STEPS} | changes))
        found = run_disturbed(monkeypatch, job, workers, tmp_path / "run", at)
        trainer = found[1]
        print(f"\nRECOVERED {json.dumps([trainer.recovered, trainer.redone])}")
        return found

    yield run
    nothing_left()


@pytest.mark.parametrize("seed", range(times(usual=3, thorough=20)))
def test_a_worker_is_killed(run: Run, undisturbed: str, seed: int) -> None:
    draw = random.Random(seed)
    workers = draw.choice([1, 2, 3, 4])
    killed: list[int] = []

    def kill(trainer: Disturbed) -> None:
        killed.append(trainer.strike(draw.randrange(trainer.workers), draw.uniform(0, 0.02)))

    result, trainer = run(workers, {draw.randrange(1, STEPS - 4): kill})
    assert result.parameters_sha256 == undisturbed
    assert not is_alive(killed[0])
    assert trainer.losses == 1
    assert trainer.redone <= 4


@pytest.mark.parametrize("seed", range(times(usual=1, thorough=3)))
def test_a_node_is_lost(cluster: Cluster, run: Run, undisturbed: str, seed: int) -> None:
    draw = random.Random(seed)
    extra = cluster.add_node(num_cpus=2, resources={"extra": 4})

    def lose(trainer: Disturbed) -> None:
        trainer.struck = time.monotonic()
        cluster.remove_node(extra, allow_graceful=False)

    # One worker must be on the node that is lost, as nodes of two CPUs have no room for both.
    job = {"cluster": {"cpus": 2, "placement": "strict_spread"}}
    result, trainer = run(3, {draw.randrange(1, STEPS - 4): lose}, **job)
    assert result.parameters_sha256 == undisturbed
    assert trainer.losses == 1
    assert trainer.sizes[0] == 3
    assert trainer.sizes[-1] == 2


@pytest.mark.parametrize("seed", range(times(usual=1, thorough=3)))
def test_a_node_is_gained(cluster: Cluster, run: Run, undisturbed: str, seed: int) -> None:
    draw = random.Random(seed)
    added: list[Any] = []

    def gain(trainer: Disturbed) -> None:
        added.append(cluster.add_node(num_cpus=2))
        end = time.monotonic() + 30
        while not trainer.group.waiting():
            assert time.monotonic() < end
            time.sleep(0.05)

    job = {"cluster": {"cpus": 2}}
    result, trainer = run((2, 3), {draw.randrange(1, STEPS - 4): gain}, **job)
    assert result.parameters_sha256 == undisturbed
    assert (trainer.sizes[0], trainer.sizes[-1]) == (2, 3)
    assert trainer.losses == trainer.redone == 0
    cluster.remove_node(added[0])


@pytest.mark.parametrize("seed", range(times(usual=1, thorough=3)))
def test_a_worker_is_stopped(
    run: Run, undisturbed: str, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    draw = random.Random(seed)
    stopped: list[int] = []

    def stop(trainer: Disturbed) -> None:
        stopped.append(trainer.strike(draw.randrange(2), draw.uniform(0, 0.02), signal.SIGSTOP))

    result, trainer = run(2, {draw.randrange(1, STEPS - 4): stop}, cluster={"deadline": 2.0})
    assert result.parameters_sha256 == undisturbed
    assert not is_alive(stopped[0])
    assert trainer.losses == 1
    assert "made no progress for 2 s (cluster.deadline) and does not answer" in caplog.text


def test_a_worker_that_dies_again_and_again(run: Run) -> None:
    def kill(trainer: Disturbed) -> None:
        step = trainer._step

        def kill_and_step(group: Any, lr: float) -> Any:
            os.kill(trainer.pid(0), signal.SIGKILL)
            return step(group, lr)

        trainer._step = kill_and_step

    with pytest.raises(RunError, match="step 6: workers were lost 3 times without progress"):
        run(1, {5: kill})


def driver(cluster: Cluster, job: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rnnfarm", "train", str(job), "--address", cluster.address]
    return subprocess.Popen(
        [*command, "--out", str(out), "--json", *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(times(usual=1, thorough=3)))
def test_the_driver_is_killed_and_resumed(
    cluster: Cluster, data: Path, tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    raw = cluster_job(data, steps=160, checkpoint_every=8, cluster={"workers": 2})
    job, out = tmp_path / "job.toml", tmp_path / "run"
    job.write_text(tomli_w.dumps(raw))
    killed = driver(cluster, job, out)
    try:
        end = time.monotonic() + 60
        wanted = draw.randrange(1, 10)
        while len(list((out / "checkpoints").glob("step-*[0-9]"))) < min(wanted, 3):
            assert killed.poll() is None, killed.stderr.read()
            assert time.monotonic() < end
            time.sleep(0.02)
    finally:
        killed.kill()
    killed.wait()
    nothing_left()
    assert not (out / "run.json").exists()
    resumed = driver(cluster, job, out, "--resume")
    output, errors = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, errors
    assert "resuming" in errors
    alone = train(make_job(raw), REGISTRY, out=tmp_path / "alone")
    assert json.loads(output)["parameters_sha256"] == alone.parameters_sha256
    nothing_left()
