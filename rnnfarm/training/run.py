"""A run's folder: making it, and opening what was trained in it."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import tomli_w
from threadpoolctl import threadpool_limits

from rnnfarm.data.dataset import Dataset
from rnnfarm.data.scale import Scale
from rnnfarm.errors import DataError, JobError
from rnnfarm.files import write_whole
from rnnfarm.job import Job, read_job
from rnnfarm.nn.layer import Arrays
from rnnfarm.plugins import Registry
from rnnfarm.small_files import UnreadableError, read_toml
from rnnfarm.training.checkpoint import (
    Checkpoint,
    best_whole,
    checkpoints,
    newest_checkpoint,
    read_checkpoint,
)
from rnnfarm.training.run_dataset import check_same_data, dataset_of_run, kept_dataset
from rnnfarm.training.setup import Model, make_model

log = logging.getLogger("rnnfarm")
Item = TypeVar("Item")
#: Keys of a job that a resumed run may change: none of them alters what was computed so far.
FREE = {
    "training.steps", "training.schedule.steps", "training.evaluate_every",
    "training.checkpoint_every", "training.keep", "training.log_every",
    "training.gradient_flow_every", "training.threads", "training.kernel", "training.device",
    "training.edited", "cluster", "data.path", "data.base", "data.build", "data.stale",
    "data.verify",
}  # fmt: skip


@dataclass(frozen=True)
class OpenRun:
    """A trained model with all that it needs; ``parameters`` are views of ``arena``."""

    job: Job
    dataset: Dataset
    model: Model
    arena: npt.NDArray[np.floating]
    parameters: Arrays
    step: int


def open_run(
    run: Path, registry: Registry, checkpoint: str | None = None, *, reads_data: bool = True
) -> OpenRun:
    """Open a run's checkpoint: ``newest``, ``best``, or one by its name or step.

    Without ``reads_data`` the dataset need not be there: what the run keeps of it is enough to read
    other files for the model.
    """
    job = read_run_job(run, registry)
    found = choose_checkpoint(run, checkpoint or "newest")
    dataset = None if reads_data else kept_dataset(run, job)
    if dataset is None:
        dataset = dataset_of_run(run, job, registry)
        check_same_data(found, dataset, "what follows is of another dataset")
    model = make_model(job, dataset, registry, **learned_of(found))
    if edited := found.edited(model.equations):
        log.warning(
            "the equations of %s are not those that %s was trained with; what follows is of the "
            "new ones", " and ".join(edited), found.path,
        )  # fmt: skip
    layout = model.network.layout
    arena = np.zeros(layout.size, job.training.dtype)
    restore_arrays(found, "parameters", layout.views(arena))
    parameters = layout.views(model.network.device.put(arena))
    return OpenRun(job, dataset, model, arena, parameters, found.step)


def learned_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what a model has learned of its data besides parameters, as ``make_model`` takes it.

    It stays with the parameters, whatever dataset they meet later.
    """
    scales = checkpoint.facts.get("scales", {})
    return {
        "scales": {name: Scale.from_dict(plain) for name, plain in scales.items()},
        "learned": checkpoint.facts.get("loss"),
    }


def read_run_job(run: Path, registry: Registry) -> Job:
    """The job that a run was made from, as resolved; JobError where ``run`` is no run."""
    path = run / "job.toml"
    try:
        raw = read_toml(path)
    except UnreadableError as error:
        if error.missing or not run.is_dir():
            raise JobError(
                f"{run}: this is not a run, it holds no job.toml; correct the path"
            ) from None
        raise DataError(
            f"{path}: damaged ({error}); restore it from the job that was run"
        ) from None
    return read_job(raw, registry, run, str(path), builds=False)


@contextmanager
def alone_in(run: Path) -> Iterator[None]:
    """Make a run's folder, and hold it: JobError where another process trains in it.

    The lock is the system's, so it ends with the process however that ends.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(run, os.O_RDONLY)
    except OSError as error:
        raise JobError(
            f"{run}: the run's folder cannot be made ({error.strerror}); name another with --out"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise JobError(
            f"{run}: another process is training in this folder; wait for it or end it, or name "
            "another folder with --out"
        ) from None
    except OSError as error:  # not every network filesystem has locks
        log.warning("%s cannot be locked (%s); train in it only once at a time", run, error)
    try:
        yield
    finally:
        os.close(descriptor)


def write_run_job(run: Path, job: Job) -> None:
    """Write a run's job.toml, whole or not at all."""
    write_whole(run / "job.toml", tomli_w.dumps(job.to_dict()))


def check_same_job(run: Path, old: Job, new: Job) -> None:
    """JobError that lists what a resumed job changed and may not."""
    before, after = _flat(old.to_dict()), _flat(new.to_dict())
    changed = [
        f"{run}: {key} was {before.get(key)!r} and is now {after.get(key)!r}; a resumed run keeps "
        "it: change it back, or start another run with --out"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
        and not any(key == free or key.startswith(free + ".") for free in FREE)
    ]
    if changed:
        raise JobError(changed)


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            result |= _flat(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = value
    return result


def choose_checkpoint(run: Path, wanted: str) -> Checkpoint:
    """A run's checkpoint by ``newest``, ``best``, its name or its step."""
    folder = run / "checkpoints"
    found: Checkpoint | None
    if wanted == "newest":
        found = newest_checkpoint(folder)
    elif wanted == "best":
        found = best_whole(folder)
        if found is None:
            log.warning(
                "%s: none of its whole checkpoints was measured; the newest one is taken", run
            )
            found = newest_checkpoint(folder)
    else:
        names = [path.name for path in checkpoints(folder)]
        name = f"step-{wanted:0>8}" if wanted.isdecimal() else wanted
        if name not in names:
            known = ", ".join(names) or "none"
            raise JobError(f"{run}: there is no checkpoint {wanted!r}; there are: {known}")
        found = read_checkpoint(folder / name)
    if found is None:
        raise DataError(f"{run}: there is no whole checkpoint in it; train it with --resume")
    return found


def restore_arrays(
    checkpoint: Checkpoint, group: str, targets: Mapping[str, npt.NDArray[np.floating]]
) -> None:
    """Copy a group of a checkpoint's arrays; DataError where they are of another model."""
    saved = checkpoint.group(group)
    if saved.keys() != targets.keys():
        odd = sorted(saved.keys() ^ targets.keys())
        raise DataError(
            f"{checkpoint.path}: its {group} are of another model (they differ in "
            f"{', '.join(odd[:3])}); use the job and the plugins that it was trained with"
        )
    for name, target in targets.items():
        if saved[name].shape != target.shape or saved[name].dtype != target.dtype:
            raise DataError(
                f"{checkpoint.path}: {group}.{name} is {saved[name].dtype} {saved[name].shape}, "
                f"and the job's is {target.dtype} {target.shape}; use the job that it was trained "
                "with"
            )
        target[...] = saved[name]


def parameters_sha256(arena: npt.NDArray[np.floating]) -> str:
    """The SHA-256 of the arena's bytes, by which two runs are compared."""
    return hashlib.sha256(np.ascontiguousarray(arena).tobytes()).hexdigest()


def limited(items: Iterator[Item], blas_threads: int) -> Iterator[Item]:
    """Items that are computed with as many BLAS threads as the model was trained with."""
    with threadpool_limits(blas_threads):
        yield from items
