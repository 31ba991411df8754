"""Checkpoints: a folder each, written so that a kill at any instant leaves only whole ones.

``state.safetensors`` holds the arrays (``parameters.NAME``, ``optimizer.STATE``,
``states.LAYER.STATE``) and ``checkpoint.json`` everything else with the arrays' checksum. Both are
written under a temporary name and flushed; the rename makes the checkpoint exist.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from rnnfarm.errors import DataError, RunError

log = logging.getLogger("rnnfarm")
FORMAT = 1
_NAME = re.compile(r"step-(\d+)$")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read: ``arrays`` by name, and ``facts`` as checkpoint.json has them."""

    path: Path
    arrays: dict[str, npt.NDArray[Any]]
    facts: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.facts["step"])

    def group(self, prefix: str) -> dict[str, npt.NDArray[Any]]:
        """The arrays ``PREFIX.NAME``, by NAME."""
        start = prefix + "."
        return {k.removeprefix(start): v for k, v in self.arrays.items() if k.startswith(start)}


def write_checkpoint(
    folder: Path, step: int, arrays: Mapping[str, npt.NDArray[Any]], facts: Mapping[str, Any]
) -> Path:
    """Write checkpoint ``step-NNNNNNNN`` below ``folder``; RunError where that fails."""
    target = folder / f"step-{step:08d}"
    if target.exists():
        if problem(target) is None:
            return target
        target.rename(_free(target, f"{target.name}.damaged"))
    temporary = folder / f".{target.name}.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        state = temporary / "state.safetensors"
        save_file(dict(arrays), state)
        described = {
            "format": FORMAT,
            "step": step,
            **facts,
            "files": {state.name: {"bytes": state.stat().st_size, "sha256": _sha256(state)}},
        }
        (temporary / "checkpoint.json").write_text(json.dumps(described, indent=1) + "\n")
        for path in (state, temporary / "checkpoint.json", temporary):
            _flush(path)
        temporary.rename(target)
        _flush(folder)
    except OSError as error:
        raise RunError(
            f"the checkpoint {target} could not be written ({error}); make room or permission "
            "there, and go on with --resume"
        ) from error
    return target


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint; DataError where it is damaged."""
    fault = problem(path)
    if fault is not None:
        raise DataError(f"the checkpoint {path} is damaged: {fault}; use another one")
    facts = json.loads((path / "checkpoint.json").read_text())
    try:
        return Checkpoint(path, load_file(path / "state.safetensors"), facts)
    except SafetensorError as error:
        raise DataError(
            f"the checkpoint {path} is damaged: state.safetensors cannot be read ({error}); use "
            "another one"
        ) from error


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint below ``folder``, or None; names each damaged one it skips."""
    for path in reversed(checkpoints(folder)):
        fault = problem(path)
        if fault is None:
            return read_checkpoint(path)
        log.warning("the checkpoint %s is damaged and was skipped: %s", path, fault)
    return None


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints below ``folder``, the oldest first, damaged ones included."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]))


def prune(folder: Path, keep: int) -> None:
    """Remove all but the ``keep`` newest checkpoints and the one of the lowest validation loss.

    Damaged ones are neither counted nor removed.
    """
    known: list[tuple[Path, float]] = []
    for path in checkpoints(folder):
        facts = _facts(path)
        if facts is not None:
            loss = facts.get("valid_loss")
            known.append((path, float("inf") if loss is None else float(loss)))
    best = min(known, key=lambda entry: entry[1], default=(None, 0.0))
    for path, _ in known[:-keep]:
        if path != best[0]:
            doomed = _free(path, f".{path.name}.removed")
            path.rename(doomed)  # from here on it is no checkpoint, not a damaged one
            shutil.rmtree(doomed)


def problem(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None where it is whole."""
    facts = _facts(path)
    if facts is None:
        return "checkpoint.json is missing or cannot be read"
    if facts.get("format") != FORMAT:
        return f"its format is {facts.get('format')!r}, and this version of rnnfarm reads {FORMAT}"
    try:
        for name, entry in facts["files"].items():
            file = path / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != entry["bytes"]:
                return f"{name} has {file.stat().st_size} bytes instead of {entry['bytes']}"
            if _sha256(file) != entry["sha256"]:
                return f"the checksum of {name} is wrong"
        int(facts["step"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return f"checkpoint.json has no {error}"
    return None


def _facts(path: Path) -> dict[str, Any] | None:
    try:
        facts = json.loads((path / "checkpoint.json").read_text())
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def sweep(folder: Path) -> None:
    """Remove what a killed process left half written or half removed."""
    for path in folder.glob(".step-*"):
        shutil.rmtree(path)


def _free(path: Path, name: str) -> Path:
    """``name``-1, -2, … beside ``path``, the first that is not taken."""
    number = 1
    while (candidate := path.with_name(f"{name}-{number}")).exists():
        number += 1
    return candidate


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Bring a file's or a folder's contents to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
