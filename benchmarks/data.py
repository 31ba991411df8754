"""The promises about data, as JSON: reading windows, building in constant memory, opening.

    python benchmarks/data.py [--megabytes 1000] [--readers bytes,characters,words]

reading: microseconds of one read of a window, and its part of a training step (forward and backward
of an LSTM layer of that shape with the NumPy kernel), timed in turns with it.
building: seconds and peak memory of a process that builds a dataset from one text file.
opening: seconds to open a dataset of 1,000 shards in a fresh process, imports not included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from rnnfarm import Recurrent
from rnnfarm.data import Column, Dataset, DatasetWriter, Examples, Streams, Windows, open_dataset

BUILD = """
import json, resource, re, sys, time
from rnnfarm.data.build import build_from_settings
from rnnfarm.plugins import Registry

reader, text, path, sequence = sys.argv[1:]
start = time.perf_counter()
settings = {"files": [text], "sequence": sequence}
dataset = build_from_settings(reader, settings, path, Registry.load())
if sys.platform == "linux":  # where ru_maxrss is inherited from the process that started this one
    peak = 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
else:
    unit = 1 if sys.platform == "darwin" else 1024
    peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({
    "seconds": round(time.perf_counter() - start, 2),
    "peak_megabytes": round(peak / 1e6, 1),
    "steps": dataset.info()["steps"],
    "sequences": dataset.splits["train"].sequences,
}))
"""

OPEN = """
import json, sys, time
from rnnfarm.data import open_dataset

start = time.perf_counter()
dataset = open_dataset(sys.argv[1])
opened = time.perf_counter() - start
dataset.split("train").read("tokens", 0, 10)
print(json.dumps({
    "shards": len(dataset.splits["train"].shards),
    "seconds": round(opened, 4),
    "seconds_with_a_first_read": round(time.perf_counter() - start, 4),
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--readers", default="bytes,characters,words")
    parser.add_argument("--repeat", type=int, default=2000, help="windows read")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = {
            "schema": 1,
            "reading": reading(Path(folder), args.repeat),
            "building": building(Path(folder), args.megabytes, args.readers.split(",")),
            "opening": opening(Path(folder)),
        }
    print(json.dumps(report, indent=1))


def reading(folder: Path, repeat: int) -> list[dict[str, object]]:
    """Reads of windows that no one has read before, over sequences of about 15,000 steps."""
    rng = np.random.default_rng(0)
    columns = {"tokens": Column.tokens(256), "values": Column.values(7)}
    with DatasetWriter(folder / "reading", columns) as writer:
        for length in rng.exponential(15_000, 2000).astype(int) + 2:
            values = rng.standard_normal((length, 7), dtype=np.float32)
            writer.append("train", {"tokens": rng.integers(0, 256, length), "values": values})
    dataset = open_dataset(folder / "reading")
    found = []
    for batch, window, hidden in ((32, 64, 256), (64, 35, 640)):
        layer = Recurrent("lstm", hidden, hidden, kernel="numpy")
        for column in columns:
            for windows in sources(dataset, column, batch, window):
                took, steps = time_reads(windows, repeat, layer)
                median, step = statistics.median(took), statistics.median(steps)
                found.append(
                    {
                        "how": type(windows).__name__.lower(),
                        "column": column,
                        "batch": batch,
                        "window": window,
                        "hidden": hidden,
                        "microseconds": round(median * 1e6, 1),
                        "p99_microseconds": round(statistics.quantiles(took, n=100)[98] * 1e6, 1),
                        "step_ms": round(step * 1e3, 1),
                        "percent_of_a_step": round(median / step * 100, 3),
                    }
                )
    return found


def sources(dataset: Dataset, column: str, batch: int, window: int) -> list[Windows]:
    split = dataset.split("train")
    return [
        Streams(split, input=column, target="next", batch=batch, window=window),
        Examples(split, input=column, target="next", batch=batch, window=window, seed=0),
    ]


def time_reads(windows: Windows, repeat: int, layer: Recurrent) -> tuple[list[float], list[float]]:
    """Seconds of each read, and of a training step now and then between them."""
    parameters = layer.init(0)
    x = np.ones((windows.window, windows.batch, layer.inputs), np.float32)
    windows.read(0)
    took, steps = [], []
    for n in range(1, repeat + 1):
        start = time.perf_counter()
        windows.read(n)
        took.append(time.perf_counter() - start)
        if n % (repeat // 8) == 0:
            start = time.perf_counter()
            y, _, saved = layer.forward(parameters, x)
            layer.backward(saved, y)
            steps.append(time.perf_counter() - start)
    return took, steps


def building(folder: Path, megabytes: int, readers: list[str]) -> list[dict[str, object]]:
    text = folder / "text.txt"
    write_text(text, megabytes)
    found = []
    for reader in readers:
        for sequence in ("file", "line") if reader == "bytes" else ("file",):
            command = [sys.executable, "-c", BUILD, reader, str(text)]
            path = folder / f"{reader}-{sequence}"
            result = json.loads(subprocess.check_output([*command, str(path), sequence]))
            found.append({"reader": reader, "sequence": sequence, "megabytes": megabytes, **result})
    return found


def write_text(path: Path, megabytes: int) -> None:
    """Lines of words, a few of them frequent and 300,000 in all."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkqjxz"))
    words = np.array(
        ["".join(rng.choice(letters, rng.integers(1, 10))) for _ in range(300_000)], object
    )
    with path.open("w") as file:
        while file.tell() < megabytes * 1_000_000:
            ranks = np.minimum(rng.zipf(1.2, 20_000), len(words)) - 1
            picked = words[ranks]
            file.writelines(" ".join(line) + "\n" for line in picked.reshape(-1, 10))


def opening(folder: Path) -> dict[str, object]:
    with DatasetWriter(
        folder / "opening", {"tokens": Column.tokens(256)}, shard_bytes=1000
    ) as writer:
        for _ in range(1000):
            writer.append("train", {"tokens": np.zeros(2000, np.uint8)})
    command = [sys.executable, "-c", OPEN, str(folder / "opening")]
    runs = [json.loads(subprocess.check_output(command)) for _ in range(5)]
    return dict(sorted(runs, key=lambda run: run["seconds"])[2])


if __name__ == "__main__":
    main()
