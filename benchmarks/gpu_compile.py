"""What the generated CUDA of every cell takes of a GPU: registers, shared memory, spills.

Compiles all kernels of a cell, forward and backward, for several architectures. It takes NVRTC, and
no GPU. One JSON line for each cell, precision and architecture; ``dynamic_shared`` is what a
stage's kernel asks for with 64 rows, ``spill_bytes`` of all kernels together, and exit code 1 means
that a kernel spills or that one does not compile.

    python benchmarks/gpu_compile.py [--archs sm_80,sm_90] [--only CELL] [--variant plain]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from rnnfarm_cupy.compiler import compile_cubin, missing_compiler
from rnnfarm_cupy.host import HostRuntime
from rnnfarm_cupy.kernel import CUDAKernel, CUDAWindowKernel
from rnnfarm_cupy.source import StageCode

from rnnfarm.equations.plan import make_plan
from rnnfarm.errors import DeviceError
from rnnfarm.kernels.case import variants
from rnnfarm.plugins import Registry

#: The width of the input and of the hidden states. Code depends on it no further.
INPUTS, HIDDEN = 128, 256
#: Settings that a cell does not have by itself.
SETTINGS: dict[str, dict[str, Any]] = {"lstm_projection": {"projection": 64}}
#: What is compiled, and whether in float64.
PRECISIONS = ("full", "tf32", "bf16", "float64")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--archs", default="sm_80,sm_90")
    parser.add_argument("--only", metavar="CELL")
    parser.add_argument("--variant", default="plain", choices=list(variants()))
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    problem = missing_compiler()
    if problem is not None:
        print(problem, file=sys.stderr)
        sys.exit(4)
    names = Registry.load().names("cells")
    if options.only is not None and options.only not in names:
        parser.error(f"there is no cell {options.only!r}; there are {', '.join(names)}")
    tasks = [
        (name, precision, arch, options.variant)
        for name in names
        for precision in PRECISIONS
        for arch in options.archs.split(",")
        if options.only in (None, name)
    ]
    failed, largest, started = 0, 0, time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, context) as pool:
        for result in pool.map(compiled, tasks):
            print(json.dumps(result), flush=True)
            failed += result["error"] is not None or result["spill_bytes"] > 0
            largest = max(largest, result["registers"])
    took = time.perf_counter() - started
    print(
        f"{len(tasks)} programs in {took:.0f} s: {largest} registers at most, "
        f"{failed} with spills or errors",
        file=sys.stderr,
    )
    sys.exit(failed > 0)


def compiled(task: tuple[str, str, str, str]) -> dict[str, Any]:
    """The figures of one program."""
    name, precision, arch, variant = task
    cell = Registry.load().get("cells", name)(**SETTINGS.get(name, {}))
    plan = make_plan(cell, INPUTS, HIDDEN, variants(tuple(cell.states))[variant])
    double = precision == "float64"
    built = CUDAKernel(HostRuntime(), "full" if double else precision).build(
        plan, "float64" if double else "float32"
    )
    assert isinstance(built, CUDAWindowKernel)
    stages = [code for code in built.codes if isinstance(code, StageCode)]
    result: dict[str, Any] = {
        "cell": name,
        "variant": variant,
        "precision": precision,
        "arch": arch,
        "kernels": 0,
        "registers": 0,
        "largest": None,
        "static_shared": 0,
        "dynamic_shared": max((code.shared(64, built.word) for code in stages), default=0),
        "spill_bytes": 0,
        "spilling": [],
        "seconds": None,
        "error": None,
    }
    start = time.perf_counter()
    try:
        kernels = compile_cubin(built.source, arch).kernels
    except DeviceError as error:
        return result | {"error": str(error)}
    most = max(kernels, key=lambda kernel: kernel.registers)
    return result | {
        "kernels": len(kernels),
        "registers": most.registers,
        "largest": most.name,
        "static_shared": max(kernel.shared for kernel in kernels),
        "spill_bytes": sum(kernel.spill_bytes for kernel in kernels),
        "spilling": [kernel.name for kernel in kernels if kernel.spill_bytes],
        "seconds": round(time.perf_counter() - start, 2),
    }


if __name__ == "__main__":
    main()
