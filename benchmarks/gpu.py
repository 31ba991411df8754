"""The generated CUDA on a GPU: first checked against float64 on the CPU, then timed.

Checks: every cell, with every precision and every variant of a plan, at odd sizes, and every kernel
that is timed over a few steps of its own size. A check that fails is a row with its ``error``, and
the exit code is 1 in the end.

Times: medians of several runs by the GPU's own clock, after a warm-up, in turns with PyTorch where
it can be imported: cuDNN's layer in the same precision (float32 with TF32 forbidden, or allowed, or
all of it in bfloat16), and for the MGU, which cuDNN has not, a plain loop over a few steps, whose
time is scaled to the window as the row says. Both forwards keep what a backward needs, and both
backwards give the gradients of the input and of the parameters. ``floor_ms`` is what the GPU takes
at least: the larger of the products' operations by its peak for the precision, and of the bytes by
its bandwidth, where parameters, input, output, saved values and their gradients are moved once.
``persistent`` says which passes go through all steps in one kernel, and how it is spread over the
GPU; ``predicted_us_per_step`` is what the choice was made by (without the products over the whole
window, which ``us_per_step`` has), and ``stepwise_us_per_step`` the time with kernels for every
step.

Prints one JSON object a row on stdout, and progress and a table on stderr. The run keeps to its
minutes: what does not fit any more is left out, and the last row says what that was. Programs are
compiled by as many processes as there are cores, and kept as a training run keeps them.

    python benchmarks/gpu.py [--only CELL] [--quick] [--minutes 8] [--host]

``--host`` runs all of it on the CPU's stand-in for a GPU, at tiny sizes: a test of this script and
of the kernels' arithmetic; the times mean nothing. Without a GPU the exit code is 4.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import importlib
import json
import multiprocessing
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from rnnfarm_cupy import compiler
from rnnfarm_cupy.host import HostRuntime, find_compiler
from rnnfarm_cupy.kernel import CUDAKernel, CUDAWindowKernel
from rnnfarm_cupy.predict import describe
from rnnfarm_cupy.resident import choices
from rnnfarm_cupy.runtime import PRECISIONS, Runtime
from rnnfarm_cupy.workspace import Workspace

from rnnfarm.builtin import cells
from rnnfarm.equations.parts import Cell
from rnnfarm.equations.plan import Plan, make_plan
from rnnfarm.kernels.case import Arrays, Case, case_of, disagreement, variants
from rnnfarm.kernels.numpy import NumPyKernel

#: (B, T, H); the input is as wide as the hidden states.
SHAPES = (
    (16, 1024, 768),
    (64, 256, 512),
    (256, 128, 1024),
    (32, 1024, 256),
    (128, 512, 2048),
)
HOST_SHAPES = ((3, 9, 12), (19, 8, 17))
#: What is timed.
TIMED = ("lstm", "gru", "elman", "mgu", "mgu_gate_after", "lstm_peephole", "indrnn_tanh")
#: Those of them that PyTorch has, or that are a short loop there.
COMPARED = ("lstm", "gru", "elman", "mgu")
CELLS: dict[str, Callable[[], Cell]] = {
    "lstm": cells.LSTM,
    "gru": cells.GRU,
    "elman": cells.Elman,
    "mgu": cells.MGU,
    "mgu_gate_after": cells.MGUGateAfter,
    "elman_relu": lambda: cells.Elman(activation="relu"),
    "jordan": cells.Jordan,
    "lstm_peephole": cells.LSTMPeephole,
    "lstm_projection": lambda: cells.LSTMProjection(projection=5),
    "lstm_layer_norm": cells.LSTMLayerNorm,
    "gru_reset_before": cells.GRUResetBefore,
    "indrnn": cells.IndRNN,
    "indrnn_tanh": lambda: cells.IndRNN(activation="tanh"),
}
#: Their slope jumps: a rounded state falls on the other side of it.
FULL_ONLY = ("elman_relu", "indrnn")
#: Widths of the input and of the hidden states of the checks, and their (T, B): with one block of
#: rows and with several, with steps enough for a graph and with few.
CHECK_WIDTHS, HOST_CHECK_WIDTHS = (33, 70), (9, 17)
CHECK_WINDOWS, HOST_CHECK_WINDOWS = ((5, 19), (9, 70), (1, 1)), ((5, 19),)
#: Steps over which the kernels that are timed are checked.
FEW = 3
#: The largest difference, relative to the largest element.
TOLERANCE = {"full": 3e-5, "tf32": 4e-3, "bf16": 4e-2}
#: Operations a second in each precision, dense, and bytes a second, by a part of the GPU's name.
PEAKS: tuple[tuple[str, dict[str, float], float], ...] = (
    (r"\bGH200\b", {"full": 66.9e12, "tf32": 494.7e12, "bf16": 989.4e12}, 4.0e12),
    (r"\bH200\b", {"full": 66.9e12, "tf32": 494.7e12, "bf16": 989.4e12}, 4.8e12),
    (r"\bH100 PCIe\b", {"full": 51.2e12, "tf32": 378e12, "bf16": 756e12}, 2.0e12),
    (r"\bH100 NVL\b", {"full": 60e12, "tf32": 417.5e12, "bf16": 835.5e12}, 3.9e12),
    (r"\bH100\b", {"full": 66.9e12, "tf32": 494.7e12, "bf16": 989.4e12}, 3.35e12),
    (r"\bA100.*80GB", {"full": 19.5e12, "tf32": 156e12, "bf16": 312e12}, 1.935e12),
    (r"\bA100\b", {"full": 19.5e12, "tf32": 156e12, "bf16": 312e12}, 1.555e12),
)
#: The part of the time that checks of small sizes may take, and seconds kept for the last row.
CHECKS, RESERVE = 0.5, 30.0
#: Runs of a measurement: so many, and as long in all.
LEAST, MOST, SECONDS = 3, 15, 0.4
#: Steps of PyTorch's plain loop.
LOOP = 32
PASSES = ("forward", "forward+backward")
Run = Callable[[], None]


@dataclass(frozen=True)
class Task:
    """A program: what it is made of."""

    cell: str
    inputs: int
    hidden: int
    variant: str
    precision: str

    def plan(self) -> Plan:
        return plan_of(self.cell, self.inputs, self.hidden, self.variant)

    def build(self, runtime: Runtime) -> CUDAWindowKernel:
        built = CUDAKernel(runtime, self.precision).build(self.plan(), "float32")
        assert isinstance(built, CUDAWindowKernel)
        return built


@functools.lru_cache(maxsize=8)
def plan_of(cell: str, inputs: int, hidden: int, variant: str) -> Plan:
    made = CELLS[cell]()
    return make_plan(made, inputs, hidden, variants(tuple(made.states))[variant])


@dataclass
class Bench:
    """One run of the benchmark.

    Attributes:
        torch: the module, None where it cannot be imported or has no GPU.
        peaks: of the GPU: operations and bytes a second; None where they are not known.
        ends: when no row starts any more.
    """

    runtime: Runtime
    torch: Any
    peaks: tuple[dict[str, float], float] | None
    ends: float
    compiling: dict[Task, Future[None]]
    rows: list[dict[str, Any]] = field(default_factory=list)
    failed: int = 0
    skipped: list[str] = field(default_factory=list)

    def add(self, row: dict[str, Any]) -> None:
        print(json.dumps(row), flush=True)
        self.rows.append(row)
        if row["error"] is not None:
            self.failed += 1
            print(f"FAILED {title(row)}: {row['error']}", file=sys.stderr, flush=True)

    def skip(self, row: dict[str, Any]) -> None:
        self.skipped.append(title(row))

    def wait(self, task: Task, until: float) -> bool:
        """Whether a program is compiled in time; what is wrong with it shows where it is built."""
        future = self.compiling.get(task)
        if future is None:
            return time.monotonic() < until
        with contextlib.suppress(Exception):
            future.exception(timeout=max(0.0, until - time.monotonic()))
        return future.done() and not future.cancelled() and time.monotonic() < until


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", metavar="CELL", choices=list(CELLS))
    parser.add_argument("--quick", action="store_true", help="few variants and one shape")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--host", action="store_true", help="the CPU's stand-in, tiny sizes")
    options = parser.parse_args()
    started = time.monotonic()
    seconds = options.minutes * 60
    runtime = the_runtime(options.host)
    checks = check_tasks(options.only, options.quick, options.host)
    timed = timed_tasks(options.only, options.quick, options.host)
    ends = started + max(0.0, seconds - RESERVE)
    # Those that are timed come early: they are worth more than the last variants.
    plain = [task for task in checks if task.variant == "plain"]
    others = [task for task in checks if task.variant != "plain"]
    with compiling([*plain, *(task for task, _ in timed), *others], runtime) as futures:
        torch = None if options.host else the_torch()
        bench = Bench(runtime, torch, peaks_of(runtime.name), ends, futures)
        check_all(bench, checks, started + CHECKS * seconds, options.host)
        for task, future in futures.items():
            if not any(task == one for one, _ in timed):
                future.cancel()
        for task, _ in timed:  # nothing else works while times are taken
            bench.wait(task, ends)
        time_all(bench, timed)
    table(bench)
    result = {
        "schema": 1,
        "device": runtime.name,
        "torch": getattr(torch, "__version__", None),
        "rows": len(bench.rows),
        "failed": bench.failed,
        "skipped": bench.skipped,
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(result), flush=True)
    sys.exit(bench.failed > 0)


def the_runtime(host: bool) -> Runtime:
    """What runs the kernels; exits where there is nothing."""
    if host:
        if find_compiler() is None:
            print("the stand-in takes a C++ compiler; install g++", file=sys.stderr)
            sys.exit(4)
        return HostRuntime()
    from rnnfarm_cupy.gpu import CuPyRuntime, missing_gpu

    problem = missing_gpu()
    if problem is not None:
        print(problem, file=sys.stderr)
        sys.exit(4)
    return CuPyRuntime()


def the_torch() -> Any:
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        print("PyTorch cannot be imported; rows are without it", file=sys.stderr)
        return None
    if not torch.cuda.is_available():
        print("PyTorch has no GPU; rows are without it", file=sys.stderr)
        return None
    return torch


def peaks_of(name: str) -> tuple[dict[str, float], float] | None:
    for pattern, operations, bandwidth in PEAKS:
        if re.search(pattern, name):
            return operations, bandwidth
    return None


# -- programs -----------------------------------------------------------------------------------


def check_tasks(only: str | None, quick: bool, host: bool) -> list[Task]:
    """Small programs: the plain ones first, then all at once, then one thing at a time."""
    inputs, hidden = HOST_CHECK_WIDTHS if host else CHECK_WIDTHS
    kinds = ["plain", "all", *(kind for kind in variants() if kind not in ("plain", "all"))]
    return [
        Task(cell, inputs, hidden, kind, precision)
        for kind in (kinds[:2] if quick else kinds)
        for cell in CELLS
        for precision in PRECISIONS
        if only in (None, cell) and not (cell in FULL_ONLY and precision != "full")
    ]


def timed_tasks(only: str | None, quick: bool, host: bool) -> list[tuple[Task, tuple[int, int]]]:
    """What is timed, with its batch and steps."""
    shapes = HOST_SHAPES if host else SHAPES
    return [
        (Task(cell, H, H, "plain", precision), (B, T))
        for B, T, H in (shapes[:1] if quick else shapes)
        for cell in TIMED
        for precision in PRECISIONS
        if only in (None, cell)
    ]


@contextlib.contextmanager
def compiling(tasks: list[Task], runtime: Runtime) -> Iterator[dict[Task, Future[None]]]:
    """Processes that compile programs in order, for this one to find them compiled."""
    context = multiprocessing.get_context("spawn")
    arch = getattr(runtime, "arch", None)
    with ProcessPoolExecutor(os.cpu_count() or 1, context) as pool:
        try:
            yield {task: pool.submit(compile_one, task, arch) for task in dict.fromkeys(tasks)}
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def compile_one(task: Task, arch: str | None) -> None:
    runtime = HostRuntime()
    source = task.build(runtime).source
    if arch is None:
        runtime.load(source)
    else:
        compiler.load_program(source, arch)


# -- checks -------------------------------------------------------------------------------------


def check_all(bench: Bench, tasks: list[Task], until: float, host: bool) -> None:
    """Small sizes, every variant."""
    for number, task in enumerate(tasks):
        row: dict[str, Any] = {
            "cell": task.cell,
            "variant": task.variant,
            "precision": task.precision,
            "pass": "check",
            "error": None,
        }
        if not bench.wait(task, until):
            bench.skip(row)
            continue
        if number % 20 == 0:
            print(f"check {number + 1} of {len(tasks)}", file=sys.stderr, flush=True)
        try:
            ours, theirs = task.build(bench.runtime), NumPyKernel().build(task.plan(), "float64")
            for seed, window in enumerate(HOST_CHECK_WINDOWS if host else CHECK_WINDOWS):
                numbers = tamed(case_of(theirs, window, seed, "float32"))
                expected = as_float64(numbers).arrays()
                problem = differs(numbers, ours, expected, task.precision)
                if problem is not None:
                    row["error"] = f"(T, B) = {window}: {problem}"
                    break
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {error}"
        bench.add(row)


def differs(numbers: Case, ours: CUDAWindowKernel, expected: Arrays, precision: str) -> str | None:
    """Where the kernel does not agree with what is expected of the numbers."""
    found = replace(numbers, kernel=ours).arrays()
    with np.errstate(all="ignore"):
        return disagreement(found, expected, TOLERANCE[precision])


def tamed(case: Case) -> Case:
    """Weights so small that the states do not run away."""
    smaller = {
        name: array / array.dtype.type(np.sqrt(len(array)) if array.ndim == 2 else 2.0)
        for name, array in case.parameters.items()
    }
    return replace(case, parameters=smaller)


def as_float64(case: Case) -> Case:
    def wide(arrays: Arrays) -> Arrays:
        kept = np.bool_
        return {n: a if a.dtype == kept else a.astype(np.float64) for n, a in arrays.items()}

    return replace(
        case,
        parameters=wide(case.parameters),
        x=case.x.astype(np.float64),
        states=wide(case.states),
        extras=wide(case.extras),
        d_output=case.d_output.astype(np.float64),
        d_states=wide(case.d_states),
    )


# -- times --------------------------------------------------------------------------------------


def time_all(bench: Bench, tasks: list[tuple[Task, tuple[int, int]]]) -> None:
    """All rows; one shape and cell after the other, whose numbers all precisions share."""
    shape: tuple[int, ...] = ()
    inputs: dict[str, np.ndarray] = {}
    checked: tuple[Case, Arrays] | None = None
    cell = ""
    for task, (B, T) in tasks:
        rows: list[dict[str, Any]] = [
            {
                "cell": task.cell,
                "B": B,
                "T": T,
                "H": task.hidden,
                "precision": task.precision,
                "pass": one,
                "ms": None,
                "us_per_step": None,
                "torch_ms": None,
                "torch": None,
                "ratio_to_torch": None,
                "floor_ms": None,
                "persistent": None,
                "predicted_us_per_step": None,
                "stepwise_us_per_step": None,
                "stepwise_predicted_us_per_step": None,
                "error": None,
            }
            for one in PASSES
        ]
        if not bench.wait(task, bench.ends):
            for row in rows:
                bench.skip(row)
            continue
        try:
            if shape != (B, T, task.hidden):
                shape = (B, T, task.hidden)
                inputs = made_inputs(B, T, task.hidden)
                cell = ""
            if cell != task.cell:
                cell, checked = task.cell, None
                numbers = case_of(
                    NumPyKernel().build(task.plan(), "float64"), (min(T, FEW), B), 0, "float32"
                )
                checked = numbers, as_float64(numbers).arrays()
            assert checked is not None
            built = task.build(bench.runtime)
            problem = differs(checked[0], built, checked[1], task.precision)
            for row in rows:
                row["error"] = problem
            measure(bench, built, rows, inputs)
        except Exception as error:
            for row in rows:
                row["error"] = row["error"] or f"{type(error).__name__}: {error}"
        for row in rows:
            bench.add(row)
        print(
            f"{title(rows[0])}: {rows[0]['ms']} ms, with the backward {rows[1]['ms']}",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        release(bench)


def made_inputs(B: int, T: int, H: int) -> dict[str, np.ndarray]:
    """An input and a gradient of the output."""
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal((T, B, H), dtype=np.float32) for name in ("x", "gradient of y")
    }


def made_weights(plan: Plan) -> Arrays:
    """Weights so small that the gates are not saturated."""
    rng = np.random.default_rng(1)
    return {
        name: rng.standard_normal(p.shape, dtype=np.float32) * np.float32(0.5 * p.shape[0] ** -0.5)
        for name, p in plan.parameters.items()
    }


def measure(
    bench: Bench, built: CUDAWindowKernel, rows: list[dict[str, Any]], inputs: Arrays
) -> None:
    """Fill in the times of both passes."""
    plan = built.plan
    B, T, precision = rows[0]["B"], rows[0]["T"], rows[0]["precision"]
    workspace = built.workspace(T, B)
    ours = our_runs(bench.runtime, built, inputs, workspace)
    by_steps = our_runs(bench.runtime, built, inputs, Workspace(built, T, B, None))
    found = choices(built.written.loops, B, built.arithmetic, bench.runtime.figures())
    theirs: list[Run] | None = None
    scale, note = 1.0, None
    if bench.torch is not None and rows[0]["cell"] in COMPARED:
        try:
            theirs, scale, note = torch_runs(
                bench.torch, bench.runtime, rows[0]["cell"], precision, inputs
            )
        except Exception as error:  # a row without PyTorch is better than none
            note = f"failed: {type(error).__name__}: {str(error).splitlines()[0]}"
    for number, row in enumerate(rows):
        row["floor_ms"] = floor_ms(bench.peaks, plan, B, T, precision, backward=number > 0)
        row["torch"] = note
        runs = {"ours": ours[number]}
        if workspace.resident is not None:
            runs["by steps"] = by_steps[number]
        passes = found[: number + 1]  # the forward, and then the backward
        row["persistent"] = "; ".join(
            describe(one.prediction)
            for one in passes
            if one.prediction is not None
            and workspace.resident is not None
            and one.region in workspace.resident.codes
        )
        predicted = sum(
            one.prediction.seconds if one.persistent and one.prediction else one.stepwise
            for one in passes
        )
        row["predicted_us_per_step"] = round(predicted * 1e6, 3)
        row["stepwise_predicted_us_per_step"] = round(sum(one.stepwise for one in passes) * 1e6, 3)
        if theirs is not None:
            runs["torch"] = theirs[number]
        try:
            taken = in_turns(bench.runtime, runs)
        except Exception as error:
            if theirs is None:
                raise
            row["torch"] = note = f"failed: {type(error).__name__}: {str(error).splitlines()[0]}"
            theirs = None
            taken = in_turns(bench.runtime, {"ours": ours[number]})
        row["ms"] = round(taken["ours"] * 1e3, 4)
        row["us_per_step"] = round(taken["ours"] * 1e6 / T, 3)
        if "by steps" in taken:
            row["stepwise_us_per_step"] = round(taken["by steps"] * 1e6 / T, 3)
        if "torch" in taken:
            row["torch_ms"] = round(taken["torch"] * scale * 1e3, 4)
            row["ratio_to_torch"] = round(taken["ours"] / (taken["torch"] * scale), 3)


def our_runs(
    runtime: Runtime, built: CUDAWindowKernel, inputs: Arrays, workspace: Workspace
) -> list[Run]:
    """The forward, and both passes."""
    plan = built.plan
    B = inputs["x"].shape[1]
    parameters = {name: runtime.put(array) for name, array in made_weights(plan).items()}
    gradients = {name: runtime.empty(p.shape, np.float32) for name, p in plan.parameters.items()}
    states = {
        name: runtime.put(np.zeros((B, width), np.float32)) for name, width in plan.states.items()
    }
    x, d_output = runtime.put(inputs["x"]), runtime.put(inputs["gradient of y"])

    def forward() -> None:
        built.forward(workspace, parameters, x, states, {})

    def both() -> None:
        forward()
        built.backward(workspace, d_output, {}, gradients)

    return [forward, both]


def in_turns(runtime: Runtime, runs: dict[str, Run]) -> dict[str, float]:
    """Median seconds of each, run in turns."""
    longest = 0.0
    for run in runs.values():
        run()  # compiles, allocates and records
        longest = max(longest, runtime.elapsed(run))
    repeats = max(LEAST, min(MOST, int(SECONDS / max(longest, 1e-6))))
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            taken[name].append(runtime.elapsed(run))
    return {name: statistics.median(times) for name, times in taken.items()}


def floor_ms(
    peaks: tuple[dict[str, float], float] | None,
    plan: Plan,
    B: int,
    T: int,
    precision: str,
    backward: bool,
) -> float | None:
    """Milliseconds that the GPU takes at least."""
    if peaks is None:
        return None
    operations, bandwidth = peaks
    passes = 3 if backward else 1
    multiplied = sum(p.shape[0] * p.shape[1] for p in plan.parameters.values() if len(p.shape) == 2)
    weights = sum(int(np.prod(p.shape)) for p in plan.parameters.values())
    output = plan.states[plan.output]
    # Values of a row: states are outputs or saved, and count as one of the two.
    kept = sum(plan.states.values()) + sum(symbol.width for symbol in plan.saved)
    moved = plan.width_in + kept
    if backward:
        # Read again what was kept; the input for the weights, and its gradient and the output's.
        moved += kept + 2 * plan.width_in + output
        weights *= 3  # read twice, and as many gradients
    seconds = max(
        passes * 2.0 * multiplied * B * T / operations[precision],
        4.0 * (weights + moved * B * T) / bandwidth,
    )
    return round(seconds * 1e3, 4)


def release(bench: Bench) -> None:
    """Give memory back, for PyTorch and CuPy each keep what they had."""
    gc.collect()
    if bench.torch is not None:
        bench.torch.cuda.empty_cache()
    if not isinstance(bench.runtime, HostRuntime):
        importlib.import_module("cupy").get_default_memory_pool().free_all_blocks()


# -- PyTorch ------------------------------------------------------------------------------------


def torch_runs(
    torch: Any, runtime: Any, cell: str, precision: str, inputs: Arrays
) -> tuple[list[Run], float, str]:
    """PyTorch's forward and both passes, by what to multiply their time, and what they are."""
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    # Its work goes where the events are.
    stream = torch.cuda.ExternalStream(runtime.stream.ptr)
    steps = len(inputs["x"])
    few = min(steps, LOOP) if cell == "mgu" else steps

    def given(name: str) -> Any:
        return torch.from_numpy(inputs[name][:few]).to("cuda", dtype)

    with torch.cuda.stream(stream):
        x, d_output = given("x").requires_grad_(), given("gradient of y")
        forward, weights = torch_layer(torch, cell, x, dtype)

    def once() -> None:
        with torch.cuda.stream(stream):
            forward()

    def both() -> None:
        with torch.cuda.stream(stream):
            for tensor in (x, *weights):
                tensor.grad = None
            forward().backward(d_output)

    note = "cuDNN" if cell != "mgu" else f"a loop of {few} steps, scaled"
    return [once, both], steps / few, note


def torch_layer(torch: Any, cell: str, x: Any, dtype: Any) -> tuple[Callable[[], Any], list[Any]]:
    """What gives the output of all steps, and its parameters."""
    H = x.shape[2]
    kinds = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "elman": torch.nn.RNN}
    if cell in kinds:
        layer = kinds[cell](H, H).to("cuda", dtype)
        layer.flatten_parameters()
        return lambda: layer(x)[0], list(layer.parameters())
    assert cell == "mgu"

    def weight(*shape: int) -> Any:
        scale = 0.5 * shape[0] ** -0.5
        return (torch.randn(*shape, device="cuda", dtype=dtype) * scale).requires_grad_()

    inside, bias = weight(H, 2 * H), weight(2 * H)
    of_f, of_n = weight(H, H), weight(H, H)

    def loop() -> Any:
        before = torch.addmm(bias, x.flatten(0, 1), inside).view(len(x), -1, 2 * H)
        h, outputs = torch.zeros_like(x[0]), []
        for step in before.unbind():
            f = torch.sigmoid(torch.addmm(step[:, :H], h, of_f))
            n = torch.tanh(torch.addmm(step[:, H:], f * h, of_n))
            h = h + f * (n - h)
            outputs.append(h)
        return torch.stack(outputs)

    return loop, [inside, bias, of_f, of_n]


# -- what is said -------------------------------------------------------------------------------


def title(row: dict[str, Any]) -> str:
    """A row's name."""
    if row["pass"] == "check":
        return f"check of {row['cell']}, {row['variant']}, {row['precision']}"
    sizes = f"B {row['B']} T {row['T']} H {row['H']}"
    return f"{row['cell']}, {sizes}, {row['precision']}, {row['pass']}"


def table(bench: Bench) -> None:
    """Everything, to be read."""
    columns = ("ms", "us_per_step", "predicted_us_per_step", "stepwise_us_per_step")
    columns += ("torch_ms", "ratio_to_torch", "floor_ms")
    lines = [bench.runtime.name]
    heads = ("cell", "B", "T", "H", "precision", "pass")
    widths = (6, 4, 5, 5, 9, 16)
    lines.append(
        " ".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True))
        + "".join(f"{column.removesuffix('_per_step'):>15}" for column in columns)
    )
    for row in bench.rows:
        if row["pass"] == "check":
            continue
        numbers = ("-" if row[column] is None else f"{row[column]:g}" for column in columns)
        lines.append(
            " ".join(f"{row[head]:>{width}}" for head, width in zip(heads, widths, strict=True))
            + "".join(f"{number:>15}" for number in numbers)
            + ("  FAILED" if row["error"] else "")
            + (f"  ({row['torch']})" if row["torch"] not in (None, "cuDNN") else "")
        )
    checks = [row for row in bench.rows if row["pass"] == "check"]
    wrong = sum(row["error"] is not None for row in checks)
    lines.append(f"{len(checks)} checks, {wrong} failed; {bench.failed} rows failed in all")
    if bench.skipped:
        lines.append(f"no time for {len(bench.skipped)}: {'; '.join(bench.skipped)}")
    print("\n".join(lines), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
