"""Times of tables: how they are written, what zone they are of, and what numbers count."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as papq
import pytest
from data_tools import sentence_of

from rnnfarm.builtin.csv_files import CSV
from rnnfarm.builtin.parquet_files import Parquet
from rnnfarm.data import Dataset, build_dataset
from rnnfarm.data.time_formats import DATES, ISO, check_format, read_texts
from rnnfarm.data.time_search import TimeSearch
from rnnfarm.data.times import Clock, Moments, TimeRule
from rnnfarm.errors import DataError, JobError


def moments(column: pa.Array, *, zone: str | None = None) -> Moments:
    """Read a column as a table does: look at all cells first."""
    search = TimeSearch()
    search.see(column)
    return Clock(search.rule("when", zone)).read(column)


def stamps(*cells: str) -> Any:
    return np.array(cells, "datetime64[us]")


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (["2024-01-31", "2024-02-29 18:45"], ["2024-01-31", "2024-02-29T18:45"]),
        (["2024-01", "2024-02"], ["2024-01-01", "2024-02-01"]),
        (["2024-W01-1", "2024-W02-3"], ["2024-01-01", "2024-01-10"]),
        (["2024-01-01T00:00:01.5", "20240102T0130"], ["2024-01-01T00:00:01.5", "2024-01-02T01:30"]),
        (["31.1.2024", "01.02.2024 7:05"], ["2024-01-31", "2024-02-01T07:05"]),
        (["31/01/2024", "01/02/2024"], ["2024-01-31", "2024-02-01"]),
        (["01/31/2024 12:00 AM", "2/1/2024 11:59:59 p.m."], ["2024-01-31", "2024-02-01T23:59:59"]),
        (["31-12-24".replace("-", "."), "01.01.25"], ["2024-12-31", "2025-01-01"]),
        (["2024/1/31 5:00", "2024/02/01 5:00"], ["2024-01-31T05:00", "2024-02-01T05:00"]),
        (["3 Jan 2024", "14 sept 2024".replace("sept", "Sep")], ["2024-01-03", "2024-09-14"]),
        (["Jan 3, 2024 10:00", "September 14, 2024"], ["2024-01-03T10", "2024-09-14"]),
        (["20240131", "20240201"], ["2024-01-31", "2024-02-01"]),
        (["2023", "2024"], ["2023-01-01", "2024-01-01"]),
        (["12/2023", "01/2024"], ["2023-12-01", "2024-01-01"]),
        (["1700000000", "1700000060.5"], ["2023-11-14T22:13:20", "2023-11-14T22:14:20.5"]),
        (["1700000000000", "1700000000500"], ["2023-11-14T22:13:20", "2023-11-14T22:13:20.5"]),
    ],
)  # fmt: skip
def test_forms_of_times(cells: list[str], found: list[str]) -> None:
    read = moments(pa.array(cells))
    np.testing.assert_array_equal(read.local, stamps(*found))
    np.testing.assert_array_equal(read.instant, stamps(*found))


@pytest.mark.parametrize(
    "form", [form for form in DATES if "b" not in form and "d" in form] + ["%Y-%m-%d %H:%M:%S.%f"]
)
def test_formats_agree_with_strptime(form: str) -> None:
    rng = np.random.default_rng(0)
    first = datetime(1970, 1, 1)
    days = [first + timedelta(seconds=int(s)) for s in rng.integers(0, 4e9, 300)]
    days = [day for day in days if 1970 <= day.year < 2068]
    texts = [day.strftime(form) for day in days]
    wanted = [datetime.strptime(text, form) for text in texts]
    read = read_texts(pa.array(texts), form, clock=False)
    assert read.local.tolist() == wanted


@pytest.mark.parametrize(
    "cell",
    ["2024-02-30", "2023-02-29", "2024-13-01", "2024-00-10", "2024-01-01 24:00", "2024-01-01 12:60",
     "2024-01-01 13:00 PM", "2024-01-01 0:00 am", "2024-1", "24-01-01", "2024-01-01 1:00:60"],
)  # fmt: skip
def test_what_is_no_time(cell: str) -> None:
    assert np.isnat(read_texts(pa.array([cell]), ISO, clock=True).local[0])


def test_a_time_that_is_wrong_is_named_whatever_the_form(tmp_path: Path) -> None:
    rows = "".join(f"{day}.01.2024,{day}\n" for day in range(1, 30))
    (tmp_path / "t.csv").write_text("when,x\n" + rows + "31.02.2024,30\n")
    with pytest.raises(DataError, match=r"line 31: column 'when' holds no date or time") as error:
        build(CSV, tmp_path, "t.csv", time="when")
    assert "'31.02.2024'" in sentence_of(error.value)
    assert "'%d.%m.%Y', as the other rows are" in str(error.value)


@pytest.mark.parametrize(
    ("cells", "forms"),
    [
        (["01/02/2024", "03/04/2024"], ["%d/%m/%Y", "%m/%d/%Y"]),
        (["01-02-2024", "03-04-2024 05:00"], ["%d-%m-%Y", "%m-%d-%Y"]),
    ],
)
def test_days_and_months_that_cannot_be_told_apart(
    tmp_path: Path, cells: list[str], forms: list[str]
) -> None:
    (tmp_path / "t.csv").write_text("when,x\n" + "".join(f"{cell},1\n" for cell in cells))
    with pytest.raises(JobError, match="set 'time_format' to one of them") as error:
        build(CSV, tmp_path, "t.csv", time="when")
    for form in forms:
        assert f"'{form}'" in sentence_of(error.value)
        assert cells[0] in str(error.value)
    if "05:00" in cells[1]:
        return
    for form, second in zip(forms, ((3, 4), (4, 3)), strict=True):
        dataset = build(CSV, tmp_path, "t.csv", time="when", time_format=form, calendar=["month"])
        angle = 2 * np.pi * (second[1] - 1) / 12
        found = read(dataset)[1][1:]
        np.testing.assert_allclose(found, [np.sin(angle), np.cos(angle)], atol=1e-6)


def test_a_format_that_is_wrong() -> None:
    assert check_format("%d/%m/%Y %H:%M") is None
    assert "'%Q' is not known" in str(check_format("%Q %Y"))
    assert "no year" in str(check_format("%d.%m."))
    assert "twice" in str(check_format("%Y-%Y"))


def build(kind: type[CSV | Parquet], folder: Path, *files: str, **settings: Any) -> Dataset:
    reader = kind(files=list(files), **{"valid": 0.0, **settings})
    reader.base = folder
    return build_dataset(reader, folder / f"d{len(list(folder.iterdir()))}")


def read(dataset: Dataset) -> list[list[float]]:
    split = dataset.split("train")
    found: list[list[float]] = split.read("values", 0, split.steps).tolist()
    return found


def hours(dataset: Dataset) -> list[float]:
    """The hours that the sine and the cosine in the last two values are of."""
    return [float(np.arctan2(s, c) / (2 * np.pi) * 24 % 24) for *_, s, c in read(dataset)]


UNITS = {"s": 10**6, "ms": 10**3, "us": 1, "ns": 10**-3}


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("kind", ["csv", "int64", "double"])
def test_numbers_that_count_since_1970(tmp_path: Path, kind: str, unit: str) -> None:
    micros = [1_700_000_000_000_000 + i * 3_600_000_000 for i in range(4)]
    numbers = [round(m / UNITS[unit]) if unit != "ns" else m * 1000 for m in micros]
    if kind == "csv":
        (tmp_path / "t").write_text("ts,x\n" + "".join(f"{number},1\n" for number in numbers))
    else:
        whole = pa.array(numbers, pa.int64())
        column = whole if kind == "int64" else whole.cast(pa.float64(), safe=False)
        papq.write_table(pa.table({"ts": column, "x": [1] * 4}), tmp_path / "t")
    reader = CSV if kind == "csv" else Parquet
    dataset = build(reader, tmp_path, "t", time="ts", calendar=["hour"])
    start = datetime.fromtimestamp(1_700_000_000, UTC)
    wanted = [start.hour + i + start.minute / 60 + start.second / 3600 for i in range(4)]
    np.testing.assert_allclose(hours(dataset), np.array(wanted) % 24, atol=1e-3)
    assert dataset.provenance is not None
    assert dataset.provenance.learned["time"] == {"unit": unit}
    assert f"count since 1970 ({unit})" in "\n".join(dataset.provenance.notes)


def test_a_unit_is_for_numbers_alone(tmp_path: Path) -> None:
    days = pa.array([1, 2], pa.int32()).cast(pa.date32())
    papq.write_table(pa.table({"d": days, "x": [1, 2]}), tmp_path / "days")
    dataset = build(Parquet, tmp_path, "days", time="d", time_unit="s", calendar=["hour"])
    assert hours(dataset) == [0, 0]
    huge = pa.array([2**64 - 1] * 2, pa.uint64())
    papq.write_table(pa.table({"d": huge, "x": [1, 2]}), tmp_path / "huge")
    with pytest.raises(DataError, match="row 1: column 'd' holds no date or time") as error:
        build(Parquet, tmp_path, "huge", time="d", time_unit="s")
    sentence_of(error.value)
    (tmp_path / "t.csv").write_text("ts,x\n1e3,1\n9999999999999999,2\n")
    with pytest.raises(DataError, match=r"line 3: column 'ts' holds no date or time \('9999"):
        build(CSV, tmp_path, "t.csv", time="ts", time_unit="s")


@pytest.mark.parametrize(
    ("numbers", "found"),
    [([20240131, 20240201], ["2024-01-31", "2024-02-01"]), ([2023, 2024], ["2023", "2024"])],
)
def test_whole_numbers_that_are_written_as_dates(numbers: list[int], found: list[str]) -> None:
    np.testing.assert_array_equal(moments(pa.array(numbers)).local, stamps(*found))


def test_small_numbers_are_no_times_unless_a_setting_says_so(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("ts,x\n0.5,1\n3600,2\n7200,3\n")
    with pytest.raises((JobError, DataError), match="column 'ts'") as error:
        build(CSV, tmp_path, "t.csv", time="ts")
    sentence_of(error.value)
    dataset = build(CSV, tmp_path, "t.csv", time="ts", time_unit="s", calendar=["hour"])
    np.testing.assert_allclose(hours(dataset), [0.5 / 3600, 1, 2], atol=1e-3)


def test_a_date_and_a_time_of_day_in_two_columns(tmp_path: Path) -> None:
    rows = ["31.12.2024,22:30,1", "31.12.2024,23:45:30,2", "01.01.2025,0:00,3"]
    (tmp_path / "t.csv").write_text("day,clock,x\n" + "\n".join(rows) + "\n")
    dataset = build(CSV, tmp_path, "t.csv", time=["day", "clock"], calendar=["hour"])
    np.testing.assert_allclose(hours(dataset), [22.5, 23 + 45.5 / 60, 0], atol=1e-4)
    days = pa.array([0, 0, 1], pa.int32()).cast(pa.date32())
    for name, column in (
        ("hours", [1, 23, 0]),
        ("clocks", pa.array([3600, 82800, 0], pa.time32("s"))),
    ):
        papq.write_table(pa.table({"d": days, "c": column, "x": [1, 2, 3]}), tmp_path / name)
        dataset = build(Parquet, tmp_path, name, time=["d", "c"], calendar=["hour"])
        np.testing.assert_allclose(hours(dataset), [1, 23, 0], atol=1e-4)
    (tmp_path / "t.csv").write_text("day,clock,x\n" + "\n".join(reversed(rows)) + "\n")
    with pytest.raises(
        DataError, match=r"line 3: column 'day' and 'clock' \(2024-12-31 23:45:30\) is"
    ):
        build(CSV, tmp_path, "t.csv", time=["day", "clock"])


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Asia/Kolkata"])
def test_local_times_of_a_zone(zone: str) -> None:
    """Every half hour of two years, as a clock on the wall shows it."""
    there = ZoneInfo(zone)
    first = datetime(2023, 1, 1, tzinfo=UTC)
    instants = [first + timedelta(minutes=30 * i) for i in range(2 * 365 * 48)]
    wall = [instant.astimezone(there).replace(tzinfo=None) for instant in instants]
    column = pa.array([time.isoformat(" ") for time in wall])
    read = moments(column, zone=zone)
    assert read.instant.tolist() == [time.replace(tzinfo=None) for time in instants]
    assert read.local.tolist() == wall


def test_each_group_has_its_own_hour_twice() -> None:
    column = pa.array(["2024-10-27 02:30"] * 4)
    groups = [pa.array(["a", "b", "a", "b"])]
    read = Clock(TimeRule(zone="Europe/Berlin")).read(column, groups)
    early, late = stamps("2024-10-27T00:30", "2024-10-27T01:30")
    assert read.instant.tolist() == [early.item(), early.item(), late.item(), late.item()]


@pytest.mark.parametrize(
    ("cells", "what"),
    [
        (["2024-03-31 01:59", "2024-03-31 02:30"], "line 3: .* never was in Europe/Berlin"),
        (["2024-10-27 02:30"] * 3, "line 4: .* a third time .2024-10-27 02:30:00.; write times"),
    ],
)
def test_local_times_that_cannot_be(tmp_path: Path, cells: list[str], what: str) -> None:
    (tmp_path / "t.csv").write_text("when,x\n" + "".join(f"{cell},1\n" for cell in cells))
    with pytest.raises(DataError, match=what) as error:
        build(CSV, tmp_path, "t.csv", time="when", time_zone="Europe/Berlin")
    sentence_of(error.value)


def test_hours_that_come_twice_are_said(tmp_path: Path) -> None:
    cells = ["01:00", "02:00", "02:00", "03:00"]
    (tmp_path / "t.csv").write_text("when,x\n" + "".join(f"2024-10-27 {c},1\n" for c in cells))
    settings = {"time": "when", "time_zone": "Europe/Berlin", "calendar": ["hour"]}
    dataset = build(CSV, tmp_path, "t.csv", **settings)
    np.testing.assert_allclose(hours(dataset), [1, 2, 2, 3], atol=1e-4)
    assert dataset.provenance is not None
    assert "1 times that occur twice in Europe/Berlin" in "\n".join(dataset.provenance.notes)


def test_the_calendar_goes_by_the_zone(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("ts,x\n1700000000,1\n")
    texts = {"ts": ["2023-11-14T22:13:20Z"], "x": [1]}
    stamp = pa.array([1_700_000_000], pa.timestamp("s", "UTC"))
    papq.write_table(pa.table(texts), tmp_path / "texts")
    papq.write_table(pa.table({"ts": stamp, "x": [1]}), tmp_path / "stamps")
    wanted = 3 + 43 / 60 + 20 / 3600  # in Kolkata, of 5:30 more
    for kind, name in ((CSV, "t.csv"), (Parquet, "texts"), (Parquet, "stamps")):
        settings = {"time": "ts", "calendar": ["hour"], "time_zone": "Asia/Kolkata"}
        np.testing.assert_allclose(
            hours(build(kind, tmp_path, name, **settings)), [wanted], atol=1e-3
        )


def test_times_with_and_without_an_offset(tmp_path: Path) -> None:
    cells = ["2024-01-01 00:00+01:00", "2024-01-01 00:30-0030", "2024-01-01 15:00"]
    (tmp_path / "t.csv").write_text("when,x\n" + "".join(f"{cell},1\n" for cell in cells))
    with pytest.raises(DataError, match="line 4: column 'when' has no offset from UTC") as error:
        build(CSV, tmp_path, "t.csv", time="when")
    sentence_of(error.value)
    assert len(read(build(CSV, tmp_path, "t.csv", time="when", time_zone="Asia/Tokyo"))) == 3
    # An order by instants, not by what clocks show.
    read_ = moments(pa.array(cells[:2]))
    np.testing.assert_array_equal(read_.instant, stamps("2023-12-31T23:00", "2024-01-01T01:00"))
    np.testing.assert_array_equal(read_.local, stamps("2024-01-01T00:00", "2024-01-01T00:30"))


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"time_zone": "Europe/Berlinn"}, "did you mean 'Europe/Berlin'"),
        ({"time_zone": "here"}, "no time zone is called 'here'"),
        ({"time_format": "%d"}, "setting 'time_format': no year"),
        ({"time_format": "%Y", "time_unit": "s"}, "leave one out"),
        ({"time": None, "time_unit": "s"}, "'time_unit': name the column of times in 'time'"),
        ({"time": ["when", "other"]}, r"no column 'other' \(setting 'time'\)"),
    ],
)
def test_wrong_settings(tmp_path: Path, settings: dict[str, Any], what: str) -> None:
    (tmp_path / "t.csv").write_text("when,x\n2024-01-01,1\n")
    with pytest.raises(JobError, match=what) as error:
        build(CSV, tmp_path, "t.csv", **{"time": "when", **settings})
    sentence_of(error.value)
