"""Shards: writing one Arrow file of a dataset; `data.chunks` reads it.

A shard is an uncompressed Arrow IPC file without nulls: one large_list a column and row, so that
the figures of a record batch lie in one piece and are read without a copy. Own columns have lists
of their own lengths, empty in rows that carry on a sequence. Record batches are
small enough (see `BATCH_ROWS`, `BATCH_STEPS`, `BATCH_BYTES`) to be put together in memory.
"""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rnnfarm.data.allowed import first_forbidden
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
        self.crc32 = 0
        self.bytes = 0

    @property
    def closed(self) -> bool:
        return self.file.closed

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        self.crc32 = zlib.crc32(data, self.crc32)
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
        """DataError where a value does not fit its column; a whole batch at once, for speed."""
        if figures.size and column.vocabulary is not None and figures.dtype.kind not in "ui":
            raise DataError(f"column '{name}': tokens are integers, not {figures.dtype}")
        if (found := first_forbidden(column, figures)) is None:
            return
        step, what = found
        row = int(np.searchsorted(offsets, step, side="right")) - 1
        at = f"step {step - int(offsets[row])} of row {self.rows - len(self._lengths) + row}"
        raise DataError(
            f"column '{name}': {figures[step]} in {at} of {self.name} {what}; correct the input"
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
            self._file.crc32,
        )

    def abandon(self) -> None:
        """Close the file without its end."""
        self._file.file.close()
