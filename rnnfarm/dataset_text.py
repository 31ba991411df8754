"""What a dataset holds and what it was built from, as lines to be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rnnfarm.errors import printable

SHOWN = 10  # names of columns, and files
LABELS = 20


def dataset_lines(
    info: Mapping[str, Any], defaults: Mapping[str, Any], notes: bool = True
) -> Iterator[str]:
    """Yield the lines of `Dataset.info`; settings that are their `defaults` are left out."""
    built = info["built_from"]
    for key in ("path", "name", "format"):
        if info[key] is not None:
            yield f"{key}: {printable(str(info[key]))}"
    if built is not None:
        yield from _build_lines(built, defaults, notes)
    for key in ("columns", "splits"):
        yield f"{key}:"
        for name, inner in info[key].items():
            yield f"  {printable(name)}: {_inline(inner)}"
    yield f"steps: {info['steps']:,}"
    yield f"bytes: {info['bytes']:,}"


def _build_lines(
    built: Mapping[str, Any], defaults: Mapping[str, Any], notes: bool
) -> Iterator[str]:
    yield f"reader: {built['reader']}"
    chosen = {k: v for k, v in built["settings"].items() if v != defaults.get(k)}
    if chosen:
        yield "settings:"
        yield from (printable(f"  {key} = {_listed(value)}") for key, value in chosen.items())
    files = built["files"]
    if files:
        size = sum(file["bytes"] for file in files)
        yield f"files: {len(files):,}, {size:,} bytes"
        for file in files[:SHOWN]:
            yield printable(f"  {file['path']}: {file['bytes']:,} bytes")
        if len(files) > SHOWN:
            yield f"  and {len(files) - SHOWN:,} more"
    if notes and built["notes"]:
        yield "notes:"
        yield from (printable(f"  {note}") for note in built["notes"])


def _inline(column: Mapping[str, Any]) -> str:
    """A column or a split on one line."""
    parts = []
    for key, value in column.items():
        if value is None:
            continue
        if key in ("names", "counts_for"):
            value = _listed(value)
        elif key == "labels":
            value = _listed([f"{id} {label}" for id, label in enumerate(value)], LABELS)
        elif key == "roles":
            value = ", ".join(f"{count:,} {role}" for role, count in Counter(value).items())
        elif isinstance(value, int) and not isinstance(value, bool):
            value = f"{value:,}"
        parts.append(f"{key} {value}")
    return printable(", ".join(parts))


def _listed(value: Any, shown: int = SHOWN) -> str:
    """A value, or the first items of a long list."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return str(value)
    more = f" and {len(value) - shown:,} more" if len(value) > shown else ""
    return "[" + ", ".join(map(str, value[:shown])) + "]" + more
