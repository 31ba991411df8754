"""What looks wrong in a file of labelled texts, though it can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Container, Iterable
    from pathlib import Path

MANY_LABELS = 20


class LabelHints:
    """Watches labels and texts for a header, for quotes, and for labels that are none."""

    def __init__(self, header: bool) -> None:
        self._header = header
        self._first: dict[Path, tuple[int, str]] = {}
        self._quoted = self._lines = 0

    def add(self, path: Path, line: int, label: str, text: str) -> None:
        """Look at an example."""
        self._first.setdefault(path, (line, label))
        self._lines += 1
        self._quoted += len(text) > 1 and text[0] == text[-1] == '"'

    def notes(self, labels: Counter[str], trained: Counter[str]) -> list[str]:
        """Return a sentence for each finding, from how many lines each label has, in all and in the
        training part."""
        found = [*self._headers(labels)]
        if self._quoted > self._lines // 2:
            found.append(
                f"{self._quoted:,} of {self._lines:,} texts stand in quotes, which are read as part"
                " of them; write the texts without"
            )
        single = sum(count == 1 for count in labels.values())
        if len(labels) > MANY_LABELS and single > len(labels) // 2:
            found.append(
                f"{single:,} of {len(labels):,} labels stand in one line alone; see whether"
                " 'label' and 'separator' are as the files are"
            )
        untrained = sorted(label for label in labels if not trained[label])
        if untrained:
            found.append(f"no line of the training part has the label {_listed(untrained)}")
        return found

    def _headers(self, labels: Counter[str]) -> list[str]:
        """The first line, where its label stands in first lines alone and others come again."""
        if self._header:
            return []
        firsts = [label for _, label in self._first.values()]
        for path, (line, label) in self._first.items():
            others = [count for other, count in labels.items() if other != label]
            if labels[label] == firsts.count(label) == len(firsts) and min(others, default=0) > 1:
                return [
                    f"{path}, line {line}: no other line has its label '{label}'; if it is a"
                    " header, set header = true"
                ]
        return []


def header_notes(headers: Iterable[tuple[Path, int, str]], labels: Container[str]) -> list[str]:
    """Return a sentence for each line that was left out as a header and begins as an example does:
    its file, its number and its label."""
    return [
        f"left out line {line} of {path} as a header, though '{label}' is a label of the data; if"
        " it is an example, write a header above it, or build the data with header = false"
        for path, line, label in headers
        if label in labels
    ]


def _listed(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(f"'{name}'" for name in names[:most]) + more
