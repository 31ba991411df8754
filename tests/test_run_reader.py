"""A run reads files and prompts by the rules by which its data were built."""

from __future__ import annotations

import json
import logging
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from data_tools import sentence_of
from training_tools import REGISTRY

from rnnfarm.cli import cli
from rnnfarm.data import build_from_settings, open_dataset
from rnnfarm.errors import DataError, JobError
from rnnfarm.job import read_job
from rnnfarm.training.evaluate import evaluate_run
from rnnfarm.training.generate import _given
from rnnfarm.training.predict import predict
from rnnfarm.training.run import open_run
from rnnfarm.training.run_reader import run_reader
from rnnfarm.training.session import train
from rnnfarm.training.source import Source

TEXTS = [
    "The FILM was\u2028GREAT",
    "a dull\x0bfilm, ÀÉ ΟΔΟΣ",
    "  Great   fun\xa0here ",
    "Dire, and a Film\x85too",
] * 3


def trained(folder: Path, build: dict[str, Any], target: str = "next", **model: Any) -> Path:
    """A run of one step over the data that a reader builds."""
    mode = "streams" if target == "next" else "examples"
    raw = {
        "data": {"path": str(folder / "data"), "build": build, "mode": mode, "target": target},
        "model": {
            "input": {"kind": "embedding", "size": 3},
            "layers": [{"cell": "gru", "hidden": 3}],
            "loss": "cross_entropy",
            **model,
        },
        "training": {"batch": 1, "window": 64, "steps": 1},
    }
    if target == "next":
        raw["training"]["window"] = 4
    train(read_job(raw, REGISTRY, folder), REGISTRY, out=folder / "run")
    return folder / "run"


def read_by_run(run: Path, path: Path, folder: Path) -> list[list[int]]:
    """The tokens of the sequences of a file, as a prediction reads them."""
    opened = open_run(run, REGISTRY)
    new = Path(tempfile.mkdtemp(dir=folder))
    split = Source(opened, REGISTRY, "valid", path).read(new)
    starts = [*split.starts().tolist(), split.steps]
    return [split.read(opened.model.input, a, b).tolist() for a, b in pairwise(starts)]


def built(folder: Path, split: str, column: str) -> list[list[int]]:
    part = open_dataset(folder / "data").split(split)
    starts = [*part.starts().tolist(), part.steps]
    return [part.read(column, a, b).tolist() for a, b in pairwise(starts)]


@pytest.mark.parametrize("unit", ["words", "characters", "bytes"])
@pytest.mark.parametrize("lower", [True, False])
def test_texts_are_read_as_those_with_labels(tmp_path: Path, unit: str, lower: bool) -> None:
    lines = [f"{'ab'[i % 2]}\t{text}" for i, text in enumerate(TEXTS)]
    (tmp_path / "all.tsv").write_text("\n".join(lines), encoding="utf-8")
    build = {"reader": "labelled-text", "files": ["all.tsv"], "separator": "tab", "valid": 0.0}
    run = trained(tmp_path, build | {"unit": unit, "lower": lower}, "label", pool="last")
    wanted = built(tmp_path, "train", "tokens")
    raw = "\r\n\r\n".join(TEXTS).encode("utf-8-sig")  # as Windows writes it, with blank lines
    (tmp_path / "in.txt").write_bytes(raw)
    assert read_by_run(run, tmp_path / "in.txt", tmp_path) == wanted
    if lower:
        (tmp_path / "shout.txt").write_text("\n".join(TEXTS).upper(), encoding="utf-8")
        (tmp_path / "soft.txt").write_text("\n".join(TEXTS).upper().lower(), encoding="utf-8")
        loud = read_by_run(run, tmp_path / "shout.txt", tmp_path)
        assert loud == read_by_run(run, tmp_path / "soft.txt", tmp_path)


def test_sentences_are_read_as_the_source_of_pairs(tmp_path: Path) -> None:
    for name in ("a.de", "a.en"):
        (tmp_path / name).write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    files = {"source": {"train": ["a.de"]}, "target": {"train": ["a.en"]}}
    build = {"reader": "parallel-text", "lower": True, "least": 1, **files}
    decoder = {"layers": [{"cell": "gru", "hidden": 3}], "size": 3}
    run = trained(tmp_path, build, "target", decoder=decoder)
    (tmp_path / "in.txt").write_bytes("\r\n".join(TEXTS).upper().encode())
    assert read_by_run(run, tmp_path / "in.txt", tmp_path) == built(tmp_path, "train", "source")


@pytest.mark.parametrize("reader", ["bytes", "characters", "words"])
@pytest.mark.parametrize("sequence", ["file", "line"])
def test_files_are_read_as_those_of_the_build(tmp_path: Path, reader: str, sequence: str) -> None:
    raw = "\r\n".join([*TEXTS, "", "last Line"]).encode("utf-8-sig")
    (tmp_path / "a.txt").write_bytes(raw)
    build = {"reader": reader, "files": ["a.txt"], "sequence": sequence, "valid": 0.0}
    run = trained(tmp_path, build | ({"lower": True} if reader == "words" else {}))
    wanted = built(tmp_path, "train", "tokens")
    assert read_by_run(run, tmp_path / "a.txt", tmp_path) == wanted
    opened = open_run(run, REGISTRY)
    given = _given(opened, REGISTRY, "", tmp_path / "a.txt")
    assert given.tolist() == [token for sequence in wanted for token in sequence]
    if reader != "bytes" and sequence == "file":
        assert _given(opened, REGISTRY, raw.decode("utf-8-sig"), None).tolist() == wanted[0]


def test_a_prompt_of_bytes_is_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc" * 9)
    run = trained(tmp_path, {"reader": "bytes", "files": ["a.txt"], "valid": 0.0})
    assert _given(open_run(run, REGISTRY), REGISTRY, "Ä\r\n", None).tolist() == [195, 132, 13, 10]


def test_what_is_unknown_is_said_with_its_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.txt").write_text("one two\nthree four\n" * 5)
    run = trained(tmp_path, {"reader": "words", "files": ["a.txt"], "valid": 0.0})
    (tmp_path / "in.txt").write_text("one five\nsix two\n")
    with caplog.at_level(logging.WARNING):
        assert read_by_run(run, tmp_path / "in.txt", tmp_path) == [[3, 0, 1, 0, 5, 1]]
    assert "in.txt: 2 of 6 words are not in the vocabulary and are read as <unk>" in (caplog.text)
    with caplog.at_level(logging.WARNING):
        assert _given(open_run(run, REGISTRY), REGISTRY, "one six", None).tolist() == [3, 0]
    assert "the prompt: 1 of 2 words are not in the vocabulary" in caplog.text
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "a.txt").write_text("one two\nthree four\n" * 5)
    build = {"reader": "characters", "files": ["a.txt"], "valid": 0.0}
    run = trained(tmp_path / "2", build)
    (tmp_path / "in.txt").write_text("one\ntwo\nthree ß\n")
    with pytest.raises(JobError, match=r"in\.txt, line 3: the text has the character 'ß'") as e:
        read_by_run(run, tmp_path / "in.txt", tmp_path)
    sentence_of(e.value)


def test_a_header_and_labels_in_a_file_to_predict(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = ["sentence\tlabel", *(f"{text}\t{'ab'[i % 2]}" for i, text in enumerate(TEXTS))]
    (tmp_path / "all.tsv").write_text("\n".join(lines), encoding="utf-8")
    build = {
        "reader": "labelled-text", "files": ["all.tsv"], "separator": "tab", "valid": 0.0,
        "label": "last", "header": True,
    }  # fmt: skip
    run = trained(tmp_path, build, "label", pool="last")
    dataset = open_dataset(tmp_path / "data")
    assert dataset.vocabulary("label").entries == ["a", "b"]
    assert dataset.provenance.learned == {"header": "sentence"}
    (tmp_path / "in.txt").write_text("sentence\nGreat fun\n\na Film\n", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert len(list(predict(run, REGISTRY, input=tmp_path / "in.txt"))) == 2
    assert "left out line 1, as the header of the build" in caplog.text
    assert "left out 1 blank line" in caplog.text
    (tmp_path / "in.tsv").write_text("Great fun\nmore\ta\n")
    with pytest.raises(DataError, match=r"in\.tsv, line 2: has the label 'a' beside a tab") as e:
        list(predict(run, REGISTRY, input=tmp_path / "in.tsv"))
    sentence_of(e.value)


def test_targets_of_a_file_by_the_vocabularies_of_the_build(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("up one two\ndown two\nflat one\n")
    build = {"reader": "labelled-text", "files": ["a.txt"], "valid": 0.0}
    run = trained(tmp_path, build, "label", pool="last")
    reader = run_reader(open_run(run, REGISTRY), REGISTRY)
    assert reader is not None
    (tmp_path / "b.txt").write_text("up two three\nflat one\n")
    found = list(reader.inputs_with_targets(tmp_path / "b.txt"))
    assert [piece.columns["label"].tolist() for piece in found] == [[2], [1]]
    assert [piece.columns["tokens"].tolist() for piece in found] == [[2, 0], [1]]
    assert [piece.origin.row for piece in found] == [1, 2]
    (tmp_path / "c.txt").write_text("up two\nupp two\n")
    with pytest.raises(DataError, match=r"c\.txt, line 2: no line of 'files' has the label 'upp'"):
        list(reader.inputs_with_targets(tmp_path / "c.txt"))


def test_the_dataset_says_how_it_was_read_where_the_job_does_not(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One two One two\n" * 9)
    settings = {"files": ["a.txt"], "lower": True, "valid": 0.0}
    build_from_settings("words", settings, tmp_path / "data", REGISTRY, base=tmp_path)
    raw = {
        "data": {"path": str(tmp_path / "data")},
        "model": {
            "input": {"kind": "embedding", "size": 3},
            "layers": [{"cell": "gru", "hidden": 3}],
            "loss": "cross_entropy",
        },
        "training": {"batch": 1, "window": 4, "steps": 1},
    }
    train(read_job(raw, REGISTRY, tmp_path), REGISTRY, out=tmp_path / "run")
    (tmp_path / "in.txt").write_text("TWO one")
    assert read_by_run(tmp_path / "run", tmp_path / "in.txt", tmp_path) == [[3, 2]]


def test_series_with_and_without_labels(tmp_path: Path) -> None:
    head = "@timeStamps false\n@classLabel {}\n@data\n"
    rows = [f"{i},{i + 1},{i + 2}" for i in range(8)]
    labels = ["up", "down"] * 4
    given = "".join(f"{row}:{label}\n" for row, label in zip(rows, labels, strict=True))
    (tmp_path / "a.ts").write_text(head.format("true up down") + given)
    build = {"reader": "timeseries", "files": ["a.ts"], "valid": 0.0}
    run = trained(tmp_path, build, "label", pool="last", input={"kind": "none"})
    reader = run_reader(open_run(run, REGISTRY), REGISTRY)
    assert reader is not None
    (tmp_path / "b.ts").write_text(head.format("false") + "1,2\n3,4\n")
    found = list(reader.inputs(tmp_path / "b.ts"))
    assert [piece.columns["values"][:, 0].tolist() for piece in found] == [[1, 2], [3, 4]]
    assert [piece.origin.row for piece in found] == [4, 5]
    # Another order of the labels there does not renumber them.
    (tmp_path / "c.ts").write_text(head.format("true down up") + "1,2:down\n3,4:up\n")
    found = list(reader.inputs_with_targets(tmp_path / "c.ts"))
    assert [piece.columns["label"].tolist() for piece in found] == [[1], [0]]
    np.testing.assert_array_equal(found[1].columns["values"], [[3], [4]])


@pytest.mark.parametrize("reader", ["bytes", "characters", "words"])
def test_a_test_part_is_measured_as_its_file(tmp_path: Path, reader: str) -> None:
    (tmp_path / "a.txt").write_text("".join(f"line {i % 7} of a\n" for i in range(40)))
    (tmp_path / "t.txt").write_text("".join(f"line {i % 5} of b\n" for i in range(30)))
    build = {"reader": reader, "files": ["a.txt"], "valid": 0.0, "test_files": ["t.txt"]}
    run = trained(tmp_path, build)
    measured = evaluate_run(run, REGISTRY, split="test")
    assert measured["perplexity"] == pytest.approx(np.exp(measured["loss"]))
    assert 1 < measured["perplexity"] < 300
    again = evaluate_run(run, REGISTRY, input=tmp_path / "t.txt")
    assert again["loss"] == measured["loss"]
    assert again["accuracy"] == measured["accuracy"]


def test_labelled_texts_are_measured_as_their_file(tmp_path: Path) -> None:
    lines = [f"{'ab'[i % 2]} Text number {i}\n" for i in range(30)]
    (tmp_path / "a.txt").write_text("".join(lines[:20]))
    (tmp_path / "t.txt").write_text("\n".join(lines[20:]))  # and blank lines
    build = {
        "reader": "labelled-text", "files": ["a.txt"], "valid": 0.0, "test_files": ["t.txt"],
        "lower": True, "unit": "characters",
    }  # fmt: skip
    run = trained(tmp_path, build, "label", pool="last")
    measured = evaluate_run(run, REGISTRY, split="test")
    again = evaluate_run(run, REGISTRY, input=tmp_path / "t.txt")
    assert again["loss"] == measured["loss"]
    (tmp_path / "in.txt").write_text("Text number 3\n\nnumber 4\n")
    rows = list(predict(run, REGISTRY, input=tmp_path / "in.txt"))
    assert [row["row"] for row in rows] == [1, 3]


def test_prompts_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One two three\n" * 9)
    run = trained(tmp_path, {"reader": "words", "files": ["a.txt"], "lower": True, "valid": 0.0})
    (tmp_path / "in.txt").write_bytes(b"ONE\r\nTwo")
    options = ["generate", str(run), "--length", "5", "--json"]
    found = [
        json.loads(CliRunner().invoke(cli, [*options, *given]).stdout)
        for given in (["--prompt", "one\ntwo"], ["--input", str(tmp_path / "in.txt")])
    ]
    assert found[0]["text"] == found[1]["text"]
    assert (found[0]["prompt"], found[0]["input"]) == ("one\ntwo", None)
    assert (found[1]["prompt"], found[1]["input"]) == ("", str(tmp_path / "in.txt"))


def test_labels_before_texts_to_predict_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.txt").write_text("up one two\ndown two\n" * 4)
    run = trained(
        tmp_path,
        {"reader": "labelled-text", "files": ["a.txt"], "valid": 0.0},
        "label",
        pool="last",
    )
    (tmp_path / "in.txt").write_text("up one\ntwo up\n")
    with caplog.at_level(logging.WARNING):
        read_by_run(run, tmp_path / "in.txt", tmp_path)
        assert "every line" not in caplog.text
        (tmp_path / "in.txt").write_text("up one\ndown two\n")
        read_by_run(run, tmp_path / "in.txt", tmp_path)
    assert "every line has a label first, which is read as a part of its text" in caplog.text


def test_prompts_of_a_model_of_labelled_texts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("up One two\ndown Two one\n" * 4)
    for unit, items in (("words", ["two", "one"]), ("characters", list("two one"))):
        folder = tmp_path / unit
        folder.mkdir()
        build = {"reader": "labelled-text", "files": ["../a.txt"], "valid": 0.0, "lower": True}
        run = trained(folder, build | {"unit": unit})
        given = _given(open_run(run, REGISTRY), REGISTRY, " TWO One ", None)
        entries = open_dataset(folder / "data").vocabulary("tokens").entries
        assert given.tolist() == [entries.index(item) for item in items]


def test_one_side_of_pairs_is_not_measured(tmp_path: Path) -> None:
    for name in ("a.de", "a.en"):
        (tmp_path / name).write_text("Eins zwei\nzwei eins\n")
    files = {"source": {"train": ["a.de"]}, "target": {"train": ["a.en"]}}
    decoder = {"layers": [{"cell": "gru", "hidden": 3}], "size": 3}
    build = {"reader": "parallel-text", "least": 1, "lower": True, **files}
    run = trained(tmp_path, build, "target", decoder=decoder)
    with pytest.raises(JobError, match=r"name both in 'source\.test' and 'target\.test'") as error:
        evaluate_run(run, REGISTRY, input=tmp_path / "a.de")
    sentence_of(error.value)
    reader = run_reader(open_run(run, REGISTRY), REGISTRY)
    assert reader is not None
    assert reader.encode("ZWEI drei").tolist() == [2, 0]
    assert reader.notes() == ["1 of 2 words of 'source' are not in the vocabulary and are read as"
                              " <unk>"]  # fmt: skip
