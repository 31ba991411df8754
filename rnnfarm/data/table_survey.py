"""A first pass over a table's files, which finds out how each of its columns is read."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, Field

from rnnfarm.data.cells import PLAIN, NumberFormat
from rnnfarm.data.column_rules import (
    MOST_CATEGORIES,
    SUGGESTED,
    ColumnRule,
    categories_of,
    choose_format,
    misread,
    remarks,
    rule_of,
)
from rnnfarm.data.survey import ColumnSurvey
from rnnfarm.data.time_search import TimeSearch
from rnnfarm.data.times import TimeRule, joined
from rnnfarm.errors import DataError, JobError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rnnfarm.data.table_cells import TableCells

PANDAS_INDEX = "__index_level_"
_PLURALS = {
    "^it has": "they have", "^it holds": "they hold", "^it is": "they are", "^its": "their",
    "name it": "name them", "read it": "read them",
}  # fmt: skip
_SHOWN = 20  # names that a note lists


class _Learned(BaseModel):
    """What `TableSurvey.learned` gives, read back from a manifest."""

    values: list[str]
    columns: dict[str, ColumnRule]
    decimal: Literal[".", ","]
    thousands: Annotated[str, Field(max_length=1)]
    left_out: dict[str, str]
    time: TimeRule | None = None
    every: str | None = None


@dataclass
class TableSurvey:
    """How the columns of a table are read.

    Attributes:
        values: the columns of numbers and truth values that make up `values`, in order.
        rules: how each column that is read is read, those of `target` and `categories` too.
        format: how its numbers are written.
        time: how its times are written, None without a column of times.
        left_out: the columns that are not read, and why.
        remarks: what else there is to say, a sentence each.
    """

    values: list[str]
    rules: dict[str, ColumnRule]
    format: NumberFormat = PLAIN
    time: TimeRule | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def learned(self) -> dict[str, Any]:
        """Return it as JSON has it, for `recall`."""
        learned: dict[str, Any] = {
            "values": self.values,
            "columns": {name: rule.learned() for name, rule in self.rules.items()},
            "decimal": self.format.decimal,
            "thousands": self.format.thousands,
            "left_out": self.left_out,
        }
        if self.time is not None:
            learned["time"] = self.time.learned()
        return learned

    @classmethod
    def recall(cls, learned: Mapping[str, Any], zone: str | None) -> Self:
        """Return what `learned` gave for the files of a build; `zone`: the setting 'time_zone'.

        ValueError where it is something else.
        """
        known = _Learned.model_validate(learned)
        form = NumberFormat(known.decimal, known.thousands)
        time = None if known.time is None else replace(known.time, zone=zone)
        if missing := [name for name in known.values if name not in known.columns]:
            raise ValueError(f"there is no rule for the column {missing[0]!r}")
        return cls(known.values, known.columns, form, time, known.left_out)

    def notes(self) -> list[str]:
        """Return what was found out, a sentence each."""
        notes = [f"values: {_listed(self.values)}"] if self.values else []
        for reason in dict.fromkeys(self.left_out.values()):
            names = [name for name, why in self.left_out.items() if why == reason]
            one = len(names) == 1
            named = f"column {_quoted(names)} is" if one else f"columns {_quoted(names)} are"
            notes.append(f"{named} left out: {reason if one else _of_several(reason)}")
        truths = [name for name, rule in self.rules.items() if rule.kind == "truth"]
        if truths:
            notes.append(f"true and yes are read as 1, false and no as 0: {_listed(truths)}")
        notes += [
            f"column '{name}' has the unit '{rule.unit}', which is left out of its numbers"
            for name, rule in self.rules.items() if rule.unit
        ]  # fmt: skip
        if str(self.format):
            notes.append(f"numbers are read with {self.format}")
        if self.time is not None and self.time.unit is not None:
            notes.append(f"times are read as numbers that count since 1970 ({self.time.unit})")
        elif self.time is not None and self.time.format != "ISO 8601":
            notes.append(f"times are read as '{self.time.format}'")
        return notes + self.remarks


def survey_table(table: TableCells) -> TableSurvey:
    """Look at all cells of a table that matter, and decide how its columns are read."""
    names = table._names(table._files[0])
    wanted = [*table.values, *table.target, *table.categories]
    if not table.values:
        _refuse_doubles(table._files[0], names)
        others = {*wanted, table.group, table.label, *table._times}
        wanted += [name for name in names if name not in others]
        once = Counter(names)
        wanted = [name for name in wanted if once[name] == 1]
    surveys = {name: _column(table, name) for name in dict.fromkeys(wanted)}
    search = TimeSearch()
    _look(table, surveys, search)
    numeric = [s for name, s in surveys.items() if name not in table.categories]
    with _naming(table):
        form, said = choose_format(numeric, table._formats(), commas=table._comma_separated)
    found = TableSurvey([], {}, form, remarks=said)
    rest = surveys.keys() - {*table.target, *table.categories}
    for name in table.values or [name for name in names if name in rest]:
        _decide(table, found, surveys[name])
    if not found.values and not table.categories:
        raise _nothing(table, found)
    for name in table.target:
        rule = _rule(table, surveys[name], form, named=True)
        if isinstance(rule, str):
            raise _not_numbers(table, "target", name, rule)
        found.rules[name] = rule
    for name in table.categories:
        with _naming(table):
            found.rules[name] = categories_of(surveys[name])
    used = {*found.rules, *found.left_out, table.group, table.label, *table._times}
    found.left_out |= {n: "'values' does not name it" for n in names if n not in used}
    for name, rule in found.rules.items():
        found.remarks += remarks(surveys[name]) if rule.kind == "number" else []
    if table._times:
        found.time = _time_rule(table, search)
    return found


def _column(table: TableCells, name: str) -> ColumnSurvey:
    distinct = MOST_CATEGORIES if name in table.categories else SUGGESTED
    return ColumnSurvey(name, table._formats(), distinct)


def _look(table: TableCells, surveys: Mapping[str, ColumnSurvey], search: TimeSearch) -> None:
    """One pass over all files."""
    rows = 0
    for path in table._files:
        known = table._names(path)
        once = Counter(known)
        here = [name for name in surveys if once[name] == 1]
        row = 0
        columns = [*here, *table._times] or known[:1]  # one at least, to count the rows
        for batch in table._raw(path, list(dict.fromkeys(columns))):
            for name in here:
                surveys[name].see(batch.column(name), row)
            if table._times and table.time_format is None and table.time_unit is None:
                search.see(joined([batch.column(name) for name in table._times]))
            row += batch.num_rows
        rows += row
    if not rows:
        raise DataError(f"{table._files[0]}: holds no data, only the names of its columns")


def _decide(table: TableCells, found: TableSurvey, survey: ColumnSurvey) -> None:
    """Take a column as one of the values, or leave it out."""
    name, named = survey.name, survey.name in table.values
    rule = _rule(table, survey, found.format, named=named)
    if isinstance(rule, str):
        if named:
            raise _not_numbers(table, "values", name, rule)
        if survey.odd and len(table._formats()) == 1 and misread(survey, found.format):
            path = table._files[0]
            at = f", {table._at(path, survey.odd[1])}" if len(table._files) == 1 else ""
            raise JobError(
                f"{path}{at}: column '{name}' has no number with {found.format} in"
                f" '{survey.odd[0]}'; correct those settings, or name columns in 'values'"
            )
        found.left_out[name] = rule
    elif not named and name.startswith(PANDAS_INDEX):
        found.left_out[name] = "it is the index that pandas writes; name it in 'values' to read it"
    elif not named and name in ("", "Unnamed: 0") and survey.stats.counts:
        found.left_out[name] = "it counts the rows, as the index that pandas writes does"
    elif not name:
        found.left_out[name] = "it has no name; give it one in the line of names to read it"
    else:
        found.values.append(name)
        found.rules[name] = rule


def _rule(
    table: TableCells, survey: ColumnSurvey, form: NumberFormat, *, named: bool
) -> ColumnRule | str:
    return rule_of(survey, form, named=named, texts=table._texts_only)


def _not_numbers(table: TableCells, setting: str, name: str, reason: str) -> JobError:
    return JobError(
        f"{table._files[0]}: column '{name}' (setting '{setting}') holds no numbers: {reason}"
    )


def _nothing(table: TableCells, found: TableSurvey) -> JobError:
    reasons = [f"'{name}': {why}" for name, why in [*found.left_out.items()][:3]]
    said = f" ({'; '.join(reasons)})" if reasons else ""
    return JobError(
        f"{table._files[0]}: has no column of numbers to read{said}; name columns in the setting"
        " 'values'"
    )


def _refuse_doubles(path: Path, names: list[str]) -> None:
    for name, count in Counter(names).items():
        if name and count > 1:
            raise DataError(f"{path}: has {count} columns '{name}'; rename all but one")


def _time_rule(table: TableCells, search: TimeSearch) -> TimeRule:
    if table.time_format is not None:
        return TimeRule(table.time_format, clock=False, zone=table.time_zone)
    if table.time_unit is not None:
        return TimeRule(unit=table.time_unit, zone=table.time_zone)
    with _naming(table):
        return search.rule(table._time_name, table.time_zone)


@contextmanager
def _naming(table: TableCells) -> Iterator[None]:
    """Let the errors inside name the table's first file."""
    try:
        yield
    except JobError as error:
        raise JobError(f"{table._files[0]}: {error}") from None


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _of_several(reason: str) -> str:
    """Return why a column is left out, as it is said of several."""
    for one, several in _PLURALS.items():
        reason = re.sub(rf"\b{one}\b", several, reason)
    return reason


def _quoted(names: list[str]) -> str:
    return _listed([f"'{name}'" if name else "without a name" for name in names])
