"""Whether a job's dataset is up to date with its build and its source files, and what then."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from rnnfarm.data.build import build_from_settings, ensure_dataset, sweep_leftovers
from rnnfarm.data.dataset import Dataset, open_dataset
from rnnfarm.data.place import Place
from rnnfarm.data.stale import Build, Changes, changes_since
from rnnfarm.errors import JobError

if TYPE_CHECKING:
    from rnnfarm.data.build import Progress
    from rnnfarm.job_tables import Job
    from rnnfarm.plugins import Registry

log = logging.getLogger("rnnfarm")


def ensure_current(
    job: Job, registry: Registry, progress: Progress | None = None, *, resuming: bool = False
) -> Dataset:
    """Open or build a job's dataset to train on it, unless it is not what a build would give now.

    Then `data.stale` says what is done: JobError, a new build that replaces it, or a warning. A run
    that is `resuming` goes on with the data that it began with, and a warning.
    """
    sweep_leftovers(job.data.path, progress or (lambda line: None))
    dataset = _current(job, registry, progress, resuming)
    dataset.verified = job.data.verify
    return dataset


def _current(job: Job, registry: Registry, progress: Progress | None, resuming: bool) -> Dataset:
    path, stale = job.data.path, job.data.stale
    if not Place.of(path).exists():
        return ensure_dataset(job, registry, progress)
    dataset = open_dataset(path)
    found = changes_of(dataset, job, registry)
    build = job_build(job) or build_of(dataset, job)
    unknown = dataset.provenance is None
    if stale == "rebuild" and build and (found.changed or unknown):
        return build_from_settings(
            build.reader, build.settings, path, registry, progress, build.base, replace=True
        )
    if found.changed and stale == "refuse" and not resuming:
        raise JobError(f"data.path: {out_of_date(path, found)}")
    warn_of_changes(dataset, found, "it is used as it is")
    return dataset


def out_of_date(path: str, found: Changes) -> str:
    """Return what has changed since a dataset was built, and what to do."""
    return (
        f"{path} is out of date: {found.clause()}; build it anew with --rebuild (data.stale ="
        " 'rebuild'), or use it as it is with --stale (data.stale = 'use')"
    )


def job_build(job: Job) -> Build | None:
    """Return how a job makes its dataset, None where it does not say."""
    given = job.data.build
    return None if given is None else Build(given.reader, given.settings, job.base)


def build_of(dataset: Dataset, job: Job) -> Build | None:
    """Return how a dataset was made, by itself or by its job; None where neither says."""
    if dataset.provenance is None:
        return job_build(job)
    return Build.of(dataset.provenance)


def changes_of(dataset: Dataset, job: Job, registry: Registry) -> Changes:
    """Return what differs between a dataset's build and its job's, and of its source files.

    Nothing is known of a dataset that does not say what it was built from.
    """
    if dataset.provenance is None:
        return Changes()
    build = job_build(job) or Build.of(dataset.provenance)
    return changes_since(dataset.provenance, build, registry)


def warn_of_changes(dataset: Dataset, found: Changes, consequence: str) -> None:
    """Warn of a dataset that is out of date, or some of whose source files are gone."""
    if found.changed:
        log.warning("%s is out of date: %s; %s", dataset.path, found.clause(), consequence)
    built = dataset.provenance
    if built is not None and 0 < len(found.missing) < len(built.files):
        log.warning(
            "%s: %d of the %d files that it was built from are gone, such as %s; %s",
            dataset.path, len(found.missing), len(built.files), found.missing[0], consequence,
        )  # fmt: skip
