"""Which rows of the sequences of a table are for training, validation and test."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from rnnfarm.data.lines import leave_something, share, split_by_hash
from rnnfarm.errors import JobError, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

How = Literal["tail", "sequence", "group"]

MANY = 20  # names of a label, from which on each one's own hash decides


@dataclass
class Found:
    """A sequence, as a first pass over a table finds it.

    name: its group; number: of its first row; before: how many of its rows are before the date at
    which a split begins, by split; label, target: what belongs to the whole sequence.
    """

    name: str
    number: int
    length: int = 0
    before: dict[str, int] = field(default_factory=dict)
    label: int = -1
    target: npt.NDArray[np.float32] | None = None


class Part(NamedTuple):
    """The rows [low, high) of a sequence, of which those before `counted` are only looked back at,
    and never count as targets in this split."""

    split: str
    low: int
    high: int
    counted: int


@dataclass(frozen=True)
class Splits:
    """How sequences are divided; the settings of `TablePlan` of the same names."""

    valid: float
    test: float
    split: How
    valid_from: np.datetime64 | None = None
    test_from: np.datetime64 | None = None
    valid_groups: tuple[str, ...] = ()
    test_groups: tuple[str, ...] = ()
    lookback: int = 0

    @property
    def dates(self) -> dict[str, int]:
        """The dates from which on rows are of a split, in microseconds as `local` has them."""
        given = {"valid": self.valid_from, "test": self.test_from}
        return {
            name: int(date.astype("datetime64[us]").astype(np.int64))
            for name, date in given.items()
            if date is not None
        }

    @property
    def cut_into(self) -> set[str]:
        """The parts that each sequence is cut into, where it is cut."""
        if self.split != "tail":
            return set()
        given = {"valid": self.valid and not self.valid_groups, "test": self.test}
        found = {split for split, part in given.items() if part} | set(self.dates)
        return {"train", *found} if found else set()

    def check(self, group: str | None, time: Any) -> None:
        """JobError where settings contradict each other."""
        leave_something(self.valid, self.test)
        for name, usual in (("valid", 0.1), ("test", 0.0)):
            date, groups = f"{name}_from", f"{name}_groups"
            given = [date] if name in self.dates else []
            given += [groups] if self._groups(name) else []
            if len(given) > 1:
                raise JobError(f"settings '{date}' and '{groups}': leave one out")
            if given and getattr(self, name) not in (usual, 0.0):
                raise JobError(f"settings '{name}' and '{given[0]}': leave one out")
        if self.dates and time is None:
            raise JobError(
                f"setting '{next(iter(self.dates))}_from': name the column in 'time' too"
            )
        if (self.valid_groups or self.test_groups) and group is None:
            raise JobError("settings 'valid_groups' and 'test_groups': name the column in 'group'")
        whole = self.split != "tail"
        if self.dates and whole:
            raise JobError(f"setting 'split': dates cut sequences, and '{self.split}' does not")
        if both := [name for name in self.valid_groups if name in self.test_groups]:
            raise JobError(
                f"settings 'valid_groups' and 'test_groups': both name '{both[0]}'; leave it out of"
                " one"
            )
        if self.lookback and (self.valid_groups or self.test_groups) and not self.cut_into:
            raise JobError(
                "setting 'lookback': the parts are whole groups, so that no sequence is in two;"
                " leave the setting out"
            )
        if self.lookback and whole:
            raise JobError(
                f"setting 'lookback': with split = '{self.split}' no sequence is in two parts"
            )
        dates = self.dates
        if len(dates) == 2 and dates["valid"] >= dates["test"]:
            raise JobError("settings 'valid_from' and 'test_from': the test part comes last")
        if self.test and (self.valid_from is not None or self.valid_groups):
            given_as = "valid_from" if self.valid_from is not None else "valid_groups"
            raise JobError(
                f"settings '{given_as}' and 'test': say with '{given_as.replace('valid', 'test')}'"
                " what the test part is"
            )

    def plan(self, found: list[Found]) -> list[list[Part]]:
        """Return the parts of each sequence."""
        owners = self._owners(found)
        return [
            list(self._cut(each)) if owner is None else [Part(owner, 0, each.length, 0)]
            for each, owner in zip(found, owners, strict=True)
        ]

    def _cut(self, found: Found) -> Iterator[Part]:
        """The parts of a sequence that is cut."""
        length = found.length
        test = found.before.get("test", length - round(length * self.test))
        valid = found.before.get("valid")
        if self.valid_groups:
            valid = test
        if valid is None and "test" in found.before:
            valid = test - round(test * self.valid)
        if valid is None:
            valid = length - round(length * (self.valid + self.test))
        edges = {"train": (0, valid), "valid": (valid, test), "test": (test, length)}
        for split, (low, high) in edges.items():
            if low < high:
                yield Part(split, max(0, low - self.lookback), high, low)

    def _owners(self, found: list[Found]) -> list[str | None]:
        """The split that each sequence is in as a whole, None where it is cut."""
        named = {name: split for split in ("valid", "test") for name in self._groups(split)}
        known = {each.name for each in found}
        for name, split in named.items():
            if name not in known:
                raise JobError(
                    f"setting '{split}_groups': there is no group '{name}';"
                    f" {suggestion(name, sorted(known))}"
                )
        owners = [named.get(each.name) for each in found]
        rest = [number for number, owner in enumerate(owners) if owner is None]
        valid = 0.0 if self.valid_groups else self.valid
        test = 0.0 if self.test_groups else self.test
        if self.split == "sequence":
            valid_at = len(rest) - round(len(rest) * (valid + test))
            test_at = len(rest) - round(len(rest) * test)
            for place, number in enumerate(rest):
                owners[number] = (
                    "train" if place < valid_at else "valid" if place < test_at else "test"
                )
        elif self.split == "group":
            held = hold_out([(found[n].name, found[n].label) for n in rest], valid, test)
            for number in rest:
                owners[number] = held.get(found[number].name, "train")
        return owners

    def _groups(self, split: str) -> tuple[str, ...]:
        return self.valid_groups if split == "valid" else self.test_groups


def hold_out(named: list[tuple[str, int]], valid: float, test: float) -> dict[str, str]:
    """Return the names that are held out, and for what.

    named: names, and the label of each. Of a label with MANY names or more, a name's own hash
    decides, so that it stays where it is as others come and go; of labels with fewer, which would
    get too much or nothing so, one in so many is taken in the order of the hash.
    """
    labels: dict[str, int] = {}
    for name, label in named:
        labels.setdefault(name, label)
    sizes = Counter(labels.values())
    many = [name for name in labels if sizes[labels[name]] >= MANY]
    few = [name for name in labels if sizes[labels[name]] < MANY]
    few.sort(key=lambda name: (labels[name], share(name)))
    held = _spread(few, valid, test, some=not many)
    owners = {name: held.get(name) or split_by_hash(name, valid, test) for name in many}
    _fill_empty(owners, set(held.values()), valid, test)
    return held | {name: split for name, split in owners.items() if split != "train"}


def _fill_empty(owners: dict[str, str], filled: set[str], valid: float, test: float) -> None:
    """Give each part that is asked for and has no name the one whose hash is the nearest to it."""
    ends = {"test": (0.0, test), "valid": (test, test + valid), "train": (test + valid, 1.0)}
    for split, (low, high) in ends.items():
        sizes = Counter(owners.values())
        if owners and low < high and not sizes[split] and split not in filled:
            free = [name for name, owner in owners.items() if sizes[owner] > 1]
            owners[min(free, key=lambda name: max(low - share(name), share(name) - high))] = split


def _spread(names: list[str], valid: float, test: float, some: bool) -> dict[str, str]:
    """Names held out, spread evenly; `some`: one at least of several, and not all of them."""
    held = _evenly(names, valid + test, some)
    tested = set(held)
    if valid:
        tested = set(_evenly(held, test / (valid + test), some))
    return {name: "test" if name in tested else "valid" for name in held}


def _evenly(names: list[str], part: float, some: bool) -> list[str]:
    """A part of the names, spread evenly; `some`: one at least of several, and not all of them."""
    if not part:
        return []
    ends = np.floor(np.arange(len(names) + 1) * part + 0.5)
    taken = [name for name, more in zip(names, np.diff(ends), strict=True) if more]
    if some and not taken and len(names) > 1:
        return names[-1:]
    return taken[:-1] if some and len(taken) == len(names) else taken


def cut_parts(
    parts: list[Part], position: int, size: int
) -> Iterator[tuple[str, slice, bool, int]]:
    """Give the parts of a block of `size` rows at `position` of a sequence.

    Of each: its split, its slice of the block, whether it carries on the rows before, and how many
    of its rows do not count.
    """
    for part in parts:
        low, high = max(position, part.low), min(position + size, part.high)
        if low < high:
            context = min(max(part.counted - low, 0), high - low)
            yield part.split, slice(low - position, high - position), low > part.low, context
