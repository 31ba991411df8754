"""The base of readers: what turns a user's files into sequences."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rnnfarm.errors import JobError
from rnnfarm.settings import Part

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt

    from rnnfarm.data.manifest import Column
    from rnnfarm.data.vocabulary import Vocabulary


class Sequence(NamedTuple):
    """A sequence of a split, or with `continues` a piece that carries on the split's last one.

    `columns` has one array a column: tokens (steps,), values (steps, width). Pieces keep a
    sequence of any length out of memory.
    """

    split: str
    columns: Mapping[str, npt.NDArray[Any]]
    continues: bool = False


class Reader(Part, ABC):
    """Reads a user's files in constant memory; its settings are those of `build` in a job.

    The methods are called in the order of this page, each once; `inputs` is called alone. Wrong
    settings and missing files are a JobError, files that cannot be understood a DataError.
    """

    base = Path()  # what paths in the settings are relative to; no setting itself

    @abstractmethod
    def columns(self) -> dict[str, Column]:
        """The dataset's columns; may need a first pass over the files."""

    def vocabularies(self) -> dict[str, Vocabulary]:
        """The vocabularies of the columns that have one."""
        return {}

    @abstractmethod
    def sequences(self) -> Iterator[Sequence | tuple[str, Mapping[str, npt.NDArray[Any]]]]:
        """The sequences, split by split or mixed; `train` and `valid` are what training reads."""

    def _sequences_with(self, **settings: Any) -> Iterator[Sequence]:
        """What a reader with these settings in place of its own gives."""
        reader = type(self)(**self.settings() | settings)
        reader.columns()
        return (Sequence(*item) for item in reader.sequences())

    def inputs(self, path: Path) -> Iterator[Sequence]:
        """All sequences of one file, for predictions, whatever their splits are called; columns
        that are not known there may be missing. JobError where a file says nothing by itself."""
        raise JobError(
            f"{path}: the reader of the model's data ({type(self).__name__}) cannot read a file by"
            " itself; give an array as .npy, or take --split"
        )
