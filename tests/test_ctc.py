"""Connectionist temporal classification against sums over all paths, and its decoders."""

from __future__ import annotations

import itertools
import warnings
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from rnnfarm.nn.ctc import align, ctc, impossible
from rnnfarm.training.ctc_decode import beam, greedy

Batch = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    """Nothing warns, and nothing relies on what the caller does with floating point errors."""
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)  # of garbage that other tests left
        yield


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def collapsed(path: tuple[int, ...], blank: int = 0) -> tuple[int, ...]:
    """The labels of a path: repeats removed, then blanks."""
    return tuple(k for k, _ in itertools.groupby(path) if k != blank)


def every_labelling(logits: np.ndarray, blank: int = 0) -> dict[tuple[int, ...], float]:
    """The probability of every labelling, as the sum over all paths of (T, V) logits."""
    y = np.exp(log_probabilities(logits.astype(np.float64)))
    found: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(y.shape[1]), repeat=len(y)):
        found[collapsed(path, blank)] += float(np.prod(y[np.arange(len(y)), path]))
    return found


def batch(
    lengths: list[int], labels: list[list[int]], classes: int = 3, extra: int = 0, seed: int = 0
) -> Batch:
    """Random logits of rows, with ``extra`` steps and labels of padding in all."""
    steps, longest = max(lengths) + extra, max(map(len, labels)) + extra
    logits = 2 * np.random.default_rng(seed).normal(size=(steps, len(lengths), classes))
    padded = np.array([[*row, *[0] * (longest - len(row))] for row in labels], np.int64)
    sizes = np.array([len(row) for row in labels])
    return logits, np.array(lengths), padded.reshape(len(labels), longest).T, sizes


# Rows with and without repeats, without labels, with as few steps as can be; the last three are
# impossible, and the one before them does not count.
LENGTHS = [5, 5, 5, 4, 3, 3, 1, 1, 5, 0, 2, 2, 4]
LABELS: list[list[int]] = [
    *([1, 2], [1, 1], [], [2, 1, 2], [1, 1], [2], [1], [], [2, 2, 1], [2]),
    *([1, 2, 1], [1, 1], [1, 1, 1]),
]


def moved_blank(given: Batch, blank: int) -> Batch:
    """The same rows with another class as blank: classes are counted round from it."""
    logits, lengths, labels, sizes = given
    return np.roll(logits, blank, -1), lengths, (labels + blank) % logits.shape[-1], sizes


@pytest.mark.parametrize("blank", [0, 1, 2])
def test_loss_is_the_sum_over_all_paths(blank: int) -> None:
    given = moved_blank(batch(LENGTHS, LABELS, extra=1), blank)
    logits, lengths, labels, sizes = given
    losses = ctc(*given, blank=blank)
    assert losses.dtype == np.float64
    expected = []
    for row, (steps, size) in enumerate(zip(lengths, sizes, strict=True)):
        every = every_labelling(logits[:steps, row], blank)
        probability = every.get(tuple(labels[:size, row].tolist()), 0.0) if steps else 1.0
        expected.append(-np.log(probability) if probability else np.inf)
    assert np.isinf(expected).sum() == 3
    np.testing.assert_allclose(losses, expected, rtol=1e-13)


def test_impossible_rows() -> None:
    logits, lengths, labels, sizes = batch(LENGTHS, LABELS, extra=1)
    expected = [False] * 10 + [True] * 3
    assert impossible(lengths, labels, sizes).tolist() == expected
    assert np.isinf(ctc(logits, lengths, labels, sizes)).tolist() == expected
    # Equal padding, and equality across the end of the labels, are no repeats.
    assert not impossible(np.array([2]), np.array([[1], [2], [2], [2]]), np.array([2])).any()
    assert not impossible(np.array([1]), np.array([[1], [1]]), np.array([1])).any()
    assert not impossible(np.array([3, 0]), np.zeros((0, 2), int), np.array([0, 0])).any()


@pytest.mark.parametrize("blank", [0, 2])
def test_gradient_agrees_with_central_differences(blank: int) -> None:
    given = moved_blank(batch(LENGTHS, LABELS, extra=1, seed=1), blank)
    logits, *rest = given
    gradient = np.full_like(logits, np.nan)
    losses = ctc(*given, gradient, blank=blank)
    assert losses.tobytes() == ctc(*given, blank=blank).tobytes()
    finite, step = np.isfinite(losses), 1e-5
    expected = np.zeros_like(logits)
    for t, k in np.ndindex(len(logits), logits.shape[2]):
        # Rows do not depend on each other: all are moved at once.
        ends = []
        for sign in (1, -1):
            moved = logits.copy()
            moved[t, :, k] += sign * step
            ends.append(ctc(moved, *rest, blank=blank))
        expected[t, finite, k] = (ends[0][finite] - ends[1][finite]) / (2 * step)
    assert np.abs(gradient - expected).max() < 1e-9
    assert np.abs(gradient[:, finite]).max() > 0.1
    assert not gradient[:, ~finite].any()
    assert not gradient[np.arange(len(logits))[:, None] >= given[1]].any()


def random_batch(rows: int, seed: int, extra: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    labels = [rng.integers(1, 12, rng.integers(0, 9)).tolist() for _ in range(rows)]
    return batch(rng.integers(0, 40, rows).tolist(), labels, 12, extra, seed)


def test_a_row_depends_on_no_other_and_on_no_padding() -> None:
    """The same bits alone, in a batch, and in one with more padding, whatever is in that."""
    given = random_batch(20, 3)
    logits, lengths, labels, sizes = given
    gradient = np.empty_like(logits)
    losses = ctc(*given, gradient)
    assert np.isfinite(losses).sum() > 10
    for row in range(20):
        steps, size = lengths[row], sizes[row]
        alone = logits[:steps, [row]]
        one = np.empty_like(alone)
        loss = ctc(alone, lengths[[row]], labels[:size, [row]], sizes[[row]], one)
        assert loss.tobytes() == losses[[row]].tobytes()
        assert one.tobytes() == gradient[:steps, [row]].tobytes()
    more = np.full((len(logits) + 7, 20, 12), np.nan)
    more[: len(logits)] = logits
    more[np.arange(len(more))[:, None] >= lengths] = np.nan
    junk = np.full((len(labels) + 3, 20), -100)
    junk[: len(labels)] = labels
    junk[np.arange(len(junk))[:, None] >= sizes] = 999
    got = np.full_like(more, np.nan)
    assert ctc(more, lengths, junk, sizes, got).tobytes() == losses.tobytes()
    assert got[: len(logits)].tobytes() == gradient.tobytes()
    assert not got[len(logits) :].any()


def test_parts_of_a_batch_and_views_give_the_same_bits() -> None:
    logits, lengths, labels, sizes = given = random_batch(13, 4)
    gradient = np.empty_like(logits)
    losses = ctc(*given, gradient)
    for rows in (slice(0, 5), slice(5, 13), slice(0, None, 3)):
        # Gradients go into views too.
        got = np.full_like(logits, np.nan)
        part = ctc(logits[:, rows], lengths[rows], labels[:, rows], sizes[rows], got[:, rows])
        assert part.tobytes() == losses[rows].tobytes()
        assert got[:, rows].tobytes() == gradient[:, rows].tobytes()
    batch_first = np.ascontiguousarray(logits.transpose(1, 0, 2)).transpose(1, 0, 2)
    assert ctc(batch_first, lengths, labels, sizes).tobytes() == losses.tobytes()


def test_the_gradient_may_take_the_place_of_the_logits() -> None:
    logits, *rest = random_batch(5, 5)
    gradient = np.empty_like(logits)
    losses = ctc(logits, *rest, gradient)
    assert ctc(logits, *rest, logits).tobytes() == losses.tobytes()
    assert logits.tobytes() == gradient.tobytes()


def test_float32_is_computed_in_float64() -> None:
    logits, *rest = random_batch(6, 6)
    small = logits.astype(np.float32)
    d_small, d_large = np.empty_like(small), np.empty_like(logits)
    losses = ctc(small, *rest, d_small)
    assert losses.tobytes() == ctc(small.astype(np.float64), *rest, d_large).tobytes()
    np.testing.assert_allclose(d_small, d_large, rtol=1e-7)
    np.testing.assert_allclose(losses, ctc(logits, *rest), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
def test_integers_of_any_type(dtype: Any) -> None:
    logits, *rest = random_batch(6, 7)
    expected, got = np.empty_like(logits), np.empty_like(logits)
    losses = ctc(logits, *rest, expected)
    given = [array.astype(dtype) for array in rest]
    assert ctc(logits, *given, got).tobytes() == losses.tobytes()
    assert got.tobytes() == expected.tobytes()
    assert impossible(*given).tolist() == impossible(*rest).tolist()


@pytest.mark.parametrize(("steps", "rows", "size"), [(4, 3, 2), (0, 2, 1), (3, 0, 2), (3, 2, 0)])
def test_rows_of_no_steps_and_arrays_of_no_elements(steps: int, rows: int, size: int) -> None:
    gradient = np.full((steps, rows, 3), np.nan)
    none, labels = np.zeros(rows, int), np.ones((size, rows), int)
    losses = ctc(np.zeros_like(gradient), none, labels, np.full(rows, size), gradient)
    assert losses.tolist() == [0.0] * rows
    assert not gradient.any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_logits(dtype: str) -> None:
    """Losses and gradients stay numbers; those of paths that are certain are exact."""
    scale = 3e37 if dtype == "float32" else 1e300
    certain = np.full((3, 1, 3), -scale, dtype)
    certain[[0, 1, 2], 0, [1, 0, 2]] = scale
    logits = np.concatenate([certain, certain[::-1], certain * 0.5], 1)
    labels, lengths = np.array([[1, 1, 2], [2, 2, 1]]), np.full(3, 3)
    gradient = np.empty_like(logits)
    losses = ctc(logits, lengths, labels, np.full(3, 2), gradient)
    assert losses[0] == 0
    assert not gradient[:, 0].any()
    assert np.isfinite(losses).all()
    assert (losses[1:] > scale).all()
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() <= 1


def test_a_row_that_diverged_gives_nan_and_spoils_no_other() -> None:
    logits, lengths, labels, sizes = batch([4, 4, 4], [[1], [2], [1, 2]])
    expected, got = np.empty_like(logits), np.empty_like(logits)
    losses = ctc(logits, lengths, labels, sizes, expected)
    logits[2, 1] = [np.nan, np.inf, 0.0]
    after = ctc(logits, lengths, labels, sizes, got)
    assert np.isnan(after).tolist() == [False, True, False]
    assert np.isnan(got[:, 1]).any()
    assert after[[0, 2]].tolist() == losses[[0, 2]].tolist()
    assert np.array_equal(got[:, [0, 2]], expected[:, [0, 2]])


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_label_that_is_no_class(wrong: int) -> None:
    with pytest.raises(ValueError, match="classes from 0 to 2"):
        ctc(np.zeros((4, 1, 3)), np.array([4]), np.array([[wrong]]), np.array([1]))


def test_long_sequences_do_not_underflow() -> None:
    """Uniform outputs: every path has the probability V**-T, and paths can be counted."""
    steps = 2000
    gradient = np.empty((steps, 1, 5))
    loss = ctc(np.zeros_like(gradient), np.array([steps]), np.array([[3]]), np.array([1]), gradient)
    # One run of a label lies somewhere: it has a beginning and an end.
    expected = steps * np.log(5) - np.log(steps * (steps + 1) / 2)
    assert loss[0] == pytest.approx(expected, rel=1e-12)
    assert np.abs(gradient.sum(-1)).max() < 1e-12


def test_align_is_the_most_probable_path() -> None:
    logits, lengths, labels, sizes = batch(LENGTHS, LABELS, extra=1, seed=8)
    for row in range(9):
        steps, wanted = lengths[row], labels[: sizes[row], row]
        likely = log_probabilities(logits[:steps, row])
        paths = [
            path
            for path in itertools.product(range(3), repeat=int(steps))
            if collapsed(path) == tuple(wanted)
        ]
        best = max(paths, key=lambda path: likely[np.arange(len(path)), path].sum())
        found = align(logits[:, row], int(steps), wanted)
        assert found.shape == (len(logits),)
        assert (found[steps:] == -1).all()
        assert tuple(0 if k < 0 else int(wanted[k]) for k in found[:steps]) == best
        # A label goes on, or the next one comes.
        assert [k for k, _ in itertools.groupby(found) if k >= 0] == list(range(len(wanted)))


def test_align_of_given_paths() -> None:
    logits = 5 * np.eye(3)[[2, 2, 0, 2, 1, 0]]
    assert align(logits, 5, np.array([2, 2, 1])).tolist() == [0, 0, -1, 1, 2, -1]
    assert align(logits, 2, np.array([], int)).tolist() == [-1] * 6
    assert align(logits, 0, np.array([1])).tolist() == [-1] * 6
    rolled = np.roll(logits, 1, -1)
    assert align(rolled, 5, np.array([0, 0, 2]), blank=1).tolist() == [0, 0, -1, 1, 2, -1]
    with pytest.raises(ValueError, match="no path of 2 steps gives these 2 labels"):
        align(logits, 2, np.array([1, 1]))


def test_greedy() -> None:
    def found(path: list[int], blank: int = 0) -> list[int]:
        return greedy(np.eye(4)[path], blank)

    assert found([0, 1, 1, 0, 1, 2, 2, 3, 0]) == [1, 1, 2, 3]
    assert found([1, 1, 0, 0, 3], blank=3) == [1, 0]
    assert found([3, 3, 0, 3, 1], blank=3) == [0, 1]
    assert found([0, 0]) == found([]) == []
    # The first of equals.
    assert greedy(np.zeros((2, 3)), blank=1) == [0]


@pytest.mark.parametrize("blank", [0, 1])
@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_is_exact(blank: int, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(5, 3))
    every = every_labelling(logits, blank)
    found = beam(logits, 1000, blank, most=1000)
    assert {tuple(labels) for labels, _ in found} == set(every)
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    assert scores == pytest.approx([np.log(every[tuple(k)]) for k, _ in found], rel=1e-12)
    assert beam(logits, 1000, blank) == found[:1]
    assert found[0][0] == list(max(every, key=lambda labels: every[labels]))
    # Its scores are those of the loss, and log probabilities are logits too.
    labels = np.array(found[3][0], int)[:, None]
    loss = ctc(logits[:, None], np.array([5]), labels, np.array([len(labels)]), blank=blank)
    assert found[3][1] == pytest.approx(-loss[0], rel=1e-12)
    again = beam(log_probabilities(logits), 1000, blank, 1000)
    assert [labels for labels, _ in again] == [labels for labels, _ in found]


def test_the_beam_sums_over_paths_where_greedy_takes_one() -> None:
    """The example of the paper's section 3.2: the best path is all blanks, its labelling is not."""
    logits = np.log([[0.6, 0.4], [0.6, 0.4]])
    assert greedy(logits) == []
    ((labels, score),) = beam(logits, 4)
    assert labels == [1]
    assert score == pytest.approx(np.log(0.64))


def test_a_narrow_beam_gives_no_more_than_there_is() -> None:
    rng = np.random.default_rng(11)
    for _ in range(5):
        logits = 2 * rng.normal(size=(6, 3))
        every = every_labelling(logits)
        for width in (1, 2, 4, 8):
            found = beam(logits, width, most=20)
            assert len(found) == width
            assert len({tuple(labels) for labels, _ in found}) == width
            for labels, score in found:
                assert score <= np.log(every[tuple(labels)]) + 1e-12


def test_ties_of_the_beam_are_always_broken_alike() -> None:
    found = beam(np.zeros((1, 4)), 4, blank=2, most=9)
    assert [labels for labels, _ in found] == [[], [0], [1], [3]]
    assert [labels for labels, _ in beam(np.zeros((1, 4)), 2, blank=2, most=9)] == [[], [0]]


def test_a_beam_of_no_steps_and_of_impossible_classes() -> None:
    assert beam(np.zeros((0, 3)), 4) == [([], 0.0)]
    certain = np.where(np.eye(3, dtype=bool)[[1, 0, 1]], 0.0, -np.inf)
    assert beam(certain, 4, most=9) == [([1, 1], 0.0)]
    large = np.where(np.eye(3, dtype=bool)[[1, 0, 1]], 1e30, -1e30)
    assert beam(large, 4) == [([1, 1], 0.0)]
    assert align(large, 3, np.array([1, 1])).tolist() == [0, -1, 1]
    with pytest.raises(ValueError, match="1 prefix or more"):
        beam(np.zeros((2, 3)), 0)
