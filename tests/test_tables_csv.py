"""CSV files as people have them: which columns are values, and how their cells are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_tools import sentence_of
from table_tools import notes, values

from rnnfarm.builtin.csv_files import CSV
from rnnfarm.data import Dataset, build_dataset
from rnnfarm.errors import DataError, JobError, RnnfarmError


def build(folder: Path, text: str | bytes, name: str = "d", **settings: Any) -> Dataset:
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "t.csv").write_bytes(data)
    reader = CSV(files=["t.csv"], **{"valid": 0.0, **settings})
    reader.base = folder
    return build_dataset(reader, folder / name)


def names(dataset: Dataset) -> list[str]:
    return dataset.columns["values"].names or []


def refused(folder: Path, text: str | bytes, **settings: Any) -> RnnfarmError:
    with pytest.raises((JobError, DataError)) as error:
        build(folder, text, **settings)
    assert "t.csv" in str(error.value) or "setting" in str(error.value)
    sentence_of(error.value)
    return error.value


@pytest.mark.parametrize(
    ("text", "mark", "found"),
    [
        ("a,b\n1,2\n3,4\n", ",", [[1, 2], [3, 4]]),
        ("a;b\n1;2\n3;4\n", ";", [[1, 2], [3, 4]]),
        ("a\tb\n1\t2\n3\t4\n", "\t", [[1, 2], [3, 4]]),
        ("a|b\n1|2\n3|4\n", "|", [[1, 2], [3, 4]]),
        ("size, cm;b\n1;2\n3;4\n", ";", [[1, 2], [3, 4]]),
        ("a;b\n1,5;2\n3,25;4\n", ";", [[1.5, 2], [3.25, 4]]),
        ('a,b\n1,"x;y;z"\n2,"u;v;w"\n', ",", [[1], [2]]),
        ("a\n1\n2\n", ",", [[1], [2]]),
    ],
)
def test_what_separates_cells(tmp_path: Path, text: str, mark: str, found: Any) -> None:
    dataset = build(tmp_path, text)
    assert values(dataset) == found
    assert dataset.provenance is not None
    assert dataset.provenance.learned["delimiter"] == mark
    assert ("separated" in notes(dataset)) == (mark != ",")


@pytest.mark.parametrize(
    ("cells", "form", "found"),
    [
        (["0,5", "1,25", "2"], "decimal = ','", [0.5, 1.25, 2]),
        (["1,000.5", "999", "-1,234,567"], "thousands = ','", [1000.5, 999, -1234567]),
        (["1.000,5", "999"], "decimal = ',' and thousands = '.'", [1000.5, 999]),
        (["1 000.5", "9\u202f999"], "thousands = ' '", [1000.5, 9999]),
        (["1 234", "5"], "thousands = ' '", [1234, 5]),
        (["1'234", "1'000'005"], "thousands = '''", [1234, 1000005]),
        (["1'000.5", "1e3"], "thousands = '''", [1000.5, 1000]),
        (["1.5", " +2 ", "3e-1", ".5", "4.", "-0"], "", [1.5, 2, 0.3, 0.5, 4, 0]),
    ],
)
def test_how_numbers_are_written(
    tmp_path: Path, cells: list[str], form: str, found: list[float]
) -> None:
    dataset = build(tmp_path, "x;y\n" + "".join(f"{cell};0\n" for cell in cells))
    wanted = np.float32([[value, 0] for value in found]).tolist()
    assert values(dataset) == wanted
    assert (f"numbers are read with {form}" in notes(dataset)) == bool(form)


def test_a_setting_says_how_numbers_are_written(tmp_path: Path) -> None:
    text = "x;y\n1,234;0\n2,345;0\n"
    error = refused(tmp_path, text)
    assert error.exit_code == 2
    assert "'1,234'" in str(error)
    assert "thousands = ',' or decimal = ','" in str(error)
    assert values(build(tmp_path, text, "a", thousands=",")) == [[1234, 0], [2345, 0]]
    wanted = np.float32([[1.234, 0], [2.345, 0]]).tolist()
    assert values(build(tmp_path, text, "b", decimal=",")) == wanted
    # Another row tells.
    assert values(build(tmp_path, text + "1,5;0\n", "c"))[0] == wanted[0]
    assert values(build(tmp_path, text + "1,234.5;0\n", "e"))[0] == [1234, 0]


@pytest.mark.parametrize("cell", ["1_0", "١", "0x10", "1d5", "1,5", "--1", "1.2.3", "infinity"])
def test_what_is_no_number(tmp_path: Path, cell: str) -> None:
    text = f"x;y\n1;0\n2;0\n3;0\n{cell};0\n"
    assert f"line 5: column 'x' is no finite number ({cell!r})" in str(
        refused(tmp_path, text, decimal=".")
    )


def test_a_column_of_codes_is_text(tmp_path: Path) -> None:
    dataset = build(tmp_path, "code,x\n2024_01,1\n2024_02,5\n")
    assert names(dataset) == ["x"]
    assert "column 'code' is left out: it holds text ('2024_01')" in notes(dataset)


def test_columns_that_are_left_out_are_named(tmp_path: Path) -> None:
    rows = [
        ("0", "9", "", "a", "2024-01-01", "5 kg", "yes", "3", ""),
        ("1", "8", "", "b", "2024-01-02", "6 kg", "no", "3", "7"),
        ("2", "9", "", "a", "2024-01-03", "7kg", "YES", "3", ""),
        ("3", "7", "", "b", "2024-01-04", "8 kg", "No", "3", "7"),
    ]
    head = ",load,hole,city,day,weight,open,same,late\n"
    text = head + "".join(",".join(row) + "\n" for row in rows)
    dataset = build(tmp_path, text, missing="mask")
    assert names(dataset)[:4] == ["load", "open", "same", "late"]
    assert [row[1] for row in values(dataset)] == [1, 0, 1, 0]
    said = notes(dataset)
    for sentence in (
        "values: load, open, same, late",
        "column without a name is left out: it counts the rows, as the index that pandas writes",
        "column 'hole' is left out: it has no value in any row",
        "column 'city' is left out: it holds text ('a'); name it in 'categories' to read it",
        "column 'day' is left out: it holds dates or times ('2024-01-01'); name it in 'time'",
        "column 'weight' is left out: its numbers have the unit 'kg' ('5 kg'); name it in 'values'",
        "true and yes are read as 1, false and no as 0: open",
        "column 'same' is the same in every row (3)",
    ):
        assert sentence in said
    assert dataset.provenance is not None
    assert list(dataset.provenance.learned["left_out"]) == ["", "hole", "city", "day", "weight"]
    named = build(tmp_path, text, "named", values=["weight"])
    assert values(named) == [[5], [6], [7], [8]]
    assert "are left out: 'values' does not name them" in notes(named)


def test_a_unit_is_the_same_in_all_rows(tmp_path: Path) -> None:
    error = refused(tmp_path, "x,y\n5 kg,1\n6,2\n", values=["x"])
    assert "line 2: column 'x' is no finite number ('5 kg')" in str(error)
    error = refused(tmp_path, "x,y\n5 kg,1\n6 kg,2\n7 g,3\n", values=["x"])
    assert "line 2: column 'x' is no finite number ('5 kg')" in str(error)


def test_a_value_after_many_empty_cells(tmp_path: Path) -> None:
    rows = 30_000  # several blocks
    text = "x,late\n" + "".join(f"{i % 7}{i % 10}.25,\n" for i in range(rows)) + "1,5\n"
    dataset = build(tmp_path, text, missing="mask")
    assert names(dataset) == ["x", "late", "x:observed", "late:observed"]
    assert values(dataset)[-1] == [1, 5, 1, 1]
    assert values(dataset)[0][2:] == [1, 0]


@pytest.mark.parametrize("cell", ["-", "N/A", "?"])
def test_a_spelling_of_no_value_at_the_top(tmp_path: Path, cell: str) -> None:
    text = f"x,y\n1,{cell}\n2,5\n3,{cell}\n4,{cell}\n"
    error = refused(tmp_path, text)
    assert error.exit_code == 5
    assert f"line 2: column 'y' is no finite number ({cell!r})" in str(error)
    assert "'null_values'" in str(error)
    dataset = build(tmp_path, text, missing="mask", null_values=["", cell])
    assert [row[1:] for row in values(dataset)] == [[0, 1, 0], [5, 1, 1], [5, 1, 0], [5, 1, 0]]


def test_blanks_are_no_part_of_a_cell(tmp_path: Path) -> None:
    text = "x , g ,y\n 1 , a,NA \n2,a ,\t\n3,\u00a0b,4\n"
    dataset = build(tmp_path, text, missing="mask", group="g", values=["x", "y"])
    assert values(dataset) == [[1, 0, 1, 0], [2, 0, 1, 0], [3, 4, 1, 1]]
    assert dataset.split("train").starts().tolist() == [0, 2]


def test_leading_lines_and_marks(tmp_path: Path) -> None:
    plain = values(build(tmp_path, "a,b\n1,2\n", "plain"))
    for number, text in enumerate(
        (b"\n\na,b\n1,2\n", b"\xef\xbb\xbfa,b\r\n1,2\r\n", b" \n,\na,b\n1,2")
    ):
        assert values(build(tmp_path, text, str(number))) == plain
    error = refused(tmp_path, "\n\na,b\n1,2\n\n3,x\n")
    assert "line 6: column 'b' is no finite number ('x')" in str(error)


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    text = "größe,b\n1,2\n3,4\n".encode(encoding)
    error = refused(tmp_path, text)
    assert error.exit_code == 5
    assert f"encoding = '{encoding}'" in str(error)
    dataset = build(tmp_path, text, encoding=encoding)
    assert names(dataset) == ["größe", "b"]
    assert values(dataset) == [[1, 2], [3, 4]]


def test_a_line_that_is_no_text(tmp_path: Path) -> None:
    text = "a,b\n" + "1,x\n" * 40_000 + "2,\xe9\n"
    error = refused(tmp_path, text.encode("latin-1"))
    assert "line 40002: is not UTF-8 text" in str(error)
    assert "'klingon' is not known" in str(refused(tmp_path, "a\n1\n", encoding="klingon"))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("1,2\n3,4\n", "line 1: the names of the columns belong here, not values (1, 2)"),
        ("\n2024-01-01,1.5\n2024-01-02,2\n", "line 2: the names of the columns belong here"),
        ("a,b\n1,2\n3\n", "line 3: 1 cells where line 1 names 2 columns; fix the line"),
        ("a,b\n1,2,\n3,4,\n", "line 2: 3 cells where line 1 names 2 columns; drop the separators"),
        ("a\n0,5\n1,5\n", "line 2: 2 cells where line 1 names 1 columns; put quotation marks"),
        ('a,b\n"1",2\n"1\n2",2\n"5",3\n', "line 3: column 'a' is no finite number"),
        ('a,b,c\n1,2,"x\ny"\n3,z,u\n', "line 4: column 'b' is no finite number ('z')"),
        ("a,b,a\n1,2,3\n", "has 2 columns 'a'; rename all but one"),
        ("a,b\n", "holds no data, only the names of its columns"),
        ("\n \n", "has no line of column names"),
        ("a,b\n1,1e39\n", "line 2: column 'b' is too large for float32 ('1e39'; at most 3.4e+38)"),
        ("a,b\n1,yes\n2,no\n3,maybe\n", "line 4: column 'b' is neither true nor false ('maybe')"),
        (b"PK\x03\x04 and so on", "is an Excel workbook or a zip file; save it as CSV"),
        (b"PAR1 and so on", "read it with the reader 'parquet'"),
    ],
)
def test_messages(tmp_path: Path, text: str | bytes, what: str) -> None:
    error = refused(tmp_path, text)
    assert error.exit_code == 5
    assert what in str(error)


def test_a_delimiter_that_is_not_there(tmp_path: Path) -> None:
    error = refused(tmp_path, "a;b\n1;2\n3;4\n", delimiter=",")
    assert error.exit_code == 2
    assert "line 1 has no ','; set delimiter = ';'" in str(error)
    assert values(build(tmp_path, "a\n1\n3\n", delimiter=",")) == [[1], [3]]


def test_no_column_of_numbers_says_why(tmp_path: Path) -> None:
    error = refused(tmp_path, "a,b\nx,1 kg\ny,2 kg\n")
    assert error.exit_code == 2
    assert "'a': it holds text ('x')" in str(error)
    assert "'b': its numbers have the unit 'kg'" in str(error)
    assert "has no column of numbers" in str(refused(tmp_path, "a\nx\n", group="a"))


def test_precision_that_is_lost_is_said(tmp_path: Path) -> None:
    rows = [
        (20_000_001 + 2 * i, 1_700_000_000 + 60 * i, 100_000 + i / 1000, 16_777_216, i * 0.1)
        for i in range(50)
    ]
    text = "id,ts,fine,edge,x\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)
    said = notes(build(tmp_path, text))
    rounded = sum(int(np.float32(row[0])) != row[0] for row in rows)
    assert f"column 'id' has {rounded} whole numbers that float32 rounds" in said
    assert "column 'ts' looks like a time in seconds since 1970; name it in 'time'" in said
    assert "column 'fine' changes by less than float32 shows" in said
    assert "'x' changes" not in said
    assert "'edge' has" not in said


def test_categories(tmp_path: Path) -> None:
    text = "city,x,floor\nParis,1,10\nRome,2,2\nParis,3,2\nBern,4,1\n"
    dataset = build(tmp_path, text, categories=["floor", "city"])
    assert names(dataset) == [
        "x", "floor=1", "floor=2", "floor=10", "city=Bern", "city=Paris", "city=Rome",
    ]  # fmt: skip
    assert values(dataset) == [
        [1, 0, 0, 1, 0, 1, 0],
        [2, 0, 1, 0, 0, 0, 1],
        [3, 0, 1, 0, 0, 1, 0],
        [4, 1, 0, 0, 1, 0, 0],
    ]
    split = dataset.split("train")
    assert split.read("target", 0, 4).tolist() == [[1], [2], [3], [4]]
    shuffled = "city,x,floor\nBern,4,1\nRome,2,2\nParis,1,10\nParis,3,2\n"
    again = build(tmp_path, shuffled, "again", categories=["floor", "city"])
    assert names(again) == names(dataset)


def test_a_missing_category(tmp_path: Path) -> None:
    text = "city,x\na,1\n,2\nb,3\n"
    error = refused(tmp_path, text, categories=["city"])
    assert "line 3: column 'city' has no value" in str(error)
    dataset = build(tmp_path, text, categories=["city"], missing="mask")
    assert names(dataset)[:3] == ["x", "city=a", "city=b"]
    assert values(dataset) == [[1, 1, 0, 1, 1, 1], [2, 1, 0, 1, 0, 0], [3, 0, 1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("text", "settings", "what"),
    [
        ("c,x\n" + "".join(f"n{i},1\n" for i in range(1001)), {}, "more than 1000 different"),
        ("c,x\n,1\n,2\n", {"missing": "mask"}, "has no value in any row"),
        ("c,x\na,1\n", {"values": ["c"]}, "'categories' and 'values': both name the column 'c'"),
        ("c,x,c=a\na,1,2\n", {}, "two values are called 'c=a'"),
        ("d,x\na,1\n", {}, "has no column 'c' (setting 'categories')"),
    ],
)
def test_wrong_categories(tmp_path: Path, text: str, settings: Any, what: str) -> None:
    error = refused(tmp_path, text, categories=["c"], **settings)
    assert error.exit_code == 2
    assert what in str(error)


def test_the_text_of_a_file_does_not_matter_to_the_bits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cells = rng.standard_normal((500, 2)) * 10.0 ** rng.integers(-30, 30, (500, 2))
    texts = [[repr(float(cell)) for cell in row] for row in cells]
    point = build(tmp_path, "a,b\n" + "".join(",".join(row) + "\n" for row in texts), "point")
    comma = "a;b\n" + "".join(";".join(row) + "\n" for row in texts).replace(".", ",")
    assert values(point) == values(build(tmp_path, comma, "comma")) == cells.astype("f4").tolist()


@pytest.mark.parametrize("mark", [";", "\t"])
def test_points_before_three_digits_may_group_thousands(tmp_path: Path, mark: str) -> None:
    """As commas may: 4.398 beside 943 is asked for where cells are not separated by commas."""
    text = f"x{mark}y\n4.398{mark}1\n943{mark}2\n12.050{mark}3\n"
    error = refused(tmp_path, text)
    assert error.exit_code == 2
    assert "column 'x': a cell as '4.398' can be" in str(error)
    assert "set thousands = '.' or decimal = '.'" in str(error)
    assert values(build(tmp_path, text, "a", thousands=".")) == [[4398, 1], [943, 2], [12050, 3]]
    plain = np.float32([[4.398, 1], [943, 2], [12.05, 3]]).tolist()
    assert values(build(tmp_path, text, "b", decimal=".")) == plain
    # Another cell tells, also one of another column.
    for at, (cell, other) in enumerate(
        [("1.5", "4"), ("0.702", "4"), ("-0.250", "4"), ("1.234e+02", "4"), ("5", "2.75")]
    ):
        found = build(tmp_path, text + f"{cell}{mark}{other}\n", f"c{at}")
        assert values(found) == [*plain, np.float32([float(cell), float(other)]).tolist()]
    for at, (cell, other, wanted) in enumerate(
        [("1.234.567", "4", [1234567, 4]), ("5", "2,5", [5, 2.5]), ("1.234,5", "4", [1234.5, 4])]
    ):
        found = build(tmp_path, text + f"{cell}{mark}{other}\n", f"d{at}")
        assert values(found) == [[4398, 1], [943, 2], [12050, 3], wanted]


def test_points_are_decimal_where_commas_separate_cells(tmp_path: Path) -> None:
    dataset = build(tmp_path, "x,y\n12.345,1\n13.250,2\n", "a")
    assert values(dataset) == np.float32([[12.345, 1], [13.25, 2]]).tolist()
    assert "thousands" not in notes(dataset)
    dataset = build(tmp_path, "x,y\n12.345,1\n943,2\n", "b")
    assert values(dataset) == np.float32([[12.345, 1], [943, 2]]).tolist()
    assert "set thousands = '.' where they stand between thousands" in notes(dataset)


def test_no_thousands_begin_with_a_zero(tmp_path: Path) -> None:
    text = 'v,w\n"5,548",0.702\n"2,980",0.965\n'
    assert values(build(tmp_path, text)) == np.float32([[5548, 0.702], [2980, 0.965]]).tolist()
    two = "v;w\n1.000;1.234\n2.000;0.702\n"
    error = refused(tmp_path, two, name="a", thousands=".")
    assert error.exit_code == 5
    assert "line 3: column 'w' is no finite number ('0.702')" in str(error)
    for settings in ({}, {"values": ["v", "w"]}):
        error = refused(
            tmp_path, two.replace("1.234", "0.234"), thousands=".", **settings, name="b"
        )
        assert "line 2: column 'w'" in str(error)
        assert "'0.234'" in str(error)


def test_the_settings_that_are_offered_read_the_file(tmp_path: Path) -> None:
    text = 'v,w\n"5,548",1.702\n"2,980",2.965\n'
    assert "set thousands = ',' or decimal = ','" in str(refused(tmp_path, text))
    assert values(build(tmp_path, text, thousands=","))[1] == np.float32([2980, 2.965]).tolist()


def test_what_is_said_of_several_columns_that_are_left_out(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i},{i},{'ab'[i % 2]},{'ab'[i % 2]},,\n" for i in range(8))
    text = "x,load,valve,shop,city,p,q\n" + rows
    said = notes(build(tmp_path, text, "a", values=["x"]))
    wanted = "columns 'load', 'valve', 'shop', 'city', 'p', 'q' are left out:"
    assert f"{wanted} 'values' does not name them" in said
    said = notes(build(tmp_path, text, "b"))
    assert "columns 'p', 'q' are left out: they have no value in any row" in said
    assert (
        "columns 'shop', 'city' are left out: they hold text ('a'); name them in 'categories' to"
        " read them, in 'group' where"
    ) in said
    assert "in 'label' where" in said


def test_a_line_of_names_longer_than_what_the_module_csv_reads(tmp_path: Path) -> None:
    columns = [f"{'c' * 1000}{k}" for k in range(140)]
    assert len(",".join(columns)) > 131_072
    rows = [",".join(str(k % 7) for k in range(140))] * 2
    found = build(tmp_path, "\n".join([",".join(columns), *rows, ""]))
    assert names(found) == columns
    assert values(found) == [[k % 7 for k in range(140)]] * 2
