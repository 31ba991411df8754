"""The network and its layers: gradients, the arena, initial values, padding, the one-layer API."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from training_tools import make_network, make_pass, numpy_choice

from rnnfarm import Cell, Recurrent, affine, sigmoid, tanh
from rnnfarm.builtin import cells, losses
from rnnfarm.equations.graph import Parameter, Symbol
from rnnfarm.equations.plan import make_plan
from rnnfarm.errors import CellError, DataError, DeviceError, JobError, PluginError
from rnnfarm.kernels.case import case_of, disagreement
from rnnfarm.kernels.choose import KernelChoice
from rnnfarm.kernels.interface import Kernel
from rnnfarm.kernels.numpy import NumPyKernel, NumPyWindowKernel
from rnnfarm.nn.arena import Layout
from rnnfarm.nn.initialize import initial_values
from rnnfarm.nn.loss import LossFunction
from rnnfarm.nn.network import LayerSpec, Network, NetworkSpec
from rnnfarm.nn.recurrent import Bidirectional, Recurrence, RecurrentLayer
from rnnfarm.plugins import Registry

T, B, V, F, O, H = 5, 3, 6, 2, 4, 3  # noqa: E741


def layer(cell: str = "GRU", hidden: int = H, **options: Any) -> LayerSpec:
    recurrence = {k: options.pop(k) for k in tuple(options) if k in Recurrence.__annotations__}
    settings = options.pop("settings", {})
    return LayerSpec(getattr(cells, cell)(**settings), hidden, Recurrence(**recurrence), **options)


def spec(*layers: LayerSpec, kind: str = "none", outputs: int = O, **more: Any) -> NetworkSpec:
    tokens = kind in ("embedding", "one_hot")
    return NetworkSpec(kind, V if tokens else F, layers or (layer(),), outputs, **more)


NETWORKS: dict[str, NetworkSpec] = {
    "embedding": spec(kind="embedding", size=3),
    "embedding-tied": spec(kind="embedding", size=H, tied=True, outputs=V),
    "embedding-tied-no-bias": spec(
        kind="embedding", size=H, tied=True, outputs=V, output_bias=False
    ),
    "one-hot": spec(kind="one_hot"),
    "linear": spec(kind="linear", size=3),
    "values": spec(),
    "no-output-bias": spec(output_bias=False),
    "input-dropout": spec(kind="embedding", size=3, input_dropout=0.3),
    "dropout": spec(layer(dropout=0.4), layer("Elman", dropout=0.2)),
    "learned-initial": spec(layer("LSTM", initial="learned")),
    "random-initial": spec(layer("LSTM", initial="random")),
    "zoneout": spec(layer("LSTM", zoneout={"h": 0.2, "c": 0.5})),
    "recurrent-dropout": spec(layer("LSTM", recurrent_dropout=0.3)),
    "two-stages": spec(layer("GRUResetBefore"), layer("Jordan")),
    "projection": spec(layer("LSTMProjection", settings={"projection": 2})),
    "bidirectional": spec(layer(bidirectional=True)),
    "bidirectional-options": spec(
        layer(
            "LSTM", bidirectional=True, initial="learned", zoneout=0.1, recurrent_dropout=0.2,
            dropout=0.1,
        ),
        layer(bidirectional=True),
    ),
    "residual": spec(layer(), layer(residual=True), layer("Elman", residual=True)),
    "residual-first": spec(layer(hidden=F, residual=True)),
    "residual-bidirectional": spec(
        layer(hidden=4), layer(hidden=2, bidirectional=True, residual=True)
    ),
    "stack": spec(
        layer("LSTM", dropout=0.2), layer("GRU", residual=True, initial="learned"), layer("MGU"),
        kind="embedding", size=3, input_dropout=0.1,
    ),
}  # fmt: skip


class Case:
    """A network with numbers for one window, and the loss of it as a function of the arena."""

    def __init__(self, network: NetworkSpec, flags: str, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.network = make_network(network)
        self.arena = self.network.layout.initialized(seed, "float64")
        self.arena += 0.3 * random.standard_normal(self.arena.size)
        tokens = network.input in ("embedding", "one_hot")
        self.x = random.integers(0, V, (T, B)) if tokens else random.standard_normal((T, B, F))
        self.loss = LossFunction(losses.CrossEntropy(), network.outputs, 0, "float64")
        self.target = random.integers(0, network.outputs, (T, B))
        self.valid = random.random((T, B)) < 0.8
        both_ways = any(layer.bidirectional for layer in network.layers)
        lengths = random.permutation([T, 1, 3])
        padding = np.arange(T)[:, None] < lengths
        self.mask = self.reset = None
        if "masks" in flags:
            self.mask = padding if both_ways else random.random((T, B)) < 0.7
            self.valid &= self.mask
        if "resets" in flags:
            self.reset = np.zeros((T, B), bool) if both_ways else random.random((T, B)) < 0.3
            self.reset[0] |= both_ways
        self.states = {
            name: {s: random.standard_normal(a.shape) for s, a in states.items()}
            for name, states in self.network.zero_states(B).items()
        }

    def run(self) -> tuple[float, np.ndarray]:
        """The loss, and its gradient in the arena's layout."""
        layout = self.network.layout
        run = make_pass(self.mask, self.reset, self.states, seed=3, step=5)
        output, backward = self.network.forward(layout.views(self.arena), self.x, run)
        d_output = np.empty_like(output)
        total = self.loss(output, self.target, self.valid, d_output).total
        gradient = np.full_like(self.arena, np.nan)
        backward(d_output, layout.views(gradient), None)
        return total, gradient

    def differences(self, step: float = 1e-5) -> np.ndarray:
        result = np.empty_like(self.arena)
        for place, value in enumerate(self.arena):
            self.arena[place] = value + step
            above = self.run()[0]
            self.arena[place] = value - step
            result[place] = (above - self.run()[0]) / (2 * step)
            self.arena[place] = value
        return result


@pytest.mark.parametrize("flags", ["", "masks resets"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_whole_gradient_agrees_with_differences(name: str, flags: str) -> None:
    case = Case(NETWORKS[name], flags)
    found, expected = case.run()[1], case.differences()
    views, wanted = case.network.layout.views(found), case.network.layout.views(expected)
    for parameter, gradient in views.items():
        error = np.abs(gradient - wanted[parameter]).max()
        assert error <= 1e-6 * max(np.abs(wanted[parameter]).max(), 1e-3), (parameter, error)
    assert np.abs(found).max() > 0.01


@pytest.mark.parametrize("name", NETWORKS)
def test_a_part_with_parameters_learns(name: str) -> None:
    """Every parameter has a gradient, so none was left out of the backward."""
    case = Case(NETWORKS[name], "masks resets", seed=1)
    views = case.network.layout.views(case.run()[1])
    still = [name for name, gradient in views.items() if not np.abs(gradient).max() > 0]
    # Elman's and the layer-normalised cells' all parts do learn here.
    assert not still


# -- the arena and the initial values --------------------------------------------------------------


def test_the_arena_holds_every_parameter_once_weights_that_decay_first() -> None:
    network = make_network(NETWORKS["stack"])
    layout = network.layout
    arena = np.arange(layout.size, dtype=np.float64)
    views = layout.views(arena)
    assert np.array_equal(np.sort(np.concatenate([v.ravel() for v in views.values()])), arena)
    assert all(np.shares_memory(view, arena) for view in views.values())
    assert {name: view.shape for name, view in views.items()} == {
        name: parameter.shape for name, parameter in layout.parameters.items()
    }
    (start, border, decays, _), (_, stop, decays_not, _) = layout.segments
    assert (start, stop, decays, decays_not) == (0, layout.size, True, False)
    for name, view in views.items():
        is_bias = "bias" in name or "initial" in name
        assert (view.min() >= border) == is_bias, name
        assert (view.max() < border) != is_bias, name


def test_segments_leave_out_what_is_empty() -> None:
    weight = Parameter("w", (2, 3), ("zeros",), decay=True)
    bias = Parameter("b", (3,), ("zeros",), decay=False)
    assert Layout.of({"w": weight}).segments == [(0, 6, True, None)]
    assert Layout.of({"b": bias}).segments == [(0, 3, False, None)]
    assert list(Layout.of({"b": bias, "w": weight}).parameters) == ["w", "b"]


def test_a_bounded_parameter_is_a_segment_of_its_own() -> None:
    """In its place: a bound changes nothing in the layout of an arena."""
    network = make_network(spec(*[LayerSpec(cells.IndRNN(reach=1), 4)] * 2))
    layout = network.layout
    bounded = [s for s in layout.segments if s.bound is not None]
    assert [s.bound for s in bounded] == [(-2.0, 2.0)] * 2
    assert [s.start for s in bounded] == [layout.starts[f"layer{k}.u"] for k in (1, 2)]
    assert [s.stop - s.start for s in bounded] == [4, 4]
    free = make_network(spec(*[LayerSpec(cells.IndRNN(), 4)] * 2)).layout
    assert free.starts == layout.starts
    edges = [0, *(s.stop for s in layout.segments)]
    assert [s.start for s in layout.segments] == edges[:-1]
    assert edges[-1] == layout.size


def values(init: str | tuple[str, ...], *shape: int, name: str = "w", seed: int = 0) -> np.ndarray:
    inits = (init,) if isinstance(init, str) else init
    return initial_values(Parameter("w", shape, inits, decay=True), name, seed)


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3)])
def test_orthogonal(shape: tuple[int, int]) -> None:
    w = values("orthogonal", *shape)
    small = w @ w.T if shape[0] <= shape[1] else w.T @ w
    assert np.allclose(small, np.eye(min(shape)), atol=1e-14)
    assert np.allclose(values("orthogonal:2", *shape), 2 * w)


def test_other_initialisers() -> None:
    assert not values("zeros", 3).any()
    assert (values("ones", 3) == 1).all()
    assert (values("constant:0.5", 3) == 0.5).all()
    assert np.array_equal(values("identity", 3, 3), np.eye(3))
    limit = np.sqrt(6 / (40 + 60))
    glorot = values("glorot_uniform", 40, 60)
    assert 0.98 * limit < np.abs(glorot).max() <= limit
    assert np.std(values("he_normal", 50, 200)) == pytest.approx(np.sqrt(2 / 50), rel=0.03)
    assert np.std(values("normal:3", 100, 100)) == pytest.approx(3, rel=0.03)
    assert 0.098 < np.abs(values("uniform:0.1", 1000)).max() <= 0.1
    assert np.array_equal(values("linspace:3:6", 4), [3, 4, 5, 6])
    chrono = np.exp(values("chrono:100", 5000))  # uniform in [1, 99]
    assert chrono.min() >= 1
    assert chrono.max() <= 99
    assert chrono.mean() == pytest.approx(50, rel=0.03)


def test_a_bias_may_start_gate_by_gate() -> None:
    class Spread(Cell):
        def step(self, x: Symbol, h: Symbol) -> Symbol:
            f, g = affine(x, h, gates="fg", bias={"f": "linspace:3:6", "g": -1})
            return sigmoid(f) * h + affine(x, bias="ones") * tanh(g)

    start = Recurrent(Spread(), 2, 4, dtype="float64").init(0)
    assert start["W.bias"].tolist() == [3, 4, 5, 6, -1, -1, -1, -1]
    assert start["W2.bias"].tolist() == [1, 1, 1, 1]


def test_gates_are_initialised_one_by_one() -> None:
    """A joined matrix has the widths of one gate, and each gate its own initialiser."""
    joined = values(("glorot_uniform", "zeros", "glorot_uniform"), 40, 180)
    limit = np.sqrt(6 / (40 + 60))
    for part, zero in zip(np.split(joined, 3, axis=1), (False, True, False), strict=True):
        largest = np.abs(part).max()
        assert largest == 0 if zero else 0.98 * limit < largest <= limit
    assert not np.array_equal(joined[:, :60], joined[:, 120:])
    for part in np.split(values(("orthogonal",) * 4, 8, 32), 4, axis=1):
        assert np.allclose(part @ part.T, np.eye(8), atol=1e-14)


def test_cells_start_as_the_field_has_them() -> None:
    lstm = Recurrent("lstm", 5, 8, dtype="float64")
    start = lstm.init(0)
    biases = [v for name, v in start.items() if v.ndim == 1]
    assert len(biases) == 1
    forget = np.split(biases[0], 4)["ifgo".index("f")]
    assert (forget == 1).all()
    assert biases[0].sum() == 8
    matrices = {name: v for name, v in start.items() if v.ndim == 2}
    (recurrent,) = (v for v in matrices.values() if v.shape == (8, 32))
    for gate in np.split(recurrent, 4, axis=1):
        assert np.allclose(gate @ gate.T, np.eye(8), atol=1e-12)
    relu = Recurrent(cells.Elman(activation="relu"), 5, 8, dtype="float64").init(0)
    assert any(np.array_equal(v, np.eye(8)) for v in relu.values())


@pytest.mark.parametrize(
    ("init", "shape", "sentence"),
    [
        ("orthogonl", (3, 3), "did you mean 'orthogonal'?"),
        ("normal:wide", (3, 3), "'normal:wide' is written normal:NUMBER"),
        ("linspace:3", (3,), "'linspace:3' is written linspace:NUMBER:NUMBER"),
        ("zeros:1", (3,), "'zeros:1' is written zeros"),
        ("orthogonal", (3,), "is for matrices"),
        ("identity", (3,), "is for matrices"),
    ],
)
def test_wrong_initialisers(init: str, shape: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(CellError, match=sentence.replace("?", r"\?")) as error:
        values(init, *shape)
    assert "'w'" in str(error.value)
    assert error.value.exit_code == 3


def test_initial_values_depend_on_seed_and_name_alone() -> None:
    a = make_network(NETWORKS["stack"]).layout
    assert a.initialized(1, "float32").tobytes() == a.initialized(1, "float32").tobytes()
    assert a.initialized(1, "float32").tobytes() != a.initialized(2, "float32").tobytes()
    assert not np.array_equal(values("normal:1", 9, name="a"), values("normal:1", 9, name="b"))
    # A layer that is added above changes nothing below.
    small, large = (make_network(spec(*[layer()] * n)).layout for n in (1, 2))
    below, of_both = (
        small.views(small.initialized(1, "float64")),
        large.views(large.initialized(1, "float64")),
    )
    assert all(np.array_equal(below[n], of_both[n]) for n in below if n.startswith("layer1"))


def test_a_small_seed_and_a_large_one() -> None:
    layout = make_network(NETWORKS["values"]).layout
    assert np.isfinite(layout.initialized(2**63 - 1, "float32")).all()


# -- dropout ---------------------------------------------------------------------------------------


def dropped(training: bool = True, **key: int) -> np.ndarray:
    from rnnfarm.nn.dense import Dropout

    x = np.ones((40, 50, 10))
    return Dropout("d", 10, 0.3).forward({}, x, make_pass(training=training, **key))[0].copy()


def test_dropout_keeps_the_mean_and_is_off_in_evaluation() -> None:
    y = dropped()
    assert set(np.unique(y)) == {0.0, 1 / 0.7}
    assert y.mean() == pytest.approx(1, abs=0.02)
    assert (dropped(training=False) == 1).all()


def test_draws_depend_on_seed_step_and_lane() -> None:
    first = dropped(seed=1, step=2, lane=3)
    assert np.array_equal(first, dropped(seed=1, step=2, lane=3))
    for other in ({"seed": 2, "step": 2, "lane": 3}, {"seed": 1, "step": 3, "lane": 3},
                  {"seed": 1, "step": 2, "lane": 0}):  # fmt: skip
        assert not np.array_equal(first, dropped(**other))


# -- padding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["embedding", "values", "learned-initial", "two-stages", "bidirectional", "residual",
     "residual-bidirectional"],
)  # fmt: skip
def test_an_example_gives_the_same_alone_and_in_padded_batches(name: str) -> None:
    network = make_network(NETWORKS[name])
    arena = network.layout.initialized(0, "float64")
    arena += 0.3 * np.random.default_rng(2).standard_normal(arena.size)
    parameters = network.layout.views(arena)
    loss = LossFunction(losses.CrossEntropy(), NETWORKS[name].outputs, 0, "float64")
    random = np.random.default_rng(3)
    tokens = NETWORKS[name].input == "embedding"
    lengths = [7, 4, 1]
    x = random.integers(0, V, (7, 3)) if tokens else random.standard_normal((7, 3, F))
    target = random.integers(0, NETWORKS[name].outputs, (7, 3))

    def run(rows: slice, steps: int, mask: np.ndarray | None) -> tuple[np.ndarray, float, Any]:
        reset = np.zeros((steps, len(range(3)[rows])), bool)
        reset[0] = True
        valid = np.ones_like(reset) if mask is None else mask
        output, backward = network.forward(parameters, x[:steps, rows], make_pass(mask, reset))
        output, d_output = output.copy(), np.empty_like(output)
        total = loss(output, target[:steps, rows], valid, d_output).total
        gradient = np.zeros_like(arena)
        backward(d_output, network.layout.views(gradient), None)
        return output, total, gradient

    together, total, gradient = run(slice(0, 3), 7, np.arange(7)[:, None] < lengths)
    sums: list[Any] = [0.0, np.zeros_like(arena)]
    for row, length in enumerate(lengths):
        alone = run(slice(row, row + 1), length, None)
        assert np.abs(alone[0][:, 0] - together[:length, row]).max() <= 1e-14
        sums = [sums[0] + alone[1], sums[1] + alone[2]]
    assert total == pytest.approx(sums[0], rel=1e-14)
    assert np.abs(gradient - sums[1]).max() <= 1e-13 * np.abs(gradient).max()


@pytest.mark.parametrize("initial", ["zero", "learned"])
def test_the_reverse_direction_starts_at_each_rows_last_step(initial: str) -> None:
    choice, options = numpy_choice(), Recurrence(initial)
    ahead, back = (
        RecurrentLayer(name, cells.LSTM(), F, H, options, choice) for name in ("l", "l.reverse")
    )
    both = Bidirectional(ahead, back)
    layout = Layout.of(both.parameters)
    random = np.random.default_rng(0)
    parameters = layout.views(random.standard_normal(layout.size))
    x, lengths = random.standard_normal((6, 3, F)), [6, 2, 5]
    reset = np.zeros((6, 3), bool)
    reset[0] = True
    output, _ = both.forward(parameters, x, make_pass(np.arange(6)[:, None] < lengths, reset))
    alone = Recurrent(cells.LSTM(), F, H, "float64", initial=initial)
    mine = {name: parameters[f"l.reverse.{name}"] for name in alone.plan.parameters}
    for row, length in enumerate(lengths):
        y, _, _ = alone.forward(mine, x[:length, row : row + 1][::-1])
        assert np.abs(output[:length, row, H:] - y[::-1, 0]).max() <= 1e-14
        if initial == "learned":  # which differs from zero
            zeros = {name: np.zeros((1, H)) for name in ("h", "c")}
            assert not np.allclose(alone.forward(mine, x[:1, :1], zeros)[0], alone.forward(
                mine, x[:1, :1])[0])  # fmt: skip


def test_gradient_records_of_both_directions_are_in_the_order_of_time() -> None:
    network = make_network(NETWORKS["bidirectional"])
    parameters = network.layout.views(network.layout.initialized(0, "float64"))
    x = np.random.default_rng(0).standard_normal((T, B, F))
    _, backward = network.forward(parameters, x, make_pass())
    d_output = np.zeros((T, B, O))
    d_output[-1] = 1.0
    records: dict[str, np.ndarray] = {}
    scratch = network.layout.views(np.empty(network.layout.size))
    backward(d_output, scratch, records)
    # The loss of the last step reaches back through every forward state, and through only one
    # state of the direction that begins there.
    assert all(np.abs(step).max() > 0 for step in records["layer1"])
    assert [bool(np.abs(step).max() > 0) for step in records["layer1.reverse"]] == [
        False, False, False, False, True,
    ]  # fmt: skip


# -- errors ----------------------------------------------------------------------------------------


def test_layers_that_do_not_fit() -> None:
    with pytest.raises(JobError, match="its output is 5 wide where its input is 3 wide"):
        make_network(spec(layer(), layer(hidden=5, residual=True)))
    with pytest.raises(JobError, match="the embedding is 2 wide and the last layer 3"):
        make_network(spec(kind="embedding", size=2, tied=True, outputs=V))
    with pytest.raises(JobError, match="needs a size"):
        make_network(spec(kind="embedding"))
    with pytest.raises(JobError, match=r"zoneout names the states \['k'\]"):
        make_network(spec(layer(zoneout={"k": 0.5})))


def test_a_token_that_is_not_there() -> None:
    network = make_network(NETWORKS["embedding"])
    with pytest.raises(DataError, match="token 6, and its vocabulary ends at 5"):
        network.check(np.full((1, 1), 6))
    network.check(np.full((1, 1), 5))


# -- one layer on plain arrays ---------------------------------------------------------------------


def test_recurrent_runs_forwards_and_backwards() -> None:
    lstm = Recurrent("lstm", 3, 4, "float64")
    random = np.random.default_rng(0)
    params, x, d_y = (
        lstm.init(0),
        random.standard_normal((5, 2, 3)),
        random.standard_normal((5, 2, 4)),
    )
    y, states, saved = lstm.forward(params, x)
    assert y.shape == (5, 2, 4)
    assert np.array_equal(y[-1], states["h"])
    d_x, gradients, d_states = lstm.backward(saved, d_y)
    again = lstm.backward(saved, d_y)
    assert np.array_equal(d_x, again[0])
    assert gradients.keys() == params.keys()
    bump = np.zeros_like(x)
    bump[2, 1, 0] = 1e-6
    above, below = (float((lstm.forward(params, x + s * bump)[0] * d_y).sum()) for s in (1, -1))
    assert d_x[2, 1, 0] == pytest.approx((above - below) / 2e-6, rel=1e-6)
    assert {k: v.shape for k, v in d_states.items()} == {"h": (2, 4), "c": (2, 4)}


def test_two_forwards_of_one_layer_do_not_disturb_each_other() -> None:
    gru = Recurrent("gru", 3, 4)
    params, ones = gru.init(0), np.ones((5, 2, 3))
    y, states, saved = gru.forward(params, ones)
    kept = y.copy(), {k: v.copy() for k, v in states.items()}
    expected = gru.backward(saved, ones[..., :1].repeat(4, -1))[0]
    gru.forward(params, -ones)
    assert np.array_equal(y, kept[0])
    assert np.array_equal(states["h"], kept[1]["h"])
    assert np.array_equal(gru.backward(saved, ones[..., :1].repeat(4, -1))[0], expected)


def test_recurrent_carries_states_and_their_gradients_between_windows() -> None:
    layer = Recurrent("lstm", 3, 4, "float64")
    random = np.random.default_rng(0)
    params, x = layer.init(0), random.standard_normal((6, 2, 3))
    d_y = random.standard_normal((6, 2, 4))
    whole, _, saved = layer.forward(params, x)
    d_x, gradients, _ = layer.backward(saved, d_y)
    first, states, saved1 = layer.forward(params, x[:2])
    second, _, saved2 = layer.forward(params, x[2:], states)
    assert np.abs(np.concatenate([first, second]) - whole).max() <= 1e-15
    d_x2, gradients2, d_states = layer.backward(saved2, d_y[2:])
    d_x1, gradients1, _ = layer.backward(saved1, d_y[:2], d_states)
    assert np.allclose(np.concatenate([d_x1, d_x2]), d_x, atol=1e-14)
    for name, gradient in gradients.items():
        assert np.allclose(gradients1[name] + gradients2[name], gradient, atol=1e-13)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ({"x": np.zeros((5, 2, 4))}, r"x has shape \(5, 2, 4\); it must be \(T, B, 3\)"),
        ({"x": np.zeros((5, 3))}, r"x has shape \(5, 3\)"),
        ({"x": np.zeros((0, 2, 3))}, "none of them 0"),
        ({"mask": np.ones((5, 3))}, r"mask has shape \(5, 3\); it must be \(5, 2\)"),
        ({"reset": np.ones(5)}, r"reset has shape \(5,\)"),
        ({"state": {"h": np.zeros((2, 4))}}, r"the cell's are \['h', 'c'\]"),
        (
            {"state": {"h": np.zeros((2, 4)), "c": np.zeros((2, 3))}},
            r"'c' has shape \(2, 3\); it must be \(2, 4\)",
        ),
    ],
)
def test_recurrent_names_what_does_not_fit(call: Mapping[str, Any], sentence: str) -> None:
    layer = Recurrent("lstm", 3, 4)
    with pytest.raises(JobError, match=sentence):
        layer.forward(layer.init(0), **{"x": np.zeros((5, 2, 3)), **call})


def test_recurrent_names_parameters_and_gradients_that_do_not_fit() -> None:
    layer = Recurrent(cells.LSTM, 3, 4)
    params, x = layer.init(0), np.zeros((5, 2, 3))
    with pytest.raises(JobError, match=r"'W.bias' has \(3,\); it must be \(16,\)"):
        layer.forward({**params, "W.bias": np.zeros(3)}, x)
    with pytest.raises(JobError, match=r"'W\.x' has no shape, being absent"):
        layer.forward({}, x)
    with pytest.raises(JobError, match=r"states tuple were given; the cell's are \['h', 'c'\]"):
        layer.forward(params, x, (np.zeros((2, 4)), np.zeros((2, 4))))  # type: ignore[arg-type]
    _, _, saved = layer.forward(params, x)
    for steps in (4, 6):
        with pytest.raises(JobError, match=rf"d_output has shape \({steps}, 2, 4\).*\(5, 2, 4\)"):
            layer.backward(saved, np.ones((steps, 2, 4)))


def test_an_absent_gradient_of_a_state_is_zero() -> None:
    layer = Recurrent("lstm", 3, 4, "float64")
    _, _, saved = layer.forward(layer.init(0), np.ones((5, 2, 3)))
    d_y, one = np.zeros((5, 2, 4)), np.ones((2, 4))
    part = layer.backward(saved, d_y, {"c": one})[0]
    assert np.array_equal(part, layer.backward(saved, d_y, {"c": one, "h": 0 * one})[0])
    assert part.any()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"cell": None}, "cell: None is no cell; give one"),
        ({"inputs": 0}, "inputs: 0 is no width"),
        ({"hidden": 2.5}, "hidden: 2.5 is no width"),
        ({"dtype": "float16"}, "dtype: 'float16'; give 'float32'"),
    ],
)
def test_recurrent_refuses_what_is_no_layer(arguments: Mapping[str, Any], sentence: str) -> None:
    with pytest.raises(JobError, match=sentence):
        Recurrent(**{"cell": "lstm", "inputs": 3, "hidden": 4, **arguments})


def test_recurrent_takes_a_known_cell_and_kernel() -> None:
    with pytest.raises(Exception, match="did you mean 'lstm'"):
        Recurrent("lstn", 3, 4)
    with pytest.raises(JobError, match="there is no kernel 'nump'; did you mean 'numpy'"):
        Recurrent("lstm", 3, 4, kernel="nump")


# -- the choice of a kernel ------------------------------------------------------------------------


class Twisted(NumPyWindowKernel):
    """Right, but for what ``wrong`` names."""

    wrong = ""

    def forward(self, *args: Any) -> Any:
        if self.wrong == "raises":
            raise FloatingPointError("no such luck")
        y = super().forward(*args)
        return y[:, :, :-1] if self.wrong == "shape" else y + 1e-3 * (self.wrong == "output")

    def backward(self, workspace: Any, d_output: Any, d_states: Any, gradients: Any, *rest: Any,
                 **more: Any) -> Any:  # fmt: skip
        if self.wrong == "final states":
            d_states = {}
        result = super().backward(workspace, d_output, d_states, gradients, *rest, **more)
        if self.wrong == "gradient":
            next(iter(gradients.values()))[0] *= 1.1
        if self.wrong == "nan":
            next(iter(gradients.values()))[0] = np.nan
        return result

    def states_after(self, workspace: Any, step: int) -> Any:
        return super().states_after(workspace, step - (self.wrong == "states"))


def foreign(wrong: str = "", priority_: int = 5) -> NumPyKernel:
    class Foreign(NumPyKernel):
        priority = priority_

        def refusal(self, plan: Any, device: str, dtype: str) -> str | None:
            if wrong == "refusal":
                raise RuntimeError("no driver")
            return "it takes nothing" if wrong == "unfit" else None

        def build(self, plan: Any, dtype: str) -> Any:
            if wrong == "build":
                raise OSError("no compiler")
            kernel = Twisted(plan, dtype)
            kernel.wrong = wrong
            return kernel

    return Foreign()


def chosen(wrong: str, wanted: str = "auto", **more: Any) -> str:
    kernels = {"numpy": NumPyKernel(), "foreign": foreign(wrong)}
    choice = KernelChoice(kernels, wanted, dtype="float64", **more)
    return Network(spec(), choice).kernels["layer1"]


def test_the_kernel_of_highest_priority_is_taken() -> None:
    assert chosen("") == "foreign"
    assert chosen("", wanted="numpy") == "numpy"
    assert chosen("unfit") == "numpy"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("output", "its output differs from the reference by 1.0e-03"),
        ("shape", "its output has shape"),
        ("gradient", "its gradient of"),
        ("nan", "its gradient of"),
        ("states", "its state h after"),
        ("final states", "its gradient of"),
        ("raises", "it failed its self-check with FloatingPointError: no such luck"),
        ("build", "it failed with OSError: no compiler"),
        ("refusal", "it failed with RuntimeError: no driver"),
    ],
)
def test_a_wrong_kernel_is_named_and_not_used(
    wrong: str, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "rnnfarm"):
        assert chosen(wrong) == "numpy"
    (record,) = caplog.records
    assert "'foreign' is not used for GRU" in record.getMessage()
    assert sentence in record.getMessage()
    with pytest.raises(DeviceError, match="no kernel can run GRU"):
        chosen(wrong, wanted="foreign")


def test_a_device_without_a_kernel() -> None:
    with pytest.raises(DeviceError, match=r"training\.device = 'cuda' cannot be had") as e:
        Network(spec(), KernelChoice({"numpy": NumPyKernel()}, device="cuda"))
    assert e.value.exit_code == 4


def test_a_kernel_that_cannot_be_made_harms_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def get(registry: Registry, kind: str, name: str) -> Any:
        if name == "gone":
            raise PluginError("kernel 'gone' does not load")
        return {"half": Kernel, "numpy": NumPyKernel}[name]

    monkeypatch.setattr(Registry, "names", lambda registry, kind: ["gone", "half", "numpy"])
    monkeypatch.setattr(Registry, "get", get)
    with caplog.at_level(logging.WARNING, "rnnfarm"):
        assert Recurrent(cells.Elman(), 2, 3).kernel == "numpy"
    first, second = (record.getMessage() for record in caplog.records)
    assert first == "kernel 'gone' does not load"
    assert second.startswith("the kernel 'half' cannot be made: TypeError: Can't instantiate")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"initial": "zeros"}, "initial = 'zeros'; did you mean 'zero'?"),
        ({"zoneout": 1.5}, "probabilities from 0 to below 1, not 1.5"),
        ({"zoneout": {"h": -0.1}}, "probabilities from 0 to below 1, not -0.1"),
        ({"recurrent_dropout": 1.0}, "probabilities from 0 to below 1, not 1.0"),
    ],
)
def test_an_odd_recurrence_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(JobError, match=re.escape(sentence)):
        Recurrent("lstm", 3, 4, **options)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_an_odd_seed_is_refused(seed: int) -> None:
    with pytest.raises(JobError, match=f"seed = {seed}: a seed is a whole number"):
        Recurrent("lstm", 3, 4).init(seed)


@pytest.mark.parametrize("hidden", [64, 300])
def test_the_self_check_of_a_wide_cell_is_calm(hidden: int) -> None:
    """Two kernels that round differently agree: here the same one, fed with 1 part in 10⁷ more."""
    plan = make_plan(cells.Jordan(), hidden, hidden)
    found, expected = (
        case_of(NumPyKernel().build(plan, "float32"), dtype="float32") for _ in range(2)
    )
    found.x = found.x * np.float32(1 + 1e-7)
    assert disagreement(found.arrays(), expected.arrays(), 2e-5) is None
