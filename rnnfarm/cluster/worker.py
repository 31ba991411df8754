"""A worker: some of the lanes, and an arena of its own that every step changes alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from rnnfarm.data.dataset import open_dataset
from rnnfarm.job import read_job
from rnnfarm.nn.layer import FloatArray
from rnnfarm.plugins import Registry
from rnnfarm.training.evaluate import evaluate_lanes, evaluation_lanes
from rnnfarm.training.lanes import Node, deal, owned_nodes, reduce_tree
from rnnfarm.training.loop import Trainer
from rnnfarm.training.setup import make_model, make_windows
from rnnfarm.training.tbptt import Sums, add_sums, lane_threads

#: ``{lane: {layer: {state: (B / lanes, H)}}}``
LaneStates = dict[int, dict[str, dict[str, FloatArray]]]
#: The arena, the optimizer's states, and the lanes' states.
Snapshot = tuple[npt.NDArray[Any], dict[str, npt.NDArray[Any]], LaneStates]


class Worker:
    """One of ``workers`` processes that train a job; the methods are a step's parts.

    It makes its parts itself, from the job's names and settings, with its own plugins.
    """

    def __init__(
        self, job: Mapping[str, Any], blocked: Sequence[str], rank: int, workers: int
    ) -> None:
        registry = Registry.load(blocked)
        self.versions = registry.versions()
        self.job = read_job(job, registry)
        training = self.job.training
        self.limits = threadpool_limits(training.blas_threads)
        self.dataset = open_dataset(self.job.data.path)
        self.model = make_model(self.job, self.dataset, registry)
        windows = make_windows(self.job, self.model, self.dataset, "train")
        if "valid" in self.dataset.splits:
            self.valid = make_windows(self.job, self.model, self.dataset, "valid")
        self.trainer = Trainer(self.job, registry, self.model, windows)
        self.rank, self.workers = rank, workers
        self.mine = deal(training.lanes, workers)[rank]
        self.trainer.lanes = [self.trainer.lanes[k] for k in self.mine]
        # One thread unless the job wants more: the other workers have this machine's other cores.
        self.trainer.executor.shutdown()
        self.trainer.executor = ThreadPoolExecutor(
            lane_threads(training.threads or 1, training.lanes)
        )

    def facts(self) -> dict[str, str]:
        """What has to be the same on every worker."""
        kernels = {f"kernel of {k}": v for k, v in self.model.network.kernels.items()}
        plugins = {f"plugin {k}": v for k, v in self.versions.items()}
        return {"numpy": np.__version__, **kernels, **plugins, **self.dataset.fingerprint()}

    def load(self, step: int, snapshot: Snapshot) -> None:
        """Go on from a snapshot that was taken after ``step``."""
        arena, optimizer, lanes = snapshot
        trainer = self.trainer
        trainer.step = step
        trainer.arena[...] = arena
        for name, array in optimizer.items():
            trainer.optimizer_states[name][...] = array
        for lane in trainer.lanes:
            lane.states = {
                layer: {name: state.copy() for name, state in states.items()}
                for layer, states in lanes[lane.index].items()
            }

    def compute(self) -> dict[Node, Sums]:
        """Run the lanes; the sums of the parts of the tree that are whole here."""
        parts = self.trainer.compute()
        nodes = owned_nodes(self.job.training.lanes, self.mine)
        return {node: reduce_tree(node, parts, add_sums) for node in nodes}

    def update(
        self, lr: float, *parts: dict[Node, Sums]
    ) -> tuple[dict[str, Any], int, dict[str, dict[str, float]] | None]:
        """Add up the parts of all workers and change the arena; metrics, count, gradient flow."""
        merged = {node: sums for part in parts for node, sums in part.items()}
        total = reduce_tree((0, self.job.training.lanes), merged, _add_received)
        metrics = self.trainer.update(_writeable(total), lr)
        return metrics, self.trainer.count, self.trainer.gradient_flow

    def evaluate(self) -> dict[Node, Sums]:
        """The sums of this worker's lanes over the validation split."""
        training, windows = self.job.training, self.valid
        lanes = evaluation_lanes(windows, training.lanes)
        return evaluate_lanes(
            self.model,
            windows,
            self.trainer.parameters,
            deal(lanes, self.workers)[self.rank],
            lanes,
            training.seed,
            training.evaluate_windows,
            self.trainer.executor,
        )

    def lane_states(self) -> LaneStates:
        """The states of this worker's lanes."""
        return {lane.index: lane.states for lane in self.trainer.lanes}

    def replica(self) -> tuple[npt.NDArray[Any], dict[str, npt.NDArray[Any]]]:
        """The arena and the optimizer's states, which all workers have alike."""
        return self.trainer.arena, self.trainer.optimizer_states


def _add_received(left: Sums, right: Sums) -> Sums:
    return add_sums(_writeable(left), right)


def _writeable(sums: Sums) -> Sums:
    """The same sums, with a gradient that does not lie in Ray's read-only memory."""
    if sums.gradient is None or sums.gradient.flags.writeable:
        return sums
    return replace(sums, gradient=sums.gradient.copy())
