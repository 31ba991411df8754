"""Building datasets with a reader."""

from __future__ import annotations

import dataclasses
import reprlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnfarm.data.dataset import Dataset, open_dataset
from rnnfarm.data.manifest import Column
from rnnfarm.data.place import Place
from rnnfarm.data.provenance import describe_build
from rnnfarm.data.reader import Reader, Sequence
from rnnfarm.data.writer import DatasetWriter, refuse_existing, remove_leftovers
from rnnfarm.errors import JobError, PluginError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

    from rnnfarm.job_tables import Job
    from rnnfarm.plugins import Registry

    Progress = Callable[[str], None]

EVERY = 1.0  # seconds between two lines of progress


def build_dataset(
    reader: Reader,
    path: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    filesystem: Any = None,
    name: str | None = None,
    replace: bool = False,
) -> Dataset:
    """Build the dataset `path` from what `reader` reads, and open it.

    `progress` is given lines of text, at most one a second; `name` is what a job calls the reader,
    by default where its class is from. JobError when `path` exists; with `replace` a dataset there
    stays until the new one is whole, and is then replaced in one step.
    """
    say = progress or (lambda line: None)
    refuse_existing(Place.of(path, filesystem), replace)
    if filesystem is None:
        sweep_leftovers(path, say)
    say(f"building {path}")
    said = time.monotonic()
    columns = _columns(reader)
    with DatasetWriter(
        path,
        columns,
        vocabularies=reader.vocabularies(),
        filesystem=filesystem,
        origins=True,
        replace=replace,
    ) as writer:
        for sequence in _sequences(reader):
            writer.append(*sequence)
            if time.monotonic() - said >= EVERY:
                said = time.monotonic()
                say(f"building {path}: {writer.steps:,} steps")
        made = describe_build(reader, name or import_string(reader))
        notes = [*made.notes, *_empty_parts(reader, writer.splits)]
        writer.provenance = dataclasses.replace(made, notes=notes)
    dataset = open_dataset(path, filesystem=filesystem)
    sizes = ", ".join(f"{name} {split.steps:,}" for name, split in dataset.splits.items())
    say(f"built {path}: {sizes} steps")
    for note in writer.provenance.notes:
        say(f"{path}: {note}")
    return dataset


def sweep_leftovers(path: str | os.PathLike[str], say: Progress) -> None:
    """Remove what killed builds of a dataset left behind, and say so."""
    for leftover in remove_leftovers(path):
        say(f"removed {leftover}, left behind by a build that was killed")


def _empty_parts(reader: Reader, splits: list[str]) -> Iterator[str]:
    """What there is to say of parts that the settings ask for, and that have got nothing."""
    for part in ("valid", "test"):
        for setting in (f"{part}_from", f"{part}_groups", f"{part}_files", part):
            value = getattr(reader, setting, None)
            if value and part not in splits:
                yield f"{setting} = {value!r} gives no sequence for '{part}'; there is no such part"
                break


def import_string(reader: Reader) -> str:
    """Return ``module:Class``, as a job can name a reader too."""
    return f"{type(reader).__module__}:{type(reader).__qualname__}"


def _columns(reader: Reader) -> dict[str, Column]:
    columns = reader.columns()
    if not columns or not all(isinstance(column, Column) for column in columns.values()):
        raise PluginError(
            f"{type(reader).__name__}.columns gives {columns!r}; give a rnnfarm.data.Column "
            "for the name of each column"
        )
    return columns


def _sequences(reader: Reader) -> Iterator[Sequence]:
    for item in reader.sequences():
        try:
            yield Sequence(*item)
        except TypeError:
            raise PluginError(
                f"{type(reader).__name__}.sequences gives {reprlib.repr(item)}; yield "
                "(split, {column: array}) for each sequence"
            ) from None


def build_from_settings(
    reader_name: str,
    settings: Mapping[str, Any],
    path: str | os.PathLike[str],
    registry: Registry,
    progress: Progress | None = None,
    base: Path | None = None,
    replace: bool = False,
) -> Dataset:
    """Build a dataset with the reader of that name; paths in its settings are relative to `base`,
    by default the working directory. For `replace` see `build_dataset`."""
    reader: Reader = registry.get("readers", reader_name)(**settings)
    if base is not None:
        reader.base = base
    name = registry.stored_name("readers", reader_name)
    return build_dataset(reader, path, progress=progress, name=name, replace=replace)


def ensure_dataset(job: Job, registry: Registry, progress: Progress | None = None) -> Dataset:
    """Open a job's dataset, or build it first where its folder is absent and the job says how."""
    sweep_leftovers(job.data.path, progress or (lambda line: None))
    dataset = _opened_or_built(job, registry, progress)
    dataset.verified = job.data.verify
    return dataset


def _opened_or_built(job: Job, registry: Registry, progress: Progress | None) -> Dataset:
    build = job.data.build
    path = job.data.path
    if build is None or Place.of(path).exists():
        return open_dataset(path)
    try:
        return build_from_settings(build.reader, build.settings, path, registry, progress, job.base)
    except JobError:
        if not Place.of(path).exists():
            raise
        return open_dataset(path)  # another run of the job has built it in the meantime
