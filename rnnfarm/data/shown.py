"""How messages name a sequence of a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rnnfarm.data.dataset import Dataset
    from rnnfarm.data.split import Split


def show_sequence(part: Split, number: int, start: int, dataset: Dataset | None) -> str:
    """Return the file and line, or the name, that a sequence of a split is from, and its number.

    Numbers count from 0, as those of predictions do. `start` is its first step; `dataset` says what
    the files are called, and is None for the split of one file.
    """
    origin, where = part.origin(start), []
    built = None if dataset is None else dataset.provenance
    if built is not None and 0 <= origin.file < len(built.files):
        where.append(built.files[origin.file].path)
    if origin.row >= 0:
        where.append(f"line {origin.row}")
    if origin.name:
        where.append(f"'{origin.name}'")
    at = f"sequence {number} of {part.name}"
    at = at if dataset is None else f"{at} in {dataset.path}"
    return f"{', '.join(where)} ({at})" if where else at
