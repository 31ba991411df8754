"""Fused CPU kernels beside the NumPy kernel, a large matrix product, and PyTorch where it is there.

A measurement is one forward and one backward over a window, with the gradients of all parameters,
of the input and of the initial state; the input is as wide as the hidden states. All that is
compared runs in turns in one process, since other work on the machine comes and goes; times are
medians, ratios are medians of the ratios of neighbours. ``gflops`` counts the multiply-adds of all
matrix products of the window, two each, and ``of_gemm`` divides by what one large product reaches
in the same rounds. ``operations`` counts elementwise math too, as many for each operation as COSTS
says; ``predicted_ms`` is the LSTM's time of the same shape by that count, where ``lstm`` is among
the cells and comes first.

With several threads the NumPy kernel and the large product leave them to the BLAS, and the compiled
kernel has its own, with one BLAS thread, as a training run has it. The BLAS's threads spin for a
while after a product, so that everybody waits for them to sleep before a turn, and runs for a while
before it is timed, until its own threads are awake.

    python benchmarks/cpu_kernel.py [--cells lstm,gru,elman] [--threads 1,2] [--rounds 12] [--torch]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from rnnfarm.builtin import cells
from rnnfarm.equations.plan import Plan, make_plan
from rnnfarm.kernels.interface import Kernel
from rnnfarm.kernels.numpy import NumPyKernel

#: (B, T, H).
SHAPES = (
    (1, 256, 128),
    (16, 64, 128),
    (32, 64, 256),
    (64, 35, 640),
    (32, 128, 512),
    (128, 32, 1024),
)
CELLS: dict[str, Callable[[], Any]] = {
    "lstm": cells.LSTM,
    "gru": cells.GRU,
    "elman": cells.Elman,
    "mgu": cells.MGU,
    "lstm_peephole": cells.LSTMPeephole,
    "lstm_layer_norm": cells.LSTMLayerNorm,
    "indrnn": cells.IndRNN,
    "gru_reset_before": cells.GRUResetBefore,
    "jordan": cells.Jordan,
}
#: What an elementwise operation counts: an addition 1, others by what they take on a processor.
COSTS = {
    **dict.fromkeys(("tanh", "sigmoid", "exp", "log", "softplus"), 20),
    **dict.fromkeys(("div", "sqrt"), 8),
    **dict.fromkeys(("slice", "concat", "fill", "copy", "matmul", "matmul_transposed"), 0),
}
#: Seconds after which the threads of a BLAS sleep.
SLEEP = 0.06
#: Rows and columns of the large product.
LARGE = 2048
Run = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", default="lstm,gru,elman")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--shapes", default="", help="B,T,H;B,T,H;…")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--torch", action="store_true", help="measure PyTorch's layers too")
    options = parser.parse_args()
    shapes = [tuple(map(int, s.split(","))) for s in options.shapes.split(";") if s] or SHAPES
    results = []
    for threads in map(int, options.threads.split(",")):
        for B, T, H in shapes:
            lstm: dict[str, Any] | None = None
            for name in options.cells.split(","):
                result = measure(name, B, T, H, threads, options.rounds, options.torch)
                results.append(result)
                lstm = result if name == "lstm" else lstm
                if lstm is not None:
                    share = result["operations"] / lstm["operations"]
                    result["predicted_ms"] = round(lstm["cpu_ms"] * share, 3)
                    result["of_predicted"] = round(result["cpu_ms"] / result["predicted_ms"], 2)
                print(json.dumps(result), flush=True)
    print(json.dumps({"schema": 1, "results": len(results)}))


def measure(
    name: str, B: int, T: int, H: int, threads: int, rounds: int, with_torch: bool
) -> dict[str, Any]:
    """Median milliseconds of each contender."""
    from rnnfarm_cpu.kernel import CPUKernel

    plan = make_plan(CELLS[name](), H, H)
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((LARGE, LARGE)).astype("float32") for _ in range(2))
    out = np.empty_like(a)
    # A large product is timed once a round; small windows several times, to fill as long.
    runs: dict[str, Run] = {
        "cpu": window(CPUKernel(), plan, B, T, threads),
        "numpy": window(NumPyKernel(), plan, B, T, threads),
        "gemm": lambda: np.matmul(a, b, out),
    }
    if with_torch:
        layer = torch_window(name, B, T, H, threads)
        if layer is not None:
            runs["torch"] = layer
    taken: dict[str, list[float]] = {key: [] for key in runs}
    for run in runs.values():
        run()
    once = max(timed(runs["cpu"], 1), 1e-4)
    repeats = max(1, min(20, int(0.05 / once)))
    for _ in range(rounds):
        for key, run in runs.items():
            if threads > 1:
                time.sleep(SLEEP)
            with threadpool_limits(1 if key == "cpu" else threads):
                timed(run, 1 if key == "gemm" else repeats)  # threads find their cores
                taken[key].append(timed(run, 1 if key == "gemm" else repeats))
    flops = product_flops(plan, B * T)
    gemm = [2.0 * LARGE**3 / t / 1e9 for t in taken["gemm"]]
    result: dict[str, Any] = {
        "cell": name, "batch": B, "window": T, "hidden": H, "threads": threads,
        "cpu_ms": round(statistics.median(taken["cpu"]) * 1e3, 3),
        "numpy_ms": round(statistics.median(taken["numpy"]) * 1e3, 3),
        "speedup": ratio(taken["numpy"], taken["cpu"]),
        "operations": flops + elementwise_operations(plan, B * T),
        "gflops": round(flops / statistics.median(taken["cpu"]) / 1e9, 1),
        "gemm_gflops": round(statistics.median(gemm), 1),
        "of_gemm": round(
            statistics.median(
                flops / t / 1e9 / g for t, g in zip(taken["cpu"], gemm, strict=True)
            ), 3,
        ),
    }  # fmt: skip
    if "torch" in taken:
        result["torch_ms"] = round(statistics.median(taken["torch"]) * 1e3, 3)
        result["against_torch"] = ratio(taken["torch"], taken["cpu"])
    return result


def timed(run: Run, repeats: int) -> float:
    """Seconds of one run."""
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def ratio(slow: list[float], fast: list[float]) -> float:
    return round(statistics.median(s / f for s, f in zip(slow, fast, strict=True)), 2)


def window(kernel: Kernel, plan: Plan, B: int, T: int, threads: int) -> Run:
    """One forward and backward."""
    built = kernel.build(plan, "float32")
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.05).astype("float32")

    parameters = {n: normal(*p.shape) for n, p in plan.parameters.items()}
    gradients = {n: np.empty_like(p) for n, p in parameters.items()}
    states = {n: normal(B, w) for n, w in plan.states.items()}
    x, d_output = normal(T, B, plan.width_in), normal(T, B, plan.states[plan.output])
    workspace = built.workspace(T, B, threads)

    def run() -> None:
        built.forward(workspace, parameters, x, states, {})
        built.backward(workspace, d_output, {}, gradients)

    return run


def torch_window(name: str, B: int, T: int, H: int, threads: int) -> Run | None:
    """PyTorch's own layer, where it has one and is installed."""
    try:
        import torch
    except ImportError:
        return None
    kinds = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "elman": torch.nn.RNN}
    if name not in kinds:
        return None
    torch.set_num_threads(threads)
    layer = kinds[name](H, H)
    x = torch.randn(T, B, H, requires_grad=True)
    h = torch.zeros(1, B, H, requires_grad=True)
    start = (h, torch.zeros(1, B, H, requires_grad=True)) if name == "lstm" else h
    d_output = torch.randn(T, B, H)

    def run() -> None:
        layer.zero_grad(set_to_none=True)
        x.grad = None
        layer(x, start)[0].backward(d_output)

    return run


def product_flops(plan: Plan, rows: int) -> float:
    """Operations of all matrix products of a window of ``rows`` rows, two for each multiply-add."""
    forward = [s for stage in plan.stages for s in stage.products]
    products = [*forward, *plan.prologue, *plan.backward_step, *plan.epilogue]
    total = sum(
        w.shape[0] * w.shape[1]
        for s in products
        if s.op in ("matmul", "matmul_transposed")
        for w in s.attribute
    )
    total += sum(w.shape[0] * w.shape[1] for g in plan.weight_gradients for w in g.weights)
    return 2.0 * rows * total


def elementwise_operations(plan: Plan, rows: int) -> float:
    """Elementwise operations of a window of ``rows`` rows, counted as COSTS says."""
    stages = [s for stage in plan.stages for s in stage.elementwise]
    symbols = [*stages, *plan.prologue, *plan.backward_step, *plan.epilogue]
    total = sum(
        COSTS.get(s.op, 1) * max(s.width, s.args[0].width if s.args else 1) for s in symbols
    )
    total += sum(p.shape[0] for n, p in plan.parameters.items() if n in plan.vector_gradients)
    return float(rows * total)


if __name__ == "__main__":
    main()
