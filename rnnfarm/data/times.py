"""Time stamps of a table's rows, and what a calendar says of them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rnnfarm.data.time_formats import ISO, read_texts
from rnnfarm.errors import JobError, suggestion

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

Field = Literal["hour", "weekday", "month", "yearday"]
Unit = Literal["s", "ms", "us", "ns"]

_YEAR_10000 = 253_402_300_800e6  # in microseconds since 1970

#: After how much each field of the calendar begins anew.
PERIODS: dict[Field, float] = {"hour": 24.0, "weekday": 7.0, "month": 12.0, "yearday": 365.25}


class Moments(NamedTuple):
    """Time stamps (rows,) as datetime64[us].

    local: as a clock of the place shows it, which the calendar goes by; instant: in UTC, which has
    no hour twice, so that the order goes by it. They differ only where an offset or zone is given.
    """

    local: npt.NDArray[Any]
    instant: npt.NDArray[Any]


class WrongTime(Exception):  # noqa: N818  (a reader turns it into an error that names file and line)
    """A cell that is no time: its row in the column, and what is wrong with it."""

    def __init__(self, row: int, what: str) -> None:
        super().__init__(what)
        self.row, self.what = row, what


@dataclass(frozen=True)
class TimeRule:
    """How a column of times is read.

    Attributes:
        format: of texts, in the notation of ``strptime``, or `ISO`.
        clock: whether a time of day may come after what the format says.
        unit: what numbers count since 1970.
        offsets: whether each text has an offset from UTC; None: none has been looked at.
        zone: the zone of times that have no offset, and that the calendar goes by.
    """

    format: str = ISO
    clock: bool = True
    unit: Unit | None = None
    offsets: bool | None = None
    zone: str | None = None

    def learned(self) -> dict[str, Any]:
        """Return what was found out from the files, as JSON has it."""
        if self.unit is not None:
            return {"unit": self.unit}
        return {"format": self.format, "clock": self.clock, "offsets": self.offsets}


class Clock:
    """Reads the times of one file, in blocks of rows."""

    def __init__(self, rule: TimeRule) -> None:
        self.rule = rule
        #: How many local times that occur twice were told apart by the order of the rows.
        self.doubled = 0
        self._seen: dict[Any, int] = {}

    def read(self, column: pa.Array, groups: Sequence[pa.Array] = ()) -> Moments:
        """The times of the next rows; WrongTime for a cell that holds none.

        groups: the columns that tell sequences apart, where a local time occurs twice.
        """
        kind = column.type
        if self.rule.unit is None and not is_text(kind) and not is_stamp(kind):
            column = column.cast(pa.string())  # whole numbers as 20241231
        if is_text(column.type):
            return self._texts(column, groups)
        if self.rule.unit is not None and not is_stamp(kind):
            stamps = epoch(column, self.rule.unit)
            self._check(column, stamps)
            return self._in_zone(stamps, np.zeros(len(stamps), "timedelta64[us]"), groups)
        nothing = column.is_null().to_numpy(zero_copy_only=False)
        if nothing.any():
            raise WrongTime(int(np.argmax(nothing)), "has no value")
        if pa.types.is_timestamp(kind) and kind.tz:
            zoned = column.cast(pa.timestamp("us", self.rule.zone or kind.tz), safe=False)
            return Moments(_microseconds(pc.local_timestamp(zoned)), _microseconds(column))
        stamps = _microseconds(column)
        return self._in_zone(stamps, np.full(len(stamps), np.timedelta64("NaT", "us")), groups)

    def _texts(self, column: pa.Array, groups: Sequence[pa.Array]) -> Moments:
        if self.rule.unit is not None:
            stamps, offset = epoch(column, self.rule.unit), None
        else:
            stamps, offset = read_texts(column, self.rule.format, clock=self.rule.clock)
        wrong = np.isnat(stamps)
        if wrong.any():
            first = int(np.argmax(wrong))
            cell = column[first].as_py()
            what = (
                f"holds no date or time ({cell!r}); {self._example()}" if cell else "has no value"
            )
            raise WrongTime(first, what)
        if offset is None:
            offset = np.zeros(len(stamps), "timedelta64[us]")
        elif self.rule.zone is None and self.rule.offsets is not None:
            differs = np.isnat(offset) == self.rule.offsets
            if differs.any():
                here, there = ("no", "one") if self.rule.offsets else ("an", "none")
                raise WrongTime(
                    int(np.argmax(differs)),
                    f"has {here} offset from UTC, and the cells before have {there}; write all in"
                    " one way, or name the zone of those without one in 'time_zone'",
                )
        return self._in_zone(stamps, offset, groups)

    def _check(self, column: pa.Array, stamps: npt.NDArray[Any]) -> None:
        """WrongTime for a cell of which there is no time."""
        wrong = np.isnat(stamps)
        if wrong.any():
            first = int(np.argmax(wrong))
            cell = column[first].as_py()
            if cell in (None, "") or cell != cell:
                raise WrongTime(first, "has no value")
            raise WrongTime(first, f"holds no date or time ({cell!r}); {self._example()}")

    def _example(self) -> str:
        if self.rule.unit is not None:
            return "write a number, or drop the row"
        if self.rule.format == ISO:
            return "write it as 2020-12-31 or 2020-12-31 23:59:59, or drop the row"
        return f"write it as '{self.rule.format}', as the other rows are, or drop the row"

    def _in_zone(
        self, local: npt.NDArray[Any], offset: npt.NDArray[Any], groups: Sequence[pa.Array]
    ) -> Moments:
        """Moments from local times and their offsets, where they have one."""
        wrong = np.isnat(local)
        if wrong.any():
            raise WrongTime(int(np.argmax(wrong)), "has no value")
        without = np.isnat(offset)
        zone = self.rule.zone
        instants = np.where(without, local, local - offset)
        if zone is None:
            return Moments(local, instants)
        if without.any():
            instants[without] = self._instants(local, without, zone, groups)
        there = pa.array(instants).cast(pa.timestamp("us", zone))
        return Moments(_microseconds(pc.local_timestamp(there)), instants)

    def _instants(
        self,
        local: npt.NDArray[Any],
        asked: npt.NDArray[np.bool_],
        zone: str,
        groups: Sequence[pa.Array],
    ) -> npt.NDArray[Any]:
        """The instants of the local times of a zone that are `asked` for.

        Where the clock goes back, the first row with a time that occurs twice is the earlier one.
        """
        stamps = pa.array(local[asked])
        early, late = (
            pc.assume_timezone(stamps, zone, ambiguous=which, nonexistent="earliest")
            for which in ("earliest", "latest")
        )
        rows = np.flatnonzero(asked)
        never = _microseconds(pc.local_timestamp(early)) != local[asked]
        if never.any():
            at = int(np.argmax(never))
            raise WrongTime(
                int(rows[at]),
                f"holds a time that never was in {zone}, where the clock went forward"
                f" ({shown(local[rows[at]])}); fix it, or write times with their offset from UTC",
            )
        found, later = _microseconds(early).copy(), _microseconds(late)
        for at in np.flatnonzero(found != later).tolist():  # at most a few rows a year
            row = int(rows[at])
            key = (local[row].item(), *(group[row].as_py() for group in groups))
            count = self._seen[key] = self._seen.get(key, 0) + 1
            if count > 2:
                raise WrongTime(
                    row,
                    f"holds a time that was there twice in {zone} a third time"
                    f" ({shown(local[row])}); write times with their offset from UTC",
                )
            if count == 2:
                found[at] = later[at]
                self.doubled += 1
        return found


def check_zone(zone: str) -> None:
    """JobError for a time zone that is not known."""
    try:
        pc.assume_timezone(pa.array([0]).cast(pa.timestamp("us")), zone)
    except pa.ArrowException:
        from zoneinfo import available_timezones

        raise JobError(
            f"setting 'time_zone': no time zone is called '{zone}';"
            f" {_near(zone, available_timezones())}"
        ) from None


def _near(zone: str, known: set[str]) -> str:
    found = suggestion(zone, known)
    return found if found.startswith("did") else "name one as 'Europe/Berlin'"


def calendar(local: npt.NDArray[Any], fields: Sequence[Field]) -> npt.NDArray[np.float32]:
    """The sine and the cosine of each field one after the other, (rows, 2 * len(fields)).

    Hours are counted with their minutes and seconds; Monday, January and the first day of a year
    are 0.
    """
    day, month = local.astype("datetime64[D]"), local.astype("datetime64[M]")
    counted: dict[Field, npt.NDArray[Any]] = {
        "hour": (local - day) / np.timedelta64(1, "h"),
        "weekday": (day.astype(np.int64) + 3) % 7,  # 1970 began on a Thursday
        "month": month.astype(np.int64) % 12,
        "yearday": (day - local.astype("datetime64[Y]")) / np.timedelta64(1, "D"),
    }
    figures = np.empty((len(local), 2 * len(fields)), np.float32)
    for at, field in enumerate(fields):
        angle = 2 * np.pi * counted[field] / PERIODS[field]
        figures[:, 2 * at], figures[:, 2 * at + 1] = np.sin(angle), np.cos(angle)
    return figures


def shown(moment: Any) -> str:
    """Return a time stamp (datetime64) as a message has it."""
    text = str(np.datetime64(moment, "us")).replace("T", " ")
    return text.removesuffix(".000000").removesuffix(" 00:00:00")


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_stamp(kind: pa.DataType) -> bool:
    """Whether a column holds timestamps or dates."""
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def joined(columns: Sequence[pa.Array]) -> pa.Array:
    """Return one column of times of a date and a time of day in two; or the one column there is."""
    plain = [
        column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        for column in columns
    ]
    if len(plain) == 1:
        return plain[0]
    if pa.types.is_timestamp(plain[0].type):
        plain[0] = plain[0].cast(pa.date32(), safe=False)
    texts = [column.cast(pa.string()) for column in plain]
    return pc.binary_join_element_wise(*texts, " ")


def epoch(column: pa.Array, unit: Unit) -> npt.NDArray[Any]:
    """Return the times of numbers that count since 1970; not a time for what is no number."""
    numbers = epoch_numbers(column)
    factor = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}[unit]
    good = np.isfinite(numbers) & (np.abs(numbers.astype(np.float64)) * factor < _YEAR_10000)
    numbers = np.where(good, numbers, 0)
    if numbers.dtype == np.int64:
        whole = numbers // 1000 if unit == "ns" else numbers * int(factor)
    else:
        whole = np.round(numbers * factor).astype(np.int64)
    stamps = whole.astype("datetime64[us]")
    stamps[~good] = np.datetime64("NaT")
    return stamps


def epoch_numbers(column: pa.Array) -> npt.NDArray[Any]:
    """The numbers of a column as int64, or as float64 with NaN for what is none."""
    if column.null_count == 0:
        with suppress(pa.ArrowInvalid):
            return np.asarray(column.cast(pa.int64()).to_numpy(zero_copy_only=False))
    if not is_text(column.type):
        numbers = column.cast(pa.float64(), safe=False)
        return np.asarray(numbers.to_numpy(zero_copy_only=False))
    try:
        return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid:
        good = pc.match_substring_regex(column, r"^[+-]?\d+(\.\d*)?$")
        numbers = pc.if_else(good, column, pa.scalar(None, column.type)).cast(pa.float64())
        return np.asarray(numbers.to_numpy(zero_copy_only=False))


def _microseconds(column: pa.Array) -> npt.NDArray[Any]:
    zone = column.type.tz if pa.types.is_timestamp(column.type) else None
    stamps = column.cast(pa.timestamp("us", zone), safe=False)
    return np.asarray(stamps.to_numpy(zero_copy_only=False), "datetime64[us]")
