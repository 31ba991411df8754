"""What a run says on stderr while it goes on; ``metrics_log.py`` has what it writes down."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from rnnfarm.errors import printable


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
