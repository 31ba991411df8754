"""The losses: values, gradients, masks, extreme numbers, and what does not depend on what."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import pytest

from rnnfarm.builtin import rnnfarm_losses
from rnnfarm.builtin.losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    Gaussian,
    Huber,
    MeanSquaredError,
    Quantile,
)
from rnnfarm.equations.language import parameter, pick, row_sum, split
from rnnfarm.equations.parts import Loss
from rnnfarm.errors import CellError, DataError, JobError
from rnnfarm.kernels.rows import RowProgram
from rnnfarm.nn.loss import LossFunction

T, B, WIDTH = 5, 4, 6


def naive_cross_entropy(z: np.ndarray, y: np.ndarray, smoothing: float = 0.0) -> np.ndarray:
    likely = np.log(np.exp(z) / np.exp(z).sum(-1, keepdims=True))
    wanted = (1 - smoothing) * np.eye(z.shape[-1])[y] + smoothing / z.shape[-1]
    return -(wanted * likely).sum(-1)


def naive_binary(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    p = 1 / (1 + np.exp(-z))
    return -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(-1)


def naive_huber(z: np.ndarray, y: np.ndarray, delta: float) -> np.ndarray:
    e = np.abs(z - y)
    return np.where(e <= delta, e**2 / 2, delta * (e - delta / 2)).sum(-1)


def naive_quantile(z: np.ndarray, y: np.ndarray, quantiles: list[float]) -> np.ndarray:
    e = y[..., None, :] - z.reshape(*z.shape[:-1], len(quantiles), -1)
    tau = np.array(quantiles)[:, None]
    return np.where(e >= 0, tau * e, (tau - 1) * e).sum((-1, -2))


# Every case: the loss, and the naive formula of one step from output and target.
def naive_gaussian(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    mean, raw = z[..., : y.shape[-1]], z[..., y.shape[-1] :]
    deviation = np.log1p(np.exp(raw)) + 1e-3
    density = np.exp(-0.5 * ((y - mean) / deviation) ** 2) / deviation / np.sqrt(2 * np.pi)
    return -np.log(density).sum(-1)


CASES: dict[str, tuple[Loss, Callable[..., np.ndarray]]] = {
    "mse": (MeanSquaredError(), lambda z, y: 0.5 * ((y - z) ** 2).sum(-1)),
    "cross_entropy": (CrossEntropy(), naive_cross_entropy),
    "cross_entropy smoothed": (
        CrossEntropy(label_smoothing=0.2),
        lambda z, y: naive_cross_entropy(z, y, 0.2),
    ),
    "binary_cross_entropy": (BinaryCrossEntropy(), naive_binary),
    "huber": (Huber(), lambda z, y: naive_huber(z, y, 1.0)),
    "huber 0.3": (Huber(delta=0.3), lambda z, y: naive_huber(z, y, 0.3)),
    "quantile": (Quantile(), lambda z, y: naive_quantile(z, y, [0.1, 0.5, 0.9])),
    "gaussian": (Gaussian(), naive_gaussian),
    "quantile 0.3": (Quantile(quantiles=[0.3]), lambda z, y: naive_quantile(z, y, [0.3])),
}
each_loss = pytest.mark.parametrize("loss", [c[0] for c in CASES.values()], ids=list(CASES))


def numbers(loss: Loss, seed: int = 0, width: int = WIDTH) -> tuple[np.ndarray, ...]:
    """Output, target and valid of a window."""
    rng = np.random.default_rng(seed)
    output = rng.normal(size=(T, B, loss.outputs(width)))
    if loss.target_kind == "classes":
        target = rng.integers(0, width, (T, B))
    elif isinstance(loss, BinaryCrossEntropy):
        target = rng.random((T, B, width))
    else:
        target = rng.normal(size=(T, B, width))
    return output, target, rng.random((T, B)) < 0.7


def function(loss: Loss, dtype: str = "float64", width: int = WIDTH) -> LossFunction:
    return LossFunction(loss, loss.outputs(width), width, dtype)


def test_every_built_in_loss_has_a_case() -> None:
    # CTC is no function of one step: test_ctc.py and test_shapes.py have it.
    assert {name.split()[0] for name in CASES} | {"ctc"} >= set(rnnfarm_losses())


@pytest.mark.parametrize("name", CASES)
def test_value(name: str) -> None:
    loss, formula = CASES[name]
    output, target, valid = numbers(loss)
    result = function(loss)(output, target, valid)
    assert result.count == valid.sum() > 0
    assert result.total == pytest.approx(formula(output, target)[valid].sum(), rel=1e-12)


def test_mean_squared_error_is_exactly_half_the_squared_distance() -> None:
    output, target = np.zeros((1, 2, 3)), np.array([[[1.0, 2.0, 2.0], [3.0, 0.0, 4.0]]])
    result = function(MeanSquaredError(), width=3)(output, target, np.ones((1, 2), bool))
    assert result.total == (9 + 25) / 2
    assert MeanSquaredError(reduction="sum").reduction == "sum"


@each_loss
def test_the_mean_over_steps_is_the_default(loss: Loss) -> None:
    assert loss.reduction == "mean"


@each_loss
def test_gradient_agrees_with_central_differences(loss: Loss) -> None:
    output, target, valid = numbers(loss, seed=1)
    compiled = function(loss)
    gradient = np.full_like(output, np.nan)
    with_gradient = compiled(output, target, valid, gradient)
    assert with_gradient == compiled(output, target, valid)
    step = 1e-5
    expected = np.empty_like(output)
    for index in np.ndindex(output.shape):
        ends = []
        for sign in (1, -1):
            moved = output.copy()
            moved[index] += sign * step
            ends.append(compiled(moved, target, valid).total)
        expected[index] = (ends[0] - ends[1]) / (2 * step)
    assert np.abs(gradient - expected).max() <= 1e-6 * np.abs(expected).max()
    assert (gradient[~valid] == 0).all()


@each_loss
def test_steps_that_are_not_valid_may_hold_anything(loss: Loss) -> None:
    output, target, valid = numbers(loss, seed=2)
    compiled = function(loss)
    expected, got = np.empty_like(output), np.empty_like(output)
    whole = compiled(output, target, valid, expected)
    output[~valid] = np.nan
    target[~valid] = -100 if loss.target_kind == "classes" else np.inf
    assert compiled(output, target, valid, got) == whole
    assert np.array_equal(got, expected)


@each_loss
def test_no_valid_step_gives_zero(loss: Loss) -> None:
    output, target, valid = numbers(loss)
    gradient = np.full_like(output, np.nan)
    result = function(loss)(output, target, np.zeros_like(valid), gradient)
    assert (result.total, result.count) == (0.0, 0)
    assert not gradient.any()


@each_loss
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_do_not_depend_on_each_other(loss: Loss, dtype: str) -> None:
    """Lanes: the sums over groups of rows add up, and the gradients are the same bits."""
    output, target, valid = numbers(loss, seed=3)
    output = output.astype(dtype)
    compiled = function(loss, dtype)
    gradient = np.empty_like(output)
    whole = compiled(output, target, valid, gradient)
    parts = []
    for rows in (slice(0, 1), slice(1, 3), slice(3, 4)):
        part = np.empty_like(output[:, rows])
        parts.append(compiled(output[:, rows], target[:, rows], valid[:, rows], part))
        assert part.tobytes() == gradient[:, rows].tobytes()
    assert sum(p.count for p in parts) == whole.count
    assert sum(p.total for p in parts) == pytest.approx(whole.total, rel=1e-14)


@each_loss
def test_blocks_and_threads_change_no_bit(loss: Loss, monkeypatch: pytest.MonkeyPatch) -> None:
    output, target, valid = numbers(loss, seed=4)
    output = output.astype(np.float32)
    compiled = function(loss, "float32")
    first = np.empty_like(output)
    whole = compiled(output, target, valid, first)

    def again(_: int) -> bool:
        gradient = np.empty_like(output)
        same = compiled(output, target, valid, gradient) == whole
        return same and gradient.tobytes() == first.tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(again, range(40)))
    for program in (compiled._value, compiled._gradient):
        for rows in (1, 3, 7):
            monkeypatch.setattr(program, "rows", rows)
            assert again(0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", [CrossEntropy(), CrossEntropy(label_smoothing=0.1)])
def test_cross_entropy_of_extreme_logits(loss: Loss, dtype: str) -> None:
    output = np.array([[[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [3e37, 0.0, -3e37]]], dtype)
    target, valid = np.array([[0, 1, 0]]), np.ones((1, 3), bool)
    gradient = np.empty_like(output)
    result = function(loss, dtype, 3)(output, target, valid, gradient)
    assert np.isfinite(result.total)
    assert np.isfinite(gradient).all()
    if not loss.settings()["label_smoothing"]:
        assert result.total == pytest.approx(np.log(2), rel=1e-6)
        assert gradient[0].tolist() == [[0, 0, 0], [0, -0.5, 0.5], [0, 0, 0]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_binary_cross_entropy_of_extreme_logits(dtype: str) -> None:
    output = np.array([[[1e4, -1e4, 1e4, -1e4, 0.0]]], dtype)
    target = np.array([[[1.0, 0.0, 0.0, 1.0, 1.0]]])
    gradient = np.empty_like(output)
    loss = function(BinaryCrossEntropy(), dtype, 5)
    result = loss(output, target, np.ones((1, 1), bool), gradient)
    assert result.total == pytest.approx(2e4 + np.log(2))
    assert gradient[0, 0].tolist() == [0, 0, 1, -1, -0.5]


def test_binary_cross_entropy_keeps_small_losses() -> None:
    output, target = np.full((1, 1, 1), 40.0), np.ones((1, 1, 1))
    result = function(BinaryCrossEntropy(), width=1)(output, target, np.ones((1, 1), bool))
    assert result.total == pytest.approx(np.exp(-40.0), rel=1e-12)


@pytest.mark.parametrize("ignore", [2, -1, 255])
def test_ignored_targets_do_not_count(ignore: int) -> None:
    loss = CrossEntropy(ignore=ignore)
    output, target, valid = numbers(loss, seed=5)
    target[::2, ::2] = ignore
    gradient = np.empty_like(output)
    result = function(loss)(output, target, valid, gradient)
    counts = valid & (target != ignore)
    assert result.count == counts.sum() < valid.sum()
    expected = naive_cross_entropy(output, np.where(counts, target, 0))[counts].sum()
    assert result.total == pytest.approx(expected, rel=1e-12)
    assert not gradient[~counts].any()
    assert gradient[counts].any(-1).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_classes_of_any_integer_type(dtype: Any) -> None:
    loss = CrossEntropy(ignore=200)
    output, target, valid = numbers(loss)
    target[0] = 200
    result = function(loss)(output, target.astype(dtype), valid)
    assert result == function(loss)(output, target, valid)


@pytest.mark.parametrize("wrong", [-1, WIDTH])
def test_a_class_that_the_output_does_not_have(wrong: int) -> None:
    output, target, _ = numbers(CrossEntropy())
    target[1, 2] = wrong
    with pytest.raises(DataError, match=f"class {wrong}, .* 0 to {WIDTH - 1}; .*'ignore'"):
        function(CrossEntropy())(output, target, np.ones((T, B), bool))


def test_a_gradient_that_is_not_contiguous_is_refused() -> None:
    output, target, valid = numbers(MeanSquaredError())
    wide = np.empty((T, B, 2 * WIDTH))
    with pytest.raises(ValueError, match="contiguous"):
        function(MeanSquaredError())(output, target, valid, wide[..., ::2])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Huber(delta=0.0), "delta"),
        (lambda: CrossEntropy(label_smoothing=1.0), "label_smoothing"),
        (lambda: Quantile(quantiles=[]), "quantiles"),
        (lambda: Quantile(quantiles=[0.5, 1.0]), "quantiles"),
        (lambda: Quantile(quantiles=[0.9, 0.1, 0.9]), r"0\.9 is there more than once"),
        (lambda: MeanSquaredError(reduction="max"), "reduction"),
    ],
)
def test_settings_out_of_range(make: Callable[[], Loss], match: str) -> None:
    with pytest.raises(JobError, match=match):
        make()


@pytest.mark.parametrize(
    ("quantiles", "rows"),
    [
        ([0.1, 0.5, 0.9], [1]),
        ([0.05, 0.1, 0.5], [2]),
        ([0.5, 0.9], [0]),
        ([0.1, 0.9], [0, 1]),
        ([0.9, 0.1], [0, 1]),
        ([0.01, 0.4, 0.6, 0.99], [1, 2]),
        ([0.7, 0.2, 0.45], [1]),
        ([0.8], [0]),
    ],
)
def test_a_prediction_is_the_quantile_nearest_to_one_half(
    quantiles: list[float], rows: list[int]
) -> None:
    """By value, wherever it stands in the list; of two that are equally near, the middle."""
    drawn = np.sort(np.random.default_rng(0).standard_normal((5, len(quantiles), WIDTH)), axis=1)
    output = drawn[:, np.argsort(np.argsort(quantiles))].reshape(5, -1)
    middle, low, high = Quantile(quantiles=quantiles).interval(output, WIDTH)
    assert np.allclose(middle, drawn[:, rows].mean(1), rtol=1e-15)
    if len(quantiles) == 1:
        assert low is None
        assert high is None
    else:
        assert np.array_equal(low, drawn[:, 0])
        assert np.array_equal(high, drawn[:, -1])


class Twice(Loss):
    """Picks two units of one row, one of them by a number in the equation."""

    target_kind = "classes"

    def step(self, output: Any, target: Any) -> Any:
        return pick(output, target) * pick(output, 1) + pick(output * output, target)


def test_pick_more_than_once() -> None:
    output, target, valid = numbers(Twice())
    gradient = np.empty_like(output)
    result = function(Twice())(output, target, valid, gradient)
    chosen = np.take_along_axis(output, target[..., None], -1)[..., 0]
    rows = chosen * output[..., 1] + chosen**2
    assert result.total == pytest.approx(rows[valid].sum(), rel=1e-12)
    hot = np.eye(WIDTH)[target]
    expected = hot * (output[..., 1:2] + 2 * chosen[..., None])
    expected[..., 1] += chosen
    assert np.allclose(gradient, expected * valid[..., None], rtol=1e-12)


class WithParameter(Loss):
    def step(self, output: Any, target: Any) -> Any:
        return (output - target) * parameter("gain")


class BadIgnored(Loss):
    def step(self, output: Any, target: Any) -> Any:
        return row_sum(output)

    def ignored(self, target: Any) -> Any:
        return target


class BadSplit(Loss):
    def step(self, output: Any, target: Any) -> Any:
        return split(output, 4)[0]


class BadPick(Loss):
    def step(self, output: Any, target: Any) -> Any:
        return pick(output, WIDTH)


class NoStep(Loss):
    pass


@pytest.mark.parametrize(
    ("loss", "match"),
    [
        (WithParameter(), "no learned parameters"),
        (BadIgnored(), "comparison such as"),
        (BadSplit(), "6 wide"),
        (BadPick(), "units 0 to 5"),
        (NoStep(), r"no equations; write def step\(self, output, target\)"),
    ],
)
def test_mistakes_in_a_loss(loss: Loss, match: str) -> None:
    with pytest.raises(CellError, match=f"^{type(loss).__name__}: .*{match}"):
        function(loss)


class Own(Loss):
    """A loss that is no equation: it looks at the whole sequence."""

    def evaluate(self, output: Any, target: Any, valid: Any, d_output: Any) -> tuple[float, int]:
        if d_output is not None:
            d_output[...] = 1.0
        return float(output.sum()), int(valid.any(0).sum())


def test_a_loss_may_evaluate_itself() -> None:
    output, target, valid = numbers(Own())
    gradient = np.zeros_like(output)
    result = function(Own())(output, target, valid, gradient)
    assert (result.total, result.count) == (output.sum(), B)
    assert gradient.all()


def test_a_loss_that_does_not_use_its_output() -> None:
    class Nothing(Loss):
        def step(self, output: Any, target: Any) -> Any:
            return row_sum(target)

    output, target, valid = numbers(Nothing())
    gradient = np.full_like(output, np.nan)
    result = function(Nothing())(output, target, valid, gradient)
    assert result.total == pytest.approx(target.sum(-1)[valid].sum())
    assert not gradient.any()


def test_the_gradient_of_cross_entropy_needs_no_wide_scratch() -> None:
    """At 10,000 classes what is not worked on in place costs most of the time."""
    program: RowProgram = function(CrossEntropy(), width=100)._gradient
    assert {width for width, _ in program._buffers} == {1}


def test_a_kind_of_target_that_there_is_not() -> None:
    class Odd(Loss):
        target_kind = "class"  # type: ignore[assignment]

        def step(self, output, target):
            return output - target

    with pytest.raises(CellError, match="target_kind = 'class'; write 'classes' or 'values'"):
        function(Odd())


def test_what_is_said_of_a_loss_is_of_its_own_equations() -> None:
    """A class that replaces them has no perplexity and no mse, which would be false."""

    class Sharper(CrossEntropy):
        def step(self, output: Any, target: Any) -> Any:
            return 2.0 * super().step(output, target)

    class Logarithmic(CrossEntropy):
        log_likelihood: ClassVar[bool] = True

        def step(self, output: Any, target: Any) -> Any:
            return super().step(output, target)

    class Renamed(CrossEntropy):
        label: str = "x"

    class Raised(MeanSquaredError):  # noqa: N818  (its base is a loss)
        def step(self, output: Any, target: Any) -> Any:
            return (output - target) ** 4

    assert [kind().in_nats for kind in (CrossEntropy, Sharper, Logarithmic, Renamed)] == [
        True, False, True, True,
    ]  # fmt: skip
    assert MeanSquaredError().known_metric == ("mse", 2.0)
    assert Raised().known_metric is None
    assert not MeanSquaredError().in_nats
