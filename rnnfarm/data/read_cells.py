"""Reads the cells of a column by its rule, and says what is wrong with one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rnnfarm.data.cells import (
    LARGEST,
    SPELLINGS_OF_NOTHING,
    NumberFormat,
    Numbers,
    finite,
    texts_as_numbers,
    truths,
)
from rnnfarm.data.times import is_text

if TYPE_CHECKING:
    from rnnfarm.data.column_rules import ColumnRule


class WrongCell(Exception):  # noqa: N818  (a reader turns it into an error that names file and line)
    """A cell that cannot be read, and its row in the column; None: it has no value."""

    def __init__(self, row: int, cell: Any) -> None:
        super().__init__(row)
        self.row, self.cell = row, cell


def read_cells(cells: pa.Array, rule: ColumnRule, form: NumberFormat, *, missing: bool) -> pa.Array:
    """Return the cells as float32, of categories their numbers as int32, -1 for an unknown one.

    A cell without a value is null where cells may be `missing`. WrongCell for one that is refused.
    """
    if rule.kind == "category":
        texts = as_keys(cells)
        codes = pc.index_in(texts, value_set=pa.array(rule.categories, pa.string()))
        read = Numbers(pc.if_else(texts.is_valid(), pc.fill_null(codes, -1), codes), None)
    elif rule.kind == "truth":
        read = truths(cells)
    elif is_text(cells.type):
        read = texts_as_numbers(cells, form, pa.float32(), rule.unit)
    else:
        numbers = cells.cast(pa.float32(), safe=False)
        read = finite(pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float32()), numbers))
    wrong = read.wrong
    if not missing and (wrong is not None or read.values.null_count):
        nothing = read.values.is_null().to_numpy(zero_copy_only=False)
        wrong = nothing if wrong is None else wrong | nothing
    if wrong is not None:
        row = int(np.argmax(wrong))
        raise WrongCell(
            row, None if cells[row].as_py() != cells[row].as_py() else cells[row].as_py()
        )
    return read.values


def one_hot(codes: pa.Array, category: int) -> pa.Array:
    """Return 1 where a row has the category of that number, and 0 where not, as float32."""
    return pc.equal(codes, category).cast(pa.float32())


def as_keys(cells: pa.Array) -> pa.Array:
    """Return cells that tell rows apart as texts."""
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    return cells.cast(pa.string())


def problem_of(cell: Any, rule: ColumnRule, form: NumberFormat, *, mask: bool, texts: bool) -> str:
    """Return what is wrong with a cell of a column, and the fix.

    mask: whether cells may be missing; texts: whether the file's cells are texts.
    """
    gaps = "fill or drop the row, leave the column out of the settings, or set missing = 'mask'"
    if cell is None:
        return f"has no value; {gaps} where values may be missing"
    stands = "name it in the setting 'null_values' where it stands for no value"
    fix = "fix it, or leave the column out of the settings"
    if texts:
        fix = f"fix it, or {stands}" if mask else f"{gaps} and {stands}"
    if rule.kind == "truth":
        return f"is neither true nor false ({cell!r}); {fix}"
    if not texts and np.isinf(float(cell)):
        return f"holds an infinite value; {fix}"
    if not texts:
        return f"holds a value that float32 cannot hold ({cell!r}; at most {LARGEST:.2g}); {fix}"
    if rule.unit:
        return f"is no number with the unit '{rule.unit}' ({cell!r}); {fix}"
    column = pa.array([cell])
    if form.are_numbers(column)[0].as_py():
        return f"is too large for float32 ({cell!r}; at most {LARGEST:.2g}); {fix}"
    if pc.is_in(pc.utf8_lower(column), SPELLINGS_OF_NOTHING)[0].as_py():
        return f"is no finite number ({cell!r}); {fix}"
    return f"is no finite number ({cell!r}){_written(form)}; {fix}"


def _written(form: NumberFormat) -> str:
    return f" as written with {form}" if str(form) else ""
