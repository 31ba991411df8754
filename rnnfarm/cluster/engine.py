"""The driver's side of training with workers: the step, snapshots and recovery."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import ray

from rnnfarm.cluster.group import Group, GroupBroken
from rnnfarm.cluster.metrics import Metrics
from rnnfarm.cluster.worker import Snapshot, StepReport, equations_of, software_of
from rnnfarm.data.window import Windows
from rnnfarm.errors import RunError
from rnnfarm.job_tables import Job
from rnnfarm.plugins import Registry
from rnnfarm.training.evaluate import evaluation_lanes, figures
from rnnfarm.training.lanes import reduce_tree
from rnnfarm.training.loop import Trainer
from rnnfarm.training.setup import Model
from rnnfarm.training.tbptt import add_sums

log = logging.getLogger("rnnfarm")
#: How many deaths in a row, none of them followed by a snapshot, end a run.
DEATHS = 3
#: Bytes of Ray's object store beyond those of the parameters.
STORE = 128 << 20


class ClusterTrainer(Trainer):
    """A ``Trainer`` whose steps are computed by Ray actors.

    Its own arena and lanes hold the last snapshot; the workers are ahead of it. When a worker dies,
    those that are left load the snapshot and redo the steps since, to the same bits; whoever comes
    up later joins them between two steps.

    Args:
        session: Ray, entered at the first step and left at the end; given the bytes that its object
            store needs, it gives what says which of Ray's own processes has ended.
        log_file: where Ray's own notices go.
        say: tells of what happens.
    """

    def __init__(
        self,
        job: Job,
        registry: Registry,
        model: Model,
        windows: Windows,
        *,
        session: Callable[[int], AbstractContextManager[Callable[[], str]]],
        log_file: Path,
        say: Callable[[str], None],
    ) -> None:
        super().__init__(job, registry, model, windows)
        self.registry = registry
        self.session = session
        self.log_file, self.say = log_file, say
        self.stack = ExitStack()
        self.group: Group | None = None
        #: Whether the workers have formed a group and are at this trainer's step.
        self.joined = False
        #: The learning rates of the steps since the snapshot, for the case that they are redone.
        self.rates: list[float] = []
        #: How many of them have changed the parameters.
        self.updated = 0
        self.deaths = 0
        #: How often workers were lost, and how many steps were computed once more.
        self.losses = self.redone = 0
        #: Seconds of all steps so far by what worker 0 did, for benchmarks.
        self.seconds: Counter[str] = Counter()

    @property
    def kernels(self) -> dict[str, str]:
        """Those of the workers, once there are any."""
        home = self.group.members[0].home if self.group and self.group.members else None
        if home is None:
            # The driver's own, which are the workers' too where both compute on CPUs.
            return {} if self.job.training.device == "cuda" else super().kernels
        facts = home.facts
        prefix = "kernel of "
        found = {name.removeprefix(prefix): k for name, k in facts.items() if prefix in name}
        return {name: kernel.partition(" (")[0] for name, kernel in found.items()}

    # -- the step ---------------------------------------------------------------------------------

    def train_step(self) -> dict[str, Any]:
        lr = self.lr
        if self.group is not None:
            self.group.check_ray()
            if self.group.waiting():
                self.take_snapshot()  # so that the new group redoes nothing
                self.joined = False
        report: StepReport = self._recovering(lambda group: self._step(group, lr))
        self.rates.append(lr)
        self.gradient_flow = report.gradient_flow
        self.updated += bool(report.count)
        self.finish(report.count, report.metrics["train_loss"])
        if self.step % self.job.cluster.snapshot_every == 0:
            self.take_snapshot()
        return report.metrics

    def _step(self, group: Group, lr: float) -> StepReport:
        reports: list[StepReport] = group.call("step", lr)
        self.metrics.step(reports)
        self.seconds.update(reports[0].seconds)
        return reports[0]

    def measure(self, windows: Windows) -> dict[str, float | None]:
        found = self._recovering(lambda group: group.call("evaluate"))
        parts = {node: sums for part in found for node, sums in part.items()}
        lanes = evaluation_lanes(windows, self.job.training.lanes)
        return figures(self.model, reduce_tree((0, lanes), parts, add_sums))

    def evaluate(self, windows: Windows) -> dict[str, Any]:
        entry = super().evaluate(windows)
        self.metrics.evaluation(entry)
        return entry

    def arrays(self) -> dict[str, Any]:
        self.take_snapshot()
        return super().arrays()

    # -- snapshots --------------------------------------------------------------------------------

    def take_snapshot(self) -> None:
        """Fetch what a new group would start from, where the workers are ahead of it."""
        if self.rates:
            self._recovering(self._fetch)

    def _fetch(self, group: Group) -> None:
        found = group.call("snapshot")
        checksums = [checksum for checksum, _, _ in found]
        if len(set(checksums)) > 1:
            table = "\n".join(f"  worker {k}: {c}" for k, c in enumerate(checksums))
            raise RunError(
                f"step {self.step}: the workers' parameters are not the same any more, which "
                "differing processors or damaged memory can cause; go on with --resume on nodes "
                f"of one type:\n{table}"
            )
        arena, optimizer = found[0][2]
        self.arena[...] = arena
        for name, array in optimizer.items():
            self.optimizer_states[name][...] = array
        for _, part, _ in found:
            for k, states in part.items():
                self.lanes[k].states = states
        self.rates.clear()
        self.updated = 0
        self.deaths = 0

    # -- the group --------------------------------------------------------------------------------

    def _recovering(self, act: Callable[[Group], Any]) -> Any:
        """``act``, with a new group where there is none or workers of it have died."""
        while True:
            try:
                if self.group is None:
                    self.group = self._make_group()
                if not self.joined:
                    self._join(self.group)
                return act(self.group)
            except GroupBroken as broken:
                if self.group is not None:
                    self.group.check_ray()
                self.joined = False
                self.deaths += 1
                self.losses += 1
                if self.deaths >= DEATHS:
                    raise RunError(
                        f"step {self.step + 1}: workers were lost {DEATHS} times without progress, "
                        f"the last time: {broken}; look for memory (lower training.batch) and at "
                        "the nodes, and go on with --resume"
                    ) from broken
                log.warning("%s; going on from step %d", broken, self.step - len(self.rates))

    def _make_group(self) -> Group:
        lost = self.stack.enter_context(self.session(self._store_bytes()))
        self.metrics = Metrics(self.log_file.parent)
        moved = ray.get_runtime_context().runtime_env.get("working_dir")
        group = Group(
            self.job,
            self.registry.blocked,
            str(Path.cwd()) if moved else None,
            self.model.scales,
            self.model.loss.loss.settings(),
            software_of(self.registry) | equations_of(self),
            self.log_file,
            self.say,
            lost,
        )
        self.stack.callback(group.end)
        return group

    def _store_bytes(self) -> int:
        """What there may be at a time: gradients of two steps and their sums, and a snapshot."""
        states = 2 + len(self.optimizer_states)
        return STORE + int(self.arena.nbytes) * (4 * self.job.cluster.most + states)

    def _join(self, group: Group) -> None:
        """Form the group, give it the snapshot, and redo the steps since."""
        group.join()
        if self.workers != (count := len(group.members)):
            self.say(f"step {self.step}: {count} worker{'s' * (count > 1)}")
        self.workers = len(group.members)
        lanes = {lane.index: lane.states for lane in self.lanes}
        updates = self.updates - self.updated
        snapshot: Snapshot = (self.arena, self.optimizer_states, updates, lanes)
        group.call("load", self.step - len(self.rates), ray.put(snapshot))
        for lr in self.rates:
            group.call("step", lr)
            self.redone += 1
        self.joined = True

    def close(self) -> None:
        self.stack.close()
        super().close()
