"""Every kind of file that rnnfarm reads: how it is damaged, and what then reads it."""

from __future__ import annotations

import io
import random
import struct
import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from fuzz.mutations import (
    Change,
    bytes_changed,
    cell_changed,
    head_changed,
    json_changed,
    line_changed,
    tree_changed,
    whole_changed,
)
from fuzz.reading import (
    CHECKPOINT,
    answer,
    answer_split,
    answer_table,
    building,
    evaluate,
    job,
    read_dataset,
    read_remade_dataset,
    read_remade_state,
    read_run,
    remade,
    report,
    resume,
    train_anew,
)
from fuzz.seeds import npz_of
from fuzz.tables import csv_changed, parquet_changed


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        file: which file of the seeds is damaged.
        changes: the ways to damage it.
        read: reads the folder, and returns what was found, by which a changed result is seen.
        guarded: whether a checksum guards it, so that another result is a wrong one.
    """

    file: str
    changes: tuple[Change, ...]
    read: Callable[[Path], str]
    guarded: bool = False


def facts_changed(data: bytes, rng: random.Random) -> bytes:
    return remade(json_changed(data, rng))


def toml_changed(data: bytes, rng: random.Random) -> bytes:
    """Change values of a TOML file, which has no null and no integer beyond 64 bits."""
    while True:
        try:
            made = tomli_w.dumps(tree_changed(tomllib.loads(data.decode()), rng))
            tomllib.loads(made)
        except (TypeError, ValueError, AttributeError):
            continue
        return made.encode()


def npy_changed(data: bytes, rng: random.Random) -> bytes:
    """Write another header before the values of a .npy file."""
    shape = rng.choice(
        ["(10**12, 2)", "(1000000000000, 2)", "(True, 3)", "(-1, 2)", "()", "(0,)", "(40,)",
         "(2147483647, 2147483647)", "(40, 2, 1)", "'x'", "(40.0, 2)", "None", "(40, 2)"]
    )  # fmt: skip
    kind = rng.choice(
        ["'<f4'", "'|O'", "'<c16'", "'<f2'", "'<M8[D]'", "'|S3'", "'<U9'", "'|V4'", "'>f4'",
         "'|b1'", "[('a', '<f4')]", "'<i8'", "3", "'<f16'"]
    )  # fmt: skip
    order = rng.choice(["False", "True", "1", "'x'"])
    header = f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    if rng.random() < 0.2:
        header = header[: rng.randrange(len(header))]
    header += b" " * (63 - len(header) % 64) + b"\n"
    return data[:8] + struct.pack("<H", len(header)) + header + data[128:]


def npz_changed(data: bytes, rng: random.Random) -> bytes:
    """Pack arrays in other ways: another compression, odd names, members that are none."""
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        members = {name: packed.read(name) for name in packed.namelist()}
    name = rng.choice(list(members))
    kind = rng.randrange(5)
    if kind == 0:
        members[name] = npy_changed(members[name], rng)
    elif kind == 1:
        members = {rng.choice(["x", "../x.npy", "values", "é.npy"]): members[name]}
    elif kind == 2:
        members[name] = bytes_changed(members[name], rng)
    elif kind == 3:
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (125000000, 2), }"
        header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
        head = b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header
        members[name] = head + bytes(rng.choice([1 << 20, 30 << 20]))
    return npz_of(members, rng.choice([0, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, 14]))


def arrow_changed(data: bytes, rng: random.Random) -> bytes:
    """Put odd numbers into the offsets and values of an Arrow file."""
    at = rng.randrange(len(data) // 8) * 8
    odd = struct.pack("<Q", rng.choice([0, 1, 2**31 - 1, 2**63 - 1, 2**64 - 1, 0x7FC0000000000000]))
    return data[:at] + odd + data[at + 8 :]


def safetensors_changed(data: bytes, rng: random.Random) -> bytes:
    """Change the header of a safetensors file, with its length right."""
    size = int.from_bytes(data[:8], "little")
    header = json_changed(data[8 : 8 + size], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


BYTES = (bytes_changed, bytes_changed, head_changed, whole_changed)
TEXT = (bytes_changed, whole_changed, cell_changed, cell_changed)
KINDS: dict[str, Kind] = {
    "dataset.json": Kind(
        "data/dataset.json", (json_changed, bytes_changed, whole_changed), read_dataset
    ),
    "shard": Kind("data/shard-00000.arrow", (*BYTES, arrow_changed), read_dataset, guarded=True),
    "shard, checksum anew": Kind(
        "data/shard-00000.arrow", (*BYTES, arrow_changed), read_remade_dataset
    ),
    "manifest.json": Kind("run/manifest.json", (json_changed, whole_changed), read_run),
    "manifest.json, and a file": Kind(
        "table-run/manifest.json", (json_changed, json_changed, whole_changed), answer_table
    ),
    "job.toml, and a file": Kind("table-run/job.toml", (toml_changed, *BYTES), answer_table),
    "table to predict": Kind("files/table.csv", (*TEXT, csv_changed), answer_table),
    "dataset.json of a reader": Kind(
        "table/dataset.json", (json_changed, json_changed, whole_changed), answer_split
    ),
    "shard of a reader": Kind("table/shard-00000.arrow", (*BYTES, arrow_changed), answer_split),
    "checkpoint.json": Kind(
        f"{CHECKPOINT}/checkpoint.json", (bytes_changed, json_changed, whole_changed), resume, True
    ),
    "checkpoint.json, checksum anew": Kind(
        f"{CHECKPOINT}/checkpoint.json", (facts_changed,), resume
    ),
    "state.safetensors": Kind(f"{CHECKPOINT}/state.safetensors", BYTES, resume, True),
    "state, checksum anew": Kind(
        f"{CHECKPOINT}/state.safetensors", (*BYTES, safetensors_changed), read_remade_state
    ),
    "run.json": Kind("run/run.json", (json_changed, whole_changed, bytes_changed), report),
    "metrics.jsonl": Kind("run/metrics.jsonl", (line_changed, *BYTES), report),
    "metrics.jsonl of a run that goes on": Kind(
        "run/metrics.jsonl", (line_changed, *BYTES), resume
    ),
    "job.toml": Kind("run/job.toml", (toml_changed, toml_changed, *TEXT), job),
    "job.toml of a run": Kind("run/job.toml", (toml_changed, *BYTES), evaluate),
    "training, checksum anew": Kind("data/shard-00000.arrow", (*BYTES, arrow_changed), train_anew),
    "csv": Kind(
        "files/table.csv", (*TEXT, csv_changed, csv_changed), building("csv", files=["table.csv"])
    ),
    "csv with time": Kind(
        "files/table.csv", TEXT,
        building("csv", files=["table.csv"], time="day", group="group", missing="mask"),
    ),
    "odd parquet": Kind(
        "files/table.parquet", (parquet_changed,), building("parquet", files=["table.parquet"])
    ),
    "parquet with gaps": Kind(
        "files/table.parquet", (parquet_changed, bytes_changed),
        building("parquet", files=["table.parquet"], missing="mask", categories=["group"]),
    ),
    "array to predict": Kind("files/array.npy", (*BYTES, npy_changed), answer),
    "parallel text": Kind(
        "files/en.txt", TEXT,
        building("parallel-text", source={"train": ["en.txt"]}, target={"train": ["de.txt"]}),
    ),
    "parquet": Kind("files/table.parquet", BYTES, building("parquet", files=["table.parquet"])),
    "npy": Kind("files/array.npy", (*BYTES, npy_changed), building("numpy", files=["array.npy"])),
    "npz": Kind(
        "files/arrays.npz", (*BYTES, npz_changed, npz_changed),
        building("numpy", files=["arrays.npz"], target="target", classes=3),
    ),
    "npz, compressed": Kind(
        "files/packed.npz", (*BYTES, npz_changed), building("numpy", files=["packed.npz"])
    ),
    "ts": Kind("files/series.ts", TEXT, building("timeseries", files=["series.ts"])),
    "wav": Kind("files/a_1.wav", BYTES, building("wav", files=["*.wav"])),
    "bytes": Kind("files/text.txt", TEXT, building("bytes", files=["text.txt"])),
    "characters": Kind("files/text.txt", TEXT, building("characters", files=["text.txt"])),
    "words": Kind("files/text.txt", TEXT, building("words", files=["text.txt"])),
    "labelled text": Kind(
        "files/labels.txt", TEXT, building("labelled-text", files=["labels.txt"])
    ),
}  # fmt: skip
