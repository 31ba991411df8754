"""The driver's side of training with workers: the group, the step, snapshots and recovery."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from rnnfarm.cluster.worker import LaneStates, Snapshot, Worker
from rnnfarm.data.window import Windows
from rnnfarm.errors import DeviceError, RnnfarmError, RunError
from rnnfarm.job_tables import Job
from rnnfarm.plugins import Registry
from rnnfarm.training.evaluate import evaluation_lanes, figures
from rnnfarm.training.lanes import reduce_tree
from rnnfarm.training.loop import Trainer
from rnnfarm.training.setup import Model
from rnnfarm.training.tbptt import add_sums

log = logging.getLogger("rnnfarm")
#: Every how many steps the driver fetches what a new group would start from.
SNAPSHOT_EVERY = 20
#: How many deaths in a row, none of them followed by a snapshot, end a run.
DEATHS = 3


class ClusterTrainer(Trainer):
    """A ``Trainer`` whose steps are computed by Ray actors.

    Its own arena and lanes hold the last snapshot; the workers are ahead of it. A worker's death
    ends its group: a new one starts from the snapshot and redoes the steps since, to the same bits.
    """

    def __init__(
        self, job: Job, registry: Registry, model: Model, windows: Windows, workers: int
    ) -> None:
        super().__init__(job, registry, model, windows)
        self.workers = workers
        self.registry = registry
        self.group: list[Any] = []
        #: The learning rates of the steps since the snapshot, for the case that they are redone.
        self.rates: list[float] = []
        self.deaths = 0

    # -- the step ---------------------------------------------------------------------------------

    def train_step(self) -> dict[str, Any]:
        lr = self.lr
        metrics: dict[str, Any]
        metrics, self.count, self.gradient_flow = self._recovering(lambda: self._step(lr))
        self.rates.append(lr)
        self.step += 1
        self.train_loss = metrics["train_loss"]
        if self.step % SNAPSHOT_EVERY == 0:
            self._recovering(self._snapshot)
        return metrics

    def _step(self, lr: float) -> Any:
        parts = [worker.compute.remote() for worker in self.group]
        return _get([worker.update.remote(lr, *parts) for worker in self.group])[0]

    def measure(self, windows: Windows) -> dict[str, float]:
        def run() -> Any:
            return _get([worker.evaluate.remote() for worker in self.group])

        parts = {node: sums for part in self._recovering(run) for node, sums in part.items()}
        lanes = evaluation_lanes(windows, self.job.training.lanes)
        return figures(self.model, reduce_tree((0, lanes), parts, add_sums))

    def arrays(self) -> dict[str, Any]:
        if self.rates:
            self._recovering(self._snapshot)
        return super().arrays()

    # -- the group --------------------------------------------------------------------------------

    def _recovering(self, act: Callable[[], Any]) -> Any:
        """``act()``, with a new group where there is none or a worker of it has died."""
        while True:
            try:
                if not self.group:
                    self._form()
                return act()
            except RayActorError as error:
                self.deaths += 1
                self.end()
                if self.deaths >= DEATHS:
                    raise RunError(
                        f"step {self.step + 1}: workers died {DEATHS} times without progress, the "
                        f"last time: {_first_line(error)}; look for memory (lower training.batch), "
                        "and go on with --resume"
                    ) from error
                log.warning("a worker died (%s); going on with a new group", _first_line(error))

    def _form(self) -> None:
        """Start the workers, give them the snapshot, and redo the steps since."""
        raw, blocked = self.job.to_dict(), self.registry.blocked
        actor = ray.remote(num_cpus=1, max_restarts=0)(Worker)
        self.group = [
            actor.remote(raw, blocked, rank, self.workers) for rank in range(self.workers)
        ]
        self._compare(_get([worker.facts.remote() for worker in self.group]))
        start = self.step - len(self.rates)
        lanes: LaneStates = {lane.index: lane.states for lane in self.lanes}
        snapshot: Snapshot = (self.arena, self.optimizer_states, lanes)
        shared = ray.put(snapshot)
        _get([worker.load.remote(start, shared) for worker in self.group])
        for lr in self.rates:
            self._step(lr)

    def _snapshot(self) -> None:
        (arena, optimizer), *states = _get(
            [self.group[0].replica.remote(), *(w.lane_states.remote() for w in self.group)]
        )
        self.arena[...] = arena
        for name, array in optimizer.items():
            self.optimizer_states[name][...] = array
        for part in states:
            for k, state in part.items():
                self.lanes[k].states = state
        self.rates.clear()
        self.deaths = 0

    def _compare(self, facts: list[dict[str, str]]) -> None:
        """DeviceError with a table where workers differ in what decides about bits."""
        rows = [
            f"  {name}: " + ", ".join(f"worker {k} {f.get(name)}" for k, f in enumerate(facts))
            for name in sorted({name for f in facts for name in f})
            if len({f.get(name) for f in facts}) > 1
        ]
        if rows:
            self.end()
            raise DeviceError(
                "the workers differ; install the same on every node:\n" + "\n".join(rows)
            )

    def end(self) -> None:
        """End the workers."""
        for worker in self.group:
            ray.kill(worker)
        self.group = []


def _get(refs: list[Any]) -> Any:
    """``ray.get``; an error of rnnfarm in a worker is raised here as it was raised there."""
    try:
        return ray.get(refs)
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, RnnfarmError | MemoryError):
            raise cause from error
        raise


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
