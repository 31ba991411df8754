"""Every kind of file that rnnfarm reads: how it is damaged, and what then reads it."""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
import tomllib
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from training_tools import REGISTRY, make_job

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
from fuzz.seeds import npz_of
from fuzz.tables import csv_changed, parquet_changed
from rnnfarm.data import build_from_settings, open_dataset
from rnnfarm.job import load_job
from rnnfarm.page import write_page
from rnnfarm.run_report import differences, read_runs, summary
from rnnfarm.strict_json import to_json
from rnnfarm.training.evaluate import evaluate_run
from rnnfarm.training.predict import predict
from rnnfarm.training.run import open_run, parameters_sha256, read_run_job
from rnnfarm.training.session import train

CHECKPOINT = "run/checkpoints/step-00000004"


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


def remade(data: bytes) -> bytes:
    """A checkpoint.json with its checksum made anew."""
    facts = json.loads(data)
    if isinstance(facts, dict):
        facts.pop("sha256", None)
        facts["sha256"] = hashlib.sha256(to_json(facts, sort_keys=True).encode()).hexdigest()
    return json.dumps(facts).encode()


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


# -- what reads them ------------------------------------------------------------------------------


def read_dataset(folder: Path) -> str:
    dataset = open_dataset(folder / "data")
    info = dataset.info()
    digest = hashlib.sha256()
    for part in dataset.splits:
        split = dataset.split(part)
        for name, column in dataset.columns.items():
            whole = split.all_own(name) if column.own else split.read(name, 0, split.steps)
            digest.update(np.array(whole).tobytes())
        digest.update(split.starts().tobytes())
        split.confirm_whole()
    return digest.hexdigest() + str(info["steps"])


def read_remade_dataset(folder: Path) -> str:
    """The same with the checksums of the shards made anew."""
    anew(folder)
    return read_dataset(folder)


def anew(folder: Path) -> None:
    path = folder / "data" / "dataset.json"
    manifest = json.loads(path.read_bytes())
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            data = (path.parent / shard["file"]).read_bytes()
            shard["sha256"], shard["bytes"] = hashlib.sha256(data).hexdigest(), len(data)
            shard["crc32"] = zlib.crc32(data)
    path.write_text(json.dumps(manifest))


def read_run(folder: Path) -> str:
    opened = open_run(folder / "run", REGISTRY)
    return parameters_sha256(opened.arena)


def resume(folder: Path) -> str:
    raw = read_run_job(folder / "run", REGISTRY).to_dict()
    raw["training"]["steps"] = 5
    result = train(make_job(raw), REGISTRY, out=folder / "run", resume=True)
    return result.parameters_sha256


def read_remade_state(folder: Path) -> str:
    """Resume from a state whose checksum is made anew."""
    path = folder / CHECKPOINT
    facts, data = json.loads((path / "checkpoint.json").read_bytes()), path / "state.safetensors"
    content = data.read_bytes()
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    facts["files"] = {data.name: entry}
    (path / "checkpoint.json").write_bytes(remade(json.dumps(facts).encode()))
    return resume(folder)


def train_anew(folder: Path) -> str:
    """Train on a shard whose checksum is made anew: no loss may be of what a column forbids."""
    anew(folder)
    raw = read_run_job(folder / "run", REGISTRY).to_dict()
    raw["data"]["path"] = str(folder / "data")
    result = train(make_job(raw), REGISTRY, out=folder / "other")
    assert np.isfinite([result.train_loss, result.valid_loss]).all()
    return result.parameters_sha256


def answer(folder: Path) -> str:
    rows = list(predict(folder / "run", REGISTRY, input=folder / "files" / "array.npy"))
    assert all(np.isfinite(row["prediction"]).all() for row in rows)
    return to_json(rows)


def report(folder: Path) -> str:
    runs = read_runs([folder / "run"])
    write_page(runs, folder / "page.html")
    differences([*runs, *runs])
    return to_json([summary(run) for run in runs])


def evaluate(folder: Path) -> str:
    return to_json(evaluate_run(folder / "run", REGISTRY))


def job(folder: Path) -> str:
    return to_json(load_job(folder / "run" / "job.toml", (), REGISTRY).to_dict())


def building(reader: str, **settings: Any) -> Callable[[Path], str]:
    """What builds a dataset with a reader, and reads it."""

    def build(folder: Path) -> str:
        (folder / "data").rename(folder / "before")
        build_from_settings(reader, settings, folder / "data", REGISTRY, base=folder / "files")
        return read_dataset(folder)

    return build


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
