"""The callbacks: when a run is stopped, and what a checkpoint keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rnnfarm.builtin import rnnfarm_callbacks
from rnnfarm.builtin.callbacks import EarlyStopping
from rnnfarm.training.callback import Callback, RunInfo


def stopped_at(callback: EarlyStopping, losses: list[Any], start: int = 0) -> int | None:
    """The evaluation after which the run is to end."""
    for n in range(start, len(losses)):
        callback.on_evaluation({"step": n, callback.monitor.metric: losses[n]})
        if callback.stop:
            return n
    return None


def test_every_built_in_callback_is_tested_here() -> None:
    assert dict(rnnfarm_callbacks()) == {
        "early_stopping": f"{EarlyStopping.__module__}:{EarlyStopping.__name__}"
    }


@pytest.mark.parametrize(
    ("settings", "losses", "expected"),
    [
        ({"patience": 2}, [3, 2, 1, 1, 1], 4),
        ({"patience": 2}, [3, 2, 2.5, 1.9, 2.5, 2.4], 5),
        ({"patience": 3}, [3, 2, 2.5, 2.5], None),
        ({"patience": 1}, [3, 2, 1, 0.5], None),
        ({"patience": 2, "min_delta": 0.5}, [3, 2.8, 2.6, 2.4], 2),
        ({"patience": 2, "min_delta": 0.5}, [3, 2.8, 2.4, 2.2, 1.8], None),
        ({"patience": 2}, [3, float("nan"), float("nan")], 2),
        ({"patience": 2}, [float("nan"), float("nan"), 3, 2, 1], 1),
        ({"patience": 2, "metric": "perplexity"}, [3, 3, 3], 2),
        ({"patience": 2, "mode": "max"}, [1, 2, 3, 3, 2], 4),
        ({"patience": 2, "mode": "max", "min_delta": 0.5}, [1, 1.4, 1.5], 2),
        ({"patience": 2, "mode": "max"}, [1, float("inf"), float("nan")], 2),
        ({"patience": 2}, [3, None, 3, None, 3], 4),  # of nothing: no evaluation at all
        ({"patience": 1}, [None, None, None], None),
        ({}, [1, 1, 1, 1, 1, 1], 5),
    ],
)
def test_early_stopping(
    settings: dict[str, object], losses: list[Any], expected: int | None
) -> None:
    assert stopped_at(EarlyStopping(**settings), losses) == expected


def test_the_reason_names_the_figure_and_the_patience() -> None:
    callback = EarlyStopping(patience=2)
    stopped_at(callback, [2.0, 2.5, 2.5])
    assert callback.stop == "valid_loss was not below 2 in 2 evaluations in a row"


@pytest.mark.parametrize("stop", range(6))
def test_goes_on_from_its_state(stop: int) -> None:
    losses = [3.0, 2.0, 2.5, 1.9, 2.5, 2.4, 2.4]
    first = EarlyStopping(patience=3)
    assert stopped_at(first, losses[:stop]) is None
    resumed = EarlyStopping(patience=3)
    resumed.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
    assert stopped_at(resumed, losses, stop) == 6


def test_the_reason_where_a_metric_should_rise() -> None:
    callback = EarlyStopping(patience=2, metric="valid_accuracy", mode="max")
    stopped_at(callback, [0.5, 0.75, 0.7, 0.75])
    assert callback.stop == "valid_accuracy was not above 0.75 in 2 evaluations in a row"


def test_a_callback_of_ones_own(tmp_path: Path) -> None:
    class Recorder(Callback):
        limit: float = 10.0

        def on_step(self, metrics: dict[str, float]) -> None:
            if metrics["grad_norm"] > self.limit:
                self.stop = "the gradient explodes"

    callback = Recorder(limit=5.0)
    assert callback.settings() == {"limit": 5.0}
    callback.on_start(RunInfo(folder=tmp_path, job={}, step=0, steps=10))
    callback.on_evaluation({"valid_loss": 1.0})
    callback.on_last_evaluation({"valid_loss": 1.0})
    callback.on_checkpoint(tmp_path)
    callback.on_step({"grad_norm": 4.0})
    assert callback.stop is None
    callback.on_step({"grad_norm": 6.0})
    callback.on_end({})
    assert callback.stop == "the gradient explodes"
    assert Recorder().stop is None
