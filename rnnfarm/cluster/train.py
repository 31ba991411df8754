"""Training a job with Ray workers, on this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import ray

from rnnfarm.cluster.connect import check_answers, ray_session
from rnnfarm.cluster.engine import ClusterTrainer
from rnnfarm.data.window import Windows
from rnnfarm.errors import JobError
from rnnfarm.job_checks import too_many_workers
from rnnfarm.job_tables import Job, WorkersTable
from rnnfarm.plugins import Registry
from rnnfarm.report import Progress
from rnnfarm.training.result import Result
from rnnfarm.training.session import train
from rnnfarm.training.setup import Model


def train_with_workers(
    job: Job,
    registry: Registry,
    workers: int | tuple[int, int] | None = None,
    *,
    out: Path,
    address: str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Train a job in Ray workers; the result is that of one process.

    Args:
        workers: how many, or the least and the most; as the job says if absent.
        address: of a running cluster; a Ray of its own on this machine if absent.

    Raises the errors of ``training.session.train``, JobError where there are more workers than
    lanes, DeviceError where there is no cluster or no room in it.
    """
    if workers is not None:
        job = _with_workers(job, workers)
    if address is not None:
        check_answers(address)
    elif not ray.is_initialized():  # on this machine there is one node, whatever a cluster has
        job = _with(job, placement="pack", resources={})
    progress = progress or Progress(quiet=True)
    log_file = out / "ray.log"
    cluster = job.cluster

    def session(store: int) -> AbstractContextManager[Callable[[], str]]:
        return ray_session(address, cluster.most * cluster.cpus, log_file, store)

    def make_trainer(
        job: Job, registry: Registry, model: Model, windows: Windows
    ) -> ClusterTrainer:
        return ClusterTrainer(
            job, registry, model, windows, session=session, log_file=log_file, say=progress.say
        )

    return train(
        job,
        registry,
        out=out,
        resume=resume,
        progress=progress,
        make_trainer=make_trainer,
        computes_here=False,
    )


def _with_workers(job: Job, workers: int | tuple[int, int]) -> Job:
    most = workers if isinstance(workers, int) else workers[1]
    if most > job.training.lanes:
        raise JobError(f"--workers {most}: {too_many_workers(most, job.training.lanes)}")
    wanted = workers if isinstance(workers, int) else WorkersTable(min=workers[0], max=workers[1])
    return _with(job, workers=wanted)


def _with(job: Job, **changes: Any) -> Job:
    """The job with changes of its table ``cluster``."""
    return job.model_copy(update={"cluster": job.cluster.model_copy(update=changes)})
