"""What the tests of tables share: a table of text, built, and read back."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from rnnfarm.builtin.tables import CSV
from rnnfarm.data import Dataset, build_dataset
from rnnfarm.data.origin import Origin


def build(folder: Path, text: str, **settings: Any) -> Dataset:
    """The dataset of a CSV file of this text."""
    (folder / "t.csv").write_text(text)
    return build_with(CSV(**{"files": ["t.csv"], "valid": 0.0} | settings), folder)


def build_with(reader: Any, folder: Path) -> Dataset:
    reader.base = folder
    return build_dataset(reader, folder / f"built-{len(list(folder.glob('built-*')))}")


def sequences(dataset: Dataset, split: str = "train", column: str = "values") -> list[Any]:
    """The entries of a column in each sequence of a split."""
    part = dataset.split(split)
    return np.split(part.read(column, 0, part.steps), part.starts()[1:].tolist())


def values(dataset: Dataset) -> list[list[float]]:
    """The values of all steps of the training part."""
    split = dataset.split("train")
    found: list[list[float]] = split.read("values", 0, split.steps).tolist()
    return found


def first_values(dataset: Dataset, split: str = "train") -> list[list[float]]:
    """The first value of each step, sequence by sequence."""
    return [rows[:, 0].tolist() for rows in sequences(dataset, split)]


def own(dataset: Dataset, split: str, column: str) -> list[Any]:
    """The entries of an own column, sequence by sequence."""
    part = dataset.split(split)
    return [part.own(column, int(start)).tolist() for start in part.starts()]


def origins(dataset: Dataset, split: str = "train") -> list[Origin]:
    part = dataset.split(split)
    return [part.origin(int(start)) for start in part.starts()]


def notes(dataset: Dataset) -> str:
    """What the reader said, one sentence a line."""
    assert dataset.provenance is not None
    return "\n".join(dataset.provenance.notes)


def table(header: str, rows: Iterable[Any]) -> str:
    """A table of text; a row is its cells, None for one that is empty."""
    lines = (",".join("" if cell is None else str(cell) for cell in row) for row in rows)
    return "\n".join([header, *lines]) + "\n"
