"""A training step of the NumPy kernel against its own matrix products, timed beside it.

A step is the forward and the backward of one window, with the gradients of all parameters, of the
input and of the initial state. Its own matrix products are all ``np.matmul`` calls that the
generated source makes, in the same order, on arrays of the same shapes, with nothing in between;
operands that are parts of wider arrays or transposed views are contiguous copies here, made
beforehand. Both run in turns in one process; the ratio is the median of the ratios of neighbours,
since other work on the machine comes and goes. ``best`` are the shortest times of each.

    python benchmarks/numpy_kernel.py [--cells lstm,gru] [--threads 1,2] [--rounds 40]
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from rnnfarm.builtin import cells
from rnnfarm.equations.plan import make_plan
from rnnfarm.kernels.numpy import NumPyKernel, NumPyWindowKernel, Workspace

#: (B, T, H), with inputs as wide as the hidden states.
SIZES = ((32, 64, 256), (64, 35, 640))
CELLS = {
    "elman": cells.Elman,
    "lstm": cells.LSTM,
    "lstm_peephole": cells.LSTMPeephole,
    "lstm_layer_norm": cells.LSTMLayerNorm,
    "gru": cells.GRU,
    "gru_reset_before": cells.GRUResetBefore,
}
TARGET = 1.4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", default="lstm,gru")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    results = [
        measure(name, *sizes, threads, options.rounds)
        for name in options.cells.split(",")
        for sizes in SIZES
        for threads in map(int, options.threads.split(","))
    ]
    worst = max(result["ratio"] for result in results)
    print(json.dumps({"schema": 1, "target": TARGET, "worst": worst, "results": results}, indent=1))


def measure(name: str, B: int, T: int, H: int, threads: int, rounds: int) -> dict[str, object]:
    """Median milliseconds of a step and of its products."""
    kernel = NumPyKernel().build(make_plan(CELLS[name](), H, H), "float32")
    with threadpool_limits(threads):
        step, run_products, count = _step(kernel, B, T, H)
        taken: dict[str, list[float]] = {"step": [], "products": []}
        for round_number in range(rounds + 3):
            for key, run in (("step", step), ("products", run_products)):
                start = time.perf_counter()
                run()
                if round_number >= 3:  # the first ones warm the caches
                    taken[key].append(time.perf_counter() - start)
    pairs = zip(taken["step"], taken["products"], strict=True)
    return {
        "cell": name,
        "batch": B,
        "window": T,
        "hidden": H,
        "threads": threads,
        "products": count,
        "step_ms": round(statistics.median(taken["step"]) * 1e3, 2),
        "products_ms": round(statistics.median(taken["products"]) * 1e3, 2),
        "ratio": round(statistics.median(step / products for step, products in pairs), 3),
        "best_step_ms": round(min(taken["step"]) * 1e3, 2),
        "best_products_ms": round(min(taken["products"]) * 1e3, 2),
    }


def _step(
    kernel: NumPyWindowKernel, B: int, T: int, H: int
) -> tuple[Callable[[], None], Callable[[], None], int]:
    """A training step, its products alone, and how many products these are."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.05).astype("float32")

    plan = kernel.plan
    parameters = {n: normal(*p.shape) for n, p in plan.parameters.items()}
    gradients = {n: np.empty_like(a) for n, a in parameters.items()}
    states = {n: normal(B, w) for n, w in plan.states.items()}
    x, d_output = normal(T, B, H), normal(T, B, H)
    workspace = kernel.workspace(T, B)

    def step() -> None:
        kernel.forward(workspace, parameters, x, states, {})
        kernel.backward(workspace, d_output, {}, gradients)

    step()
    calls = _contiguous(
        _products(kernel, workspace, (T, B, parameters, {"x": x}, d_output, gradients))
    )

    def products() -> None:
        for a, b, out in calls:
            np.matmul(a, b, out)

    return step, products, len(calls)


Product = tuple[np.ndarray, np.ndarray, np.ndarray]


class _Recorder:
    """NumPy, but for ``matmul``, whose arguments it takes down."""

    def __init__(self) -> None:
        self.calls: list[Product] = []

    def __getattr__(self, name: str) -> object:
        return getattr(np, name)

    def matmul(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        self.calls.append((a, b, out))
        np.matmul(a, b, out)


def _products(kernel: NumPyWindowKernel, workspace: Workspace, arguments: tuple) -> list[Product]:
    """Run the generated source once, and take down every product that it makes."""
    recorder = _Recorder()
    namespace: dict[str, object] = {"np": recorder}
    exec(kernel.source, namespace)
    T, B, parameters, given, d_output, gradients = arguments
    namespace["forward"](workspace, T, B, parameters, given)
    namespace["backward"](workspace, T, B, parameters, given, d_output, gradients, True, None)
    expected = len(re.findall(r"np\.matmul", kernel.source))
    assert len(recorder.calls) >= expected
    return recorder.calls


def _contiguous(calls: list[Product]) -> list[Product]:
    """The same products on contiguous operands; those that share an operand share its copy."""
    copies: dict[tuple, np.ndarray] = {}

    def copy(array: np.ndarray) -> np.ndarray:
        key = (array.ctypes.data, array.shape, array.strides)
        return copies.setdefault(key, np.ascontiguousarray(array))

    return [(copy(a), copy(b), copy(out)) for a, b, out in calls]


if __name__ == "__main__":
    main()
