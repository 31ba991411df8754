"""The job file: a TOML file with the tables ``data``, ``model``, ``training`` and ``cluster``.

Reading checks all of it, the settings of its parts included, and lists every error at once. The
keys are in ``job_tables.py``, what must hold between them in ``job_checks.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rnnfarm.job_reading import check_job, override, read_toml
from rnnfarm.job_schema import job_schema
from rnnfarm.job_tables import Job
from rnnfarm.plugins import Registry

__all__ = ["Job", "job_schema", "load_job", "read_job"]


def read_job(
    raw: Mapping[str, Any],
    registry: Registry | None = None,
    base: Path | None = None,
    source: str = "job",
    builds: bool = True,
) -> Job:
    """Check a job given as a mapping; ``base`` is where its relative paths start.

    A None is as if its key were absent. A reader that cannot be had is warned of where the dataset
    is there already; where the job ``builds`` none, its reader is not even imported. Raises
    JobError with every wrong thing, or PluginError where the only trouble is parts that cannot be
    had; sentences start with ``source``.
    """
    return check_job(raw, registry or Registry.load(), base or Path.cwd(), source, builds)


def load_job(
    path: str | Path, overrides: Sequence[str] = (), registry: Registry | None = None
) -> Job:
    """Read a job file and apply ``KEY=VALUE`` overrides such as ``training.steps=100``.

    Raises JobError (or PluginError, see ``read_job``) with one sentence for every error.
    """
    raw = read_toml(Path(path))
    override(raw, overrides)
    return read_job(raw, registry, Path(path).absolute().parent, str(path))
