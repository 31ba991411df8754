"""Every derived gradient agrees with central differences in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_tools import VARIANTS, Case, make_case
from random_cells import Recipe, cell_of, plan_options, recipes

from rnnfarm.builtin import cells
from rnnfarm.equations.language import affine, parameter, sigmoid, tanh
from rnnfarm.equations.parts import Cell
from rnnfarm.equations.plan import PlanOptions
from rnnfarm.testing import check_gradients

CELLS: dict[str, Cell] = {
    "elman": cells.Elman(),
    "elman-sigmoid": cells.Elman(activation="sigmoid"),
    "elman-relu": cells.Elman(activation="relu"),
    "jordan": cells.Jordan(),
    "lstm": cells.LSTM(),
    "lstm_peephole": cells.LSTMPeephole(),
    "lstm_projection": cells.LSTMProjection(projection=3),
    "lstm_layer_norm": cells.LSTMLayerNorm(),
    "gru": cells.GRU(),
    "gru_reset_before": cells.GRUResetBefore(),
    "mgu_gate_after": cells.MGUGateAfter(),
    "mgu": cells.MGU(),
    "indrnn": cells.IndRNN(),
    "indrnn-tanh": cells.IndRNN(activation="tanh"),
}
#: (T, B, I, H) with ones and twos among them.
ODD_SIZES = ((1, 1, 1, 1), (2, 1, 3, 2), (1, 2, 2, 1), (7, 5, 1, 3), (3, 1, 2, 5))
TOLERANCE = 1e-6


def poison(case: Case) -> None:
    """Fill the workspace with numbers that show wherever they are read before they are written."""
    for array in case.workspace.whole.values():
        array.fill(True if array.dtype == bool else np.nan)


def direction_error(case: Case, seed: int) -> float:
    """The relative error of the derivative along one random direction over all variables."""
    rng = np.random.default_rng(seed)
    poison(case)
    case.loss()
    found = case.backward()
    variables = case.variables()
    directions = {n: rng.standard_normal(a.shape) for n, a in variables.items()}
    expected = sum(float(np.vdot(found[n], d)) for n, d in directions.items())
    step = 1e-6
    losses = []
    for sign in (1, -1):
        for name, direction in directions.items():
            variables[name] += sign * step * direction
        losses.append(case.loss())
        for name, direction in directions.items():
            variables[name] -= sign * step * direction
    # The length of the gradient is the size that a derivative along a random direction has.
    scale = max(np.sqrt(sum(float(np.vdot(g, g)) for g in found.values())), 1e-2)
    return float(abs((losses[0] - losses[1]) / (2 * step) - expected) / scale)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_the_built_in_cells(cell: str, variant: str) -> None:
    check_gradients(make_case(CELLS[cell], VARIANTS[variant]))


@pytest.mark.parametrize("sizes", ODD_SIZES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_at_odd_sizes(cell: str, sizes: tuple[int, int, int, int]) -> None:
    for variant in ("plain", "all"):
        check_gradients(make_case(CELLS[cell], VARIANTS[variant], sizes))


@settings(
    max_examples=300,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    recipe=recipes(),
    options=plan_options(),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4)),
)
def test_gradients_of_random_cells(
    recipe: Recipe, options: PlanOptions, sizes: tuple[int, int, int, int]
) -> None:
    # A kink may lie between the two points of a difference, but a wrong gradient is wrong
    # wherever it is looked at, so one of three points has to agree.
    cell = cell_of(recipe, sizes[2])
    errors = []
    for seed in range(3):
        errors.append(direction_error(make_case(cell, options, sizes, seed), seed))
        if errors[-1] <= TOLERANCE:
            return
    pytest.fail(f"relative errors {errors}")


class StateWithoutPast(Cell):
    """Its second state is a function of the input alone, outside the time loop."""

    states = ("h", "c")

    def widths(self, hidden: int) -> dict[str, int]:
        return {"c": 3}

    def step(self, x, h, c):
        return tanh(affine(x, h)), tanh(x)


class SavedSlices(Cell):
    """Parts of a joined product are needed backward, the whole of it is not."""

    def step(self, x, h):
        a, b = affine(h, gates="ab")
        return tanh(affine(x) + a * a * tanh(b))


class NarrowGate(Cell):
    """A gate of one unit is spread over all units of another."""

    def step(self, x, h):
        a, b = affine(x, h, gates="ab", units=1)
        return tanh(a * h + sigmoid(b) * affine(x))


class UnusedGate(Cell):
    """Nothing uses one of the gates, whose bias is a part of a joined gradient."""

    def step(self, x, h):
        _, b = affine(h, gates="ab")
        return tanh(b + affine(h) + affine(x))


class DelayLine(Cell):
    """States that pass on what other states were."""

    states = ("h", "c", "y")

    def step(self, x, h, c, y):
        return tanh(affine(x, h, y)), h, c


class Swap(Cell):
    states = ("h", "c")

    def step(self, x, h, c):
        return c, tanh(affine(x, h))


class Forgetful(Cell):
    """Nothing of the step before is used, and one parameter is used by nothing."""

    def step(self, x, h):
        affine(h, name="unused")
        return tanh(affine(x))


class Constant(Cell):
    """Reads neither its input nor, in its second state, anything at all."""

    states = ("h", "c")

    def step(self, x, h, c):
        return tanh(affine(h)) * 0.5 + h, 0.0 * c + 1.0


ODD_CELLS = (
    StateWithoutPast,
    SavedSlices,
    NarrowGate,
    UnusedGate,
    DelayLine,
    Swap,
    Forgetful,
    Constant,
)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("cell", ODD_CELLS)
def test_gradients_of_odd_cells(cell: type[Cell], variant: str) -> None:
    check_gradients(make_case(cell(), VARIANTS[variant]))


@pytest.mark.parametrize("variant", ["plain", "all"])
@pytest.mark.parametrize("cell", CELLS)
def test_float32_is_close_to_float64(cell: str, variant: str) -> None:
    sizes = (20, 4, 8, 16)
    single = make_case(CELLS[cell], VARIANTS[variant], sizes, dtype="float32")
    double = make_case(CELLS[cell], VARIANTS[variant], sizes)
    # The same numbers in both: those of float32.
    for name, array in double.variables().items():
        array[...] = single.variables()[name]
    for name in ("d_output", "x"):
        getattr(double, name)[...] = getattr(single, name)
    for mine, theirs in ((double.d_states, single.d_states), (double.extras, single.extras)):
        for name, array in mine.items():
            array[...] = theirs[name]
    (y, _), (expected, _) = single.forward(), double.forward()
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    found, wanted = single.backward(), double.backward()
    for name, gradient in found.items():
        assert gradient.dtype == np.float32, name
        scale = np.abs(wanted[name]).max()
        np.testing.assert_allclose(gradient, wanted[name], rtol=1e-3, atol=1e-4 * scale + 1e-6)


@pytest.mark.parametrize("variant", ["plain", "all"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_workspace_leaves_nothing_behind(cell: str, variant: str) -> None:
    options = VARIANTS[variant]
    fresh = make_case(CELLS[cell], options, (3, 3, 3, 4), seed=1)
    used = make_case(CELLS[cell], options, (6, 3, 3, 4), seed=2)
    used.results()
    again = make_case(CELLS[cell], options, (3, 3, 3, 4), seed=1)
    again.kernel, again.workspace = used.kernel, used.workspace
    assert again.results() == fresh.results()
    assert again.results() == fresh.results()


@pytest.mark.parametrize("cell", CELLS)
def test_masks_of_ones_change_no_bit(cell: str) -> None:
    sizes = (6, 4, 8, 16)
    plain = make_case(CELLS[cell], VARIANTS["plain"], sizes, dtype="float32")
    masked = make_case(CELLS[cell], VARIANTS["masks"], sizes, dtype="float32")
    masked.x, masked.d_output, masked.d_states = plain.x, plain.d_output, plain.d_states
    masked.extras["mask?"][...] = True
    found, expected = masked.results(), plain.results()
    for name, bits in expected.items():
        if not name.startswith("gradient"):
            assert found[name] == bits
        else:  # a zero gradient may have another sign
            assert np.array_equal(*(np.frombuffer(b, "float32") for b in (found[name], bits)))


@pytest.mark.parametrize("variant", ["plain", "all"])
@pytest.mark.parametrize("cell", CELLS)
def test_two_windows_are_one(cell: str, variant: str) -> None:
    """The state carried over gives the bits of one longer window."""
    options, cut = VARIANTS[variant], 4
    whole = make_case(CELLS[cell], options, (7, 4, 8, 16))
    y, after = (whole.forward()[0].copy(), whole.forward()[1])
    states, outputs = whole.states, []
    for steps in (slice(0, cut), slice(cut, None)):
        part = make_case(CELLS[cell], options, (7, 4, 8, 16))
        part.x, part.states = whole.x[steps].copy(), states
        part.extras = {n: a[steps] if a.ndim == 3 else a for n, a in whole.extras.items()}
        output, carried = part.forward()
        outputs.append(output.copy())
        states = {n: a.copy() for n, a in carried.items()}
    assert np.concatenate(outputs).tobytes() == y.tobytes()
    assert all(states[n].tobytes() == after[n].tobytes() for n in after)


@pytest.mark.parametrize("cell", CELLS)
def test_record_is_the_gradient_of_every_output(cell: str) -> None:
    """What a step's state receives is what a window that starts there gives its initial state."""
    case = make_case(CELLS[cell], VARIANTS["plain"])
    case.loss()
    record = np.full_like(case.d_output, np.nan)
    case.backward(record=record)
    output = case.plan.output
    after = {t: {n: a.copy() for n, a in case.kernel.states_after(case.workspace, t).items()}
             for t in range(1, 6)}  # fmt: skip
    for t in range(5):
        later = make_case(CELLS[cell], VARIANTS["plain"])
        # Steps after t, from the state after t; its own output's share comes on top.
        if t < 4:
            later.x, later.d_output = case.x[t + 1 :], case.d_output[t + 1 :]
            later.states, later.d_states = after[t + 1], case.d_states
            later.loss()
            expected = later.backward()[f"state {output}"] + case.d_output[t]
        else:
            expected = case.d_states[output] + case.d_output[t]
        np.testing.assert_allclose(record[t], expected, rtol=1e-9, atol=1e-12)


def test_d_x_is_made_only_when_wanted() -> None:
    case = make_case(CELLS["lstm"])
    case.loss()
    assert case.backward(need_d_x=False)["x"] is None


class AwkwardNames(Cell):
    """Names that the generated source has other uses for."""

    states = ("t", "out", "output", "t_0_2", "t_new", "T")

    def step(self, x, t, out, output, t_0_2, t_new, T):
        a, b = affine(x, t, gates=("lambda", "np"), name="d_t")
        names = ("W_h", "s4", "mask", "ws", "x", "p0_W", "B", "7", "d_t_x", "a-b")
        learned = [parameter(name) for name in names]
        for vector in learned:
            a = tanh(a + vector * t_0_2)
        c = affine(out, name="W") + affine(output, name="W.h")
        d = affine(t_new, T, gates="TB", units=2, name="joined")
        return b * a, tanh(c), tanh(a * t), t_new * d[0] * 0 + T, tanh(out * d[1] * 0 + a), out


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_name_clashes_with_the_generated_source(variant: str) -> None:
    check_gradients(make_case(AwkwardNames(), VARIANTS[variant], (4, 2, 3, 2)))


class AlikeNames(Cell):
    """States whose names are alike where only ASCII letters and digits count."""

    def step(self, x, first, second):
        return tanh(affine(x, first, second)), sigmoid(affine(x, first, second))


@pytest.mark.parametrize("states", [("h", "h_"), ("α", "β"), ("α", "h")])
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_state_is_taken_for_another(variant: str, states: tuple[str, str]) -> None:
    def results(names: tuple[str, ...]) -> list[bytes]:
        options = VARIANTS[variant]
        if options.zoneout:
            options = replace(options, zoneout=tuple(zip(names, (0.2, 0.5), strict=True)))
        cell = type("Named", (AlikeNames,), {"states": names})()
        return list(make_case(cell, options).results().values())

    assert results(states) == results(("h", "c"))


@pytest.mark.parametrize("cell", CELLS)
def test_a_plan_for_evaluation_runs_the_same_forward(cell: str) -> None:
    sizes = (4, 3, 3, 4)
    training = make_case(CELLS[cell], PlanOptions(masked=True, resets=True), sizes)
    options = PlanOptions(masked=True, resets=True, training=False)
    evaluation = make_case(CELLS[cell], options, sizes)
    assert evaluation.forward()[0].tobytes() == training.forward()[0].tobytes()
    assert not evaluation.plan.saved
    with pytest.raises(RuntimeError, match="no backward"):
        evaluation.backward()


def test_zoneout_is_averaged_in_evaluation() -> None:
    """A unit that keeps its value with probability p has p of the old and 1 - p of the new."""
    options = PlanOptions(zoneout=(("h", 0.25),), training=False)
    case = make_case(CELLS["elman"], options, (1, 3, 3, 4))
    plain = make_case(CELLS["elman"], PlanOptions(), (1, 3, 3, 4))
    expected = 0.25 * case.states["h"] + 0.75 * plain.forward()[0][0]
    np.testing.assert_allclose(case.forward()[0][0], expected, rtol=1e-12)


def test_masked_steps_keep_the_state_and_resets_start_anew() -> None:
    options = PlanOptions(masked=True, resets=True, initial="learned")
    case = make_case(CELLS["lstm"], options, (6, 3, 3, 4))
    y = case.forward()[0].copy()
    history = case.workspace.whole["state_h"]
    mask, reset = case.extras["mask?"][..., 0], case.extras["reset?"][..., 0]
    assert mask.any()
    assert reset.any()
    assert not mask.all()
    for t, row in np.ndindex(mask.shape):
        start = case.parameters["initial.h"] if reset[t, row] else history[t, row]
        if not mask[t, row]:
            assert np.array_equal(y[t, row], start)
    # What a row was before its reset makes no difference.
    t, row = next((t, row) for t, row in zip(*np.nonzero(reset & mask), strict=True) if t)
    case.x[:t, row] += 1.0
    case.states["h"][row] = 7.0
    assert np.array_equal(case.forward()[0][t:, row], y[t:, row])
