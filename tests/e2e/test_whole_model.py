"""A trained model, rebuilt from its checkpoint for onnxruntime, gives the same outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import rnnfarm
from rnnfarm.nn.layer import Memory, Pass
from rnnfarm.plugins import Registry
from rnnfarm.training.checkpoint import newest_checkpoint
from rnnfarm.training.run import open_run

HIDDEN = 12
TEXT = "so much depends upon a red wheel barrow glazed with rain water\n" * 40


def trained(folder: Path) -> Path:
    (folder / "text.txt").write_text(TEXT)
    job = {
        "data": {
            "path": str(folder / "data"),
            "build": {"reader": "bytes", "files": [str(folder / "text.txt")], "valid": 0.2},
        },
        "model": {
            "input": {"kind": "embedding", "size": 10},
            "layers": [
                {"cell": "lstm", "hidden": HIDDEN, "dropout": 0.2},
                {"cell": "gru", "hidden": HIDDEN, "residual": True},
            ],
            "loss": "cross_entropy",
        },
        "training": {
            "batch": 4,
            "window": 16,
            "steps": 30,
            "optimizer": {"name": "adam", "lr": 1e-2},
        },
    }
    rnnfarm.train(job, out=folder / "run")
    return folder / "run"


def onnx_model(parameters: dict[str, np.ndarray]) -> onnxruntime.InferenceSession:
    """The same network from ONNX's own operators, time first."""

    def gates(name: str, order: list[tuple[str, int, int]]) -> np.ndarray:
        blocks = [
            np.split(parameters[f"{weight}.{name}"], count, axis=-1)[position]
            for weight, position, count in order
        ]
        return np.concatenate(blocks, axis=-1)

    iofc = [("layer1.W", k, 4) for k in (0, 3, 1, 2)]
    zr = [("layer2.W", 0, 2), ("layer2.W", 1, 2)]
    x_gates, h_gates = [*zr, ("layer2.N", 0, 1)], [*zr, ("layer2.M", 0, 1)]
    zeros = np.zeros(2 * HIDDEN, np.float32)
    constants = {
        "table": parameters["input.weight"],
        "W1": gates("x", iofc).T[None],
        "R1": gates("h", iofc).T[None],
        "B1": np.concatenate([gates("bias", iofc), np.zeros(4 * HIDDEN, np.float32)])[None],
        "W2": gates("x", x_gates).T[None],
        "R2": gates("h", h_gates).T[None],
        "B2": np.concatenate([gates("bias", x_gates), zeros, parameters["layer2.M.bias"]])[None],
        "weight": parameters["output.weight"],
        "bias": parameters["output.bias"],
        "direction": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["x"]),
        helper.make_node("LSTM", ["x", "W1", "R1", "B1"], ["y1"], hidden_size=HIDDEN),
        helper.make_node("Squeeze", ["y1", "direction"], ["h1"]),
        helper.make_node(
            "GRU", ["h1", "W2", "R2", "B2"], ["y2"], hidden_size=HIDDEN, linear_before_reset=1
        ),
        helper.make_node("Squeeze", ["y2", "direction"], ["h2"]),
        helper.make_node("Add", ["h1", "h2"], ["h"]),
        helper.make_node("MatMul", ["h", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, [None, None])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, None, None])],
        [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)])
    model.ir_version = 8
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def test_a_trained_model_agrees_with_onnxruntime(tmp_path: Path) -> None:
    run = trained(tmp_path)
    checkpoint = newest_checkpoint(run / "checkpoints")
    assert checkpoint is not None
    reference = onnx_model(checkpoint.group("parameters"))

    opened = open_run(run, Registry.load())
    tokens = np.frombuffer(TEXT[:240].encode(), np.uint8).reshape(8, 30).T  # (T, B)
    network = opened.model.network
    start = Pass(
        training=False,
        seed=0,
        step=0,
        lane=0,
        mask=None,
        reset=None,
        states=network.zero_states(8),
        carry=30,
        memory=Memory(),
    )
    ours, _ = network.forward(opened.parameters, tokens, start)
    (theirs,) = reference.run(None, {"tokens": tokens.astype(np.int64)})
    assert ours.shape == (30, 8, 256)
    assert np.ptp(theirs) > 1.0  # it has learned something to disagree about
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
