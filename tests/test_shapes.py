"""Networks whose target is a sequence's own: pools, CTC and decoders, checked as a whole."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_tools import make_pass

from rnnfarm.data.dataset import open_dataset
from rnnfarm.data.manifest import Column
from rnnfarm.data.writer import DatasetWriter
from rnnfarm.errors import JobError
from rnnfarm.job import read_job
from rnnfarm.kernels.device import HOST
from rnnfarm.nn.attention import Attention
from rnnfarm.nn.layer import Memory, Pass
from rnnfarm.plugins import Registry
from rnnfarm.training.loop import Trainer
from rnnfarm.training.setup import make_model, make_windows

REGISTRY = Registry.load()
COLUMNS = {
    "values": Column.values(3),
    "words": Column.tokens(5),
    "label": Column.tokens(4, own=True),
    "letters": Column.tokens(6, own=True),
    "vector": Column.values(2, own=True),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sequences of 6 to 13 steps with a label, a vector, and some letters of their own."""
    path = tmp_path_factory.mktemp("shapes") / "data"
    rng = np.random.default_rng(0)
    with DatasetWriter(str(path), COLUMNS) as writer:
        for number in range(30):
            steps = int(rng.integers(6, 14))
            writer.append(
                "train" if number < 24 else "valid",
                {
                    "values": rng.standard_normal((steps, 3)).astype(np.float32),
                    "words": rng.integers(0, 5, steps),
                    "label": rng.integers(0, 4, 1),
                    "letters": rng.integers(2, 6, int(rng.integers(0, 4))),
                    "vector": rng.standard_normal((1, 2)).astype(np.float32),
                },
            )
    return path


LSTM = {"cell": "lstm", "hidden": 4}
BOTH = {"cell": "gru", "hidden": 3, "bidirectional": True}
DECODER = {"size": 3, "layers": [{"cell": "lstm", "hidden": 4}, {"cell": "gru", "hidden": 6}]}
#: target, model
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"{pool} of {len(layers)}": ("label", {"layers": layers, "pool": pool})
        for pool in ("last", "mean", "max", "attention")
        for layers in ([LSTM], [LSTM, BOTH])
    },
    "vector": ("vector", {"layers": [LSTM], "pool": "mean", "loss": "mse"}),
    "gaussian": ("vector", {"layers": [LSTM], "pool": "last", "loss": "gaussian"}),
    "ctc": ("letters", {"layers": [BOTH], "loss": "ctc"}),
    "decoder": ("letters", {"layers": [LSTM], "decoder": DECODER}),
    "vector to letters": ("letters", {"layers": [], "decoder": DECODER}),
    **{
        f"attention {kind}": (
            "letters",
            {"layers": [BOTH], "decoder": {**DECODER, "attention": kind}},
        )
        for kind in ("dot", "general", "additive")
    },
}


def job_of(dataset: Path, target: str, model: dict[str, Any], **training: Any) -> Any:
    raw = {
        "data": {"path": str(dataset), "mode": "examples", "input": "values", "target": target},
        "model": {"input": {"kind": "linear", "size": 3}, "loss": "cross_entropy", **model},
        "training": {"batch": 4, "window": 16, "dtype": "float64", "steps": 5, **training},
    }
    return read_job(raw, REGISTRY, dataset.parent)


def trainer_of(dataset: Path, target: str, model: dict[str, Any], **training: Any) -> Trainer:
    job = job_of(dataset, target, model, **training)
    opened = open_dataset(str(dataset))
    made = make_model(job, opened, REGISTRY)
    return Trainer(job, REGISTRY, made, make_windows(job, made, opened, "train"), threads=1)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients(dataset: Path, shape: str) -> None:
    """Of the whole network, by central differences in a random direction and in some places."""
    trainer = trainer_of(dataset, *SHAPES[shape])
    rng = np.random.default_rng(1)
    trainer.arena += 0.3 * rng.standard_normal(trainer.arena.shape)

    def loss() -> float:
        trainer.lanes[0].states = trainer.model.network.zero_states(4)
        return float(trainer.compute()[(0, 1)].loss)

    trainer.lanes[0].states = trainer.model.network.zero_states(4)
    gradient = trainer.compute()[(0, 1)].gradient.copy()
    directions = [rng.standard_normal(gradient.shape) for _ in range(3)]
    for view in trainer.model.network.layout.views(np.arange(gradient.size)).values():
        one = np.zeros(gradient.shape)
        one[view.reshape(-1)[:: max(1, view.size // 3)]] = 1.0
        directions.append(one)
    for direction in directions:
        change = 1e-5 * direction
        trainer.arena += change
        high = loss()
        trainer.arena -= 2 * change
        low = loss()
        trainer.arena += change
        expected = (high - low) / 2e-5
        assert float(direction @ gradient) == pytest.approx(expected, rel=2e-6, abs=2e-7)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_learns_and_gives_the_same_bits_on_two_lanes(dataset: Path, shape: str) -> None:
    target, model = SHAPES[shape]
    hashes = set()
    for threads in (1, 2):
        trainer = trainer_of(
            dataset, target, model, lanes=2, steps=40, optimizer={"name": "adam", "lr": 2e-2}
        )
        trainer.threads = threads
        losses = [trainer.train_step()["train_loss"] for _ in range(40)]
        hashes.add(trainer.parameters_sha256())
        assert np.mean(losses[-6:]) < np.mean(losses[:6])
        found = trainer.measure(
            make_windows(trainer.job, trainer.model, open_dataset(str(dataset)), "valid")
        )
        assert np.isfinite(found["loss"])
    assert len(hashes) == 1


@pytest.mark.parametrize(
    "shape", ["last of 1", "mean of 1", "max of 1", "attention of 1", "decoder"]
)
def test_several_windows_give_what_one_gives(dataset: Path, shape: str) -> None:
    """Forward: a sequence that is read in several windows, with what is carried on."""
    target, model = SHAPES[shape]
    found = []
    for window in (16, 4):
        trainer = trainer_of(dataset, target, model, window=window)
        windows = make_windows(trainer.job, trainer.model, open_dataset(str(dataset)), "valid")
        found.append(trainer.measure(windows)["loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-12)


def test_padding_changes_nothing(dataset: Path) -> None:
    """The loss of all examples is the same in batches of one and of many."""
    for shape, (target, model) in SHAPES.items():
        losses = []
        for batch in (1, 3, 6):
            trainer = trainer_of(dataset, target, model, batch=batch)
            windows = make_windows(trainer.job, trainer.model, open_dataset(str(dataset)), "valid")
            losses.append(trainer.measure(windows)["loss"])
        assert losses == pytest.approx([losses[0]] * 3, rel=1e-14 * 30), shape


@pytest.mark.parametrize(
    ("target", "model", "sentence"),
    [
        ("label", {"layers": [LSTM]}, "model.pool: the target 'label' is a list of its own"),
        ("words", {"layers": [LSTM], "pool": "last"}, "model.pool: it is for a target that is a"),
        ("words", {"layers": [LSTM], "loss": "ctc"}, "model.loss: it is for a target that is a"),
        (
            "vector",
            {"layers": [LSTM], "decoder": DECODER, "loss": "mse"},
            "a decoder writes tokens",
        ),
        ("label", {"layers": []}, "model.layers: is empty"),
    ],
)
def test_shapes_that_do_not_fit(
    dataset: Path, target: str, model: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(JobError, match=sentence):
        trainer_of(dataset, target, model)


@pytest.mark.parametrize("kind", ["dot", "general", "additive"])
def test_the_weights_of_attention(kind: str) -> None:
    """They are the softmax over valid steps of the score that ``Attention`` names."""
    L, T, B, D = 3, 5, 2, 16
    random = np.random.default_rng(0)
    d, e = random.standard_normal((L, B, D)), random.standard_normal((T, B, D))
    mask = np.ones((T, B, 1), bool)
    mask[3:, 1] = False
    attention = Attention("a", kind, D, D)
    p = {name: random.standard_normal(one.shape) for name, one in attention.parameters.items()}
    run = Pass(
        training=False, seed=0, step=0, lane=0, mask=None, reset=None, states={}, carry=0,
        memory=Memory(HOST),
    )  # fmt: skip
    output, _ = attention.forward(p, (d, e, mask), run)
    for row in range(B):
        for step in range(L):
            query, scores = d[step, row], []
            for key in e[:, row][mask[:, row, 0]]:
                if kind == "additive":
                    inner = np.tanh(query @ p["a.query"] + key @ p["a.key"])
                    scores.append(inner @ p["a.vector"][:, 0])
                else:
                    weight = p["a.score"] if kind == "general" else np.eye(D)
                    scores.append(query @ weight @ key / 4)  # the root of D
            weights = np.exp(scores) / np.exp(scores).sum()
            context = weights @ e[:, row][mask[:, row, 0]]
            wanted = np.tanh(np.concatenate([context, query]) @ p["a.out"])
            np.testing.assert_allclose(output[step, row], wanted, rtol=1e-9, atol=1e-12)
            assert attention.weights is not None
            np.testing.assert_allclose(attention.weights[row, step, : len(weights)], weights)
            assert not attention.weights[row, step, len(weights) :].any()


def test_additive_attention_takes_memory_for_one_step_of_the_decoder_at_a_time() -> None:
    """(B, L, T, D) float64 would be 128 MB here, of what is kept and of its gradient each."""
    L, T, B, D = 100, 100, 4, 400
    random = np.random.default_rng(0)
    d, e = random.standard_normal((L, B, D)), random.standard_normal((T, B, D))
    attention = Attention("a", "additive", D, D)
    p = {n: random.standard_normal(one.shape) / D for n, one in attention.parameters.items()}
    gradients = {n: np.empty(array.shape) for n, array in p.items()}
    tracemalloc.start()
    try:
        output, backward = attention.forward(p, (d, e, None), make_pass())
        backward(np.ones_like(output), gradients)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 60_000_000
