"""``metrics.jsonl`` of a run: one JSON object a line, written as the run goes on."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rnnfarm.errors import DataError, RunError
from rnnfarm.small_files import UnreadableError, open_regular, parse_json
from rnnfarm.strict_json import to_json

log = logging.getLogger("rnnfarm")

Entry = dict[str, Any]
#: Entries that hold tables, by the key of the table.
FLOW, EVALUATION = "gradient_flow", "evaluation"
LONGEST_LINE = 64 << 20
BLOCK = 1 << 16


class MetricsLog:
    """``metrics.jsonl`` of a run that trains.

    Opened again after a kill it drops a line that was cut off, and keeps the others: what a resumed
    run computes once more (to the same bits) is not written twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        #: The last entry of each kind, by the name of its main metric.
        self.last: dict[str, Mapping[str, Any]] = {}
        if os.path.lexists(path):
            for entry in read_metrics(path):
                self.last[_kind(entry)] = entry
        with self._writing():
            cut_torn_line(path)
            self._file = path.open("a", encoding="utf-8")

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append an entry, unless its step was logged before."""
        kind = _kind(entry)
        if kind in self.last and entry["step"] <= self.last[kind]["step"]:
            return
        self.last[kind] = entry
        with self._writing():
            self._file.write(to_json(entry) + "\n")
            self._file.flush()

    def flush(self) -> None:
        """Bring everything written to the disk."""
        with self._writing():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        with self._writing():
            self._file.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{self.path} could not be written ({error.strerror}); make room or permission "
                "there, and go on with --resume"
            ) from error


def append_evaluation(path: Path, step: int, metrics: Mapping[str, Any]) -> None:
    """Add what a model was measured at to the metrics of its run, where they can be written."""
    entry = {"step": step, EVALUATION: dict(metrics)}
    try:
        cut_torn_line(path)
        with path.open("a", encoding="utf-8") as file:
            file.write(to_json(entry) + "\n")
    except OSError as error:
        log.warning("%s: the evaluation cannot be added to it (%s)", path, error.strerror)


def cut_torn_line(path: Path) -> None:
    """Take the last line off a file where it has no end, so that nothing is appended to it."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        place = end = file.seek(0, os.SEEK_END)
        while place:
            low = max(place - BLOCK, 0)
            file.seek(low)
            found = file.read(place - low).rfind(b"\n")
            if found >= 0:
                place = low + found + 1
                break
            place = low
        if place < end:
            file.truncate(place)


def read_metrics(path: Path) -> Iterator[Entry]:
    """The entries of a metrics.jsonl; a last line that was cut off is left out, with a warning.

    DataError for a line that is damaged, or a file that cannot be read.
    """
    try:
        with open_regular(path) as file:
            for number, line in _lines(path, file):
                if not line.endswith(b"\n"):
                    log.warning("%s, line %d: is cut off, and was left out", path, number)
                    return
                yield _entry(path, number, line)
    except UnreadableError as error:
        raise DataError(f"{path}: {error}; restore it, or remove it") from None


def _lines(path: Path, file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            raise DataError(f"{path}, line {number}: has no end; remove the line")
        yield number, line


def _entry(path: Path, number: int, line: bytes) -> Entry:
    try:
        entry = parse_json(line)
    except UnreadableError as error:
        raise DataError(
            f"{path}, line {number}: this is no entry of a run, it {error}; remove the line"
        ) from None
    if what := _problem(entry):
        raise DataError(
            f"{path}, line {number}: this is no entry of a run, {what}; remove the line"
        )
    found: Entry = entry
    return found


def _problem(entry: Any) -> str | None:
    """Return what is wrong with an entry, if anything."""
    if not isinstance(entry, dict):
        return "which is a table"
    step = entry.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < 1 << 63:
        return "which has a whole number as its step"
    tables = (FLOW, EVALUATION)
    for name in tables:
        if not isinstance(entry.get(name, {}), dict):
            return f"whose {name} is a table"
    if not all(_are_metrics(norms) for norms in entry.get(FLOW, {}).values()):
        return f"whose {FLOW} has numbers for each layer"
    baseline = entry.get(EVALUATION, {}).get("baseline")
    if baseline is not None and not isinstance(baseline, dict):
        return f"whose {EVALUATION}.baseline is a table"
    if not _are_metrics({k: v for k, v in entry.items() if k not in tables}):
        return "whose metrics are finite numbers or null"
    return None


def _are_metrics(table: Any) -> bool:
    return isinstance(table, dict) and all(
        value is None or finite_number(value) is not None for value in table.values()
    )


def finite_number(value: Any) -> float | None:
    """Return a value as the finite number that it is, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer of hundreds of digits
        return None


def _kind(entry: Mapping[str, Any]) -> str:
    if EVALUATION in entry:
        return f"{EVALUATION} {entry[EVALUATION].get('split')}"
    return next((k for k in ("valid_loss", FLOW) if k in entry), "train_loss")
