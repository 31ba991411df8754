"""The cells of a table: what its columns are, and their values and times in blocks of rows."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rnnfarm.data.reader import Reader
from rnnfarm.data.times import moments
from rnnfarm.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from rnnfarm.data.row_numbers import RowNumbers

#: The columns of a block that hold the rows' times, as timestamps without a zone: as a clock of the
#: place shows them, and in UTC, which alone can be put in order.
LOCAL, INSTANT = "\0local", "\0instant"


class TableCells(Reader):
    """Base of what reads tables: the cells of their columns, whatever the kind of file."""

    time: str | None = None

    def _batches(
        self, path: Path, names: list[str], keys: list[str], time: bool
    ) -> Iterator[pa.RecordBatch]:
        """The rows in blocks: `names` as float32, `keys` as they are, and, where `time` is asked
        for, LOCAL and INSTANT.

        A cell without a value is null or NaN in `names`, where `missing` is "mask". DataError that
        names the file and the line or row of a cell that is refused, or holds no time.
        """
        row = 0
        name = self.time if time else None
        for batch in self._cells(path, names, keys, name):
            if name is not None:
                stamps = self._stamps(path, name, batch.column(name), row)
                fields = dict(zip(batch.schema.names, batch.columns, strict=True))
                if name not in keys:
                    del fields[name]
                fields |= zip((LOCAL, INSTANT), map(pa.array, stamps), strict=True)
                yield pa.RecordBatch.from_pydict(fields)
            else:
                yield batch
            row += batch.num_rows

    def _stamps(
        self, path: Path, name: str, column: pa.Array, row: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """The local times and the instants of a column whose first cell is of that row."""
        try:
            local, instants = moments(column)
        except pa.ArrowException as error:
            raise DataError(f"{path}: column '{name}' cannot be read ({error}); mend it") from None
        none = np.isnat(local)
        if none.any():
            first = int(np.argmax(none))
            cell = column[first].as_py()
            what = f"holds no date or time ({cell!r})" if cell else "has no value"
            raise DataError(
                f"{path}, {self._at(path, row + first)}: column '{name}' {what}; write it as"
                " 2020-12-31 or 2020-12-31 23:59:59, or drop the row"
            )
        return local, instants

    @abstractmethod
    def _names(self, path: Path) -> list[str]:
        """The columns of a file."""

    @abstractmethod
    def _numeric(self, path: Path) -> list[str]:
        """The columns of a file that hold numbers."""

    @abstractmethod
    def _cells(
        self, path: Path, names: list[str], keys: list[str], time: str | None
    ) -> Iterator[pa.RecordBatch]:
        """The rows in blocks: `names` as float32, `keys` and `time` as they are."""

    @abstractmethod
    def _at(self, path: Path, row: int) -> str:
        """Where a file's row is, counted from 0: "line 3", or "row 2"."""

    @abstractmethod
    def _numbers(self, path: Path, rows: int) -> RowNumbers:
        """The numbers of the lines or rows of a file at which its rows begin, of which it has
        `rows`."""
