"""Ways to damage a file: of bytes, of the values in a tree, and of lines of text."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable
from typing import Any

Change = Callable[[bytes, random.Random], bytes]

INTEGERS = [0, 1, -1, 2, 127, 128, 255, 256, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63]
ODD: list[Any] = [
    None, True, False, *INTEGERS, -(2**63), 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"),
    "", "x", "\0", "\x1b[31m", "a" * 5000, "é\u202e", "../x", [], [[]], [1, "a"], {}, {"a": {}},
]  # fmt: skip
CELLS = [
    "", " ", "NaN", "inf", "-inf", "1e400", "1" * 5000, "0x10", "1_000", "1,5", '"', '"a', "a\0b",
    "\x1b[31m", "true", "2026-01-01", "9999-99-99", "=1+1", "é", "'", ";;", "-", "+", "1e-400",
]  # fmt: skip


def bytes_changed(data: bytes, rng: random.Random) -> bytes:
    """Flip, overwrite, cut, insert, double or move bytes."""
    if not data:
        return rng.randbytes(rng.randint(0, 20))
    made = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        at = rng.randrange(len(made) or 1)
        size = min(rng.choice([1, 2, 4, 8, 30]), max(len(made) - at, 1))
        kind = rng.randrange(9)
        if kind == 0 and made:
            made[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            made[at : at + size] = rng.randbytes(size)
        elif kind == 2:
            made[at : at + 4] = struct.pack("<I", rng.choice(INTEGERS) & 0xFFFFFFFF)
        elif kind == 3:
            made[at : at + 8] = struct.pack("<Q", rng.choice(INTEGERS) & (2**64 - 1))
        elif kind == 4:
            del made[at:]
        elif kind == 5:
            del made[at : at + size]
        elif kind == 6:
            made[at:at] = rng.randbytes(size)
        elif kind == 7:
            made += made[at : at + 100]
        else:
            made[at : at + size] = bytes(size)
    return bytes(made)


def head_changed(data: bytes, rng: random.Random) -> bytes:
    """Put an odd number into the first bytes, where headers are."""
    at = rng.randrange(min(len(data), 64) or 1)
    form = rng.choice(["<H", "<I", "<Q", ">I"])
    size = struct.calcsize(form)
    number = rng.choice(INTEGERS) & (256**size - 1)
    return data[:at] + struct.pack(form, number) + data[at + size :]


def whole_changed(data: bytes, rng: random.Random) -> bytes:
    """Put something else in the place of the file."""
    return rng.choice(
        [
            b"", b"\0", b"\0" * 10_000, b"\xff\xfe", b"\xef\xbb\xbf" + data, data + b"\0" * 100,
            data + data, data[::-1], b"[" * 50_000, b'{"a":' * 50_000, b"9" * 6_000, b"null",
            b"PK\x03\x04", b"\x1f\x8b\x08", b"PAR1", b"ARROW1\0\0", b"\x93NUMPY", b"\n" * 1000,
            data.replace(b"\n", b"\r\n"), data.replace(b"\n", b"\r"), data.replace(b"1", b""),
        ]
    )  # fmt: skip


def tree_changed(tree: Any, rng: random.Random) -> Any:
    """Change values somewhere in tables and lists: other types, huge numbers, swapped, left out."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice([1, 1, 2, 4])):
        places = list(_places(tree))
        if not places:
            return rng.choice(ODD)
        holder, key = rng.choice(places)
        kind = rng.randrange(6)
        if kind < 3:
            holder[key] = copy.deepcopy(rng.choice(ODD))
        elif kind == 3:
            del holder[key]
        elif kind == 4:
            other, where = rng.choice(places)
            holder[key] = copy.deepcopy(other[where]) if _has(other, where) else None
        elif isinstance(holder, dict):
            holder[rng.choice(["x", "", "a" * 300, "step"])] = holder.pop(key)
        else:
            holder.insert(key, copy.deepcopy(holder[key]))
    return tree


def _has(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)


def _places(tree: Any) -> Any:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(items):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


def json_changed(data: bytes, rng: random.Random) -> bytes:
    """Change values of a JSON text."""
    return json.dumps(tree_changed(json.loads(data), rng)).encode()


def line_changed(data: bytes, rng: random.Random) -> bytes:
    """Change a line of JSON in a file of such lines, or the lines themselves."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    kind = rng.randrange(5)
    if kind < 3 and lines[at]:
        lines[at] = json_changed(lines[at], rng)
    elif kind == 3:
        lines.insert(at, lines[rng.randrange(len(lines))])
    else:
        lines[at] = bytes_changed(lines[at], rng)
    return b"\n".join(lines)


def cell_changed(data: bytes, rng: random.Random) -> bytes:
    """Put odd texts into the cells of a table of text, or cut and double its lines."""
    mark = max(b",:\t ", key=data.count).to_bytes()
    rows = [line.split(mark) for line in data.split(b"\n")]
    for _ in range(rng.choice([1, 1, 3])):
        row = rng.choice(rows)
        kind = rng.randrange(6)
        if kind < 3:
            row[rng.randrange(len(row))] = rng.choice(CELLS).encode()
        elif kind == 3:
            row.append(rng.choice(CELLS).encode())
        elif kind == 4:
            row.pop(rng.randrange(len(row)))
            row = row or [b""]
        else:
            rows.insert(rng.randrange(len(rows)), list(row))
        rows = [one or [b""] for one in rows]
    return b"\n".join(mark.join(row) for row in rows)
