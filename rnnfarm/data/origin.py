"""Where a sequence of a dataset is from: its group, its file, and its line or row there.

The shards keep it in three Arrow columns beside the dataset's own, one entry a row. Rows that carry
on a sequence have no origin of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Sequence

FIELDS = [
    pa.field("origin_name", pa.large_string()),
    pa.field("origin_file", pa.int32()),
    pa.field("origin_row", pa.int64()),
]


class Origin(NamedTuple):
    """Where a sequence is from.

    name: what it is called: its group, or its label's folder; empty where it has no name.
    file: the number of its file in `Provenance.files`, -1 where it is of no file.
    row: the line or row of that file at which it begins, as the file's kind counts them (lines of
    text and CSV and rows of Parquet from 1), -1 where that is not known.
    """

    name: str = ""
    file: int = -1
    row: int = -1


NOWHERE = Origin()


def origin_arrays(origins: Sequence[Origin]) -> list[pa.Array]:
    """Return the three Arrow columns of some rows."""
    names, files, rows = zip(*origins, strict=True)
    return [
        pa.array(part, kind.type) for part, kind in zip((names, files, rows), FIELDS, strict=True)
    ]
