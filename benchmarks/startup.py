"""How long ``rnnfarm --help`` and ``rnnfarm plugins`` take to start, as JSON.

Each is measured against a script that only imports click and pluggy and reads the entry-point
group. The three take turns, so that a busy machine slows all alike; medians are compared.

    python benchmarks/startup.py [--rounds 20]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

BASELINE = (
    "import click, pluggy; from importlib.metadata import entry_points; "
    "list(entry_points(group='rnnfarm'))"
)
COMMANDS = {
    "baseline": [sys.executable, "-c", BASELINE],
    "help": [sys.executable, "-m", "rnnfarm", "--help"],
    "plugins": [sys.executable, "-m", "rnnfarm", "plugins"],
}


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    for command in COMMANDS.values():  # the files' way into the cache is no part of it
        seconds(command)
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    medians = {name: statistics.median(values) for name, values in times.items()}
    report = {
        "benchmark": "startup",
        "rounds": rounds,
        "median_ms": {name: round(1e3 * median, 1) for name, median in medians.items()},
        "ratio": {n: round(medians[n] / medians["baseline"], 3) for n in ("help", "plugins")},
        "target": 1.5,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
