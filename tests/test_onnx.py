"""Forward results agree with onnxruntime's RNN, LSTM and GRU operators."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest
from kernel_tools import VARIANTS, Arrays, Case, make_case
from onnx import TensorProto, helper

from rnnfarm.builtin import cells
from rnnfarm.equations.parts import Cell

Reference = Callable[[Case, np.ndarray | None], tuple[np.ndarray, np.ndarray]]

TOLERANCE = 1e-5
SIZES = ((9, 4, 5, 6), (1, 1, 1, 1), (20, 3, 16, 32))
LENGTHS = (9, 1, 4, 6)


def gates(parameters: Arrays, name: str, order: tuple[str, ...], parts: dict[str, str]) -> list:
    """The blocks of a parameter in ONNX's order of gates.

    ``parts`` says where each is: ``"W 1 4"`` is the second of the four gates of ``W.NAME``.
    """
    found = []
    for gate in order:
        parameter, position, count = parts[gate].split()
        array = parameters[f"{parameter}.{name}"]
        found.append(np.split(array, int(count), axis=-1)[int(position)])
    return found


def run_onnx(
    operator: str, case: Case, inputs: dict[str, np.ndarray | None], **attributes: object
) -> tuple[np.ndarray, np.ndarray]:
    """The output of every step ``(T, B, H)`` and the last one ``(B, H)``."""
    given = {"X": case.x, **inputs}
    kinds = {np.dtype("float32"): TensorProto.FLOAT, np.dtype("int32"): TensorProto.INT32}
    names = [name if array is not None else "" for name, array in given.items()]
    node = helper.make_node(
        operator, names, ["Y", "Y_h"], hidden_size=case.plan.hidden, **attributes
    )
    given = {name: array for name, array in given.items() if array is not None}
    graph = helper.make_graph(
        [node],
        "one_operator",
        [
            helper.make_tensor_value_info(name, kinds[array.dtype], array.shape)
            for name, array in given.items()
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * axes)
            for name, axes in (("Y", 4), ("Y_h", 3))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    y, last = session.run(None, given)
    return y[:, 0], last[0]


def weights(case: Case, order: tuple[str, ...], x: dict[str, str], h: dict[str, str]) -> Arrays:
    """``W`` and ``R`` as ONNX wants them: one direction, gates below each other."""
    return {
        "W": np.concatenate(gates(case.parameters, "x", order, x), axis=1).T[None].copy(),
        "R": np.concatenate(gates(case.parameters, "h", order, h), axis=1).T[None].copy(),
    }


def biases(case: Case, order: tuple[str, ...], x: dict[str, str], h: dict[str, str]) -> np.ndarray:
    """ONNX's two biases: that of the input's product, and that of the state's."""
    first = gates(case.parameters, "bias", order, x)
    second = [
        gates(case.parameters, "bias", (gate,), h)[0] if gate in h else np.zeros_like(part)
        for gate, part in zip(order, first, strict=True)
    ]
    return np.concatenate([*first, *second])[None]


def elman(case: Case, lengths: np.ndarray | None, activation: str) -> tuple[np.ndarray, np.ndarray]:
    whole = {"h": "W 0 1"}
    inputs = weights(case, ("h",), whole, whole)
    inputs |= {
        "B": biases(case, ("h",), whole, {}),
        "lengths": lengths,
        "h": case.states["h"][None],
    }
    return run_onnx("RNN", case, inputs, activations=[activation])


def lstm(case: Case, lengths: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    order = ("i", "o", "f", "g")
    parts = {"i": "W 0 4", "f": "W 1 4", "g": "W 2 4", "o": "W 3 4"}
    inputs = weights(case, order, parts, parts)
    inputs |= {
        "B": biases(case, order, parts, {}),
        "lengths": lengths,
        "h": case.states["h"][None],
        "c": case.states["c"][None],
    }
    if "peephole.i" in case.parameters:
        inputs["P"] = np.concatenate([case.parameters[f"peephole.{k}"] for k in "iof"])[None]
    return run_onnx("LSTM", case, inputs)


def gru(case: Case, lengths: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    order = ("z", "r", "n")
    after = "M.bias" in case.parameters
    x = {"z": "W 0 2", "r": "W 1 2", "n": "N 0 1"}
    inputs: dict[str, np.ndarray | None]
    if after:
        inputs = weights(case, order, x, x | {"n": "M 0 1"})
        bias = biases(case, order, x, {"n": "M 0 1"})
    else:
        # The product of the reset state is named for its place, not for a state.
        renamed = case.parameters | {"N.h": case.parameters["N.v1"]}
        inputs = weights(_with(case, renamed), order, x, x)
        bias = biases(case, order, x, {})
    inputs |= {"B": bias, "lengths": lengths, "h": case.states["h"][None]}
    return run_onnx("GRU", case, inputs, linear_before_reset=int(after))


def _with(case: Case, parameters: Arrays) -> Case:
    return Case(
        case.kernel, parameters, case.x, case.states, case.extras, case.d_output, case.d_states
    )


CELLS: dict[str, tuple[Cell, Reference]] = {
    "elman-tanh": (cells.Elman(), partial(elman, activation="Tanh")),
    "elman-sigmoid": (cells.Elman(activation="sigmoid"), partial(elman, activation="Sigmoid")),
    "elman-relu": (cells.Elman(activation="relu"), partial(elman, activation="Relu")),
    "lstm": (cells.LSTM(), lstm),
    "lstm-peephole": (cells.LSTMPeephole(), lstm),
    "gru-reset-after": (cells.GRU(), gru),
    "gru-reset-before": (cells.GRUResetBefore(), gru),
}


def check(case: Case, lengths: np.ndarray | None, reference: Reference) -> None:
    y, after = case.forward()
    expected, last = reference(case, lengths)
    valid = np.ones(y.shape[:2], bool)
    if lengths is not None:
        valid = np.arange(len(y))[:, None] < lengths
        assert not np.abs(expected[~valid]).any()  # ONNX gives zeros there, a mask the last state
    np.testing.assert_allclose(y[valid], expected[valid], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(after["h"], last, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_forward_agrees_with_onnxruntime(cell: str, sizes: tuple[int, int, int, int]) -> None:
    made, reference = CELLS[cell]
    check(_scaled(make_case(made, VARIANTS["plain"], sizes, dtype="float32")), None, reference)


@pytest.mark.parametrize("cell", CELLS)
def test_masks_agree_with_sequence_lengths(cell: str) -> None:
    made, reference = CELLS[cell]
    case = _scaled(make_case(made, VARIANTS["masks"], SIZES[0], dtype="float32"))
    lengths = np.array(LENGTHS, "int32")
    case.extras["mask?"] = (np.arange(len(case.x))[:, None] < lengths)[:, :, None]
    check(case, lengths, reference)


def _scaled(case: Case) -> Case:
    """Weights of the size that networks have, so that a relu network does not grow without end."""
    for array in case.parameters.values():
        array *= 0.5 / np.sqrt(case.plan.hidden)
    return case
