"""The files of a reader, and what of them is held out for validation and test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from rnnfarm.data.inputs import FilePattern, bounds
from rnnfarm.data.lines import leave_something
from rnnfarm.data.reader import Reader
from rnnfarm.errors import DataError, JobError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rnnfarm.data.inputs import Bounds

ENDLESS = 1 << 62  # steps

Fraction = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class HeldOut:
    """The files of each split, and the fractions of those of `train` that are held out."""

    files: dict[str, list[Path]]
    valid: float
    test: float


@dataclass(frozen=True)
class InputFile:
    """A file, and the fractions at its end that are for validation and, after that, for test."""

    path: Path
    valid: float = 0.0
    test: float = 0.0

    def bounds(self, count: Callable[[Path], int]) -> Bounds:
        """Return where the splits of the file end; it is counted only where it is cut."""
        whole = self.valid + self.test in (0.0, 1.0)
        return bounds(ENDLESS if whole else count(self.path), self.valid, self.test)


class SplitReader(Reader):
    """Base of the readers whose files are cut into the splits train, valid and test.

    files: the files, by glob patterns; valid: the part of `files` for validation, from 0 to 1;
    test: the part of `files` for test, from 0 to 1; valid_files: the files for validation, instead
    of a part; test_files: the files for test, instead of a part.
    """

    files: list[FilePattern]
    valid: Fraction = 0.1
    test: Fraction = 0.0
    valid_files: list[FilePattern] = []
    test_files: list[FilePattern] = []

    def _find_held_out(self) -> HeldOut:
        """Return the files of each split; JobError where nothing is left for training."""
        valid = self.find_files(self.valid_files, "valid_files")
        test = self.find_files(self.test_files, "test_files")
        found = self.find_files(self.files, "files")
        for path in test:
            if path in valid:
                raise JobError(
                    f"settings 'valid_files' and 'test_files': {path} is in both; name it in one"
                )
        train = [path for path in found if path not in {*valid, *test}]
        if not train:
            raise DataError(
                "setting 'files': every file is in 'valid_files' or 'test_files'; name files to"
                " train on"
                if found
                else "setting 'files': all files are empty; give files that hold data"
            )
        fractions = (0.0 if valid else self.valid), (0.0 if test else self.test)
        leave_something(*fractions)
        return HeldOut({"train": train, "valid": valid, "test": test}, *fractions)

    def _find_cut(self) -> list[InputFile]:
        """Return the files, those for training cut at their ends."""
        held = self._find_held_out()
        return [
            *(InputFile(path, held.valid, held.test) for path in held.files["train"]),
            *(InputFile(path, valid=1.0) for path in held.files["valid"]),
            *(InputFile(path, test=1.0) for path in held.files["test"]),
        ]
