"""A small valid file of every kind, in one folder that each case gets a copy of."""

from __future__ import annotations

import io
import struct
import wave
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as papq
from training_tools import REGISTRY, make_job, value_job, write_tokens, write_values

from rnnfarm.training.session import train

TS = """@problemName small
@timestamps false
@univariate false
@dimensions 2
@classLabel true a b
@data
1,2,3:4,5,6:a
2,3,4:5,6,7:b
3,4,5:6,7,8:a
"""


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def csv_text(rows: int = 40) -> str:
    lines = [f"2026-01-{1 + k // 2:02d},{k},{k / 7:.4f},{'ab'[k % 2]}" for k in range(rows)]
    return "\n".join(["day,count,value,group", *lines, ""])


def write_seeds(folder: Path) -> None:
    """Write all of them below ``folder``."""
    files = folder / "files"
    files.mkdir(parents=True)
    (files / "table.csv").write_text(csv_text())
    table = pa.table(
        {
            "count": list(range(30)),
            "value": [k / 3 for k in range(30)],
            "group": ["ab"[k // 15] for k in range(30)],
        }
    )
    papq.write_table(table, files / "table.parquet")
    values = np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32)
    (files / "array.npy").write_bytes(npy(values))
    np.savez(files / "arrays.npz", values=values, target=np.arange(40) % 3)
    np.savez_compressed(files / "packed.npz", values=values)
    (files / "series.ts").write_text(TS)
    (files / "text.txt").write_text("def add(a, b):\n    return a + b  # çé\n" * 20)
    (files / "labels.txt").write_text("good\ta fine day\nbad\ta dull day\n" * 10)
    (files / "en.txt").write_text("one cat\ntwo cats\n" * 10)
    (files / "de.txt").write_text("eine Katze\nzwei Katzen\n" * 10)
    for name in ("a", "b"):
        with wave.open(str(files / f"{name}_1.wav"), "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(8000)
            sound.writeframes(struct.pack("<2000h", *(k * 7 % 2000 for k in range(2000))))
    write_tokens(folder / "tokens", {"train": [50, 30], "valid": [20]})
    write_values(folder / "data", {"train": [60, 40], "valid": [30]})
    raw = value_job(
        folder / "data", steps=4, evaluate_every=2, checkpoint_every=2, gradient_flow_every=2,
        data={"scale": "standard", "mode": "examples"},
        callbacks=[{"name": "early_stopping", "patience": 9}],
    )  # fmt: skip
    train(make_job(raw), REGISTRY, out=folder / "run")
    build = {"reader": "csv", "files": [str(files / "table.csv")], "group": "group"}
    raw = value_job(folder / "table", steps=2, data={"build": build, "scale": "standard"})
    train(make_job(raw), REGISTRY, out=folder / "table-run")


def npz_of(members: dict[str, bytes], method: int) -> bytes:
    """A zip file with these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    return file.getvalue()
