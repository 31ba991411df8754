"""The built-in readers on real files."""

from __future__ import annotations

import gzip
import sysconfig
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as papq
import pytest
from data_tools import real_data, sentence_of

from rnnfarm.builtin.readers import (
    CSV,
    Bytes,
    Characters,
    NumPyArrays,
    Parquet,
    PythonSource,
    Words,
)
from rnnfarm.data import Column, Reader, build_dataset, build_from_settings, ensure_dataset
from rnnfarm.errors import DataError, JobError, PluginError
from rnnfarm.job import read_job
from rnnfarm.plugins import Registry


def build(reader, tmp_path):
    reader.base = tmp_path
    dataset = build_dataset(reader, tmp_path / "dataset")
    assert dataset.verify() == []
    return dataset


def read(dataset, split, column="tokens"):
    """The sequences of a split, as lists."""
    if split not in dataset.splits:
        return []
    view = dataset.split(split)
    starts = [*view.starts().tolist(), view.steps]
    return [view.read(column, a, b) for a, b in pairwise(starts)]


def texts(dataset, split):
    vocabulary = dataset.vocabulary("tokens")
    return [vocabulary.decode(tokens) for tokens in read(dataset, split)]


TEXT = "Grüße,\nWelt! 你好\n\nlast line"


@pytest.mark.parametrize(
    ("columns", "item", "sentence"),
    [
        ({}, None, r"Odd\.columns gives {}; give a rnnfarm\.data\.Column"),
        ({"values": 3}, None, r"Odd\.columns gives {'values': 3}"),
        ({"values": Column.values(1)}, 3, r"Odd\.sequences gives 3; yield \(split, {column: array"),
    ],
)
def test_a_reader_that_gives_something_else_is_named(tmp_path, columns, item, sentence):
    class Odd(Reader):
        def columns(self):
            return columns

        def sequences(self):
            yield item

    with pytest.raises(PluginError, match=sentence):
        build_dataset(Odd(), tmp_path / "dataset")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("reader", [Bytes, Characters])
def test_text_comes_back(tmp_path, reader):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    dataset = build(reader(files=["a.txt"], valid=0), tmp_path)
    assert texts(dataset, "train") == [TEXT]
    assert list(dataset.splits) == ["train"]


def test_characters_have_the_smallest_vocabulary(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    dataset = build(Characters(files=["a.txt"], valid=0), tmp_path)
    assert dataset.vocabulary("tokens").entries == sorted(set(TEXT))
    assert dataset.info()["columns"]["tokens"]["vocabulary"] == len(set(TEXT))


def test_rare_characters_become_unknown(tmp_path):
    (tmp_path / "a.txt").write_text("aaabbc\n", encoding="utf-8")
    dataset = build(Characters(files=["a.txt"], min_count=2, valid=0), tmp_path)
    assert dataset.vocabulary("tokens").entries == ["<unk>", "\n", "a", "b"]
    assert texts(dataset, "train") == ["aaabb<unk>\n"]
    assert dataset.vocabulary("tokens").encode("az").tolist() == [2, 0]


def test_words(tmp_path):
    (tmp_path / "a.txt").write_text("the cat\nThe dog  the\tend", encoding="utf-8")
    dataset = build(Words(files=["a.txt"], valid=0, lower=True, max_size=4), tmp_path)
    assert dataset.vocabulary("tokens").entries == ["<unk>", "\n", "the", "cat"]
    assert texts(dataset, "train") == ["the cat\nthe <unk> the <unk>"]


def test_words_over_the_border_of_blocks(tmp_path, monkeypatch):
    text = "".join(f"word{i} " + "\n" * (i % 7 == 0) for i in range(500)) + "läst"
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    monkeypatch.setattr("rnnfarm.data.blocks.BLOCK", 13)
    dataset = build(Words(files=["a.txt"], valid=0), tmp_path)
    assert texts(dataset, "train")[0].split() == text.split()
    assert texts(dataset, "train")[0].count("\n") == text.count("\n")
    assert dataset.splits["train"].sequences == 1


@pytest.mark.parametrize("reader", [Bytes, Characters, Words])
@pytest.mark.parametrize("block", [1, 5, 1 << 20])
def test_lines(tmp_path, monkeypatch, reader, block):
    (tmp_path / "a.txt").write_text("one two\n\nthree\n" + "x" * 40 + "\nlast one")
    monkeypatch.setattr("rnnfarm.data.blocks.BLOCK", block)
    dataset = build(reader(files=["a.txt"], valid=0, sequence="line"), tmp_path)
    wanted = ["one two\n", "three\n", "x" * 40 + "\n", "last one"]
    assert texts(dataset, "train") == wanted


def test_line_ends_of_windows(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    dataset = build(Characters(files=["a.txt"], valid=0, sequence="line"), tmp_path)
    assert texts(dataset, "train") == ["one\n", "two\n"]


def test_the_tail_is_for_validation(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(name * 80 + "ab" * 10)
    dataset = build(Characters(files=["*.txt"], valid=0.2), tmp_path)
    assert texts(dataset, "train") == ["a" * 80, "b" * 80]
    assert texts(dataset, "valid") == ["ab" * 10] * 2


def test_a_line_goes_where_it_begins(tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"line {i}\n" for i in range(10)))
    dataset = build(Characters(files=["a.txt"], valid=0.25, sequence="line"), tmp_path)
    assert texts(dataset, "train") == [f"line {i}\n" for i in range(8)]
    assert texts(dataset, "valid") == ["line <unk>\n", "line <unk>\n"]


def test_files_for_validation(tmp_path):
    for name in ("a", "b", "v"):
        (tmp_path / f"{name}.txt").write_text(name * 10)
    named = build(Bytes(files=["*.txt"], valid_files=["v.txt"]), tmp_path)
    assert texts(named, "train") == ["a" * 10, "b" * 10]
    assert texts(named, "valid") == ["v" * 10]


def test_split_by_file_is_the_same_in_every_folder(tmp_path):
    found = []
    for folder in ("one", "two"):
        base = tmp_path / folder
        (base / "texts").mkdir(parents=True)
        for i in range(20):
            (base / "texts" / f"{i}.txt").write_text(f"{i:02} " * 30)
        dataset = build(Bytes(files=["texts/*.txt"], split="file", valid=0.2), base)
        assert dataset.splits["valid"].sequences == 4
        assert dataset.splits["train"].sequences == 16
        found.append(texts(dataset, "valid"))
    assert found[0] == found[1]


def test_empty_files_of_a_pattern_are_left_out(tmp_path):
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.txt").write_text("x" * 10)
    assert build(Bytes(files=["*.txt"], valid=0), tmp_path).splits["train"].sequences == 1


def write_files(folder):
    (folder / "empty.txt").write_text("")
    (folder / "latin.txt").write_bytes(b"fine\nGr\xfc\xdfe\n")
    (folder / "cut.txt").write_bytes("fine\n€".encode()[:-1])
    (folder / "one.txt").write_text("one")
    (folder / "wide.txt").write_text("one", encoding="utf-16")
    (folder / "packed.txt.gz").write_bytes(gzip.compress(b"one"))
    (folder / "folder").mkdir()


@pytest.mark.parametrize(
    ("reader", "settings", "error", "what"),
    [
        (Bytes, {"files": ["none.txt"]}, JobError, "none.txt in setting 'files' matches no file"),
        (Bytes, {"files": ["no*.md"]}, JobError, "matches no file"),
        (Bytes, {"files": ["folder"]}, JobError, "is a folder; name its files by a pattern"),
        (Bytes, {"files": ["one.txt"], "valid_files": ["x"]}, JobError, "'valid_files' matches"),
        (Bytes, {"files": ["empty.txt"]}, DataError, "empty.txt: the file is empty"),
        (Bytes, {"files": ["empt*"]}, DataError, "all files are empty"),
        (Bytes, {"files": ["empt*"], "split": "file"}, DataError, "all files are empty"),
        (Bytes, {"files": ["one.txt"], "split": "file"}, JobError, "cannot be split by file"),
        (Characters, {"files": ["latin.txt"]}, DataError, "line 2: byte 0xfc is not UTF-8"),
        (Characters, {"files": ["packed.txt.gz"]}, DataError, "is compressed; unpack it first"),
        (Characters, {"files": ["wide.txt"]}, DataError, "wide.txt: is UTF-16; convert it to"),
        (Words, {"files": ["cut.txt"]}, DataError, "line 2: byte 0xe2 is not UTF-8"),
    ],
)
def test_wrong_text(tmp_path, reader, settings, error, what):
    write_files(tmp_path)
    with pytest.raises(error, match=what) as raised:
        build(reader(**settings), tmp_path)
    sentence_of(raised.value)
    assert not (tmp_path / "dataset").exists()
    assert not list(tmp_path.glob("dataset*"))


def test_a_wrong_setting_is_named():
    with pytest.raises(JobError, match="valid"):
        Bytes(files=["x"], valid=1.5)
    with pytest.raises(JobError, match="did you mean 'files'"):
        Bytes(file=["x"])
    with pytest.raises(JobError, match="files"):
        Bytes()


# Python's own sources.


def test_python_source(tmp_path):
    dataset = build(PythonSource(max_bytes=300_000), tmp_path)
    info = dataset.info()
    assert info["columns"]["tokens"]["vocabulary"] == 256
    assert 250_000 < info["steps"] <= 300_000
    assert 0.05 < info["splits"]["valid"]["steps"] / info["steps"] < 0.15
    found = [tokens.tobytes() for tokens in read(dataset, "train") + read(dataset, "valid")]
    sizes = {len(source) for source in found}
    library = Path(sysconfig.get_path("stdlib")).rglob("*.py")
    sources = {path.read_bytes() for path in library if path.stat().st_size in sizes}
    assert sources.issuperset(found)


def test_python_source_is_the_same_every_time(tmp_path):
    hashes = []
    for name in ("a", "b"):
        dataset = build_dataset(PythonSource(max_bytes=200_000), tmp_path / name)
        hashes.append([s.sha256 for split in dataset.splits.values() for s in split.shards])
    assert hashes[0] == hashes[1]


# Tables.


def named(*names):
    """The column of the table's columns of these names."""
    return Column.values(len(names), names=list(names), roles=["value"] * len(names))


CSV_TEXT = "time,who,x,y\n" + "".join(
    f"2020-01-{i + 1},{'abc'[i // 8]},{i},{-i}.5\n" for i in range(20)
)


def table(tmp_path, kind):
    if kind is CSV:
        (tmp_path / "t.csv").write_text(CSV_TEXT)
        return "t.csv"
    columns = {
        "time": [f"2020-01-{i + 1}" for i in range(20)],
        "who": ["abc"[i // 8] for i in range(20)],
        "x": list(range(20)),
        "y": [-i - 0.5 for i in range(20)],
    }
    papq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=7)
    return "t.parquet"


@pytest.mark.parametrize("kind", [CSV, Parquet])
def test_tables_are_cut_in_the_order_of_time(tmp_path, kind):
    dataset = build(kind(files=[table(tmp_path, kind)], valid=0.2, test=0.1), tmp_path)
    assert dataset.columns["values"].width == 2  # columns of text are left out
    for split, low, high in (("train", 0, 14), ("valid", 14, 18), ("test", 18, 20)):
        (found,) = read(dataset, split, "values")
        expected = [
            [i, -i - 0.5 if kind is Parquet else float(f"{-i}.5")] for i in range(low, high)
        ]
        np.testing.assert_array_equal(found, np.array(expected, np.float32))


@pytest.mark.parametrize("kind", [CSV, Parquet])
def test_tables_with_groups_and_a_target(tmp_path, kind):
    settings = {"values": ["y", "x"], "target": ["x"], "group": "who", "valid": 0.5}
    dataset = build(kind(files=[table(tmp_path, kind)], **settings), tmp_path)
    groups = [range(0, 4), range(8, 12), range(16, 18)]
    assert [v[:, 1].tolist() for v in read(dataset, "train", "values")] == [list(g) for g in groups]
    assert [v[:, 0].tolist() for v in read(dataset, "train", "target")] == [list(g) for g in groups]
    last = [v[:, 0].tolist() for v in read(dataset, "valid", "target")]
    assert last == [[4, 5, 6, 7], [12, 13, 14, 15], [18, 19]]


@pytest.mark.parametrize("kind", [CSV, Parquet])
def test_the_last_groups_for_validation(tmp_path, kind):
    settings = {"values": ["x"], "group": "who", "valid": 0.34, "split": "sequence"}
    dataset = build(kind(files=[table(tmp_path, kind)], **settings), tmp_path)
    assert [len(v) for v in read(dataset, "train", "values")] == [8, 8]
    assert [v[:, 0].tolist() for v in read(dataset, "valid", "values")] == [[16, 17, 18, 19]]


def test_a_group_over_the_border_of_blocks(tmp_path):
    rows = [f"{i // 40_000},{i}\n" for i in range(200_000)]
    (tmp_path / "t.csv").write_text("g,x\n" + "".join(rows))  # 2 MB, and pyarrow's blocks are of 1
    dataset = build(CSV(files=["t.csv"], group="g", values=["x"], valid=0), tmp_path)
    found = read(dataset, "train", "values")
    assert [len(v) for v in found] == [40_000] * 5
    np.testing.assert_array_equal(np.concatenate(found)[:, 0], np.arange(200_000))


def test_each_file_is_a_sequence(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text("x;y\n" + "1;2\n" * 3)
    dataset = build(CSV(files=["*.csv"], delimiter=";", valid=0), tmp_path)
    assert [v.shape for v in read(dataset, "train", "values")] == [(3, 2)] * 2


@pytest.mark.parametrize(
    ("text", "settings", "error", "what"),
    [
        ("x,y\n1,2\n3,oops\n", {}, DataError, r"line 3: column 'y' is no finite number \('oops'\)"),
        ("x,y\n1,2\n3,\n", {}, DataError, "line 3: column 'y' has no value"),
        ("x,y\n1,2\n3,NaN\n", {}, DataError, "line 3: column 'y' has no value"),
        ("x,y\n1,2\n3,inf\n", {}, DataError, "line 3: column 'y' is no finite number"),
        ("x,y\n1,\n3,4\n", {}, DataError, "line 2: column 'y' has no value"),
        ("x,y\n1,inf\n", {}, DataError, "line 2: column 'y' is no finite number"),
        ("x,x\n1,2\n", {}, DataError, "has 2 columns 'x'; rename all but one"),
        ("x,y\n1,2\n3\n", {}, DataError, "line 3: 1 cells where line 1 names 2"),
        ('x,y\n"a\nb",2\n', {"values": ["y", "x"]}, DataError, "line 2: column 'x' is no"),
        ("x,g\n1,a\n2,\n", {"group": "g"}, DataError, "line 3: column 'g' has no value"),
        ("1,2\n3,4\n", {}, DataError, "line 1: the names of the columns belong here"),
        ("x,y\n", {"values": ["x"]}, DataError, "holds no data"),
        ("x,y\na,b\n", {}, JobError, "has no column of numbers"),
        ("x,y\n1,2\n", {"values": ["z"]}, JobError, r"no column 'z' \(setting 'values'\)"),
        ("speed,y\n1,2\n", {"target": ["sped"]}, JobError, "did you mean 'speed'"),
        ("x,y\n1,2\n", {"valid": 0.6, "test": 0.5}, JobError, "leave nothing to train"),
    ],
)
def test_wrong_csv(tmp_path, text, settings, error, what):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(error, match=what) as raised:
        build(CSV(files=["t.csv"], **settings), tmp_path)
    sentence_of(raised.value)
    assert not list(tmp_path.glob("dataset*"))


def test_columns_without_a_number_are_left_out(tmp_path):
    (tmp_path / "t.csv").write_text("day,x,nothing\nmonday,1,\ntuesday,2,\n")
    assert build(CSV(files=["t.csv"], valid=0), tmp_path).columns["values"].width == 1


def test_wrong_parquet(tmp_path):
    papq.write_table(
        pa.table({"x": [1.0, None, 2.0], "s": ["a", "b", "c"]}), tmp_path / "t.parquet"
    )
    (tmp_path / "no.parquet").write_bytes(b"PAR1 no")
    for settings, error, what in (
        ({"files": ["t.parquet"]}, DataError, "t.parquet, row 2: column 'x' has no value"),
        (
            {"files": ["t.parquet"], "values": ["s"]},
            JobError,
            r"'s' \(setting 'values'\) holds no numbers: it holds text",
        ),
        ({"files": ["no.parquet"]}, DataError, "cannot be read as Parquet"),
    ):
        with pytest.raises(error, match=what) as raised:
            build(Parquet(**settings), tmp_path)
        sentence_of(raised.value)


# Time stamps, the calendar, and missing values of tables.


def circle(part):
    return [np.sin(2 * np.pi * part), np.cos(2 * np.pi * part)]


STAMPS = ["2024-02-29", "2024-02-29T18:45:00", "2024-12-31 23:59:59", "2025-01-01 00:00:00"]
CALENDAR = [
    # hour of 24, weekday of 7 (a Thursday is 3), month of 12, day of the year of 365.25
    [0, 3 / 7, 1 / 12, 59 / 365.25],
    [18.75 / 24, 3 / 7, 1 / 12, 59 / 365.25],
    [(23 + 59 / 60 + 59 / 3600) / 24, 1 / 7, 11 / 12, 365 / 365.25],
    [0, 2 / 7, 0, 0],
]


def stamped(tmp_path, kind):
    """A table of time stamps as texts, as timestamps, or as those of a zone."""
    if kind == "csv":
        rows = "".join(f"{stamp},{i}\n" for i, stamp in enumerate(STAMPS))
        (tmp_path / "t.csv").write_text("when,x\n" + rows)
        return CSV(files=["t.csv"], time="when", valid=0)
    stamps = np.array([stamp.replace(" ", "T") for stamp in STAMPS], "datetime64[ns]")
    columns = {
        "texts": pa.array(STAMPS),
        "categories": pa.array(STAMPS).dictionary_encode(),
        "stamps": pa.array(stamps),
        "zone": pa.array(stamps - np.timedelta64(1, "h")).cast(pa.timestamp("ns", "Etc/GMT-1")),
    }
    papq.write_table(pa.table({"when": columns[kind], "x": range(4)}), tmp_path / "t.parquet")
    return Parquet(files=["t.parquet"], time="when", valid=0)


@pytest.mark.parametrize("kind", ["csv", "texts", "categories", "stamps", "zone"])
def test_the_calendar_of_time_stamps(tmp_path, kind):
    reader = stamped(tmp_path, kind)
    reader.calendar = ["hour", "weekday", "month", "yearday"]
    dataset = build(reader, tmp_path)
    waves = [f"{field}:{wave}" for field in reader.calendar for wave in ("sin", "cos")]
    assert dataset.columns == {
        "values": Column.values(9, names=["x", *waves], roles=["value", *["calendar"] * 8]),
        "target": named("x"),
    }
    wanted = [
        [i, *np.concatenate([circle(part) for part in parts])] for i, parts in enumerate(CALENDAR)
    ]
    np.testing.assert_allclose(read(dataset, "train", "values")[0], wanted, atol=1e-6)
    assert read(dataset, "train", "target")[0].tolist() == [[0], [1], [2], [3]]


def test_only_the_named_fields_of_the_calendar_in_their_order(tmp_path):
    papq.write_table(
        pa.table({"day": pa.array([0, 20]).cast(pa.int32()).cast(pa.date32()), "x": [1.0, 2.0]}),
        tmp_path / "t.parquet",
    )
    reader = Parquet(files=["t.parquet"], time="day", calendar=["yearday", "weekday"], valid=0)
    (found,) = read(build(reader, tmp_path), "train", "values")
    wanted = [[1, *circle(0), *circle(3 / 7)], [2, *circle(20 / 365.25), *circle(2 / 7)]]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_time_alone_adds_nothing_and_is_no_value(tmp_path):
    (tmp_path / "t.csv").write_text("day,x\n20240101,1\n20240101,2\n20240301,3\n")
    dataset = build(CSV(files=["t.csv"], time="day", valid=0), tmp_path)
    assert dataset.columns == {"values": named("x")}


def test_months_and_offsets_are_times(tmp_path):
    # The clock goes back an hour, and time does not.
    stamps = ["2024-09-01T00:00Z", "2024-10-27T02:30:00+02:00", "2024-10-27T02:00:00+01:00"]
    (tmp_path / "t.csv").write_text("when,x\n" + "".join(f"{stamp},0\n" for stamp in stamps))
    reader = CSV(files=["t.csv"], time="when", calendar=["hour"], valid=0)
    (found,) = read(build(reader, tmp_path), "train", "values")
    wanted = [[0, *circle(part / 24)] for part in (0, 2.5, 2)]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_time_begins_anew_with_a_sequence(tmp_path):
    text = "when,who,x\n2024-01-02,a,0\n2024-01-03,a,0\n2024-01-01,b,0\n2024-01-01,b,0\n"
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text(text)
    settings = {"files": ["*.csv"], "time": "when", "group": "who", "valid": 0}
    assert build(CSV(**settings, join=False), tmp_path).splits["train"].sequences == 4
    what = r"b.csv, line 2: column 'when' \(2024-01-02.*a.csv, line 3\); set join = false"
    with pytest.raises(DataError, match=what):
        build_dataset(CSV(**settings | {"files": [str(tmp_path / "*.csv")]}), tmp_path / "other")


@pytest.mark.parametrize(
    ("stamps", "settings", "error", "what"),
    [
        (["2024-01-01", "1/2/2024"], {}, DataError, r"line 3: column 'when' holds no date or time"),
        (["2024-01-01", "13:00"], {}, DataError, r"line 3: .* \('13:00'\); write it as 2020-12-31"),
        (["2024-01-01", ""], {}, DataError, "line 3: column 'when' has no value"),
        (["2024-01-02\n", "2024-01-01"], {}, DataError, r"line 4: .* \(2024-01-01\) is before the"),
        (["2024"], {"time": None}, JobError, "'calendar': name the column of dates"),
        (["2024"], {"time": "wen"}, JobError, r"'wen' \(setting 'time'\); did you mean 'when'"),
        (["2024"], {"values": ["when"]}, JobError, "'time' and 'values': both name the column"),
    ],
)
def test_wrong_times(tmp_path, stamps, settings, error, what):
    rows = "".join(f"0,{stamp.strip()}\n" + "\n" * stamp.count("\n") for stamp in stamps)
    (tmp_path / "t.csv").write_text("x,when\n" + rows)
    settings = {"time": "when", "calendar": ["hour"], "valid": 0} | settings
    with pytest.raises(error, match=what) as raised:
        build(CSV(files=["t.csv"], **settings), tmp_path)
    sentence_of(raised.value)


def test_wrong_times_of_parquet(tmp_path):
    day = np.datetime64("2024-01-01", "us")
    for times, what in (
        (
            [1, 2],
            "column 'when' holds numbers .1 to 2., not dates or times; set time_unit = 's' wh",
        ),
        ([45000, 45001], "where they are the days that Excel counts"),
        ([day, None], "row 2: column 'when' has no value"),
        ([day + 1, day], "row 2: column 'when' .* is before the row before"),
    ):
        papq.write_table(pa.table({"when": times, "x": [1, 2]}), tmp_path / "t.parquet")
        with pytest.raises((DataError, JobError), match=what) as raised:
            build(Parquet(files=["t.parquet"], time="when"), tmp_path)
        sentence_of(raised.value)


def test_an_order_of_time_over_the_border_of_blocks(tmp_path):
    day = np.datetime64("2000-01-01T00:00:00")
    stamps = [str(day + np.timedelta64(i, "m")) for i in range(60_000)]
    # Read in blocks, the row whose time is wrong is the first one of a block.
    block = (1 << 20) // len(f"{stamps[0]},1\n")
    stamps[block] = "1999-01-01T00:00:00"
    (tmp_path / "t.csv").write_text("t,x\n" + "".join(f"{stamp},1\n" for stamp in stamps))
    with pytest.raises(DataError, match=f"line {block + 2}: column 't'"):
        build(CSV(files=["t.csv"], time="t"), tmp_path)


def gaps(values):
    """Whether each cell is there, and the cells with the last value before in its stead."""
    there = ~np.isnan(values)
    filled = np.zeros_like(values)
    for column in range(values.shape[1]):
        last = 0.0
        for row in range(len(values)):
            last = values[row, column] if there[row, column] else last
            filled[row, column] = last
    return filled, there


@pytest.mark.parametrize("kind", [CSV, Parquet])
@pytest.mark.parametrize("target", [[], ["z", "x"]])
@pytest.mark.parametrize("length", [40, 40_000])  # in one block, and in several
def test_missing_cells_are_masked(tmp_path, kind, target, length):
    rng = np.random.default_rng(0)
    groups, columns = 3 if length == 40 else 1, "xyz"
    cells = rng.standard_normal((groups * length, 3)).astype(np.float32)
    cells[rng.random(cells.shape) < 0.4] = np.nan
    cells[0] = np.nan
    names = np.repeat(np.arange(groups), length)
    if kind is CSV:
        nothing = ["", "NA", "NaN", "null"]
        rows = [
            f"g{group}," + ",".join(nothing[i % 4] if c != c else repr(float(c)) for c in row)
            for i, (group, row) in enumerate(zip(names, cells, strict=True))
        ]
        (tmp_path / "t").write_text("who,x,y,z\n" + "\n".join(rows) + "\n")
    else:
        table = {"who": names} | {
            name: pa.array(cells[:, i], from_pandas=i > 0) for i, name in enumerate(columns)
        }
        papq.write_table(pa.table(table), tmp_path / "t", row_group_size=length // 3)
    settings = {"values": ["x", "y"], "target": target, "group": "who", "missing": "mask"}
    dataset = build(kind(files=["t"], valid=0.25, **settings), tmp_path)
    assert dataset.columns == {
        "values": Column.values(
            4,
            names=["x", "y", "x:observed", "y:observed"],
            roles=["value", "value", "observed", "observed"],
        ),
        "target": named(*(target or "xy")),
        "observed": Column.flags(["target"] if target else None),
    } | ({"values:observed": Column.flags(["values"])} if target else {})
    picked = [2, 0] if target else [0, 1]
    for group in range(groups):
        filled, there = gaps(cells[names == group])
        wanted = {
            "values": np.concatenate([filled[:, :2], there[:, :2]], axis=1),
            "target": filled[:, picked],
            "observed": there[:, picked].all(axis=1),
        } | ({"values:observed": there[:, :2].all(axis=1)} if target else {})
        for column, rows in wanted.items():
            parts = [read(dataset, split, column)[group] for split in ("train", "valid")]
            np.testing.assert_array_equal(np.concatenate(parts), rows)


def test_the_calendar_comes_before_what_is_observed(tmp_path):
    (tmp_path / "t.csv").write_text("when,x,y\n2024-01-01,,1\n2024-01-01 12:00,2,\n")
    settings = {"time": "when", "calendar": ["hour"], "missing": "mask", "valid": 0}
    dataset = build(CSV(files=["t.csv"], **settings), tmp_path)
    (found,) = read(dataset, "train", "values")
    np.testing.assert_allclose(found, [[0, 1, 0, 1, 0, 1], [2, 1, 0, -1, 1, 0]], atol=1e-6)
    assert read(dataset, "train", "target")[0].tolist() == [[0, 1], [2, 1]]
    assert read(dataset, "train", "observed")[0].tolist() == [0, 0]


def test_a_number_that_stands_for_no_value(tmp_path):
    (tmp_path / "t.csv").write_text("x\n1\n-999\n3\n")
    settings = {"files": ["t.csv"], "null_values": ["-999"], "valid": 0}
    with pytest.raises(DataError, match=r"line 3: column 'x' has no value"):
        build(CSV(**settings), tmp_path)
    dataset = build(CSV(**settings, missing="mask"), tmp_path)
    assert read(dataset, "train", "values")[0].tolist() == [[1, 1], [1, 0], [3, 1]]


def test_what_is_no_figure_is_refused_where_cells_may_be_missing(tmp_path):
    for cell in ("oops", "inf", "N/A", "1_0"):
        (tmp_path / "t.csv").write_text(f"x,y\n1,\n,2\n2,{cell}\n")
        with pytest.raises(DataError, match=r"line 4: column 'y' .* 'null_values'") as raised:
            build(CSV(files=["t.csv"], missing="mask"), tmp_path)
        sentence_of(raised.value)
    papq.write_table(pa.table({"x": [None, np.inf]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="row 2: column 'x' holds an infinite value") as raised:
        build(Parquet(files=["t.parquet"], missing="mask"), tmp_path)
    sentence_of(raised.value)


@pytest.mark.parametrize("kind", [CSV, Parquet])
def test_the_first_rows(tmp_path, kind):
    settings = {"files": [table(tmp_path, kind)], "values": ["x"], "valid": 0.4}
    dataset = build(kind(**settings, first=5), tmp_path)
    assert [v[:, 0].tolist() for v in read(dataset, "train", "values")] == [[0, 1, 2]]
    assert [v[:, 0].tolist() for v in read(dataset, "valid", "values")] == [[3, 4]]
    (tmp_path / "groups").mkdir()
    settings["files"] = [str(tmp_path / name) for name in settings["files"]]
    dataset = build(kind(**settings, first=5, group="who"), tmp_path / "groups")
    assert [len(v) for v in read(dataset, "train", "values")] == [3, 3, 2]
    assert [v[:, 0].tolist() for v in read(dataset, "valid", "values")][1:] == [[11, 12], [18, 19]]
    assert build_dataset(kind(**settings, first=50), tmp_path / "all").info()["steps"] == 20


# NumPy arrays.


def test_many_sequences_of_an_array(tmp_path):
    values = np.random.default_rng(0).standard_normal((10, 5, 3))
    np.save(tmp_path / "a.npy", values)
    dataset = build(NumPyArrays(files=["a.npy"], valid=0.2), tmp_path)
    np.testing.assert_array_equal(read(dataset, "train", "values"), values[:8].astype(np.float32))
    np.testing.assert_array_equal(read(dataset, "valid", "values"), values[8:].astype(np.float32))


def test_one_sequence_and_its_target(tmp_path):
    np.savez(tmp_path / "a.npz", values=np.ones((20, 3)), d=np.arange(20.0)[:, None], other=1)
    dataset = build(NumPyArrays(files=["a.npz"], target="d"), tmp_path)
    (target,) = read(dataset, "valid", "target")
    assert target.tolist() == [[18], [19]]
    assert [v.shape for v in read(dataset, "train", "values")] == [(18, 3)]


def test_a_long_array_is_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("rnnfarm.builtin.arrays.BLOCK", 7)
    np.save(tmp_path / "a.npy", np.arange(50.0)[:, None])
    dataset = build(NumPyArrays(files=["a.npy"], valid=0.2), tmp_path)
    (train,), (valid,) = (read(dataset, split, "values") for split in ("train", "valid"))
    assert train[:, 0].tolist() == list(range(40))
    assert valid[:, 0].tolist() == list(range(40, 50))


def test_arrays_of_tokens(tmp_path):
    np.save(tmp_path / "train.npy", np.arange(12, dtype=np.uint16).reshape(2, 6))
    np.save(tmp_path / "valid.npy", np.arange(5))
    settings = {"files": ["*.npy"], "valid_files": ["valid.npy"], "vocabulary": 1000}
    dataset = build(NumPyArrays(**settings), tmp_path)
    assert dataset.columns["tokens"].dtype == "uint16"
    assert [t.tolist() for t in read(dataset, "valid")] == [[0, 1, 2, 3, 4]]
    assert dataset.splits["train"].sequences == 2


def test_arrays_with_a_class_for_each_step(tmp_path):
    np.savez(tmp_path / "a.npz", values=np.ones((4, 5, 2)), speaker=np.arange(20).reshape(4, 5) % 3)
    dataset = build(NumPyArrays(files=["a.npz"], target="speaker", classes=3, valid=0), tmp_path)
    assert dataset.columns["target"] == Column.tokens(3)
    assert [t.tolist() for t in read(dataset, "train", "target")][1] == [2, 0, 1, 2, 0]


def test_arrays_of_halves(tmp_path, recwarn):
    np.save(tmp_path / "a.npy", np.full((4, 2), 0.5, np.float16))
    dataset = build(NumPyArrays(files=["a.npy"], valid=0), tmp_path)
    assert read(dataset, "train", "values")[0].tolist() == [[0.5, 0.5]] * 4
    assert not recwarn.list


@pytest.mark.parametrize(
    ("arrays", "settings", "error", "what"),
    [
        (
            {"values": np.ones((3, 1)), "d": np.arange(3)},
            {"values": "values", "target": "d"},
            DataError,
            "column 'target' is int64 .* give 'classes' where it holds classes",
        ),
        (
            {"values": np.ones((3, 1)), "d": np.arange(3)},
            {"values": "values", "target": "d", "classes": 2},
            DataError,
            "column 'target': 2 at index \\[2\\] is outside the classes of 2",
        ),
        ({"values": np.ones(3)}, {}, DataError, r"of shape \(3,\), but takes \(T, F\) or"),
        ({"values": np.array(["a"])}, {}, DataError, "is <U1 of shape"),
        (
            {"values": np.ones((3, 1)), "d": np.ones((2, 1))},
            {"target": "d"},
            DataError,
            "same step",
        ),
        ({"values": np.ones((3, 1))}, {"target": "d"}, JobError, "has no array 'd'"),
        ({"a": np.ones((3, 1)), "b": np.ones((3, 1))}, {}, JobError, "holds several arrays"),
        (
            {"values": np.full((3, 1), np.nan)},
            {},
            DataError,
            r"column 'values': nan at index \[0, 0\]",
        ),
        (
            {"values": np.arange(9)},
            {"vocabulary": 5},
            DataError,
            r"column 'tokens': 5 at index \[5\] is outside the vocabulary of 5",
        ),
        (
            {"values": np.ones(9)},
            {"vocabulary": 5},
            DataError,
            "takes integers, since 'vocabulary' is given",
        ),
        ({"values": np.array([{}])}, {}, DataError, "holds Python objects; save numbers"),
    ],
)
def test_wrong_arrays(tmp_path, arrays, settings, error, what):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(error, match=what) as raised:
        build(NumPyArrays(files=["a.npz"], valid=0, **settings), tmp_path)
    sentence_of(raised.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_archives(tmp_path, save):
    path = tmp_path / "a.npz"
    save(path, values=np.random.default_rng(0).random((100, 3)))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[150] ^= 255
    for damaged in (whole[:200], flipped):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"cannot be read as \.npy or \.npz") as raised:
            build(NumPyArrays(files=["a.npz"]), tmp_path)
        sentence_of(raised.value)


def test_a_file_that_is_no_array(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match=r"a\.npy: cannot be read as \.npy"):
        build(NumPyArrays(files=["a.npy"]), tmp_path)


# By name, as the command line and jobs have them.


def test_build_by_name(tmp_path):
    (tmp_path / "a.txt").write_text("hello " * 50)
    registry = Registry.load()
    dataset = build_from_settings(
        "characters", {"files": ["a.txt"]}, tmp_path / "d", registry, base=tmp_path
    )
    assert dataset.info()["steps"] == 300
    with pytest.raises(PluginError, match="charcters"):
        build_from_settings("charcters", {"files": ["a.txt"]}, tmp_path / "e", registry)
    for kind in registry.names("readers"):
        assert registry.get("readers", kind)


def test_a_job_builds_its_dataset_once(tmp_path):
    (tmp_path / "a.txt").write_text("hello " * 50)
    registry = Registry.load()
    table = {
        "data": {"path": "d", "build": {"reader": "bytes", "files": ["a.txt"]}},
        "model": {
            "input": {"kind": "one_hot"},
            "layers": [{"cell": "elman", "hidden": 3}],
            "loss": "cross_entropy",
        },
    }
    job = read_job(table, registry, tmp_path)
    said = []
    dataset = ensure_dataset(job, registry, said.append)
    assert dataset.splits["train"].steps == 270
    assert (tmp_path / "d" / "dataset.json").exists()
    assert any("built" in line for line in said)
    before = (tmp_path / "d" / "shard-00000.arrow").stat().st_mtime_ns
    (tmp_path / "a.txt").unlink()
    assert ensure_dataset(job, registry).splits == dataset.splits
    assert (tmp_path / "d" / "shard-00000.arrow").stat().st_mtime_ns == before


def test_runs_that_start_together_share_the_dataset_that_one_of_them_builds(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("hello " * 50)
    registry = Registry.load()
    build = {"reader": "bytes", "files": ["a.txt"]}
    model = {
        "input": {"kind": "one_hot"},
        "layers": [{"cell": "elman", "hidden": 3}],
        "loss": "cross_entropy",
    }
    job = read_job({"data": {"path": "d", "build": build}, "model": model}, registry, tmp_path)
    sequences = Bytes.sequences

    def slow(self):
        monkeypatch.setattr(Bytes, "sequences", sequences)
        ensure_dataset(job, registry)
        yield from sequences(self)

    monkeypatch.setattr(Bytes, "sequences", slow)
    assert ensure_dataset(job, registry).splits["train"].steps == 270
    assert [path.name for path in tmp_path.glob("d*")] == ["d"]


def test_home_in_a_path(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("hello")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert texts(build(Bytes(files=["~/a*.txt"], valid=0), tmp_path / "d"), "train") == ["hello"]


# Real data.


def test_tiny_shakespeare(tmp_path):
    text = real_data("tinyshakespeare/input.txt")
    dataset = build(Characters(files=[str(text)]), tmp_path)
    assert dataset.columns["tokens"].vocabulary == 65
    assert dataset.info()["steps"] == 1_115_394
    whole = "".join(texts(dataset, "train") + texts(dataset, "valid"))
    assert whole == text.read_text()


def test_electricity(tmp_path):
    path = real_data("ett/ETTh1.csv")
    dataset = build(CSV(files=[str(path)], valid=0.2, test=0.2), tmp_path)
    assert dataset.columns["values"].width == 7
    rows = np.concatenate([read(dataset, s, "values")[0] for s in ("train", "valid", "test")])
    wanted = np.loadtxt(path, delimiter=",", skiprows=1, usecols=range(1, 8))
    np.testing.assert_allclose(rows, wanted, rtol=1e-6)


def test_lines_of_sentences(tmp_path):
    path = real_data("multi30k/val.en")
    dataset = build(Words(files=[str(path)], valid=0, sequence="line"), tmp_path)
    assert dataset.splits["train"].sequences == 1014
    lines = path.read_text().splitlines(keepends=True)
    assert texts(dataset, "train") == [" ".join(line.split()) + "\n" for line in lines]


def test_the_first_rows_of_each_sequence(tmp_path: Path) -> None:
    rows = "".join(f"{k // 7},{k}\n" for k in range(40))
    (tmp_path / "table.csv").write_text(f"group,x\n{rows}")
    reader = CSV(files=[str(tmp_path / "table.csv")], group="group", first=3, valid=0.0)
    split = build_dataset(reader, tmp_path / "data").split("train")
    assert split.starts().tolist() == [0, 3, 6, 9, 12, 15]
    assert split.read("values", 3, 6)[:, 0].tolist() == [7, 8, 9]


@pytest.mark.parametrize(("name", "classes"), [("labels", 4), ("vectors", None)])
def test_a_target_for_each_of_many_arrays(tmp_path: Path, name: str, classes: int | None) -> None:
    values = np.random.default_rng(0).random((20, 5, 3)).astype(np.float32)
    arrays = {"labels": np.arange(20) % 4, "vectors": values[:, 0, :2]}
    np.savez(tmp_path / "arrays.npz", values=values, **arrays)
    settings = {"classes": classes} if classes else {}
    reader = NumPyArrays(files=[str(tmp_path / "arrays.npz")], target=name, **settings)
    dataset = build_dataset(reader, tmp_path / "data")
    assert dataset.columns["target"].own
    assert dataset.split("train").own("target", 5).tolist() == arrays[name][1:2].tolist()
    assert dataset.split("valid").own("target", 5).tolist() == arrays[name][19:].tolist()


def test_a_counter_is_a_time_in_seconds(tmp_path):
    """As the message on numbers says."""
    (tmp_path / "t.csv").write_text("cycle,x\n" + "".join(f"{i},{i / 4}\n" for i in range(8)))
    with pytest.raises(JobError, match="set time_unit = 's' where they only count, as 0, 1, 2"):
        build(CSV(files=["t.csv"], time="cycle", valid=0), tmp_path)
    dataset = build(CSV(files=["t.csv"], time="cycle", time_unit="s", valid=0), tmp_path)
    np.testing.assert_array_equal(
        dataset.split("train").read("values", 0, 8)[:, 0], np.arange(8) / 4
    )
