"""Tables of figures as sequences: the rows are the steps, read in blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from rnnfarm.data.external_sort import len_of
from rnnfarm.data.inputs import bounds, cut
from rnnfarm.data.lines import leave_something
from rnnfarm.data.manifest import Column
from rnnfarm.data.reader import Sequence
from rnnfarm.data.table_rows import Run, Source, TableRows, first_rows
from rnnfarm.data.timeline import check_order
from rnnfarm.data.times import Field as CalendarField
from rnnfarm.data.times import calendar
from rnnfarm.data.window import OBSERVED
from rnnfarm.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from rnnfarm.data.inputs import Bounds
    from rnnfarm.data.manifest import Role

VALUES = "values"
TARGET = "target"


class Found(NamedTuple):
    """A sequence, as a first pass over a table finds it: its name, and its number of rows."""

    name: str
    length: int


class TableReader(TableRows):
    """Base of the readers of tables, whose rows are in the order of time.

    first: how many rows of each sequence are read, from its begin (by default all).

    calendar: what the model is told of the column in `time`, of "hour", "weekday", "month" and
    "yearday": the sine and the cosine of each are further values of `values`, after the columns.

    valid, test: the parts for validation and test, from 0 to 1, which come last: the end of
    every sequence (split = "tail"), or the last sequences (split = "sequence"); split: which of the
    two.

    With `calendar`, `categories` or "mask" the dataset has the column `target` also where `target`
    names no columns: the columns of numbers in `values` alone. A forecast that is to foretell them
    has it as its target (data.target = "target" in a job, with data.mode = "forecast").
    """

    first: Annotated[int, Field(ge=1)] | None = None
    calendar: list[CalendarField] = []
    valid: Annotated[float, Field(ge=0, lt=1)] = 0.1
    test: Annotated[float, Field(ge=0, lt=1)] = 0.0
    split: Literal["tail", "sequence"] = "tail"

    _reading: TableReader | None = None  # what reads the rows of a file that is predicted

    def columns(self) -> dict[str, Column]:
        """`values`, `target` where there is one, and `observed` where cells may be missing."""
        leave_something(self.valid, self.test)
        if self.calendar and self.time is None:
            raise JobError("setting 'calendar': name the column of dates or times in 'time' too")
        self._check_order()
        self._learn_columns()
        masked = self.missing == "mask"
        more = masked or self.calendar or self.categories
        self._target = self.target or (self._numeric_values or self._values if more else [])
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
        """The rows of each group, or of each file."""
        names = list(dict.fromkeys([*self._values, *self._target]))
        self._sources = self._find_sources()
        plan = iter(self._plan(self._sources))
        for run in self._runs_of(self._sources, names):
            if run.begins:
                (found, parts), position = next(plan), 0
                gaps = Gaps(len(names))
            size = len_of(run.rows)
            local = run.rows["local"].view("datetime64[us]") if self.calendar else None
            figures = self._figures(names, run.rows["cells"], gaps, local)
            for split, part, continues in cut(parts, position, size):
                piece = {name: rows[part] for name, rows in figures.items()}
                origin = self._origin_of(int(run.rows["number"][part.start]), found.name)
                yield Sequence(split, piece, continues, origin)
            position += size

    def notes(self) -> list[str]:
        """What the columns were taken for, and what was done with the rows of the table."""
        if self._reading is not None:
            return self._reading.notes()
        rows = [note for source in self._sources for note in self._notes_on(source)]
        return super().notes() + rows

    def inputs(self, path: Path) -> Iterator[Sequence]:
        """All rows of one file; without the column `target` where it lacks one of its columns."""
        known = self._names(path)
        target = self.target if all(name in known for name in self.target) else []
        reader = self._with(files=[str(path)], target=target, valid=0.0, test=0.0, first=None)
        self._reading = reader
        reader.columns()
        return reader.sequences()

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
        if local is not None:
            parts.append(calendar(local, self.calendar))
        if there is not None:
            parts.append(there[:, values].astype(np.float32))
        figures: dict[str, npt.NDArray[Any]] = {VALUES: np.concatenate(parts, axis=1)}
        if target:
            figures[TARGET] = cells[:, target]
        if there is not None:
            figures[OBSERVED] = np.all(there[:, target], axis=1).astype(np.uint8)
        return figures

    def _runs_of(self, sources: list[Source], names: list[str]) -> Iterator[Run]:
        """The rows of all sequences that are read."""
        for source in sources:
            runs = self._runs(source, names)
            if self.time is not None:
                runs = check_order(runs, self._time_name, self._where)
            yield from first_rows(runs, self.first, alone=self.group is None)

    def _plan(self, sources: list[Source]) -> list[tuple[Found, Bounds]]:
        """Every sequence and its splits, by a first pass that counts rows."""
        found = [each for source in sources for each in self._survey(source)]
        if self.split == "tail":
            return [(each, bounds(each.length, self.valid, self.test)) for each in found]
        places = bounds(len(found), self.valid, self.test)
        owners = [next(split for split, end in places if i < end) for i in range(len(found))]
        return [(each, [(split, each.length)]) for split, each in zip(owners, found, strict=True)]

    def _survey(self, source: Source) -> list[Found]:
        """The sequences of a source; finds out whether its groups have to be gathered."""
        lengths: list[int] = []
        names = [] if self.group is not None or self.time is not None else self._values[:1]
        for run in self._runs_of([source], names):
            if run.begins:
                if run.rows["sequence"][0] != len(lengths):
                    source.comes_back = int(run.rows["number"][0])
                    return self._survey(source)
                lengths.append(0)
            lengths[-1] += len_of(run.rows)
        groups = list(source.groups) if self.group is not None else [""] * len(lengths)
        return [Found(*pair) for pair in zip(groups, lengths, strict=True)]


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
