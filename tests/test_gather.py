"""One-hot tokens are looked up: the results of products with one-hot vectors, in less memory."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from training_tools import make_network, make_pass

from rnnfarm.builtin import cells
from rnnfarm.equations.gather import gather_products
from rnnfarm.equations.graph import Symbol
from rnnfarm.equations.language import affine, sigmoid, tanh
from rnnfarm.equations.parts import Cell, trace_cell
from rnnfarm.kernels.choose import KernelChoice, installed_kernels
from rnnfarm.nn.network import LayerSpec, Network, NetworkSpec
from rnnfarm.nn.recurrent import Recurrence
from rnnfarm.plugins import Registry

T, B, V, H = 6, 3, 7, 5


class UsesItsInputTwice(Cell):
    """The input goes through a gate of its own too, so that no row stands for it."""

    def step(self, x: Symbol, h: Symbol) -> Symbol:
        return tanh(affine(sigmoid(x) * x, h))


LAYERS = {
    "lstm": LayerSpec(cells.LSTM(), H),
    "gru, three products": LayerSpec(cells.GRU(), H),
    "indrnn, no recurrent product": LayerSpec(cells.IndRNN(), H),
    "learned initial state": LayerSpec(cells.GRU(), H, Recurrence("learned")),
    "both ways": LayerSpec(cells.GRU(), H, bidirectional=True),
    "a cell that uses x otherwise": LayerSpec(UsesItsInputTwice(), H),
    "residual": LayerSpec(cells.GRU(), V, residual=True),
}


def passed(network: Network, arena: np.ndarray, x: Any, mask: np.ndarray) -> list[np.ndarray]:
    layout = network.layout
    output, backward = network.forward(layout.views(arena), x, make_pass(mask))
    gradient = np.full_like(arena, np.nan)
    d_output = np.random.default_rng(1).standard_normal(output.shape)
    backward(d_output.astype(output.dtype), layout.views(gradient), None)
    return [output.copy(), gradient]


@pytest.mark.parametrize(
    ("name", "kernel"),
    [*((name, "numpy") for name in LAYERS), ("gru, three products", "auto"), ("both ways", "auto")],
)
def test_as_with_one_hot_vectors(name: str, kernel: str) -> None:
    random = np.random.default_rng(0)
    given = NetworkSpec("one_hot", V, [LAYERS[name], LayerSpec(cells.Elman(), 4)], 2)
    choice = KernelChoice(installed_kernels(Registry.load()), kernel, "cpu", "float64")
    network, dense = Network(given, choice), make_network(replace(given, input="none"))
    assert network.layout == dense.layout  # names, shapes, order: an arena is one of both
    arena = network.layout.initialized(0, "float64") + 0.1
    tokens = random.integers(0, V, (T, B))
    mask = np.arange(T)[:, None] < [T, 2, 4]
    found = passed(network, arena, tokens, mask)
    wanted = passed(dense, arena, np.eye(V)[tokens], mask)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-12)


def test_which_cells_have_their_products_looked_up() -> None:
    trace = trace_cell(cells.GRU(), V, H)
    found = gather_products(trace)
    assert found is not None
    rows, weights = found
    assert [w.name for w in weights] == ["W.x", "N.x"]
    assert rows.x.width == 3 * H
    assert set(rows.graph.parameters) == set(trace.graph.parameters) - {"W.x", "N.x"}
    assert gather_products(trace_cell(UsesItsInputTwice(), V, H)) is None


def test_input_dropout_drops_tokens() -> None:
    """As it does with vectors, by the same draws."""
    given = NetworkSpec("one_hot", V, [LAYERS["lstm"]], 2, input_dropout=0.5)
    network = make_network(given)
    arena = network.layout.initialized(0, "float64")
    output = passed(network, arena, np.full((T, B), 3), np.ones((T, B), bool))[0]
    dense = make_network(replace(given, input="none"))
    x = np.eye(V)[np.full((T, B), 3)]
    other = passed(dense, arena, x, np.ones((T, B), bool))[0]
    np.testing.assert_allclose(output, other, rtol=1e-12)


@pytest.mark.parametrize("both_ways", [False, True])
def test_a_large_vocabulary_takes_no_memory_but_its_weights(both_ways: bool) -> None:
    """Of 50,000 tokens the vectors of this small window would take 240 MB, all of them 10 GB."""
    vocabulary, steps, rows, hidden = 50_000, 30, 40, 2
    layer = LayerSpec(cells.Elman(), hidden, bidirectional=both_ways)
    network = make_network(NetworkSpec("one_hot", vocabulary, [layer], 2), "float32")
    arena = network.layout.initialized(0, "float32")
    x = np.random.default_rng(0).integers(0, vocabulary, (steps, rows))
    tracemalloc.start()
    try:
        passed(network, arena, x, np.ones((steps, rows), bool))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * arena.nbytes + 5_000_000


def test_a_window_that_needs_vectors_makes_those_of_its_steps_alone() -> None:
    network = make_network(NetworkSpec("one_hot", 20_000, [LayerSpec(UsesItsInputTwice(), 1)], 1))
    arena = network.layout.initialized(0, "float64")
    tracemalloc.start()
    try:
        passed(network, arena, np.zeros((2, 2), int), np.ones((2, 2), bool))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000_000  # all tokens' vectors: 3.2 GB
