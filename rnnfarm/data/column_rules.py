"""Decides from what the columns of a table hold how each is read, or why it is left out."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rnnfarm.data.cells import FORMATS, PLAIN, POINTS_GROUP, NumberFormat
from rnnfarm.data.survey import EXACT, ColumnSurvey, is_category, is_number
from rnnfarm.data.times import is_stamp, is_text
from rnnfarm.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Iterable

Kind = Literal["number", "truth", "category"]

MOST_CATEGORIES = 1000
SUGGESTED = 50  # so many different texts, or fewer, may well be categories
_MANY = 0.01  # the part of all changes whose loss is worth a note
_COARSE = 1000  # steps of float32 within the range of a column, of which fewer are worth a note
_SECONDS = (3e8, 4.2e9)  # since 1970: 1979 to 2103


@dataclass(frozen=True)
class ColumnRule:
    """How the cells of a column are read.

    Attributes:
        kind: as numbers, as truth values (0 and 1), or as categories (0 and 1 for each).
        unit: what comes after each number.
        categories: the categories, in the order of their values.
    """

    kind: Kind = "number"
    unit: str = ""
    categories: list[str] = field(default_factory=list)

    def learned(self) -> dict[str, Any]:
        """Return the rule as JSON has it."""
        return {key: value for key, value in asdict(self).items() if value}

    def names(self, column: str) -> list[str]:
        """Return what the values of the column are called."""
        if self.kind != "category":
            return [column]
        return [f"{column}={category}" for category in self.categories]


def choose_format(
    surveys: Iterable[ColumnSurvey], formats: list[NumberFormat], *, commas: bool
) -> tuple[NumberFormat, list[str]]:
    """Return how numbers are written, and what to say of it: the first format that reads every
    column of numbers.

    JobError where cells as 1,234 can be read in two ways, or as 1.234 where cells are not separated
    by `commas`; where they are, a point is taken for the decimal one.
    """
    texts = [survey for survey in surveys if is_text(survey.kind)]
    best = {survey.name: max(map(survey.numbers, formats)) for survey in texts}
    numeric = [s for s in texts if _mostly(best[s.name], s) and not _mostly(s.truths, s)]
    fitting = [form for form in formats if all(s.numbers(form) == best[s.name] for s in numeric)]
    if not fitting:
        return formats[0], []
    if formats[0] in fitting:
        unclear = _unclear_points(numeric, fitting)
        if unclear and not commas:
            raise _two_meanings(unclear[0].name, str(unclear[0].pointed), ".")
        return formats[0], [_points_note(s) for s in unclear if s.partly_pointed]
    read_alike = len({form.thousands for form in fitting}) == 1  # no cell has a decimal mark
    meanings = {form.decimal for form in fitting if not _needless(form, fitting)}
    if len(meanings) > 1 and not read_alike:
        odd = next(s for s in numeric if s.numbers(formats[0]) < best[s.name])
        assert odd.odd is not None
        raise _two_meanings(odd.name, odd.odd[0], ",")
    return fitting[0], []


def _unclear_points(numeric: list[ColumnSurvey], fitting: list[NumberFormat]) -> list[ColumnSurvey]:
    """Return the columns whose points are all before three digits, where no column tells whether
    they are decimal ones or stand between thousands."""
    if PLAIN not in fitting or POINTS_GROUP not in fitting:
        return []
    return [survey for survey in numeric if survey.pointed is not None]


def _two_meanings(name: str, cell: str, mark: str) -> JobError:
    kind = "comma" if mark == "," else "point"
    return JobError(
        f"column '{name}': a cell as '{cell}' can be a number with thousands separators or with a"
        f" decimal {kind}, and no row tells which; set thousands = '{mark}' or decimal = '{mark}'"
    )


def _points_note(survey: ColumnSurvey) -> str:
    return (
        f"column '{survey.name}' has points only before three digits ('{survey.pointed}'), which"
        " are read as decimal points; set thousands = '.' where they stand between thousands"
    )


def misread(survey: ColumnSurvey, form: NumberFormat) -> bool:
    """Whether a column that is not read has numbers, in another format than that of settings that
    say how thousands are written."""
    if not form.thousands or not survey.texts or survey.numbers(form):
        return False
    texts = pa.array(sorted(survey.texts), pa.string())
    return any(pc.all(other.are_numbers(texts)).as_py() for other in FORMATS)


def _needless(form: NumberFormat, fitting: list[NumberFormat]) -> bool:
    """Whether the same numbers are read without its thousands separators."""
    return bool(form.thousands) and NumberFormat(form.decimal) in fitting


def _mostly(count: int, survey: ColumnSurvey) -> bool:
    """Whether at least half of the cells that say something are among the counted ones."""
    return count > 0 and 2 * count >= survey.present - survey.nothing


def rule_of(
    survey: ColumnSurvey, form: NumberFormat, *, named: bool, texts: bool
) -> ColumnRule | str:
    """Return how a column is read as values, or why it is not.

    named: whether a setting names it; then a unit is taken off. texts: whether all cells of such
    files are texts, so that texts may be numbers.
    """
    if is_text(survey.kind) and not texts:
        return _reason(survey, form)
    if _mostly(survey.numbers(form), survey):
        return ColumnRule()
    if _mostly(survey.truths, survey):
        return ColumnRule("truth")
    if survey.unit and survey.odd is not None and not survey.numbers(form):
        if named:
            return ColumnRule(unit=survey.unit)
        return (
            f"its numbers have the unit '{survey.unit}' ({survey.odd[0]!r}); name it in 'values' to"
            " read them without it"
        )
    if named and is_text(survey.kind):
        return ColumnRule()
    return _reason(survey, form)


def _reason(survey: ColumnSurvey, form: NumberFormat) -> str:
    if not survey.present:
        return "it has no value in any row"
    if is_stamp(survey.kind) or (is_text(survey.kind) and survey.dates and survey.odd):
        example = f" ({survey.odd[0]!r})" if survey.odd else ""
        return f"it holds dates or times{example}; name it in 'time' where they order the rows"
    if not is_text(survey.kind):
        return f"it holds {survey.kind}, not numbers"
    if survey.odd is None:
        return "it holds texts that look like numbers; write them as numbers to read them"
    reason = f"it holds text ({survey.odd[0]!r})"
    if numbers := survey.numbers(form):
        reason += f" in most rows, and numbers in {numbers:,}"
    elif any(_mostly(survey.numbers(other), survey) for other in FORMATS if form != other):
        reason += ", which is no number as the other columns write them"
    elif 1 < len(survey.texts) <= min(SUGGESTED, survey.present // 2):
        reason += (
            "; name it in 'categories' to read it, in 'group' where it says which sequence a row"
            " is of, or in 'label' where it is what a model should tell"
        )
    return reason


def categories_of(survey: ColumnSurvey) -> ColumnRule:
    """Return how a column of categories is read; JobError where it has too many, or none."""
    if not is_category(survey.kind):
        raise JobError(
            f"setting 'categories': column '{survey.name}' holds {survey.kind}, and categories are"
            " texts, whole numbers or truth values; leave it out"
        )
    if len(survey.texts) > MOST_CATEGORIES:
        raise JobError(
            f"setting 'categories': column '{survey.name}' has more than {MOST_CATEGORIES}"
            " different values; leave it out, or put rare ones together"
        )
    if not survey.texts:
        raise JobError(
            f"setting 'categories': column '{survey.name}' has no value in any row; leave it out"
        )
    texts = sorted(survey.texts)
    with suppress(ValueError):  # where they are no whole numbers: in the order of the letters
        texts.sort(key=int)
    return ColumnRule("category", categories=texts)


def remarks(survey: ColumnSurvey) -> list[str]:
    """Return what a user should know of a column that is read as numbers, a sentence each."""
    stats, name = survey.stats, f"column '{survey.name}'"
    found = []
    if survey.present and stats.low == stats.high and is_numeric(survey):
        found.append(f"{name} is the same in every row ({stats.low:.9g})")
    if stats.counts and stats.changes:
        found.append(
            f"{name} counts the rows; where it says nothing else, leave it out of 'values'"
        )
    ordered = stats.rises or re.search("time|date|epoch|stamp", survey.name, re.IGNORECASE)
    if stats.changes and ordered and (unit := _epoch_unit(stats.low, stats.high)):
        found.append(f"{name} looks like a time in {unit} since 1970; name it in 'time'")
    largest = max(abs(stats.low), abs(stats.high))
    if stats.whole and stats.rounded:
        found.append(
            f"{name} has {stats.rounded:,} whole numbers that float32 rounds (up to {largest:.15g};"
            f" above {EXACT:,} it holds only some); take an offset off, or leave it out"
        )
    elif stats.changes and (
        stats.lost > _MANY * stats.changes
        or (stats.high - stats.low) < _COARSE * float(np.spacing(np.float32(largest)))
    ):
        found.append(
            f"{name} changes by less than float32 shows of numbers as large as {largest:.9g} (7"
            f" digits), in {stats.lost:,} of {stats.changes:,} rows by nothing; take an offset off"
        )
    return found


def _epoch_unit(low: float, high: float) -> str | None:
    for factor, name in ((1, "seconds"), (1e3, "milliseconds"), (1e6, "microseconds")):
        if _SECONDS[0] * factor <= low and high <= _SECONDS[1] * factor:
            return name
    return None


def is_numeric(survey: ColumnSurvey) -> bool:
    """Whether a column holds nothing but numbers."""
    return is_number(survey.kind) or (is_text(survey.kind) and survey.odd is None)
