"""An evaluation as lines to be read: metrics beside their baseline, columns, and confusions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

#: Of more columns or classes than these, the table shows the first ones.
COLUMNS, CLASSES = 20, 20
#: What of a report is not a metric, or has lines of its own.
APART = ("schema", "baseline", "columns", "confusion", "confused", "left_out")


def evaluation_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Give the lines of what ``evaluate --json`` prints as one object."""
    baseline = report.get("baseline", {})
    rows = {name: value for name, value in report.items() if name not in APART}
    if best := report.get("best"):
        rows["best"] = f"{best['monitor']} {_shown(best['value'])} at step {best['step']}"
    rows |= {f"{name} of the baseline": value for name, value in baseline.items()}
    width = max(map(len, rows))
    for name, value in rows.items():
        yield f"{name:<{width}}  {_shown(value)}"
    columns = report.get("columns", {})
    if columns:
        yield from _table(["", *next(iter(columns.values()))], _column_rows(columns))
    if "confusion" in report:
        yield from _confusion(**report["confusion"])
    for pair in report.get("confused", []):
        yield f"{pair['truth']} was taken for {pair['prediction']}: {pair['count']} times"


def _column_rows(columns: Mapping[str, Mapping[str, float]]) -> Iterator[list[str]]:
    for name in list(columns)[:COLUMNS]:
        yield [name, *map(_shown, columns[name].values())]
    if len(columns) > COLUMNS:
        yield [f"… {len(columns) - COLUMNS} more, see --json"]


def _confusion(classes: list[str], counts: list[list[int]]) -> Iterator[str]:
    """The truth down, the prediction across."""
    if len(classes) > CLASSES:
        yield f"the confusion matrix of {len(classes)} classes is in --json and --plot"
        return
    rows = ([name, *map(str, row)] for name, row in zip(classes, counts, strict=True))
    yield from _table(["truth \\ prediction", *classes], rows)


def _table(head: list[str], rows: Iterator[list[str]]) -> Iterator[str]:
    cells = [head, *rows]
    widths = [
        max(len(row[place]) for row in cells if place < len(row)) for place in range(len(head))
    ]
    yield ""
    for row in cells:
        first, *rest = [f"{cell:>{width}}" for cell, width in zip(row, widths, strict=False)]
        yield "  ".join([first.strip().ljust(widths[0]), *rest]).rstrip()


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
