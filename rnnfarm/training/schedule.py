"""How the learning rate changes over a run: the base of every schedule."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from rnnfarm.settings import Part


class Schedule(Part):
    """A factor of the optimizer's learning rate, step by step.

    A subclass writes ``factor``. Every schedule has a warm-up, before which its own course does not
    begin.

    warmup: the number of steps in which the factor rises from 1 / warmup to 1.
    """

    #: Whether it goes by the metrics of evaluations; a run without them is refused.
    needs_evaluation: ClassVar[bool] = False
    warmup: Annotated[int, Field(ge=0)] = 0

    def __call__(self, step: int, steps: int) -> float:
        """The factor of step ``step`` (from 1) of a run of ``steps`` steps."""
        past = max(0, step - self.warmup - 1)
        rise = min(1.0, step / self.warmup) if self.warmup else 1.0
        return rise * self.factor(past, max(1, steps - self.warmup))

    def factor(self, step: int, steps: int) -> float:
        """The factor after ``step`` of the ``steps`` steps that follow the warm-up."""
        raise NotImplementedError(f"{type(self).__name__} has no factor")

    def observe(self, value: float) -> None:
        """Called after every evaluation that ``training.evaluate_every`` asks for.

        ``value`` is the metric that the run goes by (``training.monitor``), or that the schedule
        does (``rnnfarm.training.patience.Watching``). Not called where nothing could be measured.
        """

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to keep, as JSON has it."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` gave."""

    def forget(self) -> None:
        """After ``restore``, where the run goes on with another validation split.

        Metrics of before cannot be compared with those that follow.
        """
