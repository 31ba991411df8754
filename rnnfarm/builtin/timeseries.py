"""The reader of .ts files, in which the archives of time series are published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rnnfarm.builtin.labels import LABEL
from rnnfarm.data.held_out import SplitReader
from rnnfarm.data.lines import EvenSplit, numbered_lines
from rnnfarm.data.manifest import Column
from rnnfarm.data.reader import Sequence
from rnnfarm.data.tables import VALUES
from rnnfarm.data.vocabulary import Vocabulary
from rnnfarm.errors import DataError, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

LARGEST = float(np.finfo(np.float32).max)


class _Case(NamedTuple):
    """A series: its line, the text of its dimensions, and its label."""

    line: int
    dimensions: list[str]
    label: str


class TimeSeries(SplitReader):
    """Time series with a label each, of .ts files as of the UCR and UEA archives.

    files: the files, by glob patterns; test_files, valid_files: those for test and validation, or
    valid, test: the parts of the series of `files` for them, from 0 to 1: of every label, evenly
    from the start of the files to their end.

    Series may differ in their lengths. Files with time stamps, missing values or targets that are
    no labels are refused.
    """

    def columns(self) -> dict[str, Column]:
        """`values`, as wide as a series has dimensions, and the own column `label`."""
        self._held = self._find_held_out()
        first = self._held.files["train"][0]
        self._labels = Vocabulary("word", _labels(first))
        self._width = next((len(case.dimensions) for case in _cases(first)), 0)
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
        split_of = EvenSplit(self._held.valid, self._held.test)
        for split, paths in self._held.files.items():
            for path in paths:
                for case in _cases(path):
                    place = self._place(f"{path}, line {case.line}", case.label)
                    part = split_of(case.label) if split == "train" else split
                    yield self._sequence(part, path, case, place)

    def recall(self, learned: Mapping[str, Any], vocabularies: Mapping[str, Vocabulary]) -> None:
        """Take the labels of an earlier build."""
        super().recall(learned, vocabularies)
        self._labels, self._width = vocabularies[LABEL], 0

    def inputs(self, path: Path) -> Iterator[Sequence]:
        """All series of one file, which may have labels or none."""
        for case in _cases(path, _labelled(path)):
            self._width = self._width or len(case.dimensions)
            yield self._sequence("input", path, case, None)

    def inputs_with_targets(self, path: Path) -> Iterator[Sequence]:
        """All series of one file with their labels."""
        for case in _cases(path):
            self._width = self._width or len(case.dimensions)
            yield self._sequence(
                "input", path, case, self._place(f"{path}, line {case.line}", case.label)
            )

    def _sequence(self, split: str, path: Path, case: _Case, place: int | None) -> Sequence:
        columns = {VALUES: self._values(f"{path}, line {case.line}", case.dimensions)}
        if place is not None:
            columns[LABEL] = np.array([place], np.int32)
        return Sequence(split, columns, origin=self.origin(path, case.line))

    def _place(self, at: str, label: str) -> int:
        place = self._labels.index.get(label)
        if place is None:
            known = suggestion(label, self._labels.index)
            raise DataError(f"{at}: '{label}' is no label of @classLabel; correct it ({known})")
        return place

    def _values(self, at: str, dimensions: list[str]) -> npt.NDArray[Any]:
        """The values of a series (steps, width)."""
        if len(dimensions) != self._width:
            raise DataError(
                f"{at}: {len(dimensions)} dimensions where the first series has {self._width};"
                " correct the line"
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
    """The values of one dimension."""
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


def _labelled(path: Path) -> bool:
    """Whether the series of a file have labels."""
    for _, line in numbered_lines(path):
        words = line.lower().split()
        if words[:1] == ["@classlabel"]:
            return words[1:2] == ["true"]
        if words[:1] == ["@data"]:
            break
    return False


def _cases(path: Path, labelled: bool = True) -> Iterator[_Case]:
    """The line, the dimensions and the label of each series."""
    data = False
    for number, line in numbered_lines(path):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if not data:
            data = _header(f"{path}, line {number}", line)
            continue
        dimensions = line.split(":")
        label = dimensions.pop().strip() if labelled else ""
        if not dimensions:
            raise DataError(f"{path}, line {number}: has no ':' before a label; correct the line")
        yield _Case(number, dimensions, label)
    if not data:
        raise DataError(f"{path}: has no line @data; give a whole .ts file")


def _header(at: str, line: str) -> bool:
    """Whether a line above the series is @data, the last of them."""
    if not line.startswith("@"):
        raise DataError(f"{at}: stands before @data and does not begin with @ or #; correct it")
    words = line.lower().split()
    if words[0] == "@timestamps" and words[1:] == ["true"]:
        raise DataError(f"{at}: series with time stamps are not read; write their values alone")
    return words[0] == "@data"
