"""Shards: writing one Arrow file of a dataset, mapping it, and checking it.

A shard is an uncompressed Arrow IPC file without nulls: one large_list a column and row, so that
the figures of a record batch lie in one piece and are read without a copy. Own columns have lists
of their own lengths, empty in rows that carry on a sequence. Record batches are
small enough (see `BATCH_ROWS`, `BATCH_STEPS`, `BATCH_BYTES`) to be put together in memory.
"""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from rnnfarm.data.manifest import Column, ShardInfo
from rnnfarm.data.origin import FIELDS, NOWHERE, Origin, origin_arrays
from rnnfarm.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO

    import numpy.typing as npt

    from rnnfarm.data.place import Place

BATCH_ROWS = 1000
BATCH_STEPS = 1 << 20
BATCH_BYTES = 16 << 20
LARGEST = np.finfo(np.float32).max  # a float32, by which halves are compared as such
REBUILD = "copy it again from where it is whole, or build the dataset again"

Arrays = dict[str, "npt.NDArray[Any]"]


def arrow_type(column: Column) -> pa.DataType:
    """The type of a column in a shard."""
    item = pa.from_numpy_dtype(column.numpy)
    if column.kind == "values" and column.width > 1:
        item = pa.list_(item, column.width)
    return pa.large_list(item)


def arrow_schema(columns: Mapping[str, Column]) -> pa.Schema:
    """The schema of a shard with these columns."""
    return pa.schema([pa.field(name, arrow_type(column)) for name, column in columns.items()])


class HashingFile:
    """A file being written that counts and hashes what goes through it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.hash = hashlib.sha256()
        self.bytes = 0

    @property
    def closed(self) -> bool:
        return self.file.closed

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        self.bytes += len(data)
        self.file.write(data)
        return len(data)

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        """Close the file with its bytes on the disk, where it is a file of this machine."""
        self.file.flush()
        if isinstance(self.file, io.BufferedWriter):
            os.fsync(self.file.fileno())
        self.file.close()


def _offsets(lengths: Sequence[int]) -> npt.NDArray[np.int64]:
    """Where lists of these lengths begin, and the end."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


class ShardWriter:
    """Writes one shard; rows wait in memory until a record batch is full."""

    def __init__(
        self, place: Place, name: str, columns: Mapping[str, Column], origins: bool = False
    ) -> None:
        self.name = name
        self.columns = columns
        self.origins = origins
        self.rows = 0
        self.steps = 0
        self.continues: list[int] = []
        self._schema = pa.schema([*arrow_schema(columns), *(FIELDS if origins else [])])
        self._file = HashingFile(place.create(name))
        self._arrow = pa.ipc.new_file(self._file, self._schema)
        self._waiting: list[Mapping[str, npt.NDArray[Any]]] = []
        self._lengths: list[int] = []
        self._origins: list[Origin] = []
        self._waiting_steps = 0
        self._own_bytes = 0
        self._step_bytes = sum(c.step_bytes for c in columns.values() if not c.own)

    @property
    def bytes(self) -> int:
        """Bytes of the figures so far, waiting rows included."""
        lists = 8 * self.rows * len(self.columns)
        return self.steps * self._step_bytes + self._own_bytes + lists

    def append(
        self,
        row: Mapping[str, npt.NDArray[Any]],
        steps: int,
        continues: bool,
        origin: Origin = NOWHERE,
    ) -> None:
        """Add one row of `steps` steps, of the columns' dtypes and shapes."""
        if continues:
            self.continues.append(self.rows)
        self._waiting.append(row)
        self._lengths.append(steps)
        self._origins.append(origin)
        self.rows += 1
        self.steps += steps
        self._waiting_steps += steps
        self._own_bytes += sum(
            len(row[name]) * column.step_bytes
            for name, column in self.columns.items()
            if column.own
        )
        if (
            len(self._lengths) >= BATCH_ROWS
            or self._waiting_steps >= BATCH_STEPS
            or self._waiting_steps * self._step_bytes >= BATCH_BYTES
        ):
            self.flush()

    def flush(self) -> None:
        """Write the waiting rows as one record batch."""
        if not self._lengths:
            return
        shared = _offsets(self._lengths)
        arrays = []
        for name, column in self.columns.items():
            offsets = shared
            if column.own:
                offsets = _offsets([len(row[name]) for row in self._waiting])
            given = np.concatenate([row[name] for row in self._waiting])
            self._check(name, column, given, offsets)
            figures = np.ascontiguousarray(given, dtype=column.numpy)
            items = pa.array(figures.reshape(-1))
            if column.kind == "values" and column.width > 1:
                items = pa.FixedSizeListArray.from_arrays(items, column.width)
            arrays.append(pa.LargeListArray.from_arrays(pa.array(offsets), items))
        if self.origins:
            arrays += origin_arrays(self._origins)
        self._arrow.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._waiting, self._lengths, self._origins, self._waiting_steps = [], [], [], 0

    def _check(
        self, name: str, column: Column, figures: npt.NDArray[Any], offsets: npt.NDArray[np.int64]
    ) -> None:
        """DataError where a figure does not fit its column; a whole batch at once, for speed."""
        if not figures.size:
            return
        if column.vocabulary is not None:
            if figures.dtype.kind not in "ui":
                raise DataError(f"column '{name}': tokens are integers, not {figures.dtype}")
            if int(figures.min()) >= 0 and int(figures.max()) < column.vocabulary:
                return
            good = (figures >= 0) & (figures < column.vocabulary)
            what = f"lies outside the vocabulary of {column.vocabulary}"
        else:
            good = (np.abs(figures) <= LARGEST).all(axis=1)
            if good.all():
                return
            what = "is not a finite number of float32"
        step = int(np.argmin(good))
        row = int(np.searchsorted(offsets, step, side="right")) - 1
        at = f"step {step - int(offsets[row])} of row {self.rows - len(self._lengths) + row}"
        raise DataError(
            f"column '{name}': {figures[step]} in {at} of {self.name} {what}; mend the input"
        )

    def close(self) -> ShardInfo:
        """Write what waits, and give the shard's entry of the manifest."""
        self.flush()
        self._arrow.close()
        self._file.close()
        return ShardInfo(
            self.name,
            self.rows - len(self.continues),
            self.steps,
            self._file.bytes,
            self._file.hash.hexdigest(),
            self.continues,
        )

    def abandon(self) -> None:
        """Close the file without its end."""
        self._file.file.close()


@dataclass(frozen=True, slots=True)
class Chunk:
    """One record batch, mapped: steps [low, high) of the split.

    `columns` holds the figures, tokens (steps,) and values (steps, width), read-only; `starts` the
    split's step at which each sequence that begins in here begins, ascending. `own` holds the
    figures of own columns, and where those of each of these sequences begin, and the end. `origins`
    holds what `data.origin` keeps of each of these sequences, None where the shard has none.
    """

    low: int
    high: int
    columns: Mapping[str, npt.NDArray[Any]]
    starts: npt.NDArray[np.int64]
    own: Mapping[str, tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]
    origins: pa.RecordBatch | None = None

    def origin(self, index: int) -> Origin:
        """Return where sequence `index` of those that begin in here is from."""
        if self.origins is None:
            return NOWHERE
        return Origin(*(column[index].as_py() for column in self.origins.columns))


def map_shard(
    place: Place, info: ShardInfo, columns: Mapping[str, Column], low: int
) -> list[Chunk]:
    """The record batches of a shard whose first step is step `low` of its split.

    Raises DataError where the file is missing, cut off, or not what the manifest says.
    """
    shown = place.show(info.file)
    size = place.size(info.file)
    if size is None:
        raise DataError(f"{shown}: this shard of the dataset is missing; {REBUILD}")
    if size != info.bytes:
        raise DataError(
            f"{shown}: {size} bytes where the manifest says {info.bytes}, so it is cut off or"
            f" another file; {REBUILD}"
        )
    try:
        with place.map(info.file) as file, pa.ipc.open_file(file) as reader:
            check_schema(shown, reader.schema, columns)
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
            for batch in batches:
                # Reading beyond the file by a damaged offset would kill the process.
                batch.validate(full=True)
            return _chunks(shown, batches, info, columns, low)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{shown}: not readable as an Arrow file ({error}); {REBUILD}") from None


def check_schema(shown: str, schema: pa.Schema, columns: Mapping[str, Column]) -> None:
    """DataError where a shard lacks a column, or has it in another type."""
    for name, column in columns.items():
        at = schema.get_field_index(name)
        if at < 0:
            raise DataError(f"{shown}: column '{name}' is missing; {REBUILD}")
        if schema.types[at] != arrow_type(column):
            raise DataError(
                f"{shown}: column '{name}' is {schema.types[at]} where the manifest says"
                f" {arrow_type(column)}; {REBUILD}"
            )


def _chunks(
    shown: str,
    batches: Sequence[pa.RecordBatch],
    info: ShardInfo,
    columns: Mapping[str, Column],
    low: int,
) -> list[Chunk]:
    chunks, row = [], 0
    first = low
    for batch in batches:
        parts = {name: _figures(shown, batch, name, columns[name]) for name in columns}
        stepwise = {name: part for name, part in parts.items() if not columns[name].own}
        offsets, *others = (part[0] for part in stepwise.values())
        if not all(np.array_equal(offsets, other) for other in others):
            raise DataError(f"{shown}: its columns are not equally long; {REBUILD}")
        begins = np.ones(batch.num_rows, bool)
        later = [at - row for at in info.continues if row <= at < row + batch.num_rows]
        begins[later] = False
        starts = low + offsets[:-1][begins]
        high = low + int(offsets[-1])
        own = {}
        for name in columns.keys() - stepwise.keys():
            places, figures = parts[name]
            if np.diff(places)[~begins].any():
                raise DataError(f"{shown}: column '{name}' has figures twice; {REBUILD}")
            # Rows that carry on a sequence are empty, and may be left out.
            own[name] = (np.append(places[:-1][begins], places[-1]), figures)
        figures_by_step = {name: part[1] for name, part in stepwise.items()}
        chunks.append(Chunk(low, high, figures_by_step, starts, own, _origins(batch, begins)))
        low, row = high, row + batch.num_rows
    if low - first != info.steps or row != info.rows:
        raise DataError(
            f"{shown}: {row} rows and {low - first} steps where the manifest says {info.rows} and"
            f" {info.steps}; {REBUILD}"
        )
    return chunks


def _origins(batch: pa.RecordBatch, begins: npt.NDArray[np.bool_]) -> pa.RecordBatch | None:
    """The origins of the sequences that begin in a record batch."""
    names = [kind.name for kind in FIELDS]
    if any(batch.schema.get_field_index(name) < 0 for name in names):
        return None
    return batch.select(names).filter(pa.array(begins))


def _figures(
    shown: str, batch: pa.RecordBatch, name: str, column: Column
) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """The offsets (rows + 1,) and the figures of one column, without a copy."""
    lists = batch.column(name)
    offsets = cast("npt.NDArray[np.int64]", lists.offsets.to_numpy())
    items = lists.values
    if column.kind == "values" and column.width > 1:
        items = items.values
    figures = items.to_numpy(zero_copy_only=True).reshape(-1, *column.step_shape())
    least = 0 if column.own else 1
    lengths = np.diff(offsets)
    whole = offsets[0] == 0 and offsets[-1] == len(figures) and bool((lengths >= least).all())
    if not whole or lists.null_count:
        raise DataError(f"{shown}: column '{name}' has damaged or empty rows; {REBUILD}")
    return offsets, figures


def verify_shard(place: Place, info: ShardInfo, columns: Mapping[str, Column]) -> str | None:
    """What is wrong with a shard, in one sentence: its checksum first, then what is in it."""
    try:
        if place.size(info.file) == info.bytes:
            digest = hashlib.sha256()
            for block in place.blocks(info.file):
                digest.update(block)
            if digest.hexdigest() != info.sha256:
                return f"{place.show(info.file)}: its checksum is not the manifest's; {REBUILD}"
        map_shard(place, info, columns, 0)
    except DataError as error:
        return str(error)
    except OSError as error:
        return f"{place.show(info.file)}: cannot be read ({error}); {REBUILD}"
    return None
