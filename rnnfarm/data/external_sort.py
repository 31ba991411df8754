"""Sorting blocks of rows that together may not fit into memory.

Rows are sorted a part at a time; the parts are written into a private temporary folder, which is
removed at the end or on an error, and merged block by block.
"""

from __future__ import annotations

import tempfile
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rnnfarm.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt

#: Rows: arrays of one length, (rows,) or (rows, width), by their names.
Block = dict[str, "npt.NDArray[Any]"]

FAN_IN = 32  # how many sorted parts are merged at a time


def sort_blocks(blocks: Iterable[Block], keys: Sequence[str], memory: int) -> Iterator[Block]:
    """Give the rows of `blocks`, of which there are any number, in the order of `keys`.

    memory: bytes of rows that are sorted at a time; a few times as many are in use.
    keys: the names of arrays (rows,) of integers that together are different for each row, the
    most significant first; so the order does not depend on how the rows come in blocks. RunError
    where the temporary folder cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="rnnfarm-sort-") as folder:
        places = (Path(folder) / f"part-{number}" for number in count())
        try:
            parts, last = _write_parts(blocks, keys, memory, places)
            size = memory // (2 * FAN_IN)
            while len(parts) >= FAN_IN:
                merged = _write(merge_sorted(map(_read, parts[:FAN_IN]), keys), next(places), size)
                for path in parts[:FAN_IN]:
                    path.unlink()
                parts = [*parts[FAN_IN:], merged]
        except OSError as error:
            raise RunError(
                f"{folder}: a table cannot be sorted there ({error}); free some space, or name"
                " another folder in the environment variable TMPDIR"
            ) from error
        yield from merge_sorted([*map(_read, parts), iter(last)], keys)


def merge_sorted(sources: Iterable[Iterator[Block]], keys: Sequence[str]) -> Iterator[Block]:
    """Merge sources of which each gives rows in the order of `keys`, holding a block of each."""
    heads = [(block, source) for source in sources if (block := _next(source)) is not None]
    while heads:
        # Up to where the first of the blocks ends, no row is still to be read.
        end = min(tuple(int(block[key][-1]) for key in keys) for block, _ in heads)
        ready, left = [], []
        for block, source in heads:
            size = _count_until(block, keys, end)
            ready.append(take(block, slice(0, size)))
            rest = take(block, slice(size, None)) if size < len_of(block) else _next(source)
            if rest is not None:
                left.append((rest, source))
        heads = left
        yield _sorted(concatenate(ready), keys)


def take(block: Block, rows: Any) -> Block:
    """Return these rows of a block: a slice, numbers, or a choice."""
    return {name: array[rows] for name, array in block.items()}


def concatenate(blocks: Sequence[Block]) -> Block:
    """Return the rows of several blocks, of which there is one at least, as one."""
    if len(blocks) == 1:
        return blocks[0]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def len_of(block: Block) -> int:
    """Return the number of rows of a block."""
    return len(next(iter(block.values())))


def bytes_of(block: Block) -> int:
    """Return the bytes of a block."""
    return sum(array.nbytes for array in block.values())


def _write_parts(
    blocks: Iterable[Block], keys: Sequence[str], memory: int, places: Iterator[Path]
) -> tuple[list[Path], list[Block]]:
    """Return the files of the sorted parts, and the last part, which stays in memory."""
    parts: list[Path] = []
    waiting: list[Block] = []
    size = 0
    for block in blocks:
        if waiting and size + bytes_of(block) > memory:
            part = _sorted(concatenate(waiting), keys)
            parts.append(_write([part], next(places), memory // (2 * FAN_IN)))
            waiting, size = [], 0
        waiting.append(block)
        size += bytes_of(block)
    return parts, [_sorted(concatenate(waiting), keys)] if waiting else []


def _sorted(block: Block, keys: Sequence[str]) -> Block:
    return take(block, np.lexsort([block[key] for key in reversed(keys)]))


def _count_until(block: Block, keys: Sequence[str], end: tuple[int, ...]) -> int:
    """The number of rows of a sorted block that do not come after `end`."""
    low, high = 0, len_of(block)
    for key, value in zip(keys[:-1], end[:-1], strict=True):
        part = block[key][low:high]
        low, high = (low + int(np.searchsorted(part, value, side)) for side in ("left", "right"))
    return low + int(np.searchsorted(block[keys[-1]][low:high], end[-1], "right"))


def _next(source: Iterator[Block]) -> Block | None:
    return next((block for block in source if len_of(block)), None)


def _write(blocks: Iterable[Block], path: Path, size: int) -> Path:
    """Write blocks into a file, in pieces of about `size` bytes."""
    writer = None
    with pa.OSFile(str(path), "wb") as file:
        for block in blocks:
            rows = len_of(block)
            step = max(1, size * rows // max(1, bytes_of(block)))
            batch = pa.RecordBatch.from_pydict({name: _to_arrow(a) for name, a in block.items()})
            writer = writer or pa.ipc.new_stream(file, batch.schema)
            for low in range(0, rows, step):
                writer.write_batch(batch.slice(low, step))
        if writer is not None:
            writer.close()
    return path


def _read(path: Path) -> Iterator[Block]:
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
        for batch in reader:
            yield {
                name: _to_numpy(column)
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            }


def _to_arrow(array: npt.NDArray[Any]) -> pa.Array:
    if array.ndim == 1:
        return pa.array(array)
    return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])


def _to_numpy(column: pa.Array) -> npt.NDArray[Any]:
    if not pa.types.is_fixed_size_list(column.type):
        return np.asarray(column)
    flat: npt.NDArray[Any] = np.asarray(column.flatten())
    return flat.reshape(len(column), column.type.list_size)
