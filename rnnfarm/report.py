"""What a run says while it goes on: progress on stderr, and ``metrics.jsonl``."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rnnfarm.errors import DataError, RunError, printable
from rnnfarm.strict_json import to_json

log = logging.getLogger("rnnfarm")


class Progress:
    """Progress of a run on stderr: a bar on a terminal, a line now and then elsewhere.

    Args:
        quiet: say nothing.
        every: seconds between two lines where there is no terminal.
    """

    def __init__(
        self, quiet: bool = True, every: float = 10.0, stream: TextIO | None = None
    ) -> None:
        self.stream = stream or sys.stderr
        self.quiet = quiet or self.stream is None  # where the process was given no stderr
        self.every = every
        self._bar: Any = None
        self._said = 0.0
        self._began = (0.0, 0)
        self._steps = 0

    def start(self, step: int, steps: int) -> None:
        """The run goes on from ``step`` steps done of ``steps``."""
        self._steps = steps
        self._said = time.monotonic()
        self._began = (self._said, step)
        if not self.quiet and self.stream.isatty():
            from tqdm import tqdm

            with self._telling():
                self._bar = tqdm(
                    total=steps, initial=step, unit="step", file=self.stream, dynamic_ncols=True
                )

    def step(self, metrics: Mapping[str, Any]) -> None:
        """A step was finished."""
        if self._bar is not None:
            with self._telling():
                self._bar.update(1)
                self._bar.set_postfix_str(_loss(metrics), refresh=False)
        elif not self.quiet and time.monotonic() - self._said >= self.every:
            self._said = time.monotonic()
            self.say(self._line(metrics))

    def _line(self, metrics: Mapping[str, Any]) -> str:
        done = metrics["step"]
        rate = (done - self._began[1]) / max(self._said - self._began[0], 1e-9)
        left = (self._steps - done) / max(rate, 1e-9)
        return (
            f"step {done}/{self._steps}  {_loss(metrics)}  {rate:.1f} steps/s  {_clock(left)} left"
        )

    def say(self, line: str) -> None:
        """A line of its own."""
        if self.quiet:
            return
        line = printable(line)
        with self._telling():
            if self._bar is not None:
                self._bar.write(line, file=self.stream)
            else:
                print(line, file=self.stream, flush=True)

    def close(self) -> None:
        with self._telling():
            if self._bar is not None:
                self._bar.close()
        self._bar = None

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Fall silent where nobody listens any more: a closed terminal must not end the run."""
        try:
            yield
        except OSError:
            self.quiet = True
            if self._bar is not None:
                self._bar.disable = True


def _loss(metrics: Mapping[str, Any]) -> str:
    """The loss of a step, and what else people know it by (``train_mse``)."""
    known = {k.removeprefix("train_"): v for k, v in metrics.items() if k.startswith("train_")}
    return "  ".join(f"{name} {shown(value)}" for name, value in known.items())


def shown(value: float | None) -> str:
    """A metric as a line of progress has it, ``-`` where there is none."""
    return "-" if value is None else f"{value:.4f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class MetricsLog:
    """``metrics.jsonl`` of a run: one JSON object a line.

    Opened again after a kill it drops a line that was cut off, and keeps the others: what a resumed
    run computes once more (to the same bits) is not written twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        #: The last entry of each kind, by the name of its main figure.
        self.last: dict[str, Mapping[str, Any]] = {}
        if path.exists():
            _cut_torn_line(path)
            for entry in read_metrics(path):
                self.last[_kind(entry)] = entry
        with self._writing():
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


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The whole entries of a metrics.jsonl; a last line that is still being written is left out.

    Raises DataError for a line that is damaged.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if line.endswith("\n"):
                yield _entry(path, number, line)


def _entry(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
        raise DataError(f"{path}, line {number}: this is no entry of a run; remove the line")
    return entry


def append_evaluation(path: Path, step: int, figures: Mapping[str, Any]) -> None:
    """Add what a model was measured at to the metrics of its run, where they can be written."""
    entry = {"step": step, "evaluation": dict(figures)}
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(to_json(entry) + "\n")
    except OSError as error:
        log.warning("%s: the evaluation cannot be added to it (%s)", path, error.strerror)


def _kind(entry: Mapping[str, Any]) -> str:
    if "evaluation" in entry:
        return f"evaluation {entry['evaluation'].get('split')}"
    return next((k for k in ("valid_loss", "gradient_flow") if k in entry), "train_loss")


def _cut_torn_line(path: Path) -> None:
    with path.open("rb+") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            file.truncate(end)
