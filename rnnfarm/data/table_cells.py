"""The cells of a table: what its columns are, and their values and times in blocks of rows."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rnnfarm.data.cells import PLAIN, NumberFormat
from rnnfarm.data.column_rules import ColumnRule
from rnnfarm.data.inputs import FilePattern
from rnnfarm.data.read_cells import WrongCell, as_keys, one_hot, problem_of, read_cells
from rnnfarm.data.reader import Reader
from rnnfarm.data.table_survey import TableSurvey, survey_table
from rnnfarm.data.time_formats import check_format
from rnnfarm.data.times import Clock, TimeRule, Unit, WrongTime, check_zone, joined
from rnnfarm.errors import DataError, JobError, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rnnfarm.data.row_numbers import RowNumbers
    from rnnfarm.data.vocabulary import Vocabulary

#: The columns of a block that hold the rows' times, as timestamps without a zone: as a clock of the
#: place shows them, and in UTC, which alone can be put in order.
LOCAL, INSTANT = "\0local", "\0instant"


class TableCells(Reader):
    """Base of what reads tables: the cells of their columns, whatever the kind of file.

    files: the files, by glob patterns.

    values: the columns that make up `values`; by default every column of numbers or truth values
    that is not named otherwise.

    categories: columns of categories, each of which is a further value of `values`: 1 where the
    row has it, else 0. With `model.input.kind = "linear"` their weights are an embedding. A
    category that was not there when the data were built is 0 in all.

    target: the columns of `target`, where there is one.

    label: a column of labels, for classification.

    time: a column of dates or times, in whose order the rows of a sequence must be, or a column of
    dates and one of times of day. How they are written is found out from all rows.

    time_format: how times are written, as `strptime` has it, where the rows leave it open.

    time_unit: what numbers in `time` count since 1970, where their size leaves it open.

    time_zone: the zone of times that have no offset from UTC, and that the calendar goes by, as
    "Europe/Berlin". Without it, times without an offset are read as they are.

    missing: what becomes of a cell without a value. With "error" it is refused. With "mask" it gets
    the last value of its column in the sequence, 0 before the first one. Then each value in
    `values` has a further one, after all others, in the same order: 1 where its cell has a
    value, and 0 where not. And the dataset has the column `observed`: 1 where the step has a
    target, which is a label with `label_per = "row"`, else a value in all columns of `target`, or
    of `values` where `target` names no columns; and 0 where not. Where other columns of the dataset
    have their targets at other steps, `target:observed` and `values:observed` say so of them.
    """

    files: list[FilePattern]
    values: list[str] = []
    categories: list[str] = []
    target: list[str] = []
    group: str | None = None
    label: str | None = None
    time: str | list[str] | None = None
    time_format: str | None = None
    time_unit: Unit | None = None
    time_zone: str | None = None
    missing: Literal["error", "mask"] = "error"

    _found_out: TableSurvey

    @property
    def _times(self) -> list[str]:
        """The columns of the time."""
        return [self.time] if isinstance(self.time, str) else self.time or []

    @property
    def _time_name(self) -> str:
        """What messages call the columns of the time, between quotation marks."""
        return "' and '".join(self._times)

    def _learn_columns(self) -> None:
        """Find the files, and find out how their columns are read, or recall it.

        Sets `_files`; `_values`, what the values of `values` are called; and `_numeric_values`,
        those of them that are no categories.
        """
        self._check_settings()
        self._files = self.find_files(self.files, "files")
        if not self._files:
            raise DataError("setting 'files': all files are empty; give files that hold data")
        self._unseen: dict[str, str] = {}
        self._doubled: dict[Path, int] = {}
        for path in self._files:
            self._check_names(path, self._recalled["values"] if self._recalls else [])
            self._check_kinds(path)
        if self._recalls:
            found = TableSurvey.recall(self._recalled, self.time_zone)
        else:
            found = survey_table(self)
        self._found_out = found
        for path in self._files:
            self._check_types(path, found.rules)
        self._numeric_values = list(found.values)
        self._parts = {
            name: (column, at)
            for column, rule in found.rules.items()
            for at, name in enumerate(rule.names(column))
        }
        self._values = self._numeric_values + [
            name for column in self.categories for name in found.rules[column].names(column)
        ]
        if double := [name for name, count in Counter(self._values).items() if count > 1]:
            raise JobError(
                f"settings 'values' and 'categories': two values are called"
                f" '{double[0]}'; rename a column"
            )

    def recall(self, learned: Mapping[str, Any], vocabularies: Mapping[str, Vocabulary]) -> None:
        """Take how the columns were read; ValueError where that is not what `learned` gives."""
        super().recall(learned, vocabularies)
        if self._recalls:
            TableSurvey.recall(learned, self.time_zone)

    def learned(self) -> dict[str, Any]:
        """Return how each column is read, and which are left out and why."""
        return self._found_out.learned()

    def notes(self) -> list[str]:
        """Return what the columns were taken for; where that is recalled, what else there is."""
        notes = self._others() if self._recalls else self._found_out.notes()
        if doubled := sum(self._doubled.values()):
            notes.append(
                f"{doubled:,} times that occur twice in {self.time_zone}, where the clock"
                " goes back, are taken for the later ones where they come up again"
            )
        return notes + [
            f"column '{name}' has a category that was not there when the data were built"
            f" ({cell!r}); it is read as none of them"
            for name, cell in self._unseen.items()
        ]

    @property
    def _recalls(self) -> bool:
        """Whether an earlier reader has found out how the columns are read."""
        return "columns" in self._recalled

    def _others(self) -> list[str]:
        """Which columns the files have that those of the build had not."""
        found = self._found_out
        named = [name for names in self._named_columns().values() for name in names]
        known = {"", *found.rules, *found.left_out, *named}
        more = [name for path in self._files for name in self._names(path) if name not in known]
        shown = ", ".join(f"'{name}'" for name in dict.fromkeys(more))
        return [f"columns that the run's data had not are not read: {shown}"] if more else []

    def _batches(
        self, path: Path, names: list[str], keys: list[str], time: bool
    ) -> Iterator[pa.RecordBatch]:
        """The rows in blocks: `names` of values as float32, columns `keys` as texts, and, where
        `time` is asked for, LOCAL and INSTANT.

        A cell without a value is null in `names`, where `missing` is "mask", and in `keys`.
        DataError that names the file and the line or row of a cell that is refused, or holds no
        time.
        """
        times = self._times if time else []
        clock = Clock(self._found_out.time or TimeRule(zone=self.time_zone))
        columns = [self._parts[name][0] for name in names] + keys + times
        row = 0
        for batch in self._raw(path, list(dict.fromkeys(columns))):
            read: dict[str, pa.Array] = {}
            fields: dict[str, pa.Array] = {}
            for name in names:
                column, at = self._parts[name]
                if column not in read:
                    read[column] = self._read_column(path, column, batch.column(column), row)
                category = self._found_out.rules[column].kind == "category"
                fields[name] = one_hot(read[column], at) if category else read[column]
            fields |= {key: as_keys(batch.column(key)) for key in keys}
            if time:
                groups = [fields[key] for key in keys if key == self.group]
                try:
                    moments = clock.read(joined([batch.column(name) for name in times]), groups)
                except WrongTime as error:
                    raise self._wrong_time(path, row, error) from None
                fields |= {LOCAL: pa.array(moments.local), INSTANT: pa.array(moments.instant)}
            yield pa.RecordBatch.from_pydict(fields)
            row += batch.num_rows
        self._doubled[path] = clock.doubled

    def _read_column(self, path: Path, name: str, cells: pa.Array, row: int) -> pa.Array:
        """The cells of a column as its rule says; DataError for one that is wrong."""
        found = self._found_out
        rule = found.rules[name]
        try:
            read = read_cells(cells, rule, found.format, missing=self.missing == "mask")
        except WrongCell as error:
            mask = self.missing == "mask"
            what = problem_of(error.cell, rule, found.format, mask=mask, texts=self._texts_only)
            raise DataError(
                f"{path}, {self._at(path, row + error.row)}: column '{name}' {what}"
            ) from None
        if rule.kind == "category":
            unseen = pc.equal(read, -1).fill_null(False).to_numpy(zero_copy_only=False)
            if unseen.any():
                self._unseen.setdefault(name, cells[int(np.argmax(unseen))].as_py())
        return read

    def _wrong_time(self, path: Path, row: int, error: WrongTime) -> DataError:
        tip = "; fill it, or drop the row" if error.what == "has no value" else ""
        at = f"{path}, {self._at(path, row + error.row)}"
        return DataError(f"{at}: column '{self._time_name}' {error.what}{tip}")

    def _check_settings(self) -> None:
        """JobError for settings that are wrong whatever the files hold."""
        if self.time_zone is not None:
            check_zone(self.time_zone)
        if self.time_format is not None and (wrong := check_format(self.time_format)):
            raise JobError(f"setting 'time_format': {wrong}")
        for setting in ("time_format", "time_unit", "time_zone"):
            if getattr(self, setting) is not None and not self._times:
                raise JobError(f"setting '{setting}': name the column of times in 'time' too")
        if self.time_format is not None and self.time_unit is not None:
            raise JobError("settings 'time_format' and 'time_unit': leave one out")
        named = self._named_columns()
        for first, second in (
            ("group", "values"), ("group", "target"), ("time", "values"), ("time", "target"),
            ("categories", "values"), ("categories", "target"), ("label", "values"),
            ("label", "target"), ("label", "categories"),
        ):  # fmt: skip
            if both := [name for name in named[first] if name in named[second]]:
                raise JobError(
                    f"settings '{first}' and '{second}': both name the column '{both[0]}'; leave"
                    " it out of one"
                )

    def _named_columns(self) -> dict[str, list[str]]:
        """The columns that each setting names."""
        return {
            "values": self.values,
            "categories": self.categories,
            "target": self.target,
            "group": [] if self.group is None else [self.group],
            "label": [] if self.label is None else [self.label],
            "time": self._times,
        }

    def _check_names(self, path: Path, recalled: list[str]) -> None:
        """An error where a file lacks a column, or has it twice; `recalled`: what the values were
        when the data were built."""
        known = Counter(self._names(path))
        for setting, names in self._named_columns().items():
            for name in names:
                self._check_name(path, name, known, f" (setting '{setting}')")
        if not self.values:
            for name in recalled:
                self._check_name(path, name, known, ", which the run's data have")

    def _check_name(self, path: Path, name: str, known: Counter[str], why: str) -> None:
        if name not in known:
            raise JobError(f"{path}: has no column '{name}'{why}; {suggestion(name, known)}")
        if known[name] > 1:
            raise DataError(f"{path}: has {known[name]} columns '{name}'; rename all but one")

    def _check_kinds(self, path: Path) -> None:
        """JobError where a column cannot tell sequences apart, or be the time."""

    def _check_types(self, path: Path, rules: Mapping[str, ColumnRule]) -> None:
        """JobError for a column whose type in this file is not what it is read as."""

    def _formats(self) -> list[NumberFormat]:
        """What the numbers of texts may look like, in the order in which they are tried."""
        return [PLAIN]

    #: Whether all cells are texts, which may be numbers.
    _texts_only = False

    @property
    def _comma_separated(self) -> bool:
        """Whether commas separate cells, so that numbers hardly have decimal commas."""
        return False

    @abstractmethod
    def _names(self, path: Path) -> list[str]:
        """The columns of a file, empty for one that has no name."""

    @abstractmethod
    def _raw(self, path: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
        """Columns of a file in blocks of rows, null where there is no value; texts have no blanks
        around them."""

    @abstractmethod
    def _at(self, path: Path, row: int) -> str:
        """Where a file's row is, counted from 0: "line 3", or "row 2"."""

    @abstractmethod
    def _numbers(self, path: Path, rows: int) -> RowNumbers:
        """The numbers of the lines or rows of a file at which its rows begin, of which it has
        `rows`."""
