"""What the evaluations of a run have shown: the last one, and the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rnnfarm.training.monitor import Direction, Monitor


@dataclass(frozen=True)
class Best:
    """The best evaluation of a run: its step, and the metric that it is the best by."""

    step: int
    monitor: str
    mode: Direction
    value: float

    def __str__(self) -> str:
        return f"{self.monitor} {self.value:.6g} at step {self.step}"


class Evaluations:
    """The last evaluation of a run, and the best one.

    One that is made only because the run ends is kept apart: a run that goes on does not make it.

    Attributes:
        monitor: what says which is the best.
    """

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        #: Of those that ``training.evaluate_every`` asks for.
        self._due: Mapping[str, Any] | None = None
        self._best: Best | None = None
        self._at_end: Mapping[str, Any] | None = None

    @property
    def last(self) -> Mapping[str, Any] | None:
        """The metrics of the last evaluation, with its step."""
        return self._due if self._at_end is None else self._at_end

    @property
    def valid_loss(self) -> float | None:
        """The loss of the last evaluation, where that was a finite number."""
        loss = None if self.last is None else self.last["valid_loss"]
        return float(loss) if loss is not None and math.isfinite(loss) else None

    @property
    def best(self) -> Best | None:
        """The best of all."""
        return self._best if self._at_end is None else self._better(self._at_end)

    def add(self, entry: Mapping[str, Any], only_at_end: bool) -> bool:
        """Take an evaluation; whether it is the best so far and a longer run makes it too."""
        if only_at_end:
            self._at_end = entry
            return False
        self._due, self._at_end = entry, None
        before, self._best = self._best, self._better(entry)
        return self._best is not before

    def _better(self, entry: Mapping[str, Any]) -> Best | None:
        value = self.monitor.value(entry)
        before = None if self._best is None else self._best.value
        if value is None or not self.monitor.better(value, before):
            return self._best
        return Best(entry["step"], self.monitor.metric, self.monitor.mode, value)

    def forget(self) -> None:
        """Know of no evaluation: those so far were of other data."""
        self._due = self._best = self._at_end = None

    def facts(self, step: int) -> dict[str, Any]:
        """What a checkpoint of that step keeps; what it has measured is of its own parameters."""
        own = self.last if self.last is not None and self.last["step"] == step else None
        value = None if own is None else self.monitor.value(own)
        return {
            "valid_loss": None if own is None else own["valid_loss"],
            "evaluation": own,
            "only_at_end": own is not None and own is self._at_end,
            "monitored": None if own is None else asdict(self.monitor) | {"value": value},
            "last_evaluation": self._due,
            "best": None if self._best is None else asdict(self._best),
        }

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint has kept; KeyError or TypeError where that is something
        else."""
        self._due = facts.get("last_evaluation")
        self._at_end = facts.get("evaluation") if facts.get("only_at_end") else None
        best = facts.get("best")
        self._best = None if best is None else Best(**best)
        for entry in (self._due, self._at_end):
            if entry is not None:
                self.monitor.value(entry)
