"""The dataset of a run: what the run keeps of it, and whether it is still the same."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from rnnfarm.data.build import ensure_dataset
from rnnfarm.data.current import changes_of, warn_of_changes
from rnnfarm.data.dataset import Dataset
from rnnfarm.data.manifest import parse_manifest
from rnnfarm.data.place import Place
from rnnfarm.errors import DataError, JobError
from rnnfarm.files import write_whole
from rnnfarm.job_tables import Job
from rnnfarm.plugins import Registry
from rnnfarm.small_files import MOST_MANIFEST, UnreadableError, read_small
from rnnfarm.training.checkpoint import Checkpoint

log = logging.getLogger("rnnfarm")
#: The file in which a run keeps its dataset's manifest; another name, for a run is no dataset.
KEPT = "manifest.json"
#: What becomes of a run that is resumed with another dataset.
GOES_ON = "the run goes on, with another result than either dataset alone gives"


def keep_dataset(run: Path, dataset: Dataset) -> None:
    """Write a dataset's manifest into a run's folder, for models that read without the dataset."""
    text = dataset.manifest.to_json()
    with suppress(UnreadableError):
        if read_small(run / KEPT, MOST_MANIFEST) == text:
            return
    write_whole(run / KEPT, text.decode())


def kept_dataset(run: Path, job: Job) -> Dataset | None:
    """Return what a run keeps of its dataset, without its shards; None where it keeps nothing."""
    path = run / KEPT
    try:
        text = read_small(path, MOST_MANIFEST)
    except UnreadableError as error:
        if error.missing:
            return None
        raise DataError(f"{path}: {error}; restore it, or remove it") from None
    return Dataset(Place.of(job.data.path), parse_manifest(text, str(path)))


def dataset_of_run(run: Path, job: Job, registry: Registry) -> Dataset:
    """Open a run's dataset, or build it again where it is gone; DataError where neither can be.

    Warns where it is out of date.
    """
    path = job.data.path
    if Place.of(path).exists() or job.data.build is not None:
        try:
            dataset = ensure_dataset(job, registry, log.warning)
        except JobError as error:
            why = f", and it cannot be built again ({error})"
        else:
            found = changes_of(dataset, job, registry)
            warn_of_changes(dataset, found, "what follows is of the dataset as it was built")
            return dataset
    else:
        why = ""
    raise DataError(
        f"{path}: the dataset of {run} is not there any more{why}; move it back, or write its new "
        f"place into data.path of {run / 'job.toml'}"
    )


def check_resumable(checkpoint: Checkpoint, dataset: Dataset) -> bool:
    """Return whether what a run has measured so far can be compared with what it will measure.

    Warns and raises as ``check_same_data``.
    """
    comparable = checkpoint.valid == dataset.fingerprint().get("valid")
    forgotten = "; what was best so far is forgotten, as the validation data are others"
    check_same_data(checkpoint, dataset, GOES_ON + ("" if comparable else forgotten))
    return comparable


def check_same_data(checkpoint: Checkpoint, dataset: Dataset, consequence: str) -> None:
    """Warn where a dataset is not the one that a checkpoint was trained on; DataError where its ids
    mean something else than the model has learned."""
    before, now = checkpoint.fact("data"), dataset.fingerprint()
    if before.get("vocabularies") != now["vocabularies"]:
        raise DataError(
            f"{dataset.path}: its vocabulary is not the one that {checkpoint.path} was trained "
            "with; bring that dataset back, or train anew with another --out"
        )
    other = sorted(name for name in before if now.get(name) != before[name])
    if other:
        log.warning(
            "%s is not the dataset that %s was trained on (its %s %s); %s",
            dataset.path,
            checkpoint.path,
            " and ".join(other),
            "differs" if len(other) == 1 else "differ",
            consequence,
        )
