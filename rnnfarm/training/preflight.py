"""What must hold before the first step of a run, found as early as it can be."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np

from rnnfarm.data.dataset import Dataset
from rnnfarm.data.manifest import Column, Role
from rnnfarm.data.window import NEXT, OBSERVED, Windows
from rnnfarm.equations.parts import part_name
from rnnfarm.errors import JobError
from rnnfarm.job import Job, read_job
from rnnfarm.plugins import Registry
from rnnfarm.training.callback import Callback
from rnnfarm.training.checkpoint import Checkpoint, newest_checkpoint
from rnnfarm.training.loop import Trainer
from rnnfarm.training.run import check_same_job, read_run_job
from rnnfarm.training.run_dataset import KEPT
from rnnfarm.training.schedule import Schedule
from rnnfarm.training.setup import Model

log = logging.getLogger("rnnfarm")
#: What a run writes after its job.toml.
LEFT_BY_RUNS = ("checkpoints", "metrics.jsonl", "run.json", KEPT)
SHOWN = 3  # values that a sentence names


def check_folder(out: Path, job: Job, registry: Registry, resume: bool) -> None:
    """JobError where a run's folder holds another run, or one that is not to be resumed.

    Reads the folder alone: neither data nor kernels are made for a run that is then refused.
    """
    if not os.path.lexists(out / "job.toml"):
        if rest := [name for name in LEFT_BY_RUNS if os.path.lexists(out / name)]:
            raise JobError(
                f"{out}: holds {rest[0]} of a run whose job.toml is lost; bring that back (each "
                "checkpoint.json has the job too), or name another folder with --out"
            )
        return
    if not resume:
        raise JobError(
            f"{out}: there is a run in this folder; go on with it with --resume, or name "
            "another folder with --out"
        )
    before = read_run_job(out, registry)
    check_same_job(out, before, job)
    old, new = before.training, job.training
    if (old.steps, old.schedule) != (new.steps, new.schedule):
        checkpoint = newest_checkpoint(out / "checkpoints")
        if checkpoint is not None:
            check_same_rates(checkpoint, job, registry)


def check_same_rates(checkpoint: Checkpoint, job: Job, registry: Registry) -> None:
    """JobError where the steps of a checkpoint would have had other learning rates in ``job``.

    Those of a schedule that ends with the run depend on ``training.steps``.
    """
    old = read_job(checkpoint.fact("job"), registry, checkpoint.path, str(checkpoint.path))
    mine, its = job.training, old.training
    now, then = (one.schedule.create(registry) for one in (mine, its))
    done = checkpoint.step
    changed = next(
        (k for k in range(1, done + 1) if now(k, mine.steps) != then(k, its.steps)), None
    )
    if changed is not None:
        raise JobError(
            f"training.steps: the run was made with {its.steps} and is now to have {mine.steps}, "
            f"but its schedule {its.schedule.name!r} ends with the run, so that its steps from "
            f"{changed} on would have had other learning rates; keep training.steps = "
            f"{its.steps}, set training.schedule.steps = {its.steps} (steps after it keep the "
            "last rate), or start another run with --out"
        )


def warn_of_versions(checkpoint: Checkpoint, registry: Registry) -> None:
    """Say which plugins are not those that the checkpoint was computed with."""
    old, new = checkpoint.fact("plugins"), registry.versions()
    changed = [
        f"{name} was {old.get(name, 'absent')} and is {new.get(name, 'absent')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if changed:
        log.warning("since the checkpoint, %s; the results may differ", ", ".join(changed))


def check_same_equations(checkpoint: Checkpoint, trainer: Trainer) -> None:
    """JobError where equations are not those that a checkpoint was trained with, unless the job
    says that this is meant; then it is warned of."""
    edited = checkpoint.edited(trainer.equations)
    if not edited:
        return
    what = f"the equations of {' and '.join(edited)} are not those that {checkpoint.path}"
    if trainer.job.training.edited == "use":
        log.warning("%s was trained with; the run goes on with the new ones", what)
        return
    raise JobError(
        f"{what} was trained with; bring the old ones back, go on with the new ones with --edited, "
        "or start another run with --out"
    )


def check_evaluated(trainer: Trainer, valid: Windows | None) -> None:
    """JobError where a part waits for evaluations and there will be none."""
    parts: list[Schedule | Callback] = [trainer.schedule, *trainer.callbacks]
    waiting = [part for part in parts if part.needs_evaluation]
    if waiting and valid is None:
        raise JobError(
            f"{part_name(waiting[0])} goes by the evaluations, and the dataset has no split "
            "'valid'; build it with one (valid = 0.1, say), or leave the part out"
        )
    if waiting and not trainer.job.training.evaluate_every:
        raise JobError(
            f"training.evaluate_every: {part_name(waiting[0])} goes by the evaluations, and there "
            "is one at the end only; set evaluate_every = 500, say, or leave the part out"
        )


def warn_of_unused(trainer: Trainer, valid: Windows | None, computes_here: bool) -> None:
    """Say which keys have no effect with these data, or on this machine."""
    training = trainer.job.training
    every = [key for key in ("evaluate_every", "evaluate_windows") if getattr(training, key)]
    if every and valid is None:
        keys = " and ".join(f"training.{key}" for key in every)
        log.warning("%s: nothing is evaluated, as the dataset has no split 'valid'", keys)
    if training.precision != "full" and computes_here and trainer.device.name == "cpu":
        log.warning(
            "training.precision: '%s' is how a GPU rounds; this is computed in full on the CPU",
            training.precision,
        )


def warn_of_target(job: Job, model: Model, dataset: Dataset) -> None:
    """Say where what is learned may not be what the data were built for.

    The input one step later, though a reader gave other columns and the job names no target; or a
    forecast of columns whose own past the model does not read.
    """
    others = [
        name
        for name, column in dataset.columns.items()
        if name not in (model.input, OBSERVED)
        and not column.counts_for
        and len(_copied(name, model, dataset)) < column.width
    ]
    built = dataset.provenance is not None
    if model.target == NEXT and job.data.target is None and built and others:
        log.warning(
            "data.target: the job names none, so '%s' one step later is learned, and not %s, which "
            "the dataset has too; set data.target = '%s' to learn that, or 'next' if this is meant",
            model.input,
            " or ".join(f"'{name}'" for name in others),
            others[0],
        )
    past, ahead = (dataset.columns[name].names for name in (model.input, model.target_column))
    if job.data.mode == "forecast" and past and ahead:
        unread = [name for name in ahead if name not in past]
        if unread:
            log.warning(
                "data.target: the past of %s, which is forecast, is not among the inputs (%s); to "
                "read it, name it in 'values' of the build too",
                ", ".join(f"'{name}'" for name in unread),
                ", ".join(past),
            )
    _warn_of_steps(job, model, dataset)


def _warn_of_steps(job: Job, model: Model, dataset: Dataset) -> None:
    """Say where a target at every step is more than was measured, or is in the input already."""
    if job.data.mode == "forecast" or model.goal != "steps":
        return
    if model.target == NEXT:
        roles = _roles(dataset.columns[model.input])
        if more := [name for name, role in roles if role != "value"]:
            log.warning(
                "data.target: 'next' learns, and is measured by, all of the next step, which holds "
                "%s besides what was measured; set data.mode = 'forecast' to learn that alone",
                _listed(more),
            )
    elif copied := _copied(model.target, model, dataset):
        log.warning(
            "data.target: '%s' is of the same step as the input, which holds %s too, so that a "
            "model learns to copy; leave data.target out to learn the next step, set data.mode = "
            "'forecast', or build the data with other columns in 'values'",
            model.target,
            _listed(copied),
        )


def _copied(name: str, model: Model, dataset: Dataset) -> list[str]:
    """Return the values of a column with an entry for every step that the input holds too."""
    column, given = dataset.columns[name], dataset.columns[model.input]
    measured = {value for value, role in _roles(given) if role == "value"}
    return [] if column.own else [value for value, _ in _roles(column) if value in measured]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(f"'{name}'" for name in names[:SHOWN]) + more


def _roles(column: Column) -> list[tuple[str, Role]]:
    """Return the names of a column's values and their roles; none where they have no names."""
    names = column.names or []
    return list(zip(names, column.roles or ["value"] * len(names), strict=True))


def check_countable(model: Model, windows: Windows, most: int = 0) -> None:
    """JobError where none of the targets that a run reads of a split counts.

    Reads windows up to the first target that does, as a rule the first one. ``most``: how many the
    run reads; all of an epoch where 0.
    """
    count = windows.windows_in_epoch(0)
    for n in range(min(count, most) if most else count):
        window = windows.read(n)
        if model.loss.goal(window.target, window.valid).count:
            return
    split = windows.split
    what = "learned" if split.name == "train" else "measured"
    raise JobError(
        f"{split.place.shown}: no target of split '{split.name}' counts, so that nothing can be "
        f"{what}: {_why(windows, most)}"
    )


def _why(windows: Windows, most: int) -> str:
    """Why no target of a split counts, and what to do."""
    split = windows.split
    starts = split.starts()
    if windows.target == NEXT and int(np.diff(starts, append=split.steps).max()) == 1:
        return (
            f"each of its {len(starts)} sequences has one step, after which nothing comes; if a "
            "column such as 'group' tells sequences apart, sort the rows by it, or leave it out"
        )
    if most and most < windows.windows_in_epoch(0):
        return (
            f"the first {most} windows have none; raise training.evaluate_windows, or set it to 0"
        )
    if windows.observed is not None:
        return "none of them was observed; give data that have targets, or split them otherwise"
    return "all of them are ignored by model.loss; give data that have others, or change 'ignore'"
