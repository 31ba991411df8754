"""Measuring a model on a split of its data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from threadpoolctl import threadpool_limits

from rnnfarm.data.dataset import Dataset
from rnnfarm.data.window import NEXT, Windows
from rnnfarm.metrics.text import bits, perplexity, unigram_nats
from rnnfarm.nn.layer import Arrays
from rnnfarm.plugins import Registry
from rnnfarm.report import append_evaluation
from rnnfarm.training.lanes import Node, reduce_tree
from rnnfarm.training.search import Search
from rnnfarm.training.setup import Model, make_windows
from rnnfarm.training.tbptt import (
    Sums,
    add_sums,
    available_threads,
    lane_executor,
    make_lanes,
    share_threads,
)

#: Whether a metric is better when it falls or when it rises.
Direction = Literal["min", "max"]


def evaluate(
    model: Model,
    windows: Windows,
    parameters: Arrays,
    *,
    lanes: int,
    seed: int,
    most: int = 0,
    executor: Executor | None = None,
    threads: int = 1,
) -> dict[str, float | None]:
    """Loss and metrics over the first ``most`` windows of a split, or all of it where 0.

    Every row of the batch reads its own part from a zero state, in ``lanes`` groups of rows.

    Returns:
        ``loss``; what else ``figures`` gives: for classes ``bits``, ``perplexity`` and
        ``accuracy``, for labels the ``letter_error_rate`` of the likeliest path, for ``mse`` the
        mean over steps and values. None where no step counted.
    """
    lanes = evaluation_lanes(windows, lanes)
    parts = evaluate_lanes(
        model, windows, parameters, range(lanes), lanes, seed, most, executor, threads=threads
    )
    return figures(model, reduce_tree((0, lanes), parts, add_sums))


def evaluation_lanes(windows: Windows, lanes: int) -> int:
    """How many groups the rows of a split are cut into."""
    return lanes if windows.batch % lanes == 0 else 1


def evaluate_lanes(
    model: Model,
    windows: Windows,
    parameters: Arrays,
    mine: Sequence[int],
    lanes: int,
    seed: int,
    most: int,
    executor: Executor | None,
    tick: Callable[[], None] = lambda: None,
    threads: int = 1,
) -> dict[Node, Sums]:
    """The sums of the lanes ``mine`` of ``lanes``, each over the first ``most`` windows or all.

    ``tick`` is called before every window.
    """
    count = windows.windows_in_epoch(0)
    steps = range(min(count, most) if most else count)
    made = make_lanes(lanes, windows.batch, model.network, model.loss)
    share_threads([made[number] for number in mine], threads)

    def run(number: int) -> tuple[Node, Sums]:
        total = last = Sums(0.0, 0)
        for step in steps:
            tick()
            sums = made[number].evaluate(windows, step, parameters, seed)
            # A device computes the next window while the last one's figures are waited for.
            total, last = add_sums(total, last.settled()), sums
        return (number, number + 1), add_sums(total, last.settled())

    return dict((executor.map if executor else map)(run, mine))


def figures(model: Model, sums: Sums) -> dict[str, float | None]:
    """The metrics of what was added up; None for all of them where no step counted.

    The loss is the mean over the steps that count, whatever ``reduction`` it is trained with.
    """
    if not sums.count:
        return dict.fromkeys(directions(model))
    loss, mean = model.loss.loss, float(sums.loss) / sums.count
    result: dict[str, float | None] = {"loss": mean} | value_metric(model, mean)
    if loss.of_labels:
        result["letter_error_rate"] = sums.edits / sums.labels if sums.labels else None
    elif loss.of_classes:
        result["bits"], result["perplexity"] = bits(mean), perplexity(mean)
        result["accuracy"] = float(sums.correct) / sums.count
    return result


def directions(model: Model) -> dict[str, Direction]:
    """What ``figures`` measures of a model, and whether it is better when it falls or rises."""
    loss = model.loss.loss
    names: list[str] = ["loss", *value_metric(model, 0.0)]
    if loss.of_labels:
        names.append("letter_error_rate")
    elif loss.of_classes:
        names += ["bits", "perplexity", "accuracy"]
    return {name: "max" if name == "accuracy" else "min" for name in names}


def value_metric(model: Model, mean: Any) -> dict[str, Any]:
    """The mean over steps and values by the name that people know, from the mean over steps.

    Its name ends in ``_scaled`` where the target is scaled (``data.scale``), as the loss then is.
    """
    known = model.loss.loss.metric
    if known is None:
        return {}
    target = model.input if model.target == NEXT else model.target
    name, factor = known
    name = f"{name}_scaled" if target in model.scales else name
    return {name: None if mean is None else mean * (factor / model.loss.targets)}


def evaluate_run(
    run: Path,
    registry: Registry,
    *,
    split: str = "valid",
    checkpoint: str | None = None,
    search: Search | None = None,
) -> dict[str, Any]:
    """Measure a run's model on a split of its dataset, and add the figures to its metrics.

    ``checkpoint`` is ``newest`` (the default), ``best`` or the name of one. Where the target is one
    a sequence, or a forecast, the task's own metrics are there too, and ``baseline`` has those of
    the simplest answer. Raises JobError for a folder that is no run, DataError for a damaged
    checkpoint.
    """
    from rnnfarm.training.answers import answers
    from rnnfarm.training.run import open_run
    from rnnfarm.training.scores import of_steps, scores

    opened = open_run(run, registry, checkpoint)
    windows = make_windows(opened.job, opened.model, opened.dataset, split)
    training = opened.job.training
    threads = available_threads(training.threads)
    executor = lane_executor(opened.model.network.device, threads, training.lanes)
    report: dict[str, Any] = {"schema": 1, "run": str(run), "split": split, "step": opened.step}
    with threadpool_limits(training.blas_threads), executor:
        report |= evaluate(
            opened.model,
            windows,
            opened.parameters,
            lanes=training.lanes,
            seed=training.seed,
            executor=executor,
            threads=threads,
        )
        if opened.model.goal != "steps" or opened.job.data.mode == "forecast":
            found = list(answers(opened, windows, search or Search()))
            parts = opened.dataset.split("train"), opened.dataset.split(split)
            figures, baseline = scores(opened, found, *parts)
            report |= figures
            report["baseline"] = baseline
        elif opened.model.loss.loss.target_kind == "classes":
            report["baseline"] = unigram(opened.model, opened.dataset, split)
        else:
            figures, baseline = of_steps(opened, windows, opened.dataset.split("train"))
            report |= figures
            report["baseline"] = baseline
    measured = {key: value for key, value in report.items() if key not in ("schema", "run", "step")}
    append_evaluation(run / "metrics.jsonl", opened.step, measured)
    return report


def unigram(model: Model, dataset: Dataset, split: str) -> dict[str, float]:
    """What a split's tokens cost without their context, each as often as in the training part; and
    how many of them are the most frequent one."""
    name = model.input if model.target == NEXT else model.target
    size = dataset.columns[name].vocabulary or 0
    counts = []
    for one in ("train", split):
        part = dataset.split(one)
        found = np.zeros(size, np.int64)
        for chunk in part.chunks(0, part.steps):
            found += np.bincount(chunk.columns[name], minlength=size)
        counts.append(found)
    nats = unigram_nats(*counts)
    usual = int(counts[1][counts[0].argmax()]) / max(int(counts[1].sum()), 1)
    return {
        "loss": nats,
        "bits": bits(nats),
        "perplexity": perplexity(nats),
        "accuracy": usual,
    }
