"""What a plugin may do during a run: the base of every callback."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rnnfarm.settings import Part


@dataclass(frozen=True)
class RunInfo:
    """What a callback is told of the run.

    Attributes:
        folder: the run's folder.
        job: the job as resolved.
        step: how many steps were done before, 0 unless the run was resumed.
        steps: how many there will be.
    """

    folder: Path
    job: Mapping[str, Any]
    step: int
    steps: int


class Callback(Part):
    """Called at the points of a run that its methods name; each may set ``stop``.

    Metrics are the objects of ``metrics.jsonl``; a callback must not change them. ``train_loss`` is
    None for a step of which no target counted, and so is every metric of an evaluation of none.
    """

    #: Whether it goes by the metrics of evaluations; a run without them is refused.
    needs_evaluation: ClassVar[bool] = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        #: Why the run is to end after this step, once it is.
        self.stop: str | None = None

    def on_start(self, run: RunInfo) -> None:
        """Before the first step, after ``restore`` where the run was resumed."""

    def on_step(self, metrics: dict[str, Any]) -> None:
        """After every step."""

    def on_evaluation(self, metrics: dict[str, Any]) -> None:
        """After every evaluation that ``training.evaluate_every`` asks for."""

    def on_last_evaluation(self, metrics: dict[str, Any]) -> None:
        """After an evaluation that is made only because the run ends.

        A run that is resumed with more steps is to be what it would have been in one piece, which
        is not measured there: what a callback decides by may not depend on it.
        """

    def on_checkpoint(self, path: Path) -> None:
        """After the checkpoint in the folder ``path`` was written."""

    def on_end(self, result: dict[str, Any]) -> None:
        """After the last step, with what the run gave."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to keep, as JSON has it."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` gave."""

    def forget(self) -> None:
        """After ``restore``, where the run goes on with another validation split.

        Metrics of before cannot be compared with those that follow.
        """
