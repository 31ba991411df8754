"""What the sequences of a table are, and which split their rows are in: a first pass over it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from rnnfarm.data.external_sort import Block, len_of
from rnnfarm.data.table_labels import MOST_LABELS, NO_LABEL, Belonging, vocabulary_of
from rnnfarm.data.table_notes import PlanNotes
from rnnfarm.data.table_rows import Run, Source, TableRows, first_rows
from rnnfarm.data.table_splits import Found, How, Part, Splits
from rnnfarm.data.tally import Tally
from rnnfarm.data.time_gaps import Duplicates, Gaps, treat_duplicates, treat_gaps
from rnnfarm.data.time_steps import Differences, Step, parse_step
from rnnfarm.data.timeline import check_order
from rnnfarm.errors import DataError, JobError, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

REGULAR = 0.5  # the least share of all that the most frequent step has where gaps are treated


class TablePlan(TableRows):
    """Base of what divides the rows of a table into sequences and splits.

    first: how many rows of each sequence are read, from its first on (by default all).

    duplicates: what becomes of rows of a sequence with equal times: "keep" leaves them as they are,
    "error" refuses them, and "first", "last" and "mean" make one row of them.

    gaps: what becomes of a gap in time, which is more than a step between two rows of a sequence:
    "keep" leaves it as it is, "error" refuses it, "split" begins a new sequence after it, and
    "fill" (with missing = "mask") puts rows without values there.

    every: the step in time, as "15min", "1h", "1d", "1 month"; by default the most frequent one.

    label_per: whether the label is one for a whole "sequence", or one for each "row".

    target_per: whether `target` is one for a whole "sequence", or one for each "row".

    valid, test: the parts for validation and test, from 0 to 1; see `split`.

    split: what the parts for validation and test are: the "tail" of each sequence, the last ones
    of all sequences ("sequence"), or groups that a hash of their names picks ("group"), of each
    label about the same part; of 20 groups or more each stays where it is as others come. By
    default "tail", and "group" where labels or targets are one for a whole sequence.

    valid_from, test_from: the dates from which on rows are for validation and for test, in place of
    `valid` and `test`.

    valid_groups, test_groups: the groups for validation and test, in place of `valid` and `test`.

    lookback: how many rows before their own the parts for validation and test begin with; a model
    reads these, and they do not count as targets, which the column `observed` says.
    """

    first: Annotated[int, Field(ge=1)] | None = None
    duplicates: Duplicates = "keep"
    gaps: Gaps = "keep"
    every: str | None = None
    label_per: Literal["sequence", "row"] = "sequence"
    target_per: Literal["sequence", "row"] = "row"
    valid: Annotated[float, Field(ge=0, lt=1)] = 0.1
    test: Annotated[float, Field(ge=0, lt=1)] = 0.0
    split: How | None = None
    valid_from: str | None = None
    test_from: str | None = None
    valid_groups: list[str] = []
    test_groups: list[str] = []
    lookback: Annotated[int, Field(ge=0)] = 0

    @property
    def _owns(self) -> bool:
        """Whether a sequence has something of its own to be learned."""
        labelled = self.label is not None and self.label_per == "sequence"
        return labelled or (bool(self.target) and self.target_per == "sequence")

    def _complete(self, column: str) -> bool:
        """Whether every row must have what a column of the dataset is read from."""
        return self.missing == "error" and self._needs(column)

    def _check_plan(self) -> None:
        """JobError for settings that contradict each other."""
        for setting, unset in (
            ("sort", False),
            ("duplicates", "keep"),
            ("gaps", "keep"),
            ("every", None),
        ):
            if getattr(self, setting) != unset and not self.time:
                raise JobError(f"setting '{setting}': name the column of times in 'time' too")
        if self.gaps == "fill" and self.missing != "mask":
            raise JobError(
                "setting 'gaps': rows that are filled in have no values; set missing = 'mask'"
            )
        if self.every is not None:
            parse_step(self.every)
        if self.target_per == "sequence" and not self.target:
            raise JobError("setting 'target_per': name the columns of the target in 'target' too")
        if self._owns and self.split == "tail":
            raise JobError(
                "setting 'split': a label or target of a whole sequence cannot be in two parts;"
                " leave the setting out"
            )
        self._splits = Splits(
            self.valid,
            self.test,
            self.split
            or ("group" if self._owns and not self.valid_from and not self.test_from else "tail"),
            _date(self.valid_from, "valid_from"),
            _date(self.test_from, "test_from"),
            tuple(self.valid_groups),
            tuple(self.test_groups),
            self.lookback,
        )
        self._splits.check(self.group, self.time)

    def _make_plan(self) -> None:
        """Find all sequences, and divide them into splits: `_planned`; and the `_labels`."""
        self._sources = self._find_sources()
        self._label_codes = {}
        for source in self._sources:
            self._look_for_mixed(source)
        self._step_in_time = self._find_step()
        self._noted = PlanNotes(self, self._where)
        found = [each for source in self._sources for each in self._survey(source)]
        self._labels, self._label_ids = vocabulary_of(
            self._label_codes, self._recalled_vocabularies.get("label")
        )
        usable = [each for each in found if not self._lacks_own(each)]
        self._check_usable(found, usable)
        parts = dict(zip(map(id, usable), self._splits.plan(usable), strict=True))
        self._planned: list[tuple[Found, list[Part]]] = [(e, parts.get(id(e), [])) for e in found]
        self._noted.left_out(self._planned)
        if not self._recalled:
            self._noted.plan(self._planned, self._labels, self._label_ids)

    def _check_usable(self, found: list[Found], usable: list[Found]) -> None:
        """DataError where no sequence of a file has what its answers are measured by."""
        if self._recalled and found and not usable:
            raise DataError(
                f"{self._where(found[0].number)}: from here on, no sequence has the label or target"
                " that answers are measured by; give a file that has them"
            )

    def _lacks_own(self, found: Found) -> bool:
        """Whether a sequence lacks the label or target that it should have."""
        label = self.label is not None and self.label_per == "sequence" and self._needs("label")
        if label and found.label == NO_LABEL:
            return True
        target = bool(self.target) and self.target_per == "sequence" and self._needs("target")
        return target and (found.target is None or bool(np.isnan(found.target).any()))

    def _runs_of(
        self, source: Source, names: list[str], tally: Tally, *, checked: bool = False
    ) -> Iterator[Run]:
        """The rows of a source, sequence after sequence, as they are read; `checked`: they have
        been read before, and found to be in order."""
        runs = self._runs_in_time(source, names, tally, checked)
        if self._step_in_time is not None:
            runs = treat_gaps(runs, self.gaps, self._step_in_time, tally, self._where)
        alone = self.group is None and self.gaps != "split"
        return first_rows(runs, self.first, alone, tally)

    def _runs_in_time(
        self, source: Source, names: list[str], tally: Tally, checked: bool = False
    ) -> Iterator[Run]:
        """The rows of a source in the order of time, where they have one."""
        runs = self._runs(source, names)
        if self.time and not checked:
            runs = check_order(runs, self._time_name, self._where)
        if self.time and not (checked and self.duplicates in ("keep", "error")):
            runs = treat_duplicates(runs, self.duplicates, tally, self._where)
        return runs

    def _find_step(self) -> Step | None:
        """The step by which gaps are treated, None where they are kept."""
        if not self.time or self.gaps == "keep":
            return None
        if given := self.every or self._recalled.get("every"):
            return parse_step(given)
        differences = Differences()
        for source in self._sources:
            for run in self._runs_in_time(source, [], Tally()):
                differences.add(run.rows, run.begins)
        found = differences.step()
        if found is not None and found[1] < REGULAR:
            raise JobError(
                f"setting 'gaps': the rows are at no regular steps (the most frequent, {found[0]},"
                f" is {found[1]:.0%} of all); say in 'every' what a step is"
            )
        return None if found is None else found[0]

    def _survey(self, source: Source) -> Iterator[Found]:
        """The sequences of a source."""
        tally = self._noted.tally
        if self.target_per == "sequence":
            names = list(self.target)
        else:
            names = [] if self.group is not None or self.time else self._values[:1]
        found: Found | None = None
        begun: list[tuple[int, Found]] = []
        for run in self._runs_of(source, names, tally):
            if run.begins or found is None:
                found = Found("", int(run.rows["number"][0]))
                begun.append((int(run.rows["sequence"][0]), found))
            self._add(found, run.rows)
            if self.time and self.gaps == "keep":
                self._noted.differences.add(run.rows, run.begins)
        groups = list(source.groups) or [self._file_name(source)]
        for sequence, each in begun:
            each.name = groups[sequence]
        return iter([each for _, each in begun])

    def _file_name(self, source: Source) -> str:
        """What stands for a group's name where there are none."""
        return "" if len(source.files) != 1 else source.files[0].name

    def _add(self, found: Found, rows: Block) -> None:
        """Take further rows of a sequence into account."""
        found.length += len_of(rows)
        for split, date in self._splits.dates.items():
            found.before[split] = found.before.get(split, 0) + int((rows["local"] < date).sum())
        if self.label is not None:
            self._add_label(found, rows, self.label)
        if self.target_per == "sequence":
            self._add_target(found, rows)

    def _add_label(self, found: Found, rows: Block, column: str) -> None:
        if len(self._label_codes) > MOST_LABELS:
            raise DataError(
                f"{self._where(int(rows['number'][0]))}: there are more than {MOST_LABELS:,} labels"
                f" in column '{column}' by here; name another column in 'label', or take numbers as"
                " a 'target'"
            )
        labels = rows["label"]
        if "label" in self._expected:
            self._check_known(labels, rows, column)
        fix = "fix the row, or set label_per = 'row' where each row has a label of its own"
        needed = self._complete("label")
        rule = Belonging(column, self._where, needed=needed, fix=fix)
        if self.label_per == "sequence":
            known = None if found.label == NO_LABEL else found.label
            known = rule.add(known, labels, labels != NO_LABEL, rows)
            found.label = NO_LABEL if known is None else int(known)
        else:
            rule.add(None, np.zeros(len(labels)), labels != NO_LABEL, rows)

    def _check_known(self, labels: npt.NDArray[np.int64], rows: Block, column: str) -> None:
        """DataError for a label that was not there when the data were built."""
        known = self._recalled_vocabularies["label"]
        _, ids = vocabulary_of(self._label_codes, known)
        wrong = (labels != NO_LABEL) & (np.append(ids, NO_LABEL)[labels] == NO_LABEL)
        if wrong.any():
            at = int(np.argmax(wrong))
            label = list(self._label_codes)[int(labels[at])]
            raise DataError(
                f"{self._where(int(rows['number'][at]))}: column '{column}' has the label"
                f" '{label}', which the run's data had not; correct it"
                f" ({suggestion(label, known.index)})"
            )

    def _add_target(self, found: Found, rows: Block) -> None:
        target = found.target
        if target is None:
            target = np.full(len(self.target), np.nan, np.float32)
        fix = "fix the row, or set target_per = 'row' where each row has a target of its own"
        for at, column in enumerate(self.target):
            needed = self._complete("target")
            rule = Belonging(column, self._where, needed=needed, fix=fix)
            known = None if np.isnan(target[at]) else target[at]
            cells = rows["cells"][:, at]
            known = rule.add(known, cells, ~np.isnan(cells), rows)
            target[at] = np.nan if known is None else known
        found.target = target


def _date(text: str | None, setting: str) -> np.datetime64 | None:
    """A date or time that a setting gives."""
    if text is None:
        return None
    try:
        found = np.datetime64(text.strip())
    except ValueError:
        found = np.datetime64("NaT")
    if np.isnat(found):
        raise JobError(
            f"setting '{setting}': '{text}' is no date; write it as 2020-12-31 or"
            " 2020-12-31 23:59:59"
        )
    return found
