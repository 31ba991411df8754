"""What docs/defaults.md says: its job, its list of initialisers, and each row of its table."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from training_tools import REGISTRY, make_network

from rnnfarm.builtin import cells
from rnnfarm.equations.initial import NUMBERS, Init
from rnnfarm.job import read_job
from rnnfarm.job_inits import initial
from rnnfarm.nn.decoder import DecoderSpec
from rnnfarm.nn.loss import LossFunction
from rnnfarm.nn.network import LayerSpec, NetworkSpec

PAGE = (Path(__file__).parents[1] / "docs" / "defaults.md").read_text(encoding="utf-8")
LSTM = LayerSpec(cells.LSTM(), 30)


def started(spec: NetworkSpec) -> dict[str, np.ndarray]:
    layout = make_network(spec).layout
    return dict(layout.views(layout.initialized(0, "float64")))


def test_its_job_is_one(tmp_path: Path) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
    job = read_job({"data": {"path": "d"}, **tomllib.loads(block)}, base=tmp_path)
    found = initial(job.model)
    assert found["input"] == Init("uniform:0.1", "uniform:0.1", "pytorch")
    assert found["layer1"] == Init("pytorch", "orthogonal", "zeros")


def test_its_list_of_initialisers_is_whole() -> None:
    (listed,) = re.findall(r"^Initialisers: (.*?)\(\[", PAGE, re.S | re.M)
    assert {name.split(":")[0] for name in re.findall(r"`([^`]+)`", listed)} == set(NUMBERS)


@pytest.mark.parametrize(
    ("vocabulary", "size", "deviation"), [(2500, 100, 0.2), (100, 100, 1.0), (100, 400, 1.0)]
)
def test_embeddings(vocabulary: int, size: int, deviation: float) -> None:
    assert "| embedding | normal, deviation √(size / V), at most 1 |" in PAGE
    found = started(NetworkSpec("embedding", vocabulary, [LSTM], 4, size))["input.weight"]
    assert np.std(found) == pytest.approx(deviation, rel=0.02)
    decoder = DecoderSpec(vocabulary, size, [LSTM])
    spec = NetworkSpec("none", 3, [LSTM], vocabulary, pool="last", decoder=decoder)
    assert np.std(started(spec)["decoder.input.weight"]) == pytest.approx(deviation, rel=0.02)


def test_a_tied_embedding() -> None:
    assert "| embedding that is the output too | normal, deviation 1 / √size |" in PAGE
    spec = NetworkSpec("embedding", 500, [LayerSpec(cells.GRU(), 64)], 500, 64, tied=True)
    assert np.std(started(spec)["input.weight"]) == pytest.approx(1 / 8, rel=0.02)


@pytest.mark.parametrize(
    ("outputs", "limit"), [(20, np.sqrt(6 / 50)), (150, np.sqrt(6 / 180)), (400, np.sqrt(1 / 30))]
)
def test_outputs(outputs: int, limit: float) -> None:
    assert "| output | Glorot uniform, but at least ±1/√fan-in (of more than 5 H outputs) |" in PAGE
    plain = started(NetworkSpec("none", 3, [LSTM], outputs))["output.weight"]
    decoder = DecoderSpec(outputs, 8, [LSTM])
    spec = NetworkSpec("none", 3, [LSTM], outputs, pool="last", decoder=decoder)
    for found in (plain, started(spec)["output.weight"]):
        assert 0.98 * limit < np.abs(found).max() <= limit


def test_linear_maps_and_cells() -> None:
    assert "±√(6 / (inputs + outputs))" in PAGE
    decoder = DecoderSpec(50, 20, [LSTM], attention="additive")
    spec = NetworkSpec("linear", 40, [LSTM], 50, 25, pool="attention", decoder=decoder)
    found = started(spec)
    for name, values in found.items():
        layer, _, last = name.rpartition(".")
        if last in ("x", "weight", "out", "query", "key", "vector") and "decoder.input" not in name:
            inputs, outputs = values.shape
            limit = np.sqrt(6 / (inputs + outputs // (4 if last == "x" else 1)))
            assert 0.85 * limit < np.abs(values).max() <= limit, name
        elif last == "h":
            for gate in np.split(values, 4, axis=1):
                assert np.allclose(gate @ gate.T, np.eye(30), atol=1e-12)
        elif last == "bias":
            forget = values[30:60] if layer.endswith("W") else values[:0]
            assert (forget == 1).all()
            assert values.sum() == forget.size, name


def test_its_settings_of_optimizers_are_the_defaults() -> None:
    rows = re.findall(r"^\| `(\w+)` `(\w+)` \| (\S+) \|", PAGE, re.M)
    assert len(rows) == 7
    for name, setting, value in rows:
        assert REGISTRY.get("optimizers", name)().settings()[setting] == float(value), name


def test_what_it_says_of_plateaus() -> None:
    schedule = REGISTRY.get("schedules", "plateau")(patience=2, gamma=0.5)
    factors = []
    for value in (1.0, 1.0, 1.0):
        schedule.observe(value)
        factors.append(schedule(1, 9))
    assert factors == [1.0, 1.0, 0.5]  # PyTorch with patience = 2 waits for one more


def test_what_it_says_of_the_losses_of_a_step() -> None:
    output, target = np.zeros((1, 2, 3)), np.array([[[1.0, 2.0, 2.0], [0.2, 0.4, 0.0]]])
    for name, mean in (("mse", 0.5 * (target**2).mean()), ("huber", None)):
        loss = REGISTRY.get("losses", name)()
        found = LossFunction(loss, 3, 3, "float64")(output, target, np.ones((1, 2), bool))
        small = np.abs(target) <= 1
        each = np.where(small, 0.5 * target**2, np.abs(target) - 0.5)  # PyTorch's HuberLoss
        expected = 3 * (each.mean() if mean is None else mean)
        assert found.total / found.count == pytest.approx(expected)
