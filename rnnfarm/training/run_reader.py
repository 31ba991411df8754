"""The reader by which a run's data were built, as predictions and prompts use it."""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rnnfarm.data.current import build_of
from rnnfarm.errors import DataError, JobError, PluginError, shortened
from rnnfarm.strict_json import to_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rnnfarm.data.reader import Reader
    from rnnfarm.plugins import Registry
    from rnnfarm.training.run import OpenRun

log = logging.getLogger("rnnfarm")


def run_reader(opened: OpenRun, registry: Registry) -> Reader | None:
    """Return the reader by which the run's dataset was built, told what the build has learned.

    None where neither the dataset nor the job names one, or one that cannot be loaded here.
    """
    dataset = opened.dataset
    build = build_of(dataset, opened.job)
    if build is None:
        return None
    try:
        part = registry.get("readers", build.reader)
    except PluginError as error:
        log.warning("files are read without the rules of the data's reader: %s", error)
        return None
    reader: Reader = part(**build.settings)
    reader.base = opened.job.base
    named = {column: dataset.vocabulary(column) for column in dataset.columns}
    try:
        reader.recall(
            {} if dataset.provenance is None else dataset.provenance.learned,
            {column: known for column, known in named.items() if known is not None},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{dataset.path}: its manifest, or the run's copy of it, does not say what the reader "
            f"'{build.reader}' has learned ({shortened(' '.join(str(error).split()))}); restore it"
        ) from error
    return reader


@contextmanager
def settings_fixed(reader: Reader) -> Iterator[None]:
    """Add to an error that advises to change settings of a reader that a run's data keep theirs.

    The settings that the error names are given with the values that the data were built with.
    """
    try:
        yield
    except (DataError, JobError) as error:
        said = str(error)
        kept = [
            f"{name} = {to_json(value)}" if value is not None else f"no '{name}'"
            for name, value in reader.settings().items()
            if re.search(rf"\b{name} = |\b(in|settings?|and|or) '{name}'", said)
        ]
        if not kept:
            raise
        raise type(error)(
            f"{said} (in the file: the run's data were built with {', '.join(kept)}, and it is read"
            " in the same way; for other settings, build the data and train anew)"
        ) from error
