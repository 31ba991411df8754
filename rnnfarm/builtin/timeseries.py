"""The reader of .ts files, in which the archives of time series are published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from rnnfarm.builtin.labels import LABEL
from rnnfarm.data.inputs import FilePattern
from rnnfarm.data.lines import numbered_lines
from rnnfarm.data.manifest import Column
from rnnfarm.data.reader import Reader, Sequence
from rnnfarm.data.tables import VALUES
from rnnfarm.data.vocabulary import Vocabulary
from rnnfarm.errors import DataError, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

LARGEST = float(np.finfo(np.float32).max)


class TimeSeries(Reader):
    """Time series with a label each, of .ts files as of the UCR and UEA archives.

    files: the files, by glob patterns; test_files: those for test; valid_files: those for
    validation, or valid: the part of the series of `files` for it, from 0 to 1: of every label,
    evenly from the start of the files to their end. Series may differ in their lengths. Files with
    time stamps, missing values or targets that are no labels are refused.
    """

    files: list[FilePattern]
    test_files: list[FilePattern] = []
    valid_files: list[FilePattern] = []
    valid: Annotated[float, Field(ge=0, lt=1)] = 0.1

    def columns(self) -> dict[str, Column]:
        """`values`, as wide as a series has dimensions, and the own column `label`."""
        held = {
            "valid": self.find_files(self.valid_files, "valid_files"),
            "test": self.find_files(self.test_files, "test_files"),
        }
        named = {path for paths in held.values() for path in paths}
        train = self.find_files(self.files, "files")
        self._files = {"train": [path for path in train if path not in named], **held}
        if not self._files["train"]:
            raise DataError("setting 'files': all files are empty; give files that hold data")
        first = self._files["train"][0]
        self._labels = Vocabulary("word", _labels(first))
        self._width = next((len(dimensions) for _, dimensions, _ in _cases(first)), 0)
        if not self._width:
            raise DataError(f"{first}: holds no series after @data; give a whole .ts file")
        return {
            VALUES: Column.values(self._width),
            LABEL: Column.tokens(self._labels.size, own=True),
        }

    def vocabularies(self) -> dict[str, Vocabulary]:
        """The labels, in the order of the first file's @classLabel."""
        return {LABEL: self._labels}

    def sequences(self) -> Iterator[Sequence]:
        """A sequence a series."""
        valid = 0.0 if self.valid_files else self.valid
        met = [0] * self._labels.size
        for split, paths in self._files.items():
            for path in paths:
                for number, dimensions, label in _cases(path):
                    at = f"{path}, line {number}"
                    place = self._place(at, label)
                    met[place] += 1
                    held = int(met[place] * valid) > int((met[place] - 1) * valid)
                    figures = {
                        VALUES: self._figures(at, dimensions),
                        LABEL: np.array([place], np.int32),
                    }
                    yield Sequence("valid" if held and split == "train" else split, figures)

    def inputs(self, path: Path) -> Iterator[Sequence]:
        """All series of one file."""
        return self._sequences_with(files=[str(path)], valid_files=[], test_files=[], valid=0.0)

    def _place(self, at: str, label: str) -> int:
        place = self._labels.index.get(label)
        if place is None:
            known = suggestion(label, self._labels.index)
            raise DataError(f"{at}: '{label}' is no label of @classLabel; mend it ({known})")
        return place

    def _figures(self, at: str, dimensions: list[str]) -> npt.NDArray[Any]:
        """The figures of a series (steps, width)."""
        if len(dimensions) != self._width:
            raise DataError(
                f"{at}: {len(dimensions)} dimensions where the first series has {self._width};"
                " mend the line"
            )
        rows = [_row(f"{at}, dimension {i}", text) for i, text in enumerate(dimensions, 1)]
        lengths = {len(row) for row in rows}
        if len(lengths) > 1:
            raise DataError(
                f"{at}: its dimensions have from {min(lengths)} to {max(lengths)} steps; make them"
                " equally long"
            )
        return np.stack(rows, axis=1)


def _row(at: str, text: str) -> npt.NDArray[np.float32]:
    """The figures of one dimension."""
    cells = text.split(",")
    figures = np.empty(len(cells), np.float32)
    for i, cell in enumerate(cells):
        try:
            figure = float(cell)
        except ValueError:
            figure = np.nan
        if not abs(figure) <= LARGEST:
            missing = cell.strip() in ("", "?") or cell.strip().lower() == "nan"
            what = "has no value" if missing else "is no finite number"
            raise DataError(
                f"{at}: step {i + 1} {what} ({cell.strip()!r}); fill it in, or drop the line"
            )
        figures[i] = figure
    return figures


def _labels(path: Path) -> list[str]:
    """The labels that a file's @classLabel names."""
    for number, line in numbered_lines(path):
        words = line.split()
        key = words[0].lower() if words else ""
        if key == "@classlabel":
            if len(words) > 2 and words[1].lower() == "true":
                return list(dict.fromkeys(words[2:]))
            raise DataError(
                f"{path}, line {number}: names no labels; write @classLabel true, and the labels"
            )
        if key == "@data":
            break
    raise DataError(
        f"{path}: has no line @classLabel before @data; give a .ts file of time series with labels"
    )


def _cases(path: Path) -> Iterator[tuple[int, list[str], str]]:
    """The line, the dimensions and the label of each series."""
    data = False
    for number, line in numbered_lines(path):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if not data:
            data = _header(f"{path}, line {number}", line)
            continue
        *dimensions, label = line.split(":")
        if not dimensions:
            raise DataError(f"{path}, line {number}: has no ':' before a label; mend the line")
        yield number, dimensions, label.strip()
    if not data:
        raise DataError(f"{path}: has no line @data; give a whole .ts file")


def _header(at: str, line: str) -> bool:
    """Whether a line above the series is @data, the last of them."""
    if not line.startswith("@"):
        raise DataError(f"{at}: stands before @data and does not begin with @ or #; mend it")
    words = line.lower().split()
    if words[0] == "@timestamps" and words[1:] == ["true"]:
        raise DataError(f"{at}: series with time stamps are not read; write their values alone")
    return words[0] == "@data"
