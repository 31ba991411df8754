"""The metrics: known values, naive implementations, and any batches of the same rows."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rnnfarm.errors import JobError
from rnnfarm.metrics import Mean, classes, forecast, text

quick = settings(max_examples=60, deadline=None, database=None)
floats = st.floats(allow_nan=False, allow_infinity=False)
seeds = st.integers(0, 2**32 - 1)


def one_series(*values: float) -> NDArray[np.float64]:
    """Of shape (1, steps, 1)."""
    return np.array(values, np.float64).reshape(1, -1, 1)


def test_they_import_nothing_of_rnnfarm_but_the_errors() -> None:
    code = (
        "import sys, rnnfarm; assert 'rnnfarm.metrics' not in sys.modules\n"
        "import rnnfarm.metrics.classes, rnnfarm.metrics.forecast, rnnfarm.metrics.text\n"
        "assert 'sacrebleu' not in sys.modules\n"
        "names = {m for m in sys.modules if m.startswith('rnnfarm.')}\n"
        "others = {m for m in names if not m.startswith('rnnfarm.metrics')}\n"
        "assert others == {'rnnfarm.errors'}, others\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Means


@quick
@given(st.lists(floats, min_size=1, max_size=20), st.integers(0, 20))
def test_a_mean_is_the_exact_one_rounded_once(values: list[float], cut: int) -> None:
    whole = Mean.of(values, len(values))
    assert sum((Mean.of(values[:cut], cut), Mean.of(values[cut:], 0)), Mean()).total == whole.total
    assert whole.value() == float(sum(map(Fraction, values)) / len(values))


def test_a_mean_of_nothing_and_of_what_is_not_finite() -> None:
    assert math.isnan(Mean().value())
    assert math.isnan(Mean.of([math.nan, 1.0], 2).value())
    assert math.isnan(sum((Mean.of([x], 1) for x in (math.inf, -math.inf)), Mean()).value())
    assert Mean.of([-math.inf, 1.0], 2).value() == -math.inf
    assert Mean.of([1e308, 1e308], 2).value() == 1e308
    assert Mean.of([-1e308, -1e308], 1).value() == -math.inf


# Classes


def test_classes_by_hand() -> None:
    targets, predictions = [0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 0, 2]
    counts = classes.confusion_counts(targets, predictions, 4)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    assert classes.accuracy(targets, predictions) == classes.accuracy_of(counts) == 4 / 6
    assert classes.f1(targets, predictions) == classes.f1_of(counts) == 0.8
    assert classes.f1(targets, predictions, positive=0) == classes.f1_of(counts, 0) == 0.5
    # The class 3 does not occur and is left out: (1/2 + 4/5 + 2/3) / 3.
    expected = pytest.approx((0.5 + 0.8 + 2 / 3) / 3, rel=1e-15)
    assert classes.macro_f1(targets, predictions) == classes.macro_f1_of(counts) == expected


def test_a_class_that_is_only_predicted_has_an_f1_of_0() -> None:
    assert classes.macro_f1([0, 0], [0, 3]) == pytest.approx(2 / 3 / 2)
    assert classes.f1([0, 0], [0, 3], positive=3) == 0.0
    assert math.isnan(classes.f1([0, 0], [0, 3], positive=1))
    assert math.isnan(classes.f1([0], [0], positive=9))


def test_tags_that_a_mask_leaves_out_may_be_anything() -> None:
    targets, predictions = np.array([[0, 1, -1], [2, -1, -1]]), np.array([[0, 2, 5], [2, 5, 5]])
    mask = targets >= 0
    assert classes.accuracy(targets, predictions, mask) == 2 / 3
    assert classes.confusion_counts(targets, predictions, 3, mask).sum() == 3
    assert classes.majority_accuracy([1, 1, 0], targets, mask) == 1 / 3
    assert classes.f1(targets, predictions, 2, mask) == 2 / 3
    assert classes.macro_f1(targets, predictions, mask) == pytest.approx((1 + 0 + 2 / 3) / 3)


def test_the_majority_is_of_the_training_labels() -> None:
    assert classes.majority_class([3, 1, 1, 3, 0]) == 1
    assert classes.majority_accuracy([3, 1, 1, 3, 0], [1, 0, 1, 3]) == 0.5
    with pytest.raises(ValueError, match="no labels"):
        classes.majority_class([])


def test_no_classes_are_nan() -> None:
    counts = classes.confusion_counts([], [], 2)
    assert counts.tolist() == [[0, 0], [0, 0]]
    for value in (
        *(classes.accuracy([], []), classes.macro_f1([], []), classes.f1([], [])),
        *(classes.accuracy_of(counts), classes.macro_f1_of(counts), classes.f1_of(counts)),
    ):
        assert math.isnan(value)


@pytest.mark.parametrize(
    ("targets", "predictions", "mask", "sentence"),
    [
        ([0, 1], [0], None, r"one shape, not \(1,\) and \(2,\)"),
        ([0, 1], [0, 1], [True], "one shape"),
        ([0, 1], [0, 1], [1, 0], "the mask is bool, not int64"),
        ([0.0], [0], None, "classes are integers, not float64"),
        ([-1], [0], None, "classes are 0 or more, not -1"),
        ([0], [3], None, "a class is 3; with 3 classes the last one is 2"),
    ],
)
def test_wrong_classes(targets: Any, predictions: Any, mask: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        classes.confusion_counts(targets, predictions, 3, mask)


@quick
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=30), st.integers(0, 30))
def test_classes_as_naively_and_in_any_batches(pairs: list[tuple[int, int]], cut: int) -> None:
    targets, predictions = [t for t, _ in pairs], [p for _, p in pairs]
    scores = []
    for k in {*targets, *predictions}:
        hit = pairs.count((k, k))
        precision = hit / predictions.count(k) if k in predictions else 0.0
        recall = hit / targets.count(k) if k in targets else 0.0
        scores.append(2 * precision * recall / (precision + recall) if hit else 0.0)
        assert classes.f1(targets, predictions, k) == pytest.approx(scores[-1])
    macro = sum(scores) / len(scores) if scores else math.nan
    assert classes.macro_f1(targets, predictions) == pytest.approx(macro, nan_ok=True)

    halves = [(targets[:cut], predictions[:cut]), (targets[cut:], predictions[cut:])]
    counts = sum(classes.confusion_counts(*half, 5) for half in halves)
    assert isinstance(counts, np.ndarray)
    assert same(classes.macro_f1_of(counts), classes.macro_f1(targets, predictions))
    parts = sum((classes.hits(*half) for half in halves), Mean())
    assert same(parts.value(), classes.accuracy(targets, predictions))
    assert same(parts.value(), classes.accuracy_of(counts))


def same(a: float, b: float) -> bool:
    """Whether two floats have the same bits."""
    return np.float64(a).tobytes() == np.float64(b).tobytes()


# Text


def naive_distance(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Wagner and Fischer's table."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        new = [i + 1]
        for j, y in enumerate(b):
            new.append(min(row[j] + (x != y), row[j + 1] + 1, new[j] + 1))
        row = new
    return row[-1]


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        ("", "", 0),
        ("", "abc", 3),
        ("abc", "", 3),
        ("kitten", "sitting", 3),
        ("saturday", "sunday", 3),
        ("a" * 200, "a" * 130, 70),
        ([1, 2, 3], np.array([2, 3], np.int16), 1),
        (["a", "word"], ["word"], 1),
    ],
)
def test_edit_distances(a: Any, b: Any, distance: int) -> None:
    assert text.edit_distance(a, b) == text.edit_distance(b, a) == distance


@quick
@given(st.text("abc", max_size=70), st.text("abc", max_size=70))
def test_an_edit_distance_is_that_of_the_table(a: str, b: str) -> None:
    assert text.edit_distance(a, b) == naive_distance(a, b)


def test_error_rates_divide_sums_by_sums() -> None:
    references, hypotheses = ["the cat sat", "no"], ["the cat  sat down", "nono no no"]
    assert text.word_error_rate(references, hypotheses) == 3 / 4
    assert text.letter_error_rate(["abcd", "e"], ["abc", "efg"]) == 3 / 5
    assert text.letter_error_rate([[1, 2], []], [np.array([1]), [5]]) == 2 / 2
    assert text.exact_match_rate(["a", "b", ""], ["a", "c", ""]) == 2 / 3
    assert text.exact_match_rate([[1, 2], [3]], [np.array([1, 2]), np.array([3, 4])]) == 1 / 2


def test_text_in_batches() -> None:
    references, hypotheses = ["a b", "c d e", "f"], ["a", "c d", "g h"]
    for batch, whole in (
        (text.letter_edits, text.letter_error_rate),
        (text.word_edits, text.word_error_rate),
        (text.exact_matches, text.exact_match_rate),
    ):
        parts = (batch([a], [b]) for a, b in zip(references, hypotheses, strict=True))
        assert sum(parts, Mean()).value() == whole(references, hypotheses)


def test_no_text_is_nan() -> None:
    assert math.isnan(text.letter_error_rate([], []))
    assert math.isnan(text.word_error_rate([" "], ["a"]))
    assert math.isnan(text.exact_match_rate([], []))


def test_wrong_text() -> None:
    with pytest.raises(ValueError, match="1 references and 2 hypotheses"):
        text.exact_match_rate(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="lists of strings, not a string"):
        text.letter_error_rate("abc", "abd")


def test_bleu_is_that_of_sacrebleu() -> None:
    sacrebleu = pytest.importorskip("sacrebleu", reason="BLEU is computed by sacrebleu")
    references = ["the cat sat on the mat .", "there is a dog in the garden ."]
    hypotheses = ["the cat sat on a mat .", "a dog is in the garden ."]
    # By hand. Matches 13, 8, 4, 2 of 14, 12, 10, 8 n-grams; 14 tokens for the references' 15.
    precisions = (13 / 14, 8 / 12, 4 / 10, 2 / 8)
    by_hand = 100 * math.exp(1 - 15 / 14) * math.prod(precisions) ** 0.25
    assert text.bleu(references, hypotheses) == pytest.approx(by_hand, rel=1e-12)
    for tokenize in text.TOKENIZERS:
        score = sacrebleu.corpus_bleu(hypotheses, [references], tokenize=tokenize, force=True)
        assert text.bleu(references, hypotheses, tokenize) == score.score
    assert text.bleu(["so it is."], ["so it is ."], "13a") > text.bleu(
        ["so it is."], ["so it is ."]
    )
    assert text.bleu(references, references) == pytest.approx(100)
    assert math.isnan(text.bleu([], []))
    with pytest.raises(ValueError, match="tokenize is one of none, 13a"):
        text.bleu([], [], "13b")


def test_bleu_without_sacrebleu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    with pytest.raises(JobError, match=r"run pip install 'rnnfarm\[text\]'$"):
        text.bleu(["a"], ["a"])


def test_bits_and_perplexity() -> None:
    assert text.bits(math.log(2)) == 1.0
    assert text.perplexity(0.0) == 1.0
    assert text.perplexity(math.log(50)) == pytest.approx(50)
    assert text.perplexity(1e9) == math.exp(700)
    assert math.isnan(text.perplexity(math.nan))


def test_the_unigram_baseline() -> None:
    # Probabilities 4/8, 1/8, 3/8.
    nats = (2 * math.log(2) + 1 * math.log(8)) / 3
    assert text.unigram_nats([3, 0, 2], [2, 1, 0]) == pytest.approx(nats, rel=1e-15)
    assert text.unigram_nats([0, 0], [3, 4]) == pytest.approx(math.log(2), rel=1e-15)
    assert math.isnan(text.unigram_nats([1, 2], [0, 0]))
    with pytest.raises(ValueError, match="one shape"):
        text.unigram_nats([1, 2], [1])
    with pytest.raises(ValueError, match="counts are integers"):
        text.unigram_nats([1, 2], [1, -1])


# Forecasts


def test_forecasts_by_hand() -> None:
    targets, predictions = one_series(1, 2, 4), one_series(2, 2, 1)
    assert forecast.mse(targets, predictions) == 10 / 3
    assert forecast.mae(targets, predictions) == 4 / 3
    assert forecast.pinball_loss(targets, predictions, 0.5) == 2 / 3
    # Too high by 1 costs 1/4 at level 3/4, too low by 3 costs 9/4.
    assert forecast.pinball_loss(targets, predictions, 0.75) == 2.5 / 3
    low, high = one_series(1, 2.5, 0), one_series(1, 3, 5)
    assert forecast.coverage(targets, low, high) == 2 / 3
    assert forecast.interval_width(low, high) == 5.5 / 3


def test_mase_by_hand() -> None:
    # Seasonal naive errors at period 2: 2, 0, 4 and, of the second series, none but 0.
    training = np.array([[1, 5], [2, 6], [3, 5], [2, 6], [7, 5]], float)
    scale = forecast.seasonal_scale(training, 2)
    assert scale.tolist() == [2, 0]
    assert forecast.seasonal_scale(training).tolist() == [2, 1]
    targets = np.array([[[1, 1], [2, 2]]], float)
    predictions = np.array([[[5, 9], [4, 9]]], float)
    assert forecast.mase(targets, predictions, scale) == (4 / 2 + 2 / 2) / 2
    assert forecast.mase(targets, predictions, [2, 1]) == (2 + 1 + 8 + 7) / 4
    assert math.isnan(forecast.mase(targets, predictions, [0, math.nan]))


def test_mase_of_the_seasonal_naive_forecast_of_training_itself_is_1() -> None:
    training = np.random.default_rng(1).normal(size=(40, 3))
    errors = (training[None, 7:], training[None, :-7], forecast.seasonal_scale(training, 7))
    assert forecast.mase(*errors) == pytest.approx(1)


def test_scales_of_each_window_and_of_gaps() -> None:
    training = np.array([[[1.0], [2], [9], [4]], [[0], [3], [0], [0]]])
    mask = np.array([[[True], [True], [False], [True]]] * 2)
    assert forecast.seasonal_scale(training, 1, mask).tolist() == [[1], [3]]
    assert forecast.seasonal_scale(training, 2, mask).tolist() == [[2], [3]]
    assert np.isnan(forecast.seasonal_scale(training, 4)).all()
    targets, predictions = np.zeros((2, 1, 1)), np.full((2, 1, 1), 3.0)
    assert forecast.mase(targets, predictions, [[1], [3]]) == (3 / 1 + 3 / 3) / 2


def test_what_was_not_observed_does_not_count() -> None:
    targets, predictions = one_series(1, math.nan, 3), one_series(2, 7, math.inf)
    mask = np.array([[[True], [False], [False]]])
    assert forecast.mse(targets, predictions, mask) == 1.0
    assert forecast.mae(targets, predictions, mask) == 1.0
    assert forecast.mase(targets, predictions, [4], mask) == 0.25
    assert forecast.pinball_loss(targets, predictions, 0.25, mask) == 0.75
    assert forecast.coverage(targets, predictions, predictions, mask) == 0.0
    assert forecast.interval_width(targets, predictions, mask) == 1.0
    assert math.isnan(forecast.mse(targets, predictions, np.zeros_like(mask)))
    assert math.isnan(forecast.mse(targets, predictions))


def test_no_windows_are_nan() -> None:
    none = np.zeros((0, 3, 2))
    assert math.isnan(forecast.mse(none, none))
    assert math.isnan(forecast.mase(none, none, [1, 1]))
    assert math.isnan(forecast.coverage(none, none, none))


def test_repeated_values() -> None:
    history = np.arange(10.0).reshape(1, 5, 2)
    assert forecast.repeat_last(history, 2).tolist() == [[[8, 9], [8, 9]]]
    assert forecast.seasonal_repeat(history, 3, 2).tolist() == [[[6, 7], [8, 9], [6, 7]]]
    assert forecast.seasonal_repeat(history, 1, 5).tolist() == [[[0, 1]]]
    assert forecast.seasonal_repeat(history[:0], 3, 2).shape == (0, 3, 2)
    mask = np.ones(history.shape, np.bool_)
    mask[0, 3:, 0] = mask[0, ::2, 1] = False
    assert forecast.repeat_last(history, 1, mask).tolist() == [[[4, 7]]]
    gaps = forecast.seasonal_repeat(history, 2, 2, mask)
    assert gaps[0, :, 0].tolist() == [2, 4]
    assert gaps[0, 0, 1] == 7
    assert math.isnan(gaps[0, 1, 1])


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda a: forecast.mse(a, a[0]), "one shape"),
        (lambda a: forecast.mse(a[0], a[0]), "one shape"),
        (lambda a: forecast.mse(a, a, a), "the mask is bool of shape"),
        (lambda a: forecast.mse(a, a, a[0] > 0), "the mask is bool of shape"),
        (lambda a: forecast.mase(a, a, [1, 2, 3]), "scale has shape"),
        (lambda a: forecast.pinball_loss(a, a, 1), "between 0 and 1, not 1"),
        (lambda a: forecast.seasonal_scale(a[0, 0]), "training has shape"),
        (lambda a: forecast.seasonal_scale(a, 0), "the period is 1 or more"),
        (lambda a: forecast.seasonal_repeat(a, 2, 4), "shorter than the period of 4"),
        (lambda a: forecast.repeat_last(a[:, :0], 2), "shorter than the period of 1"),
    ],
)
def test_wrong_forecasts(wrong: Callable[[Any], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        wrong(np.ones((2, 3, 2)))


def random_windows(seed: int) -> tuple[NDArray[Any], ...]:
    """Targets, predictions and the mask of some windows, and a scale for each window's series."""
    random = np.random.default_rng(seed)
    shape = tuple(random.integers(1, (7, 60, 9)))
    targets, predictions = np.exp(8 * random.normal(size=(2, *shape)))
    return targets, predictions, random.random(shape) < 0.7, random.random((shape[0], shape[2]))


@quick
@given(seeds)
def test_forecasts_as_naively(seed: int) -> None:
    targets, predictions, mask, scale = random_windows(seed)
    squares, absolute, scaled, pinball, inside = [], [], [], [], []
    for n, h, s in np.argwhere(mask):
        error = targets[n, h, s] - predictions[n, h, s]
        squares.append(error**2)
        absolute.append(abs(error))
        scaled.append(abs(error) / scale[n, s])
        pinball.append(0.9 * error if error > 0 else -0.1 * error)
        inside.append(predictions[n, h, s] <= targets[n, h, s] <= 2 * predictions[n, h, s])
    for value, values in (
        (forecast.mse(targets, predictions, mask), squares),
        (forecast.mae(targets, predictions, mask), absolute),
        (forecast.mase(targets, predictions, scale, mask), scaled),
        (forecast.pinball_loss(targets, predictions, 0.9, mask), pinball),
        (forecast.coverage(targets, predictions, 2 * predictions, mask), inside),
    ):
        expected = math.fsum(values) / len(values) if values else math.nan
        assert value == pytest.approx(expected, rel=1e-12, nan_ok=True)


@quick
@given(seeds, st.lists(st.integers(0, 6), max_size=3), st.booleans())
def test_forecasts_in_any_batches_and_layout(seed: int, cuts: list[int], swap: bool) -> None:
    arrays = random_windows(seed)
    targets, predictions, mask, scale = arrays
    if swap:  # the same numbers, in another order in memory
        targets, predictions = (np.asfortranarray(a) for a in (targets, predictions))
    bounds = [0, *sorted(cuts), len(targets)]
    batches = [slice(a, b) for a, b in pairwise(bounds) if a < b]
    batches.reverse()

    def added(part: Callable[[slice], Mean]) -> float:
        return sum(map(part, batches), Mean()).value()

    assert same(
        added(lambda b: forecast.squared_errors(targets[b], predictions[b], mask[b])),
        forecast.mse(*arrays[:3]),
    )
    assert same(
        added(lambda b: forecast.scaled_errors(targets[b], predictions[b], scale[b], mask[b])),
        forecast.mase(arrays[0], arrays[1], scale, mask),
    )
    assert same(
        added(lambda b: forecast.pinball_losses(targets[b], predictions[b], 0.1)),
        forecast.pinball_loss(arrays[0], arrays[1], 0.1),
    )


@quick
@given(seeds, st.integers(1, 5), st.integers(0, 9))
def test_seasonal_repeats_as_naively(seed: int, period: int, horizon: int) -> None:
    random = np.random.default_rng(seed)
    shape = (2, period + int(random.integers(0, 9)), 3)
    history, mask = random.normal(size=shape), random.random(shape) < 0.5
    found = forecast.seasonal_repeat(history, horizon, period, mask)
    for n, h, s in np.ndindex(2, horizon, 3):
        step = shape[1] + h
        earlier = [t for t in range(shape[1]) if (step - t) % period == 0 and mask[n, t, s]]
        expected = history[n, earlier[-1], s] if earlier else math.nan
        assert same(float(found[n, h, s]), expected)
