"""Measuring a model on a split of its data."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from rnnfarm.data.split import Split
from rnnfarm.data.window import NEXT, Windows
from rnnfarm.metrics.text import bits, perplexity
from rnnfarm.metrics_log import append_evaluation
from rnnfarm.nn.layer import Arrays
from rnnfarm.plugins import Registry
from rnnfarm.training.checkpoint import best_measured
from rnnfarm.training.lanes import Node, reduce_tree
from rnnfarm.training.monitor import Direction
from rnnfarm.training.search import Search
from rnnfarm.training.setup import Measured, Model
from rnnfarm.training.tbptt import (
    Sums,
    add_sums,
    available_threads,
    lane_executor,
    make_lanes,
    share_threads,
)

if TYPE_CHECKING:
    from rnnfarm.training.run import OpenRun

log = logging.getLogger("rnnfarm")


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

    The rows of the batch are computed in ``lanes`` groups.

    Returns:
        ``loss``; what else ``figures`` gives: for classes ``accuracy``, and ``bits`` and
        ``perplexity`` where the loss is a cross-entropy, for labels the ``letter_error_rate`` of
        the likeliest path, for ``mse`` the mean over steps and values. None where no step counted.
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
        if loss.in_nats:
            result["bits"], result["perplexity"] = bits(mean), perplexity(mean)
        result["accuracy"] = float(sums.correct) / sums.count
    return result


def directions(model: Model) -> dict[str, Direction]:
    """What ``figures`` measures of a model, and which way each metric is better."""
    loss = model.loss.loss
    names: list[str] = ["loss", *value_metric(model, 0.0)]
    if loss.of_labels:
        names.append("letter_error_rate")
    elif loss.of_classes:
        names += ["bits", "perplexity"] * loss.in_nats + ["accuracy"]
    return {name: "max" if name == "accuracy" else "min" for name in names}


def value_metric(model: Model, mean: Any) -> dict[str, Any]:
    """The mean over steps and values by the name that people know, from the mean over steps.

    Its name ends in ``_scaled`` where the target is scaled (``data.scale``), as the loss then is.
    """
    known = model.loss.loss.known_metric
    if known is None:
        return {}
    name, factor = known
    name = f"{name}_scaled" if model.target_column in model.scales else name
    return {name: None if mean is None else mean * (factor / model.loss.targets)}


def evaluate_run(
    run: Path,
    registry: Registry,
    *,
    split: str = "valid",
    input: Path | None = None,
    checkpoint: str | None = None,
    search: Search | None = None,
    plot: Path | None = None,
) -> dict[str, Any]:
    """Measure a run's model on a split of its dataset, and add the metrics to those of the run.

    Args:
        split: the split; every step of it that has a target is measured once.
        input: instead, a file that has the targets, which is read as the run's data were; its
            metrics are not added to those of the run.
        checkpoint: ``newest`` (the default), ``best`` or the name of one.
        plot: a folder for the picture of a confusion matrix.

    Returns:
        What ``evaluate`` does, and the task's own metrics where there are any; ``baseline`` has
        those of the simplest answer, and ``left_out`` what was not measured. ``best`` is what the
        run itself found to be its best evaluation, None where that was of another validation
        split than the dataset now has; ``step`` what was measured now.

    Raises JobError for a folder that is no run, DataError for a damaged checkpoint.
    """
    from rnnfarm.training.run import open_run
    from rnnfarm.training.source import Source
    from rnnfarm.training.targets import check_targets

    opened = open_run(run, registry, checkpoint)
    source = Source(opened, registry, split, input, measured=True)
    training = opened.job.training
    threads = available_threads(training.threads)
    executor = lane_executor(opened.model.network.device, threads, training.lanes)
    report: dict[str, Any] = {"schema": 1, "run": str(run)}
    report |= {"split": split} if source.name is None else {"input": source.name}
    known = opened.dataset.fingerprint().get("valid")
    report["best"] = best_measured(run / "checkpoints", known)
    report["step"] = opened.step
    with (
        tempfile.TemporaryDirectory() as folder,
        threadpool_limits(training.blas_threads),
        executor,
    ):
        part = source.read(Path(folder))
        check_targets(opened.model, part, opened.dataset if input is None else None)
        windows = source.windows(part)
        report |= evaluate(
            opened.model,
            windows,
            opened.parameters,
            lanes=training.lanes,
            seed=training.seed,
            executor=executor,
            threads=threads,
        )
        found, report["baseline"] = _task_metrics(opened, windows, part, search)
        report |= found
        missing = windows.left_out()
        report["left_out"] = missing.to_dict()
        for sentence in missing.sentences(part):
            log.warning("%s", sentence)
        for read in (part, opened.dataset.split("train")):  # the baseline is of the latter
            read.confirm_whole()
    if plot is not None:
        from rnnfarm.training.pictures import draw_confusion

        draw_confusion(plot, report)
    if source.name is None:
        measured = {k: v for k, v in report.items() if k not in ("schema", "run", "best", "step")}
        append_evaluation(run / "metrics.jsonl", opened.step, measured)
    return report


def _task_metrics(
    opened: OpenRun, windows: Measured, part: Split, search: Search | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the metrics of a task, and those of its baseline."""
    from rnnfarm.training.answers import answers, batches, outputs
    from rnnfarm.training.class_scores import ClassScores, unigram
    from rnnfarm.training.scores import scores_of
    from rnnfarm.training.source import whole_answers
    from rnnfarm.training.value_scores import StepValueScores

    train, model = opened.dataset.split("train"), opened.model
    if whole_answers(opened):
        scores = scores_of(opened, train, part)
        found = answers(opened, windows, search or Search())
        for batch in batches(found, opened.job.training.batch):
            scores.add(batch)
        return scores.result()
    if model.loss.loss.target_kind == "values":
        values = StepValueScores(opened, train)
        for _, window, output in outputs(opened, windows):
            values.add(window, output)
        return values.result()
    baseline = unigram(opened, train, part)
    if model.target == NEXT:
        return {}, baseline
    tags = ClassScores(opened, train)
    for _, window, output in outputs(opened, windows):
        tags.add_steps(window, output)
    metrics, usual = tags.result()
    return metrics, baseline | usual
