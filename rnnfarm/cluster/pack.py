"""What travels to a cluster with a submitted job: the job file, its local files, its plugins.

All lies in one folder, which Ray copies to every node and puts on the path of every process. A
plugin lies there as an installed distribution does, its ``.dist-info`` beside its modules, so that
its entry points are found.
"""

from __future__ import annotations

import glob
import importlib.util
import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import tomli_w

from rnnfarm.cluster.wheel import build_wheel, unpack_wheel
from rnnfarm.data.current import changes_of, out_of_date
from rnnfarm.data.dataset import open_dataset
from rnnfarm.data.inputs import match_files, no_match
from rnnfarm.data.manifest import MANIFEST
from rnnfarm.errors import JobError
from rnnfarm.hookspecs import PROJECT
from rnnfarm.input_settings import map_files
from rnnfarm.job import Job, read_job
from rnnfarm.job_reading import override, read_toml
from rnnfarm.job_tables import PartTable, Table
from rnnfarm.plugins import Registry

#: Bytes of local files that may travel with a job; Ray takes 500 MiB at most.
MOST = 200 << 20
JOB, DATASET, FILES = "job.toml", "dataset", "files"


@dataclass(frozen=True)
class Pack:
    """A folder that travels.

    Attributes:
        plugins: the distributions and modules in it.
        bytes: of the local files in it.
    """

    folder: Path
    job: Job
    plugins: list[str]
    bytes: int


def add_plugins(sources: Sequence[Path], folder: Path) -> list[str]:
    """Put wheels and folders with a pyproject.toml into a pack, and on this process's path.

    Called before the registry is loaded, which then knows them. PluginError where one cannot be
    built.
    """
    names = []
    for source in sources:
        wheel = source if source.suffix == ".whl" else build_wheel(source, folder)
        names.append(unpack_wheel(wheel, folder))
    if sources:
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
    return names


def pack_job(
    path: Path,
    settings: Sequence[str],
    registry: Registry,
    folder: Path,
    added: Sequence[str] = (),
) -> Pack:
    """Pack a job file into ``folder``; JobError for a wrong job, or one with too many bytes.

    Args:
        settings: ``KEY=VALUE`` to set in the job.
        added: the distributions that ``add_plugins`` has put there.
    """
    raw = read_toml(path)
    override(raw, settings)
    job = read_job(raw, registry, path.absolute().parent, str(path))
    table = job.to_dict()
    size = _pack_data(str(path), raw, job, table["data"], folder, registry)
    names = list(added)
    for kind, name in parts_of_job(job):
        plugin = registry.plugin_of(kind, name)
        if plugin is None:
            what = _pack_module(name.partition(".")[0].partition(":")[0], folder)
        elif plugin.distribution in (PROJECT, *names):
            continue
        else:
            what = _pack_distribution(plugin.distribution, folder)
        if what and what not in names:
            names.append(what)
    (folder / JOB).write_text(tomli_w.dumps(table), encoding="utf-8")
    return Pack(folder, job, names, size)


def parts_of_job(job: Job) -> Iterator[tuple[str, str]]:
    """``(kind, name)`` of every part that a job names."""
    yield from _named_parts(job)
    if job.training.kernel != "auto":
        yield "kernels", job.training.kernel
    if job.cluster.exchange != "auto":
        yield "exchanges", job.cluster.exchange


def _named_parts(value: Any) -> Iterator[tuple[str, str]]:
    """The parts of every table in a value, however deep it lies."""
    if isinstance(value, PartTable):
        yield value.kind, getattr(value, value.key)
    if isinstance(value, Table):
        for name in type(value).model_fields:
            yield from _named_parts(getattr(value, name))
    elif isinstance(value, list):
        for inner in value:
            yield from _named_parts(inner)


# -- data -----------------------------------------------------------------------------------------


def _pack_data(
    source: str,
    raw: Mapping[str, Any],
    job: Job,
    table: dict[str, Any],
    folder: Path,
    registry: Registry,
) -> int:
    """Copy a job's local data and change its paths; the bytes copied.

    Relative paths are the job's own and travel. Absolute ones and URIs are places that every node
    reaches.
    """
    place = os.path.expanduser(raw["data"]["path"])
    here = Path(job.data.path)
    travels = "://" not in place and not os.path.isabs(place)
    base, table["base"] = job.base, "."
    if travels:
        table["path"] = DATASET
    there = "://" not in place and here.exists() and not _is_rebuilt(source, here, job, registry)
    if travels and there:
        size = _checked_size(source, "data.path", [p for p in here.rglob("*") if p.is_file()])
        shutil.copytree(here, folder / DATASET)
        return size
    if job.data.build is None:
        if travels:
            raise JobError(
                f"{source}: data.path: there is no dataset at {here}; build it first, say with "
                "data.build how to, or name a place that every node of the cluster reaches"
            )
        return 0
    if there:
        return 0
    files = _Files(source, base, folder)
    reader = registry.get("readers", job.data.build.reader)
    table["build"] |= map_files(reader, job.data.build.settings, files.take)
    return files.size


def _is_rebuilt(source: str, here: Path, job: Job, registry: Registry) -> bool:
    """Whether the cluster builds a dataset anew that is here, as its build has changed since.

    JobError where a job does not say what to do then: a node that has not the files cannot tell.
    """
    if not (here / MANIFEST).exists():
        return False
    found = changes_of(open_dataset(here), job, registry)
    if found.changed and job.data.stale == "refuse":
        raise JobError(f"{source}: data.path: {out_of_date(str(here), found)}")
    return bool(found.changed) and job.data.stale == "rebuild" and job.data.build is not None


class _Files:
    """Copies what a reader's settings name relative to the job.

    Attributes:
        size: the bytes copied.
    """

    def __init__(self, source: str, base: Path, folder: Path) -> None:
        self.size = 0
        self._source, self._base, self._folder = source, base, folder

    def take(self, setting: str, pattern: str) -> str:
        """Copy the files of a pattern, and return the pattern that names them in the pack."""
        pattern = os.path.expanduser(pattern)
        if os.path.isabs(pattern) or "://" in pattern:
            return pattern
        key = f"data.build.{setting}"
        found = match_files(pattern, self._base)
        if not found:
            raise JobError(f"{self._source}: {key}: {no_match(pattern, self._base, 'the job')}")
        self.size += _checked_size(self._source, key, found)
        root, rest = _split_pattern(pattern, found == [self._base / pattern])
        target = Path(FILES) / setting
        for path in found:
            copy = self._folder / target / path.relative_to(self._base / root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        return str(target / rest)


def _split_pattern(pattern: str, literal: bool) -> tuple[str, str]:
    """The folders of a glob pattern before its first wildcard, and the rest."""
    parts = Path(pattern).parts
    last = len(parts) - 1
    wild = (k for k, part in enumerate(parts[:last]) if glob.has_magic(part) and not literal)
    fixed = next(wild, last)
    return os.path.join("", *parts[:fixed]), os.path.join(*parts[fixed:])


def _checked_size(source: str, key: str, paths: Sequence[Path]) -> int:
    size = sum(path.stat().st_size for path in paths)
    if size > MOST:
        raise JobError(
            f"{source}: {key}: {size / 1e6:,.0f} MB are too much to travel with a job (at most "
            f"{MOST / 1e6:,.0f} MB); put them where every node of the cluster reaches them, and "
            "write that place as an absolute path or a URI"
        )
    return size


# -- plugins --------------------------------------------------------------------------------------


def _pack_distribution(name: str, folder: Path) -> str:
    """Copy an installed distribution; one that is installed as editable is built first."""
    found = distribution(name)
    source = _editable_source(found)
    if source is not None:
        return unpack_wheel(build_wheel(source, folder), folder)
    for file in found.files or []:
        if ".." not in file.parts and "__pycache__" not in file.parts:
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(found.locate_file(file)), target)
    return name


def _editable_source(found: Distribution) -> Path | None:
    """The folder that an editable installation points to."""
    url = json.loads(found.read_text("direct_url.json") or "{}")
    if not url.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlparse(url["url"]).path))


def _pack_module(name: str, folder: Path) -> str | None:
    """Copy a module of the user's own; None for one that is installed, or is there already."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None or _is_installed(name, spec.origin):
        return None
    origin = Path(spec.origin)
    if spec.submodule_search_locations:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(origin.parent, folder / name, ignore=ignored, dirs_exist_ok=True)
    else:
        shutil.copyfile(origin, folder / origin.name)
    return name


def _is_installed(name: str, origin: str) -> bool:
    places = {sysconfig.get_path(kind) for kind in ("purelib", "platlib", "stdlib")}
    if name == PROJECT or any(origin.startswith(place + os.sep) for place in places):
        return True
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
