"""Sequences that CTC cannot align are named before a model is trained or measured."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_tools import sentence_of
from training_tools import REGISTRY, make_job

from rnnfarm.data import Column, Dataset, DatasetWriter, open_dataset
from rnnfarm.data.manifest import Provenance, SourceFile
from rnnfarm.data.origin import Origin
from rnnfarm.errors import DataError
from rnnfarm.nn.ctc import impossible
from rnnfarm.training.alignable import _short
from rnnfarm.training.evaluate import evaluate_run
from rnnfarm.training.session import train


def write(path: Path, splits: dict[str, list[tuple[int, list[int]]]]) -> Dataset:
    """Sequences of as many steps, and labels, each of a file of its own."""
    columns = {"values": Column.values(1), "letters": Column.tokens(4, own=True)}
    files = []
    with DatasetWriter(path, columns, origins=True) as writer:
        for split, rows in splits.items():
            for number, (steps, labels) in enumerate(rows):
                files.append(SourceFile(f"{split}_{number}.wav", 1, 1, "0" * 64))
                values = np.zeros((steps, 1), np.float32)
                row = {"values": values, "letters": np.array(labels, np.int32)}
                writer.append(split, row, origin=Origin("", len(files) - 1))
        writer.provenance = Provenance("none", {}, files)
    return open_dataset(path)


def job(path: Path, **loss: Any) -> Any:
    return make_job(
        {
            "data": {"path": str(path), "mode": "examples", "target": "letters"},
            "model": {
                "input": {"kind": "none"},
                "layers": [{"cell": "gru", "hidden": 3}],
                "loss": {"name": "ctc", **loss},
            },
            "training": {"batch": 2, "window": 8, "steps": 2},
        }
    )


FITS = (8, [1, 2, 3])


def test_the_sequence_is_named_before_training(tmp_path: Path) -> None:
    write(tmp_path / "d", {"train": [FITS] * 5 + [(4, [1, 1, 2, 2]), (1, [1, 2])], "valid": [FITS]})
    with pytest.raises(DataError) as error:
        train(job(tmp_path / "d"), REGISTRY, out=tmp_path / "run")
    assert sentence_of(error.value) == (
        f"train_5.wav (sequence 5 of train in {tmp_path / 'd'}) has 4 steps, and CTC takes 6 for"
        " its 4 labels in 'letters' (equal ones need a blank between them), as have 1 more; leave"
        ' it out, or set model.loss.impossible = "skip"'
    )
    assert not (tmp_path / "run").exists()


def test_those_for_validation_and_test_are_named_too(tmp_path: Path) -> None:
    write(tmp_path / "d", {"train": [FITS], "valid": [FITS, (1, [2, 3])]})
    with pytest.raises(DataError, match=r"valid_1\.wav \(sequence 1 of valid in"):
        train(job(tmp_path / "d"), REGISTRY, out=tmp_path / "run")
    write(tmp_path / "e", {"train": [FITS] * 2, "test": [FITS, (2, [3, 3])]})
    train(job(tmp_path / "e"), REGISTRY, out=tmp_path / "run")
    with pytest.raises(DataError, match=r"test_1\.wav \(sequence 1 of test in .* takes 3 for"):
        evaluate_run(tmp_path / "run", REGISTRY, split="test")


def test_those_that_are_skipped_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "d", {"train": [FITS] * 3 + [(1, [2, 3])]})
    with caplog.at_level(logging.WARNING):
        train(job(tmp_path / "d", impossible="skip"), REGISTRY, out=tmp_path / "run")
    assert "1 sequences of train do not count" in caplog.text
    assert "the first is train_3.wav (sequence 3 of train in" in caplog.text


def test_the_same_as_the_loss_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rnnfarm.data.shards.BATCH_ROWS", 7)
    random = np.random.default_rng(0)
    rows = [
        (int(random.integers(1, 7)), random.integers(1, 4, random.integers(0, 6)).tolist())
        for _ in range(200)
    ]
    part = write(tmp_path / "d", {"train": rows}).split("train")
    expected = []
    for number, (steps, labels) in enumerate(rows):
        column = np.array(labels, np.int32)[:, None]
        if impossible(np.array([steps]), column, np.array([len(labels)]))[0]:
            expected.append(number)
    assert 20 < len(expected) < 180
    assert [number for number, *_ in _short(part, "letters")] == expected
