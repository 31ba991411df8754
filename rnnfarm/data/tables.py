"""Tables of figures as sequences: the rows are the steps, read in blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rnnfarm.data.external_sort import Block, len_of, take
from rnnfarm.data.manifest import Column
from rnnfarm.data.reader import Sequence
from rnnfarm.data.table_labels import NO_LABEL
from rnnfarm.data.table_plan import TablePlan
from rnnfarm.data.table_splits import cut_parts
from rnnfarm.data.tally import Tally
from rnnfarm.data.times import Field as CalendarField
from rnnfarm.data.times import calendar
from rnnfarm.data.window import OBSERVED
from rnnfarm.errors import DataError, JobError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from rnnfarm.data.manifest import Role
    from rnnfarm.data.table_rows import Run
    from rnnfarm.data.table_splits import Found
    from rnnfarm.data.vocabulary import Vocabulary

VALUES = "values"
TARGET = "target"
LABEL = "label"


class TableReader(TablePlan):
    """Base of the readers of tables, whose rows are in the order of time.

    calendar: what the model is told of the column in `time`, of "hour", "weekday", "month" and
    "yearday": the sine and the cosine of each are further values of `values`, after the columns.

    With `calendar`, `categories` or "mask" the dataset has the column `target` also where `target`
    names no columns: the columns of numbers in `values` alone. To forecast only these, take it as
    the target (data.target = "target" in a job, with data.mode = "forecast").
    """

    calendar: list[CalendarField] = []

    _reading: TableReader | None = None  # what reads the rows of a file that is predicted
    _passed_over: list[str] = []  # what is said of sequences that a forecast is not made of
    _lacking: Mapping[str, str] = {}  # which columns that settings name a predicted file has not

    def columns(self) -> dict[str, Column]:
        """`values`; `target` and `label` where there are any; and, where cells may be missing or
        rows are looked back at, `observed` and what else says which of their rows count."""
        if self.calendar and self.time is None:
            raise JobError("setting 'calendar': name the column of dates or times in 'time' too")
        self._check_plan()
        self._learn_columns()
        self._make_plan()
        masked = self.missing == "mask"
        # What a file lacks of the target that the data have is never taken from its inputs.
        more = (masked or self.calendar or self.categories) and "target" not in self._lacking
        self._target = self.target or (self._numeric_values or self._values if more else [])
        names, roles = self._step()
        columns = {VALUES: Column.values(len(names), names=names, roles=roles)}
        if self._target:
            width = len(self._target)
            own = self.target_per == "sequence"
            columns[TARGET] = Column.values(width, own, self._target, ["value"] * width)
        if self.label is not None:
            if not self._labels.size:
                raise DataError(f"column '{self.label}' holds no label; name another in 'label'")
            columns[LABEL] = Column.tokens(self._labels.size, own=self.label_per == "sequence")
        self._made_of = self._target_cells()
        self._flagged = self._flags(self._made_of)
        for name, spoken_of in self._flagged.items():
            columns[name] = Column.flags(spoken_of if len(self._flagged) > 1 else None)
        return columns

    def lacks(self, column: str) -> str | None:
        """Return which column of the file that `inputs` read the target or the label is."""
        of_label = self.label is not None and self.label_per == "row"
        first = "label" if of_label else "target"
        setting = first if column == OBSERVED else column.removesuffix(f":{OBSERVED}")
        name = self._lacking.get(setting)
        return None if name is None else f"has no column '{name}' (setting '{setting}')"

    def _target_cells(self) -> dict[str, list[str]]:
        """Return, for each column with a target for every row, what that is made of."""
        found: dict[str, list[str]] = {}
        if self.label is not None and self.label_per == "row":
            found[LABEL] = [self.label]
        if self._target and self.target_per == "row":
            found[TARGET] = self._target
        return found | {VALUES: self._values}

    def _flags(self, cells: dict[str, list[str]]) -> dict[str, list[str]]:
        """Return the columns of flags, each with the columns whose targets count where it is 1.

        cells: what `_target_cells` gives.

        The first is `observed`; a column that counts at other rows has a further one. A file that
        is read for a run has one for each column: it may lack some of those that the data had.
        """
        if self._recalls:
            flags = {OBSERVED: list(cells)} | {f"{name}:{OBSERVED}": [name] for name in cells}
            return {flag: names for flag, names in flags.items() if not self.lacks(flag)}
        if self.missing != "mask":
            return {OBSERVED: list(cells)} if self.lookback else {}
        alike: dict[tuple[str, ...], list[str]] = {}
        for name, made_of in cells.items():
            alike.setdefault(tuple(sorted(made_of)), []).append(name)
        first, *others = alike.values()
        return {OBSERVED: first} | {f"{names[0]}:{OBSERVED}": names for names in others}

    def vocabularies(self) -> dict[str, Vocabulary]:
        """The labels, where there are any."""
        return {} if self.label is None else {LABEL: self._labels}

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
        own = self.target_per == "sequence"
        names = list(dict.fromkeys([*self._values, *([] if own else self._target)]))
        plan = iter(self._planned)
        for source in self._sources:
            for run in self._runs_of(source, names, Tally(), checked=True):
                if run.begins:
                    (found, parts), position = next(plan), 0
                    gaps = Gaps(len(names))
                rows = self._rows_of(names, run, gaps)
                for split, part, continues, context in cut_parts(parts, position, len_of(rows)):
                    piece = take(rows, part)
                    if self.lookback:
                        for flag in self._flagged:
                            piece[flag] = piece[flag].copy()
                            piece[flag][:context] = 0
                    if not continues:
                        piece |= self._own(found)
                    number = int(run.rows["number"][part.start])
                    name = found.name if self.group is not None else ""
                    yield Sequence(split, piece, continues, self._origin_of(number, name))
                position += len_of(rows)

    def _own(self, found: Found) -> Block:
        """What a sequence has of its own."""
        own: Block = {}
        label = NO_LABEL if found.label == NO_LABEL else int(self._label_ids[found.label])
        if label != NO_LABEL:
            own[LABEL] = np.array([label])
        if found.target is not None and not np.isnan(found.target).any():
            own[TARGET] = found.target[None]
        return own

    def learned(self) -> dict[str, Any]:
        """Return how each column is read, and the step in time where gaps are treated."""
        step = self._step_in_time
        return super().learned() | ({} if step is None else {"every": str(step)})

    def notes(self) -> list[str]:
        """What the columns were taken for, and what was done with the rows of the table."""
        if self._reading is not None:
            return self._reading.notes() + self._passed_over
        rows = [note for source in self._sources for note in self._notes_on(source)]
        return super().notes() + rows + self._noted.notes()

    def inputs(self, path: Path) -> Iterator[Sequence]:
        """All rows of one file; without the column `target` where it lacks one of its columns."""
        known = set(self._names(path))
        needed = {"target": self.target, "label": [] if self.label is None else [self.label]}
        missing = {
            key: [name for name in names if name not in known] for key, names in needed.items()
        }
        self._lacking = {setting: names[0] for setting, names in missing.items() if names}
        target = [] if "target" in self._lacking else self.target
        settings: dict[str, Any] = {"target": target, "valid": 0.0, "test": 0.0, "first": None}
        settings["label"] = None if "label" in self._lacking else self.label
        whole = ("split", "valid_from", "test_from", "valid_groups", "test_groups", "lookback")
        for name in (*whole, *(() if target else ("target_per",))):
            settings[name] = getattr(type(self), name)
        reader = self._with(files=[str(path)], **settings)
        self._reading = reader
        reader._lacking = self._lacking
        reader.columns()
        return reader.sequences()

    def inputs_to_forecast(self, path: Path) -> Iterator[Sequence]:
        """The rows of one file; with gaps = "split" those after the last gap of each group, as a
        forecast is of what comes after the last row."""
        pieces = self.inputs(path)
        if self.gaps != "split" or self._reading is None:
            return pieces
        found = [each for each, _ in self._reading._planned]
        last = {each.name: place for place, each in enumerate(found)}
        if before := len(found) - len(last):
            first = next(n for n, each in enumerate(found) if last[each.name] > n)
            row = self._reading._where(found[last[found[first].name]].number)
            left_out = "1 sequence is" if before == 1 else f"{before:,} sequences are"
            self._passed_over = [
                f"{left_out} left out, as a forecast is of what comes after the last row, and these"
                f" are before the last gap in time (the first: before {row})"
            ]
        return _picked(pieces, set(last.values()))

    def _rows_of(self, names: list[str], run: Run, gaps: Gaps) -> Block:
        """The dataset's columns of some rows, from the cells of the columns `names`."""
        cells, there = run.rows["cells"], None
        if self.missing == "mask":
            there = ~np.isnan(cells)
            cells = gaps.fill(cells, there)
        places = {name: place for place, name in enumerate(names)}
        values = [places[name] for name in self._values]
        parts = [cells[:, values]]
        if self.calendar:
            local = run.rows["local"].view("datetime64[us]")
            parts.append(calendar(local, self.calendar))
        if there is not None:
            parts.append(there[:, values].astype(np.float32))
        rows: Block = {VALUES: np.concatenate(parts, axis=1)}
        if self._target and self.target_per == "row":
            rows[TARGET] = cells[:, [places[name] for name in self._target]]
        labelled = np.ones(len(cells), np.bool_)
        if self.label is not None and self.label_per == "row":
            labels = np.append(self._label_ids, NO_LABEL)[run.rows["label"]]
            labelled = labels != NO_LABEL
            if labelled.all() or self.missing == "mask":
                rows[LABEL] = np.where(labelled, labels, 0)
        for flag, (column, *_) in self._flagged.items():
            seen = labelled
            if column != LABEL and there is not None:
                seen = np.all(there[:, [places[name] for name in self._made_of[column]]], axis=1)
            rows[flag] = seen.astype(np.uint8)
        return rows


def _picked(pieces: Iterator[Sequence], kept: set[int]) -> Iterator[Sequence]:
    """The pieces of the sequences with these numbers."""
    number = -1
    for piece in pieces:
        number += not piece.continues
        if number in kept:
            yield piece


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
