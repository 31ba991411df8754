"""A dataset: a folder of shards and its manifest."""

from __future__ import annotations

import glob
import hashlib
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from rnnfarm.data.chunks import verify_shard
from rnnfarm.data.manifest import (
    MANIFEST,
    Column,
    Manifest,
    Provenance,
    SplitInfo,
    parse_manifest,
)
from rnnfarm.data.place import Place
from rnnfarm.data.split import Split
from rnnfarm.data.vocabulary import Vocabulary, labels_of
from rnnfarm.errors import DataError, JobError, suggestion
from rnnfarm.strict_json import to_json

if TYPE_CHECKING:
    import os
    from pathlib import Path


class Dataset:
    """What a manifest describes; shards are opened when they are first read.

    Attributes:
        verified: whether each shard's checksum is verified when it is first read.
    """

    def __init__(
        self, place: Place, manifest: Manifest, version: object = None, verified: bool = True
    ) -> None:
        self.place = place
        self.manifest = manifest
        self._version = version
        self.verified = verified
        self.split = cache(self._split)
        self.vocabulary = cache(self._vocabulary)

    @property
    def path(self) -> str:
        """The path or address that it was opened by."""
        return self.place.shown

    @property
    def name(self) -> str | None:
        """The dataset's name, where it was given one."""
        return self.manifest.name

    @property
    def provenance(self) -> Provenance | None:
        """What the dataset was built from, None where its writer did not say."""
        return self.manifest.provenance

    @property
    def columns(self) -> dict[str, Column]:
        """The columns, the first one being a job's input where it names none."""
        return self.manifest.columns

    @property
    def splits(self) -> dict[str, SplitInfo]:
        """The splits, as `train` and `valid`."""
        return self.manifest.splits

    def _split(self, name: str) -> Split:
        """The split of that name; JobError when there is none."""
        if name not in self.splits:
            raise JobError(f"{self.path}: no split '{name}'; {suggestion(name, self.splits)}")
        info = self.splits[name]
        return Split(self.place, name, info, self.columns, self._check_version, self.verified)

    def _check_version(self) -> None:
        """DataError where the folder holds another dataset than the one that was opened."""
        if self._version not in (None, self.place.version(MANIFEST)):
            raise DataError(
                f"{self.path}: this dataset was replaced or removed while it was read; start again"
            )

    def _vocabulary(self, column: str) -> Vocabulary | None:
        """The vocabulary of a column; None where its ids have no text."""
        info = self.manifest.vocabularies.get(column)
        return None if info is None else Vocabulary(info.unit, info.entries)

    def info(self) -> dict[str, Any]:
        """What the dataset holds, JSON-able."""
        columns = {
            name: {
                "kind": column.kind,
                "dtype": column.dtype,
                "width": column.width,
                "vocabulary": column.vocabulary,
                "unit": getattr(self.manifest.vocabularies.get(name), "unit", None),
                "names": column.names,
                "roles": column.roles,
                "labels": labels_of(self.manifest.vocabularies.get(name)),
                "counts_for": column.counts_for,
            }
            for name, column in self.columns.items()
        }
        splits = {
            name: {
                "sequences": split.sequences,
                "steps": split.steps,
                "shards": len(split.shards),
                "bytes": sum(shard.bytes for shard in split.shards),
            }
            for name, split in self.splits.items()
        }
        return {
            "path": self.path,
            "name": self.name,
            "format": self.manifest.format,
            "built_from": None if self.provenance is None else asdict(self.provenance),
            "columns": columns,
            "splits": splits,
            "steps": sum(split.steps for split in self.splits.values()),
            "bytes": sum(split["bytes"] for split in splits.values()),
        }

    def fingerprint(self) -> dict[str, str]:
        """Hashes by which a run knows its data again: what ids mean, and what each split holds."""
        vocabularies = {k: [v.unit, v.entries] for k, v in self.manifest.vocabularies.items()}
        splits = {
            name: _hash([shard.sha256 for shard in split.shards])
            for name, split in self.splits.items()
        }
        return {"train": _hash([])} | splits | {"vocabularies": _hash(vocabularies)}

    def verify(self) -> list[str]:
        """One sentence for every damaged shard; reads the whole dataset."""
        shards = [shard for split in self.splits.values() for shard in split.shards]
        problems = [verify_shard(self.place, shard, self.columns) for shard in shards]
        return [problem for problem in problems if problem is not None]


def _hash(facts: Any) -> str:
    return hashlib.sha256(to_json(facts, sort_keys=True).encode()).hexdigest()


def open_dataset(
    path: str | os.PathLike[str], *, filesystem: Any = None, verify: bool = True
) -> Dataset:
    """Open a dataset by a local path, a URI of pyarrow.fs, or a path on `filesystem`.

    Reads the manifest alone. With `verify` each shard's checksum is verified in a thread when the
    shard is first read; see `Split.confirm_whole`. DataError when there is no dataset or its
    manifest is damaged.
    """
    place = Place.of(path, filesystem)
    try:
        version = place.version(MANIFEST)  # before it is read, so that no change is missed
        return Dataset(place, _manifest(place), version, verify)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{place.shown}: cannot be read ({error})") from None


def _manifest(place: Place) -> Manifest:
    if place.size(MANIFEST) is not None:
        return parse_manifest(place.read(MANIFEST), place.show(MANIFEST))
    if not place.exists():
        beside = replaced(place)
        cut_off = f"a build that was replacing it was killed and left it as {beside}: rename that"
        fix = cut_off if beside else "build one with `rnnfarm data build`, or correct the path"
        raise DataError(f"{place.shown}: there is no dataset here; {fix}")
    if place.local is not None and not place.local.is_dir():
        raise DataError(f"{place.shown}: is no folder, as a dataset is; correct the path")
    if any(name.endswith(".arrow") for name in place.names()):
        raise DataError(
            f"{place.shown}: shards but no {MANIFEST}, so a build that did not end; remove the"
            " folder and build the dataset again"
        )
    raise DataError(f"{place.shown}: not a dataset, it holds no {MANIFEST}; mend the path")


def replaced(place: Place) -> Path | None:
    """The folder that a killed build has renamed a local dataset to; see `exchange_folders`."""
    if place.local is None:
        return None
    pattern = glob.escape(place.local.name) + ".replaced-*"
    found = [path for path in place.local.parent.glob(pattern) if (path / MANIFEST).exists()]
    return max(found, default=None)
