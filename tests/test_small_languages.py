"""A user's text where it meets a language: it is quoted, or refused in a sentence.

The report page is in test_page.py, what a pack holds in test_pack.py, the terminal in test_cli.py.
"""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as papq
import pytest
import tomli_w
from conftest import Call
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnfarm import Cell, affine, parameter, sigmoid, tanh
from rnnfarm.cluster.jobs import Jobs
from rnnfarm.cluster.pack import Pack
from rnnfarm.data import Column, Reader, Sequence, build_dataset
from rnnfarm.data.times import epoch_numbers
from rnnfarm.errors import CellError, DataError, JobError
from rnnfarm.job import read_job
from rnnfarm.plugins import Registry
from rnnfarm.testing import check_cell
from rnnfarm.training.pictures import literal
from rnnfarm.training.run import read_run_job, write_run_job

REGISTRY = Registry.load()
ODD = "a [1]*? 'q' \"d\" %s {x} $HOME `id` \\n ü 😀;#"
JOB: dict[str, Any] = {
    "data": {"path": "data", "build": {"reader": "characters", "files": ["b*.txt"]}},
    "model": {
        "input": {"kind": "one_hot"},
        "layers": [{"cell": "elman", "hidden": 2}],
        "loss": "cross_entropy",
    },
    "training": {"batch": 2, "window": 4, "steps": 2, "kernel": "numpy", "evaluate_every": 1},
}


@pytest.mark.parametrize("name", [ODD, "a\nb\x1b[31m", "-~%(x)s"])
def test_a_run_lies_anywhere(
    name: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder, the job, the file and the run all have the odd name."""
    folder = tmp_path / name
    folder.mkdir()
    (folder / f"b{name}.txt").write_text("to be or not\n" * 30)
    (folder / f"{name}.toml").write_text(tomli_w.dumps(JOB))
    monkeypatch.chdir(folder)
    job, run = folder / f"{name}.toml", folder / "runs" / name
    for words in (
        ("train", job, "--out", run),
        ("train", job, "--out", run, "--resume", "--set", "training.steps=3"),
        ("evaluate", run),
        ("predict", run, "--input", folder / f"b{name}.txt"),
        ("generate", run, "--prompt", "to", "--length", 3),
        ("report", run),
        ("data", "info", folder / "data"),
        ("data", "verify", folder / "data"),
    ):
        code, out, errors = call(*words)
        assert code == 0, errors
        assert "\x1b" not in errors
        assert "\x1b" not in out or words[0] in ("predict", "generate", "report")
    assert (run / "report.html").is_file()
    assert read_run_job(run, REGISTRY).data.path == str(folder / "data")


Text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(Text, Text.filter(bool), max_size=4), Text, Text)
def test_a_run_keeps_its_job_whatever_its_keys_and_values(
    tmp_path_factory: pytest.TempPathFactory, spell: dict[str, str], text: str, path: str
) -> None:
    raw = {**JOB, "data": {"path": "x" + path, "input": text}}
    raw["data"]["build"] = {"reader": "wav", "files": [text], "spell": spell}
    run = tmp_path_factory.mktemp("run")
    job = read_job(raw, REGISTRY, run)
    write_run_job(run, job)
    assert read_run_job(run, REGISTRY).to_dict() == job.to_dict()
    assert tomllib.loads((run / "job.toml").read_text())["data"]["build"]["spell"] == spell


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        (ODD, "a-1-q-d-s-x-HOME-id-n-"),
        ("../../x y", "x-y-"),
        ("ü\n", "job-"),
        ("j" * 500, "j" * 60),
    ],
)
def test_what_is_submitted_is_quoted(name: str, begins: str, tmp_path: Path) -> None:
    sent: dict[str, Any] = {}
    details = SimpleNamespace(
        submission_id="x", status="PENDING", message=None, driver_exit_code=None,
        start_time=None, end_time=None, metadata={},
    )  # fmt: skip
    jobs = Jobs.__new__(Jobs)
    jobs.address = "http://127.0.0.1:1"
    jobs.client = SimpleNamespace(submit_job=sent.update, get_job_info=lambda _: details)
    jobs.client.submit_job = lambda **given: sent.update(given)
    pack = Pack(tmp_path, read_job(JOB, REGISTRY), [], 0)
    jobs.submit(pack, name, out=f"/runs/{ODD}\n'", python=f"/opt/{ODD}/python")
    words = shlex.split(sent["entrypoint"])
    assert words[0] == f"/opt/{ODD}/python"
    assert words[words.index("--out") + 1] == f"/runs/{ODD}\n'"
    assert sent["submission_id"].startswith(begins)
    assert shlex.quote(sent["submission_id"]) == sent["submission_id"]
    assert "/" not in sent["submission_id"]


def test_commands_that_are_proposed_can_be_pasted(tmp_path: Path, call: Call) -> None:
    folder = tmp_path / ODD
    code, out, _ = call("new-plugin", "my-cells", "--out", folder, "--json")
    assert code == 0
    install, _, train = (shlex.split(line) for line in json.loads(out)["next"])
    assert install[-1] == str(folder)
    assert train == ["rnnfarm", "train", str(folder / "job.toml")]


class Odd(Cell):
    """Names that mean something to Python, NumPy, C or CUDA."""

    states = ("int", "α", "threadIdx")

    def step(self, x: Any, a: Any, b: Any, c: Any) -> Any:
        gates = affine(x, a, b, c, gates=("for", "None", "__global__"), name="lambda")
        share = sigmoid(parameter("restrict.np", init="uniform:0.5"))
        return tuple(tanh(gate) + share * old for gate, old in zip(gates, (a, b, c), strict=True))


def test_names_of_a_cell_are_none_of_the_source() -> None:
    check_cell(Odd())


@pytest.mark.parametrize("name", ["", "a b", "*/ x", 'q"', "x\n", "a;b"])
def test_names_of_parameters_that_no_file_could_have_are_refused(name: str) -> None:
    class Wrong(Cell):
        def step(self, x: Any, h: Any) -> Any:
            return tanh(affine(x, h)) + parameter(name)

    with pytest.raises(CellError, match=r"use letters, digits, '_', '\.' and '-'"):
        check_cell(Wrong())


class Named(Reader):
    """A reader that calls its column and its split something."""

    column: Any = "values"
    part: Any = "train"

    def columns(self) -> dict[str, Column]:
        return {self.column: Column.values(1)}

    def sequences(self) -> Iterator[Sequence]:
        yield Sequence(self.part, {self.column: np.ones((3, 1))})


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"column": "origin_name"}, "column 'origin_name': this name has a meaning of its own"),
        ({"column": "next"}, "column 'next': this name has a meaning of its own"),
        ({"column": ""}, "column '': a column is named by printable text"),
        ({"column": "a\x1b"}, r"column 'a\x1b': a column is named by printable text"),
        ({"column": 3}, "column 3: a column is named by printable text"),
        ({"part": ""}, "split '': a split is named by printable text"),
        ({"part": "x" * 300}, "a split is named by printable text of 1 to 255 characters"),
        ({"part": "tr\nain"}, r"split 'tr\nain': a split is named"),
    ],
)
def test_names_of_columns_and_splits(
    changed: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as error:
        build_dataset(Named(**changed), tmp_path / "made")
    assert sentence in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.b", "ü", "../x", "'q'", "%s", "<b>"])
def test_any_other_name_of_a_column_or_a_split_is_kept(name: str, tmp_path: Path) -> None:
    dataset = build_dataset(Named(column=name, part=name), tmp_path / "made")
    assert list(dataset.columns) == list(dataset.splits) == [name]
    assert dataset.split(name).read(name, 0, 3).tolist() == [[1.0]] * 3
    assert dataset.verify() == []
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_names_in_a_header_do_not_act_on_the_terminal(tmp_path: Path, call: Call) -> None:
    (tmp_path / "a.csv").write_text("a\x1b[2J,<b>,%s\n" + "1,2,3\n" * 20)
    code, out, errors = call("data", "build", "csv", tmp_path / "made", tmp_path / "a.csv")
    assert code == 0, errors
    assert "\x1b" not in out + errors
    assert "train" in out


@pytest.mark.parametrize("text", ["$", "$x_{", "a$b$c", "_hidden", "\\frac", "x\n\x1b"])
def test_words_of_a_picture_are_no_formulas(text: str, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 2], label=literal(text))
    axes.annotate(literal(text), (0, 1))
    legend = axes.legend()
    figure.savefig(tmp_path / "a.png")
    (shown,) = (entry.get_text() for entry in legend.get_texts())
    assert shown.lstrip().replace(r"\$", "$") == text.replace("\n", r"\n").replace("\x1b", r"\x1b")


@pytest.mark.parametrize("delimiter", ["é", "\n", "\r", "ab", "", "😀"])
def test_a_delimiter_is_one_character_that_csv_can_have(delimiter: str) -> None:
    with pytest.raises(JobError, match=r"^CSV: delimiter: should "):
        REGISTRY.get("readers", "csv")(files=["a.csv"], delimiter=delimiter)


def test_what_arrow_says_in_several_lines_is_one_sentence(tmp_path: Path, call: Call) -> None:
    path = tmp_path / "a.parquet"
    papq.write_table(pa.table({"a": np.arange(50.0)}), path)
    raw = bytearray(path.read_bytes())
    raw[20:60] = bytes(255 - byte for byte in raw[20:60])
    path.write_bytes(raw)
    code, _, errors = call("data", "build", "parquet", tmp_path / "made", path, "--quiet")
    assert code == 5
    assert f"{path}: cannot be read as Parquet (" in errors
    assert errors.count("\n") == 1


def test_times_larger_than_int64_are_read() -> None:
    """2**63 nanoseconds since 1970 are in the year 2262."""
    column = pa.array([2**63, None, 5], pa.uint64())
    numbers = epoch_numbers(column)
    assert numbers[[0, 2]].tolist() == [2.0**63, 5.0]
    assert np.isnan(numbers[1])
    assert epoch_numbers(pa.array([2**63], pa.uint64())).tolist() == [2.0**63]
