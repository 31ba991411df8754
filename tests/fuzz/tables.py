"""Odd tables: Parquet files of any type, and CSV files with many columns or long cells."""

from __future__ import annotations

import datetime
import decimal
import io
import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as papq

DAY = datetime.datetime(2026, 1, 1)
#: Types of a column, and what makes the value of a row.
TYPES: list[tuple[Any, Any]] = [
    (pa.int64(), lambda k: k * 10**17),
    (pa.uint64(), lambda k: 2**63 + k),
    (pa.int8(), lambda k: k % 100),
    (pa.float16(), float),
    (pa.float32(), lambda k: k * 1e37),
    (pa.float64(), lambda k: k * 1e307),
    (pa.float64(), lambda k: float("nan") if k % 3 else 1.0),
    (pa.float64(), lambda k: float("inf")),
    (pa.bool_(), lambda k: k % 2 == 0),
    (pa.string(), lambda k: "a" * (k * 1000)),
    (pa.string(), lambda k: ["1", "2,5", "\0", "\x1b[31m", "é"][k % 5]),
    (pa.large_string(), str),
    (pa.binary(), lambda k: bytes([k, 255])),
    (pa.decimal128(38, 10), lambda k: decimal.Decimal(k)),
    (pa.decimal256(76, 3), lambda k: decimal.Decimal(10) ** 70),
    (pa.date32(), lambda k: DAY.date()),
    (pa.time64("us"), lambda k: DAY.time()),
    (pa.timestamp("ns"), lambda k: DAY + datetime.timedelta(days=k)),
    (pa.timestamp("us", "Europe/Vienna"), lambda k: DAY),
    (pa.duration("s"), lambda k: datetime.timedelta(seconds=k)),
    (pa.list_(pa.float32()), lambda k: [1.0] * k),
    (pa.struct([("a", pa.int32())]), lambda k: {"a": k}),
    (pa.map_(pa.string(), pa.int32()), lambda k: [("a", k)]),
    (pa.null(), lambda k: None),
]
NAMES = ["count", "value", "group", "", " ", "observed", "\x1b[31m", "a" * 3000, "next", "é", "0"]


def parquet_changed(data: bytes, rng: random.Random) -> bytes:
    """Write another table in the place of one."""
    rows = rng.choice([0, 1, 2, 30])
    arrays, names = [], []
    for _ in range(rng.choice([0, 1, 3, 6])):
        kind, value = rng.choice(TYPES)
        values = [None if rng.random() < rng.choice([0, 0.3]) else value(k) for k in range(rows)]
        array = pa.array(values, kind)
        if kind in (pa.string(), pa.int8()) and rng.random() < 0.5:
            array = array.dictionary_encode()
        arrays.append(array)
        names.append(rng.choice(NAMES))
    file = io.BytesIO()
    papq.write_table(pa.table(arrays, names), file, compression=rng.choice(["none", "zstd"]))
    return file.getvalue()


def csv_changed(data: bytes, rng: random.Random) -> bytes:
    """Give a table many columns, long cells, open quotes, or odd names."""
    kind = rng.randrange(6)
    if kind == 0:
        width = rng.choice([300, 1500])
        head = ",".join(f"c{k}" for k in range(width))
        return (head + "\n" + (",".join("1" * width) + "\n") * 3).encode()
    if kind == 1:
        return data.replace(b"1,", b"1" * rng.choice([400, 200_000]) + b",", 1)
    if kind == 2:
        return data.replace(b",", b',"', rng.choice([1, 5]))
    if kind == 3:
        return data.replace(b"count", rng.choice(NAMES).encode(), 1)
    if kind == 4:
        return data.replace(b"\n", b"\n\n" + b"," * rng.choice([1, 3, 1000]) + b"\n", 3)
    return data.replace(b"value", b"count", 1)
