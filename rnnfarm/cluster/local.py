"""Workers on this machine: a Ray of its own, with nothing to set up."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path

from rnnfarm.data.window import Windows
from rnnfarm.errors import JobError
from rnnfarm.job_checks import too_many_workers
from rnnfarm.job_tables import Job
from rnnfarm.plugins import Registry
from rnnfarm.report import Progress
from rnnfarm.training.session import Result, train
from rnnfarm.training.setup import Model


def train_with_workers(
    job: Job,
    registry: Registry,
    workers: int,
    *,
    out: Path,
    resume: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Train a job in ``workers`` processes of this machine; the result is that of one process.

    Raises the errors of ``training.session.train``, and JobError where there are more workers than
    lanes.
    """
    lanes = job.training.lanes
    if workers > lanes:
        raise JobError(f"--workers {workers}: {too_many_workers(workers, lanes)}")
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    from rnnfarm.cluster.engine import ClusterTrainer

    made: list[ClusterTrainer] = []

    def make_trainer(
        job: Job, registry: Registry, model: Model, windows: Windows
    ) -> ClusterTrainer:
        made.append(ClusterTrainer(job, registry, model, windows, workers))
        return made[-1]

    folder = tempfile.mkdtemp(prefix="rnnfarm-ray-")
    variables = {"OMP_NUM_THREADS": str(job.training.blas_threads)}
    if job.training.device == "cpu":
        variables["CUDA_VISIBLE_DEVICES"] = ""
    try:
        ray.init(
            address="local",
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
            runtime_env={"env_vars": variables},
            _temp_dir=folder,
        )
        return train(
            job,
            registry,
            out=out,
            resume=resume,
            progress=progress,
            make_trainer=make_trainer,
        )
    finally:
        for trainer in made:
            trainer.end()
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
