"""The figures of a task, each beside that of the simplest thing that could have been done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rnnfarm.data.split import Split
from rnnfarm.data.vocabulary import Vocabulary
from rnnfarm.data.window import NEXT, Windows
from rnnfarm.metrics import classes, forecast, text
from rnnfarm.metrics.mean import Mean
from rnnfarm.training.answers import Answer, outputs
from rnnfarm.training.run import OpenRun
from rnnfarm.training.setup import Model

Figures = dict[str, float]


def scores(
    opened: OpenRun, found: Sequence[Answer], train: Split, part: Split
) -> tuple[Figures, Figures]:
    """The metrics of all answers, and those of the baseline by the same names.

    ``part``: the split that was answered; baselines learn from ``train``.
    """
    model = opened.model
    if not found:
        return {}, {}
    if opened.job.data.mode == "forecast":
        return _forecast(opened, found, train, part)
    if model.goal in ("labels", "decoded"):
        figures = _letters if model.goal == "labels" else _words
        vocabulary, wanted = opened.dataset.vocabulary(model.target), [one.target for one in found]
        usual = [_most_frequent(train, model.target)] * len(found)
        return (
            figures(vocabulary, wanted, [one.found for one in found]),
            figures(vocabulary, wanted, usual),
        )
    if model.loss.loss.target_kind == "classes":
        return _classes(model, found, train)
    return _values(model, found, train)


def _classes(model: Model, found: Sequence[Answer], train: Split) -> tuple[Figures, Figures]:
    targets = np.array([one.target for one in found])
    predictions = np.array([one.found for one in found])
    column = train.column(model.target)
    figures = {
        "accuracy": classes.accuracy(targets, predictions),
        "macro_f1": classes.macro_f1(targets, predictions),
    }
    if column.vocabulary == 2:
        figures["f1"] = classes.f1(targets, predictions)
    labels = train.all_own(model.target)
    return figures, {"accuracy": classes.majority_accuracy(labels, targets)}


def _values(model: Model, found: Sequence[Answer], train: Split) -> tuple[Figures, Figures]:
    targets = np.stack([one.target for one in found])[:, None]
    width = targets.shape[-1]
    center = _middles(model, found, width)[0][:, None]
    known = train.all_own(model.target)
    if model.target in model.scales:
        known = model.scales[model.target].apply(known)
    mean = np.broadcast_to(known.mean(0), targets.shape)
    return _errors(targets, center), _errors(targets, mean)


def _errors(targets: Any, predictions: Any) -> Figures:
    return {
        "mse": forecast.mse(targets, predictions),
        "mae": forecast.mae(targets, predictions),
    }


def _forecast(
    opened: OpenRun, found: Sequence[Answer], train: Split, part: Split
) -> tuple[Figures, Figures]:
    model, horizon = opened.model, opened.job.data.horizon
    targets = np.stack([one.target for one in found])
    width = targets.shape[1]
    shape = (len(found), horizon, width // horizon)
    targets = targets.reshape(shape)
    center, low, high = _middles(model, found, width)
    center = center.reshape(shape)
    figures = _errors(targets, center)
    period = opened.job.data.period
    target = model.input if model.target == "next" else model.target
    known = train.read(target, 0, train.steps)
    if target in model.scales:
        known = model.scales[target].apply(known)
    figures["mase"] = forecast.mase(targets, center, forecast.seasonal_scale(known, period))
    if low is not None:
        low, high = low.reshape(shape), high.reshape(shape)
        figures["coverage"] = forecast.coverage(targets, low, high)
        figures["interval_width"] = forecast.interval_width(low, high)
    window = opened.job.training.window
    history = np.stack([part.read(target, o.sequence, o.sequence + window) for o in found])
    if target in model.scales:
        history = model.scales[target].apply(history.astype(np.float64))
    last = forecast.repeat_last(history, horizon)
    baseline = _errors(targets, last)
    if period > 1 and period <= history.shape[1]:
        seasonal = forecast.seasonal_repeat(history, horizon, period)
        baseline |= {f"seasonal_{n}": v for n, v in _errors(targets, seasonal).items()}
    return figures, baseline


def of_steps(opened: OpenRun, windows: Windows, train: Split) -> tuple[Figures, Figures]:
    """The errors of values at every step, and those of the baseline: the last value once more where
    the target is the next step, else the mean of the training part."""
    model, ahead = opened.model, opened.model.target == NEXT
    mean = 0.0 if ahead else _mean_of_steps(model, windows, train)
    found = {name: Mean() for name in ("mse", "mae")}
    plain, within = dict(found), {name: Mean() for name in ("coverage", "interval_width")}
    for _, window, output in outputs(opened, windows):
        counts = model.loss.counted(window.target, window.valid)
        targets = window.target[counts][None]  # (1, N, W)
        width = targets.shape[-1]
        center, low, high = model.loss.loss.interval(output[counts][None], width)
        base = window.x[counts][None] if ahead else np.broadcast_to(mean, targets.shape)
        for sums, guess in ((found, center), (plain, base)):
            sums["mse"] += forecast.squared_errors(targets, guess)
            sums["mae"] += forecast.absolute_errors(targets, guess)
        if low is not None:
            within["coverage"] += forecast.covered(targets, low, high)
            within["interval_width"] += forecast.interval_widths(low, high)
    if within["coverage"].count:
        found |= within
    return _values_of(found), _values_of(plain)


def _values_of(sums: dict[str, Mean]) -> Figures:
    return {name: mean.value() for name, mean in sums.items()}


def _mean_of_steps(model: Model, windows: Windows, train: Split) -> Any:
    """The mean of the target's values over the training part, where they were observed."""
    values = train.read(model.target, 0, train.steps)
    if windows.observed is not None:
        values = values[train.read(windows.observed, 0, train.steps) == 1]
    if model.target in model.scales:
        values = model.scales[model.target].apply(values)
    return values.mean(0)


def middle(model: Model, one: Answer, width: int) -> tuple[Any, Any, Any]:
    """From an answer of values the middle, and where the loss has one the interval; see
    ``Loss.interval``."""
    center, low, high = _middles(model, [one], width)
    return (center[0], None, None) if low is None else (center[0], low[0], high[0])


def _middles(model: Model, found: Sequence[Answer], width: int) -> tuple[Any, Any, Any]:
    """The same of several answers, each (N, width)."""
    parts = model.loss.loss.interval(np.stack([one.output for one in found]), width)
    if found[0].base is None:
        return parts
    base = np.stack([one.base for one in found])
    center, low, high = parts
    return (center + base, None, None) if low is None else (center + base, low + base, high + base)


def _most_frequent(train: Split, target: str) -> list[int]:
    """The list of labels that most sequences of the training part have."""
    counts = Counter(tuple(train.own(target, start).tolist()) for start in train.starts().tolist())
    return list(counts.most_common(1)[0][0])


def _letters(vocabulary: Vocabulary | None, wanted: Sequence[Any], found: Sequence[Any]) -> Figures:
    figures = {
        "letter_error_rate": text.letter_error_rate(wanted, found),
        "exact": text.exact_match_rate(wanted, found),
    }
    entries = None if vocabulary is None else vocabulary.entries
    if entries is not None and " " in entries:
        lines = [["".join(written(vocabulary, row)) for row in rows] for rows in (wanted, found)]
        figures["word_error_rate"] = text.word_error_rate(*lines)
    return figures


def _words(vocabulary: Vocabulary | None, wanted: Sequence[Any], found: Sequence[Any]) -> Figures:
    # A word that the vocabulary has not is never right, whatever was said for it.
    references = [" ".join(written(vocabulary, row, "<?>")) for row in wanted]
    hypotheses = [" ".join(written(vocabulary, row)) for row in found]
    return {
        "bleu": text.bleu(references, hypotheses),
        "exact": text.exact_match_rate(references, hypotheses),
    }


def written(
    vocabulary: Vocabulary | None, tokens: Iterable[int], unknown: str | None = None
) -> list[str]:
    """What each token is called; ``unknown`` stands for what the vocabulary has not."""
    if vocabulary is None or vocabulary.entries is None:
        return [str(token) for token in tokens]
    other = {} if unknown is None else {vocabulary.unknown: unknown}
    return [other.get(token, vocabulary.entries[token]) for token in tokens]
