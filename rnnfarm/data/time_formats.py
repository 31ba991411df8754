"""Dates and times as texts: formats in the notation of `strptime`, read a whole column at a time.

A format is turned into a regular expression whose groups are the parts of a date, so that Arrow
takes texts apart and NumPy puts the parts together; no cell is looked at in Python.
"""

from __future__ import annotations

import calendar
import re
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import numpy.typing as npt

ISO = "ISO 8601"

#: What a column's dates may look like, by the order in which they are tried. A time of day may come
#: after each that names a day.
DATES = [
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y",
    "%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%b %d %Y",
    "%Y%m%d", "%Y/%m", "%m/%Y", "%m.%Y", "%Y",
]  # fmt: skip

_MONTHS = [month.lower() for month in calendar.month_abbr[1:]]
_NAMES = "|".join([*calendar.month_name[1:], *calendar.month_abbr[1:]])
_PARTS = {
    "Y": r"(?P<Y>\d{4})",
    "y": r"(?P<y>\d{2})",
    "m": r"(?P<m>\d{1,2})",
    "b": rf"(?P<b>(?i:{_NAMES}))\.?",
    "B": rf"(?P<b>(?i:{_NAMES}))\.?",
    "d": r"(?P<d>\d{1,2})",
    "j": r"(?P<j>\d{1,3})",
    "H": r"(?P<H>\d{1,2})",
    "I": r"(?P<I>\d{1,2})",
    "M": r"(?P<M>\d{1,2})",
    "S": r"(?P<S>\d{1,2})",
    "f": r"(?P<f>\d{1,9})",
    "p": r"(?P<p>(?i:[AP]\.?M\.?))",
    "z": r"(?P<z>Z|z|[+-]\d{2}(?::?\d{2})?)",
    "%": "%",
}
_PACKED = {"m": r"(?P<m>\d{2})", "d": r"(?P<d>\d{2})"}  # between other digits
_CLOCK = (
    r"(?:(?:T| +)(?P<H>\d{1,2})(?::(?P<M>\d{2})(?::(?P<S>\d{2})(?:[.,](?P<f>\d{1,9}))?)?)?"
    r" ?(?P<p>(?i:[AP]\.?M\.?))? ?(?P<z>Z|z|UTC|[+-]\d{2}(?::?\d{2})?)?)?"
)


class Texts(NamedTuple):
    """What a column of texts says, (rows,): `local` as datetime64[us], not a time where a text does
    not fit; `offset` from UTC as timedelta64[us], not a time where a text has none."""

    local: npt.NDArray[Any]
    offset: npt.NDArray[Any]


def check_format(form: str) -> str | None:
    """Return what is wrong with a format that a user gives, or None."""
    codes = re.findall("%(.?)", form)
    for code in codes:
        if code not in _PARTS:
            known = " ".join(f"%{part}" for part in _PARTS)
            return f"'%{code}' is not known; take {known}"
    named = ["b" if code == "B" else code for code in codes if code != "%"]
    if len(set(named)) < len(named):
        return "a part is there twice; name each once"
    if not {"Y", "y"} & set(named):
        return "no year is in it; name it by %Y or %y"
    return None


def read_texts(column: pa.Array, form: str, *, clock: bool) -> Texts:
    """Return the times of a column of texts of one format.

    clock: whether a time of day may come after what the format says.
    """
    if form == ISO:
        return _read_iso(column)
    found = pc.extract_regex(column, _pattern(form, clock))
    named = {found.type.field(i).name for i in range(found.type.num_fields)}
    part = {name: _numbers(found, name) for name in named - {"b", "p", "z", "f"}}
    days, good = _days(found, part, named)
    hours, right = _hours(found, part, named)
    good &= right & found.is_valid().to_numpy(zero_copy_only=False)
    local = days.astype("datetime64[us]") + hours
    local[~good] = np.datetime64("NaT")
    offset = _offsets(found, named)
    return Texts(local, offset)


def _read_iso(column: pa.Array) -> Texts:
    """The times of texts in any form of ISO 8601, most of which Arrow or one pattern takes."""
    try:
        stamps = column.cast(pa.timestamp("us"))
    except pa.ArrowInvalid:
        local, offset = read_texts(column, "%Y-%m-%d", clock=True)
    else:
        local = np.array(stamps.to_numpy(zero_copy_only=False), "datetime64[us]")
        return Texts(local, np.full(len(local), np.timedelta64("NaT"), "timedelta64[us]"))
    open_rows = np.isnat(local) & column.is_valid().to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(open_rows):
        found = _iso_cell(column[int(row)].as_py())
        if found is None:
            break  # the first text that does not fit is all that a reader names
        local[row] = np.datetime64(found.replace(tzinfo=None), "us")
        if (shift := found.utcoffset()) is not None:
            offset[row] = np.timedelta64(shift, "us")
    return Texts(local, offset)


def _iso_cell(text: str) -> datetime | None:
    if re.fullmatch(r"\d{4}-\d{2}", text):
        text += "-01"  # a month, which Python does not take
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


@cache
def _pattern(form: str, clock: bool) -> str:
    """The regular expression of a format."""
    packed = re.search(r"%[Yy]%m%d", form) is not None
    parts = _PARTS | _PACKED if packed else _PARTS
    text = ""
    for literal, code in re.findall(r"([^%]*)(?:%(.)|$)", form):
        text += re.escape(literal).replace(r"\ ", " +") + (parts[code] if code else "")
    return f"^{text}{_CLOCK if clock and '%d' in form else ''}$"


def _text(found: pa.Array, name: str) -> pa.Array:
    return pc.fill_null(pc.struct_field(found, name), "")


def _numbers(found: pa.Array, name: str) -> npt.NDArray[np.int64]:
    """The numbers of a group, 0 where it is absent."""
    text = _text(found, name)
    filled = pc.if_else(pc.equal(text, ""), "0", text)
    return np.array(filled.cast(pa.int64()).to_numpy(zero_copy_only=False))


def _days(found: pa.Array, part: dict[str, Any], named: set[str]) -> tuple[Any, Any]:
    """The days as datetime64[D], and which of them there are in the calendar."""
    years = part["Y"] if "Y" in part else part["y"] + np.where(part["y"] < 69, 2000, 1900)
    if "j" in part:
        days = (years - 1970).astype("datetime64[Y]").astype("datetime64[D]") + (part["j"] - 1)
        return days, (part["j"] >= 1) & (days.astype("datetime64[Y]").astype(int) == years - 1970)
    months = part.get("m", np.ones_like(years))
    if "b" in named:
        short = pc.utf8_lower(pc.utf8_slice_codeunits(_text(found, "b"), 0, 3))
        index = pc.index_in(short, value_set=pa.array(_MONTHS))
        months = pc.fill_null(index, 0).to_numpy(zero_copy_only=False).astype(np.int64) + 1
    dates = part.get("d", np.ones_like(years))
    month = ((years - 1970) * 12 + months - 1).astype("datetime64[M]")
    days = month.astype("datetime64[D]") + (dates - 1)
    good = (months >= 1) & (months <= 12) & (dates >= 1) & (years >= 1)
    return days, good & (days.astype("datetime64[M]") == month)


def _hours(found: pa.Array, part: dict[str, Any], named: set[str]) -> tuple[Any, Any]:
    """The times of day as timedelta64[us], and which of them there are on a clock."""
    nothing = np.zeros(len(found), np.int64)
    hours = part.get("I", part.get("H", nothing))
    minutes, seconds = part.get("M", nothing), part.get("S", nothing)
    good = (hours <= 23) & (minutes <= 59) & (seconds <= 59)
    if "p" in named:
        half = pc.utf8_lower(pc.utf8_slice_codeunits(_text(found, "p"), 0, 1))
        first = half.to_numpy(zero_copy_only=False)
        halved = first != ""
        good &= ~halved | ((hours >= 1) & (hours <= 12))
        hours = np.where(halved, hours % 12 + 12 * (first == "p"), hours)
    micros = nothing
    if "f" in named:
        padded = pc.utf8_slice_codeunits(pc.utf8_rpad(_text(found, "f"), 6, "0"), 0, 6)
        micros = np.array(padded.cast(pa.int64()).to_numpy(zero_copy_only=False))
    total = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros
    return total.astype("timedelta64[us]"), good


def _offsets(found: pa.Array, named: set[str]) -> Any:
    """The offsets from UTC, not a time where there is none."""
    nothing = np.full(len(found), np.timedelta64("NaT"), "timedelta64[us]")
    if "z" not in named:
        return nothing
    text = _text(found, "z")
    given = text.to_numpy(zero_copy_only=False) != ""
    if not given.any():
        return nothing
    utc = pc.replace_substring_regex(text, "^(Z|z|UTC|)$", "+00")
    digits = pc.replace_substring(pc.utf8_slice_codeunits(utc, 1), ":", "")
    padded = pc.utf8_rpad(digits, 4, "0").cast(pa.int64()).to_numpy(zero_copy_only=False)
    minutes = padded // 100 * 60 + padded % 100
    minus = pc.starts_with(utc, "-").to_numpy(zero_copy_only=False)
    micros = np.where(minus, -minutes, minutes) * 60_000_000
    return np.where(given, micros.astype("timedelta64[us]"), nothing)
