"""One training step, and the state that it changes.

It is ``window → forward → loss → backward`` on every lane (``tbptt.py``), then
``reduce over lanes → clip → optimizer`` here. ``session.py`` calls it until the run ends.
"""

from __future__ import annotations

import json
import logging
import math
import reprlib
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnfarm.data.window import Windows
from rnnfarm.equations.parts import part_name
from rnnfarm.errors import DataError, PluginError, RunError
from rnnfarm.job_tables import Job
from rnnfarm.plugins import Registry
from rnnfarm.training.best import Evaluations
from rnnfarm.training.callback import Callback
from rnnfarm.training.checkpoint import Checkpoint
from rnnfarm.training.evaluate import directions, evaluate, value_metric
from rnnfarm.training.lanes import Node, reduce_tree
from rnnfarm.training.monitor import Monitor, monitor_of
from rnnfarm.training.optimizer import OptimizerPass
from rnnfarm.training.patience import Watching
from rnnfarm.training.run import parameters_sha256, restore_arrays
from rnnfarm.training.schedule import Schedule
from rnnfarm.training.setup import Model, windows_to_evaluate
from rnnfarm.training.tbptt import (
    Lane,
    Ready,
    Sums,
    add_sums,
    available_threads,
    lane_executor,
    make_lanes,
    share_threads,
)

log = logging.getLogger("rnnfarm")


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
        self.device = model.choice.where
        self.arena: Any = self.device.put(layout.initialized(training.seed, training.dtype))
        self.parameters = layout.views(self.arena)
        self.optimizer = OptimizerPass(
            training.optimizer.create(registry),
            layout.segments,
            training.dtype,
            choice=model.choice,
            threads=self.threads,
            bound=None if training.clip is None else training.clip.value,
        )
        self.optimizer_states: dict[str, Any] = self.optimizer.states(layout.size)
        self.schedule: Schedule = training.schedule.create(registry)
        self.callbacks: list[Callback] = [c.create(registry) for c in training.callbacks]
        self.evaluations = Evaluations(self._monitor())
        self.executor = lane_executor(self.device, self.threads, training.lanes)
        self.step = 0
        #: Of the last step, where it was due; see ``Lane.gradient_flow``.
        self.gradient_flow: dict[str, dict[str, float]] | None = None
        #: How many steps of the data the last step learned from.
        self.count = 0
        #: The sum over lanes of the last step's gradient.
        self.last_gradient: Any = None
        #: From how many of them all steps so far did.
        self.learned = 0
        #: How many steps have changed the parameters: those of which a target counted.
        self.updates = 0
        #: Of the last step that learned from any; a device may still be computing it.
        self.train_loss: Any = None

    @property
    def kernels(self) -> dict[str, str]:
        """The kernel of every recurrent layer, of the loss and of the optimizer."""
        loss = self.model.loss.kernel_name
        return {
            **self.model.network.kernels,
            **({} if loss is None else {"loss": loss}),
            "optimizer": self.optimizer.kernel_name,
        }

    @property
    def equations(self) -> dict[str, str]:
        """The fingerprints of the equations of recurrent layers, loss and optimizer."""
        return self.model.equations | {"optimizer": self.optimizer.equations}

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
        add = partial(add_sums, device=self.device)
        total = reduce_tree((0, self.job.training.lanes), parts, add)
        # clip → optimizer
        return self.update(total, self.lr)

    def compute(self, ready: Ready | None = None) -> dict[Node, Sums]:
        """The sums of every lane that is here: the leaves of the tree.

        ``ready`` is told, in the lanes' threads, as soon as a layer's gradient is there.
        """
        step, seed = self.step, self.job.training.seed
        self.windows.split.check_whole()
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
        loss, norm, factor = self._measured(total)
        entry = {"step": step + 1, "train_loss": loss, "lr": lr, "grad_norm": norm}
        entry |= {f"train_{k}": v for k, v in value_metric(self.model, loss).items()}
        self.last_gradient = total.gradient
        if self.device.immediate:
            self.settle(entry)
        flow_every = training.gradient_flow_every
        due = flow_every and (step + 1) % flow_every == 0
        first = self.lanes[0]
        self.gradient_flow = first.gradient_flow() if due and first.index == 0 else None
        # optimizer
        if total.weight:
            self.optimizer.apply(
                self.arena, total.gradient, self.optimizer_states, lr, self.updates + 1, factor
            )
        self.finish(total.count if total.weight else 0, loss)
        return entry

    def _measured(self, total: Sums) -> tuple[Any, Any, Any]:
        """The mean loss of a step, the norm of its gradient, and what that is to be scaled by so
        that it is clipped. A step of which nothing counts has no loss, and changes nothing."""
        if not total.weight:
            return None, 0.0, 0.0
        clip = self.job.training.clip
        mean = 1.0 / total.weight
        scale = mean if self.model.loss.loss.reduction == "mean" else 1.0
        norm, factor = self.device.norm_and_scale(
            total.gradient, scale, None if clip is None else clip.norm
        )
        return total.loss * mean, norm, factor

    def finish(self, count: int, loss: Any) -> None:
        """Note that a step was done, which has learned from ``count`` steps of the data."""
        self.step += 1
        self.count = count
        self.learned += count
        if count:
            self.updates += 1
            self.train_loss = loss

    def settle(self, entry: dict[str, Any]) -> None:
        """Wait for the figures of a step. RunError where one is no number: the step then has
        changed nothing."""
        entry |= {
            name: value if value is None or name in ("step", "lr") else float(value)
            for name, value in entry.items()
        }
        loss, norm = entry["train_loss"], entry["grad_norm"]
        if loss is not None and not (math.isfinite(loss) and math.isfinite(norm)):
            raise RunError(self._not_finite(entry["step"], loss))

    def measure(self, windows: Windows) -> dict[str, float | None]:
        """Loss and metrics of a split."""
        training = self.job.training
        return evaluate(
            self.model,
            windows,
            self.parameters,
            lanes=training.lanes,
            seed=training.seed,
            most=windows_to_evaluate(training, windows),
            executor=self.executor,
            threads=self.threads,
        )

    def evaluate(self, windows: Windows) -> dict[str, Any]:
        """Measure the parameters on the validation split; return the metrics."""
        found = self.measure(windows)
        return {"step": self.step} | {f"valid_{name}": value for name, value in found.items()}

    def observe(self, entry: dict[str, Any], only_at_end: bool) -> bool:
        """Show an evaluation to the schedule and the callbacks; whether it is the best so far.

        What is measured only because the run ends has no part in what a run decides: resumed with
        more steps, it is to be what it would have been in one piece.
        """
        if only_at_end:
            for callback in self.callbacks:
                callback.on_last_evaluation(entry)
            return self.evaluations.add(entry, only_at_end)
        schedule, monitor = self.schedule, self.evaluations.monitor
        value = (schedule.monitor if isinstance(schedule, Watching) else monitor).value(entry)
        if value is not None:
            schedule.observe(value)
        for callback in self.callbacks:
            callback.on_evaluation(entry)
        return self.evaluations.add(entry, only_at_end)

    def _monitor(self) -> Monitor:
        """What the job goes by; JobError where its evaluations do not measure that."""
        training = self.job.training
        known = {f"valid_{name}": mode for name, mode in directions(self.model).items()}
        chosen = monitor_of("training.monitor", training.monitor, training.mode, known)
        named = [(f"training.callbacks.{k}", part) for k, part in enumerate(self.callbacks)]
        for key, part in (("training.schedule", self.schedule), *named):
            if isinstance(part, Watching):
                other = chosen.mode if part.metric in (None, chosen.metric) else None
                metric = part.metric or chosen.metric
                part.watch(monitor_of(f"{key}.metric", metric, part.mode or other, known))
        return chosen

    def close(self) -> None:
        """End what computes the steps."""
        self.executor.shutdown(wait=False, cancel_futures=True)

    # -- checkpoints ------------------------------------------------------------------------------

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything numeric that the next step depends on."""
        get = self.device.get
        parameters = self.model.network.layout.views(get(self.arena))
        saved: dict[str, npt.NDArray[Any]] = {
            f"parameters.{name}": np.ascontiguousarray(view) for name, view in parameters.items()
        }
        saved |= {f"optimizer.{name}": get(array) for name, array in self.optimizer_states.items()}
        for layer, states in self.lanes[0].states.items():
            for name in states:
                rows = [get(lane.states[layer][name]) for lane in self.lanes]
                saved[f"states.{layer}.{name}"] = np.concatenate(rows)  # (B, H)
        return saved

    def facts(self, registry: Registry) -> dict[str, Any]:
        """Everything else that the next step depends on, or that tells what was trained."""
        epoch, index = self.windows.locate(self.step)
        return {
            "cursor": {"window": self.step, "epoch": epoch, "index": index},
            "seed": self.job.training.seed,
            "train_loss": None if self.train_loss is None else float(self.train_loss),
            **self.evaluations.facts(self.step),
            "learned": self.learned,
            "updates": self.updates,
            "schedule": _kept(self.schedule),
            "callbacks": [
                {"state": _kept(callback), "stop": callback.stop} for callback in self.callbacks
            ],
            "loss": self.model.loss.loss.settings(),
            "scales": {name: scale.to_dict() for name, scale in self.model.scales.items()},
            "plugins": registry.versions(),
            "kernels": self.kernels,
            "equations": self.equations,
            "parameters_sha256": self.parameters_sha256(),
            "job": self.job.to_dict(),
        }

    def parameters_sha256(self) -> str:
        """The hash of the arena's bytes."""
        return parameters_sha256(self.device.get(self.arena))

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint; DataError where it is of another model or optimizer."""
        facts, layout = checkpoint.facts, self.model.network.layout
        states = {
            f"{layer}.{name}": np.empty((self.job.training.batch, *state.shape[1:]), state.dtype)
            for layer, mine in self.lanes[0].states.items()
            for name, state in mine.items()
        }  # (B, H)
        arena = np.empty(layout.size, self.job.training.dtype)
        optimizer = {name: np.empty_like(arena) for name in self.optimizer_states}
        restore_arrays(checkpoint, "parameters", layout.views(arena))
        restore_arrays(checkpoint, "optimizer", optimizer)
        restore_arrays(checkpoint, "states", states)
        self.device.load(self.arena, arena)
        for name, saved in optimizer.items():
            self.device.load(self.optimizer_states[name], saved)
        for name, array in states.items():
            layer, _, state = name.rpartition(".")
            for lane in self.lanes:
                lane.states[layer][state] = self.device.put(np.ascontiguousarray(array[lane.rows]))
        self._restore_parts(checkpoint)
        self.train_loss = checkpoint.fact("train_loss")
        try:
            self.evaluations.restore(facts)
        except (TypeError, ValueError, KeyError) as error:
            raise DataError(
                f"the checkpoint {checkpoint.path} is damaged: its evaluations are not those of "
                f"this run ({error}); use another one"
            ) from error
        self.learned = facts.get("learned", checkpoint.step)
        self.updates = facts.get("updates", checkpoint.step)
        self.step = checkpoint.step
        before, now = checkpoint.fact("kernels"), self.kernels
        changed = [n for n in now if n in before and before[n] != now[n]]
        if changed:
            log.warning(
                "the kernels were %s and are now %s; the last bits of the results may differ",
                {n: before[n] for n in changed}, {n: now[n] for n in changed},
            )  # fmt: skip

    def _restore_parts(self, checkpoint: Checkpoint) -> None:
        """Give the schedule and the callbacks back their states; DataError where one is none."""
        kept = checkpoint.fact("callbacks")
        if len(kept) != len(self.callbacks):
            raise DataError(
                f"the checkpoint {checkpoint.path} has the states of {len(kept)} callbacks, and "
                f"the job has {len(self.callbacks)}; use another checkpoint"
            )
        parts: list[Schedule | Callback] = [self.schedule, *self.callbacks]
        states = [checkpoint.fact("schedule"), *(one["state"] for one in kept)]
        for part, state in zip(parts, states, strict=True):
            try:
                part.restore(state)
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                raise DataError(
                    f"the checkpoint {checkpoint.path} is damaged: it holds {reprlib.repr(state)} "
                    f"as the state of {part_name(part)} ({type(error).__name__}); use another one"
                ) from error
        for callback, one in zip(self.callbacks, kept, strict=True):
            callback.stop = one["stop"]

    def forget_evaluations(self) -> None:
        """Go on with another validation split: what was measured so far decides nothing more."""
        self.evaluations.forget()
        self.schedule.forget()
        for callback in self.callbacks:
            callback.forget()

    def _not_finite(self, step: int, loss: float) -> str:
        """Where the first infinity or NaN of a step is, and what helps.

        A device that computes later is looked at one window on, with the same parameters.
        """
        what = "loss" if not math.isfinite(loss) else "gradient"
        place = "the loss itself"
        for lane in self.lanes:
            found = lane.first_not_finite(self.parameters)
            if found:
                place = f"the output of {found}"
                break
        else:
            gradient = self.device.get(self.last_gradient)
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
            f"step {step}: the {what} is no finite number any more, first in {place}; "
            f"lower training.optimizer.lr (now {self.lr:g}), set or lower training.clip, or look "
            "for extreme values in the data"
        )


def _kept(part: Schedule | Callback) -> Any:
    """What a checkpoint keeps of a part, which may be a plugin's."""
    state = part.state()
    try:
        json.dumps(state, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise PluginError(
            f"{type(part).__name__}.state gives {state!r} ({error}); give what JSON has: plain "
            "finite numbers, texts, lists and tables"
        ) from error
    return state
