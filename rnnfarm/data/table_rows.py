"""The rows of tables in the order of their sequences, wherever in the files they stand."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rnnfarm.data.external_sort import Block, len_of, sort_blocks, take
from rnnfarm.data.table_cells import INSTANT, LOCAL, TableCells
from rnnfarm.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    from rnnfarm.data.origin import Origin
    from rnnfarm.data.row_numbers import RowNumbers
    from rnnfarm.data.tally import Tally

MEMORY = 32 << 20  # bytes of rows that are sorted at a time
SHOWN = 10  # files that a note names
#: The bits of a row's number that say which row of its file it is; those above say which file.
ROW_BITS = 40


class Run(NamedTuple):
    """Rows of one sequence that follow each other, and whether the sequence begins with them.

    `rows` has the arrays `number`, which says where each row stands (see `TableRows._where`),
    `sequence`, `cells` (rows, columns) where columns were asked for, and, with a column of times,
    `local` and `instant` in microseconds.
    """

    rows: Block
    begins: bool


@dataclass
class Source:
    """Files that are read one after the other, as parts of one table.

    groups: the number of each group in the order in which they first appear; comes_back: the number
    of the first row whose group has appeared before, and another one since.
    """

    files: list[Path]
    groups: dict[str, int] = field(default_factory=dict)
    comes_back: int | None = None


class TableRows(TableCells):
    """Base of what reads the rows of tables, sequence after sequence.

    group: the column that says which sequence a row belongs to, wherever in the files it stands;
    without it each file is a sequence.

    join: whether several files are parts of one table, in the order of their first times where
    there is a column of times, else of their names. By default they are where there is `group`.

    sort: whether the rows of a sequence are sorted by `time`, where else they must be in its order.
    """

    group: str | None = None
    join: bool | None = None
    sort: bool = False
    _files: list[Path]
    _label_codes: dict[str, int]

    def _find_sources(self) -> list[Source]:
        """The files, together where their rows make sequences together."""
        self._counts = dict.fromkeys(self._files, 0)
        self._row_numbers: dict[Path, RowNumbers] = {}
        joined = self.group is not None if self.join is None else self.join
        files = self._in_order_of_time(self._files) if joined else self._files
        self._places, self._numbers_of_files = files, {path: i for i, path in enumerate(files)}
        return [Source(files)] if joined else [Source([path]) for path in files]

    def _in_order_of_time(self, files: list[Path]) -> list[Path]:
        """The files by the time of their first rows, where rows have one."""
        if self.time is None or self.sort or len(files) < 2:
            return files
        firsts: dict[Path, int] = {}
        for path in files:
            batches = self._batches(path, [], [], time=True)
            first = next((batch for batch in batches if batch.num_rows), None)
            if first is not None:
                firsts[path] = int(_microseconds(first.column(INSTANT))[0])
        return sorted(firsts, key=firsts.__getitem__)

    def _runs(self, source: Source, names: list[str]) -> Iterator[Run]:
        """The rows of a source, with the cells of the columns `names`, sequence after sequence.

        Where a group comes back it is gathered, if `source` says so.
        """
        rows = self._read_rows(source, names)
        if self.sort:
            rows = sort_blocks(rows, ["sequence", "instant", "number"], MEMORY)
        elif source.comes_back is not None:
            rows = sort_blocks(rows, ["sequence", "number"], MEMORY)
        return cut_runs(rows)

    def _look_for_mixed(self, source: Source) -> None:
        """Find out whether a group comes back after another, so that groups are gathered."""
        if self.group is None or self.sort:
            return
        last = -1
        for path in source.files:
            row = 0
            for batch in self._batches(path, [], [self.group], time=False):
                if batch.num_rows:
                    # Groups are numbered as they appear, so where they are not mixed numbers grow.
                    numbers = self._block(source, path, row, batch, [])["sequence"]
                    back = np.diff(numbers, prepend=last) < 0
                    if back.any():
                        first = self._numbers_of_files[path] << ROW_BITS
                        source.comes_back = first + row + int(np.argmax(back))
                        return
                    last = int(numbers[-1])
                row += batch.num_rows

    def _read_rows(self, source: Source, names: list[str]) -> Iterator[Block]:
        """The rows of a source as they stand in its files."""
        keys = list(dict.fromkeys(key for key in (self.group, self.label) if key is not None))
        for path in source.files:
            row = 0
            for batch in self._batches(path, names, keys, self.time is not None):
                if batch.num_rows:
                    block = self._block(source, path, row, batch, names)
                    row += batch.num_rows
                    self._counts[path] = max(row, self._counts.get(path, 0))
                    yield block

    def _block(
        self, source: Source, path: Path, row: int, batch: pa.RecordBatch, names: list[str]
    ) -> Block:
        count = batch.num_rows
        first = (self._numbers_of_files[path] << ROW_BITS) + row
        block: Block = {"number": np.arange(first, first + count)}
        if self.group is None:
            block["sequence"] = np.zeros(count, np.int64)
        else:
            groups = self._keys(path, batch, self.group, row)
            block["sequence"] = number_texts(groups, source.groups)
        if self.label is not None and self.label in batch.schema.names:
            block["label"] = number_texts(batch.column(self.label), self._label_codes)
        if LOCAL in batch.schema.names:
            block["local"] = _microseconds(batch.column(LOCAL))
            block["instant"] = _microseconds(batch.column(INSTANT))
        if names:
            block["cells"] = _stack(batch, names)
        return block

    def _notes_on(self, source: Source) -> list[str]:
        """What has become of the rows of a source."""
        notes = []
        if len(source.files) > 1 and not self.sort:
            named = [path.name for path in source.files[:SHOWN]]
            more = ["…"] if len(source.files) > SHOWN else []
            order = (
                "names (name a column in 'time' for theirs)" if self.time is None else "first times"
            )
            notes.append(
                f"the files were read in the order of their {order}: {', '.join(named + more)}"
            )
        if source.comes_back is not None:
            notes.append(
                f"the rows of the {len(source.groups):,} groups in '{self.group}' are mixed (one"
                f" comes back in {self._where(source.comes_back)}); those of each group were"
                " gathered, in their order"
            )
        return notes

    def _keys(self, path: Path, batch: pa.RecordBatch, name: str, row: int) -> pa.Array:
        """A column whose value each row must have; DataError where one has none."""
        found = batch.column(name)
        if found.null_count:
            wrong = row + int(np.argmax(found.is_null().to_numpy(zero_copy_only=False)))
            raise DataError(
                f"{path}, {self._at(path, wrong)}: column '{name}' has no value; fill or drop the"
                " row"
            )
        return found

    def _where(self, number: int) -> str:
        """The file and the line or row of a row, for people."""
        path, row = self._place(number)
        return f"{path}, {self._at(path, row)}"

    def _origin_of(self, number: int, name: str) -> Origin:
        """The origin of a sequence that begins with a row; for rows that have been read before."""
        path, row = self._place(number)
        if path not in self._row_numbers:
            self._row_numbers[path] = self._numbers(path, self._counts[path])
        return self.origin(path, self._row_numbers[path][row], name)

    def _place(self, number: int) -> tuple[Path, int]:
        return self._places[number >> ROW_BITS], number & ((1 << ROW_BITS) - 1)


def cut_runs(blocks: Iterable[Block]) -> Iterator[Run]:
    """Cut blocks of rows where another sequence begins."""
    last = None
    for block in blocks:
        sequence = block["sequence"]
        edges = [0, *(np.flatnonzero(np.diff(sequence)) + 1).tolist(), len(sequence)]
        for low, high in pairwise(edges):
            begins = int(sequence[low]) != last
            last = int(sequence[low])
            yield Run(take(block, slice(low, high)), begins)


def first_rows(runs: Iterable[Run], first: int | None, alone: bool, tally: Tally) -> Iterator[Run]:
    """The first rows of each sequence; `alone`: there is one sequence only, and no need to read on
    when it has enough. `tally` counts those that are left out."""
    taken = 0
    for run in runs:
        taken = 0 if run.begins else taken
        size = len_of(run.rows)
        left = size if first is None else min(size, first - taken)
        if left > 0:
            yield Run(take(run.rows, slice(0, left)), run.begins)
        taken += left
        if left < size:
            tally.add("first", size - left, int(run.rows["number"][left]))
        if alone and taken == first:
            return


def number_texts(column: pa.Array, known: dict[str, int]) -> npt.NDArray[np.int64]:
    """The number of each value in the order in which values first appear, -1 for none; `known`
    grows."""
    encoded = pc.cast(column, pa.string()).dictionary_encode()
    numbers = [known.setdefault(text, len(known)) for text in encoded.dictionary.to_pylist()]
    places = encoded.indices.fill_null(len(numbers)).to_numpy()
    found: npt.NDArray[np.int64] = np.array([*numbers, -1], np.int64)[places]
    return found


def _microseconds(column: pa.Array) -> npt.NDArray[np.int64]:
    stamps = column.to_numpy(zero_copy_only=False).astype("datetime64[us]")
    return np.ascontiguousarray(stamps).view(np.int64)


def _stack(batch: pa.RecordBatch, names: list[str]) -> npt.NDArray[np.float32]:
    """The columns side by side, (rows, len(names)), NaN for a null."""
    columns = [batch.column(name).to_numpy(zero_copy_only=False) for name in names]
    return np.stack(columns, axis=1)
