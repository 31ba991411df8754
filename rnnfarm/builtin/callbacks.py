"""The built-in callbacks."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field

from rnnfarm.errors import JobError, suggestion
from rnnfarm.training.callback import Callback
from rnnfarm.training.patience import Patience


class EarlyStopping(Callback):
    """Ends the run once ``patience`` evaluations in a row were no better than the best before.

    patience: how many evaluations in a row may be no better; metric: which value of an evaluation,
    the lower the better; min_delta: by how much it must fall below the best one to count as better.
    """

    needs_evaluation = True
    patience: Annotated[int, Field(ge=1)] = 5
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    metric: str = "valid_loss"

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._patience = Patience(self.min_delta)

    def on_evaluation(self, metrics: dict[str, Any]) -> None:
        if self.metric not in metrics:
            raise JobError(
                f"callback early_stopping: metric = {self.metric!r} is no figure of an evaluation; "
                + suggestion(self.metric, metrics)
            )
        value = metrics[self.metric]
        waited = self._patience.observe(math.nan if value is None else float(value))
        if waited >= self.patience:
            best = self._patience.best
            least = "a number" if best is None else f"below {best:g}"
            self.stop = f"{self.metric} was not {least} in {waited} evaluations in a row"

    def state(self) -> dict[str, Any]:
        return self._patience.state()

    def restore(self, state: dict[str, Any]) -> None:
        self._patience.restore(state)
