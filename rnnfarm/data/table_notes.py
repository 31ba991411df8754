"""What is said of the rows of a table: what was found in them, and what was left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rnnfarm.data.tally import Counted, Tally
from rnnfarm.data.time_steps import Differences

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from rnnfarm.data.table_plan import TablePlan
    from rnnfarm.data.table_splits import Found, Part
    from rnnfarm.data.vocabulary import Vocabulary

OFTEN = 0.5  # the least share of a step by which gaps are counted


class PlanNotes:
    """Counts what a first pass over a table meets, and says it.

    table: the reader; where: says where a row is by its number.
    """

    def __init__(self, table: TablePlan, where: Callable[[int], str]) -> None:
        self.table = table
        self.where = where
        self.tally = Tally()
        self.differences = Differences()
        self._unknown: list[str] = []

    def left_out(self, planned: list[tuple[Found, list[Part]]]) -> None:
        """Count the sequences that are in no part."""
        for found, parts in planned:
            if not parts:
                self.tally.add("left out", 1, found.number)

    def plan(
        self,
        planned: list[tuple[Found, list[Part]]],
        labels: Vocabulary,
        ids: npt.NDArray[np.int64],
    ) -> None:
        """Count what the splits leave out."""
        wanted = self.table._splits.cut_into
        for found, parts in planned:
            if found.length == 1:
                self.tally.add("single", 1, found.number)
            owners = {part.split for part in parts}
            if not owners <= {"valid", "test"} or self.table._splits.dates:
                for split in wanted - owners if parts else ():
                    self.tally.add(split, 1, found.number)
        trained = {f.label for f, parts in planned for part in parts if part.split == "train"}
        if self.table.label is not None and self.table.label_per == "sequence":
            held = {f.label for f, parts in planned if parts} - trained
            entries = labels.entries or []
            self._unknown = sorted(entries[ids[label]] for label in held)

    def notes(self) -> list[str]:
        """Return what was counted, a sentence each."""
        first = self.table.first
        sentences = {
            "single": "{n} have one row alone",
            "left out": "{n} have no label or target and are left out",
            "first": f"{{n}} beyond the first {first:,} of a sequence are left out"
            if first
            else "",
        }
        short = "have no rows at that time" if self.table._splits.dates else "are too short"
        for split in ("train", "valid", "test"):
            sentences[split] = f"{{n}} {short} for a part in '{split}'"
        notes = self._of_time()
        for kind, sentence in sentences.items():
            counted = self.tally.get(kind)
            if counted is not None:
                unit = "row" if kind == "first" else "sequence"
                said = sentence.format(n=_plural(counted.total, unit))
                notes.append(self._with_place(_verb(said, counted.total), counted))
        if self._unknown:
            named = ", ".join(f"'{label}'" for label in self._unknown[:10])
            notes.append(f"no sequence of the training part has the label {named}")
        return notes

    def _of_time(self) -> list[str]:
        """What is said of duplicates and gaps."""
        table, notes = self.table, []
        double = self.tally.get("duplicates")
        if double is not None:
            done = {
                "keep": "are kept (duplicates = 'first', 'last' or 'mean' makes one row of them)",
                "first": "are left out, but for the first of each time",
                "last": "are left out, but for the last of each time",
                "mean": "are put into their mean",
            }[table.duplicates]
            said = f"{_plural(double.total, 'row')} with the time of the row before {done}"
            notes.append(self._with_place(said, double))
        found = self.differences.step()
        if table.gaps == "keep" and found is not None:
            step, share = found
            gaps = self.differences.gaps(step)
            if share < OFTEN:
                notes.append(
                    f"rows are at no regular steps in time: the most frequent, {step}, is"
                    f" {share:.0%} of all"
                )
            elif gaps is not None:
                said = f"{_plural(gaps.total, 'gap')} in time of more than a step of {step}, which"
                done = "are left as they are (see the setting 'gaps')"
                notes.append(self._with_place(f"{said} {done}", gaps))
        gaps, filled = self.tally.get("gaps"), self.tally.get("filled")
        if table.gaps == "split" and gaps is not None:
            said = f"sequences are split at {_plural(gaps.total, 'gap')} in time"
            notes.append(self._with_place(f"{said} of more than {table._step_in_time}", gaps))
        if gaps is not None and filled is not None:
            said = f"{_plural(gaps.total, 'gap')} in time of more than {table._step_in_time}"
            notes.append(self._with_place(f"{said} filled with {filled.total:,} rows", gaps))
        return notes

    def _with_place(self, said: str, counted: Counted) -> str:
        return f"{said} (the first: {self.where(counted.first)})"


def _plural(count: int, unit: str) -> str:
    return f"{count:,} {unit}{'s' if count != 1 else ''}"


def _verb(said: str, count: int) -> str:
    return said.replace(" have ", " has ", 1).replace(" are ", " is ") if count == 1 else said
