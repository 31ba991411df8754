"""Truncated backpropagation through time: whole sequences, carried states, overlapping windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_tools import VOCABULARY, make_network, write_tokens, write_values

from rnnfarm import Recurrent
from rnnfarm.builtin import cells, losses
from rnnfarm.data.dataset import Dataset
from rnnfarm.data.examples import Examples
from rnnfarm.data.streams import Streams
from rnnfarm.data.window import Windows
from rnnfarm.nn.loss import LossFunction
from rnnfarm.nn.network import LayerSpec, Network, NetworkSpec
from rnnfarm.nn.recurrent import Recurrence
from rnnfarm.training.tbptt import Lane

Arrays = dict[str, np.ndarray]
CELLS = {
    "elman": cells.Elman(),
    "jordan": cells.Jordan(),
    "lstm": cells.LSTM(),
    "gru": cells.GRU(),
    "gru_reset_before": cells.GRUResetBefore(),
}


def network_of(*parts: Any, dtype: str = "float64", initial: str = "zero") -> Network:
    layers = [LayerSpec(cell, 4, Recurrence(initial)) for cell in parts]
    return make_network(NetworkSpec("embedding", VOCABULARY, layers, VOCABULARY, size=3), dtype)


def lane_of(network: Network, rows: int, dtype: str = "float64") -> tuple[Lane, Arrays]:
    loss = LossFunction(losses.CrossEntropy(), VOCABULARY, 0, dtype)
    arena = network.layout.initialized(0, dtype)
    return Lane(0, slice(0, rows), network, loss), dict(network.layout.views(arena))


def streams(data: Dataset, batch: int, window: int, stride: int | None = None) -> Streams:
    return Streams(data.split("train"), input="tokens", target="next", batch=batch, window=window,
                   stride=stride)  # fmt: skip


def softmax_loss(logits: np.ndarray, target: np.ndarray, valid: np.ndarray) -> tuple[float, Any]:
    """Cross-entropy and its gradient, written without the project's losses."""
    shifted = logits - logits.max(-1, keepdims=True)
    exp = np.exp(shifted)
    total = exp.sum(-1, keepdims=True)
    picked = np.take_along_axis(shifted, target[..., None], -1)
    loss = ((np.log(total) - picked)[..., 0] * valid).sum()
    gradient = exp / total
    np.put_along_axis(gradient, target[..., None], np.take_along_axis(
        gradient, target[..., None], -1) - 1, -1)  # fmt: skip
    return float(loss), gradient * valid[..., None]


def full_bptt(
    parts: list[Any], parameters: Arrays, x: np.ndarray, loss: Any, reset: np.ndarray | None
) -> tuple[float, Arrays]:
    """Backpropagation through a whole sequence, from plain products and one-layer recurrences."""
    steps, rows = x.shape
    value = parameters["input.weight"][x]  # (T, B, I)
    layers = []
    for number, cell in enumerate(parts, 1):
        layer = Recurrent(cell, value.shape[-1], 4, str(value.dtype), "numpy")
        own = {name: parameters[f"layer{number}.{name}"] for name in layer.plan.parameters}
        value, _, saved = layer.forward(own, value, reset=reset)
        layers.append((f"layer{number}", layer, saved))
    weight = parameters["output.weight"]
    logits = (value.reshape(-1, 4) @ weight).reshape(steps, rows, -1) + parameters["output.bias"]
    total, d_logits = loss(logits)
    d_flat = d_logits.reshape(-1, VOCABULARY)
    gradients = {
        "output.weight": value.reshape(-1, 4).T @ d_flat,
        "output.bias": d_logits.sum(1).sum(0),
    }
    d_value = (d_flat @ weight.T).reshape(steps, rows, 4)
    for name, layer, saved in reversed(layers):
        d_value, mine, _ = layer.backward(saved, d_value)
        gradients |= {f"{name}.{key}": gradient for key, gradient in mine.items()}
    embedding = np.zeros_like(parameters["input.weight"])
    for token in range(VOCABULARY):
        for step, row in np.argwhere(x == token):
            embedding[token] += d_value[step, row]
    return total, gradients | {"input.weight": embedding}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("names", [*([name] for name in CELLS), ["lstm", "gru"]], ids="-".join)
@pytest.mark.parametrize("lengths", [[24], [5, 1, 11, 7]], ids=["one", "resets"])
def test_a_window_over_the_whole_sequence_is_full_bptt(
    tmp_path: Path, names: list[str], lengths: list[int], dtype: str
) -> None:
    parts = [CELLS[name] for name in names]
    windows = streams(write_tokens(tmp_path / "d", {"train": lengths}), batch=2, window=12)
    network = network_of(*parts, dtype=dtype)
    lane, parameters = lane_of(network, 2, dtype)
    sums = lane.train(windows, 0, parameters, seed=0)
    assert sums.gradient is not None
    window = windows.read(0)

    def projects_loss(logits: np.ndarray) -> tuple[float, np.ndarray]:
        gradient = np.empty_like(logits)
        return lane.loss(logits, window.target, window.valid, gradient).total, gradient

    total, gradients = full_bptt(parts, parameters, window.x, projects_loss, window.reset)
    views = network.layout.views(sums.gradient)
    assert views.keys() == gradients.keys()
    assert sums.loss == total
    for name, view in views.items():
        if name == "input.weight":  # its sums over steps have no fixed order outside
            assert np.allclose(view, gradients[name], rtol=1e-5 if dtype == "float32" else 1e-13)
        else:
            assert view.tobytes() == np.ascontiguousarray(gradients[name]).tobytes(), name
    exact, _ = softmax_loss(full_logits(lane, windows, parameters), window.target, window.valid)
    assert sums.loss == pytest.approx(exact, rel=1e-6 if dtype == "float32" else 1e-14)


def full_logits(lane: Lane, windows: Windows, parameters: Arrays) -> np.ndarray:
    run = lane.start(lane.given(windows.read(0)), 0, 0, windows.stride, training=False)
    return lane.network.forward(parameters, windows.read(0).x, run)[0].copy()


def outputs(windows: Windows, network: Network, count: int) -> tuple[np.ndarray, Lane]:
    """The outputs of a lane over ``count`` windows with carried states, the last steps of each."""
    lane, parameters = lane_of(network, windows.batch)
    given = []
    for n in range(count):
        window = windows.read(n)
        run = lane.start(lane.given(window), n, 0, windows.stride, training=False)
        output, _ = network.forward(parameters, window.x, run)
        given.append(output[-windows.stride :].copy())
        lane.states = run.new_states
    return np.concatenate(given), lane


@pytest.mark.parametrize("initial", ["zero", "learned"])
@pytest.mark.parametrize("name", CELLS)
def test_windows_with_carried_state_are_one_window(tmp_path: Path, name: str, initial: str) -> None:
    data = write_tokens(tmp_path / "d", {"train": [5, 1, 11, 7]})
    network = network_of(CELLS[name], CELLS["lstm"], initial=initial)
    whole, lane = outputs(streams(data, 2, 12), network, 1)
    for window, stride in ((1, 1), (2, 2), (4, 4), (6, 6), (6, 2), (12, 4), (5, 3), (4, 1)):
        parts, other = outputs(streams(data, 2, window, stride), network, 12 // stride)
        assert np.abs(parts - whole).max() <= 1e-14, (window, stride)
        if window == stride:
            for layer, states in lane.states.items():
                for state, array in states.items():
                    assert np.allclose(other.states[layer][state], array, rtol=0, atol=1e-14)


def test_the_state_starts_anew_at_each_sequence(tmp_path: Path) -> None:
    """What stands before a sequence's begin has no say in what comes after it."""
    same, network = [7, 8], network_of(cells.LSTM())
    first = write_tokens(tmp_path / "a", {"train": same}, seed=1)
    second = write_tokens(tmp_path / "b", {"train": same}, seed=2)
    x = [streams(data, 1, 15).read(0).x[:, 0].copy() for data in (first, second)]
    lane, parameters = lane_of(network, 1)
    window = streams(first, 1, 15).read(0)
    results = []
    for start in x:
        given = window.x.copy()
        given[:7, 0] = start[:7]
        run = lane.start(lane.given(window), 0, 0, 15, training=False)
        results.append(network.forward(parameters, given, run)[0].copy())
    assert not np.array_equal(x[0][:7], x[1][:7])
    assert not np.array_equal(results[0][:7], results[1][:7])
    assert np.array_equal(results[0][7:], results[1][7:])


def test_carried_states_of_examples_go_from_chunk_to_chunk(tmp_path: Path) -> None:
    data = write_tokens(tmp_path / "d", {"train": [11, 4, 9, 2]}).split("train")
    whole, parts = (
        Examples(data, input="tokens", target="next", batch=2, window=w, seed=0, shuffle=False)
        for w in (12, 3)
    )
    network = network_of(cells.GRU(), cells.LSTM())
    sums = []
    for windows in (whole, parts):
        lane, parameters = lane_of(network, 2)
        found = [
            lane.evaluate(windows, n, parameters, 0) for n in range(windows.windows_in_epoch(0))
        ]
        sums.append((sum(f.loss for f in found), sum(f.count for f in found)))
    assert sums[0][1] == sums[1][1] == 11 + 4 + 9 + 2 - 4
    assert sums[0][0] == pytest.approx(sums[1][0], rel=1e-13)


# -- TBPTT(k1, k2) with k1 < k2 --------------------------------------------------------------------


class NaiveElman:
    """An Elman network with a softmax, step by step, as a textbook has it."""

    def __init__(self, parameters: Arrays) -> None:
        names = {p.rpartition("layer1.")[2]: p for p in parameters if p.startswith("layer1.")}
        (self.bias,) = (parameters[p] for n, p in names.items() if parameters[p].ndim == 1)
        matrices = {n: p for n, p in names.items() if parameters[p].ndim == 2}
        (wx,) = (p for p in matrices.values() if parameters[p].shape == (3, 4))
        (wh,) = (p for p in matrices.values() if parameters[p].shape == (4, 4))
        self.names = {"x": wx, "h": wh, "b": next(
            p for n, p in names.items() if parameters[p].ndim == 1)}  # fmt: skip
        self.p = parameters

    def step(self, token: int, h: np.ndarray) -> np.ndarray:
        p, n = self.p, self.names
        return np.tanh(p["input.weight"][token] @ p[n["x"]] + h @ p[n["h"]] + p[n["b"]])

    def window(
        self, tokens: list[int], starts: set[int], first: int, last: int, counted: int,
        carried: np.ndarray,
    ) -> tuple[float, Arrays, list[np.ndarray]]:  # fmt: skip
        """Loss over the last ``counted`` of the steps [first, last), gradient back to ``first``."""
        p, n = self.p, self.names
        before, after, h = [], [], carried
        for t in range(first, last):
            before.append(np.zeros(4) if t in starts else h)
            h = self.step(tokens[t], before[-1])
            after.append(h)
        g = {name: np.zeros_like(a) for name, a in p.items()}
        loss, d_h = 0.0, np.zeros(4)
        for t in reversed(range(first, last)):
            k = t - first
            if t >= last - counted and t + 1 not in starts and t + 1 < len(tokens):
                logits = after[k] @ p["output.weight"] + p["output.bias"]
                probability = np.exp(logits) / np.exp(logits).sum()
                loss -= np.log(probability[tokens[t + 1]])
                d_logits = probability.copy()
                d_logits[tokens[t + 1]] -= 1
                g["output.weight"] += np.outer(after[k], d_logits)
                g["output.bias"] += d_logits
                d_h = d_h + d_logits @ p["output.weight"].T
            d_a = d_h * (1 - after[k] ** 2)
            x = p["input.weight"][tokens[t]]
            g[n["x"]] += np.outer(x, d_a)
            g[n["h"]] += np.outer(before[k], d_a)
            g[n["b"]] += d_a
            g["input.weight"][tokens[t]] += d_a @ p[n["x"]].T
            d_h = np.zeros(4) if t in starts else d_a @ p[n["h"]].T
        return loss, g, after


@pytest.mark.parametrize(("k1", "k2"), [(1, 1), (1, 4), (2, 5), (3, 3), (2, 6), (5, 12), (4, 30)])
def test_overlapping_windows_are_tbptt_k1_k2(tmp_path: Path, k1: int, k2: int) -> None:
    """Against a step-by-step TBPTT(k1, k2), parameters changing from window to window."""
    data = write_tokens(tmp_path / "d", {"train": [9, 2, 13, 5]})
    windows = streams(data, 2, k2, k1)
    network = network_of(cells.Elman())
    lane, parameters = lane_of(network, 2)
    naive = NaiveElman(parameters)
    tokens = [int(t) for t in data.split("train").read("tokens", 0, 29)]
    sequence_starts = {0, 9, 11, 24}
    length = windows.length
    assert length == 14
    carried = [[np.zeros(4)] * (length + 1) for _ in range(2)]  # the state before each step
    for n in range(length // k1):
        last = (n + 1) * k1
        first = max(0, last - k2)
        total, gradients = 0.0, {name: np.zeros_like(a) for name, a in parameters.items()}
        for row in range(2):
            offset = row * length
            starts = {s - offset for s in sequence_starts} | {0}  # a stream's start is one, too
            mine = tokens[offset : offset + length + 1]
            loss, g, after = naive.window(mine, starts, first, last, k1, carried[row][first])
            for t, state in zip(range(first, last), after, strict=True):
                carried[row][t + 1] = state
            total += loss
            for name, gradient in g.items():
                gradients[name] += gradient
        sums = lane.train(windows, n, parameters, seed=0)
        assert sums.gradient is not None
        assert sums.loss == pytest.approx(total, rel=1e-12), n
        for name, view in network.layout.views(sums.gradient).items():
            assert np.abs(view - gradients[name]).max() <= 1e-12, (n, name)
        for name, view in network.layout.views(sums.gradient).items():
            parameters[name] -= 0.1 * view
    assert windows.windows_in_epoch() == length // k1


# -- gradient flow ---------------------------------------------------------------------------------


def flow_of(
    tmp_path: Path, cell: Any, scale: float, window: int = 17, bias: float = 0.0
) -> tuple[dict[str, dict[str, float]], Lane, Streams, Arrays]:
    data = write_tokens(tmp_path / f"d{scale}", {"train": [100]})
    windows = streams(data, 2, window)
    network = network_of(cell)
    lane, parameters = lane_of(network, 2)
    for name, array in parameters.items():
        if name.startswith("layer1") and array.shape == (4, 4):
            array[...] = scale * np.eye(4)
        elif name.startswith("layer1") and array.ndim == 1:
            array[...] = bias
    lane.train(windows, 0, parameters, 0)
    return lane.gradient_flow(), lane, windows, parameters


def test_gradient_flow_is_the_derivative_by_every_state(tmp_path: Path) -> None:
    """Each figure against differences: a state is moved by hand, and the loss measured again."""
    flow, _, windows, parameters = flow_of(tmp_path, cells.Elman(), 0.9, window=10)
    window = windows.read(0)
    layer = Recurrent(cells.Elman(), 3, 4, "float64")
    own = {name: parameters[f"layer1.{name}"] for name in layer.plan.parameters}
    x = parameters["input.weight"][window.x]
    y, _, _ = layer.forward(own, x)

    def loss_of_last_step(t: int, h: np.ndarray) -> float:
        """The loss of the last step where the state after step t is h."""
        last = h if t == 9 else layer.forward(own, x[t + 1 :], {"h": h})[0][-1]
        logits = (last @ parameters["output.weight"] + parameters["output.bias"])[None]
        return softmax_loss(logits, window.target[-1:], window.valid[-1:])[0]

    assert list(flow) == ["layer1"]
    assert list(flow["layer1"]) == ["0", "1", "2", "4", "8"]
    for distance, figure in flow["layer1"].items():
        t = 9 - int(distance)
        gradient = np.zeros((2, 4))
        for place in np.ndindex(2, 4):
            bump = np.zeros((2, 4))
            bump[place] = 1e-6
            gradient[place] = (
                loss_of_last_step(t, y[t] + bump) - loss_of_last_step(t, y[t] - bump)
            ) / 2e-6
        assert figure == pytest.approx(float(np.linalg.norm(gradient)), rel=1e-6)


def test_small_recurrent_weights_let_the_gradient_vanish(tmp_path: Path) -> None:
    flow = flow_of(tmp_path, cells.Elman(), 0.2)[0]["layer1"]
    assert flow["16"] < 1e-8 * flow["0"]


def test_large_recurrent_weights_let_it_explode(tmp_path: Path) -> None:
    flow = flow_of(tmp_path, cells.Elman(activation="relu"), 1.5, bias=9.0)[0]["layer1"]
    assert flow["16"] > 100 * flow["0"]


def test_the_identity_keeps_it(tmp_path: Path) -> None:
    # A bias holds every unit where relu is the identity, too.
    flow = flow_of(tmp_path, cells.Elman(activation="relu"), 1.0, bias=9.0)[0]["layer1"]
    assert flow["16"] == pytest.approx(flow["0"], rel=1e-12)


def test_gradient_flow_leaves_the_step_as_it_was(tmp_path: Path) -> None:
    _, lane, windows, parameters = flow_of(tmp_path, cells.Elman(), 0.9)
    states = {s: a.copy() for s, a in lane.states["layer1"].items()}
    sums = lane.train(windows, 1, parameters, 0)
    assert sums.gradient is not None
    kept = sums.gradient.copy()
    first = lane.gradient_flow()
    assert np.array_equal(sums.gradient, kept)
    assert first == lane.gradient_flow()
    assert not np.array_equal(states["h"], lane.states["layer1"]["h"])


def test_a_window_of_one_step(tmp_path: Path) -> None:
    assert list(flow_of(tmp_path, cells.Elman(), 1.0, window=1)[0]["layer1"]) == ["0"]


def test_values_train_too(tmp_path: Path) -> None:
    data = write_values(tmp_path / "d", {"train": [30, 20]})
    windows = Streams(data.split("train"), input="values", target="total", batch=2, window=5,
                      dtype="float64")  # fmt: skip
    network = make_network(NetworkSpec("linear", 2, [LayerSpec(cells.GRU(), 4)], 1, size=3))
    loss = LossFunction(losses.MeanSquaredError(), 1, 1, "float64")
    lane = Lane(0, slice(0, 2), network, loss)
    parameters = network.layout.views(network.layout.initialized(0, "float64"))
    window = windows.read(0)
    run = lane.start(lane.given(window), 0, 0, 5, training=False)
    output = network.forward(parameters, window.x, run)[0].copy()
    sums = lane.train(windows, 0, parameters, 0)
    assert sums.loss == pytest.approx(0.5 * float(((output - window.target) ** 2).sum()), rel=1e-14)
