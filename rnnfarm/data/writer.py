"""Writing a dataset, so that a build that is cut off leaves none that looks whole.

On this machine's filesystem the shards are written into a folder beside the dataset's own,
`NAME.building-XXXXXXXX`, which takes the dataset's name in one rename once everything is on the
disk. Object stores know no rename of a folder; there the shards are written in place, and the
manifest, without which they are no dataset, last.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import reprlib
import shutil
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rnnfarm.data.manifest import (
    MANIFEST,
    Column,
    Manifest,
    Provenance,
    ShardInfo,
    SplitInfo,
    VocabularyInfo,
)
from rnnfarm.data.origin import FIELDS, NOWHERE, Origin
from rnnfarm.data.place import Place
from rnnfarm.data.shards import BATCH_BYTES, BATCH_STEPS, ShardWriter
from rnnfarm.data.window import NEXT
from rnnfarm.errors import DataError, JobError, RunError
from rnnfarm.files import (
    LOCK,
    bring_to_disk,
    exchange_folders,
    make_locked_folder,
    remove_lock,
    remove_locked,
    remove_unlocked,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    import numpy.typing as npt

    from rnnfarm.data.vocabulary import Vocabulary

SHARD_BYTES = 64 << 20
#: Names in a job or in the shards that are no columns of a reader's.
RESERVED = (NEXT, *(field.name for field in FIELDS))


class DatasetWriter:
    """Writes a dataset in constant memory; a context manager.

    The dataset appears when the block ends without an error. JobError when there is something at
    `path` already; with `replace` a dataset there stays until the new one takes its place.
    DataError for a sequence that does not fit the columns.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        columns: Mapping[str, Column],
        *,
        vocabularies: Mapping[str, Vocabulary] | None = None,
        name: str | None = None,
        filesystem: Any = None,
        shard_bytes: int = SHARD_BYTES,
        origins: bool = False,
        replace: bool = False,
    ) -> None:
        self.place = Place.of(path, filesystem)
        self.replace = replace
        self.columns = dict(columns)
        self.vocabularies = dict(vocabularies or {})
        self.name = name
        self.shard_bytes = shard_bytes
        self.steps = 0
        #: What the dataset was built from; set before the block ends.
        self.provenance: Provenance | None = None
        #: Whether the dataset says where its sequences are from.
        self.origins = origins
        self._open: dict[str, ShardWriter] = {}
        self._done: dict[str, list[ShardInfo]] = {}
        self._shards = 0
        step_bytes = sum(c.step_bytes for c in self.columns.values() if not c.own)
        for column in self.columns:
            _check_name("column", column)
            if column in RESERVED:
                raise DataError(
                    f"column '{column}': this name has a meaning of its own; use another"
                )
        if not step_bytes:
            raise DataError("a dataset needs a column with an entry for every step")
        self._piece = max(1, min(BATCH_STEPS, BATCH_BYTES // step_bytes))

    @property
    def splits(self) -> list[str]:
        """The splits that have a sequence so far."""
        return list(self._done)

    def __enter__(self) -> Self:
        refuse_existing(self.place, self.replace)
        self._folder = _Folder(self.place, self.replace)
        return self

    def append(
        self,
        split: str,
        sequence: Mapping[str, npt.NDArray[Any]],
        continues: bool = False,
        origin: Origin = NOWHERE,
    ) -> None:
        """Add a sequence: one array a column, tokens (steps,) and values (steps, width).

        With `continues` it carries on the last sequence of the split, and its own columns and its
        origin are left out. Empty ones are left out.
        """
        steps = self._check(sequence, continues)
        try:
            for low in range(0, steps, self._piece):
                high = min(low + self._piece, steps)
                row = self._row(sequence, low, high, continues or low > 0)
                carries_on = continues or low > 0
                where = NOWHERE if carries_on else origin
                self._writer(split).append(row, high - low, carries_on, where)
        except OSError as error:
            raise self._unwritable(error) from error
        self.steps += steps

    def _row(
        self, sequence: Mapping[str, npt.NDArray[Any]], low: int, high: int, continues: bool
    ) -> dict[str, npt.NDArray[Any]]:
        """Steps [low, high) of a sequence; what is its own is in its first row."""
        row = {}
        for name, column in self.columns.items():
            if not column.own:
                row[name] = sequence[name][low:high]
            elif continues:
                row[name] = np.empty((0, *column.step_shape()), column.numpy)
            else:
                row[name] = sequence[name]
        return row

    def _writer(self, split: str) -> ShardWriter:
        writer = self._open.get(split)
        if writer is not None and writer.bytes >= self.shard_bytes:
            self._done[split].append(writer.close())
            writer = None
        if writer is None:
            _check_name("split", split)
            name = f"shard-{self._shards:05d}.arrow"
            writer = ShardWriter(self._folder.place, name, self.columns, self.origins)
            self._open[split] = writer
            self._done.setdefault(split, [])
            self._shards += 1
        return writer

    def _check(self, sequence: Mapping[str, npt.NDArray[Any]], continues: bool) -> int:
        wanted = {n for n, column in self.columns.items() if not (continues and column.own)}
        if sequence.keys() != wanted:
            raise DataError(
                f"a sequence has the columns {', '.join(sequence)} where the dataset has"
                f" {', '.join(n for n in self.columns if n in wanted)}"
            )
        steps = {len(sequence[name]) for name in wanted if not self.columns[name].own}
        if len(steps) != 1:
            raise DataError("the columns of a sequence are not equally long")
        for name in wanted:
            column, figures = self.columns[name], sequence[name]
            if figures.shape[1:] != column.step_shape():
                raise DataError(
                    f"column '{name}': steps of shape {figures.shape[1:]} where the dataset has"
                    f" {column.step_shape()}"
                )
        return steps.pop()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            try:
                self._finish()
            except OSError as failed:
                self._abandon()
                raise self._unwritable(failed) from failed
            except BaseException:
                self._abandon()
                raise
        else:
            self._abandon()

    def _finish(self) -> None:
        for split, writer in self._open.items():
            self._done[split].append(writer.close())
        self._open.clear()
        if not self._done:
            raise DataError(f"{self.place.shown}: the input holds no data, so nothing was built")
        splits = {
            name: SplitInfo(shards, sum(s.sequences for s in shards), sum(s.steps for s in shards))
            for name, shards in sorted(self._done.items(), key=lambda item: _place(item[0]))
        }
        vocabularies = {
            name: VocabularyInfo(v.unit, v.entries) for name, v in self.vocabularies.items()
        }
        manifest = Manifest(
            self.columns, splits, vocabularies, self.name, self.provenance, self.origins
        )
        self._folder.publish(manifest.to_json())

    def _abandon(self) -> None:
        for writer in self._open.values():
            with contextlib.suppress(OSError):
                writer.abandon()
        self._folder.remove()

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(f"{self.place.shown}: the dataset cannot be written ({error})")


def _place(split: str) -> tuple[int, str]:
    usual = ("train", "valid", "test")
    return (usual.index(split) if split in usual else len(usual)), split


def refuse_existing(place: Place, replace: bool = False) -> None:
    """JobError when there is something where a dataset is to be built, which with `replace` may be
    a local dataset."""
    if not place.exists():
        return
    if not replace:
        raise JobError(
            f"{place.shown}: already exists, and a dataset is never overwritten unasked; replace it"
            " with --rebuild, remove it, or give another path"
        )
    if place.local is None or place.size(MANIFEST) is None:
        what = "is no dataset" if place.local is not None else "is not on a local filesystem"
        raise JobError(
            f"{place.shown}: {what}, so it is not replaced; remove it or give another path"
        )


def _check_name(kind: str, name: object) -> None:
    """DataError for what JSON, Arrow and a command line cannot all name."""
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= 255:
        raise DataError(
            f"{kind} {reprlib.repr(name)}: a {kind} is named by printable text of 1 to 255 "
            "characters; give it another name"
        )


class _Folder:
    """Where the files of a build go until it ends."""

    def __init__(self, final: Place, replace: bool) -> None:
        self.final = final
        self.replace = replace
        self.local = final.local
        if self.local is None:
            self.place = final
            final.filesystem.create_dir(final.path, recursive=True)
            return
        try:
            self.local.parent.mkdir(parents=True, exist_ok=True)
            prefix = f"{self.local.name}.building-"
            self._path, self._lock = make_locked_folder(prefix, self.local.parent)
            self._path.chmod(0o777 & ~_umask())
        except OSError as error:
            raise RunError(f"{final.shown}: the dataset cannot be written ({error})") from error
        self.place = Place(final.filesystem, str(self._path), final.shown)

    def publish(self, manifest: bytes) -> None:
        """Write the manifest, and give the folder its name."""
        with self.place.create(MANIFEST) as file:
            file.write(manifest)
            file.flush()
            if self.local is not None:
                os.fsync(file.fileno())
        if self.local is None:
            return
        bring_to_disk(self._path)
        refuse_existing(self.final, self.replace)
        if self.final.exists():
            self._exchange(self.local)
        else:
            self._path.rename(self.local)
        bring_to_disk(self.local.parent)
        (self.local / LOCK).unlink(missing_ok=True)
        self._lock.close()

    def _exchange(self, final: Path) -> None:
        """Put the new folder in the place of the old one, and remove that."""
        # With the lock file in it, a kill from here on leaves what the next build removes.
        with (final / LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            exchange_folders(self._path, final)
            with contextlib.suppress(OSError):
                remove_locked(self._path)

    def remove(self) -> None:
        """Remove what was written."""
        if self.local is None:
            self.final.filesystem.delete_dir(self.final.path)
            return
        shutil.rmtree(self._path, ignore_errors=True)
        self._lock.close()


def remove_leftovers(path: str | os.PathLike[str]) -> list[Path]:
    """Remove what killed builds of the dataset `path` left beside it and in it, and name that.

    A build holds a lock on its folder, which ends with its process.
    """
    folder = Place.of(path).local
    if folder is None or not folder.parent.is_dir():
        return []
    leftovers = sorted(folder.parent.glob(f"{glob.escape(folder.name)}.building-*"))
    removed = [leftover for leftover in leftovers if remove_unlocked(leftover)]
    if remove_lock(folder):
        removed.append(folder / LOCK)
    return removed


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
