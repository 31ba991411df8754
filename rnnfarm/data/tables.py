"""Tables of figures as sequences: the rows are the steps, read in blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from rnnfarm.data.external_sort import len_of
from rnnfarm.data.inputs import FilePattern, bounds, cut
from rnnfarm.data.lines import leave_something
from rnnfarm.data.manifest import Column
from rnnfarm.data.reader import Sequence
from rnnfarm.data.table_rows import Run, Source, TableRows, first_rows
from rnnfarm.data.timeline import check_order
from rnnfarm.data.times import Field as CalendarField
from rnnfarm.data.times import calendar
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


class Found(NamedTuple):
    """A sequence, as a first pass over a table finds it: its name, and its number of rows."""

    name: str
    length: int


class TableReader(TableRows):
    """Base of the readers of tables, whose rows are in the order of time.

    files: the files, by glob patterns; values: the columns that make up `values` (by default every
    column of numbers that is not named otherwise); target: the columns of `target`, where there is
    one; first: how many rows of each sequence are read, from its begin (by default all);
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
    join: bool | None = None
    first: Annotated[int, Field(ge=1)] | None = None
    time: str | None = None
    sort: bool = False
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
        self._check_order()
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
        """What was done with the rows of the table."""
        return [
            note for source in self.__dict__.get("_sources", []) for note in self._notes_on(source)
        ]

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
                runs = check_order(runs, self.time, self._where)
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
