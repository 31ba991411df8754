"""Lanes: the same bits whoever computes them, in whatever order, on however many threads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_tools import REGISTRY, make_job, token_job, value_job, write_tokens, write_values

from rnnfarm.builtin import optimizers
from rnnfarm.data.dataset import open_dataset
from rnnfarm.kernels.device import HOST, global_norm
from rnnfarm.training.lanes import Node, children, deal, owned_nodes, reduce_tree
from rnnfarm.training.loop import Trainer
from rnnfarm.training.optimizer import OptimizerPass
from rnnfarm.training.session import train
from rnnfarm.training.setup import make_model, make_windows
from rnnfarm.training.tbptt import Sums, add_sums

STEPS = 3
TIMES = ("run", "elements_per_second", "seconds")
#: Which lanes each worker owns.
GROUPINGS = {
    "4": [[0, 1, 2, 3]],
    "4 backwards": [[3, 2, 1, 0]],
    "2+2": [[0, 1], [2, 3]],
    "2+2 across": [[2, 0], [3, 1]],
    "3+1": [[1, 2, 3], [0]],
    "1+3": [[3], [2, 0, 1]],
    "1+2+1": [[1], [3, 0], [2]],
    "1+1+1+1": [[2], [0], [3], [1]],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lanes") / "data"
    write_tokens(path, {"train": [50, 3, 1, 90, 40], "valid": [60, 40]})
    return path


def trainer_of(raw: dict[str, Any]) -> Trainer:
    job = make_job(raw)
    dataset = open_dataset(job.data.path)
    model = make_model(job, dataset, REGISTRY)
    return Trainer(job, REGISTRY, model, make_windows(job, model, dataset, "train"))


def grouped_steps(trainer: Trainer, workers: Sequence[Sequence[int]]) -> list[bytes]:
    """The bits of some training steps as a group of workers would compute them.

    Each worker runs its lanes in its own order and adds up what it has whole; only those sums meet.
    """
    training, bits = trainer.job.training, []
    for step in range(STEPS):
        parts: dict[Node, Sums] = {}
        for mine in workers:
            leaves = {
                (k, k + 1): trainer.lanes[k].train(
                    trainer.windows, step, trainer.parameters, training.seed
                )
                for k in mine
            }
            for node in owned_nodes(training.lanes, mine):
                sums = reduce_tree(node, leaves, add_sums)
                assert sums.gradient is not None
                # What a worker sends is a copy.
                parts[node] = Sums(sums.loss, sums.count, gradient=sums.gradient.copy())
        total = reduce_tree((0, training.lanes), parts, add_sums)
        assert total.gradient is not None
        scale = 1 / total.count if trainer.model.loss.loss.reduction == "mean" else 1.0
        assert training.clip is not None
        _, scale = HOST.norm_and_scale(total.gradient, scale, training.clip.norm)
        bits += [np.float64(total.loss).tobytes(), total.gradient.tobytes()]
        lr = trainer.optimizer.optimizer.lr
        trainer.optimizer.apply(
            trainer.arena, total.gradient, trainer.optimizer_states, lr, step + 1, scale
        )
        bits.append(trainer.arena.tobytes())
    return bits


def lane_job(data: Path, lanes: int, /, **more: Any) -> dict[str, Any]:
    model = {
        "layers": [
            {"cell": "lstm", "hidden": 8, "dropout": 0.2, "zoneout": 0.1},
            {"cell": "gru", "hidden": 8, "recurrent_dropout": 0.2, "initial": "random"},
        ],
        "input": {"kind": "embedding", "size": 8, "dropout": 0.1},
        "output": {"tied": True},
    }
    batch = 3 * lanes
    return token_job(data, lanes=lanes, batch=batch, clip=0.5, steps=STEPS, model=model, **more)


@pytest.mark.parametrize("mode", ["streams", "examples"])
def test_any_order_and_grouping_gives_the_same_bits(data: Path, mode: str) -> None:
    job = lane_job(data, 4, window=5, data={"mode": mode})
    alone = grouped_steps(trainer_of(job), GROUPINGS["4"])
    for name, workers in GROUPINGS.items():
        assert grouped_steps(trainer_of(job), workers) == alone, name
    # And they are those of the real training step.
    trainer = trainer_of(job)
    for step in range(STEPS):
        trainer.train_step()
        assert trainer.arena.tobytes() == alone[3 * step + 2]


@pytest.mark.parametrize("lanes", [1, 2, 3, 5, 6, 7])
def test_lane_counts_that_are_no_power_of_two(data: Path, lanes: int) -> None:
    job = lane_job(data, lanes, window=5)
    alone = grouped_steps(trainer_of(job), [range(lanes)])
    odd_and_even = [range(1, lanes, 2), range(0, lanes, 2)]
    cut = [range(lanes // 2 + 1), range(lanes // 2 + 1, lanes)]
    for workers in (odd_and_even, cut, [[k] for k in reversed(range(lanes))]):
        assert grouped_steps(trainer_of(job), workers) == alone


def test_lanes_are_part_of_the_job(data: Path) -> None:
    """Another number of lanes rounds and draws differently, but is the same gradient."""
    plain = {"layers": [{"cell": "lstm", "hidden": 8}]}
    one, four = (
        trainer_of(token_job(data, lanes=lanes, batch=12, dtype="float64", model=plain))
        for lanes in (1, 4)
    )
    for _ in range(STEPS):
        a, b = one.train_step(), four.train_step()
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-12)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-12)
    assert np.allclose(one.arena, four.arena, atol=1e-12)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_reductions_do_not_depend_on_lanes(tmp_path: Path, reduction: str) -> None:
    """A mean is over the batch's steps, not a mean of the lanes' means, which have other counts."""
    path = tmp_path / "d"
    write_values(path, {"train": [9, 3, 5, 2, 8, 3, 7, 4], "valid": [5]})
    norms = []
    for lanes in (1, 2, 4):
        model = {
            "input": {"kind": "none"},
            "loss": {"name": "mse", "reduction": reduction},
        }
        job = value_job(path, lanes=lanes, batch=4, window=9, dtype="float64", model=model,
                        data={"mode": "examples"})  # fmt: skip
        trainer = trainer_of(job)
        norms.append([(m["train_loss"], m["grad_norm"]) for m in
                      (trainer.train_step() for _ in range(STEPS))])  # fmt: skip
    for other in norms[1:]:
        assert np.allclose(other, norms[0], rtol=1e-12)


@pytest.mark.parametrize("mode", ["streams", "examples"])
def test_threads_change_nothing_of_a_whole_run(data: Path, tmp_path: Path, mode: str) -> None:
    results = []
    for threads in (1, 2, 4):
        job = lane_job(data, 4, window=5, threads=threads, evaluate_every=2, data={"mode": mode})
        out = tmp_path / f"{threads}"
        result = train(make_job(job), REGISTRY, out=out).to_dict()
        results.append({k: v for k, v in result.items() if k not in TIMES})
    assert results[0] == results[1] == results[2]


# -- the tree --------------------------------------------------------------------------------------

LANES = st.integers(1, 40)


@given(LANES, st.data())
def test_every_grouping_adds_in_the_same_order(lanes: int, drawn: Any) -> None:
    """Sums written as text show every parenthesis."""
    owners = drawn.draw(st.lists(st.integers(0, 4), min_size=lanes, max_size=lanes))
    leaves = {(k, k + 1): str(k) for k in range(lanes)}

    def add(a: str, b: str) -> str:
        return f"({a}+{b})"

    expected = reduce_tree((0, lanes), leaves, add)
    parts: dict[Node, str] = {}
    for worker in range(5):
        mine = [k for k in drawn.draw(st.permutations(range(lanes))) if owners[k] == worker]
        for node in owned_nodes(lanes, mine):
            own = {(k, k + 1): str(k) for k in mine}
            parts[node] = reduce_tree(node, own, add)
    assert reduce_tree((0, lanes), parts, add) == expected
    assert [int(t) for t in expected.replace("(", "").replace(")", "").split("+")] == [
        *range(lanes)
    ]


@given(LANES, st.data())
def test_owned_nodes_cover_what_is_owned_and_nothing_else(lanes: int, drawn: Any) -> None:
    mine = drawn.draw(st.sets(st.integers(0, lanes - 1)))
    nodes = owned_nodes(lanes, mine)
    assert sorted(k for node in nodes for k in range(*node)) == sorted(mine)
    parents: list[Node] = []

    def walk(node: Node) -> None:
        if node[1] - node[0] > 1:
            left, right = children(node)
            assert left[1] == right[0]
            assert (left[0], right[1]) == node
            if left in nodes and right in nodes:
                parents.append(node)
            walk(left)
            walk(right)

    walk((0, lanes))
    assert not parents  # two halves that are both owned are one node


def test_owning_everything_is_one_node() -> None:
    assert owned_nodes(6, range(6)) == [(0, 6)]
    assert owned_nodes(6, [0, 1, 2]) == [(0, 2), (2, 3)]
    assert owned_nodes(6, []) == []


def test_a_lane_that_nobody_has_is_an_error() -> None:
    with pytest.raises(KeyError, match="no part covers lane 1"):
        reduce_tree((0, 3), {(0, 1): 1, (2, 3): 2}, lambda a, b: a + b)


def test_clipping_by_norm_and_by_value() -> None:
    gradient = np.array([3.0, 4.0])
    assert HOST.norm_and_scale(gradient, 1.0, 1.0) == (5.0, 0.2)
    assert HOST.norm_and_scale(gradient, 1.0, 6.0) == (5.0, 1.0)
    assert HOST.norm_and_scale(gradient, 0.1, 1.0) == (0.5, 0.1)
    assert HOST.norm_and_scale(gradient, 2.0, None) == (10.0, 2.0)
    large = np.random.default_rng(0).standard_normal(200_001).astype(np.float32)
    assert global_norm(large) == pytest.approx(np.linalg.norm(large.astype(np.float64)), rel=1e-6)
    exploded = np.array([3e25, 1.0, 4e25], np.float32)  # the squares are beyond float32
    assert global_norm(exploded) == pytest.approx(5e25)
    descent = OptimizerPass(optimizers.SGD(lr=1.0), [(0, 2, True)], "float64", bound=0.35)
    parameters = np.zeros(2)
    descent.apply(parameters, gradient, descent.states(2), 1.0, 1, 0.1)
    assert np.allclose(parameters, [-0.3, -0.35])
    descent.apply(parameters, -gradient, descent.states(2), 1.0, 2, 0.1)
    assert np.allclose(parameters, 0.0)


def test_lanes_are_dealt_evenly() -> None:
    assert deal(4, 3) == [range(0, 1), range(1, 2), range(2, 4)]
    assert deal(1, 2) == [range(0, 0), range(0, 1)]
