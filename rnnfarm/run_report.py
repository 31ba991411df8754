"""What the folder of a run says of it: the source of the report page and of its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnfarm.errors import DataError, JobError
from rnnfarm.metrics_log import finite_number, read_metrics
from rnnfarm.small_files import MOST_JOB, UnreadableError, parse_toml, read_json, read_small

Entry = dict[str, Any]


@dataclass(frozen=True)
class RunReport:
    """A run as its folder has it.

    Attributes:
        name: what tells it from the other runs of the report.
        job: the text of its job.toml.
        facts: its run.json; empty while it goes on.
    """

    name: str
    folder: Path
    job: str
    entries: list[Entry]
    facts: dict[str, Any]

    @property
    def steps(self) -> list[Entry]:
        """The logged training steps."""
        return [e for e in self.entries if "train_loss" in e]

    @property
    def valid(self) -> list[Entry]:
        """The evaluations while it trained."""
        return [e for e in self.entries if any(key.startswith("valid_") for key in e)]

    @property
    def flow(self) -> list[Entry]:
        """The entries with the gradient by distance in time."""
        return [e for e in self.entries if isinstance(e.get("gradient_flow"), dict)]

    @property
    def measured(self) -> dict[str, Entry]:
        """What ``rnnfarm evaluate`` has found, the newest entry of each split."""
        found = [e for e in self.entries if isinstance(e.get("evaluation"), dict)]
        return {str(e["evaluation"].get("split")): e for e in found}

    def last(self, key: str) -> float | None:
        """The last value of a metric of steps or evaluations."""
        values = [e[key] for e in self.entries if key in e]
        return value_of(values[-1]) if values else None


def value_of(value: Any) -> float | None:
    """A metric as a finite number; None for what is none."""
    return finite_number(value)


def read_runs(folders: Sequence[Path]) -> list[RunReport]:
    """Read the folders of runs.

    Raises JobError where one is no run with metrics, or is named twice, and DataError where its
    files are damaged.
    """
    twice = {str(f) for f in folders if [g.resolve() for g in folders].count(f.resolve()) > 1}
    if twice:
        raise JobError(f"report: {min(twice)} is named twice; name each run once")
    names = [folder.resolve().name for folder in folders]
    unique = len(set(names)) == len(names)
    named = names if unique else [str(folder) for folder in folders]
    return [_read(folder, name) for folder, name in zip(folders, named, strict=True)]


def _read(folder: Path, name: str) -> RunReport:
    job, metrics = folder / "job.toml", folder / "metrics.jsonl"
    if not job.is_file() or not metrics.is_file():
        raise JobError(
            f"{folder}: is no run, it needs a job.toml and a metrics.jsonl; correct the path"
        )
    try:
        text = read_small(job, MOST_JOB).decode("utf-8", errors="replace")
    except UnreadableError as error:
        raise DataError(f"{job}: {error}; restore it") from None
    return RunReport(name, folder, text, list(read_metrics(metrics)), _facts(folder / "run.json"))


def _facts(path: Path) -> dict[str, Any]:
    try:
        facts = read_json(path)
    except UnreadableError as error:
        if error.missing:
            return {}
        raise DataError(f"{path}: is damaged ({error}); remove it, or restore it") from None
    if not isinstance(facts, dict):
        raise DataError(f"{path}: is damaged (it is no table); remove it, or restore it")
    return facts


def differences(runs: Sequence[RunReport]) -> dict[str, list[Any]]:
    """Return the keys in which the jobs of the runs differ, with the value of each run.

    None stands for a key that a job does not have. Where a job is, is no difference.
    """
    tables = [_flat(_toml(run)) for run in runs]
    keys = dict.fromkeys(key for table in tables for key in table)
    found = {key: [table.get(key) for table in tables] for key in keys if key != "data.base"}
    return {key: values for key, values in found.items() if any(v != values[0] for v in values)}


def _toml(run: RunReport) -> dict[str, Any]:
    try:
        return parse_toml(run.job.encode())
    except UnreadableError as error:
        path = run.folder / "job.toml"
        raise DataError(f"{path}: is damaged ({error}); restore it") from None


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        items = [(f"{prefix}.{key}" if prefix else key, inner) for key, inner in value.items()]
    elif isinstance(value, list) and value and all(isinstance(inner, dict) for inner in value):
        items = [(f"{prefix}.{number}", inner) for number, inner in enumerate(value)]
    else:
        return {prefix: value}
    return {name: leaf for key, inner in items for name, leaf in _flat(inner, key).items()}


def summary(run: RunReport) -> dict[str, Any]:
    """Return what ``rnnfarm report --json`` says of a run."""
    losses = [(value_of(e.get("valid_loss")), e["step"]) for e in run.valid]
    best = min(((loss, step) for loss, step in losses if loss is not None), default=None)
    return {
        "run": str(run.folder),
        "name": run.name,
        "finished": bool(run.facts) and not run.facts.get("stopped"),
        "stopped": run.facts.get("stopped"),
        "steps": run.steps[-1]["step"] if run.steps else 0,
        "train_loss": run.last("train_loss"),
        "last_evaluation": run.valid[-1] if run.valid else None,
        "lowest_valid_loss": None if best is None else {"valid_loss": best[0], "step": best[1]},
        "best": run.facts.get("best"),
        "evaluations": {
            split: {"step": entry["step"]} | entry["evaluation"]
            for split, entry in run.measured.items()
        },
        "elements_per_second": run.facts.get("elements_per_second"),
        "seconds": run.facts.get("seconds"),
        "parameters_sha256": run.facts.get("parameters_sha256"),
    }
