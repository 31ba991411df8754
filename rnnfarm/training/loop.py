"""One training step, and the state that it changes.

It is ``window → forward → loss → backward`` on every lane (``tbptt.py``), then
``reduce over lanes → clip → optimizer`` here. ``session.py`` calls it until the run ends.
"""

from __future__ import annotations

import json
import logging
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnfarm.data.window import Windows
from rnnfarm.errors import PluginError, RunError
from rnnfarm.job_tables import ClipTable, Job
from rnnfarm.plugins import Registry
from rnnfarm.training.callback import Callback
from rnnfarm.training.checkpoint import Checkpoint
from rnnfarm.training.evaluate import evaluate
from rnnfarm.training.lanes import Node, reduce_tree
from rnnfarm.training.optimizer import OptimizerPass
from rnnfarm.training.run import parameters_sha256, restore_arrays
from rnnfarm.training.schedule import Schedule
from rnnfarm.training.setup import Model
from rnnfarm.training.tbptt import (
    Lane,
    Ready,
    Sums,
    add_sums,
    available_threads,
    make_lanes,
    share_threads,
)

log = logging.getLogger("rnnfarm")
Array = npt.NDArray[np.floating]


class Trainer:
    """All that changes during a run, and the step that changes it."""

    #: How many processes compute its lanes.
    workers = 1

    def __init__(
        self,
        job: Job,
        registry: Registry,
        model: Model,
        windows: Windows,
        threads: int | None = None,
    ) -> None:
        training = job.training
        self.threads = available_threads(training.threads if threads is None else threads)
        self.job = job
        self.model = model
        self.windows = windows
        self.lanes: list[Lane] = make_lanes(
            training.lanes, training.batch, model.network, model.loss
        )
        layout = model.network.layout
        self.arena: Array = layout.initialized(training.seed, training.dtype)
        self.parameters = layout.views(self.arena)
        self.optimizer = OptimizerPass(
            training.optimizer.create(registry),
            layout.segments,
            training.dtype,
            choice=model.choice,
            threads=self.threads,
        )
        self.optimizer_states: dict[str, Array] = self.optimizer.states(layout.size)
        self.schedule: Schedule = training.schedule.create(registry)
        self.callbacks: list[Callback] = [c.create(registry) for c in training.callbacks]
        self.executor = ThreadPoolExecutor(min(self.threads, training.lanes))
        self.step = 0
        #: Of the last step, where it was due; see ``Lane.gradient_flow``.
        self.gradient_flow: dict[str, dict[str, float]] | None = None
        #: How many steps of the data the last step learned from.
        self.count = 0
        self.train_loss: float | None = None
        self.valid_loss: float | None = None

    @property
    def stop(self) -> str | None:
        """Why a callback wants the run to end, or None."""
        return next((callback.stop for callback in self.callbacks if callback.stop), None)

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        factor = self.schedule(self.step + 1, self.job.training.steps)
        return self.optimizer.optimizer.lr * factor

    def train_step(self) -> dict[str, Any]:
        """One training step; returns its metrics. RunError where the loss is no number."""
        # window → forward → loss → backward, on every lane
        parts = self.compute()
        # reduce over lanes
        total = reduce_tree((0, self.job.training.lanes), parts, add_sums)
        # clip → optimizer
        return self.update(total, self.lr)

    def compute(self, ready: Ready | None = None) -> dict[Node, Sums]:
        """The sums of every lane that is here: the leaves of the tree.

        ``ready`` is told, in the lanes' threads, as soon as a layer's gradient is there.
        """
        step, seed = self.step, self.job.training.seed
        share_threads(self.lanes, self.threads)
        results = self.executor.map(
            lambda lane: lane.train(self.windows, step, self.parameters, seed, ready), self.lanes
        )
        return {
            (lane.index, lane.index + 1): sums
            for lane, sums in zip(self.lanes, results, strict=True)
        }

    def update(self, total: Sums, lr: float) -> dict[str, Any]:
        """Change the parameters by the sums over all lanes; returns the step's metrics."""
        training, step = self.job.training, self.step
        assert total.gradient is not None
        scale = 1.0
        if self.model.loss.loss.reduction == "mean":
            scale = 1.0 / max(total.count, 1)
        loss, norm = total.loss * scale, global_norm(total.gradient) * scale
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise RunError(self._not_finite(loss, total.gradient))
        flow_every = training.gradient_flow_every
        due = flow_every and (step + 1) % flow_every == 0
        first = self.lanes[0]
        self.gradient_flow = first.gradient_flow() if due and first.index == 0 else None
        # clip
        clip_gradient(total.gradient, norm, scale, training.clip)
        # optimizer
        self.optimizer.apply(self.arena, total.gradient, self.optimizer_states, lr, step + 1)
        self.step += 1
        self.count, self.train_loss = total.count, loss
        return {"step": self.step, "train_loss": loss, "lr": lr, "grad_norm": norm}

    def measure(self, windows: Windows) -> dict[str, float]:
        """Loss and metrics of a split."""
        training = self.job.training
        return evaluate(
            self.model,
            windows,
            self.parameters,
            lanes=training.lanes,
            seed=training.seed,
            most=training.evaluate_windows,
            executor=self.executor,
            threads=self.threads,
        )

    def evaluate(self, windows: Windows) -> dict[str, Any]:
        """The metrics of the validation split, which the schedule goes by."""
        found = self.measure(windows)
        self.schedule.observe(found["loss"])
        self.valid_loss = found["loss"] if math.isfinite(found["loss"]) else None
        return {"step": self.step} | {f"valid_{name}": value for name, value in found.items()}

    def close(self) -> None:
        """End what computes the steps."""
        self.executor.shutdown(wait=False, cancel_futures=True)

    # -- checkpoints ------------------------------------------------------------------------------

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything numeric that the next step depends on."""
        saved: dict[str, npt.NDArray[Any]] = {
            f"parameters.{name}": np.ascontiguousarray(view)
            for name, view in self.parameters.items()
        }
        saved |= {f"optimizer.{name}": array for name, array in self.optimizer_states.items()}
        for layer, states in self.lanes[0].states.items():
            for name in states:
                rows = [lane.states[layer][name] for lane in self.lanes]
                saved[f"states.{layer}.{name}"] = np.concatenate(rows)  # (B, H)
        return saved

    def facts(self, registry: Registry) -> dict[str, Any]:
        """Everything else that the next step depends on, or that tells what was trained."""
        epoch, index = self.windows.locate(self.step)
        return {
            "cursor": {"window": self.step, "epoch": epoch, "index": index},
            "seed": self.job.training.seed,
            "train_loss": self.train_loss,
            "valid_loss": self.valid_loss,
            "schedule": _kept(self.schedule),
            "callbacks": [
                {"state": _kept(callback), "stop": callback.stop} for callback in self.callbacks
            ],
            "plugins": registry.versions(),
            "kernels": self.model.network.kernels,
            "parameters_sha256": parameters_sha256(self.arena),
            "job": self.job.to_dict(),
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint; DataError where it is of another model or optimizer."""
        facts, layout = checkpoint.facts, self.model.network.layout
        states = {
            f"{layer}.{name}": np.empty((self.job.training.batch, *state.shape[1:]), state.dtype)
            for layer, mine in self.lanes[0].states.items()
            for name, state in mine.items()
        }  # (B, H)
        restore_arrays(checkpoint, "parameters", layout.views(self.arena))
        restore_arrays(checkpoint, "optimizer", self.optimizer_states)
        restore_arrays(checkpoint, "states", states)
        for name, array in states.items():
            layer, _, state = name.rpartition(".")
            for lane in self.lanes:
                lane.states[layer][state] = np.ascontiguousarray(array[lane.rows])
        self.schedule.restore(facts["schedule"])
        for callback, saved in zip(self.callbacks, facts["callbacks"], strict=True):
            callback.restore(saved["state"])
            callback.stop = saved["stop"]
        self.train_loss, self.valid_loss = facts["train_loss"], facts["valid_loss"]
        self.step = checkpoint.step
        kernels = self.model.network.kernels
        if facts["kernels"] != kernels:
            log.warning(
                "the kernels were %s and are now %s; the last bits of the results may differ",
                facts["kernels"], kernels,
            )  # fmt: skip

    def _not_finite(self, loss: float, gradient: Array) -> str:
        """Where the first infinity or NaN of this step is, and what helps."""
        what = "loss" if not math.isfinite(loss) else "gradient"
        place = "the loss itself"
        for lane in self.lanes:
            found = lane.first_not_finite(self.parameters)
            if found:
                place = f"the output of {found}"
                break
        else:
            views = self.model.network.layout.views(gradient)
            backwards = [
                n for layer in reversed(self.model.network.layers) for n in layer.parameters
            ]
            wrong = (name for name in backwards if not np.isfinite(views[name]).all())
            name = next(wrong, None)
            if name is not None:
                place = f"the gradient of {name}"
            elif what == "gradient":
                place = "its norm"
        return (
            f"step {self.step + 1}: the {what} is no finite number any more, first in {place}; "
            f"lower training.optimizer.lr (now {self.lr:g}), set or lower training.clip, or look "
            "for extreme values in the data"
        )


def _kept(part: Schedule | Callback) -> Any:
    """What a checkpoint keeps of a part, which may be a plugin's."""
    state = part.state()
    try:
        json.dumps(state)
    except (TypeError, ValueError) as error:
        raise PluginError(
            f"{type(part).__name__}.state gives {state!r} ({error}); give what JSON has: plain "
            "numbers, texts, lists and tables"
        ) from error
    return state


def global_norm(gradient: Array) -> float:
    """The Euclidean norm; blocks are added in float64, in order."""
    block = 1 << 16
    total = 0.0
    for start in range(0, gradient.size, block):
        part = gradient[start : start + block]
        total += float(np.dot(part, part))
    return math.sqrt(total)


def clip_gradient(gradient: Array, norm: float, scale: float, clip: ClipTable | None) -> None:
    """Scale a gradient, then clip it by its global norm or by value, in place.

    ``norm`` is the norm after scaling (Pascanu et al. 2013).
    """
    if clip is not None and clip.norm is not None and norm > clip.norm:
        scale *= clip.norm / norm
    if scale != 1.0:
        gradient *= gradient.dtype.type(scale)
    if clip is not None and clip.value is not None:
        np.clip(gradient, -clip.value, clip.value, out=gradient)
