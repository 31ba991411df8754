"""The figures of a task, each beside that of the simplest thing that could have been done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rnnfarm.data.split import Split
from rnnfarm.data.vocabulary import Vocabulary
from rnnfarm.metrics import classes, forecast, text
from rnnfarm.training.answers import Answer
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
    if model.goal == "labels":
        return _letters(opened, found), {}
    if model.goal == "decoded":
        return _words(opened, found), {}
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
    center = np.stack([middle(model, one, width)[0] for one in found])[:, None]
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
    rows = [middle(model, one, width) for one in found]
    targets = targets.reshape(shape)
    center = np.stack([row[0] for row in rows]).reshape(shape)
    figures = _errors(targets, center)
    period = opened.job.data.period
    target = model.input if model.target == "next" else model.target
    known = train.read(target, 0, train.steps)
    if target in model.scales:
        known = model.scales[target].apply(known)
    figures["mase"] = forecast.mase(targets, center, forecast.seasonal_scale(known, period))
    if rows[0][1] is not None:
        low, high = (np.stack([row[k] for row in rows]).reshape(shape) for k in (1, 2))
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


def middle(model: Model, one: Answer, width: int) -> tuple[Any, Any, Any]:
    """From an answer of values the middle, and where the loss has one the interval; see
    ``Loss.interval``."""
    found = model.loss.loss.interval(one.output, width)
    if one.base is None:
        return found
    center, low, high = (None if part is None else part + one.base for part in found)
    return center, low, high


def _letters(opened: OpenRun, found: Sequence[Answer]) -> Figures:
    references, hypotheses = [one.target for one in found], [one.found for one in found]
    figures = {
        "letter_error_rate": text.letter_error_rate(references, hypotheses),
        "exact": text.exact_match_rate(references, hypotheses),
    }
    return figures


def _words(opened: OpenRun, found: Sequence[Answer]) -> Figures:
    vocabulary = opened.dataset.vocabulary(opened.model.target)
    # A word that the vocabulary has not is never right, whatever was said for it.
    references = [spelled(vocabulary, one.target, "<?>") for one in found]
    hypotheses = [spelled(vocabulary, one.found) for one in found]
    return {
        "bleu": text.bleu(references, hypotheses),
        "exact": text.exact_match_rate(references, hypotheses),
    }


def spelled(
    vocabulary: Vocabulary | None, tokens: Sequence[int], unknown: str | None = None
) -> str:
    """Tokens as text: words with blanks between them; ``unknown`` stands for what is none."""
    if vocabulary is None or vocabulary.entries is None:
        return " ".join(map(str, tokens))
    other = {} if unknown is None else {vocabulary.unknown: unknown}
    return " ".join(other.get(token, vocabulary.entries[token]) for token in tokens)
