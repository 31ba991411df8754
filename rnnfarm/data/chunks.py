"""Shards as they are read: mapped, and looked at before their values are used.

A shard's structure is checked when it is mapped, its checksum meanwhile in a thread (see
`data.verifier`), and the values of a record batch when its column is first asked for.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import pyarrow as pa

from rnnfarm.data.allowed import first_forbidden
from rnnfarm.data.origin import FIELDS, NOWHERE, Origin
from rnnfarm.data.shards import REBUILD, arrow_type
from rnnfarm.data.verifier import Verifier, wrong_checksum
from rnnfarm.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from rnnfarm.data.manifest import Column, ShardInfo
    from rnnfarm.data.place import Place

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class Chunk:
    """One record batch, mapped: steps [low, high) of the split.

    `columns` holds the values, tokens (steps,) and values (steps, width), read-only; `starts` the
    split's step at which each sequence that begins in here begins, ascending. `own` holds the
    values of own columns, and where those of each of these sequences begin, and the end. Both look
    at a column when it is first asked for: DataError where it has an entry that it does not allow.
    `origins` holds what `data.origin` keeps of each of these sequences, None where the shard has
    none.
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


class _Allowed(dict[str, Part]):
    """The parts of a record batch by column, each checked when it is first asked for."""

    def __init__(self, parts: Mapping[str, Part], check: Callable[[str], None]) -> None:
        self._parts, self._check = parts, check

    def __missing__(self, name: str) -> Part:
        self._check(name)
        self[name] = self._parts[name]
        return self[name]


def map_shard(
    place: Place,
    info: ShardInfo,
    columns: Mapping[str, Column],
    low: int,
    verifier: Verifier | None = None,
) -> list[Chunk]:
    """The record batches of a shard whose first step is step `low` of its split.

    Its checksum is left to `verifier`. Raises DataError where the file is missing, cut off, or not
    what the manifest says.
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
            chunks = _chunks(shown, batches, info, columns, low)
            if verifier is not None:
                verifier.verify(place, info, file)
            return chunks
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
        check = partial(_check_allowed, shown, columns, parts, row)
        by_step = {name: part[1] for name, part in stepwise.items()}
        chunks.append(
            Chunk(
                low,
                high,
                _Allowed(by_step, check),
                starts,
                _Allowed(own, check),
                _origins(shown, batch, begins),
            )
        )
        low, row = high, row + batch.num_rows
    if low - first != info.steps or row != info.rows:
        raise DataError(
            f"{shown}: {row} rows and {low - first} steps where the manifest says {info.rows} and"
            f" {info.steps}; {REBUILD}"
        )
    return chunks


def _check_allowed(
    shown: str,
    columns: Mapping[str, Column],
    parts: Mapping[str, tuple[npt.NDArray[np.int64], npt.NDArray[Any]]],
    first: int,
    name: str,
) -> None:
    """DataError that names the shard and the row, counted from 0 in the file, where a column has
    an entry that it does not allow; `first` is the row that the record batch begins with."""
    offsets, figures = parts[name]
    if (found := first_forbidden(columns[name], figures)) is None:
        return
    at, what = found
    row = int(np.searchsorted(offsets, at, side="right")) - 1
    raise DataError(
        f"{shown}, row {first + row}, step {at - int(offsets[row])}: column '{name}' holds"
        f" {figures[at].tolist()}, which {what}; {REBUILD}"
    )


def _origins(
    shown: str, batch: pa.RecordBatch, begins: npt.NDArray[np.bool_]
) -> pa.RecordBatch | None:
    """The origins of the sequences that begin in a record batch."""
    names = [kind.name for kind in FIELDS]
    if any(batch.schema.get_field_index(name) < 0 for name in names):
        return None
    for kind in FIELDS:
        column = batch.column(kind.name)
        if column.type != kind.type or column.null_count:
            raise DataError(
                f"{shown}: column '{kind.name}' is {column.type} with {column.null_count} nulls"
                f" where it is {kind.type} without any; {REBUILD}"
            )
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
                return wrong_checksum(place, info)
        for chunk in map_shard(place, info, columns, 0):
            for name, column in columns.items():
                _ = chunk.own[name] if column.own else chunk.columns[name]
    except DataError as error:
        return str(error)
    except OSError as error:
        return f"{place.show(info.file)}: cannot be read ({error}); {REBUILD}"
    return None
