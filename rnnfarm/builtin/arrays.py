"""The reader of NumPy arrays."""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from rnnfarm.data.held_out import SplitReader
from rnnfarm.data.inputs import bounds, cut
from rnnfarm.data.manifest import Column
from rnnfarm.data.numpy_files import load_arrays
from rnnfarm.data.reader import Sequence
from rnnfarm.data.rounding import EXACT, Rounding
from rnnfarm.data.tables import TARGET, VALUES
from rnnfarm.data.text import TOKENS
from rnnfarm.errors import DataError, JobError, suggestion

BLOCK = 1 << 18  # steps of a long sequence that are read at once
LARGEST = float(np.finfo(np.float32).max)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from rnnfarm.data.inputs import Bounds


class NumPyArrays(SplitReader):
    """Arrays of .npy and .npz files.

    An array of values (T, F) is one sequence and (N, T, F) are N; an array of ids (T,) is one and
    (N, T) are N. A target (N,) of classes, or (N, F) of values, is one for each of N sequences: an
    own column. Values are kept as float32.

    values, target: the names of the arrays in .npz files (`values` may be left out where a file
    holds one); vocabulary: the number of ids where the arrays are tokens; classes: the number of
    ids where the target is classes; valid, test: the parts of `files` for validation and test, from
    0 to 1: the last of the N sequences, or the end of the one.
    """

    values: str | None = None
    target: str | None = None
    vocabulary: Annotated[int, Field(ge=1)] | None = None
    classes: Annotated[int, Field(ge=1)] | None = None

    def columns(self) -> dict[str, Column]:
        """`tokens` or `values`, and `target` where an array is named for it."""
        self._files = self._find_cut()
        self._rounding = {name: Rounding() for name in (VALUES, TARGET)}
        self._columns: dict[str, Column] = {}
        self._columns = self._describe(self._arrays(self._files[0].path))
        return self._columns

    def _describe(self, arrays: dict[str, npt.NDArray[Any]]) -> dict[str, Column]:
        columns = {}
        for name, array in arrays.items():
            ids, own = self._ids(name), name == TARGET and self._own
            columns[name] = Column.tokens(ids, own) if ids else Column.values(array.shape[-1], own)
        return columns

    def _ids(self, name: str) -> int | None:
        """The number of ids of a column; None where it holds values."""
        return {TOKENS: self.vocabulary, TARGET: self.classes}.get(name)

    def sequences(self) -> Iterator[Sequence]:
        """One sequence, or the N sequences, of each file."""
        for file in self._files:
            arrays = self._arrays(file.path)
            first = next(iter(arrays.values()))
            many = first.ndim == (2 if self.vocabulary else 3)
            cuts = bounds(len(first), file.valid, file.test)
            read = self._whole if many else self._long
            yield from read(file.path, arrays, cuts)

    def _whole(
        self, path: Path, arrays: dict[str, npt.NDArray[Any]], cuts: Bounds
    ) -> Iterator[Sequence]:
        """Each of N sequences, with the target of its own where there is one."""
        own = {TARGET} if self._own else set()
        for split, number in ((s, n) for n in range(cuts[-1][1]) for s, _, _ in cut(cuts, n, 1)):
            taken = {
                k: a[number : number + 1] if k in own else a[number] for k, a in arrays.items()
            }
            for name, array in taken.items():
                at = (number,) if name in own else (number, 0)
                self._check_values(path, name, array, at)
            yield Sequence(split, taken, origin=self.origin(path, number))

    def _long(
        self, path: Path, arrays: dict[str, npt.NDArray[Any]], cuts: Bounds
    ) -> Iterator[Sequence]:
        """The one sequence of a file, in blocks."""
        for low in range(0, cuts[-1][1], BLOCK):
            for split, part, continues in cut(cuts, low, BLOCK):
                start = low + part.start
                taken = {name: a[start : low + part.stop] for name, a in arrays.items()}
                for name, array in taken.items():
                    self._check_values(path, name, array, (start,))
                yield Sequence(split, taken, continues, self.origin(path, start))

    def _check_values(
        self, path: Path, name: str, array: npt.NDArray[Any], start: tuple[int, ...]
    ) -> None:
        """Refuse what does not fit the column; ``start`` is the place of the array's first entry in
        the file's array, whose last index there is that of the array's first axis."""
        ids = self._ids(name)
        if ids:
            good = (array >= 0) & (array < ids)
        elif array.dtype.name in EXACT:
            good = np.isfinite(array)
        else:  # NaN compares as False
            good = (array >= -LARGEST) & (array <= LARGEST)
        if good.all():
            if not ids:
                self._rounding[name].see(array)
            return
        inside = tuple(np.argwhere(~good)[0].tolist())
        at = (*start[:-1], start[-1] + inside[0], *inside[1:])
        value = array[inside]
        if ids:
            what = f"is outside the {'vocabulary' if name == TOKENS else 'classes'} of {ids}"
        elif np.isfinite(value):
            what = f"is more than a float32 holds ({LARGEST:.3g}); divide the values"
        else:
            what = "is not finite"
        raise DataError(
            f"{path}: column '{name}': {value} at index {list(at)} {what}; correct the array"
        )

    def notes(self) -> list[str]:
        """What float32 does not keep of the values."""
        said = [rounding.note(name) for name, rounding in self._rounding.items()]
        return [note for note in said if note is not None]

    def _arrays(self, path: Path) -> dict[str, npt.NDArray[Any]]:
        """The arrays of a file by column, checked."""
        first = TOKENS if self.vocabulary else VALUES
        wanted = {first: self.values} | ({} if self.target is None else {TARGET: self.target})
        picked: dict[str, str] = {}

        def choose(names: typing.Sequence[str]) -> list[str]:
            picked.update({column: _pick(path, names, name) for column, name in wanted.items()})
            return list(picked.values())

        loaded = load_arrays(path, choose)
        if not picked:  # a .npy file, whose one array has no name
            choose([""])
        arrays = {column: loaded[name] for column, name in picked.items()}
        for name, array in arrays.items():
            _check_array(path, name, array, self._ids(name))
            if array.dtype == np.bool_:
                arrays[name] = array.view(np.uint8)
        self._check_shapes(path, arrays, first)
        return arrays

    def _check_shapes(self, path: Path, arrays: dict[str, npt.NDArray[Any]], first: str) -> None:
        leading = {a.shape[: a.ndim - (not self._ids(name))] for name, a in arrays.items()}
        whole = arrays[first].ndim == (2 if self.vocabulary else 3)
        #: Whether the target has one entry for each of N sequences.
        self._own = whole and {len(shape) for shape in leading} == {1, 2}
        if self._own:
            leading = {shape[:1] for shape in leading}
        if len(leading) > 1:
            shapes = " and ".join(str(a.shape) for a in arrays.values())
            raise DataError(
                f"{path}: arrays of shapes {shapes} have not the same steps; correct them"
            )
        if self._columns and self._describe(arrays) != self._columns:
            shapes = " and ".join(f"{name} {a.shape}" for name, a in arrays.items())
            raise DataError(
                f"{path}: its {shapes} are other columns than those of {self._files[0].path}; give "
                "arrays of one width, and targets of one kind"
            )


def _pick(path: Path, names: typing.Sequence[str], name: str | None) -> str:
    """The name of an array in a file, checked."""
    if name is None:
        if not names:
            raise DataError(f"{path}: holds no array; write it again with numpy.savez")
        name = VALUES if VALUES in names else names[0]
        if len(names) > 1 and name != VALUES:
            raise JobError(
                f"{path}: holds several arrays ({', '.join(names)}); name one in the setting"
                " 'values'"
            )
    if name not in names:
        if list(names) == [""]:
            raise JobError(
                f"{path}: is a .npy file, whose array has no name '{name}'; leave the setting out, "
                "or save several arrays with numpy.savez"
            )
        raise JobError(f"{path}: has no array '{name}'; {suggestion(name, names)}")
    return name


def _check_array(path: Path, name: str, array: npt.NDArray[Any], ids: int | None) -> None:
    """Refuse an array whose dtype or shape is none that a column of its kind has."""
    setting = "classes" if name == TARGET else "vocabulary"
    what = "classes" if name == TARGET else "tokens"
    given = f"{path}: column '{name}' is {array.dtype} of shape {array.shape}"
    if array.dtype.kind not in ("iub" if ids else "iufb"):
        takes = f"integers, since '{setting}' is given" if ids else "numbers"
        other = f" (or leave '{setting}' out where it holds values)" if ids else ""
        raise DataError(f"{given}, but takes {takes}; save it with .astype of such a dtype{other}")
    if array.ndim not in ((1, 2) if ids else (2, 3)):
        shapes = "(T,) or (N, T)" if ids else "(T, F) or (N, T, F)"
        one = array.ndim == 1 and "reshape(-1, 1) makes it one value a step, or "
        raise DataError(
            f"{given}, but takes {shapes}; {one or ''}give '{setting}' where it holds {what}"
            if not ids
            else f"{given}, but takes {shapes}; reshape it"
        )
    if 0 in array.shape:
        raise DataError(f"{given}, which holds nothing; give an array with steps and values")
