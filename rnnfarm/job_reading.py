"""From a job file's text to a checked ``Job``: every error is found before any is raised."""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rnnfarm import job_tables as tables
from rnnfarm.discovery import describe
from rnnfarm.errors import JobError, PluginError, RnnfarmError, printable, suggestion
from rnnfarm.job_checks import Problem, cross_checks, part_checks
from rnnfarm.job_tables import Job, PartTable, Table, without_none
from rnnfarm.plugins import Registry
from rnnfarm.settings import (
    REQUIRED,
    declared,
    foreign_values,
    plain,
    problems,
    unannotated,
    validate,
)
from rnnfarm.small_files import UnreadableError, parse_toml
from rnnfarm.small_files import read_toml as read_small_toml

log = logging.getLogger("rnnfarm")
#: Where a job says what reads its data.
READER = "data.build"
TOO_DEEP = "its tables or lists are nested too deeply"
SECTIONS: dict[str, type[Table]] = {
    "data": tables.DataTable,
    "model": tables.ModelTable,
    "training": tables.TrainingTable,
    "cluster": tables.ClusterTable,
}
PARTS: dict[str, type[PartTable]] = {
    READER: tables.ReaderTable,
    "model.layers.*": tables.LayerTable,
    "model.decoder.layers.*": tables.LayerTable,
    "model.loss": tables.LossTable,
    "training.optimizer": tables.OptimizerTable,
    "training.schedule": tables.ScheduleTable,
    "training.callbacks.*": tables.CallbackTable,
}


def read_toml(path: Path) -> dict[str, Any]:
    """Return a TOML file's content; JobError when it cannot be read or is no TOML."""
    try:
        return read_small_toml(path)
    except UnreadableError as error:
        if error.missing:
            raise JobError(f"{path}: there is no such job file; check the path") from None
        fix = "give the job file in it" if path.is_dir() else "a job is a TOML file, correct it"
        raise JobError(f"{path}: {error}; {fix}") from None


def override(raw: dict[str, Any], overrides: Sequence[str]) -> None:
    """Set ``KEY=VALUE`` pairs in a raw job, in place.

    A value is read as TOML, else as text. A number in a key counts list items from 0.
    Raises JobError with a sentence for each that cannot be set.
    """
    errors = []
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not all(key.strip().split(".")):
            errors.append(f"--set {text}: write KEY=VALUE, such as training.steps=100")
            continue
        try:
            _set(raw, key.strip().split("."), _value(value.strip()))
        except KeyError as error:
            errors.append(f"--set {text}: {error.args[0]}")
    if errors:
        raise JobError(errors)


def _value(text: str) -> Any:
    try:
        table = parse_toml(f"value = {text}".encode(errors="surrogateescape"))
    except UnreadableError:  # no TOML, or an integer of thousands of digits
        return text
    return table["value"] if list(table) == ["value"] else text


def _set(raw: dict[str, Any], path: list[str], value: Any) -> None:
    here: Any = raw
    for depth, key in enumerate(path):
        last = depth == len(path) - 1
        before = ".".join(path[:depth])
        slot: Any = key
        if isinstance(here, list):
            if not key.isdecimal() or int(key) >= len(here):
                raise KeyError(f"{before} has {len(here)} items; count them from 0")
            slot = int(key)
        elif not isinstance(here, dict):
            raise KeyError(f"{before} is {here!r}, which has no keys")
        elif not last:
            here.setdefault(key, {})
        if last:
            here[slot] = value
        elif isinstance(here[slot], str) and (part := part_at(".".join(path[: depth + 1]))):
            here[slot] = {part.key: here[slot]}  # loss = "mse", and model.loss.x is set
        here = here[slot]


def part_at(path: str) -> type[PartTable] | None:
    """Return the table of the part at a dotted path of the job, if there is one."""
    return PARTS.get(re.sub(r"\.\d+(?=\.|$)", ".*", path))


def check_job(
    raw: Mapping[str, Any], registry: Registry, base: Path, source: str, builds: bool = True
) -> Job:
    """Check a raw job; see ``rnnfarm.job.read_job``."""
    try:
        _raise(source, foreign_values(raw), [])
        job = _normal(raw)
    except RecursionError:
        raise JobError(f"{source}: {TOO_DEEP}") from None
    found = _unknown_sections(job)
    missing: list[Problem] = []
    _resolve_parts(job, registry, found, missing, () if builds else (READER,))
    sections: dict[str, Table] = {}
    for name, table in SECTIONS.items():
        try:
            sections[name] = validate(table, job[name])  # type: ignore[assignment]
        except ValidationError as error:
            found += _section_problems(name, table, error)
    if isinstance(data := sections.get("data"), tables.DataTable):
        sections["data"] = located = _located(data, base)
        missing = _without_reader(source, located, missing)
    found += cross_checks(sections)
    _raise(source, found, missing)
    checked = Job(**sections)  # type: ignore[arg-type]
    _raise(source, part_checks(checked, registry), [])
    return checked


def _without_reader(source: str, data: tables.DataTable, missing: list[Problem]) -> list[Problem]:
    """What is missing but for the reader of a dataset that is there already, which is warned of."""
    readers = [what for path, what in missing if path == f"{READER}.reader"]
    if not readers:
        return missing
    from rnnfarm.data.place import Place

    if not Place.of(data.path).exists():
        return missing
    log.warning(
        "%s: the settings in data.build are not checked, since %s; the dataset %s is used, which "
        "is there already", source, readers[0], data.path,
    )  # fmt: skip
    return [(path, what) for path, what in missing if path != f"{READER}.reader"]


def _raise(source: str, found: list[Problem], missing: list[Problem]) -> None:
    sentences = [printable(f"{source}: {path}: {what}") for path, what in found + missing]
    if found:
        raise JobError(sentences)
    if missing:
        raise PluginError("\n".join(sentences))


def _normal(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the raw job with its short forms written out."""
    job: dict[str, Any] = without_none(plain(raw))
    for section in SECTIONS:
        job.setdefault(section, {})
    training = job["training"]
    if isinstance(training, dict):
        training.setdefault("optimizer", {})
        training.setdefault("schedule", {})
        clip = training.get("clip")
        if isinstance(clip, (int, float)) and not isinstance(clip, bool):
            training["clip"] = {"norm": clip}
    return job


def _unknown_sections(job: dict[str, Any]) -> list[Problem]:
    """Name every unknown key of the file itself, and take it out."""
    places = {
        key: f"{name}.{key}" for name, table in SECTIONS.items() for key in table.model_fields
    }
    found = []
    for key in [key for key in job if key not in SECTIONS]:
        del job[key]
        near = difflib.get_close_matches(key, [*SECTIONS, *places], n=1)
        mend = (
            f"did you mean '{places.get(near[0], near[0])}'?" if near else suggestion(key, SECTIONS)
        )
        found.append((key, f"unknown key; {mend}"))
    return found


def _resolve_parts(
    job: dict[str, Any],
    registry: Registry,
    found: list[Problem],
    missing: list[Problem],
    unchecked: Collection[str] = (),
) -> None:
    """Move the settings of each part into ``settings``, checked and with their defaults.

    Parts at the paths ``unchecked`` are not imported, and their settings kept as they are.
    """
    for path, holder, slot, table in _part_tables(job):
        given = {table.key: holder[slot]} if isinstance(holder[slot], str) else holder[slot]
        if not isinstance(given, dict):
            continue
        own = {k: v for k, v in given.items() if k in table.model_fields and k != "settings"}
        settings = {k: v for k, v in given.items() if k not in own}
        holder[slot] = own | {"settings": settings}
        name = own.get(table.key, table.model_fields[table.key].get_default())
        if not isinstance(name, str) or path in unchecked:
            continue
        try:
            part = registry.get(table.kind, name)
            holder[slot][table.key] = registry.stored_name(table.kind, name)
            holder[slot]["settings"] = _resolved(part, settings, path, table, found)
        except PluginError as error:
            missing.append((f"{path}.{table.key}", str(error)))
        except JobError as error:  # two plugins claim the name
            found.append((f"{path}.{table.key}", str(error)))
        else:
            found += _state_problems(path, own, part)
    for section, key in (("training", "kernel"), ("cluster", "exchange")):
        _find_named(job[section], f"{section}.{key}", registry, found, missing)


def _part_tables(job: dict[str, Any]) -> Iterator[tuple[str, Any, Any, type[PartTable]]]:
    """Yield the path, the holder, the key and the kind of table of each part in a raw job."""
    for pattern, table in PARTS.items():
        *above, key = pattern.removesuffix(".*").split(".")
        holder: Any = job
        for name in above:
            holder = holder.get(name) if isinstance(holder, dict) else None
        if not isinstance(holder, dict) or key not in holder:
            continue
        place = ".".join([*above, key])
        if not pattern.endswith("*"):
            yield place, holder, key, table
        elif isinstance(holder[key], list):
            for i in range(len(holder[key])):
                yield f"{place}.{i}", holder[key], i, table


def _resolved(
    part: Any, settings: dict[str, Any], path: str, table: type[PartTable], found: list[Problem]
) -> dict[str, Any]:
    if (taken := taken_setting(table.kind, part)) is not None:
        raise PluginError(taken)
    model = part.settings_model()
    try:
        validate(model, settings)
        resolved: dict[str, Any] = without_none(part(**settings).settings())
        return resolved
    except ValidationError as error:
        keys = set(table.model_fields) - {"settings"}
        found += [
            (f"{path}.{where}".rstrip("."), what)
            for where, what in problems(error, model, keys, unannotated(part))
        ]
    except JobError as error:  # a check of the part's own
        found += [(path, sentence) for sentence in error.errors]
    except RnnfarmError:
        raise
    except Exception as error:
        raise PluginError(
            f"{part.__module__}.{part.__qualname__} cannot be made: {describe(error)}; "
            "mend or update its package"
        ) from error
    return settings


def taken_setting(kind: str, part: Any) -> str | None:
    """What is wrong where a part declares a setting that is a key of its table in a job."""
    table = next((each for each in PARTS.values() if each.kind == kind), None)
    if table is None:
        return None
    taken = sorted((set(table.model_fields) - {"settings"}) & set(declared(part)))
    if not taken:
        return None
    return (
        f"{part.__module__}.{part.__qualname__} declares the setting '{taken[0]}', which is a key "
        "of the job file itself; rename the setting"
    )


def _state_problems(path: str, own: dict[str, Any], cell: Any) -> list[Problem]:
    """Name the states in a layer's ``zoneout`` that its cell does not have."""
    zoneout = own.get("zoneout")
    states = getattr(cell, "states", ())
    if not isinstance(zoneout, dict):
        return []
    return [
        (f"{path}.zoneout.{name}", f"the cell has no such state; {suggestion(name, states)}")
        for name in zoneout
        if name not in states
    ]


def _find_named(
    table: Any, path: str, registry: Registry, found: list[Problem], missing: list[Problem]
) -> None:
    """Note where a kernel or an exchange is named that cannot be had."""
    key = path.partition(".")[2]
    name = table.get(key, "auto") if isinstance(table, dict) else "auto"
    if isinstance(name, str) and name != "auto":
        try:
            registry.get(f"{key}s", name)
        except PluginError as error:
            missing.append((path, f"{error}; 'auto' takes the best one"))
        except JobError as error:  # two plugins claim the name
            found.append((path, str(error)))


def _section_problems(name: str, table: type[Table], error: ValidationError) -> list[Problem]:
    found = []
    for where, what in problems(error, table):
        path = f"{name}.{where}".rstrip(".")
        holder, _, key = path.rpartition(".")
        part = part_at(holder)
        if part and key == part.key and what == REQUIRED:
            what = f"is required; give it the name of one of the {part.kind}"
        found.append((path, what))
    return found


def _located(data: tables.DataTable, base: Path) -> tables.DataTable:
    """Return the section with its paths made absolute, so that it means the same anywhere."""
    root = (base / os.path.expanduser(data.base)).absolute()
    path = os.path.expanduser(data.path)
    path = path if "://" in path else os.path.normpath(root / path)
    return data.model_copy(update={"base": os.path.normpath(root), "path": path})
