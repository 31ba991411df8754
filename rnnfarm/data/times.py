"""Time stamps of a table's rows, and what a calendar says of them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

Field = Literal["hour", "weekday", "month", "yearday"]

#: After how much each field of the calendar begins anew.
PERIODS: dict[Field, float] = {"hour": 24.0, "weekday": 7.0, "month": 12.0, "yearday": 365.25}


class Moments(NamedTuple):
    """Time stamps (rows,) as datetime64[us], not a time where a cell holds none.

    local: as a clock of the place shows it, which the calendar goes by; instant: in UTC, which has
    no hour twice, so that the order goes by it. They differ only where an offset or zone is given.
    """

    local: npt.NDArray[Any]
    instant: npt.NDArray[Any]


def holds_moments(kind: pa.DataType) -> bool:
    """Whether a column of that type can be read by `moments`."""
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind) or _is_text(kind))


def moments(column: pa.Array) -> Moments:
    """The time stamps of a column of timestamps, dates, or texts in ISO 8601.

    A text is a date, or a date and a time of day with `T` or a space in between; or a month.
    """
    if _is_text(column.type):
        pairs = [_moment(cell) for cell in column.cast(pa.string()).to_pylist()]
        both = np.array(pairs, "datetime64[us]").reshape(-1, 2)
        return Moments(both[:, 0], both[:, 1])
    zone = pa.types.is_timestamp(column.type) and column.type.tz
    local = pc.local_timestamp(column) if zone else column
    return Moments(_microseconds(local), _microseconds(column))


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


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _moment(cell: str | None) -> tuple[datetime | None, datetime | None]:
    """The local time and the one in UTC of a text."""
    text = (cell or "").strip()
    if len(text) == len("2020-01") and text[4] == "-":
        text += "-01"  # a month, which Python does not take
    try:
        found = datetime.fromisoformat(text)
        local, offset = found.replace(tzinfo=None), found.utcoffset()
        return local, local if offset is None else local - offset
    except (ValueError, OverflowError):
        return None, None


def _microseconds(column: pa.Array) -> npt.NDArray[Any]:
    zone = column.type.tz if pa.types.is_timestamp(column.type) else None
    stamps = column.cast(pa.timestamp("us", zone), safe=False)
    return np.asarray(stamps.to_numpy(zero_copy_only=False), "datetime64[us]")
