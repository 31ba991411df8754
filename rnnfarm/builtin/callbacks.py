"""The built-in callbacks."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from rnnfarm.training.callback import Callback
from rnnfarm.training.patience import Watching


class EarlyStopping(Watching, Callback):
    """Ends the run once several evaluations in a row were no better than the best before.

    An evaluation in which nothing could be measured does not count as one.

    patience: how many evaluations in a row may be no better, the last one ending the run.
    """

    patience: Annotated[int, Field(ge=1)] = 5

    def on_evaluation(self, metrics: dict[str, Any]) -> None:
        value = self.monitor.value(metrics)
        if value is None:
            return
        waited = self._patience.observe(value)
        if waited >= self.patience:
            best = self._patience.best
            side = "below" if self.monitor.mode == "min" else "above"
            least = "a number" if best is None else f"{side} {best:g}"
            self.stop = f"{self.monitor.metric} was not {least} in {waited} evaluations in a row"

    def state(self) -> dict[str, Any]:
        return self._patience.state()

    def restore(self, state: dict[str, Any]) -> None:
        self._patience.restore(state)

    def forget(self) -> None:
        super().forget()
        self.stop = None  # it was said because of those values
