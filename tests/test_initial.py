"""Initialisers as a job writes them: their grammar, the frameworks' defaults, and every part's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnfarm import Recurrent
from rnnfarm.builtin.cells import LSTMProjection
from rnnfarm.data.build import ensure_dataset
from rnnfarm.equations.graph import Parameter
from rnnfarm.equations.initial import Init, check_text, parse
from rnnfarm.errors import JobError
from rnnfarm.job import job_schema, read_job
from rnnfarm.job_inits import initial
from rnnfarm.plugins import Registry
from rnnfarm.training.setup import make_model

DECODING = {
    "input": {"kind": "embedding", "size": 4},
    "layers": [{"cell": "lstm", "hidden": 5, "bidirectional": True}],
    "pool": "attention",
    "loss": "cross_entropy",
    "decoder": {
        "size": 3,
        "layers": [{"cell": "gru", "hidden": 6}],
        "attention": "general",
    },
}


def decoding(**keys: Any) -> Any:
    """A model with every kind of part; ``a__b = v`` sets the key ``a.b``."""
    model: Any = {**DECODING, "decoder": dict(DECODING["decoder"])}  # type: ignore[call-overload]
    for path, value in keys.items():
        *above, key = path.split("__")
        here = model
        for name in above:
            here[name] = dict(here[name])
            here = here[name]
        here[key] = value
    return model


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    (folder / "a.txt").write_text("".join(f"w{k % 7} w{k % 5} w{k % 3}\n" for k in range(60)))
    (folder / "b.txt").write_text("".join(f"v{k % 4} v{k % 6}\n" for k in range(60)))
    return folder


def started(folder: Path, model: Any, seed: int = 0) -> dict[str, np.ndarray]:
    """The initial values of a model of pairs of texts, by the parameters' names."""
    part = {name: {"train": [f"{name}.txt"]} for name in ("a", "b")}
    job = read_job(
        {
            "data": {
                "path": "data",
                "build": {
                    "reader": "parallel-text",
                    "source": part["a"],
                    "target": part["b"],
                },
                "mode": "examples",
                "input": "source",
                "target": "target",
            },
            "model": model,
            "training": {"steps": 1, "batch": 4, "seed": seed},
        },
        base=folder,
    )
    registry = Registry.load()
    layout = make_model(job, ensure_dataset(job, registry), registry).network.layout
    return layout.views(layout.initialized(seed, "float64"))


def test_one_init_is_for_all_weights_of_a_model(pairs: Path) -> None:
    plain, found = started(pairs, decoding()), started(pairs, decoding(init="constant:0.25"))
    assert found.keys() == plain.keys()
    for name, values in found.items():
        if values.ndim == 2:
            assert (values == 0.25).all(), name
        else:  # biases stay: that of a forget gate is 1
            assert np.array_equal(values, plain[name]), name
    assert {name for name, v in plain.items() if v.ndim == 1 and v.any()} == {
        "layer1.W.bias",
        "layer1.reverse.W.bias",
    }


def test_the_key_of_a_part_is_for_that_part_and_wins(pairs: Path) -> None:
    """Every key once, each with a number of its own."""
    model = decoding(
        init="constant:1",
        input__init="constant:2",
        layers=[{**DECODING["layers"][0], "init": {"weight": "constant:3"}}],  # type: ignore[index]
        pool_init={"weight": "constant:4", "bias": "constant:-4"},
        decoder__init="constant:5",
        decoder__input_init="constant:6",
        decoder__bridge_init={"bias": "constant:-7"},
        decoder__attention_init="constant:8",
        decoder__layers=[
            {"cell": "gru", "hidden": 6, "init": {"recurrent": "constant:9", "bias": "ones"}}
        ],
    )
    found = started(pairs, model)
    wanted = {
        "input.weight": 2,
        "layer1.W.x": 3,
        "layer1.W.h": 3,
        "layer1.reverse.W.x": 3,
        "layer1.reverse.W.h": 3,
        "pool.weight": 4,
        "pool.vector": 4,
        "pool.bias": -4,
        "decoder.input.weight": 6,
        "decoder.bridge.decoder.layer1.h.weight": 5,
        "decoder.bridge.decoder.layer1.h.bias": -7,
        "decoder.attention.out": 8,
        "decoder.attention.score": 8,
        "decoder.layer1.W.x": 5,
        "decoder.layer1.W.h": 9,
        "decoder.layer1.W.bias": 1,
        "decoder.layer1.N.x": 5,
        "decoder.layer1.N.bias": 1,
        "decoder.layer1.M.h": 9,
        "decoder.layer1.M.bias": 1,
        "output.weight": 5,
        "output.bias": 0,
    }
    assert {name: float(v.ravel()[0]) for name, v in found.items() if name in wanted} == wanted
    for name in wanted:
        assert (found[name] == wanted[name]).all(), name
    assert found.keys() - wanted.keys() == {"layer1.W.bias", "layer1.reverse.W.bias"}


def test_default_is_what_a_part_has_where_nothing_is_said(pairs: Path) -> None:
    plain = started(pairs, decoding())
    found = started(pairs, decoding(init="pytorch", input__init="default"))
    assert np.array_equal(found["input.weight"], plain["input.weight"])
    assert not np.array_equal(found["layer1.W.x"], plain["layer1.W.x"])
    everything = started(pairs, decoding(init="default"))
    assert all(np.array_equal(everything[name], plain[name]) for name in plain)


def test_the_same_job_starts_from_the_same_bits(pairs: Path) -> None:
    first, again, other = (started(pairs, decoding(init="pytorch"), s) for s in (3, 3, 4))
    assert all(first[name].tobytes() == again[name].tobytes() for name in first)
    assert all(first[name].tobytes() != other[name].tobytes() for name in first)


def limits(values: np.ndarray) -> float:
    return float(np.abs(values).max())


def test_pytorch_means_what_its_pages_say(pairs: Path) -> None:
    """Embedding N(0, 1); Linear U(±1/√inputs); LSTM and GRU U(±1/√hidden), also the biases."""
    found = started(pairs, decoding(init="pytorch", input__size=400, decoder__size=400))
    for name in ("input.weight", "decoder.input.weight"):
        assert np.std(found[name]) == pytest.approx(1, rel=0.05)
    for name, inputs in {
        "layer1.W.x": 5,
        "layer1.W.h": 5,
        "decoder.layer1.W.x": 6,
        "decoder.layer1.N.bias": 6,
        "decoder.layer1.M.bias": 6,
        "pool.weight": 10,
        "pool.bias": 10,
        "decoder.bridge.decoder.layer1.h.weight": 10,
        "decoder.bridge.decoder.layer1.h.bias": 10,
        "decoder.attention.out": 16,
        "output.weight": 6,
        "output.bias": 6,
    }.items():
        assert 0.6 / np.sqrt(inputs) < limits(found[name]) <= 1 / np.sqrt(inputs), name


def test_pytorch_adds_two_biases_where_there_is_one() -> None:
    """Its LSTM adds b_ih and b_hh, each U(±1/√H): their sum has the variance 2/(3 H)."""
    start = Recurrent("lstm", 2, 400, dtype="float64", init="pytorch").init(0)
    assert np.var(start["W.bias"]) == pytest.approx(2 / (3 * 400), rel=0.08)
    assert limits(start["W.bias"]) <= 2 / np.sqrt(400)
    assert abs(start["W.bias"].mean()) < 0.005  # no forget bias
    alone = Recurrent("gru", 2, 400, dtype="float64", init="pytorch").init(0)
    assert np.var(alone["M.bias"]) == pytest.approx(1 / (3 * 400), rel=0.12)


def test_keras_means_what_its_pages_say(pairs: Path) -> None:
    """Embedding U(±0.05); kernels Glorot; recurrent kernels orthogonal as a whole; biases 0, and
    1 of the forget gate."""
    found = started(pairs, decoding(init="keras", input__size=400))
    assert 0.04 < limits(found["input.weight"]) <= 0.05
    assert limits(found["output.bias"]) == 0
    limit = np.sqrt(6 / (400 + 4 * 5))  # of the four gates' joined matrix
    assert 0.95 * limit < limits(found["layer1.W.x"]) <= limit
    kernel = found["layer1.W.h"]  # (5, 20)
    assert np.allclose(kernel @ kernel.T, np.eye(5), atol=1e-12)
    assert found["layer1.W.bias"].tolist() == [0] * 5 + [1] * 5 + [0] * 10
    relu = Recurrent("elman", 2, 5, dtype="float64", init="keras").init(0)["W.h"]
    assert np.allclose(relu @ relu.T, np.eye(5), atol=1e-12)


@pytest.mark.parametrize(
    ("cell", "inputs", "states"),
    [
        ("gru", ["W.x", "N.x"], ["W.h", "M.h"]),
        ("gru_reset_before", ["W.x", "N.x"], ["W.h", "N.v1"]),
        ("mgu", ["W.x", "W2.x"], ["W.h", "W2.v1"]),
        ("mgu_gate_after", ["W.x", "N.x"], ["W.h", "M.h"]),
        ("lstm", ["W.x"], ["W.h"]),
    ],
)
def test_keras_draws_the_gates_of_a_layer_as_one_matrix(
    cell: str, inputs: list[str], states: list[str]
) -> None:
    found = Recurrent(cell, 7, 50, dtype="float64", init="keras").init(0)
    kernel = np.hstack([found[name] for name in inputs])
    limit = np.sqrt(6 / (7 + kernel.shape[1]))
    assert 0.99 * limit < limits(kernel) <= limit
    assert len(np.unique(kernel)) == kernel.size  # no draw is there twice
    recurrent = np.hstack([found[name] for name in states])
    assert recurrent.shape[1] == kernel.shape[1]
    assert np.allclose(recurrent @ recurrent.T, np.eye(50), atol=1e-12)


def test_keras_leaves_projections_and_both_directions_apart(pairs: Path) -> None:
    """A layer of each direction has its own matrices; a projection is no gate of its layer."""
    cell = {"cell": "gru", "hidden": 6, "bidirectional": True}
    found = started(pairs, decoding(layers=[cell], init="keras"))
    for layer in ("layer1", "layer1.reverse", "decoder.layer1"):
        kernel = np.hstack([found[f"{layer}.{name}.h"] for name in ("W", "M")])
        assert np.allclose(kernel @ kernel.T, np.eye(6), atol=1e-12), layer
    cut = LSTMProjection(projection=4)
    one = Recurrent(cut, 3, 4, dtype="float64", init="keras").init(0)
    for name in ("W.h", "projection.v0"):
        assert np.allclose(one[name] @ one[name].T, np.eye(4), atol=1e-12), name


def test_a_layer_that_keras_starts_in_part_joins_that_part() -> None:
    layer = Recurrent("gru", 7, 50, dtype="float64", init={"recurrent": "keras"})
    found, plain = layer.init(0), Recurrent("gru", 7, 50, dtype="float64").init(0)
    assert np.std(found["M.h"]) == pytest.approx(1 / np.sqrt(150), rel=0.02)
    for name in ("W.x", "N.x"):
        assert np.array_equal(found[name], plain[name])


def test_a_layer_on_arrays_takes_init_too() -> None:
    layer = Recurrent("elman", 2, 3, init={"recurrent": "identity:0.5", "bias": "constant:2"})
    start = layer.init(0)
    assert np.array_equal(start["W.h"], 0.5 * np.eye(3, dtype=np.float32))
    assert (start["W.bias"] == 2).all()
    assert np.array_equal(start["W.x"], Recurrent("elman", 2, 3).init(0)["W.x"])
    for init, sentence in {
        "unifrm": "did you mean 'uniform'",
        "uniform:0": "above 0",
    }.items():
        with pytest.raises(JobError, match=f"^init: .*{sentence}"):
            Recurrent("elman", 2, 3, init=init)
    with pytest.raises(JobError, match="did you mean 'weight'"):
        Recurrent("elman", 2, 3, init={"wieght": "ones"})


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("zeros", ("zeros", [])),
        ("normal", ("normal", [1.0])),
        ("uniform:1e-2", ("uniform", [0.01])),
        ("linspace:-1:2", ("linspace", [-1.0, 2.0])),
    ],
)
def test_the_grammar(text: str, parsed: tuple[str, list[float]]) -> None:
    assert parse(text) == parsed
    check_text(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "there is no initialiser ''"),
        ("pytroch", "did you mean 'pytorch'"),
        ("uniform:", "written uniform:NUMBER"),
        ("uniform:1:2", "written uniform:NUMBER"),
        ("uniform:nan", "written uniform:NUMBER"),
        ("normal:inf", "written normal:NUMBER"),
        ("uniform:-0.1", "takes a number above 0"),
        ("triangular:0", "takes a number above 0"),
        ("chrono:2", "takes a number above 2"),
        ("pytorch:1", "there is no initialiser 'pytorch:1'"),
    ],
)
def test_what_is_no_initialiser(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_text(text)


def test_a_part_that_says_little_leaves_the_rest_to_the_model() -> None:
    part = Init.read({"recurrent": "identity"})
    assert part.over(Init.read("pytorch")) == Init("pytorch", "identity", "pytorch")
    assert Init.read({"weight": "ones"}) == Init("ones", "ones", None)
    assert Init.read("uniform:0.1") == Init("uniform:0.1", "uniform:0.1", None)
    assert Init.read(None) == Init()
    peephole = Parameter("p", (3,), ("uniform:0.1",), False)
    assert Init.read("pytorch").applied(peephole) is peephole


def wrong(model: Any) -> list[str]:
    with pytest.raises(JobError) as error:
        read_job(
            {"data": {"path": "d", "mode": "examples", "target": "label"}, "model": model},
            source="job",
        )
    return list(error.value.errors)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"init": "unifrm:0.1"}, "model.init: there is no initialiser 'unifrm:0.1'; did you"),
        ({"input__init": "uniform:-1"}, "model.input.init: .* takes a number above 0"),
        ({"input__init": {"bias": "zeros"}}, "model.input.init.bias: an embedding has no bias"),
        ({"input__init": {"recurrent": "zeros"}}, "model.input.init.recurrent: it has no rec"),
        ({"pool": "mean", "pool_init": "ones"}, "model.pool_init: only pool = 'attention'"),
        ({"decoder__attention": "none", "decoder__attention_init": "ones"}, "_init: there is no a"),
        ({"decoder__attention_init": {"bias": "ones"}}, "attention_init.bias: an attention has no"),
        ({"output": {"init": "ones"}}, "model.output.init: with a decoder .*decoder.output_init"),
        ({"decoder__output_init": {"bias": "orthogonal"}}, "output_init.bias: 'orthogonal' is for"),
        ({"init": {"wieght": "ones"}}, "model.init: should be an initialiser of all weights"),
        ({"init": 0.1}, "model.init: should be an initialiser of all weights of every part"),
    ],
)
def test_keys_that_mean_nothing_are_refused(keys: Any, sentence: str) -> None:
    (found,) = wrong(decoding(**keys))
    assert re.search(f"^job: .*{sentence}", found), found


def test_parts_without_weights_refuse_them() -> None:
    layers = [{"cell": "gru", "hidden": 3, "init": {"recurrent": "normal:-1"}}]
    model: Any = {"input": {"kind": "none", "init": "ones"}, "layers": layers, "loss": "mse"}
    first, second = wrong(model)
    assert "model.input.init: an input of kind = 'none' has no weights" in first
    assert "model.layers.0.init.recurrent: the initialiser 'normal:-1' takes" in second
    tied: Any = {
        "input": {"kind": "embedding", "size": 3},
        "layers": [{"cell": "gru", "hidden": 3}],
        "output": {"tied": True, "bias": False, "init": {"weight": "ones", "bias": "ones"}},
        "loss": "cross_entropy",
    }
    first, second = wrong(tied)
    assert "model.output.init.weight: the weights of a tied output are the embedding's" in first
    assert "model.output.init.bias: the output has no bias" in second


def test_a_forget_bias_that_an_init_takes_the_place_of_is_refused() -> None:
    layers = [{"cell": "lstm", "hidden": 3, "forget_bias": 2.0}]
    model: Any = {"input": {"kind": "none"}, "layers": layers, "loss": "mse", "init": "pytorch"}
    (found,) = wrong(model)
    assert "model.layers.0.forget_bias: the biases start as init says, which is 'pytorch'" in found
    for init in ("keras", "uniform:0.1", {"weight": "pytorch"}):
        read_job({"data": {"path": "d"}, "model": model | {"init": init}})
    layers[0]["forget_bias"] = 1.0  # as it is where nothing is said
    read_job({"data": {"path": "d"}, "model": model})


def test_a_resolved_job_keeps_them(tmp_path: Path) -> None:
    raw: Any = {
        "data": {"path": "d"},
        "model": {
            "input": {"kind": "embedding", "size": 3},
            "layers": [{"cell": "gru", "hidden": 3, "init": {"recurrent": "identity"}}],
            "init": "uniform:0.1",
            "loss": "cross_entropy",
        },
    }
    job = read_job(raw, base=tmp_path)
    again = read_job(job.to_dict(), base=tmp_path)
    assert again == job
    assert initial(again.model)["layer1"] == Init("uniform:0.1", "identity", None)


def test_the_schema_describes_them() -> None:
    schema = job_schema(Registry.load())
    places = {"ModelTable": "init", "InputTable": "init", "OutputTable": "init"}
    places |= {"DecoderTable": "bridge_init"}
    for table, key in places.items():
        assert "'uniform:0.1'" in schema["$defs"][table]["properties"][key]["description"]
    (lstm,) = [v for v in schema["$defs"]["LayerTable"]["anyOf"] if v.get("title") == "lstm"]
    assert "pytorch" in lstm["properties"]["init"]["description"]
