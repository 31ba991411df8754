"""What readers hold out for validation and test, and that vocabularies are of the rest alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from data_tools import sentence_of

from rnnfarm.builtin.labels import LabelledText
from rnnfarm.builtin.parallel import ParallelText
from rnnfarm.builtin.readers import Bytes, Characters, PythonSource, Words
from rnnfarm.builtin.timeseries import TimeSeries
from rnnfarm.data import Dataset, Reader, build_dataset
from rnnfarm.data.lines import EvenSplit
from rnnfarm.errors import DataError, JobError


def build(reader: Reader, folder: Path, name: str = "data") -> Dataset:
    reader.base = folder
    return build_dataset(reader, folder / name)


def texts(dataset: Dataset, split: str) -> list[str]:
    part, vocabulary = dataset.split(split), dataset.vocabulary("tokens")
    assert vocabulary is not None
    starts = [*part.starts().tolist(), part.steps]
    return [vocabulary.decode(part.read("tokens", a, b)) for a, b in pairwise(starts)]


def entries(dataset: Dataset, column: str = "tokens") -> list[str]:
    vocabulary = dataset.vocabulary(column)
    assert vocabulary is not None
    assert vocabulary.entries is not None
    return vocabulary.entries


def notes(dataset: Dataset) -> list[str]:
    assert dataset.provenance is not None
    return dataset.provenance.notes


@pytest.mark.parametrize("block", [3, 1 << 20])
@pytest.mark.parametrize("kind", [Bytes, Characters, Words])
def test_the_end_of_a_file_is_for_validation_and_test(
    tmp_path: Path, kind: Any, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rnnfarm.data.blocks.BLOCK", block)
    words = [f"{'abcdefghij'[i]}" for i in range(10)] * 10
    (tmp_path / "a.txt").write_text(" ".join(words))
    dataset = build(kind(files=["a.txt"], valid=0.2, test=0.3), tmp_path)
    if kind is Words:
        expected = [" ".join(part) for part in (words[:50], words[50:70], words[70:])]
    else:
        text = " ".join(words)  # 199 of them, and round(199 * 0.5) and round(199 * 0.3) at the end
        expected = [text[:99], text[99:139], text[139:]]
    assert [texts(dataset, split) for split in ("train", "valid", "test")] == [
        [part] for part in expected
    ]


@pytest.mark.parametrize("kind", [Bytes, Characters, Words, LabelledText])
def test_files_for_validation_and_for_test(tmp_path: Path, kind: Any) -> None:
    for name in "abvt":
        (tmp_path / f"{name}.txt").write_text("x one two\n" * (1 + "abvt".index(name)))
    held = {"valid_files": ["v.txt"], "test_files": ["t.*"]}
    dataset = build(kind(files=["*.txt"], **held), tmp_path)
    found = {split: "".join(texts(dataset, split)).count("two") for split in dataset.splits}
    assert found == {"train": 3, "valid": 3, "test": 4}
    only = build(kind(files=["a.txt", "b.txt"], valid=0.0, test_files=["t.txt"]), tmp_path, "only")
    assert sorted(only.splits) == ["test", "train"]


def test_whole_files_for_test(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for i in range(20):
        (tmp_path / "texts" / f"{i}.txt").write_text(f"{i:02} " * 30)
    settings = {"files": ["texts/*.txt"], "split": "file", "valid": 0.2}
    before = build(Bytes(**settings), tmp_path, "before")
    after = build(Bytes(**settings, test=0.3), tmp_path, "after")
    assert {name: split.sequences for name, split in after.splits.items()} == {
        "train": 10, "valid": 4, "test": 6,
    }  # fmt: skip
    assert texts(after, "valid") == texts(before, "valid")
    parts = [set(texts(after, split)) for split in after.splits]
    assert len(set.union(*parts)) == 20


def test_python_source_for_test(tmp_path: Path) -> None:
    plain = build(PythonSource(max_bytes=200_000), tmp_path, "plain")
    cut = build(PythonSource(max_bytes=200_000, test=0.2), tmp_path, "cut")
    assert texts(cut, "valid") == texts(plain, "valid")
    assert sorted(texts(cut, "train") + texts(cut, "test")) == sorted(texts(plain, "train"))
    assert 0.1 < cut.splits["test"].steps / plain.info()["steps"] < 0.3


@pytest.mark.parametrize(
    ("settings", "error", "what"),
    [
        ({"valid": 0.6, "test": 0.4}, JobError, "leave nothing to train"),
        ({"valid_files": ["v.txt"], "test_files": ["*v.txt"]}, JobError, r"v\.txt is in both"),
        ({"test_files": ["*.txt"]}, DataError, "every file is in 'valid_files' or 'test_files'"),
        ({"test_files": ["w.txt"]}, JobError, "w.txt in setting 'test_files' matches no file"),
    ],
)
@pytest.mark.parametrize("kind", [Bytes, LabelledText, TimeSeries])
def test_what_leaves_nothing(
    tmp_path: Path, kind: Any, settings: dict[str, Any], error: type[Exception], what: str
) -> None:
    for name in "av":
        (tmp_path / f"{name}.txt").write_text("x one\n")
    with pytest.raises(error, match=what) as raised:
        build(kind(files=["*.txt"], **settings), tmp_path)
    sentence_of(raised.value)


# Vocabularies.


@pytest.mark.parametrize("kind", [Characters, Words])
def test_other_files_for_validation_renumber_nothing(tmp_path: Path, kind: Any) -> None:
    (tmp_path / "a.txt").write_text("the cat and the dog\n" * 3)
    (tmp_path / "v.txt").write_text("a cat, zzz zzz and the dog\n" * 9)
    (tmp_path / "w.txt").write_text("the dog\n")
    vocabularies = []
    for held in (["v.txt"], ["w.txt"]):
        for setting in ("valid_files", "test_files"):
            reader = kind(files=["a.txt"], **({"valid": 0.0} | {setting: held}))
            vocabularies.append(entries(build(reader, tmp_path, f"{held[0]}-{setting}")))
    known = vocabularies[-1]
    assert [found[: len(known)] for found in vocabularies] == [known] * 4
    if kind is Words:
        assert known == ["<unk>", "\n", "the", "and", "cat", "dog"]
        assert vocabularies == [known] * 4
    else:
        assert known == sorted(set("the cat and the dog\n"))
        assert vocabularies[0] == [*known, "<unk>"]


@pytest.mark.parametrize("sequence", ["file", "line"])
@pytest.mark.parametrize("block", [4, 1 << 20])
def test_the_end_of_a_file_is_not_counted(
    tmp_path: Path, sequence: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rnnfarm.data.blocks.BLOCK", block)
    (tmp_path / "a.txt").write_text("a b\n" * 8 + "x b\ny a\n")  # 30 words with the ends of lines
    words = build(Words(files=["a.txt"], valid=0.2, sequence=sequence), tmp_path, "words")
    assert entries(words) == ["<unk>", "\n", "a", "b"]
    assert "".join(texts(words, "valid")) == "<unk> b\n<unk> a\n"
    assert notes(words) == ["valid: 2 of 6 words are not in the vocabulary and are read as <unk>"]
    characters = build(Characters(files=["a.txt"], valid=0.2, sequence=sequence), tmp_path, "c")
    assert entries(characters) == ["\n", " ", "a", "b", "<unk>"]
    assert notes(characters) == [
        "valid: 2 of 8 characters are not in the vocabulary and are read as <unk>"
    ]


def test_a_line_that_reaches_over_the_border_is_counted_whole(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a b c d e f g h\nx y\n")  # 12 words with the ends of lines
    dataset = build(Words(files=["a.txt"], valid=0.5, sequence="line"), tmp_path)
    assert set(entries(dataset)) == {"<unk>", "\n", *"abcdefgh"}
    assert texts(dataset, "train") == ["a b c d e f g h\n"]
    assert texts(dataset, "valid") == ["<unk> <unk>\n"]


# Where sequences are from, and what is said of them.


def test_lines_are_named_by_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\nthree\n")
    (tmp_path / "b.txt").write_text("four\n")
    (tmp_path / "c.txt").write_text("")
    for kind in (Bytes, Characters, Words):
        reader = kind(files=["*.txt"], valid=0.0, sequence="line")
        dataset = build(reader, tmp_path, kind.__name__)
        part = dataset.split("train")
        origins = [part.origin(start) for start in part.starts().tolist()]
        assert [(origin.file, origin.row) for origin in origins] == [(0, 1), (0, 3), (0, 4), (1, 1)]
        assert notes(dataset) == [
            f"left out {tmp_path / 'c.txt'}, which hold nothing", "left out 1 blank line",
        ]  # fmt: skip


def test_the_end_of_a_file_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc\n" * 10)
    dataset = build(Characters(files=["a.txt"], valid=0.25), tmp_path)
    assert dataset.split("train").origin(0).row == 1
    assert dataset.split("valid").origin(0).row == 8  # begins with the 31st character


def test_labelled_lines_and_pairs_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x one\n\ny two\n")
    dataset = build(LabelledText(files=["a.txt"], valid=0.0), tmp_path)
    part = dataset.split("train")
    assert [part.origin(start).row for start in part.starts().tolist()] == [1, 3]
    assert notes(dataset) == ["left out 1 blank line"]
    (tmp_path / "b.txt").write_text("u\n\nv\n")
    files = {"source": {"train": ["a.txt"]}, "target": {"train": ["b.txt"]}}
    part = build(ParallelText(**files, least=1), tmp_path, "pairs").split("train")
    assert [part.origin(start)[1:] for start in part.starts().tolist()] == [(0, 1), (0, 3)]


def test_series_are_split_evenly_in_three(tmp_path: Path) -> None:
    split_of = EvenSplit(0.25, 0.125)
    found = [split_of("a") for _ in range(16)]
    assert [i for i, split in enumerate(found, 1) if split == "valid"] == [4, 8, 12, 16]
    assert [i for i, split in enumerate(found, 1) if split == "test"] == [5, 13]
    head = "@classLabel true up down\n@data\n"
    rows = [f"{i},{i}:{'up' if i % 3 else 'down'}\n" for i in range(60)]
    (tmp_path / "a.ts").write_text(head + "".join(rows))
    dataset = build(TimeSeries(files=["a.ts"], valid=0.1, test=0.2), tmp_path)
    sizes = {name: split.sequences for name, split in dataset.splits.items()}
    assert sizes == {"train": 42, "valid": 6, "test": 12}
    assert dataset.split("train").origin(0).row == 3


# What looks wrong.

HINTS = {
    "a header": (
        "label\tsentence\na\tx y\na\tz\nb\tx\nb\tz\n",
        ["line 1: no other line has its label 'label'; if it is a header, set header = true"],
    ),
    "no header": ("a\tx y\na\tz\nb\tx\nb\tz\n", []),
    "one label once": ("a\tx y\nb\tz\nb\tx\nc\tz\n", []),
    "quotes": ('a\t"x y"\na\t"z"\nb\tx\nb\t"z"\n', ["3 of 4 texts stand in quotes"]),
    "labels that are none": (
        "".join(f"text {i}\tb\n" for i in range(30)),
        ["30 of 30 labels stand in one line alone; see whether 'label' and"],
    ),
}


def test_an_example_that_is_left_out_as_a_header(tmp_path: Path) -> None:
    """header = true, and a file without a header: its first line begins with a known label."""
    (tmp_path / "a.txt").write_text("kind sentence\ngood x y\nbad z\ngood z\n")
    (tmp_path / "b.txt").write_text("bad x\ngood y\n")
    settings = {"files": ["a.txt"], "test_files": ["b.txt"], "valid": 0.0, "header": True}
    dataset = build(LabelledText(**settings), tmp_path)
    assert (dataset.split("train").sequences, dataset.split("test").sequences) == (3, 1)
    (note,) = notes(dataset)
    said = "left out line 1 of b.txt as a header, though 'bad' is a label"
    assert said in note.replace(f"{tmp_path}/", "")
    reader = LabelledText(**settings)
    reader.recall({"header": "sentence"}, {n: dataset.vocabulary(n) for n in ("tokens", "label")})
    assert len(list(reader.inputs_with_targets(tmp_path / "b.txt"))) == 1
    assert [said in each.replace(f"{tmp_path}/", "") for each in reader.notes()] == [True]
    reader = LabelledText(**settings)
    reader.recall({"header": "sentence"}, {n: dataset.vocabulary(n) for n in ("tokens", "label")})
    assert len(list(reader.inputs_with_targets(tmp_path / "a.txt"))) == 3
    assert reader.notes() == []


@pytest.mark.parametrize("name", HINTS)
def test_what_looks_wrong_in_labelled_texts(tmp_path: Path, name: str) -> None:
    text, wanted = HINTS[name]
    (tmp_path / "a.tsv").write_text(text)
    dataset = build(LabelledText(files=["a.tsv"], separator="tab", valid=0.0), tmp_path)
    found = notes(dataset)
    assert len(found) == len(wanted)
    assert all(want in note for want, note in zip(wanted, found, strict=True))


def test_a_header_is_left_out(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.tsv").write_text("\nkind\tsentence\nx\tone\ny\ttwo\n")
    reader = LabelledText(files=["*.tsv"], separator="tab", header=True, valid=0.0)
    dataset = build(reader, tmp_path)
    assert texts(dataset, "train") == ["one", "two"] * 2
    assert entries(dataset, "label") == ["x", "y"]
    assert notes(dataset) == ["left out 2 blank lines"]


def test_a_label_that_only_held_out_lines_have_is_said(tmp_path: Path) -> None:
    lines = [f"a text {i}\n" for i in range(40)]
    (tmp_path / "a.txt").write_text("".join(lines))
    as_bytes = LabelledText(files=["a.txt"], valid=0.3, unit="bytes")
    held = texts(build(as_bytes, tmp_path), "valid")[0]
    lines[int(held.split()[1])] = f"b {held}\n"
    (tmp_path / "b.txt").write_text("".join(lines))
    dataset = build(LabelledText(files=["b.txt"], valid=0.3), tmp_path, "b")
    assert "no line of the training part has the label 'b'" in notes(dataset)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a,one two\n", "write a tab for the comma that ends a label, and no quotes"),
        ("a one\n", "correct the line, or the setting 'separator'"),
    ],
)
def test_a_line_without_a_tab(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "a.tsv").write_text("a\tone\n" + text)
    with pytest.raises(DataError, match=f"line 2: has no tab .*{what}") as error:
        build(LabelledText(files=["a.tsv"], separator="tab", valid=0.0), tmp_path)
    sentence_of(error.value)
