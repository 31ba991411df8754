"""The metric that a run goes by, and which way it is better."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from data_tools import sentence_of
from training_tools import REGISTRY, entries, make_job, token_job, value_job, write_tokens
from training_tools import write_values as write_waves

from rnnfarm.errors import JobError
from rnnfarm.evaluation_table import evaluation_lines
from rnnfarm.training.best import Best, Evaluations
from rnnfarm.training.checkpoint import best_checkpoint, checkpoints, read_checkpoint
from rnnfarm.training.evaluate import evaluate_run
from rnnfarm.training.monitor import Monitor, monitor_of
from rnnfarm.training.session import train


@pytest.mark.parametrize(
    ("mode", "value", "best", "by", "expected"),
    [
        ("min", 1.0, None, 0.0, True), ("min", 1.0, 2.0, 0.0, True), ("min", 2.0, 2.0, 0.0, False),
        ("min", 1.8, 2.0, 0.5, False), ("max", 2.0, 1.0, 0.0, True), ("max", 1.0, 1.0, 0.0, False),
        ("max", 1.4, 1.0, 0.5, False), ("max", 1.6, 1.0, 0.5, True),
        ("max", math.inf, 1.0, 0.0, False), ("min", math.nan, None, 0.0, False),
    ],
)  # fmt: skip
def test_what_is_better(
    mode: Any, value: float, best: float | None, by: float, expected: bool
) -> None:
    assert Monitor("a", mode).better(value, best, by) == expected


def test_what_is_known_of_a_metric_and_what_is_not() -> None:
    known: dict[str, Any] = {"valid_loss": "min", "valid_accuracy": "max", "valid_odd": None}
    assert monitor_of("k", "valid_accuracy", None, known) == Monitor("valid_accuracy", "max")
    assert monitor_of("k", "valid_accuracy", "min", known) == Monitor("valid_accuracy", "min")
    assert monitor_of("k", "valid_odd", "max", known) == Monitor("valid_odd", "max")
    with pytest.raises(JobError) as error:
        monitor_of("training.monitor", "valid_odd", None, known)
    assert 'set training.mode = "min" or "max"' in sentence_of(error.value)
    with pytest.raises(JobError, match=r"'f1' is not measured .* valid_loss, valid_accuracy, "):
        monitor_of("training.monitor", "f1", None, known)


def test_an_evaluation_of_nothing_is_not_the_best() -> None:
    found = Evaluations(Monitor())
    for step, loss in enumerate([None, math.nan, 2.0, 2.0, 1.0, None], 1):
        entry = {"step": step, "valid_loss": loss}
        assert found.add(entry, only_at_end=False) == (step in (3, 5))
    assert found.best == Best(5, "valid_loss", "min", 1.0)
    assert found.valid_loss is None
    assert str(found.best) == "valid_loss 1 at step 5"


def test_an_evaluation_at_the_end_is_the_best_only_while_it_is_the_last() -> None:
    found = Evaluations(Monitor())
    assert found.add({"step": 10, "valid_loss": 2.0}, only_at_end=False)
    assert not found.add({"step": 13, "valid_loss": 1.0}, only_at_end=True)
    assert (found.best, found.valid_loss) == (Best(13, "valid_loss", "min", 1.0), 1.0)
    again = Evaluations(Monitor())
    again.restore(found.facts(13))
    assert (again.best, again.last) == (found.best, found.last)
    assert again.facts(17)["best"]["step"] == 10  # a later checkpoint knows nothing of it
    assert again.add({"step": 20, "valid_loss": 1.5}, only_at_end=False)
    assert again.best == Best(20, "valid_loss", "min", 1.5)


# -- whole runs ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("monitor") / "tokens"
    write_tokens(path, {"train": [80, 60, 33], "valid": [50, 21]})
    return path


@pytest.mark.parametrize("metric", ["valid_loss", "valid_accuracy"])
def test_the_best_parameters_are_kept_whatever_checkpoint_every_is(
    tokens: Path, tmp_path: Path, metric: str
) -> None:
    raw = token_job(tokens, steps=34, evaluate_every=3, checkpoint_every=10, keep=1,
                    monitor=metric, optimizer={"name": "adam", "lr": 0.15})  # fmt: skip
    result = train(make_job(raw), REGISTRY, out=tmp_path / "run")
    measured = {e["step"]: e[metric] for e in entries(tmp_path / "run") if metric in e}
    assert sorted(measured) == [*range(3, 34, 3), 34]
    choose = min if metric == "valid_loss" else max
    step = choose(measured, key=lambda s: (measured[s], -s if choose is max else s))
    assert result.best is not None
    assert (result.best.step, result.best.value) == (step, measured[step])
    folder = tmp_path / "run" / "checkpoints"
    assert best_checkpoint(folder) == folder / f"step-{step:08d}"
    assert {p.name for p in checkpoints(folder)} == {f"step-{s:08d}" for s in (step, 34)}
    facts = read_checkpoint(folder / f"step-{step:08d}").facts
    assert facts["monitored"]["value"] == measured[step]
    assert facts["evaluation"]["step"] == step
    report = evaluate_run(tmp_path / "run", REGISTRY)
    assert list(report)[:5] == ["schema", "run", "split", "best", "step"]
    assert (report["best"], report["step"]) == (asdict(result.best), 34)
    again = evaluate_run(tmp_path / "run", REGISTRY, checkpoint="best")
    assert (again["step"], again[metric.removeprefix("valid_")]) == (step, measured[step])
    (line,) = [x for x in evaluation_lines(report) if x.startswith("best ")]
    assert line.endswith(f"{metric} {measured[step]:.6g} at step {step}")


def test_a_checkpoint_has_the_metrics_of_its_own_parameters_or_none(
    tokens: Path, tmp_path: Path
) -> None:
    raw = token_job(tokens, steps=12, evaluate_every=4, checkpoint_every=3, keep=20)
    train(make_job(raw), REGISTRY, out=tmp_path / "run")
    measured = {e["step"]: e["valid_loss"] for e in entries(tmp_path / "run") if "valid_loss" in e}
    for path in checkpoints(tmp_path / "run" / "checkpoints"):
        found = read_checkpoint(path)
        assert found.facts["valid_loss"] == measured.get(found.step)
        assert (found.facts["evaluation"] is None) == (found.step not in measured)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"monitor": "valid_acuracy"}, "training.monitor: 'valid_acuracy' is not measured"),
        (
            {"callbacks": [{"name": "early_stopping", "metric": "f1"}]},
            "training.callbacks.0.metric: 'f1' is not measured by the evaluations of this job; "
            "they measure valid_loss, valid_bits, valid_perplexity, valid_accuracy",
        ),
        ({"schedule": {"name": "plateau", "metric": "bleu"}}, "training.schedule.metric: 'bleu'"),
    ],
)
def test_a_metric_that_is_not_measured_is_refused_before_training(
    tokens: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    raw = token_job(tokens, evaluate_every=2, **changes)
    with pytest.raises(JobError) as error:
        train(make_job(raw), REGISTRY, out=tmp_path / "run")
    assert sentence in sentence_of(error.value)
    assert not (tmp_path / "run").exists()


def test_parts_go_by_the_metric_of_the_run_or_their_own(tokens: Path, tmp_path: Path) -> None:
    from test_loop import trainer_of

    raw = token_job(
        tokens, evaluate_every=2, monitor="valid_accuracy",
        schedule={"name": "plateau", "metric": "valid_bits"},
        callbacks=[{"name": "early_stopping"}, {"name": "early_stopping", "mode": "min"}],
    )  # fmt: skip
    trainer = trainer_of(raw)
    assert trainer.evaluations.monitor == Monitor("valid_accuracy", "max")
    assert trainer.schedule.monitor == Monitor("valid_bits", "min")  # type: ignore[attr-defined]
    found = [callback.monitor for callback in trainer.callbacks]  # type: ignore[attr-defined]
    assert found == [Monitor("valid_accuracy", "max"), Monitor("valid_accuracy", "min")]


def test_the_error_of_values_can_be_monitored(tmp_path: Path) -> None:
    write_waves(tmp_path / "d", {"train": [60], "valid": [30]})
    raw = value_job(tmp_path / "d", steps=4, evaluate_every=2, monitor="valid_mse")
    result = train(make_job(raw), REGISTRY, out=tmp_path / "run")
    assert result.best is not None
    assert (result.best.monitor, result.best.mode) == ("valid_mse", "min")


def test_early_stopping_on_accuracy_waits_for_it_to_rise(tokens: Path, tmp_path: Path) -> None:
    callback = {"name": "early_stopping", "patience": 4, "metric": "valid_accuracy"}
    raw = token_job(tokens, steps=200, evaluate_every=5, callbacks=[callback],
                    optimizer={"name": "adam", "lr": 0.05})  # fmt: skip
    result = train(make_job(raw), REGISTRY, out=tmp_path / "run")
    accuracies = [e["valid_accuracy"] for e in entries(tmp_path / "run") if "valid_accuracy" in e]
    waited, best, end = 0, -1.0, len(accuracies)
    for k, accuracy in enumerate(accuracies):
        waited, best = (0, accuracy) if accuracy > best else (waited + 1, best)
        if waited == 4:
            end = k + 1
            break
    assert result.steps == 5 * end
    assert accuracies.index(max(accuracies)) > 0  # waiting for it to fall would stop at once
