"""A run from its start or its newest checkpoint to its end: when to evaluate, to save, to stop."""

from __future__ import annotations

import logging
import platform
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from rnnfarm.data.current import ensure_current
from rnnfarm.data.window import Windows
from rnnfarm.equations.parts import part_name
from rnnfarm.errors import Interrupted, JobError, RunError
from rnnfarm.files import write_whole
from rnnfarm.job_tables import Job
from rnnfarm.plugins import Registry
from rnnfarm.report import MetricsLog, Progress, shown
from rnnfarm.strict_json import to_json
from rnnfarm.training.alignable import check_alignable
from rnnfarm.training.callback import Callback, RunInfo
from rnnfarm.training.checkpoint import (
    Checkpoint,
    checkpoints,
    newest_checkpoint,
    prune,
    sweep,
    write_checkpoint,
)
from rnnfarm.training.loop import Trainer
from rnnfarm.training.run import (
    alone_in,
    check_same_job,
    read_run_job,
    write_run_job,
)
from rnnfarm.training.run_dataset import GOES_ON, check_same_data, keep_dataset
from rnnfarm.training.schedule import Schedule
from rnnfarm.training.setup import Model, make_model, make_windows

log = logging.getLogger("rnnfarm")


@dataclass(frozen=True)
class Result:
    """What a run gave; ``parameters_sha256`` is the hash of the arena's bytes."""

    run: str
    steps: int
    train_loss: float | None
    valid_loss: float | None
    parameters_sha256: str
    kernel: str
    workers: int
    elements_per_second: float | None
    #: What of each split no window has as a target.
    left_out: dict[str, dict[str, int]]

    def to_dict(self) -> dict[str, Any]:
        return {"schema": 1, **asdict(self)}


def train(
    job: Job,
    registry: Registry,
    *,
    out: Path,
    resume: bool = False,
    progress: Progress | None = None,
    make_trainer: Callable[[Job, Registry, Model, Windows], Trainer] = Trainer,
    computes_here: bool = True,
) -> Result:
    """Train a job to its end.

    Args:
        make_trainer: makes what computes the steps: by default in this process.
        computes_here: whether that is in this process, whose device the job then asks for.
        out: the run's folder.
        resume: go on from the newest whole checkpoint in ``out``, if there is one.

    Raises:
        JobError: ``out`` holds another run or is trained in, or the job does not fit its data.
        RunError: the loss became NaN, or a checkpoint could not be written.
        Interrupted: Ctrl-C; a checkpoint was written.
    """
    progress = progress or Progress(quiet=True)
    with threadpool_limits(job.training.blas_threads):
        begun = resume and bool(checkpoints(out / "checkpoints"))
        dataset = ensure_current(job, registry, progress.say, resuming=begun)
        model = make_model(job, dataset, registry, computes_here)
        trainer = make_trainer(job, registry, model, make_windows(job, model, dataset, "train"))
        valid = make_windows(job, model, dataset, "valid") if "valid" in dataset.splits else None
        _check_evaluated(trainer, valid)
        for split in [name for name in ("train", "valid") if name in dataset.splits]:
            check_alignable(model, dataset.split(split), dataset)
        with alone_in(out):
            _check_folder(out, job, registry, resume)
            write_run_job(out, job)
            keep_dataset(out, dataset)
            checkpoint = newest_checkpoint(out / "checkpoints") if resume else None
            if checkpoint is not None:
                check_same_data(checkpoint, dataset, GOES_ON)
                trainer.restore(checkpoint)
                _warn_of_versions(checkpoint, registry)
                progress.say(f"resuming {out} at step {trainer.step}")
            run = _Run(trainer, registry, out, valid, progress, dataset.fingerprint())
            try:
                return run.loop()
            except MemoryError as error:
                raise RunError(
                    f"step {trainer.step + 1}: there is not enough memory ({error}); lower "
                    "training.batch, training.window or the layers' hidden"
                ) from error
            finally:
                run.close()


def _warn_of_versions(checkpoint: Checkpoint, registry: Registry) -> None:
    """Say which plugins are not those that the checkpoint was computed with."""
    old, new = checkpoint.facts["plugins"], registry.versions()
    changed = [
        f"{name} was {old.get(name, 'absent')} and is {new.get(name, 'absent')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if changed:
        log.warning("since the checkpoint, %s; the results may differ", ", ".join(changed))


def _check_evaluated(trainer: Trainer, valid: Windows | None) -> None:
    """JobError where a part waits for evaluations and there will be none."""
    parts: list[Schedule | Callback] = [trainer.schedule, *trainer.callbacks]
    waiting = [part for part in parts if part.needs_evaluation]
    if waiting and valid is None:
        raise JobError(
            f"{part_name(waiting[0])} goes by the validation loss, and the dataset has no split "
            "'valid'; build it with one (valid = 0.1, say), or leave the part out"
        )
    if waiting and not trainer.job.training.evaluate_every:
        raise JobError(
            f"training.evaluate_every: {part_name(waiting[0])} goes by the validation loss, and it "
            "is measured at the end only; set evaluate_every = 500, say, or leave the part out"
        )


def _check_folder(out: Path, job: Job, registry: Registry, resume: bool) -> None:
    """JobError where a run's folder holds another run, or one that is not to be resumed."""
    if not (out / "job.toml").exists():
        return
    if not resume:
        raise JobError(
            f"{out}: there is a run in this folder; go on with it with --resume, or name "
            "another folder with --out"
        )
    check_same_job(out, read_run_job(out, registry), job)
    sweep(out)


class _Run:
    """The loop around the step: when to evaluate, to write checkpoints, to stop."""

    def __init__(
        self,
        trainer: Trainer,
        registry: Registry,
        out: Path,
        valid: Windows | None,
        progress: Progress,
        data: dict[str, str],
    ) -> None:
        self.data = data
        self.trainer = trainer
        self.registry = registry
        self.out = out
        self.valid = valid
        self.progress = progress
        self.training = trainer.job.training
        self.metrics = MetricsLog(out / "metrics.jsonl")
        self.elements = 0
        self.seconds = 0.0
        self.left_out: dict[str, dict[str, int]] = {}
        #: The step of the last checkpoint that was written.
        self.saved = -1
        #: Steps whose figures the device may still be computing: entry, seconds, elements.
        self.waiting: list[tuple[dict[str, Any], float, int]] = []
        watched = any(type(c).on_step is not Callback.on_step for c in trainer.callbacks)
        #: How many steps may be ahead of the figures that are known.
        self.ahead = 0 if trainer.device.immediate or watched else 1

    def loop(self) -> Result:
        trainer, steps = self.trainer, self.training.steps
        for callback in trainer.callbacks:
            callback.on_start(RunInfo(self.out, trainer.job.to_dict(), trainer.step, steps))
        self._say_start()
        with _interruptible() as interrupted:
            while trainer.step < steps and trainer.stop is None:
                started = time.perf_counter()
                entry = trainer.train_step()
                for before, _, _ in self.waiting:
                    trainer.settle(before)  # a step takes as long as the device, not as its start
                took = time.perf_counter() - started
                self.seconds += took
                self._log(entry, took)
                self._every_so_often()
                if interrupted:
                    if self.saved != trainer.step:
                        self._checkpoint()
                    raise Interrupted(
                        f"interrupted after step {trainer.step}; its checkpoint is written, go on "
                        f"with --resume --out {self.out}"
                    )
        return self._end()

    def close(self) -> None:
        self.trainer.close()
        self.metrics.close()
        self.progress.close()

    def _say_left_out(self) -> None:
        """Say once what of the data is neither trained on nor measured."""
        for windows in (self.trainer.windows, self.valid):
            if windows is not None:
                missing = windows.left_out()
                self.left_out[windows.split.name] = missing.to_dict()
                for sentence in missing.sentences(windows.split):
                    self.progress.say(sentence)

    def _say_start(self) -> None:
        kernels = (
            ", ".join(f"{k}: {v}" for k, v in self.trainer.kernels.items()) or "of the workers"
        )
        size = self.trainer.model.network.layout.size
        self.progress.say(f"{size:,} parameters; kernels {kernels}; run {self.out}")
        self._say_left_out()
        self.progress.start(self.trainer.step, self.training.steps)

    def _log(self, entry: dict[str, Any], seconds: float) -> None:
        """Write down a step, or those before it where its own figures are not known yet."""
        self.elements += self.trainer.count
        self.waiting.append((entry, seconds, self.trainer.count))
        self._settle(self.ahead)

    def _settle(self, ahead: int = 0) -> None:
        """Wait for the figures of all steps but the last ``ahead``, and write them down."""
        while len(self.waiting) > ahead:
            entry, seconds, count = self.waiting.pop(0)
            self.trainer.settle(entry)
            entry |= {"steps_per_second": 1.0 / seconds, "elements_per_second": count / seconds}
            if entry["step"] % self.training.log_every == 0:
                self.metrics.write(entry)
            for callback in self.trainer.callbacks:
                callback.on_step(entry)
            self.progress.step(entry)

    def _every_so_often(self) -> None:
        training, step = self.training, self.trainer.step

        def due(every: int) -> bool:
            return bool(every) and step % every == 0

        ends = step == training.steps or self.trainer.stop is not None
        if due(training.evaluate_every) or due(training.checkpoint_every) or ends:
            self._settle()

        if self.trainer.gradient_flow is not None:
            self._settle()
            self.metrics.write({"step": step, "gradient_flow": self.trainer.gradient_flow})
        if due(training.evaluate_every) or step == training.steps:
            self._evaluate()
        ends = step == training.steps or self.trainer.stop is not None
        if due(training.checkpoint_every) or ends:
            self._checkpoint()

    def _evaluate(self) -> None:
        if self.valid is None:
            return
        entry = self.trainer.evaluate(self.valid)
        self.metrics.write(entry)
        for callback in self.trainer.callbacks:
            callback.on_evaluation(entry)
        found = "  ".join(f"{k} {shown(v)}" for k, v in entry.items() if k != "step")
        self.progress.say(f"step {self.trainer.step}  {found}")

    def _checkpoint(self) -> None:
        self._settle()
        folder = self.out / "checkpoints"
        trainer = self.trainer
        self.metrics.flush()  # what led to a checkpoint is not lost where the checkpoint is not
        path = write_checkpoint(
            folder,
            trainer.step,
            trainer.arrays(),
            trainer.facts(self.registry) | {"data": self.data},
        )
        self.saved = trainer.step
        prune(folder, self.training.keep)
        for callback in trainer.callbacks:
            callback.on_checkpoint(path)

    def _end(self) -> Result:
        trainer = self.trainer
        if trainer.stop is not None:
            self.progress.say(f"stopped after step {trainer.step}: {trainer.stop}")
        result = Result(
            run=str(self.out),
            steps=trainer.step,
            train_loss=None if trainer.train_loss is None else float(trainer.train_loss),
            valid_loss=trainer.valid_loss,
            parameters_sha256=trainer.parameters_sha256(),
            kernel=", ".join(sorted(set(trainer.kernels.values()))),
            workers=trainer.workers,
            elements_per_second=self.elements / self.seconds if self.seconds else None,
            left_out=self.left_out,
        )
        for callback in trainer.callbacks:
            callback.on_end(result.to_dict())
        if self.seconds or not (self.out / "run.json").exists():
            _write_run_json(self.out, result.to_dict(), self.registry, trainer.stop)
        return result


def _write_run_json(
    out: Path, result: Mapping[str, Any], registry: Registry, stopped: str | None
) -> None:
    described = {
        **result,
        "stopped": stopped,
        "plugins": registry.versions(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.machine(),
    }
    write_whole(out / "run.json", to_json(described, indent=1) + "\n")


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """A list that gets an element at Ctrl-C or SIGTERM; a second one ends the process at once.

    Does nothing outside the main thread, where Python allows no handlers.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    try:
        old = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:
        old = {}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
