"""``rnnfarm.train``: the command ``rnnfarm train`` from Python."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rnnfarm.errors import JobError
from rnnfarm.job import Job, load_job, read_job
from rnnfarm.job_reading import override
from rnnfarm.plugins import Registry
from rnnfarm.report import Progress
from rnnfarm.training.result import Result
from rnnfarm.training.session import train as train_job


def train(
    job: Job | Mapping[str, Any] | str | Path,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    overrides: Sequence[str] = (),
    quiet: bool = True,
    workers: int | tuple[int, int] | None = None,
    address: str | None = None,
) -> Result:
    """Train a job, in this process or in Ray workers.

    Args:
        job: a job file, or a job as a dictionary whose relative paths start here.
        out: the run's folder; ``runs/NAME`` if absent, NAME being the job file's or ``job``.
        resume: go on from the newest checkpoint in that folder, if there is one.
        overrides: ``KEY=VALUE`` settings, such as ``training.steps=100``; not for a ``Job``.
        quiet: show no progress.
        workers: train in so many Ray workers, or from the least to the most; the same result.
        address: of a Ray cluster, ``HOST:PORT`` or ``auto``, to train on with as many workers as
            ``workers`` or the job says. Where this process is connected to one, that is used.

    Raises the errors of ``rnnfarm.errors``, each with one sentence that says how to mend it.
    """
    registry = Registry.load()
    name = "job"
    if isinstance(job, str | Path):
        name = Path(job).stem
        job = load_job(job, overrides, registry)
    elif not isinstance(job, Job):
        raw = copy.deepcopy(dict(job))
        override(raw, overrides)
        job = read_job(raw, registry)
    elif overrides:
        raise JobError("overrides: a Job is checked already; give them with the file or table")
    folder = Path("runs") / name if out is None else Path(out)
    progress = Progress(quiet=quiet)
    if workers is None and address is None:
        return train_job(job, registry, out=folder, resume=resume, progress=progress)
    from rnnfarm.cluster.train import train_with_workers

    return train_with_workers(
        job, registry, workers, out=folder, address=address, resume=resume, progress=progress
    )
