"""Tables of figures as sequences: the rows are the steps, read in blocks."""

from __future__ import annotations

from abc import abstractmethod
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from rnnfarm.data.inputs import bounds, cut, find_files
from rnnfarm.data.manifest import Column
from rnnfarm.data.reader import Reader, Sequence
from rnnfarm.errors import DataError, JobError, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from rnnfarm.data.inputs import Bounds

VALUES = "values"
TARGET = "target"


class TableReader(Reader):
    """Base of the readers of tables, whose rows are in the order of time.

    files: the files, by glob patterns; values: the columns that make up `values` (by default every
    column of numbers that is not named otherwise); target: the columns of `target`, where there is
    one; group: a column with a new value where a new sequence begins (by default each file is
    one); valid, test: the parts for validation and test, from 0 to 1, which come last: the end of
    every sequence (split = "tail"), or the last sequences (split = "sequence").
    """

    files: list[str]
    values: list[str] = []
    target: list[str] = []
    group: str | None = None
    valid: Annotated[float, Field(ge=0, lt=1)] = 0.1
    test: Annotated[float, Field(ge=0, lt=1)] = 0.0
    split: Literal["tail", "sequence"] = "tail"

    def columns(self) -> dict[str, Column]:
        """`values`, and `target` where columns are named for it."""
        if self.valid + self.test >= 1:
            raise JobError(
                f"settings 'valid' and 'test': {self.valid} and {self.test} leave nothing to train"
            )
        self._files = find_files(self.files, self.base, "files")
        self._values = self.values or self._default_values()
        for path in self._files:
            self._check_names(path)
        columns = {VALUES: Column.values(len(self._values))}
        if self.target:
            columns[TARGET] = Column.values(len(self.target))
        return columns

    def sequences(self) -> Iterator[Sequence]:
        """The runs of rows with one value in `group`, or the files."""
        names = list(dict.fromkeys([*self._values, *self.target]))
        plan = iter(self._plan())
        parts: Bounds = []
        position = 0
        for path in self._files:
            for batch, begins in self._runs(path, names):
                if begins:
                    parts, position = next(plan), 0
                figures = {VALUES: _stack(batch, self._values)}
                if self.target:
                    figures[TARGET] = _stack(batch, self.target)
                for split, part, continues in cut(parts, position, batch.num_rows):
                    piece = {name: rows[part] for name, rows in figures.items()}
                    yield Sequence(split, piece, continues)
                position += batch.num_rows

    def _plan(self) -> list[Bounds]:
        """The splits of every sequence, by a first pass that counts rows."""
        lengths: list[int] = []
        for path in self._files:
            for batch, begins in self._runs(path, [] if self.group else self._values[:1]):
                if begins:
                    lengths.append(0)
                lengths[-1] += batch.num_rows
        if self.split == "tail":
            return [bounds(length, self.valid, self.test) for length in lengths]
        places = bounds(len(lengths), self.valid, self.test)
        owners = [next(split for split, end in places if i < end) for i in range(len(lengths))]
        return [[(split, n)] for split, n in zip(owners, lengths, strict=True)]

    def _runs(self, path: Path, names: list[str]) -> Iterator[tuple[pa.RecordBatch, bool]]:
        """The rows of a file in blocks, and whether a sequence begins with the block."""
        last = None
        first = True
        for batch in self._batches(path, names, self.group):
            if not batch.num_rows:
                continue
            edges = [0, batch.num_rows]
            begins = first
            if self.group is not None:
                groups = batch.column(self.group)
                edges[1:1] = _changes(groups)
                begins = first or groups[0] != last
                last = groups[-1]
            for low, high in pairwise(edges):
                yield batch.slice(low, high - low), begins or low > 0
            first = False

    def _default_values(self) -> list[str]:
        if not self._files:
            raise DataError("setting 'files': all files are empty; give files that hold data")
        taken = {*self.target, self.group}
        found = [n for n in self._numeric(self._files[0]) if n not in taken]
        if not found:
            raise JobError(
                f"{self._files[0]}: has no column of numbers to read; name columns in the setting"
                " 'values'"
            )
        return found

    def _check_names(self, path: Path) -> None:
        known = self._names(path)
        wanted = {"values": self._values, "target": self.target}
        if self.group is not None:
            wanted["group"] = [self.group]
        for setting, names in wanted.items():
            for name in names:
                if name not in known:
                    raise JobError(
                        f"{path}: has no column '{name}' (setting '{setting}');"
                        f" {suggestion(name, known)}"
                    )
                if known.count(name) > 1:
                    raise DataError(
                        f"{path}: has {known.count(name)} columns '{name}'; rename all but one"
                    )

    @abstractmethod
    def _names(self, path: Path) -> list[str]:
        """The columns of a file."""

    @abstractmethod
    def _numeric(self, path: Path) -> list[str]:
        """The columns of a file that hold numbers."""

    @abstractmethod
    def _batches(self, path: Path, names: list[str], group: str | None) -> Iterator[pa.RecordBatch]:
        """The rows in blocks: `names` as float32 without nulls, and `group`.

        DataError that names the file and the line or row of a cell that is no number.
        """


def _stack(batch: pa.RecordBatch, names: list[str]) -> npt.NDArray[np.float32]:
    """The columns side by side, (rows, len(names))."""
    return np.stack([batch.column(name).to_numpy() for name in names], axis=1)


def _changes(groups: pa.Array) -> list[int]:
    """The rows whose value is not the one of the row before."""
    differs = pc.not_equal(groups.slice(1), groups.slice(0, len(groups) - 1))
    return (np.flatnonzero(differs.to_numpy(zero_copy_only=False)) + 1).tolist()
