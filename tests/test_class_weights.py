"""Weights of classes: what a weighted loss is, and where "balanced" ones come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_tools import sentence_of
from test_loop import trainer_of
from training_tools import REGISTRY, make_job, token_job

from rnnfarm.builtin.losses import CrossEntropy
from rnnfarm.data import Column, DatasetWriter, open_dataset
from rnnfarm.errors import JobError
from rnnfarm.kernels.choose import KernelChoice, installed_kernels
from rnnfarm.nn.loss import LossFunction
from rnnfarm.training.checkpoint import newest_checkpoint
from rnnfarm.training.counts import target_counts
from rnnfarm.training.evaluate import evaluate_run
from rnnfarm.training.run import open_run
from rnnfarm.training.session import train

WEIGHTS = [0.5, 2.0, 0.0, 1.25]


def window() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.normal(size=(5, 6, 4)), rng.integers(0, 4, (5, 6)), rng.random((5, 6)) < 0.7


def negative_log_likelihood(output: np.ndarray, target: np.ndarray) -> np.ndarray:
    logs = output - np.log(np.exp(output).sum(-1, keepdims=True))
    found: np.ndarray = -np.take_along_axis(logs, target[..., None], -1)[..., 0]
    return found


@pytest.mark.parametrize("ignore", [None, 1])
@pytest.mark.parametrize("kernel", ["numpy", "auto"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_weighted_sum_and_its_gradient(dtype: str, kernel: str, ignore: int | None) -> None:
    output, target, valid = window()
    output = output.astype(dtype)
    choice = KernelChoice(installed_kernels(REGISTRY), kernel, dtype=dtype)
    loss = LossFunction(CrossEntropy(weights=WEIGHTS, ignore=ignore), 4, 4, dtype, choice)
    gradient = np.full_like(output, np.nan)
    found = loss(output, target, valid, gradient)
    counts = valid & (target != (-1 if ignore is None else ignore))
    weights = np.where(counts, np.array(WEIGHTS)[target], 0)
    assert (found.count, found.weight) == (counts.sum(), weights.sum())
    expected = (weights * negative_log_likelihood(output.astype(np.float64), target)).sum()
    rel = 1e-5 if dtype == "float32" else 1e-12
    assert found.total == pytest.approx(expected, rel=rel)
    likely = np.exp(output) / np.exp(output).sum(-1, keepdims=True)
    slope = weights[..., None] * (likely - np.eye(4)[target])
    np.testing.assert_allclose(gradient, slope, rtol=rel, atol=rel)


def test_as_pytorch_has_it() -> None:
    torch = pytest.importorskip("torch")
    output, target, valid = window()
    found = LossFunction(CrossEntropy(weights=WEIGHTS), 4, 4, "float64")(output, target, valid)
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(output[valid]), torch.tensor(target[valid]),
        weight=torch.tensor(WEIGHTS, dtype=torch.float64),
    )  # fmt: skip
    assert found.total / found.weight == pytest.approx(float(expected), rel=1e-12)


def test_equal_weights_are_none() -> None:
    output, target, valid = window()
    plain = LossFunction(CrossEntropy(), 4, 4, "float64")(output, target, valid)
    equal = LossFunction(CrossEntropy(weights=[1.0] * 4), 4, 4, "float64")(output, target, valid)
    assert plain == equal


def test_evaluation_counts_all_targets_alike() -> None:
    loss = CrossEntropy(weights=WEIGHTS, ignore=2, label_smoothing=0.1)
    assert loss.measured().settings() == CrossEntropy(ignore=2).settings()


def write_labels(path: Path, labels: str, own: bool = False) -> Path:
    """Sequences of 5 steps, each with labels of its own steps, or one of its own."""
    columns = {"tokens": Column.tokens(4), "label": Column.tokens(3, own=own)}
    rng = np.random.default_rng(0)
    with DatasetWriter(path, columns) as writer:
        for split in ("train", "valid"):
            for at in range(0, len(labels), 1 if own else 5):
                label = np.array([int(c) for c in labels[at : at + (1 if own else 5)]])
                writer.append(split, {"tokens": rng.integers(0, 4, 5), "label": label})
    return path


LABELS = "0" * 24 + "1" * 12 + "2" * 4


def job_of(path: Path, weights: Any, **more: Any) -> dict[str, Any]:
    loss = {"name": "cross_entropy", "weights": weights}
    settings = {"batch": 4, "window": 5, "steps": 6, "evaluate_every": 3} | more
    return token_job(path, data={"target": "label"}, model={"loss": loss}, **settings)


@pytest.mark.parametrize("own", [False, True])
def test_balanced_weights_are_those_of_the_training_part(tmp_path: Path, own: bool) -> None:
    raw = job_of(write_labels(tmp_path / "d", LABELS, own), "balanced")
    if own:
        raw["data"]["mode"], raw["model"]["pool"] = "examples", "last"
    trainer = trainer_of(raw)
    counts = np.bincount([int(c) for c in LABELS])
    expected = counts.sum() / (3 * counts)  # scikit-learn's compute_class_weight("balanced")
    assert trainer.model.loss.loss.settings()["weights"] == expected.tolist()
    entry = trainer.train_step()
    target = trainer.windows.read(0).target
    weights = expected[target]
    assert trainer.count == target.size
    assert entry["train_loss"] == pytest.approx(1.1, rel=0.3)
    assert weights.std() > 0 or own


def test_the_counts_of_next_steps(tmp_path: Path) -> None:
    sequences = [[0, 1, 1], [2], [3, 0, 0, 1]]
    with DatasetWriter(tmp_path / "d", {"tokens": Column.tokens(5)}) as writer:
        for sequence in sequences:
            writer.append("train", {"tokens": np.array(sequence)})
    part = open_dataset(tmp_path / "d").split("train")
    found = target_counts(part, "tokens", ahead=True, goal="steps")
    assert found.tolist() == [2, 3, 0, 0, 0]
    found = target_counts(part, "tokens", ahead=False, goal="steps")
    assert found.tolist() == [3, 3, 1, 1, 0]


def test_an_ignored_class_has_no_part_in_the_balance() -> None:
    loss = CrossEntropy(weights="balanced", ignore=0).with_counts(np.array([100, 6, 2, 0]))
    assert loss.settings()["weights"] == [1.0, 8 / 12, 2.0, 1.0]


def test_a_run_with_weights_keeps_them_and_can_be_resumed_and_measured(tmp_path: Path) -> None:
    path = write_labels(tmp_path / "d", LABELS)
    whole = train(make_job(job_of(path, "balanced")), REGISTRY, out=tmp_path / "a")
    train(make_job(job_of(path, "balanced", steps=4)), REGISTRY, out=tmp_path / "b")
    job = make_job(job_of(path, "balanced"))
    pieces = train(job, REGISTRY, out=tmp_path / "b", resume=True)
    assert pieces.parameters_sha256 == whole.parameters_sha256
    explicit = job_of(path, [40 / (3 * n) for n in (24, 12, 4)])
    listed = train(make_job(explicit), REGISTRY, out=tmp_path / "c")
    assert listed.parameters_sha256 == whole.parameters_sha256
    plain = train(make_job(job_of(path, [1, 1, 1])), REGISTRY, out=tmp_path / "e")
    assert plain.parameters_sha256 != whole.parameters_sha256
    checkpoint = newest_checkpoint(tmp_path / "a" / "checkpoints")
    assert checkpoint is not None
    kept = checkpoint.facts["loss"]["weights"]
    assert open_run(tmp_path / "a", REGISTRY).model.loss.loss.settings()["weights"] == kept
    found = evaluate_run(tmp_path / "a", REGISTRY)
    assert found["loss"] == whole.valid_loss


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ([1.0, 2.0], "model.loss.weights: has 2 numbers, and the target has 3 classes"),
        (
            "even",
            "should be a list with a number for each class, none below 0, by which",
        ),
        ([1.0, -2.0, 1.0], "model.loss.weights"),
        ([], "model.loss.weights: has 0 numbers"),
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, weights: Any, sentence: str) -> None:
    path = write_labels(tmp_path / "d", LABELS)
    with pytest.raises(JobError) as error:
        train(make_job(job_of(path, weights)), REGISTRY, out=tmp_path / "run")
    assert sentence in sentence_of(error.value)
