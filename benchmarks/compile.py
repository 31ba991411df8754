"""How long a compiled kernel takes to be ready: at its first use, and from then on.

The first use plans, writes C, compiles it and checks it against the reference; the second, in
another process, plans, writes the same C and finds the library in the cache.

    python benchmarks/compile.py [--cells lstm,gru,…]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile

TARGETS = {"first_s": 3.0, "second_ms": 20.0}
CELLS = "Elman,Jordan,LSTM,LSTMPeephole,LSTMLayerNorm,GRU,GRUResetBefore,MGU,IndRNN"
PROGRAM = """
import sys, time
from rnnfarm.builtin import cells
from rnnfarm.equations.plan import make_plan
from rnnfarm.kernels.choose import KernelChoice
from rnnfarm_cpu.kernel import CPUKernel
name, hidden = sys.argv[1], int(sys.argv[2])
warm = make_plan(cells.Elman(), 2, 2)
CPUKernel().refusal(warm, "cpu", "float32")
plan = make_plan(getattr(cells, name)(), hidden, hidden)
start = time.perf_counter()
KernelChoice({"cpu": CPUKernel()}).build(plan)
print(time.perf_counter() - start)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", default=CELLS)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for name in options.cells.split(","):
        with tempfile.TemporaryDirectory() as folder:
            first = seconds(name, options.hidden, folder)
            later = sorted(seconds(name, options.hidden, folder) for _ in range(options.rounds))
        second = later[len(later) // 2]
        result = {
            "cell": name,
            "hidden": options.hidden,
            "first_s": round(first, 2),
            "second_ms": round(second * 1e3, 1),
        }
        print(json.dumps(result), flush=True)
    print(json.dumps({"schema": 1, "targets": TARGETS}))


def seconds(name: str, hidden: int, folder: str) -> float:
    """The time until a kernel is ready, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, name, str(hidden)],
        env=os.environ | {"RNNFARM_CACHE": folder},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


if __name__ == "__main__":
    main()
