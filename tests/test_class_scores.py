"""The metrics of classes and their baseline are over the targets that the model is measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_tools import REGISTRY

from rnnfarm.data import Column, DatasetWriter
from rnnfarm.job import read_job
from rnnfarm.training.evaluate import evaluate_run
from rnnfarm.training.session import train


def measured(
    folder: Path, data: dict[str, Any], loss: Any = "cross_entropy", **model: Any
) -> dict[str, Any]:
    """Train a small classifier, and return what it is measured to be."""
    raw = {
        "data": {"path": str(folder / "data"), "target": "label", **data},
        "model": {"layers": [{"cell": "gru", "hidden": 4}], "loss": loss, **model},
        "training": {"batch": 4, "window": 8, "steps": 3},
    }
    train(read_job(raw, REGISTRY, folder), REGISTRY, out=folder / "run")
    return evaluate_run(folder / "run", REGISTRY)


def check_baseline(baseline: dict[str, Any], learned: list[str], targets: list[str]) -> None:
    """Compare with shares of two labels that are counted here, one more of each."""
    names = sorted(set(learned))
    shares = {one: (learned.count(one) + 1) / (len(learned) + len(names)) for one in names}
    nats = -np.mean([np.log(shares[one]) for one in targets])
    usual = max(names, key=learned.count)
    assert baseline["loss"] == pytest.approx(nats, rel=1e-12)
    assert baseline["perplexity"] == pytest.approx(np.exp(nats), rel=1e-12)
    assert baseline["accuracy"] == targets.count(usual) / len(targets)


def test_rows_without_a_label_have_no_part_in_the_baseline(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    labels = ["" if row % 3 else str(random.choice(["a", "b"], p=[0.2, 0.8])) for row in range(200)]
    rows = [f"{row % 7},{label}" for row, label in enumerate(labels)]
    (tmp_path / "t.csv").write_text("\n".join(["x,k", *rows]) + "\n")
    build = {"reader": "csv", "files": ["t.csv"], "missing": "mask", "label": "k",
             "label_per": "row", "valid": 0.25}  # fmt: skip
    found = measured(tmp_path, {"build": build}, input={"kind": "none"})
    learned, targets = ([label for label in part if label] for part in (labels[:150], labels[150:]))
    check_baseline(found["baseline"], learned, targets)
    assert np.sum(found["confusion"]["counts"], axis=1).tolist() == [
        targets.count(label) for label in "ab"
    ]


def test_rows_that_are_looked_back_at_have_no_part_in_the_baseline(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = ["b" if row % 4 == 0 or row >= 50 else "a" for row in range(80)]
    rows = [f"{row % 5},{label}" for row, label in enumerate(labels)]
    (tmp_path / "t.csv").write_text("\n".join(["x,k", *rows]) + "\n")
    build = {"reader": "csv", "files": ["t.csv"], "label": "k", "label_per": "row",
             "valid": 0.25, "lookback": 15}  # fmt: skip
    found = measured(tmp_path, {"build": build}, input={"kind": "none"})
    check_baseline(found["baseline"], labels[:60], labels[60:])
    assert np.sum(found["confusion"]["counts"]) == 20
    assert "valid: 15 targets do not count: they were not observed, or their rows" in caplog.text


def test_a_label_that_the_loss_ignores_is_not_measured(tmp_path: Path) -> None:
    """One label per sequence: the metrics of an evaluation are those of the training."""
    random = np.random.default_rng(2)
    words = {"neg": "bad", "mid": "soso", "pos": "good"}
    lines = {
        part: [str(label) for label in random.choice([*words], size)]
        for part, size in (("train", 40), ("valid", 30))
    }
    for part, labels in lines.items():
        texts = [f"{label} {words[label]} {row}" for row, label in enumerate(labels)]
        (tmp_path / f"{part}.txt").write_text("\n".join(texts) + "\n")
    build = {"reader": "labelled-text", "files": ["train.txt"], "valid_files": ["valid.txt"]}
    loss = {"name": "cross_entropy", "ignore": 1}  # neg, of mid, neg, pos
    data = {"mode": "examples", "build": build}
    found = measured(tmp_path, data, loss, pool="last", input={"kind": "embedding", "size": 4})
    assert found["confusion"]["classes"] == ["mid", "neg", "pos"]
    counts = np.array(found["confusion"]["counts"])
    kept = [label for label in lines["valid"] if label != "neg"]
    assert counts.sum(axis=1).tolist() == [kept.count("mid"), 0, kept.count("pos")]
    assert found["accuracy"] == np.trace(counts) / len(kept)
    usual = max(("mid", "pos"), key=lines["train"].count)
    assert found["baseline"] == {"accuracy": kept.count(usual) / len(kept)}


def test_the_first_token_of_a_sequence_is_not_learned_by_the_baseline(tmp_path: Path) -> None:
    """The model never learns to say it, however frequent it is."""
    parts = {"train": [[0, 1], [0, 1], [0, 2], [0, 1, 1]], "valid": [[0, 1, 2], [0, 2]]}
    with DatasetWriter(str(tmp_path / "data"), {"tokens": Column.tokens(3)}) as writer:
        for part, sequences in parts.items():
            for sequence in sequences:
                writer.append(part, {"tokens": np.array(sequence)})
    data = {"mode": "examples", "target": "next"}
    baseline = measured(tmp_path, data, input={"kind": "one_hot"})["baseline"]
    shares = [1 / 8, 5 / 8, 2 / 8]  # of 0, 4 and 1 targets, one more of each
    assert baseline["loss"] == pytest.approx(-np.mean(np.log(shares)[[1, 2, 2]]), rel=1e-12)
    assert baseline["accuracy"] == 1 / 3
