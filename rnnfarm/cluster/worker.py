"""A worker: some of the lanes, and an arena of its own that every step changes alike."""

from __future__ import annotations

import os
import platform
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from threadpoolctl import threadpool_info, threadpool_limits

from rnnfarm import __version__
from rnnfarm.cluster.buckets import Bucket, make_buckets
from rnnfarm.cluster.choose import make_exchange
from rnnfarm.cluster.exchange import Exchange, Membership, Part
from rnnfarm.cluster.lines import Lines
from rnnfarm.cluster.object_store import add_parts
from rnnfarm.data.build import ensure_dataset
from rnnfarm.data.dataset import Dataset
from rnnfarm.data.scale import Scale
from rnnfarm.errors import PluginError, RnnfarmError, foreign_part
from rnnfarm.job import read_job
from rnnfarm.kernels.device import HOST, Device
from rnnfarm.kernels.progress import listen
from rnnfarm.nn.layer import FloatArray
from rnnfarm.plugins import Registry
from rnnfarm.training.evaluate import evaluate_lanes, evaluation_lanes
from rnnfarm.training.lanes import Node, deal, owned_nodes, reduce_tree
from rnnfarm.training.loop import Trainer
from rnnfarm.training.run import parameters_sha256
from rnnfarm.training.setup import Model, make_model, make_windows, windows_to_evaluate
from rnnfarm.training.tbptt import Sums, make_lanes

#: ``{lane: {layer: {state: (B / lanes, H)}}}``
LaneStates = dict[int, dict[str, dict[str, FloatArray]]]
#: The arena, the optimizer's states, how many updates led to them, and the lanes' states.
Snapshot = tuple[npt.NDArray[Any], dict[str, npt.NDArray[Any]], int, LaneStates]
#: How what a worker does begins where it can only wait for others.
WAITING = "waiting for"


class PartError(PluginError):
    """A plugin's part raised what is no error of rnnfarm."""


@dataclass(frozen=True)
class Reply:
    """What a call gave, and ``(stream, line)`` of what was printed meanwhile."""

    result: Any
    lines: list[tuple[str, str]]


@dataclass(frozen=True)
class Home:
    """Where a worker runs, and what of it decides about bits."""

    host: str
    node: str
    pid: int
    facts: dict[str, str]
    address: Any


@dataclass(frozen=True)
class StepReport:
    """What the driver is told of a step.

    Attributes:
        seconds: how long this worker computed its lanes (sending included), put its parts into
            messages, waited for the others, and updated.
    """

    metrics: dict[str, Any]
    count: int
    gradient_flow: dict[str, dict[str, float]] | None
    seconds: dict[str, float]


class Worker:
    """One of the processes that train a job, as a Ray actor.

    It makes its parts itself, from the job's names and settings, with its own plugins. ``call``
    runs the methods of a step, one after the other; ``deliver`` takes what other workers send
    meanwhile, and ``pulse`` and ``abandon`` are answered at any time.
    """

    trainer: Trainer
    exchange: Exchange

    def __init__(self) -> None:
        self.lines = Lines()
        self.lines.install()
        self.doing, self.beat = "starting", 0
        listen(self._begins)

    def call(self, method: str, *arguments: Any) -> Reply:
        """Run a method; an exception in a plugin's part becomes an error that names the part."""
        self._begins(method)
        try:
            result = getattr(self, method)(*arguments)
        except (RnnfarmError, MemoryError):
            raise
        except Exception as error:
            part = foreign_part(error)
            if not part:
                raise
            text = " ".join(str(error).split())
            raise PartError(f"{part}{type(error).__name__}: {text}") from error
        finally:
            self._begins(f"{WAITING} the next call")
        return Reply(result, self.lines.drain())

    @ray.method(concurrency_group="mail")
    def deliver(self, message: Any) -> None:
        """Take what another worker's exchange sent."""
        self.exchange.deliver(message)

    @ray.method(concurrency_group="control")
    def pulse(self) -> tuple[str, int]:
        """What the worker is doing, and a number that grows as long as it gets on."""
        return self.doing, self.beat

    @ray.method(concurrency_group="control")
    def abandon(self) -> None:
        """Wait no longer for the other workers of the group."""
        self.exchange.abandon()

    def _begins(self, what: str) -> None:
        self.doing = what
        self.beat += 1

    # -- becoming part of a group -----------------------------------------------------------------

    def prepare(
        self,
        raw: Mapping[str, Any],
        blocked: Sequence[str],
        moved: str | None,
        scales: Mapping[str, Scale],
        loss: Mapping[str, Any],
    ) -> Home:
        """Make everything from the job.

        Args:
            blocked: plugins that are not to be loaded.
            moved: the driver's working directory, where Ray has copied it to this node: paths of
                the job below it are meant in this worker's copy.
            scales, loss: how columns are scaled, and the settings of the loss; learned once, so
                that all have the same bits.
        """
        registry = Registry.load(blocked)
        self.job = job = read_job(_moved(raw, moved), registry)
        device, gpus = job.training.device, job.cluster.gpus
        if device == "cpu" or not (gpus or device == "cuda"):
            # Ray has given this worker no GPU: those of the node are others'.
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        _set_niceness(job.cluster.niceness)
        self.limits = threadpool_limits(job.training.blas_threads)
        dataset = ensure_dataset(job, registry, lambda line: self._begins(line))
        self.model = make_model(job, dataset, registry, scales=scales, learned=loss)
        windows = make_windows(job, self.model, dataset, "train")
        self.valid = (
            make_windows(job, self.model, dataset, "valid") if "valid" in dataset.splits else None
        )
        threads = job.training.threads or job.cluster.cpus
        self.trainer = Trainer(job, registry, self.model, windows, threads)
        name, self.exchange = make_exchange(registry, job, self.model)
        facts = facts_of(registry, dataset, self.model, self.trainer) | {"exchange": name}
        context = ray.get_runtime_context()
        return Home(
            socket.gethostname(), context.get_node_id(), os.getpid(), facts, self.exchange.address()
        )

    def connect(self, generation: int, rank: int, workers: int, addresses: Sequence[Any]) -> None:
        """Be worker ``rank`` of a new group."""
        trainer, lanes = self.trainer, self.job.training.lanes
        self.rank, self.workers = rank, workers
        mine = deal(lanes, workers)
        self.nodes = owned_nodes(lanes, mine[rank])
        made = make_lanes(lanes, self.job.training.batch, self.model.network, self.model.loss)
        trainer.lanes = [made[k] for k in mine[rank]]
        self.buckets = make_buckets(self.model.network, workers)
        self.exchange.connect(
            Membership(
                generation,
                rank,
                lanes,
                tuple(mine),
                tuple(addresses),
                tuple(bucket.size for bucket in self.buckets),
            )
        )

    def load(self, step: int, snapshot: Snapshot) -> None:
        """Go on from a snapshot that was taken after ``step``."""
        arena, optimizer, updates, lanes = snapshot
        trainer = self.trainer
        trainer.step, trainer.updates = step, updates
        device = trainer.device
        device.load(trainer.arena, arena)
        for name, array in optimizer.items():
            device.load(trainer.optimizer_states[name], array)
        for lane in trainer.lanes:
            lane.states = {
                layer: {name: device.copy(device.put(state)) for name, state in states.items()}
                for layer, states in lanes[lane.index].items()
            }

    # -- the step ---------------------------------------------------------------------------------

    def step(self, lr: float) -> StepReport:
        """One training step, together with the other workers."""
        trainer = self.trainer
        began = time.perf_counter()
        # window → forward → loss → backward, on every lane; layers are sent as they are ready
        self._begins(f"computing step {trainer.step + 1}")
        sender = _Sender(self)
        parts = trainer.compute(sender)
        computed = time.perf_counter()
        # reduce over lanes
        self._begins(f"{WAITING} the other workers in step {trainer.step + 1}")
        total = self._receive(parts)
        received = time.perf_counter()
        # clip → optimizer
        self._begins(f"updating in step {trainer.step + 1}")
        metrics = trainer.update(total, lr)
        trainer.settle(metrics)
        updated = time.perf_counter()
        seconds = {
            "compute": computed - began - sender.seconds,
            "send": sender.seconds,
            "wait": received - computed,
            "update": updated - received,
        }
        return StepReport(metrics, trainer.count, trainer.gradient_flow, seconds)

    def _receive(self, parts: Mapping[Node, Sums]) -> Sums:
        """The sums over all lanes of all workers, in the gradient of this worker's first lane."""
        step, own = self.trainer.step, parts[min(parts)].gradient
        assert own is not None
        loss, count, weight = 0.0, 0, 0.0
        for number, bucket in enumerate(self.buckets):
            arrays = list(self.exchange.receive(step, number))
            if number == 0:
                found = arrays.pop()
                if not self.exchange.on_host:
                    found = self.trainer.device.get(found)
                loss, count, weight = float(found[0]), int(found[1]), float(found[2])
            for target, array in zip(bucket.of(own), arrays, strict=True):
                self._take(target, array)
        return Sums(loss, count, weight, gradient=own)

    def _take(self, target: Any, array: Any) -> None:
        """Write a sum over all workers into this worker's gradient, if it is not there already."""
        device = self.trainer.device
        if device is not HOST and self.exchange.on_host:
            device.load(target, array)
        elif device is not HOST:
            device.assign(target, array)
        elif not np.may_share_memory(target, array):  # it was added up elsewhere
            target[...] = array

    def evaluate(self) -> dict[Node, Sums]:
        """The sums of this worker's lanes over the validation split."""
        training, windows = self.job.training, self.valid
        assert windows is not None
        lanes = evaluation_lanes(windows, training.lanes)
        found = evaluate_lanes(
            self.model,
            windows,
            self.trainer.parameters,
            deal(lanes, self.workers)[self.rank],
            lanes,
            training.seed,
            windows_to_evaluate(training, windows),
            self.trainer.executor,
            tick=lambda: self._begins("evaluating"),
            threads=self.trainer.threads,
        )
        windows.split.confirm_whole()
        return found

    def snapshot(self) -> tuple[str, LaneStates, Any]:
        """The arena's checksum and the lanes' states; of worker 0 also what all have alike."""
        trainer = self.trainer
        trainer.windows.split.confirm_whole()
        get = trainer.device.get
        states = {
            lane.index: {
                layer: {name: get(state) for name, state in states.items()}
                for layer, states in lane.states.items()
            }
            for lane in trainer.lanes
        }
        arena = get(trainer.arena)
        alike = None
        if self.rank == 0:
            alike = arena, {name: get(array) for name, array in trainer.optimizer_states.items()}
        return parameters_sha256(arena), states, alike


class _Sender:
    """Sends each bucket as soon as all lanes of a worker have its gradient.

    Lanes tell it of their layers from their threads. The lane that comes last adds up and sends.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.seconds = 0.0
        self._lock = Lock()
        self._arrived: Counter[str] = Counter()
        self._sums: dict[int, Sums] = {}

    def __call__(self, lane: int, layer: str, sums: Sums) -> None:
        worker = self.worker
        with self._lock:
            worker.beat += 1
            self._sums[lane] = sums
            self._arrived[layer] += 1
            if self._arrived[layer] < len(worker.trainer.lanes):
                return
            began = time.perf_counter()
            for number, bucket in enumerate(worker.buckets):
                if bucket.after == layer:
                    self._send(number, bucket)
            self.seconds += time.perf_counter() - began

    def _send(self, number: int, bucket: Bucket) -> None:
        worker = self.worker
        device, on_host = worker.trainer.device, worker.exchange.on_host
        leaves: dict[Node, Part] = {}
        for lane, sums in self._sums.items():
            assert sums.gradient is not None
            arrays: list[Any] = bucket.of(sums.gradient)
            if on_host and device is not HOST:
                arrays = [device.get(array) for array in arrays]
            if number == 0:  # the figures travel with the first one
                figures = np.array([float(sums.loss), sums.count, sums.weight], np.float64)
                arrays.append(figures if on_host else device.put(figures))
            leaves[lane, lane + 1] = arrays
        add = add_parts if on_host else partial(_add_on, device)
        parts = {node: reduce_tree(node, leaves, add) for node in worker.nodes}
        worker.exchange.send(worker.trainer.step, number, parts)


def _add_on(device: Device, left: Part, right: Part) -> Part:
    """The sums of two parts' arrays on a device, in place in the left one."""
    for a, b in zip(left, right, strict=True):
        device.add(a, b, a)
    return left


def software_of(registry: Registry) -> dict[str, str]:
    """What has to be the same on the driver too."""
    return {"rnnfarm": __version__} | {f"plugin {k}": v for k, v in registry.versions().items()}


def equations_of(trainer: Trainer) -> dict[str, str]:
    """The fingerprints of a job's equations, which have to be the driver's too."""
    return {f"equations of {name}": found for name, found in trainer.equations.items()}


def facts_of(
    registry: Registry, dataset: Dataset, model: Model, trainer: Trainer
) -> dict[str, str]:
    """What has to be the same on every worker, by its name in the table of differences."""
    blas = [
        f"{info['internal_api']} {info['version']} for {info.get('architecture', '?')}"
        for info in threadpool_info()
        if info["user_api"] == "blas"
    ]
    return {
        "Python": platform.python_version(),
        "numpy": np.__version__,
        "pyarrow": version("pyarrow"),
        "ray": ray.__version__,
        "BLAS": ", ".join(blas),
        **software_of(registry),
        **{f"kernel of {name}": kernel for name, kernel in trainer.kernels.items()},
        **{f"kernel of {one.name}": one.kernel_variant for one in model.network.every_recurrent},
        **equations_of(trainer),
        **{f"data ({k})": v[:12] for k, v in dataset.fingerprint().items()},
        "first parameters": trainer.parameters_sha256()[:12],
    }


def _moved(raw: Mapping[str, Any], moved: str | None) -> Mapping[str, Any]:
    """The job with its paths below ``moved`` changed to ones below the working directory."""
    if moved is None:
        return raw
    data = dict(raw["data"])
    for key in ("path", "base"):
        with suppress(ValueError):
            inner = os.path.relpath(data[key], moved) if "://" not in data[key] else ".."
            if not inner.startswith(".."):
                data[key] = os.path.normpath(os.path.join(os.getcwd(), inner))
    return {**raw, "data": data}


def _set_niceness(wanted: int) -> None:
    here = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, wanted)
    except PermissionError:
        print(
            f"this worker runs at niceness {here} instead of {wanted}; start Ray there with "
            f"RAY_worker_niceness={wanted}, or set cluster.niceness = {here}"
        )
