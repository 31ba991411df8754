"""What models answer for whole sequences: evaluation, predictions, files, pictures, beams."""

from __future__ import annotations

import io
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnfarm.data.dataset import open_dataset
from rnnfarm.data.manifest import Column
from rnnfarm.data.scale import Scale
from rnnfarm.data.vocabulary import Vocabulary
from rnnfarm.data.window import END
from rnnfarm.data.writer import DatasetWriter
from rnnfarm.errors import JobError
from rnnfarm.job import read_job
from rnnfarm.plugins import Registry
from rnnfarm.training.decode import write
from rnnfarm.training.evaluate import evaluate_run
from rnnfarm.training.predict import predict
from rnnfarm.training.run import open_run
from rnnfarm.training.scores import LabelErrors
from rnnfarm.training.search import Search
from rnnfarm.training.session import train
from rnnfarm.training.setup import make_windows
from rnnfarm.training.tbptt import Lane

REGISTRY = Registry.load()
WORDS = ["<unk>", "a", "b", "c", "d"]
LETTERS = ["<s>", "</s>", "<unk>", "A", "B", "C", "D"]


def write_data(folder: Path) -> Path:
    """Words, the same words in capitals, which of two comes first, and waves with a season."""
    rng = np.random.default_rng(0)
    columns = {
        "words": Column.tokens(5),
        "capitals": Column.tokens(7, own=True),
        "first": Column.tokens(2, own=True),
        "spoken": Column.tokens(5, own=True),
    }
    vocabularies = {
        "words": Vocabulary("word", WORDS),
        "capitals": Vocabulary("word", LETTERS),
        "first": Vocabulary("word", ["low", "high"]),
        "spoken": Vocabulary("character", ["<blank>", "a", "b", "c", "d"]),
    }
    path = folder / "data"
    with DatasetWriter(str(path), columns, vocabularies=vocabularies) as writer:
        for number in range(260):
            words = rng.integers(1, 5, int(rng.integers(1, 5)))
            once = np.array([w for w, _ in itertools.groupby(words)])
            row = {
                "words": np.repeat(words, 2),
                "capitals": words + 2,
                "first": np.array([int(words[0] > 2)]),
                "spoken": once,
            }
            writer.append("train" if number < 200 else "valid", row)
    with DatasetWriter(str(folder / "waves"), {"values": Column.values(2)}) as writer:
        for split, steps in (("train", 600), ("valid", 200)):
            time = np.arange(steps)[:, None]
            waves = 50 + 10 * np.sin(time / 8 * 6.2832 + np.arange(2))
            noise = rng.standard_normal((steps, 2))
            writer.append(split, {"values": (waves + noise).astype(np.float32)})
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("answers"))


GRU = {"cell": "gru", "hidden": 24}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "capitals": ("capitals", {"layers": [{**GRU, "bidirectional": True}], "decoder": {
        "size": 8, "layers": [{"cell": "gru", "hidden": 32}], "attention": "general",
    }}),
    "first": ("first", {"layers": [GRU], "pool": "mean"}),
    "spoken": ("spoken", {"layers": [{**GRU, "bidirectional": True}], "loss": "ctc"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, Path]:
    """A trained run of each."""
    found = {}
    for name, (target, model) in MODELS.items():
        raw = {
            "data": {"path": str(folder / "data"), "mode": "examples", "target": target},
            "model": {"input": {"kind": "embedding", "size": 8}, "loss": "cross_entropy", **model},
            "training": {
                "batch": 16, "window": 12, "steps": 250, "clip": 1.0,
                "optimizer": {"name": "adam", "lr": 1e-2},
            },
        }  # fmt: skip
        found[name] = folder / name
        train(read_job(raw, REGISTRY, folder), REGISTRY, out=found[name])
    raw = {
        "data": {
            "path": str(folder / "waves"), "mode": "forecast", "horizon": 6, "period": 8,
            "scale": "standard", "relative": "season",
        },
        "model": {
            "input": {"kind": "none"}, "layers": [GRU], "pool": "last",
            "loss": {"name": "quantile", "quantiles": [0.1, 0.5, 0.9]},
        },
        "training": {"batch": 16, "window": 16, "steps": 120},
    }  # fmt: skip
    found["waves"] = folder / "waves-run"
    train(read_job(raw, REGISTRY, folder), REGISTRY, out=found["waves"])
    return found


def test_a_decoder_learns_to_copy(runs: dict[str, Path]) -> None:
    report = evaluate_run(runs["capitals"], REGISTRY)
    assert report["exact"] > 0.9
    assert report["bleu"] > 90
    assert report["baseline"]["bleu"] < 60
    assert report["baseline"]["exact"] < 0.2
    rows = list(predict(runs["capitals"], REGISTRY, split="valid"))
    assert len(rows) == 60
    assert set("".join(row["text"].replace(" ", "") for row in rows)) <= set("ABCD")


def test_classes_and_their_baseline(runs: dict[str, Path]) -> None:
    report = evaluate_run(runs["first"], REGISTRY)
    assert report["accuracy"] > 0.95 > report["baseline"]["accuracy"]
    assert {row["text"] for row in predict(runs["first"], REGISTRY, split="valid")} == {
        "low",
        "high",
    }


def test_labels_that_ctc_finds(runs: dict[str, Path]) -> None:
    report = evaluate_run(runs["spoken"], REGISTRY)
    greedy = report["letter_error_rate"]
    beam = evaluate_run(runs["spoken"], REGISTRY, search=Search(8))["letter_error_rate"]
    assert greedy < 0.1
    assert beam <= greedy + 0.02
    assert not {"perplexity", "accuracy"} & set(report)  # CTC has none
    # What training measures on the way is the same figure, added up over lanes and windows.
    lines = (runs["spoken"] / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    last = [row for row in map(json.loads, lines) if "valid_loss" in row][-1]
    assert last["valid_letter_error_rate"] == pytest.approx(greedy)


def test_the_most_frequent_labels_are_the_baseline(runs: dict[str, Path], folder: Path) -> None:
    split = open_dataset(str(folder / "data")).split("train")
    spoken = [tuple(split.own("spoken", start).tolist()) for start in split.starts().tolist()]
    usual = max(spoken, key=spoken.count)
    valid = open_dataset(str(folder / "data")).split("valid")
    wanted = [tuple(valid.own("spoken", start).tolist()) for start in valid.starts().tolist()]
    report = evaluate_run(runs["spoken"], REGISTRY)
    assert report["baseline"]["exact"] == np.mean([row == usual for row in wanted])
    assert report["baseline"]["letter_error_rate"] > 2 * report["letter_error_rate"]
    # Where a blank is a letter, there are words.
    vocabulary = Vocabulary("character", ["<blank>", " ", "a", "b"])
    found = LabelErrors(vocabulary)
    found.add([[2, 1, 3, 3], [2]], [[2, 1, 3], [2]])
    rates = {"letter_error_rate": 1 / 5, "exact": 0.5, "word_error_rate": 1 / 3}
    assert found.metrics() == rates


STREAMED = {
    "next": ({"name": "quantile", "quantiles": [0.9, 0.1, 0.5]}, "next"),
    "a column": ("gaussian", "other"),
    "odds": ("binary_cross_entropy", "above"),
}


@pytest.mark.parametrize("name", STREAMED)
def test_values_at_every_step(folder: Path, tmp_path: Path, name: str) -> None:
    """Errors are of the middle of what is said, beside the last value or the mean."""
    loss, target = STREAMED[name]
    waves = open_dataset(str(folder / "waves"))
    columns = {"values": Column.values(2), "other": Column.values(1), "above": Column.values(2)}
    with DatasetWriter(str(tmp_path / "data"), columns) as writer:
        for split in ("train", "valid"):
            values = waves.split(split).read("values", 0, waves.split(split).steps) / 10 - 5
            other, above = values.sum(1, keepdims=True), (values > 0).astype(np.float32)
            writer.append(split, {"values": values, "other": other, "above": above})
    raw = {
        "data": {"path": str(tmp_path / "data"), "input": "values", "target": target},
        "model": {"input": {"kind": "none"}, "layers": [GRU], "loss": loss},
        "training": {
            "batch": 4, "window": 10, "steps": 300, "optimizer": {"name": "adam", "lr": 1e-2},
        },
    }  # fmt: skip
    train(read_job(raw, REGISTRY, tmp_path), REGISTRY, out=tmp_path / "run")
    report = evaluate_run(tmp_path / "run", REGISTRY)
    opened = open_run(tmp_path / "run", REGISTRY)
    rows = list(predict(tmp_path / "run", REGISTRY, split="valid"))
    said = np.concatenate([row["prediction"] for row in rows])
    valid, trained = opened.dataset.split("valid"), opened.dataset.split("train")
    column = "values" if target == "next" else target
    wanted = valid.read(column, 0, 200)
    plain = np.broadcast_to(trained.read(column, 0, 600).mean(0), wanted.shape)
    if target == "next":
        wanted, plain, said = wanted[1:], wanted[:-1], said[:-1]
    assert said.shape == wanted.shape
    # Each step is measured once, as it is predicted: with the state of all steps before.
    close = {"rel": 1e-5}
    assert report["mse"] == pytest.approx(np.mean((wanted - said) ** 2), **close)
    assert report["mae"] == pytest.approx(np.mean(np.abs(wanted - said)), **close)
    assert report["baseline"]["mse"] == pytest.approx(np.mean((wanted - plain) ** 2), **close)
    assert report["mse"] < report["baseline"]["mse"]
    truth = [value for row in rows for value in row["truth"] if value is not None]
    assert np.array_equal(truth, wanted.astype(np.float64))
    if name == "odds":
        assert said.min() >= 0
        assert said.max() <= 1
        assert "coverage" not in report
    else:
        low, high = (
            np.concatenate([row[end] for row in rows])[: len(said)] for end in ("low", "high")
        )
        within = np.mean((low <= wanted) & (wanted <= high))
        assert report["coverage"] == within
        assert report["interval_width"] == pytest.approx(np.mean(high - low), **close)
        assert np.all((low <= said) & (said <= high))


def test_a_forecast(runs: dict[str, Path]) -> None:
    report = evaluate_run(runs["waves"], REGISTRY)
    assert report["mse"] < report["baseline"]["mse"]
    assert 0.6 < report["coverage"] < 0.95
    row = next(predict(runs["waves"], REGISTRY, split="valid"))
    prediction = np.array(row["prediction"])
    assert prediction.shape == (6, 2)
    assert np.all((prediction > 35) & (prediction < 65))  # as the data are, not scaled
    assert np.all(np.array(row["low"]) <= row["high"])


def test_predictions_from_a_file_and_stdin(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines of a text are sequences, and each is answered as if it stood in a dataset."""
    text = tmp_path / "lines.txt"
    text.write_text("a a b b\n\nd d c c a a\n", encoding="utf-8")
    rows = list(predict(runs["capitals"], REGISTRY, input=text))
    assert [row["text"] for row in rows] == ["A B", "D C A"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.read_bytes())))
    assert list(predict(runs["capitals"], REGISTRY, input=Path("-"))) == rows
    assert [r["text"] for r in predict(runs["first"], REGISTRY, input=text)] == ["low", "high"]
    assert [r["text"] for r in predict(runs["spoken"], REGISTRY, input=text)] == ["ab", "dca"]
    with pytest.raises(JobError, match="does not say what reader its data are from"):
        list(predict(runs["waves"], REGISTRY, input=text))


def test_pictures(runs: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    for name in ("capitals", "spoken", "waves"):
        rows = predict(runs[name], REGISTRY, split="valid", plot=tmp_path / name)
        for _ in zip(range(3), rows, strict=False):
            pass
        assert len(list((tmp_path / name).glob("answer-*.png"))) >= 3
    with pytest.raises(JobError, match="this model has none of them"):
        list(predict(runs["first"], REGISTRY, split="valid", plot=tmp_path / "none"))


@pytest.mark.parametrize("beam", [1, 2, 40])
def test_beams(runs: dict[str, Path], beam: int) -> None:
    """A beam of one takes the likeliest word each time; a wide one finds the best of all."""
    opened = open_run(runs["capitals"], REGISTRY)
    windows = make_windows(opened.job, opened.model, opened.dataset, "valid")
    lane = Lane(0, slice(0, windows.batch), opened.model.network, opened.model.loss)
    given = lane.shown(windows.read(0))
    run = lane.start(given, 0, 0, 12, training=False)
    network, parameters = opened.model.network, opened.parameters
    found = write(network, parameters, given.x, run, [0, 3], beam=beam, most=2, penalty=0.0)

    def score(tokens: list[int], row: int) -> float:
        pooled, encoded = network.read(parameters, given.x, run)
        assert network.decoder is not None
        states, _ = network.decoder.bridge.forward(parameters, pooled, run)
        fed = np.array([[0, *tokens]], np.int32).T.repeat(given.x.shape[1], 1)
        output, _ = network.decoder.step(parameters, encoded, replace(run, fed=fed), states)
        logits = output[:, row].astype(np.float64)
        likely = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        return float(sum(likely[k, token] for k, token in enumerate([*tokens, END])))

    for row, one in found.items():
        if len(one.tokens) < 2:
            assert one.score == pytest.approx(score(one.tokens, row), abs=1e-4)
        if beam == 40:
            every = [[], *([k] for k in range(7) if k != END)]
            best = max(every, key=lambda tokens: score(tokens, row))
            assert one.score >= score(best, row) - 1e-4


def test_scale(folder: Path) -> None:
    split = open_dataset(str(folder / "waves")).split("train")
    values = split.read("values", 0, split.steps)
    scale = Scale.of(split, "values")
    scaled = scale.apply(values.astype(np.float64))
    assert scaled.mean(0) == pytest.approx([0, 0], abs=1e-12)
    assert scaled.std(0) == pytest.approx([1, 1], rel=1e-12)
    assert scale.undo(scaled) == pytest.approx(values, rel=1e-6)
    assert (
        Scale.from_dict(json.loads(json.dumps(scale.to_dict()))).mean.tolist()
        == scale.mean.tolist()
    )
