"""A run from its start or its newest checkpoint to its end: when to evaluate, to save, to stop."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from threadpoolctl import threadpool_limits

from rnnfarm.data.current import ensure_current
from rnnfarm.data.rounding import precision_note
from rnnfarm.data.window import Windows
from rnnfarm.errors import Interrupted, RunError
from rnnfarm.job_tables import Job
from rnnfarm.metrics_log import MetricsLog
from rnnfarm.plugins import Registry
from rnnfarm.report import Progress, shown
from rnnfarm.training.callback import Callback, RunInfo
from rnnfarm.training.checkpoint import (
    checkpoints,
    newest_checkpoint,
    newest_described,
    prune,
    sweep,
    write_checkpoint,
)
from rnnfarm.training.clock import Clock, now
from rnnfarm.training.loop import Trainer
from rnnfarm.training.preflight import (
    check_countable,
    check_evaluated,
    check_folder,
    check_same_equations,
    warn_of_target,
    warn_of_unused,
    warn_of_versions,
)
from rnnfarm.training.result import Result, kernels_text, write_run_json
from rnnfarm.training.run import alone_in, learned_of, write_run_job
from rnnfarm.training.run_dataset import check_resumable, keep_dataset
from rnnfarm.training.setup import Model, make_model, make_windows, windows_to_evaluate
from rnnfarm.training.targets import check_targets

log = logging.getLogger("rnnfarm")


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
    check_folder(out, job, registry, resume)
    with threadpool_limits(job.training.blas_threads):
        folder = out / "checkpoints"
        begun = resume and bool(checkpoints(folder))
        before = newest_described(folder) if begun else None
        dataset = ensure_current(job, registry, progress.say, resuming=begun)
        comparable = before is None or check_resumable(before, dataset)
        if note := precision_note(job.training.dtype, dataset):
            progress.say(note)
        known = {} if before is None else learned_of(before)
        model = make_model(job, dataset, registry, computes_here, **known)
        trainer = make_trainer(job, registry, model, make_windows(job, model, dataset, "train"))
        if before is not None:
            check_same_equations(before, trainer)
        valid = make_windows(job, model, dataset, "valid") if "valid" in dataset.splits else None
        check_evaluated(trainer, valid)
        warn_of_unused(trainer, valid, computes_here)
        warn_of_target(job, model, dataset)
        for split in [name for name in ("train", "valid") if name in dataset.splits]:
            check_targets(model, dataset.split(split), dataset)
        check_countable(model, trainer.windows)
        if valid is not None:
            check_countable(model, valid, windows_to_evaluate(job.training, valid))
        with alone_in(out):
            check_folder(out, job, registry, resume)  # once more, now that nobody else is in it
            sweep(out)
            write_run_job(out, job)
            keep_dataset(out, dataset)
            checkpoint = newest_checkpoint(folder) if resume else None
            if checkpoint is not None:
                trainer.restore(checkpoint)
                if not comparable:
                    trainer.forget_evaluations()
                warn_of_versions(checkpoint, registry)
                progress.say(f"resuming {out} at step {trainer.step}")
            clock = Clock.of(None if checkpoint is None else checkpoint.facts)
            run = _Run(trainer, registry, out, valid, progress, dataset.fingerprint(), clock)
            try:
                return run.loop()
            except MemoryError as error:
                raise RunError(
                    f"step {trainer.step + 1}: there is not enough memory ({error}); lower "
                    "training.batch, training.window or the layers' hidden"
                ) from error
            finally:
                run.close()


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
        clock: Clock,
    ) -> None:
        self.data = data
        self.clock = clock
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
                        self._checkpoint(passing=True)
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

        def ends() -> bool:
            return step == training.steps or self.trainer.stop is not None

        if due(training.evaluate_every) or due(training.checkpoint_every) or ends():
            self._settle()

        if self.trainer.gradient_flow is not None:
            self._settle()
            self.metrics.write({"step": step, "gradient_flow": self.trainer.gradient_flow})
        lasting = due(training.checkpoint_every)
        if due(training.evaluate_every):
            lasting |= self._evaluate()
        elif ends():
            self._evaluate(only_at_end=True)
        if lasting or ends():
            self._checkpoint(passing=not lasting)

    def _evaluate(self, only_at_end: bool = False) -> bool:
        """Measure the parameters; whether they are the best so far, and so are to be kept."""
        if self.valid is None:
            return False
        entry = self.trainer.evaluate(self.valid)
        self.valid.split.confirm_whole()
        self.metrics.write(entry)
        found = "  ".join(f"{k} {shown(v)}" for k, v in entry.items() if k != "step")
        self.progress.say(f"step {self.trainer.step}  {found}")
        return self.trainer.observe(entry, only_at_end)

    def _checkpoint(self, passing: bool) -> None:
        """Write a checkpoint. ``passing``: one that a longer run would not write here.

        Not before all data that led to it are known to be whole.
        """
        self._settle()
        self.trainer.windows.split.confirm_whole()
        folder = self.out / "checkpoints"
        trainer = self.trainer
        self.metrics.flush()  # what led to a checkpoint is not lost where the checkpoint is not
        facts = trainer.facts(self.registry) | {
            "data": self.data,
            "passing": passing,
            **self.clock.facts(),
        }
        path = write_checkpoint(folder, trainer.step, trainer.arrays(), facts)
        self.saved = trainer.step
        prune(folder, self.training.keep)
        for callback in trainer.callbacks:
            callback.on_checkpoint(path)

    def _end(self) -> Result:
        trainer = self.trainer
        best = trainer.evaluations.best
        if trainer.stop is not None:
            where = "" if best is None else f"; the best was {best} (--checkpoint best)"
            self.progress.say(f"stopped after step {trainer.step}: {trainer.stop}{where}")
        if not trainer.learned:
            raise RunError(
                f"no target counted in any of the {trainer.step} steps, so that nothing was "
                "learned; look which targets of the data are observed, ignored or impossible, or "
                "train for more steps"
            )
        result = Result(
            run=str(self.out),
            steps=trainer.step,
            best=best,
            last=trainer.evaluations.last,
            train_loss=None if trainer.train_loss is None else float(trainer.train_loss),
            valid_loss=trainer.evaluations.valid_loss,
            parameters_sha256=trainer.parameters_sha256(),
            kernel=kernels_text(trainer.kernels),
            workers=trainer.workers,
            elements_per_second=self.elements / self.seconds if self.seconds else None,
            left_out=self.left_out,
            seconds=self.clock.seconds,
        )
        for callback in trainer.callbacks:
            callback.on_end(result.to_dict())
        if self.seconds or not (self.out / "run.json").exists():
            times = {"started": self.clock.started, "ended": now()}
            write_run_json(self.out, result.to_dict() | times, self.registry, trainer.stop)
        return result


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
