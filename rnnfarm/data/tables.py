"""Tables of figures as sequences: the rows are the steps, read in blocks."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from rnnfarm.data.inputs import FilePattern, bounds, cut
from rnnfarm.data.lines import leave_something
from rnnfarm.data.manifest import Column
from rnnfarm.data.reader import Sequence
from rnnfarm.data.table_cells import INSTANT, LOCAL, TableCells
from rnnfarm.data.times import Field as CalendarField
from rnnfarm.data.times import calendar, shown
from rnnfarm.data.window import OBSERVED
from rnnfarm.errors import DataError, JobError, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from rnnfarm.data.inputs import Bounds
    from rnnfarm.data.manifest import Role

VALUES = "values"
TARGET = "target"


class Run(NamedTuple):
    """Rows of a file that lie in one sequence: `row` is the number of the first one in the file,
    and `begins` says whether the sequence begins with it."""

    batch: pa.RecordBatch
    row: int
    begins: bool


class TableReader(TableCells):
    """Base of the readers of tables, whose rows are in the order of time.

    files: the files, by glob patterns; values: the columns that make up `values` (by default every
    column of numbers that is not named otherwise); target: the columns of `target`, where there is
    one; group: a column with a new value where a new sequence begins (by default each file is
    one); first: how many rows of each sequence are read, from its begin (by default all);
    valid, test: the parts for validation and test, from 0 to 1, which come last: the end of
    every sequence (split = "tail"), or the last sequences (split = "sequence"); split: which of the
    two.

    time: a column of dates or times, in whose order the rows of a sequence must be; calendar: what
    the model is told of it, of "hour", "weekday", "month" and "yearday": the sine and the cosine
    of each are further figures of `values`, after those of the columns.

    missing: what becomes of a cell without a value. With "error" it is refused. With "mask" it gets
    the last value of its column in the sequence, 0 before the first one. Then each column in
    `values` has a further figure, after all others, in the same order: 1 where its cell has a
    value, and 0 where not. And the dataset has the column `observed`: 1 where all cells of the
    step's target have a value (those of `target`, or of `values` where `target` names no columns),
    and 0 where not.

    With `calendar` or "mask" the dataset has the column `target` also where `target` names no
    columns: the columns in `values` without the further figures. A forecast that is to foretell
    them alone has it as its target (data.target = "target" in a job, with data.mode = "forecast").
    """

    files: list[FilePattern]
    values: list[str] = []
    target: list[str] = []
    group: str | None = None
    first: Annotated[int, Field(ge=1)] | None = None
    time: str | None = None
    calendar: list[CalendarField] = []
    missing: Literal["error", "mask"] = "error"
    valid: Annotated[float, Field(ge=0, lt=1)] = 0.1
    test: Annotated[float, Field(ge=0, lt=1)] = 0.0
    split: Literal["tail", "sequence"] = "tail"

    def columns(self) -> dict[str, Column]:
        """`values`, `target` where there is one, and `observed` where cells may be missing."""
        leave_something(self.valid, self.test)
        if self.calendar and self.time is None:
            raise JobError("setting 'calendar': name the column of dates or times in 'time' too")
        self._files = self.find_files(self.files, "files")
        self._values = self.values or self._default_values()
        self._check_roles()
        for path in self._files:
            self._check_names(path)
        masked = self.missing == "mask"
        self._target = self.target or (self._values if self.calendar or masked else [])
        names, roles = self._step()
        columns = {VALUES: Column.values(len(names), names=names, roles=roles)}
        if self._target:
            width = len(self._target)
            columns[TARGET] = Column.values(width, names=self._target, roles=["value"] * width)
        if masked:
            columns[OBSERVED] = Column.tokens(2)
        return columns

    def _step(self) -> tuple[list[str], list[Role]]:
        """Return the names and the roles of what `values` holds for a step."""
        names = list(self._values)
        roles: list[Role] = ["value"] * len(names)
        names += [f"{field}:{wave}" for field in self.calendar for wave in ("sin", "cos")]
        roles += ["calendar"] * (2 * len(self.calendar))
        if self.missing == "mask":
            names += [f"{name}:observed" for name in self._values]
            roles += ["observed"] * len(self._values)
        return names, roles

    def sequences(self) -> Iterator[Sequence]:
        """The runs of rows with one value in `group`, or the files."""
        names = list(dict.fromkeys([*self._values, *self._target]))
        self._rows: dict[Path, int] = {}
        plan = iter(self._plan())
        parts: Bounds = []
        name, position = "", 0
        gaps = Gaps(len(names))
        before = None
        for path in self._files:
            numbers = self._numbers(path, self._rows.get(path, 0))
            for run in self._runs(path, names, self.time is not None):
                if run.begins:
                    parts, name, position = next(plan), self._named(run), 0
                    gaps = Gaps(len(names))
                    before = None
                local = None
                if self.time is not None:
                    local, before = self._clock(path, run, before)
                figures = self._figures(names, _stack(run.batch, names), gaps, local)
                for split, part, continues in cut(parts, position, run.batch.num_rows):
                    piece = {name: rows[part] for name, rows in figures.items()}
                    where = numbers[run.row + part.start]
                    yield Sequence(split, piece, continues, self.origin(path, where, name))
                position += run.batch.num_rows

    def inputs(self, path: Path) -> Iterator[Sequence]:
        """All rows of one file; without the column `target` where it lacks one of its columns."""
        known = self._names(path)
        target = self.target if all(name in known for name in self.target) else []
        return self._sequences_with(
            files=[str(path)], target=target, valid=0.0, test=0.0, first=None
        )

    def _figures(
        self,
        names: list[str],
        cells: npt.NDArray[np.float32],
        gaps: Gaps,
        local: npt.NDArray[Any] | None,
    ) -> dict[str, npt.NDArray[Any]]:
        """The dataset's columns of some rows, from the cells of the columns `names`."""
        there = None
        if self.missing == "mask":
            there = ~np.isnan(cells)
            cells = gaps.fill(cells, there)
        values = [names.index(name) for name in self._values]
        target = [names.index(name) for name in self._target]
        parts = [cells[:, values]]
        if local is not None and self.calendar:
            parts.append(calendar(local, self.calendar))
        if there is not None:
            parts.append(there[:, values].astype(np.float32))
        figures: dict[str, npt.NDArray[Any]] = {VALUES: np.concatenate(parts, axis=1)}
        if target:
            figures[TARGET] = cells[:, target]
        if there is not None:
            figures[OBSERVED] = np.all(there[:, target], axis=1).astype(np.uint8)
        return figures

    def _clock(self, path: Path, run: Run, before: Any) -> tuple[Any, Any]:
        """The local times of a run of rows, and the instant of its last one.

        `before`: the instant of the row before the first one, None where there is none. DataError
        for a row whose time is before that of the row before it.
        """
        local, instants = (
            run.batch.column(name).to_numpy(zero_copy_only=False) for name in (LOCAL, INSTANT)
        )
        earlier = instants[1:] < instants[:-1]
        earlier = np.append(before is not None and instants[0] < before, earlier)
        if earlier.any():
            row = int(np.argmax(earlier))
            raise DataError(
                f"{path}, {self._at(path, run.row + row)}: column '{self.time}'"
                f" ({shown(local[row])}) is before the row before; sort the rows, or name the"
                " column in 'group' that tells sequences apart"
            )
        return local, instants[-1]

    def _plan(self) -> list[Bounds]:
        """The splits of every sequence, by a first pass that counts rows."""
        lengths: list[int] = []
        for path in self._files:
            for run in self._runs(path, [] if self.group else self._values[:1], False):
                if run.begins:
                    lengths.append(0)
                lengths[-1] += run.batch.num_rows
                self._rows[path] = run.row + run.batch.num_rows
        if self.split == "tail":
            return [bounds(length, self.valid, self.test) for length in lengths]
        places = bounds(len(lengths), self.valid, self.test)
        owners = [next(split for split, end in places if i < end) for i in range(len(lengths))]
        return [[(split, n)] for split, n in zip(owners, lengths, strict=True)]

    def _named(self, run: Run) -> str:
        """The group of a run of rows as text, empty where a table has no groups."""
        return "" if self.group is None else str(run.batch.column(self.group)[0])

    def _runs(self, path: Path, names: list[str], time: bool) -> Iterator[Run]:
        """The rows of a file in blocks, of each sequence at most the `first` ones."""
        last = None
        row = taken = 0
        keys = [] if self.group is None else [self.group]
        for batch in self._batches(path, names, keys, time):
            if not batch.num_rows:
                continue
            edges = [0, batch.num_rows]
            begins = row == 0
            if self.group is not None:
                groups = self._keys(path, batch, self.group, row)
                edges[1:1] = _changes(groups)
                begins = begins or groups[0] != last
                last = groups[-1]
            for low, high in pairwise(edges):
                if begins or low > 0:
                    taken = 0
                end = high if self.first is None else min(high, low + self.first - taken)
                if low < end:
                    yield Run(batch.slice(low, end - low), row + low, begins or low > 0)
                taken += end - low
            row += batch.num_rows
            if self.group is None and taken == self.first:
                return

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

    def _default_values(self) -> list[str]:
        if not self._files:
            raise DataError("setting 'files': all files are empty; give files that hold data")
        taken = {*self.target, self.group, self.time}
        found = [n for n in self._numeric(self._files[0]) if n not in taken]
        if not found:
            raise JobError(
                f"{self._files[0]}: has no column of numbers to read; name columns in the setting"
                " 'values'"
            )
        return found

    def _check_roles(self) -> None:
        """JobError where a column of figures is to tell sequences apart, or to be the time."""
        for setting, name in (("group", self.group), ("time", self.time)):
            for other, names in (("values", self._values), ("target", self.target)):
                if name in names:
                    raise JobError(
                        f"settings '{setting}' and '{other}': both name the column '{name}'; leave"
                        " it out of one"
                    )

    def _check_names(self, path: Path) -> None:
        known = self._names(path)
        wanted = {"values": self._values, "target": self.target}
        single = {"group": self.group, "time": self.time}
        wanted |= {setting: [name] for setting, name in single.items() if name is not None}
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


class Gaps:
    """Fills the gaps of a sequence that is read in blocks, by what each column last held."""

    def __init__(self, width: int) -> None:
        self._last = np.zeros((1, width), np.float32)

    def fill(
        self, cells: npt.NDArray[np.float32], there: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float32]:
        """The cells (rows, width) with the last value before where they are not `there`."""
        whole = np.concatenate([self._last, cells])
        rows = np.where(there, np.arange(1, len(whole))[:, None], 0)  # 0: what was last held
        filled: npt.NDArray[np.float32] = np.take_along_axis(
            whole, np.maximum.accumulate(rows), axis=0
        )
        self._last = filled[-1:].copy()
        return filled


def _stack(batch: pa.RecordBatch, names: list[str]) -> npt.NDArray[np.float32]:
    """The columns side by side, (rows, len(names)), NaN for a null."""
    columns = [batch.column(name).to_numpy(zero_copy_only=False) for name in names]
    return np.stack(columns, axis=1)


def _changes(groups: pa.Array) -> list[int]:
    """The rows whose value is not the one of the row before."""
    differs = pc.not_equal(groups.slice(1), groups.slice(0, len(groups) - 1))
    return (np.flatnonzero(differs.to_numpy(zero_copy_only=False)) + 1).tolist()
