"""The built-in callbacks."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from rnnfarm.errors import JobError, suggestion
from rnnfarm.training.callback import Callback


class EarlyStopping(Callback):
    """Ends the run once ``patience`` evaluations in a row were no better than the best before.

    metric: which figure of an evaluation, the lower the better.
    min_delta: by how much it must fall below the best one to count as better.
    """

    patience: Annotated[int, Field(ge=1)] = 5
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    metric: str = "valid_loss"

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._best: float | None = None
        self._waited = 0

    def on_evaluation(self, metrics: dict[str, Any]) -> None:
        if self.metric not in metrics:
            raise JobError(
                f"callback early_stopping: metric = {self.metric!r} is no figure of an evaluation; "
                + suggestion(self.metric, metrics)
            )
        value = float(metrics[self.metric])
        if self._best is None or value < self._best - self.min_delta:
            self._best, self._waited = value, 0
            return
        self._waited += 1
        if self._waited >= self.patience:
            self.stop = (
                f"{self.metric} was not below {self._best:g} in {self._waited} evaluations in a row"
            )

    def state(self) -> dict[str, Any]:
        return {"best": self._best, "waited": self._waited}

    def restore(self, state: dict[str, Any]) -> None:
        self._best, self._waited = state["best"], state["waited"]
