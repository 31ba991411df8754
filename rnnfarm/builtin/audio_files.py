"""Sound files with their labels, and with what the splits go by: names, folders, or a table."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from rnnfarm.data.lines import EvenSplit, numbered_lines, share
from rnnfarm.errors import DataError, JobError, suggestion

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    # The part of the files that a split has, or the values of groups that its files have.
    Rule = float | dict[str, list[str]]

FOLDER = "folder"
TABLE_COLUMNS = ("file", "label")


class LabelledFile(NamedTuple):
    """A file, its label, the name that a hash splits it by, and the values of its groups."""

    path: Path
    label: str
    name: str
    groups: Mapping[str, set[str]]


def label_by_name(
    paths: Sequence[Path], base: Path, pattern: re.Pattern[str]
) -> list[LabelledFile]:
    """Return files whose labels are in their names."""
    found = []
    for path in paths:
        groups = _groups(path, base, pattern)
        label = next(iter(groups["label"]))
        if not label:
            raise DataError(_misfit(path, pattern))
        found.append(LabelledFile(path, label, path.stem, groups))
    return found


def label_by_folder(
    paths: Sequence[Path], base: Path, pattern: re.Pattern[str] | None
) -> list[LabelledFile]:
    """Return files whose labels are the folders in which they lie."""
    return [
        LabelledFile(path, path.parent.name, _relative(path, base), _groups(path, base, pattern))
        for path in paths
    ]


def label_by_table(
    paths: Sequence[Path], base: Path, pattern: re.Pattern[str] | None, table: Path
) -> tuple[list[LabelledFile], list[str]]:
    """Return the files that a table has labels for, and what is to be said of those it has not.

    A row names a file by its path from the table's folder, or by its name with or without ending.
    """
    rows = _read_table(table)
    names = Counter(path.name for path in paths)
    found, used, left_out = [], set(), []
    for path in paths:
        keys = [_relative(path, table.parent), path.name, path.stem]
        key = next((key for key in keys if key in rows), None)
        if key is None:
            left_out.append(path)
            continue
        if key != keys[0] and names[path.name] > 1:
            raise DataError(
                f"{table}: '{key}' may be any of {names[path.name]} files, as {path}; write its"
                " path from the table's folder"
            )
        used.add(key)
        row = rows[key]
        groups = {name: {value} for name, value in row.items() if name not in TABLE_COLUMNS}
        groups |= {k: v for k, v in _groups(path, base, pattern).items() if k not in groups}
        found.append(LabelledFile(path, row["label"], _relative(path, base), groups))
    if not found and paths:
        raise DataError(
            f"{table}: names none of the files of 'files', such as {paths[0]}; write paths from"
            " the table's folder in its column 'file'"
        )
    notes = []
    if left_out:
        notes.append(
            f"left out {len(left_out):,} of {len(paths):,} files that {table} does not name, such"
            f" as {left_out[0]}"
        )
    if unused := [key for key in rows if key not in used]:
        notes.append(
            f"{len(unused):,} of {len(rows):,} rows of {table} name no file of 'files', such as"
            f" '{unused[0]}'"
        )
    return found, notes


def split_files(
    files: Sequence[LabelledFile], rules: Mapping[str, Rule], stratified: bool
) -> list[str]:
    """Return the split of each file. The first rule that takes it decides: one on groups, or a
    hash of its name; where it is stratified, rules on groups come first, and then every label gives
    its share. JobError where a rule names a group or a value that does not occur."""
    _check_rules(files, rules)
    if not stratified:
        return [_split(file, rules) for file in files]
    named = {split: rule for split, rule in rules.items() if isinstance(rule, dict)}
    shares = {split: rule for split, rule in rules.items() if not isinstance(rule, dict)}
    even = EvenSplit(shares.get("valid", 0.0), shares.get("test", 0.0))
    found = [_split(file, named) for file in files]
    for i in sorted(range(len(files)), key=lambda i: (share(files[i].name), i)):
        if found[i] == "train":
            found[i] = even(files[i].label)
    return found


def _split(file: LabelledFile, rules: Mapping[str, Rule]) -> str:
    place = share(file.name)
    for split, rule in rules.items():
        if isinstance(rule, dict):
            if rule and all(file.groups[group] & {*values} for group, values in rule.items()):
                return split
        elif place < rule:
            return split
        else:
            place -= rule
    return "train"


def _check_rules(files: Sequence[LabelledFile], rules: Mapping[str, Rule]) -> None:
    met: dict[str, set[str]] = {}
    for file in files:
        for group, values in file.groups.items():
            met.setdefault(group, set()).update(values)
    for setting, rule in rules.items():
        for group, wanted in rule.items() if isinstance(rule, dict) else ():
            if group not in met:
                raise JobError(
                    f"setting '{setting}': files have no group '{group}'; {suggestion(group, met)}"
                )
            for value in wanted:
                if value not in met[group]:
                    raise JobError(
                        f"setting '{setting}': no file has '{value}' as its {group};"
                        f" {suggestion(value, met[group])}"
                    )


def _groups(path: Path, base: Path, pattern: re.Pattern[str] | None) -> dict[str, set[str]]:
    """The groups of a file's name, and the folders below `base` in which it lies."""
    *folders, _ = _relative(path, base).split("/")
    groups = {FOLDER: set(folders) - {".."}}
    if pattern is not None:
        match = pattern.fullmatch(path.stem)
        if match is None:
            raise DataError(_misfit(path, pattern))
        groups |= {name: {value} for name, value in match.groupdict(default="").items()}
    return groups


def _misfit(path: Path, pattern: re.Pattern[str]) -> str:
    return (
        f"{path}: its name does not fit the setting 'pattern' ({pattern.pattern}); correct the"
        " pattern, leave the file out of 'files', or take labels from folders (labels = \"folder\")"
        " or a table"
    )


def _relative(path: Path, base: Path) -> str:
    return os.path.relpath(path, base).replace(os.sep, "/")


def _read_table(table: Path) -> dict[str, dict[str, str]]:
    """The rows of a table by what their column 'file' holds."""
    lines = [line for _, line in numbered_lines(table)]
    delimiter = next((mark for mark in "\t;" if mark in lines[0]), ",")
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter)
    header = [name.strip() for name in next(reader)]
    for column in TABLE_COLUMNS:
        if column not in header:
            raise DataError(
                f"{table}, line 1: has no column '{column}'; name the columns"
                f" {' and '.join(TABLE_COLUMNS)} there ({suggestion(column, header)})"
            )
    rows: dict[str, dict[str, str]] = {}
    for cells in reader:
        at = f"{table}, line {reader.line_num}"
        if not any(map(str.strip, cells)):
            continue
        if len(cells) != len(header):
            raise DataError(
                f"{at}: has {len(cells)} cells where line 1 names {len(header)} columns; correct"
                " the line"
            )
        row = dict(zip(header, map(str.strip, cells), strict=True))
        for column in TABLE_COLUMNS:
            if not row[column]:
                raise DataError(f"{at}: has nothing in its column '{column}'; fill it in")
        if row["file"] in rows:
            raise DataError(f"{at}: names '{row['file']}' again; leave one of the rows out")
        rows[row["file"]] = row
    return rows
