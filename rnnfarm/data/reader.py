"""The base of readers: what turns a user's files into sequences."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from rnnfarm.data.inputs import find_files
from rnnfarm.data.origin import NOWHERE, Origin
from rnnfarm.data.sources import Sources
from rnnfarm.errors import JobError
from rnnfarm.settings import Part

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import numpy.typing as npt

    from rnnfarm.data.manifest import Column
    from rnnfarm.data.vocabulary import Vocabulary


class Sequence(NamedTuple):
    """A sequence of a split, or with `continues` a piece that carries on the split's last one.

    `columns` has one array a column: tokens (steps,), values (steps, width). Pieces keep a
    sequence of any length out of memory. `origin` says where the sequence is from.
    """

    split: str
    columns: Mapping[str, npt.NDArray[Any]]
    continues: bool = False
    origin: Origin = NOWHERE


class Reader(Part, ABC):
    """Reads a user's files in constant memory; its settings are those of `build` in a job.

    A build calls `columns`, `vocabularies` and `sequences`, each once and in this order, and then
    `sources`, `learned` and `notes`. A prediction calls `recall`, `inputs` for a file, and then
    `notes`; a forecast calls `inputs_to_forecast` instead, an evaluation of a file
    `inputs_with_targets`, and a prompt `encode`.

    Wrong settings and missing files are a JobError, files that cannot be understood a DataError.
    """

    base = Path()  # what paths in the settings are relative to; no setting itself
    _recalled: Mapping[str, Any] = {}
    _recalled_vocabularies: Mapping[str, Vocabulary] = {}
    _expected: frozenset[str] = frozenset()

    def __init__(self, **settings: Any) -> None:
        """Check the settings; JobError where two of them say what a part is."""
        super().__init__(**settings)
        for part in ("valid", "test"):
            share, usual = getattr(self, part, None), getattr(type(self), part, None)
            if share and share != usual and getattr(self, f"{part}_files", None):
                raise JobError(
                    f"settings '{part}' and '{part}_files': both say what the part '{part}' is; "
                    "leave one of them out"
                )

    @abstractmethod
    def columns(self) -> dict[str, Column]:
        """The dataset's columns; may need a first pass over the files."""

    def vocabularies(self) -> dict[str, Vocabulary]:
        """The vocabularies of the columns that have one."""
        return {}

    @abstractmethod
    def sequences(self) -> Iterator[Sequence | tuple[str, Mapping[str, npt.NDArray[Any]]]]:
        """The sequences, split by split or mixed; `train` and `valid` are what training reads."""

    def find_files(self, patterns: list[str], setting: str) -> list[Path]:
        """Return the files that the patterns in a setting name; they count as read from then on.

        See `data.inputs.find_files`.
        """
        empty = self.__dict__.setdefault("_empty", set())
        found = find_files(patterns, self.base, setting, empty)
        self.reads.add(found, setting)
        return found

    @property
    def reads(self) -> Sources:
        """The files that were read so far; a reader that does not use `find_files` adds its own."""
        kept: Sources = self.__dict__.setdefault("_reads", Sources())
        return kept

    def sources(self) -> list[Path]:
        """Return the files that were read, whose changes make a dataset out of date."""
        return list(self.reads.numbers)

    def origin(self, path: Path, row: int = -1, name: str = "") -> Origin:
        """Return the origin of a sequence that begins at a row or line of one of `sources`."""
        return Origin(name, self.reads.numbers.get(path, -1), row)

    def learned(self) -> dict[str, Any]:
        """Return, as JSON holds it, what the files have decided and the settings do not say.

        It is kept with the dataset and with every run, and `recall` is given it.
        """
        return {}

    def notes(self) -> list[str]:
        """Return what was taken and what was left out, and why, a sentence each.

        After `inputs`, which `recall` comes before, they are of the file that was read. Those of
        this base are on empty files; extend them.
        """
        empty = sorted(self.__dict__.get("_empty", ()))
        more = f" and {len(empty) - 1:,} more files" if len(empty) > 1 else ""
        return [f"left out {empty[0]}{more}, which hold nothing"] if empty else []

    def recall(self, learned: Mapping[str, Any], vocabularies: Mapping[str, Vocabulary]) -> None:
        """Take what an earlier reader with these settings has `learned`, and its vocabularies.

        From then on `inputs` reads a file exactly as the files of the build were read.
        """
        self._recalled, self._recalled_vocabularies = learned, vocabularies

    def expect(self, columns: Iterable[str]) -> None:
        """Take the columns of the dataset that the answers to a file need: the input, and what they
        are measured by. Comes after `recall`; a file may lack any other."""
        self._expected = frozenset(columns)

    def _needs(self, column: str) -> bool:
        """Whether every sequence must have a column: all of a build do, those of a file what is
        expected."""
        return not self._recalled or column in self._expected

    def encode(self, text: str) -> npt.NDArray[Any]:
        """Return the tokens of a text that a language model is to carry on, by the rules by which
        files are read; `recall` comes before."""
        raise JobError(
            f"the reader of the model's data ({type(self).__name__}) reads no plain text"
        )

    def _with(self, **settings: Any) -> Self:
        """A reader with these settings in place of this one's, which recalls the same."""
        reader = type(self)(**self.settings() | settings)
        reader.recall(self._recalled, self._recalled_vocabularies)
        reader.expect(self._expected)
        return reader

    def inputs(self, path: Path) -> Iterator[Sequence]:
        """All sequences of one file, for predictions, whatever their splits are called; columns
        that are not known there may be missing. JobError where a file says nothing by itself."""
        raise JobError(
            f"{path}: the reader of the model's data ({type(self).__name__}) cannot read a file by"
            " itself; give an array as .npy, or take --split"
        )

    def lacks(self, column: str) -> str | None:
        """Return what the file that `inputs` read last would need to have for a column of the
        dataset, as "has no column 'y'"; None where there is nothing to say."""
        return None

    def inputs_to_forecast(self, path: Path) -> Iterator[Sequence]:
        """The sequences of one file of which a forecast is made of what comes after each; by
        default what `inputs` gives."""
        return self.inputs(path)

    def inputs_with_targets(self, path: Path) -> Iterator[Sequence]:
        """All sequences of one file with the columns that they are measured by, for evaluations;
        by default what `inputs` gives."""
        return self.inputs(path)
