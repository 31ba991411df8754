"""Training with Ray workers: the same bits for any number of them, and through deaths."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import ray
from training_tools import REGISTRY, make_job, token_job, write_tokens

from rnnfarm.cluster import engine
from rnnfarm.cluster.engine import ClusterTrainer
from rnnfarm.cluster.local import train_with_workers
from rnnfarm.errors import DeviceError, JobError, RunError
from rnnfarm.training.session import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cluster") / "data"
    write_tokens(path, {"train": [50, 3, 1, 90, 40] * 3, "valid": [60, 40] * 4})
    return path


def cluster_job(data: Path, **changes: Any) -> dict[str, Any]:
    """Four lanes, dropout between layers and within the recurrence, evaluations."""
    layers = [{"cell": "lstm", "hidden": 8, "dropout": 0.2, "recurrent_dropout": 0.1}] * 2
    settings = {"lanes": 4, "evaluate_every": 5, "checkpoint_every": 7} | changes
    return token_job(data, model={"layers": layers}, **settings)


@pytest.mark.parametrize("mode", ["stream", "examples"])
def test_workers_give_the_bits_of_one_process(data: Path, tmp_path: Path, mode: str) -> None:
    raw = cluster_job(data)
    if mode == "examples":
        raw["data"] |= {"mode": "examples", "target": "labels"}
    job = make_job(raw)
    alone = train(job, REGISTRY, out=tmp_path / "alone")
    for workers in (1, 2, 3, 4):
        result = train_with_workers(job, REGISTRY, workers, out=tmp_path / str(workers))
        assert result.workers == workers
        assert result.parameters_sha256 == alone.parameters_sha256, workers
        assert (result.train_loss, result.valid_loss) == (alone.train_loss, alone.valid_loss)
        assert not ray.is_initialized()


def test_run_goes_on_after_workers_are_killed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(cluster_job(data))
    alone = train(job, REGISTRY, out=tmp_path / "alone")
    monkeypatch.setattr(engine, "SNAPSHOT_EVERY", 4)
    step, killed = ClusterTrainer.train_step, []

    def kill_and_step(self: ClusterTrainer) -> dict[str, Any]:
        if self.step in (2, 9):
            victim = self.group[self.step % 2]
            pid = ray.get(victim.__ray_call__.remote(lambda worker: os.getpid()))
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
        return step(self)

    monkeypatch.setattr(ClusterTrainer, "train_step", kill_and_step)
    result = train_with_workers(job, REGISTRY, 2, out=tmp_path / "killed")
    assert len(killed) == 2
    assert result.parameters_sha256 == alone.parameters_sha256


def test_a_run_of_workers_is_resumed_by_one_process(data: Path, tmp_path: Path) -> None:
    whole = train(make_job(cluster_job(data)), REGISTRY, out=tmp_path / "whole")
    out = tmp_path / "run"
    train_with_workers(make_job(cluster_job(data, steps=7)), REGISTRY, 3, out=out)
    result = train(make_job(cluster_job(data)), REGISTRY, out=out, resume=True)
    assert result.parameters_sha256 == whole.parameters_sha256


def test_an_error_in_a_worker_is_what_the_user_sees(data: Path, tmp_path: Path) -> None:
    job = make_job(
        cluster_job(data, optimizer={"name": "sgd", "lr": 1e38}, clip=None, dtype="float32")
    )
    with pytest.raises(RunError, match=r"no finite number any more.*lower training\.optimizer\.lr"):
        train_with_workers(job, REGISTRY, 2, out=tmp_path / "run")


def test_more_workers_than_lanes(data: Path, tmp_path: Path) -> None:
    job = make_job(cluster_job(data))
    with pytest.raises(JobError, match="--workers 5: 5 workers cannot share 4 lanes; set"):
        train_with_workers(job, REGISTRY, 5, out=tmp_path / "run")


def test_workers_that_differ(data: Path) -> None:
    same = ClusterTrainer.__new__(ClusterTrainer)
    same.group = []
    same._compare([{"numpy": "2.1"}, {"numpy": "2.1"}])
    with pytest.raises(DeviceError, match=r"(?s)workers differ.*numpy: worker 0 2\.1, worker 1 2"):
        same._compare([{"numpy": "2.1", "a": "b"}, {"numpy": "2.2", "a": "b"}])
