"""Figures of a run as Ray's metrics, which its dashboard and Prometheus show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.util.metrics import Gauge

from rnnfarm.cluster.worker import StepReport

STEP = {
    "train_loss": "loss of the last step",
    "lr": "learning rate",
    "grad_norm": "norm of the gradient before clipping",
    "step": "steps done",
    "valid_loss": "loss of the validation split",
}
SECONDS = {
    "compute": "seconds that a worker computed its lanes in the last step",
    "send": "seconds that a worker made messages in the last step",
    "wait": "seconds that a worker waited for the others in the last step",
    "update": "seconds that a worker took for clipping and the optimizer in the last step",
}


class Metrics:
    """Gauges ``rnnfarm_…`` with the tags ``run`` and, for what differs between them, ``worker``."""

    def __init__(self, run: Path) -> None:
        self.run = {"run": run.name}
        self.gauges = {
            name: Gauge(f"rnnfarm_{name}", description=text, tag_keys=("run",))
            for name, text in STEP.items()
        }
        self.seconds = {
            name: Gauge(f"rnnfarm_{name}_seconds", description=text, tag_keys=("run", "worker"))
            for name, text in SECONDS.items()
        }
        self.workers = Gauge("rnnfarm_workers", description="workers", tag_keys=("run",))

    def step(self, reports: Sequence[StepReport]) -> None:
        self._set(reports[0].metrics)
        self.workers.set(len(reports), self.run)
        for rank, report in enumerate(reports):
            for name, seconds in report.seconds.items():
                self.seconds[name].set(seconds, self.run | {"worker": str(rank)})

    def evaluation(self, entry: Mapping[str, Any]) -> None:
        self._set(entry)

    def _set(self, figures: Mapping[str, Any]) -> None:
        for name, figure in figures.items():
            if name in self.gauges and figure is not None:
                self.gauges[name].set(figure, self.run)
