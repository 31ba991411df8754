"""What the cost model of the persistent GPU kernels says of a device, on any machine.

For each cell, shape and precision, and for the forward's and the backward's steps: the best
partition, what a step is predicted to take with it and in which parts, and what it is predicted to
take with kernels for every step. ``benchmarks/gpu.py`` measures on a GPU, and prints the same
predictions beside what it measures. The products over the whole window are in neither number.

Prints one JSON object a row on stdout, and a table on stderr.

    python benchmarks/gpu_model.py [--device H200|H100|A100] [--cell NAME]...
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

from gpu import SHAPES
from rnnfarm_cupy.figures import A100, H100, H200
from rnnfarm_cupy.predict import Choice
from rnnfarm_cupy.resident import choices, loops_of
from rnnfarm_cupy.runtime import PRECISIONS

from rnnfarm.builtin import cells
from rnnfarm.equations.plan import make_plan
from rnnfarm.equations.regions import Program

DEVICES = {"H200": H200, "H100": H100, "A100": A100}
CELLS = {
    "lstm": cells.LSTM,
    "gru": cells.GRU,
    "elman": cells.Elman,
    "mgu": cells.MGU,
    "mgu_gate_after": cells.MGUGateAfter,
    "lstm_peephole": cells.LSTMPeephole,
    "indrnn": cells.IndRNN,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=DEVICES, default="H200")
    parser.add_argument("--cell", choices=CELLS, action="append")
    given = parser.parse_args()
    figures = DEVICES[given.device]
    print(f"{figures.name}, microseconds of a step", file=sys.stderr)
    for cell in given.cell or CELLS:
        for B, T, H in SHAPES:
            plan = make_plan(CELLS[cell](), H, H)
            loops = loops_of(Program(plan))
            for precision in PRECISIONS:
                for choice in choices(loops, B, precision, figures):
                    row = {"cell": cell, "B": B, "T": T, "H": H, "precision": precision}
                    row |= {"device": figures.name, **row_of(choice)}
                    print(json.dumps(row), flush=True)
                    print(line(row), file=sys.stderr)


def row_of(choice: Choice) -> dict[str, Any]:
    """A choice as plain values, times in microseconds."""
    row: dict[str, Any] = {
        "pass": choice.region,
        "persistent": choice.persistent,
        "stepwise_us": round(choice.stepwise * 1e6, 2),
        "refusal": choice.refusal,
    }
    if choice.prediction is not None:
        one = choice.prediction
        row |= {
            "us": round(one.seconds * 1e6, 2),
            "parts_us": {name: round(seconds * 1e6, 2) for name, seconds in one.parts.items()},
            "groups": one.spread.groups,
            "registers": one.registers,
            "shared_bytes": one.shared,
            "partition": dataclasses.asdict(one.spread.partition),
        }
    return row


def line(row: dict[str, Any]) -> str:
    start = f"{row['cell']:13} {row['B']:4} {row['T']:5} {row['H']:5} {row['precision']:5} "
    start += f"{row['pass']:8} by steps {row['stepwise_us']:6.2f}"
    if row["refusal"]:
        return f"{start}; {row['refusal']}"
    partition = row["partition"]
    cluster = " cluster" if partition["cluster"] else ""
    return (
        f"{start}, persistent {row['us']:6.2f}{' *' if row['persistent'] else '  '} "
        f"{row['groups']} x {partition['slices']}{cluster}  {row['parts_us']}"
    )


if __name__ == "__main__":
    main()
