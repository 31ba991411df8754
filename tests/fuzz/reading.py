"""What reads each kind of file, and gives what it found as a text."""

from __future__ import annotations

import hashlib
import json
import tomllib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from training_tools import REGISTRY, make_job

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


def remade(data: bytes) -> bytes:
    """A checkpoint.json with its checksum made anew."""
    facts = json.loads(data)
    if isinstance(facts, dict):
        facts.pop("sha256", None)
        facts["sha256"] = hashlib.sha256(to_json(facts, sort_keys=True).encode()).hexdigest()
    return json.dumps(facts).encode()


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


def anew(folder: Path, name: str = "data") -> None:
    """Make the checksums of a dataset's shards anew, where its manifest still names them."""
    path = folder / name / "dataset.json"
    try:
        manifest = json.loads(path.read_bytes())
        for split in manifest["splits"].values():
            for shard in split["shards"]:
                data = (path.parent / shard["file"]).read_bytes()
                shard["sha256"], shard["bytes"] = hashlib.sha256(data).hexdigest(), len(data)
                shard["crc32"] = zlib.crc32(data)
    except (ValueError, TypeError, KeyError, AttributeError, OSError, RecursionError):
        return
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


def answer_table(folder: Path) -> str:
    """Predict the steps of a table, and measure on it."""
    run, table = folder / "table-run", folder / "files" / "table.csv"
    rows = list(predict(run, REGISTRY, input=table))
    assert all(np.isfinite(row["prediction"]).all() for row in rows)
    return to_json([rows, evaluate_run(run, REGISTRY, input=table)])


def answer_split(folder: Path) -> str:
    """Predict a split whose checksums are made anew."""
    anew(folder, "table")
    job = folder / "table-run" / "job.toml"
    raw = tomllib.loads(job.read_text())
    raw["data"] = {key: raw["data"][key] for key in ("mode", "scale")}
    raw["data"]["path"] = str(folder / "table")
    job.write_text(tomli_w.dumps(raw))
    open_dataset(folder / "table").info()
    return to_json(list(predict(folder / "table-run", REGISTRY, split="train")))


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
