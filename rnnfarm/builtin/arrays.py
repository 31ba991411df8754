"""The reader of NumPy arrays."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Annotated, Any
from zipfile import BadZipFile

import numpy as np
from pydantic import Field

from rnnfarm.data.inputs import FilePattern, bounds, cut
from rnnfarm.data.manifest import Column
from rnnfarm.data.reader import Reader, Sequence
from rnnfarm.data.tables import TARGET, VALUES
from rnnfarm.data.text import TOKENS
from rnnfarm.errors import DataError, JobError, suggestion

BLOCK = 1 << 18  # steps of a long sequence that are read at once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt


class NumPyArrays(Reader):
    """Arrays of .npy and .npz files.

    files: the files, by glob patterns; values, target: the names of the arrays in .npz files
    (`values` may be left out where a file holds one); vocabulary: the number of ids where the
    arrays are tokens; classes: the number of ids where the target is classes. An array of values
    (T, F) is one sequence and (N, T, F) are N; an array of ids (T,) is one and (N, T) are N. A
    target (N,) of classes, or (N, F) of values, is one for each of N sequences: an own column.
    valid: the part for validation, from 0 to 1: the last of the N sequences, or the end of the one;
    valid_files: the files for validation, instead.
    """

    files: list[FilePattern]
    values: str | None = None
    target: str | None = None
    vocabulary: Annotated[int, Field(ge=1)] | None = None
    classes: Annotated[int, Field(ge=1)] | None = None
    valid: Annotated[float, Field(ge=0, lt=1)] = 0.1
    valid_files: list[FilePattern] = []

    def columns(self) -> dict[str, Column]:
        """`tokens` or `values`, and `target` where an array is named for it."""
        self._files = [(path, self.valid) for path in self.find_files(self.files, "files")]
        if self.valid_files:
            valid = self.find_files(self.valid_files, "valid_files")
            train = [(path, 0.0) for path, _ in self._files if path not in valid]
            self._files = train + [(path, 1.0) for path in valid]
        if not self._files:
            raise DataError("setting 'files': all files are empty; give files that hold data")
        path = self._files[0][0]
        columns = {}
        for name, array in self._arrays(path).items():
            ids, own = self._ids(name), name == TARGET and self._own
            columns[name] = Column.tokens(ids, own) if ids else Column.values(array.shape[-1], own)
        return columns

    def _ids(self, name: str) -> int | None:
        """The number of ids of a column; None where it holds values."""
        return {TOKENS: self.vocabulary, TARGET: self.classes}.get(name)

    def sequences(self) -> Iterator[Sequence]:
        """One sequence, or the N sequences, of each file."""
        for path, valid in self._files:
            arrays = self._arrays(path)
            first = next(iter(arrays.values()))
            many = first.ndim == (2 if self.vocabulary else 3)
            parts = bounds(len(first), valid)
            for low in range(0, len(first), 1 if many else BLOCK):
                for split, part, continues in cut(parts, low, 1 if many else BLOCK):
                    at = low if many else slice(low + part.start, low + part.stop)
                    figures = {name: array[at] for name, array in arrays.items()}
                    if self._own and self.target is not None:
                        figures[TARGET] = arrays[TARGET][low : low + 1]
                    for name, array in figures.items():
                        self._check_figures(path, name, array, low)
                    yield Sequence(split, figures, continues and not many)

    def _check_figures(self, path: Path, name: str, array: npt.NDArray[Any], low: int) -> None:
        ids = self._ids(name)
        good = (array >= 0) & (array < ids) if ids else np.isfinite(array)
        if not good.all():
            kind = "vocabulary" if name == TOKENS else "classes"
            what = f"outside the {kind} of {ids}" if ids else "not finite"
            raise DataError(
                f"{path}: column '{name}' holds {array[~good].flat[0]} at or after index {low},"
                f" which is {what}; mend the array"
            )

    def _arrays(self, path: Path) -> dict[str, npt.NDArray[Any]]:
        """The arrays of a file by column, checked."""
        loaded = self._load(path)
        first = TOKENS if self.vocabulary else VALUES
        arrays = {first: self._pick(path, loaded, self.values)}
        if self.target is not None:
            arrays[TARGET] = self._pick(path, loaded, self.target)
        for name, array in arrays.items():
            _check_array(path, name, array, bool(self._ids(name)))
        leading = {a.shape[: a.ndim - (not self._ids(name))] for name, a in arrays.items()}
        whole = arrays[first].ndim == (2 if self.vocabulary else 3)
        #: Whether the target has one entry for each of N sequences.
        self._own = whole and {len(shape) for shape in leading} == {1, 2}
        if self._own:
            leading = {shape[:1] for shape in leading}
        if len(leading) > 1:
            shapes = " and ".join(str(a.shape) for a in arrays.values())
            raise DataError(f"{path}: arrays of shapes {shapes} have not the same steps; mend them")
        return arrays

    def _load(self, path: Path) -> dict[str, npt.NDArray[Any]]:
        try:
            loaded = np.load(path, mmap_mode="r", allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"": loaded}
            with loaded:
                return dict(loaded)
        except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
            raise DataError(f"{path}: cannot be read as .npy or .npz ({error}); mend it") from None

    def _pick(
        self, path: Path, loaded: dict[str, npt.NDArray[Any]], name: str | None
    ) -> npt.NDArray[Any]:
        if name is None:
            name = VALUES if VALUES in loaded else next(iter(loaded))
            if len(loaded) > 1 and name != VALUES:
                raise JobError(
                    f"{path}: holds several arrays ({', '.join(loaded)}); name one in the setting"
                    " 'values'"
                )
        if name not in loaded:
            raise JobError(f"{path}: has no array '{name}'; {suggestion(name, loaded)}")
        return loaded[name]


def _check_array(path: Path, name: str, array: npt.NDArray[Any], ids: bool) -> None:
    kinds = "iu" if ids else "iuf"
    dims = (1, 2) if ids else (2, 3)
    if array.dtype.kind not in kinds or array.ndim not in dims:
        shapes = "integers (T,) or (N, T)" if ids else "numbers (T, F) or (N, T, F)"
        setting = (
            "'classes' where it holds classes"
            if name == TARGET
            else ("'vocabulary' where it holds tokens")
        )
        raise DataError(
            f"{path}: column '{name}' is {array.dtype} of shape {array.shape}, but takes {shapes};"
            f" mend the array, or give {setting}"
        )
