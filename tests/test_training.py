"""Whole runs in this process: what they compute, what they write, and how they end."""

from __future__ import annotations

import errno
import gc
import hashlib
import io
import json
import logging
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from data_tools import real_data
from training_tools import (
    REGISTRY,
    build_text,
    entries,
    make_job,
    token_job,
    value_job,
    write_tokens,
    write_values,
)

import rnnfarm
from rnnfarm import Recurrent, builtin
from rnnfarm.builtin.callbacks import EarlyStopping
from rnnfarm.data import Column, DatasetWriter, open_dataset
from rnnfarm.errors import DataError, JobError, PluginError, RunError
from rnnfarm.files import write_whole
from rnnfarm.job import load_job
from rnnfarm.plugins import Registry
from rnnfarm.report import Progress
from rnnfarm.training.checkpoint import checkpoints, read_checkpoint
from rnnfarm.training.evaluate import evaluate, evaluate_run
from rnnfarm.training.loop import Trainer
from rnnfarm.training.result import Result
from rnnfarm.training.run import open_run
from rnnfarm.training.session import train
from rnnfarm.training.setup import make_model, make_windows


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("training") / "tokens"
    lengths = {"train": [80, 5, 2, 60, 33, 12, 7, 40], "valid": [50, 9, 21]}
    write_tokens(path, lengths)
    return path


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("training") / "waves"
    write_values(path, {"train": [80, 5, 60, 33, 12], "valid": [50, 9, 21]})
    return path


def run_of(raw: dict[str, Any], out: Path, **more: Any) -> Result:
    return train(make_job(raw), REGISTRY, out=out, **more)


# -- what a run writes -----------------------------------------------------------------------------


def test_a_run_folder(tokens: Path, tmp_path: Path) -> None:
    raw = token_job(tokens, evaluate_every=4, checkpoint_every=4, keep=2, gradient_flow_every=5)
    result = rnnfarm.train(raw, out=tmp_path / "run")
    run = tmp_path / "run"
    assert {p.name for p in run.iterdir()} == {
        "job.toml", "manifest.json", "metrics.jsonl", "run.json", "checkpoints",
    }  # fmt: skip
    found = entries(run)
    steps = [e for e in found if "train_loss" in e]
    assert [e["step"] for e in steps] == [*range(1, 13)]
    for entry in steps:
        assert set(entry) == {
            "step", "train_loss", "lr", "grad_norm", "steps_per_second", "elements_per_second",
        }  # fmt: skip
        assert entry["lr"] == 1e-3
        assert entry["elements_per_second"] <= 24 * entry["steps_per_second"] * (1 + 1e-9)
    evaluations = [e for e in found if "valid_loss" in e]
    assert [e["step"] for e in evaluations] == [4, 8, 12]
    assert set(evaluations[0]) == {
        "step", "valid_loss", "valid_bits", "valid_perplexity", "valid_accuracy",
    }  # fmt: skip
    flows = [e for e in found if "gradient_flow" in e]
    assert [e["step"] for e in flows] == [5, 10]
    assert list(flows[0]["gradient_flow"]["layer1"]) == ["0", "1", "2", "4"]
    assert [p.name for p in checkpoints(run / "checkpoints")][-2:] == [
        "step-00000008", "step-00000012",
    ]  # fmt: skip
    described = json.loads((run / "run.json").read_text())
    assert described.items() >= result.to_dict().items()
    assert described["stopped"] is None
    assert described["plugins"].keys() >= {"rnnfarm"}
    assert result.to_dict()["schema"] == 1
    assert result.steps == 12
    assert result.train_loss == steps[-1]["train_loss"]
    assert result.valid_loss == evaluations[-1]["valid_loss"]
    assert (result.kernel in ("numpy", "cpu"), result.workers) == (True, 1)
    arena = open_run(run, REGISTRY).arena
    assert hashlib.sha256(arena.tobytes()).hexdigest() == result.parameters_sha256


def test_job_toml_is_the_job_again(tokens: Path, tmp_path: Path) -> None:
    raw = token_job(tokens, steps=1, clip=1.0, schedule="cosine")
    run_of(raw, tmp_path / "run")
    again = load_job(tmp_path / "run" / "job.toml", registry=REGISTRY)
    assert again == make_job(raw)
    text = tomllib.loads((tmp_path / "run" / "job.toml").read_text())
    assert text["training"]["optimizer"]["beta2"] == 0.999
    assert text["training"]["clip"] == {"norm": 1.0}


def test_the_same_job_gives_the_same_bits_and_another_seed_others(
    tokens: Path, tmp_path: Path
) -> None:
    a, b, c = (
        run_of(token_job(tokens, seed=seed), tmp_path / name).parameters_sha256
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert a == b != c


def test_measuring_changes_nothing(tokens: Path, tmp_path: Path) -> None:
    """Evaluation, checkpoints, logs and gradient flow leave no trace in the parameters."""
    model = {"layers": [{"cell": "lstm", "hidden": 8, "dropout": 0.3, "zoneout": 0.2}]}
    plain = run_of(token_job(tokens, checkpoint_every=0, log_every=5, model=model), tmp_path / "a")
    busy = token_job(tokens, model=model, checkpoint_every=1, evaluate_every=1,
                     gradient_flow_every=1)  # fmt: skip
    assert run_of(busy, tmp_path / "b").parameters_sha256 == plain.parameters_sha256
    assert [e["step"] for e in entries(tmp_path / "a") if "train_loss" in e] == [5, 10]
    assert plain.train_loss == entries(tmp_path / "b")[-3]["train_loss"]


def test_train_from_a_file_with_overrides(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.toml"
    path.write_text(tomli_w.dumps(token_job(tokens)))
    assert rnnfarm.train(path, overrides=["training.steps=2"]).run == "runs/mine"
    assert rnnfarm.train(token_job(tokens), overrides=["training.steps=3"]).steps == 3
    assert rnnfarm.train(make_job(token_job(tokens, steps=1)), out="other").steps == 1
    with pytest.raises(JobError, match="overrides"):
        rnnfarm.train(make_job(token_job(tokens)), overrides=["training.steps=2"])
    with pytest.raises(JobError, match="there is a run in this folder"):
        rnnfarm.train(path)


def test_a_run_folder_that_cannot_be_made(tokens: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JobError, match="the run's folder cannot be made"):
        run_of(token_job(tokens), tmp_path / "file" / "run")
    with pytest.raises(JobError, match="the run's folder cannot be made"):
        run_of(token_job(tokens), tmp_path / "file")


def test_a_folder_is_trained_in_once_at_a_time(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, second = token_job(tokens, steps=2, evaluate_every=2), []

    def again(self: object, about: object) -> None:
        with pytest.raises(JobError, match="another process is training in this folder") as error:
            run_of(raw, tmp_path / "run", resume=True)
        second.append(error.value)

    monkeypatch.setattr(EarlyStopping, "on_start", again)
    raw["training"]["callbacks"] = [{"name": "early_stopping"}]
    first = run_of(raw, tmp_path / "run")
    assert len(second) == 1
    monkeypatch.undo()
    assert run_of(raw, tmp_path / "run", resume=True).steps == first.steps == 2


def test_a_state_that_is_no_json_names_its_callback(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EarlyStopping, "state", lambda self: {"best": np.float32(1.5)})
    raw = token_job(tokens, steps=3, evaluate_every=2, callbacks=[{"name": "early_stopping"}])
    sentence = r"EarlyStopping\.state gives .*float32.*plain finite numbers"
    with pytest.raises(PluginError, match=sentence):
        rnnfarm.train(raw, out=tmp_path / "run")


def test_callbacks_are_called_where_their_names_say(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    for name in ("on_start", "on_step", "on_checkpoint", "on_end"):
        monkeypatch.setattr(
            EarlyStopping, name, lambda self, about, name=name: calls.append((name, about))
        )
    callbacks = [{"name": "early_stopping"}]
    raw = token_job(tokens, steps=3, checkpoint_every=2, evaluate_every=9, callbacks=callbacks)
    result = run_of(raw, tmp_path / "run")
    assert [name for name, _ in calls] == [
        "on_start", "on_step", "on_step", "on_checkpoint", "on_step", "on_checkpoint", "on_end",
    ]  # fmt: skip
    assert (calls[0][1].step, calls[0][1].steps, calls[0][1].folder) == (0, 3, tmp_path / "run")
    assert calls[1][1].keys() >= {"step", "train_loss"}
    assert calls[3][1] == tmp_path / "run" / "checkpoints" / "step-00000002"
    assert calls[-1][1] == result.to_dict()


# -- a loss that is no number ----------------------------------------------------------------------


def exploding(data: Path, **more: Any) -> dict[str, Any]:
    model = {"layers": [{"cell": "elman", "hidden": 4, "activation": "relu"}]}
    optimizer = {"name": "sgd", "lr": 1e30}
    return value_job(data, model=model, optimizer=optimizer, checkpoint_every=1, **more)


def test_a_loss_that_is_no_number_stops_the_run(waves: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError) as error:
        run_of(exploding(waves), tmp_path / "run")
    text = str(error.value)
    assert text.startswith("step 2: ")
    assert "is no finite number any more, first in the output of layer1" in text
    assert "lower training.optimizer.lr (now 1e+30), set or lower training.clip" in text
    assert error.value.exit_code == 1
    # What was right before is kept.
    assert [p.name for p in checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000001"]
    checkpoint = read_checkpoint(tmp_path / "run" / "checkpoints" / "step-00000001")
    assert all(np.isfinite(a).all() for a in checkpoint.group("parameters").values())
    assert [e["step"] for e in entries(tmp_path / "run")] == [1]
    assert not (tmp_path / "run" / "run.json").exists()
    # The same happens again from the checkpoint.
    with pytest.raises(RunError, match="step 2: "):
        run_of(exploding(waves), tmp_path / "run", resume=True)


def test_a_stopped_run_on_the_command_line(waves: Path, tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(tomli_w.dumps(exploding(waves)))
    done = subprocess.run(
        [sys.executable, "-m", "rnnfarm", "train", "job.toml"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("rnnfarm: step 2: the ")
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr


def broken(data: Path, name: str, value: float) -> Trainer:
    """A trainer one of whose parameters is spoiled."""
    model = {"layers": [{"cell": "lstm", "hidden": 4}, {"cell": "gru", "hidden": 4}]}
    job = make_job(token_job(data, model=model, batch=4, lanes=2))
    dataset = open_dataset(data)
    made = make_model(job, dataset, REGISTRY)
    trainer = Trainer(job, REGISTRY, made, make_windows(job, made, dataset, "train"))
    trainer.train_step()
    found = [n for n in trainer.parameters if n.startswith(name)]
    trainer.parameters[found[0]][...] = value
    return trainer


@pytest.mark.parametrize(
    ("name", "place"),
    [("input.weight", "the output of input"), ("layer1", "the output of layer1"),
     ("layer2", "the output of layer2"), ("output.weight", "the output of output")],
)  # fmt: skip
def test_the_first_layer_that_is_no_number_is_named(
    tokens: Path, name: str, place: str, recwarn: pytest.WarningsRecorder
) -> None:
    with pytest.raises(RunError, match=f"step 2: the loss is no finite .* first in {place};"):
        broken(tokens, name, math.nan).train_step()
    assert not recwarn.list


def test_a_gradient_that_is_no_number(waves: Path) -> None:
    """The loss is finite, and its derivative is not: huge weights above a zero activation."""
    job = make_job(value_job(waves, model={"layers": [{"cell": "elman", "hidden": 4}]}))
    dataset = open_dataset(waves)
    made = make_model(job, dataset, REGISTRY)
    trainer = Trainer(job, REGISTRY, made, make_windows(job, made, dataset, "train"))
    matrices = {n: a for n, a in trainer.parameters.items() if a.shape == (4, 4)}
    (name,) = matrices
    trainer.arena[...] = 0.0
    trainer.parameters["output.weight"][...] = 1e3
    matrices[name][...] = 1e20 * np.eye(4)
    with pytest.raises(RunError, match="the gradient is no finite number any more, first in the g"):
        trainer.train_step()


# -- early stopping --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part",
    [{"callbacks": [{"name": "early_stopping"}]}, {"schedule": {"name": "plateau"}}],
    ids=["early_stopping", "plateau"],
)
def test_a_part_that_waits_for_evaluations_in_vain_is_refused(
    tokens: Path, tmp_path: Path, part: dict[str, Any]
) -> None:
    with pytest.raises(JobError, match=r"training\.evaluate_every: .* at the end only"):
        run_of(token_job(tokens, steps=2, **part), tmp_path / "run")
    without = tmp_path / "without"
    with DatasetWriter(str(without), {"tokens": Column.tokens(4)}) as writer:
        writer.append("train", {"tokens": np.arange(4000) % 4})
    raw = token_job(without, steps=2, evaluate_every=1, **part)
    with pytest.raises(JobError, match="no split 'valid'"):
        run_of(raw, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_early_stopping_ends_a_run_and_its_resumption(tokens: Path, tmp_path: Path) -> None:
    callback = {"name": "early_stopping", "patience": 2, "min_delta": 100.0}
    raw = token_job(tokens, steps=50, evaluate_every=3, checkpoint_every=3, callbacks=[callback])
    result = run_of(raw, tmp_path / "run")
    assert result.steps == 9  # the first is the best, and two were no better
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert "in 2 evaluations in a row" in described["stopped"]
    again = run_of(raw, tmp_path / "run", resume=True)
    assert again.to_dict() == result.to_dict() | {"elements_per_second": None}
    assert [e["step"] for e in entries(tmp_path / "run") if "train_loss" in e] == [*range(1, 10)]
    # It also is where the checkpoints are written at other steps.
    raw["training"]["checkpoint_every"] = 50
    other = run_of(raw, tmp_path / "other")
    assert other.parameters_sha256 == result.parameters_sha256
    assert run_of(raw, tmp_path / "other", resume=True).steps == 9


def test_a_checkpoint_is_told_of_once_where_a_run_stops_at_its_step(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(EarlyStopping, "on_checkpoint", lambda self, path: told.append(path.name))
    callback = {"name": "early_stopping", "patience": 1, "min_delta": 100.0}
    raw = token_job(tokens, steps=50, evaluate_every=2, checkpoint_every=2, callbacks=[callback])
    assert run_of(raw, tmp_path / "run").steps == 4
    assert told == ["step-00000002", "step-00000004"]


@pytest.mark.parametrize("kernel", ["numpy", "auto"])
def test_bounded_weights_stay_within_and_come_back(
    waves: Path, tmp_path: Path, kernel: str
) -> None:
    """Weights that reach their bound are at it, none is beyond, and none has to stay there."""
    layer = {"cell": "indrnn", "hidden": 40, "reach": 1000, "activation": "tanh"}
    optimizer = {"name": "adam", "lr": 0.05}
    settings = {"steps": 12, "checkpoint_every": 1, "keep": 12, "kernel": kernel}
    raw = value_job(waves, model={"layers": [layer]}, optimizer=optimizer, **settings)
    run_of(raw, tmp_path / "run")
    saved = [read_checkpoint(p).arrays for p in checkpoints(tmp_path / "run" / "checkpoints")]
    weights = np.stack([arrays["parameters.layer1.u"] for arrays in saved])  # (12, 40)
    bound = np.float32(2 ** (1 / 1000))
    assert np.abs(weights).max() == bound
    at = np.abs(weights) == bound
    assert (at[:-1] & ~at[1:]).any()
    raw["training"]["steps"] = 5
    run_of(raw, tmp_path / "pieces")
    raw["training"]["steps"] = 12
    assert (
        run_of(raw, tmp_path / "pieces", resume=True).parameters_sha256
        == run_of(raw, tmp_path / "whole").parameters_sha256
    )


def test_resuming_with_other_plugins_is_said(
    tokens: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    raw = token_job(tokens, steps=2)
    run_of(raw, tmp_path / "run")
    run_of(raw, tmp_path / "run", resume=True)
    assert not caplog.records
    monkeypatch.setattr(Registry, "versions", lambda self: {"rnnfarm": "9.9", "other": "1"})
    run_of(raw, tmp_path / "run", resume=True)
    (record,) = caplog.records
    assert "other was absent and is 1, rnnfarm was 0.1.0 and is 9.9" in record.getMessage()


# -- evaluation ------------------------------------------------------------------------------------


def measured(run: Path, sequences: list[np.ndarray]) -> dict[str, float]:
    """Loss and accuracy of a run's model over whole sequences, each from a zero state."""
    opened = open_run(run, REGISTRY)
    p = {name: array.astype(np.float64) for name, array in opened.parameters.items()}
    layer = Recurrent("lstm", 6, 8, "float64")
    own = {name: p[f"layer1.{name}"] for name in layer.plan.parameters}
    total, right, count = 0.0, 0, 0
    for sequence in sequences:
        y, _, _ = layer.forward(own, p["input.weight"][sequence[:-1, None]], training=False)
        logits = y[:, 0] @ p["output.weight"] + p["output.bias"]
        logits -= logits.max(1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        total -= log_p[np.arange(len(log_p)), sequence[1:]].sum()
        right += int((log_p.argmax(1) == sequence[1:]).sum())
        count += len(log_p)
    loss = total / count
    return {"loss": loss, "bits": loss / math.log(2), "perplexity": math.exp(loss),
            "accuracy": right / count}  # fmt: skip


def sequences_of(data: Path, split: str) -> list[np.ndarray]:
    part = open_dataset(data).split(split)
    bounds = [*part.starts().tolist(), part.steps]
    return [part.read("tokens", a, b).astype(int) for a, b in pairwise(bounds)]


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("mode", ["streams", "examples"])
def test_evaluation_agrees_with_an_independent_one(
    tokens: Path, tmp_path: Path, mode: str, lanes: int
) -> None:
    """Without dropout, and without what smooths the labels of training."""
    raw = token_job(
        tokens, data={"mode": mode}, lanes=lanes, window=5, steps=20, dtype="float64",
        model={
            "layers": [{"cell": "lstm", "hidden": 8, "dropout": 0.5, "zoneout": 0.0}],
            "loss": {"name": "cross_entropy", "label_smoothing": 0.2},
        },
    )  # fmt: skip
    result = run_of(raw, tmp_path / "run")
    sequences = sequences_of(tokens, "valid")
    expected = measured(tmp_path / "run", sequences)
    found = evaluate_run(tmp_path / "run", REGISTRY)
    assert found["schema"] == 1
    assert (found["split"], found["step"]) == ("valid", 20)
    for name, figure in expected.items():
        assert found[name] == pytest.approx(figure, rel=1e-12), name
    assert found["loss"] == result.valid_loss
    last = [e for e in entries(tmp_path / "run") if "valid_loss" in e][-1]
    assert last["valid_accuracy"] == found["accuracy"]


def test_a_run_is_measured_by_checkpoint_and_split(tokens: Path, tmp_path: Path) -> None:
    raw = token_job(tokens, evaluate_every=4, checkpoint_every=4, keep=5,
                    optimizer={"name": "adam", "lr": 0.05})  # fmt: skip
    result = run_of(raw, tmp_path / "run")
    losses = {e["step"]: e["valid_loss"] for e in entries(tmp_path / "run") if "valid_loss" in e}
    for name in ("4", "step-00000008", "12"):
        found = evaluate_run(tmp_path / "run", REGISTRY, checkpoint=name)
        assert found["loss"] == losses[found["step"]]
    best = evaluate_run(tmp_path / "run", REGISTRY, checkpoint="best")
    assert best["loss"] == min(losses.values())
    newest = evaluate_run(tmp_path / "run", REGISTRY, checkpoint="newest")
    assert newest["loss"] == result.valid_loss
    train_split = evaluate_run(tmp_path / "run", REGISTRY, split="train")
    assert train_split["loss"] != newest["loss"]
    with pytest.raises(JobError, match="tesst"):
        evaluate_run(tmp_path / "run", REGISTRY, split="tesst")
    with pytest.raises(JobError, match="this is not a run"):
        evaluate_run(tmp_path, REGISTRY)


def test_evaluating_some_windows_only(tokens: Path, tmp_path: Path) -> None:
    whole = run_of(token_job(tokens), tmp_path / "a")
    some = run_of(token_job(tokens, evaluate_windows=1), tmp_path / "b")
    assert whole.parameters_sha256 == some.parameters_sha256
    assert whole.valid_loss != some.valid_loss


def test_a_split_of_one_sequence_is_evaluated_on_as_many_steps(tmp_path: Path) -> None:
    write_tokens(tmp_path / "data", {"train": [200], "valid": [400]})
    job = token_job(tmp_path / "data", batch=8, window=5, evaluate_windows=2)
    result = run_of(job, tmp_path / "run")
    opened = open_run(tmp_path / "run", REGISTRY)
    windows = make_windows(opened.job, opened.model, opened.dataset, "valid")
    assert windows.batch == 1
    measured = evaluate(opened.model, windows, opened.parameters, lanes=1, seed=0, most=2 * 8)
    assert measured["loss"] == result.valid_loss


def test_targets_that_are_ignored_are_neither_right_nor_wrong(tokens: Path, tmp_path: Path) -> None:
    loss = {"name": "cross_entropy", "ignore": 0}
    raw = token_job(tokens, steps=40, optimizer={"name": "adam", "lr": 0.05},
                    data={"target": "labels"}, model={"loss": loss})  # fmt: skip
    run_of(raw, tmp_path / "run")
    # The label is a function of the token; where 0 is left out, 1 and 2 are never confused with it.
    assert evaluate_run(tmp_path / "run", REGISTRY)["accuracy"] == 1.0


def test_a_figure_that_is_no_number_is_null(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import rnnfarm.training.loop

    monkeypatch.setattr(
        rnnfarm.training.loop, "evaluate", lambda *_, **__: {"loss": math.nan, "bits": math.inf}
    )
    raw = token_job(tokens, steps=4, evaluate_every=2, checkpoint_every=2)
    assert run_of(raw, tmp_path / "run").valid_loss is None
    again = run_of(raw, tmp_path / "run", resume=True)
    assert again.valid_loss is None
    found = [e for e in entries(tmp_path / "run") if "valid_loss" in e]
    assert found == [{"step": s, "valid_loss": None, "valid_bits": None} for s in (2, 4)]
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["valid_loss"] is None


def test_a_run_without_validation_data(tmp_path: Path) -> None:
    write_tokens(tmp_path / "d", {"train": [60]})
    result = run_of(token_job(tmp_path / "d", steps=3, evaluate_every=1), tmp_path / "run")
    assert result.valid_loss is None
    with pytest.raises(JobError, match="valid"):
        evaluate_run(tmp_path / "run", REGISTRY)


def test_little_validation_data(tmp_path: Path) -> None:
    write_tokens(tmp_path / "d", {"train": [60], "valid": [3]})
    assert run_of(token_job(tmp_path / "d", steps=3), tmp_path / "run").valid_loss is not None


# -- a damaged run ---------------------------------------------------------------------------------


def test_damaged_files_of_a_run(tokens: Path, tmp_path: Path) -> None:
    raw, run = token_job(tokens, steps=2), tmp_path / "run"
    run_of(raw, run)
    metrics = run / "metrics.jsonl"
    kept = metrics.read_text()
    metrics.write_text(kept + '{"step": 3, "trai')
    run_of(raw, run, resume=True)
    assert metrics.read_text() == kept
    metrics.write_text("what\n" + kept)
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 1: this is no entry of a run"):
        run_of(raw, run, resume=True)
    (run / "job.toml").write_text("[data\n")
    with pytest.raises(DataError, match=r"job\.toml: damaged"):
        evaluate_run(run, REGISTRY)


def test_a_model_that_is_too_large(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(JobError, match=r"parameters take .* GB, which cannot be had here"):
        run_of(
            token_job(tokens, model={"layers": [{"cell": "lstm", "hidden": 2**30}]}),
            tmp_path / "a",
        )

    def no_memory(*_: object) -> None:
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(Trainer, "train_step", no_memory)
    with pytest.raises(RunError, match=r"step 1: there is not enough memory .*9 TiB.* lower"):
        run_of(token_job(tokens), tmp_path / "b")


def test_where_nothing_can_be_written_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(RunError, match=r"job\.toml could not be written \(Read-only file system\)"):
        write_whole(tmp_path / "job.toml", "")


def test_a_dataset_that_is_another_one_than_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw = token_job(build_text(tmp_path), steps=2)
    run_of(raw, tmp_path / "run")
    shutil.rmtree(tmp_path / "data")
    build_text(tmp_path, repeat=50)
    more = raw | {"training": raw["training"] | {"steps": 4}}
    run_of(more, tmp_path / "run", resume=True)
    assert "is not the dataset that" in caplog.text
    manifest = json.loads((tmp_path / "data" / "dataset.json").read_text())
    manifest["vocabularies"]["tokens"]["entries"].reverse()
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(manifest))
    for use in (
        lambda: open_run(tmp_path / "run", REGISTRY),
        lambda: run_of(more, tmp_path / "run", resume=True),
    ):
        with pytest.raises(DataError, match="its vocabulary is not the one"):
            use()


def test_a_dataset_that_was_moved_away(tmp_path: Path) -> None:
    run_of(token_job(build_text(tmp_path), steps=1), tmp_path / "run")
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"is not there any more; .* data\.path of .*job\.toml"):
        open_run(tmp_path / "run", REGISTRY)


@pytest.mark.parametrize(("room", "what"), [(20, "job.toml"), (1500, "step-"), (30_000, "metrics")])
def test_a_full_disk_is_a_sentence(tokens: Path, tmp_path: Path, room: int, what: str) -> None:
    """A limit on the size of files stands for a disk without room."""
    model = {"layers": [{"cell": "lstm", "hidden": 12 if room == 1500 else 2}]}
    raw = token_job(tokens, steps=300, checkpoint_every=5, model=model, batch=2, keep=1)
    (tmp_path / "job.toml").write_text(tomli_w.dumps(raw))
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))"
    code = f"import resource, sys; {limit}; from rnnfarm.cli import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "job.toml", "--out", "run"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    (last,) = [x for x in done.stderr.splitlines() if x.startswith("rnnfarm: ")]
    assert done.returncode == 1, done.stderr
    assert what in last
    assert "could not be written" in last
    assert "go on with --resume" in last
    assert run_of(raw, tmp_path / "run", resume=True).steps == 300


# -- every part ------------------------------------------------------------------------------------

SETTINGS: dict[str, dict[str, Any]] = {
    "lstm_projection": {"projection": 5},
    "step": {"every": 2},
}


def names(kind: str) -> list[str]:
    """The built-in parts of a kind."""
    return sorted(getattr(builtin, f"rnnfarm_{kind}")())


@pytest.mark.parametrize("cell", names("cells"))
def test_every_cell_learns(tokens: Path, tmp_path: Path, cell: str) -> None:
    layers = [{"cell": cell, "hidden": 8, **SETTINGS.get(cell, {})}]
    raw = token_job(tokens, steps=25, model={"layers": layers}, clip=1.0,
                    optimizer={"name": "adam", "lr": 0.02})  # fmt: skip
    run_of(raw, tmp_path / "run")
    losses = [e["train_loss"] for e in entries(tmp_path / "run") if "train_loss" in e]
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.1


@pytest.mark.parametrize("optimizer", names("optimizers"))
def test_every_optimizer_learns(tokens: Path, tmp_path: Path, optimizer: str) -> None:
    rates = {"sgd": 0.5, "momentum": 0.1, "nesterov": 0.1, "adagrad": 0.1}
    chosen = {"name": optimizer, "lr": rates.get(optimizer, 0.01), "weight_decay": 1e-4}
    run_of(token_job(tokens, steps=25, optimizer=chosen), tmp_path / "run")
    losses = [e["train_loss"] for e in entries(tmp_path / "run") if "train_loss" in e]
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.05


@pytest.mark.parametrize("schedule", names("schedules"))
def test_every_schedule_runs(tokens: Path, tmp_path: Path, schedule: str) -> None:
    chosen = {"name": schedule, "warmup": 2, **SETTINGS.get(schedule, {})}
    run_of(token_job(tokens, steps=6, evaluate_every=1, schedule=chosen), tmp_path / "run")
    rates = [e["lr"] for e in entries(tmp_path / "run") if "lr" in e]
    assert rates[0] == pytest.approx(5e-4)
    assert max(rates) == pytest.approx(1e-3)


# CTC learns in test_shapes.py and test_answers.py: its target is a list of its own.
@pytest.mark.parametrize("loss", [name for name in names("losses") if name != "ctc"])
def test_every_loss_learns(tokens: Path, waves: Path, tmp_path: Path, loss: str) -> None:
    classes = loss == "cross_entropy"
    make = token_job if classes else value_job
    target = {"target": "positive"} if loss == "binary_cross_entropy" else {}
    raw = make(tokens if classes else waves, steps=25, model={"loss": loss}, data=target,
               optimizer={"name": "adam", "lr": 0.02})  # fmt: skip
    run_of(raw, tmp_path / "run")
    losses = [e["train_loss"] for e in entries(tmp_path / "run") if "train_loss" in e]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    assert evaluate_run(tmp_path / "run", REGISTRY)["loss"] > -100


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["embedding", "one_hot"])
def test_inputs_of_tokens(tokens: Path, tmp_path: Path, kind: str, dtype: str) -> None:
    given = {"kind": kind} | ({"size": 5} if kind == "embedding" else {})
    raw = token_job(tokens, steps=3, dtype=dtype, model={"input": given})
    run_of(raw, tmp_path / "run")
    assert open_run(tmp_path / "run", REGISTRY).arena.dtype == dtype


@pytest.mark.parametrize("target", ["next", "total"])
@pytest.mark.parametrize("given", [{"kind": "linear", "size": 5}, {"kind": "none"}])
def test_inputs_of_values(waves: Path, tmp_path: Path, given: Any, target: str) -> None:
    raw = value_job(waves, steps=40, model={"input": given}, data={"target": target},
                    optimizer={"name": "adam", "lr": 0.02})  # fmt: skip
    run_of(raw, tmp_path / "run")
    losses = [e["train_loss"] for e in entries(tmp_path / "run") if "train_loss" in e]
    assert np.mean(losses[-4:]) < 0.6 * np.mean(losses[:4])


def test_everything_at_once(tokens: Path, tmp_path: Path) -> None:
    layers = [
        {"cell": "lstm", "hidden": 6, "bidirectional": True, "dropout": 0.1, "zoneout": 0.1},
        {"cell": "gru", "hidden": 12, "residual": True, "initial": "learned"},
        {"cell": "gru_reset_before", "hidden": 6, "recurrent_dropout": 0.1, "initial": "random"},
    ]
    raw = token_job(
        tokens, data={"mode": "examples", "target": "labels"}, window=80, lanes=2, steps=6,
        clip={"value": 0.1},
        evaluate_every=2, gradient_flow_every=2, checkpoint_every=2, schedule="inverse_sqrt",
        model={"layers": layers, "input": {"kind": "embedding", "size": 6, "dropout": 0.1},
               "output": {"bias": False}},
    )  # fmt: skip
    whole = run_of(raw, tmp_path / "a")
    flow = next(e["gradient_flow"] for e in entries(tmp_path / "a") if "gradient_flow" in e)
    assert set(flow) == {"layer1", "layer1.reverse", "layer2", "layer3"}
    raw["training"]["steps"] = 4
    run_of(raw, tmp_path / "b")
    raw["training"]["steps"] = 6
    resumed = run_of(raw, tmp_path / "b", resume=True)
    assert resumed.parameters_sha256 == whole.parameters_sha256
    assert resumed.valid_loss == whole.valid_loss


# -- memory and threads ----------------------------------------------------------------------------


def test_the_memory_of_a_run_does_not_grow(tokens: Path) -> None:
    job = make_job(token_job(tokens, data={"mode": "examples"}, lanes=2, window=9))
    dataset = open_dataset(tokens)
    model = make_model(job, dataset, REGISTRY)
    trainer = Trainer(job, REGISTRY, model, make_windows(job, model, dataset, "train"))
    valid = make_windows(job, model, dataset, "valid")

    def some(steps: int) -> int:
        for _ in range(steps):
            trainer.train_step()
        trainer.evaluate(valid)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    some(60)
    tracemalloc.start()
    try:
        first = some(30)
        assert some(120) - first < 20_000
    finally:
        tracemalloc.stop()
        trainer.executor.shutdown()


def test_runs_leave_no_threads(tokens: Path, tmp_path: Path) -> None:
    before = threading.active_count()
    for number in range(3):
        run_of(token_job(tokens, steps=1, lanes=4, threads=4), tmp_path / f"{number}")
    waited = [t for t in threading.enumerate() if t.name.startswith("ThreadPoolExecutor")]
    for thread in waited:
        thread.join(5)
    assert threading.active_count() <= before


# -- real data -------------------------------------------------------------------------------------


def utterances(path: Path) -> list[tuple[np.ndarray, int]]:
    """The (T, 12) coefficients and the speaker of each utterance of a .ts file."""
    lines = path.read_text().splitlines()
    found = []
    for line in lines[lines.index("@data") + 1 :]:
        *series, speaker = line.split(":")
        values = np.array([[float(v) for v in s.split(",")] for s in series], np.float32).T
        found.append((values, int(speaker) - 1))
    return found


def test_which_speaker_says_a_vowel(tmp_path: Path) -> None:
    """Variable lengths, both directions, a class at every step: Japanese Vowels."""
    splits = {"train": "TRAIN", "valid": "TEST"}
    files = {s: real_data(f"japanese-vowels/{name}.ts") for s, name in splits.items()}
    columns = {"values": Column.values(12), "speaker": Column.tokens(9)}
    with DatasetWriter(tmp_path / "d", columns) as writer:
        for split, file in files.items():
            for values, speaker in utterances(file):
                row = {"values": values, "speaker": np.full(len(values), speaker)}
                writer.append(split, row)
    raw = value_job(
        tmp_path / "d", batch=30, window=29, steps=90, lanes=2, clip=1.0,
        data={"mode": "examples", "target": "speaker"},
        optimizer={"name": "adam", "lr": 0.01},
        model={
            "layers": [{"cell": "lstm", "hidden": 24, "bidirectional": True, "dropout": 0.2}],
            "loss": "cross_entropy",
        },
    )  # fmt: skip
    run_of(raw, tmp_path / "run")
    assert evaluate_run(tmp_path / "run", REGISTRY)["accuracy"] > 0.85
    raw["training"]["window"] = 10
    with pytest.raises(JobError, match=r"has 2[0-9] steps; set window = 2"):
        run_of(raw, tmp_path / "short")


def test_hours_of_a_transformer(tmp_path: Path) -> None:
    """Next-hour forecasting of ETTh1 from CSV beats repeating the last value."""
    rows = np.loadtxt(real_data("ett/ETTh1.csv"), delimiter=",", skiprows=1, usecols=range(1, 8))
    known = rows[: int(0.8 * len(rows))]
    source = tmp_path / "hours.csv"
    scaled = (rows - known.mean(0)) / known.std(0)
    np.savetxt(source, scaled, fmt="%.6g", delimiter=",", header="a,b,c,d,e,f,g", comments="")
    raw = value_job(
        tmp_path / "d", batch=32, window=48, steps=150, clip=1.0,
        data={"build": {"reader": "csv", "files": [str(source)], "valid": 0.2}},
        optimizer={"name": "adam", "lr": 0.01},
        schedule="cosine",
        model={"layers": [{"cell": "gru", "hidden": 32}],
               "loss": {"name": "mse", "reduction": "mean"}},
    )  # fmt: skip
    result = run_of(raw, tmp_path / "run")
    part = open_dataset(tmp_path / "d").split("valid")
    name = next(iter(open_dataset(tmp_path / "d").columns))
    values = part.read(name, 0, part.steps)
    repeated = 0.5 * float((np.diff(values, axis=0) ** 2).sum(1).mean())
    assert result.valid_loss is not None
    assert result.valid_loss < repeated


def test_a_bar_on_a_terminal(tokens: Path, tmp_path: Path) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    run_of(token_job(tokens, steps=3), tmp_path / "run", progress=Progress(False, stream=terminal))
    assert "3/3" in terminal.getvalue()
    assert "valid_bits" in terminal.getvalue()
    assert "loss " in terminal.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_run_outlives_the_terminal_it_was_started_from(
    tokens: Path, tmp_path: Path, terminal: bool
) -> None:
    class Gone(io.StringIO):
        def isatty(self) -> bool:
            return terminal

        def write(self, text: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

    progress = Progress(quiet=False, every=0.0, stream=Gone())
    result = run_of(token_job(tokens, steps=3), tmp_path / "run", progress=progress)
    assert result.steps == 3


def test_a_process_without_stderr_keeps_its_stdout_clean(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    progress = Progress(quiet=False)
    progress.start(0, 3)
    progress.say("a line")
    assert capsys.readouterr().out == ""


def test_losses_are_said_while_a_run_goes_on(
    tokens: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stream = io.StringIO()
    progress = Progress(quiet=False, every=0.0, stream=stream)
    with caplog.at_level(logging.WARNING):
        run_of(token_job(tokens, steps=3), tmp_path / "run", progress=progress)
    said = stream.getvalue().splitlines()
    assert re.search(
        r"parameters; kernels layer1: (cpu|numpy), .*optimizer: (cpu|numpy); run", said[0]
    )
    assert [line.split()[1] for line in said if line.startswith("step ")][:3] == [
        "1/3", "2/3", "3/3",
    ]  # fmt: skip
    assert any("valid_bits" in line for line in said)
    assert not caplog.records


def test_a_report_of_figures_that_are_no_numbers(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import rnnfarm.training.loop
    from rnnfarm.page import page
    from rnnfarm.run_report import read_runs

    monkeypatch.setattr(
        rnnfarm.training.loop, "evaluate", lambda *_, **__: {"loss": math.nan, "bits": math.inf}
    )
    run_of(token_job(tokens, steps=4, evaluate_every=2), tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "gradient_flow": {"layer1": {"0": 1.0, "1": null, "2": 0.5}}}\n')
    assert "<svg" in page(read_runs([tmp_path / "run"]))
