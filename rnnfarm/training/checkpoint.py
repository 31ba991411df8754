"""Checkpoints: a folder each, written so that a kill at any instant leaves only whole ones.

``state.safetensors`` holds the arrays (``parameters.NAME``, ``optimizer.STATE``,
``states.LAYER.STATE``) and ``checkpoint.json`` everything else, with the arrays' checksum and its
own. Both are written under a temporary name and flushed; the rename makes the checkpoint exist.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save_file

from rnnfarm.errors import DataError, RunError
from rnnfarm.files import bring_to_disk
from rnnfarm.small_files import UnreadableError, open_regular, read_json
from rnnfarm.strict_json import to_json
from rnnfarm.training.checkpoint_facts import wrong_field

log = logging.getLogger("rnnfarm")
FORMAT = 1
STATE, FACTS = "state.safetensors", "checkpoint.json"
_NAME = re.compile(r"step-(\d+)$", re.ASCII)
_HALF_WRITTEN = re.compile(r"\..+\.\d+\.tmp")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read: ``arrays`` by name, and ``facts`` as checkpoint.json has them."""

    path: Path
    arrays: dict[str, npt.NDArray[Any]]
    facts: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.facts["step"])

    @property
    def valid(self) -> str | None:
        """The fingerprint of the validation split that its metrics are of."""
        return _valid_of(self.facts)

    def fact(self, name: str) -> Any:
        """Return a field that the checkpoint of a run has; DataError where this one lacks it."""
        if name not in self.facts:
            raise DataError(
                f"the checkpoint {self.path} is damaged: {FACTS} has no field '{name}'; use another"
                " one"
            )
        return self.facts[name]

    def edited(self, equations: Mapping[str, str]) -> list[str]:
        """What of these equations, by their fingerprints, is not what it was trained with.

        A checkpoint of a version that kept no fingerprints tells of none.
        """
        kept = self.facts.get("equations", {})
        return [name for name, found in equations.items() if kept.get(name, found) != found]

    def group(self, prefix: str) -> dict[str, npt.NDArray[Any]]:
        """The arrays ``PREFIX.NAME``, by NAME."""
        start = prefix + "."
        return {k.removeprefix(start): v for k, v in self.arrays.items() if k.startswith(start)}


def write_checkpoint(
    folder: Path, step: int, arrays: Mapping[str, npt.NDArray[Any]], facts: Mapping[str, Any]
) -> Path:
    """Write checkpoint ``step-NNNNNNNN`` below ``folder``; RunError where that fails."""
    target = folder / f"step-{step:08d}"
    temporary = folder / f".{target.name}.{os.getpid()}.tmp"
    try:
        if target.exists():
            if not isinstance(_read(target), str):
                return target
            target.rename(_free(target, f"{target.name}.damaged"))
        if not folder.is_dir():
            folder.mkdir(parents=True)
            bring_to_disk(folder.parent)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        _write_files(temporary, {"format": FORMAT, "step": step, **facts}, arrays)
        temporary.rename(target)
        bring_to_disk(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise RunError(
            f"the checkpoint {target} could not be written ({error}); make room or permission "
            "there, and go on with --resume"
        ) from error
    return target


def _write_files(
    folder: Path, facts: dict[str, Any], arrays: Mapping[str, npt.NDArray[Any]]
) -> None:
    state = folder / STATE
    save_file(dict(arrays), state)
    with state.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    facts = json.loads(to_json(facts))  # as it will be read, so that the checksum agrees
    facts["files"] = {STATE: {"bytes": state.stat().st_size, "sha256": checksum}}
    facts["sha256"] = _checksum(facts)
    (folder / FACTS).write_text(to_json(facts, indent=1) + "\n", encoding="utf-8")
    for path in (state, folder / FACTS, folder):
        bring_to_disk(path)


def _checksum(facts: Mapping[str, Any]) -> str:
    """The checksum of everything in checkpoint.json but itself, however it is spaced."""
    rest = {key: value for key, value in facts.items() if key != "sha256"}
    return hashlib.sha256(to_json(rest, sort_keys=True).encode()).hexdigest()


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint; DataError where it is damaged."""
    found = _read(path)
    if isinstance(found, str):
        raise DataError(f"the checkpoint {path} is damaged: {found}; use another one")
    return found


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint below ``folder``, or None; names each damaged one it skips."""
    for path in reversed(checkpoints(folder)):
        found = _read(path)
        if not isinstance(found, str):
            return found
        log.warning("the checkpoint %s is damaged and was skipped: %s", path, found)
    return None


def newest_described(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint that says what it is of, without its arrays."""
    for path in reversed(checkpoints(folder)):
        facts = _facts(path)
        if not isinstance(facts, str):
            return Checkpoint(path, {}, facts)
    return None


def best_checkpoint(folder: Path, *, lasting: bool = False) -> Path | None:
    """Return the checkpoint whose own parameters were measured best, the oldest of equals.

    Only what was measured on the validation split of the newest checkpoint can be compared. An
    evaluation that was made only because a run ended counts as long as its checkpoint is the
    newest: a run that went on would not have made it. With ``lasting`` it does not count at all.
    None where none was measured.
    """
    return next(iter(_by_rank(folder, lasting=lasting)), None)


def _by_rank(folder: Path, *, lasting: bool = False) -> list[Path]:
    """The checkpoints that were measured and can be compared, the best first."""
    newest = newest_described(folder)
    if newest is None:
        return []
    found, data = checkpoints(folder), newest.valid
    ranks = {path: _rank(path, data, path == found[-1] and not lasting) for path in found}
    return sorted((path for path in found if math.isfinite(ranks[path])), key=ranks.__getitem__)


def best_whole(folder: Path) -> Checkpoint | None:
    """Return the best checkpoint that is whole, or None where none was measured; names each
    damaged one that may be better."""
    for path in checkpoints(folder):
        if isinstance(what := _facts(path), str):
            log.warning(
                "the checkpoint %s is damaged, and may be the best one; another is taken: %s",
                path, what,
            )  # fmt: skip
    for path in _by_rank(folder):
        found = _read(path)
        if not isinstance(found, str):
            return found
        log.warning(
            "the checkpoint %s, which was the best one, is damaged; the next best is taken: %s",
            path, found,
        )  # fmt: skip
    return None


def best_measured(folder: Path, valid: str | None) -> dict[str, Any] | None:
    """Return the step of the best checkpoint, and the metric, mode and value that it is best by.

    None where that was measured on another validation split than that of the fingerprint ``valid``.
    """
    best = best_checkpoint(folder)
    facts = None if best is None else _facts(best)
    if not isinstance(facts, dict) or _valid_of(facts) != valid:
        return None
    monitored = facts["monitored"]
    return {
        "step": facts["step"],
        "monitor": monitored["metric"],
        "mode": monitored["mode"],
        "value": monitored["value"],
    }


def _rank(path: Path, valid: str | None, newest: bool) -> float:
    """How good a checkpoint's parameters are on a validation split, the lower the better; infinity
    where unknown."""
    facts = _facts(path)
    if isinstance(facts, str) or _valid_of(facts) != valid:
        return math.inf
    monitored = facts.get("monitored")
    if monitored is None or (facts.get("only_at_end") and not newest):
        return math.inf
    value = monitored["value"]
    if not isinstance(value, int | float) or not math.isfinite(value):
        return math.inf
    return float(value) if monitored["mode"] == "min" else -float(value)


def _valid_of(facts: Mapping[str, Any]) -> str | None:
    """The fingerprint of the validation split that a checkpoint's metrics are of."""
    found = facts.get("data", {}).get("valid")
    return None if found is None else str(found)


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints below ``folder``, the oldest first, damaged ones included."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]))


def prune(folder: Path, keep: int) -> None:
    """Remove all but the ``keep`` newest checkpoints and the best one.

    One that was written only because a run ended or was interrupted goes as soon as there is a
    newer one, so that what is left does not depend on such ends. Damaged ones are not removed. One
    that cannot be removed is named.
    """
    known = [path for path in checkpoints(folder) if _looks_whole(path)]
    passing = {path for path in known[:-1] if _is_passing(path)}
    kept = {*[path for path in known if path not in passing][-keep:]}
    kept.add(best_checkpoint(folder, lasting=True) or folder)
    for path in known:
        if path in kept or isinstance(_read(path), str):
            continue
        try:
            doomed = _free(path, f".{path.name}.removed")
            path.rename(doomed)  # from here on it is no checkpoint, not a damaged one
            shutil.rmtree(doomed)
        except OSError as error:
            log.warning("the old checkpoint %s could not be removed: %s", path, error)


def _is_passing(path: Path) -> bool:
    facts = _facts(path)
    return not isinstance(facts, str) and bool(facts.get("passing"))


def _looks_whole(path: Path) -> bool:
    """Whether a checkpoint is whole as far as can be told without reading its arrays."""
    facts = _facts(path)
    try:
        size = (path / STATE).stat().st_size
    except OSError:
        return False
    return not isinstance(facts, str) and bool(facts["files"][STATE]["bytes"] == size)


def _read(path: Path) -> Checkpoint | str:
    """A checkpoint, or what is wrong with it."""
    facts = _facts(path)
    if isinstance(facts, str):
        return facts
    entry = facts["files"][STATE]
    try:
        with open_regular(path / STATE) as file:
            size = os.fstat(file.fileno()).st_size
            if size != entry["bytes"]:
                return f"{STATE} has {size} bytes instead of {entry['bytes']}"
            content = file.read(size + 1)
    except UnreadableError as error:
        return f"{STATE} {error}"
    except OSError as error:
        return f"{STATE} cannot be read ({error.strerror})"
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        return f"the checksum of {STATE} is wrong"
    try:
        return Checkpoint(path, load(content), facts)
    except Exception as error:  # of a header that NumPy has no dtype or no shape for, anything
        return f"{STATE} cannot be read ({' '.join(str(error).split())[:200]})"


def _facts(path: Path) -> dict[str, Any] | str:
    """What checkpoint.json says, or what is wrong with it."""
    try:
        facts = read_json(path / FACTS)
    except UnreadableError as error:
        return f"{FACTS} {error}"
    if not isinstance(facts, dict):
        return f"{FACTS} is no JSON object"
    if facts.get("format") != FORMAT:
        return f"its format is {facts.get('format')!r}, and this version of rnnfarm reads {FORMAT}"
    if facts.get("sha256") != _checksum(facts):
        return f"the checksum of {FACTS} is wrong"
    if what := wrong_field(facts, STATE):
        return f"{FACTS}: {what}"
    return facts


def sweep(run: Path) -> None:
    """Remove what a killed process left half written or half removed in a run's folder.

    Anything else of such a name is left alone.
    """
    for path in run.glob(".*.tmp"):
        if path.is_file() and _HALF_WRITTEN.fullmatch(path.name):
            path.unlink()
    for path in (run / "checkpoints").glob(".step-*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)


def _free(path: Path, name: str) -> Path:
    """``name``-1, -2, … beside ``path``, the first that is not taken."""
    number = 1
    while (candidate := path.with_name(f"{name}-{number}")).exists():
        number += 1
    return candidate
