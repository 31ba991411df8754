"""Predicting: what a model gives for each step of a split's sequences, or of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_tools import sentence_of
from training_tools import (
    REGISTRY,
    build_text,
    make_job,
    token_job,
    value_job,
    write_tokens,
    write_values,
)

from rnnfarm import Recurrent
from rnnfarm.data import open_dataset
from rnnfarm.errors import DataError, JobError
from rnnfarm.training.predict import predict
from rnnfarm.training.run import open_run
from rnnfarm.training.session import train

LENGTHS = [13, 1, 7, 6]


def trained(folder: Path, raw: dict[str, Any]) -> Path:
    train(make_job(raw), REGISTRY, out=folder / "run")
    return folder / "run"


def rows(run: Path, **source: Any) -> list[dict[str, Any]]:
    return list(predict(run, REGISTRY, **source))


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    write_values(folder / "data", {"train": [80, 40], "valid": LENGTHS, "test": [5]})
    raw = value_job(folder / "data", data={"target": "total"}, dtype="float64", steps=20, window=6)
    return trained(folder, raw)


def outputs(run: Path, x: np.ndarray) -> np.ndarray:
    """A model's output over a whole sequence ``(T, F)``, from plain products."""
    p = open_run(run, REGISTRY).parameters
    layer = Recurrent("lstm", 2, 8, "float64")
    own = {name: p[f"layer1.{name}"] for name in layer.plan.parameters}
    y, _, _ = layer.forward(own, x[:, None].astype(np.float64), training=False)
    return y[:, 0] @ p["output.weight"] + p["output.bias"]


def test_every_step_of_every_sequence(values: Path) -> None:
    found = rows(values, split="valid")
    assert [(row["sequence"], row["start"], len(row["prediction"])) for row in found] == [
        (0, 0, 6), (0, 6, 6), (0, 12, 1), (1, 0, 1), (2, 0, 6), (2, 6, 1), (3, 0, 6),
    ]  # fmt: skip
    part = open_dataset(open_run(values, REGISTRY).job.data.path).split("valid")
    start = 0
    for number, length in enumerate(LENGTHS):
        x = part.read("values", start, start + length)
        mine = [p for row in found if row["sequence"] == number for p in row["prediction"]]
        assert np.abs(np.array(mine) - outputs(values, x)).max() <= 1e-13
        start += length
    assert len(rows(values, split="test")) == 1
    assert rows(values) == found


def test_a_file_of_values(values: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((9, 2)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    found = rows(values, input=tmp_path / "x.npy")
    assert [row["start"] for row in found] == [0, 6]
    given = np.concatenate([row["prediction"] for row in found])
    assert np.abs(given - outputs(values, x)).max() <= 1e-13


def test_a_bidirectional_model_reads_whole_sequences(tmp_path: Path) -> None:
    write_tokens(tmp_path / "data", {"train": [20, 11], "valid": [3, 25]})
    model = {"layers": [{"cell": "gru", "hidden": 4, "bidirectional": True}]}
    raw = token_job(tmp_path / "data", model=model, window=25, steps=2, batch=2,
                    data={"mode": "examples", "target": "labels"})  # fmt: skip
    run = trained(tmp_path, raw)
    found = rows(run, split="valid")
    assert [len(row["prediction"]) for row in found] == [3, 25]
    assert set(found[1]["prediction"]) <= {0, 1, 2}
    assert "text" not in found[0]


def test_a_file_of_text(tmp_path: Path) -> None:
    data = build_text(tmp_path)
    run = trained(tmp_path, token_job(data, steps=5))
    (tmp_path / "in.txt").write_text("def Cat", encoding="utf-8")
    found = rows(run, input=tmp_path / "in.txt")
    assert [(row["sequence"], row["start"]) for row in found] == [(0, 0), (0, 6)]
    assert [len(row["text"]) for row in found] == [6, 1]
    vocabulary = open_dataset(data).vocabulary("tokens")
    assert vocabulary is not None
    assert vocabulary.decode(found[0]["prediction"]) == found[0]["text"]
    (tmp_path / "marked.txt").write_text("def Cat", encoding="utf-8-sig")
    assert rows(run, input=tmp_path / "marked.txt") == found
    for text, sentence in (
        ("", "the file holds nothing to answer"),
        ("def ß", "'ß', which is not in the data's"),
    ):
        (tmp_path / "in.txt").write_text(text, encoding="utf-8")
        with pytest.raises(JobError) as error:
            rows(run, input=tmp_path / "in.txt")
        assert sentence in sentence_of(error.value)
    (tmp_path / "in.txt").write_bytes(b"ab\xff")
    with pytest.raises(DataError, match="line 1: byte 0xff is not UTF-8"):
        rows(run, input=tmp_path / "in.txt")
    with pytest.raises(JobError, match="there is no such file"):
        rows(run, input=tmp_path / "absent.txt")
    with pytest.raises(JobError, match="is a folder"):
        rows(run, input=tmp_path)


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((4, 3)), r"holds \(4, 3\); the model reads one array of \(steps, 2\)"),
        (np.zeros(4), r"holds \(4,\)"),
        (np.zeros((0, 2)), r"holds \(0, 2\)"),
        (np.array([["a", "b"]]), "numbers"),
        (np.array([[1.0, np.nan]]), "not finite"),
        (np.array([[1j, 1.0]]), "numbers"),
        (np.array([[1.0, 1e39]]), "not finite"),
    ],
)
def test_a_file_that_does_not_fit(
    values: Path, tmp_path: Path, array: np.ndarray, sentence: str
) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises((JobError, DataError), match=sentence) as error:
        rows(values, input=tmp_path / "x.npy")
    assert str(tmp_path / "x.npy") in sentence_of(error.value)


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_no_array(values: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read as \.npy or \.npz"):
        rows(values, input=tmp_path / "x.npy")


def test_an_archive_of_arrays_is_refused(values: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", np.zeros((4, 2)))
    with pytest.raises(JobError, match=r"holds arrays \(arr_0\); the model reads one array"):
        rows(values, input=tmp_path / "x.npz")


def test_a_text_for_tokens_without_a_vocabulary(tmp_path: Path) -> None:
    write_tokens(tmp_path / "data", {"train": [60], "valid": [9]})
    run = trained(tmp_path, token_job(tmp_path / "data", steps=1))
    (tmp_path / "in.txt").write_text("def")
    with pytest.raises(JobError, match="have no vocabulary of text"):
        rows(run, input=tmp_path / "in.txt")
    with pytest.raises(JobError, match="vallid"):
        rows(run, split="vallid")
