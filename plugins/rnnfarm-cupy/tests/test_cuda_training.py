"""Whole networks trained through generated CUDA on this CPU, against the CPU's own way.

The device is the strict stand-in of ``rnnfarm_cupy.host``: every kernel and every operation of the
device path runs; CuPy's calls do not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rnnfarm_cupy import kernel
from rnnfarm_cupy.host import find_compiler
from training_tools import REGISTRY, entries, make_job, token_job, value_job, write_tokens
from training_tools import write_values as write_waves

from rnnfarm.errors import RunError
from rnnfarm.training.checkpoint import newest_checkpoint
from rnnfarm.training.evaluate import evaluate_run
from rnnfarm.training.generate import generate
from rnnfarm.training.predict import predict
from rnnfarm.training.result import Result
from rnnfarm.training.session import train

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")


@pytest.fixture(autouse=True)
def _host_runs_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(kernel.VARIABLE, "host")
    yield
    kernel.the_runtime.cache_clear()


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cuda") / "tokens"
    write_tokens(path, {"train": [80, 5, 2, 60, 33, 12, 7, 40], "valid": [50, 9, 21]})
    return path


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cuda") / "waves"
    write_waves(path, {"train": [80, 5, 60, 33, 12], "valid": [50, 9, 21]})
    return path


def on(device: str, raw: dict[str, Any], out: Path, **more: Any) -> Result:
    job = make_job({**raw, "training": {**raw["training"], "device": device}})
    return train(job, REGISTRY, out=out, **more)


def state_of(out: Path) -> dict[str, Any]:
    checkpoint = newest_checkpoint(out / "checkpoints")
    assert checkpoint is not None
    groups = ("parameters", "optimizer", "states")
    return {f"{g}.{n}": a for g in groups for n, a in checkpoint.group(g).items()}


def alike(raw: dict[str, Any], folder: Path, tolerance: float = 2e-5) -> None:
    """The curves and the end of a run on both devices."""
    there = on("cuda", raw, folder / "cuda")
    here = on("cpu", raw, folder / "cpu")
    assert there.kernel == "cuda"
    assert here.kernel != "cuda"
    curves = [
        [(e["train_loss"], e["grad_norm"]) for e in entries(folder / device) if "train_loss" in e]
        for device in ("cuda", "cpu")
    ]
    assert len(curves[0]) == there.steps
    np.testing.assert_allclose(curves[0], curves[1], rtol=tolerance)
    assert there.valid_loss == pytest.approx(here.valid_loss, rel=tolerance)
    expected = state_of(folder / "cpu")
    for name, array in state_of(folder / "cuda").items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-3, atol=2e-4, err_msg=name)


EVERYTHING = {
    "input": {"kind": "embedding", "size": 6, "dropout": 0.1},
    "layers": [
        {"cell": "lstm", "hidden": 9, "dropout": 0.2, "zoneout": 0.1, "recurrent_dropout": 0.2},
        {"cell": "gru", "hidden": 9, "initial": "learned", "residual": True},
        {"cell": "mgu", "hidden": 5, "initial": "random"},
    ],
}


def test_streams_of_tokens(tokens: Path, tmp_path: Path) -> None:
    """Everything that draws random numbers, on two lanes, with decay and the norm clipped."""
    raw = token_job(tokens, model=EVERYTHING, lanes=2, clip={"norm": 0.3}, evaluate_every=5)
    raw["training"]["optimizer"] = {"name": "adam", "weight_decay": 0.01}
    alike(raw, tmp_path)
    accuracy = [
        [e["valid_accuracy"] for e in entries(tmp_path / device) if "valid_accuracy" in e]
        for device in ("cuda", "cpu")
    ]
    assert accuracy[0] == accuracy[1]


def test_examples_of_tokens(tokens: Path, tmp_path: Path) -> None:
    """Masks, both directions, and an output that shares the embedding's weights."""
    embedding = {"input": {"kind": "embedding", "size": 8}}
    both = {**embedding, "layers": [{"cell": "lstm", "hidden": 4, "bidirectional": True}]}
    data = {"mode": "examples", "target": "labels"}
    alike(token_job(tokens, model=both, data=data, window=80), tmp_path / "both")
    tied = {**embedding, "layers": [{"cell": "lstm", "hidden": 8}], "output": {"tied": True}}
    alike(token_job(tokens, model=tied, data={"mode": "examples"}, window=80), tmp_path / "tied")


def test_one_hot_tokens(tokens: Path, tmp_path: Path) -> None:
    model = {"input": {"kind": "one_hot"}, "layers": [{"cell": "indrnn", "hidden": 5}]}
    alike(token_job(tokens, model=model, data={"target": "labels"}), tmp_path)


def test_values(waves: Path, tmp_path: Path) -> None:
    """A linear input layer, windows that overlap, and elements clipped."""
    model = {
        "input": {"kind": "linear", "size": 5},
        "layers": [{"cell": "lstm_layer_norm", "hidden": 6}],
    }
    alike(value_job(waves, model=model, stride=3, clip={"value": 0.01}), tmp_path, 1e-3)


def test_float64(waves: Path, tmp_path: Path) -> None:
    alike(value_job(waves, dtype="float64", lanes=2), tmp_path, 1e-9)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_rounded_operands(tokens: Path, tmp_path: Path, precision: str) -> None:
    """The curve is near that of full precision, and is another."""
    raw = token_job(tokens, precision=precision)
    rounded = on("cuda", raw, tmp_path / "a")
    full = on("cpu", token_job(tokens), tmp_path / "b")
    assert rounded.train_loss == pytest.approx(full.train_loss, rel=3e-3)
    assert abs(rounded.train_loss - full.train_loss) > 1e-6
    again = on("cuda", raw, tmp_path / "c")
    assert again.parameters_sha256 == rounded.parameters_sha256


def test_the_same_bits_after_a_resume(tokens: Path, tmp_path: Path) -> None:
    raw = token_job(tokens, model=EVERYTHING, lanes=2)
    whole = on("cuda", raw, tmp_path / "whole")
    half = {**raw, "training": {**raw["training"], "steps": 7}}
    on("cuda", half, tmp_path / "half")
    resumed = on("cuda", raw, tmp_path / "half", resume=True)
    assert resumed.parameters_sha256 == whole.parameters_sha256
    logged = [e["step"] for e in entries(tmp_path / "half") if "train_loss" in e]
    assert logged == list(range(1, 13))


def test_another_device_goes_on_with_a_run(tokens: Path, tmp_path: Path) -> None:
    raw = token_job(tokens)
    half = {**raw, "training": {**raw["training"], "steps": 7}}
    on("cuda", half, tmp_path / "run")
    on("cpu", raw, tmp_path / "run", resume=True)
    here = on("cpu", raw, tmp_path / "cpu")
    expected = state_of(tmp_path / "cpu")
    for name, array in state_of(tmp_path / "run").items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-3, atol=2e-5, err_msg=name)
    assert here.steps == 12


def test_a_loss_that_is_no_number_ends_the_run(waves: Path, tmp_path: Path) -> None:
    raw = value_job(waves, checkpoint_every=1)
    raw["training"]["optimizer"] = {"name": "sgd", "lr": 1e30}
    with pytest.raises(RunError, match=r"step \d+: the (loss|gradient) is no finite number"):
        on("cuda", raw, tmp_path / "run")
    for name, array in state_of(tmp_path / "run").items():
        if name.startswith("parameters"):
            assert np.isfinite(array).all(), name


def test_a_trained_model_is_used(tokens: Path, tmp_path: Path) -> None:
    """Evaluation and prediction by the device give what the CPU gives."""
    raw = token_job(tokens)
    on("cuda", raw, tmp_path / "run")
    found = evaluate_run(tmp_path / "run", REGISTRY)
    rows = list(predict(tmp_path / "run", REGISTRY, split="valid"))
    job = tmp_path / "run" / "job.toml"
    job.write_text(job.read_text().replace('device = "cuda"', 'device = "cpu"'))
    expected = evaluate_run(tmp_path / "run", REGISTRY)
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    others = list(predict(tmp_path / "run", REGISTRY, split="valid"))
    assert len(rows) == len(others)
    assert json.dumps(rows[0], default=str)[:40] == json.dumps(others[0], default=str)[:40]


def test_text_is_generated(tmp_path: Path) -> None:
    from training_tools import TEXT

    source = tmp_path / "text.txt"
    source.write_text(TEXT * 40)
    raw: dict[str, Any] = {
        "data": {
            "path": str(tmp_path / "data"),
            "build": {"reader": "characters", "files": [str(source)]},
        },
        "model": {
            "input": {"kind": "embedding", "size": 6},
            "layers": [{"cell": "gru", "hidden": 8}],
            "loss": "cross_entropy",
        },
        "training": {"batch": 4, "window": 6, "steps": 3, "optimizer": {"name": "adam"}},
    }
    on("cuda", raw, tmp_path / "run")
    text = "".join(generate(tmp_path / "run", REGISTRY, prompt="def ", length=20, temperature=0.0))
    job = tmp_path / "run" / "job.toml"
    job.write_text(job.read_text().replace('device = "cuda"', 'device = "cpu"'))
    other = "".join(generate(tmp_path / "run", REGISTRY, prompt="def ", length=20, temperature=0.0))
    assert text == other


def test_auto_takes_the_gpu_that_is_there(tokens: Path, tmp_path: Path) -> None:
    assert on("auto", token_job(tokens, steps=1), tmp_path / "run").kernel == "cuda"
    numpy = token_job(tokens, steps=1, kernel="numpy")
    assert on("auto", numpy, tmp_path / "numpy").kernel == "numpy"
