"""Targets that a model cannot learn are named before the first step: which sequence, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_tools import REGISTRY, make_job

from rnnfarm.data import Column, DatasetWriter, build_from_settings, open_dataset
from rnnfarm.data.origin import Origin
from rnnfarm.errors import DataError
from rnnfarm.training.evaluate import evaluate_run
from rnnfarm.training.session import train
from rnnfarm.training.setup import make_model
from rnnfarm.training.targets import check_targets


def job(path: Path, target: str, loss: str = "binary_cross_entropy", **data: Any) -> Any:
    return make_job(
        {
            "data": {"path": str(path), "input": "x", "target": target, **data},
            "model": {
                "input": {"kind": "none"},
                "layers": [{"cell": "gru", "hidden": 3}],
                "loss": loss,
            },
            "training": {"batch": 2, "window": 10, "steps": 1},
        }
    )


def write(path: Path, flags: dict[str, list[Any]], **more: Any) -> Path:
    """Sequences of the flags of each split, over several record batches and shards."""
    columns = {"x": Column.values(1), "flags": Column.values(1), **more}
    with DatasetWriter(path, columns, shard_bytes=400) as writer:
        for split, sequences in flags.items():
            for given in sequences:
                values = np.array(given, np.float32)[:, None]
                writer.append(split, {"x": values * 0, "flags": values}, origin=Origin("g"))
    return path


def check(path: Path, split: str = "train") -> None:
    dataset = open_dataset(path)
    model = make_model(job(path, "flags"), dataset, REGISTRY)
    check_targets(model, dataset.split(split), dataset)


def test_the_sequence_of_a_wrong_value_is_named(tmp_path: Path) -> None:
    good = [[0, 1, 0.5, 1] * 9 for _ in range(20)]
    check(write(tmp_path / "good", {"train": good}))
    bad = [*good[:13], [0, 1, 1.25, 0], *good]
    with pytest.raises(DataError, match=r"sequence 13 of train in .*: column 'flags' holds \[1.25"):
        check(write(tmp_path / "bad", {"train": bad}))
    with pytest.raises(DataError, match=r"sequence 20 of train .* holds \[-1.0\]"):
        check(write(tmp_path / "late", {"train": [*good, [0] * 70_000 + [-1]]}))


def test_the_file_and_line_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "g,a,rain\n" + "".join(f"{k // 20},{k},{k % 2}\n" for k in range(60)) + "3,1,7\n3,2,0\n"
    )
    settings = {
        "files": [str(tmp_path / "t.csv")],
        "group": "g",
        "values": ["a"],
        "target": ["rain"],
        "valid": 0.0,
    }
    build_from_settings("csv", settings, tmp_path / "d", REGISTRY)
    with pytest.raises(DataError, match=r"t\.csv, line 62, '3' .*holds \[7.0\], and BinaryCross"):
        train(job(tmp_path / "d", "target", input="values"), REGISTRY, out=tmp_path / "r")
    assert not (tmp_path / "r" / "metrics.jsonl").exists()


def test_what_was_not_observed_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,rain\n" + "1,1\n2,\n3,0\n4,1\n" * 9)
    settings = {
        "files": [str(tmp_path / "t.csv")], "values": ["a"], "target": ["rain"],
        "missing": "mask", "valid": 0.0,
    }  # fmt: skip
    build_from_settings("csv", settings, tmp_path / "d", REGISTRY)
    dataset = open_dataset(tmp_path / "d")
    model = make_model(job(tmp_path / "d", "target", input="values"), dataset, REGISTRY)
    check_targets(model, dataset.split("train"), dataset)


def test_each_split_is_asked_when_it_is_read(tmp_path: Path) -> None:
    good, bad = [[0, 1] * 8] * 4, [[0, 1] * 8, [2, 0] * 8]
    path = write(tmp_path / "d", {"train": good, "valid": good, "test": bad})
    train(job(path, "flags"), REGISTRY, out=tmp_path / "r")
    with pytest.raises(DataError, match="sequence 1 of test"):
        evaluate_run(tmp_path / "r", REGISTRY, split="test")
    path = write(tmp_path / "e", {"train": good, "valid": bad})
    with pytest.raises(DataError, match="sequence 1 of valid"):
        train(job(path, "flags"), REGISTRY, out=tmp_path / "r2")
