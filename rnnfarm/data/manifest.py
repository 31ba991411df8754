"""The manifest `dataset.json`: what a dataset holds, and for every shard its size and checksum.

A row of a shard is one sequence, or a piece of one: a sequence longer than a record batch is
written as several rows that follow each other, and the rows that carry on the sequence of the row
before (which may be the last row of the shard before) are listed in the shard's `continues`. So a
1 GB file is one sequence, read with no reset in it, and yet is built in constant memory. What a
reader of the shards sees in them are plain columns of lists and nothing of rnnfarm's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from rnnfarm.errors import DataError
from rnnfarm.small_files import UnreadableError, parse_json
from rnnfarm.strict_json import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 1
MANY_FILES = 1000  # more of them are written on one line, which is smaller and far faster
MANIFEST = "dataset.json"

Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Width = Annotated[int, Field(ge=1, le=1 << 24)]
Vocabulary = Annotated[int, Field(ge=1, lt=1 << 31)]
Role = Literal["value", "calendar", "observed"]


@dataclass(frozen=True)
class Column:
    """One column of a dataset: `tokens` are ids below `vocabulary`, `values` are float32 vectors.

    `width` is the number of figures in one step (1 for tokens). An `own` column has a list of its
    own length for each sequence, where the others have an entry for every step: a label is one
    entry long, and a transcript has as many as it has letters.

    `names` holds what each of the `width` values of a step is called, and `roles` what it is: a
    `value` that was measured, a `calendar` feature, or `observed`, which is 1 where a value has
    been measured and 0 where it was filled in. The values that have such a flag come in the order
    of the flags.

    `counts_for` is of a column of flags (see `is_flag`): the columns which, as targets, count at
    the steps where the flag is 1.
    """

    kind: Literal["tokens", "values"]
    dtype: Literal["uint8", "uint16", "int32", "float32"]
    width: Width = 1
    vocabulary: Vocabulary | None = None
    own: bool = False
    names: list[str] | None = None
    roles: list[Role] | None = None
    counts_for: list[str] | None = None

    @classmethod
    def tokens(cls, vocabulary: int, own: bool = False) -> Column:
        """A column of ids in [0, vocabulary), in the smallest dtype that holds them."""
        if vocabulary <= 1 << 8:
            return cls("tokens", "uint8", 1, vocabulary, own)
        return cls("tokens", "uint16" if vocabulary <= 1 << 16 else "int32", 1, vocabulary, own)

    @classmethod
    def values(
        cls,
        width: int,
        own: bool = False,
        names: list[str] | None = None,
        roles: list[Role] | None = None,
    ) -> Column:
        """A column of `width` float32 figures a step."""
        return cls("values", "float32", width, None, own, names, roles)

    @classmethod
    def flags(cls, counts_for: list[str] | None = None) -> Column:
        """A column of tokens 0 and 1, which says where these columns count as targets."""
        return cls("tokens", "uint8", 1, 2, counts_for=counts_for)

    @property
    def is_flag(self) -> bool:
        """Whether it has a token, 0 or 1, for every step."""
        return self == Column.flags(self.counts_for)

    @property
    def numpy(self) -> np.dtype[Any]:
        """The dtype as it lies in the shards."""
        return np.dtype(self.dtype)

    @property
    def step_bytes(self) -> int:
        """Bytes of one step in a shard."""
        return self.numpy.itemsize * self.width

    def step_shape(self) -> tuple[int, ...]:
        """The shape of one step: () for tokens, (width,) for values."""
        return () if self.kind == "tokens" else (self.width,)

    def problem(self) -> str | None:
        """What is wrong with this column's description, if anything."""
        if self.kind == "tokens":
            if self.vocabulary is None or self.width != 1 or self.dtype == "float32":
                return "a column of tokens has an integer dtype, width 1 and a vocabulary size"
        elif self.dtype != "float32" or self.vocabulary is not None:
            return "a column of values has dtype float32 and no vocabulary"
        for field_name, given in (("names", self.names), ("roles", self.roles)):
            if given is not None and len(given) != self.width:
                return f"{field_name} has {len(given)} entries for {self.width} values a step"
        return None


@dataclass(frozen=True)
class ShardInfo:
    """One Arrow file: what it is called, what it holds, and how to see that it is whole.

    `sha256` says what the file holds, and `crc32`, which is faster, whether it is damaged; None in
    a dataset that was built before there was one.
    """

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+\.arrow$")]
    sequences: Natural
    steps: Positive
    bytes: Positive
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    continues: list[Natural] = field(default_factory=list)
    crc32: Annotated[int, Field(ge=0, lt=1 << 32)] | None = None

    @property
    def rows(self) -> int:
        """Rows in the file: a sequence's later pieces are rows too."""
        return self.sequences + len(self.continues)


@dataclass(frozen=True)
class SplitInfo:
    """A split, as `train` or `valid`: its shards in the order of its sequences."""

    shards: list[ShardInfo]
    sequences: Natural
    steps: Positive


@dataclass(frozen=True)
class VocabularyInfo:
    """The entries of a vocabulary by id; bytes need none."""

    unit: Literal["byte", "character", "word"]
    entries: list[str] | None = None


@dataclass(frozen=True)
class SourceFile:
    """A file that a dataset was built from: its path, and how to see whether it has changed.

    `modified` is the time of its last change in nanoseconds since 1970.
    """

    path: str
    bytes: Natural
    modified: int
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Provenance:
    """What a dataset was built from, and what its reader decided on the way.

    Attributes:
        reader: the reader's name, as a job gives it.
        settings: all of its settings, the defaults included.
        files: the files that it read, in the order in which it read them.
        learned: what it found out from them, which reading another file for the same model needs.
        notes: what was taken and what was left out, and why, a sentence each.
        base: the folder that relative paths in the settings started from.
        named: the numbers of the `files` that each setting names, as `valid_files`.
    """

    reader: str
    settings: dict[str, Any]
    files: list[SourceFile] = field(default_factory=list)
    learned: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    base: str = ""
    named: dict[str, list[Natural]] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """The whole of `dataset.json`.

    `origins`: whether the shards say where each sequence is from; see `data.origin`.
    """

    columns: dict[str, Column]
    splits: dict[str, SplitInfo]
    vocabularies: dict[str, VocabularyInfo] = field(default_factory=dict)
    name: str | None = None
    provenance: Provenance | None = None
    origins: bool = False
    format: int = FORMAT

    def to_json(self) -> bytes:
        """The text of `dataset.json`; fields that say nothing are left out."""
        data = _adapter().dump_python(self)  # many times faster than asdict
        for column in data["columns"].values():
            for key in ("own", "names", "roles", "counts_for"):
                if not column[key]:
                    del column[key]
        for split in data["splits"].values():
            for shard in split["shards"]:
                for key in ("continues", "crc32"):
                    if shard[key] in ([], None):
                        del shard[key]
        keys = ["format", "name", "provenance", "columns", "vocabularies", "origins", "splits"]
        text = {key: data[key] for key in keys if data[key] not in (None, False)}
        many = self.provenance is not None and len(self.provenance.files) > MANY_FILES
        return to_json(text, indent=None if many else 1, ensure_ascii=False).encode()


def parse_manifest(text: bytes, where: str) -> Manifest:
    """The manifest in `text`; DataError that names `where` and the field when it is not one."""
    try:
        data = parse_json(text)
    except UnreadableError as error:
        raise DataError(
            f"{where}: not a dataset's manifest, it {error}; restore it, or build the dataset again"
        ) from None
    if not isinstance(data, dict) or not isinstance(data.get("format"), int):
        raise DataError(f"{where}: not a dataset's manifest, it has no field format")
    if data["format"] > FORMAT:
        raise DataError(
            f"{where}: format {data['format']} is newer than this rnnfarm reads (format {FORMAT});"
            " upgrade rnnfarm"
        )
    try:
        manifest = _adapter().validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"{where}: field {at}: {first['msg']}; restore it, or build the dataset again"
        ) from None
    _check(manifest, where)
    return manifest


@cache
def _adapter() -> TypeAdapter[Manifest]:
    return TypeAdapter(Manifest)


def _check(manifest: Manifest, where: str) -> None:
    mend = "restore it, or build the dataset again"
    if not manifest.columns:
        raise DataError(f"{where}: field columns: there is no column; {mend}")
    if all(column.own for column in manifest.columns.values()):
        raise DataError(f"{where}: field columns: no column has an entry for every step; {mend}")
    for name, column in manifest.columns.items():
        if problem := column.problem():
            raise DataError(f"{where}: field columns.{name}: {problem}; {mend}")
    for name, split in manifest.splits.items():
        for count in ("steps", "sequences"):
            total = sum(getattr(shard, count) for shard in split.shards)
            if total != getattr(split, count):
                raise DataError(
                    f"{where}: field splits.{name}.{count}: {getattr(split, count)} is not the sum"
                    f" over the shards ({total}); {mend}"
                )
    if (built := manifest.provenance) is not None:
        numbers = [number for each in built.named.values() for number in each]
        if not all(0 <= number < len(built.files) for number in numbers):
            raise DataError(
                f"{where}: field provenance.named: has files that there are not; {mend}"
            )
    _check_vocabularies(manifest, where, mend)


def _check_vocabularies(manifest: Manifest, where: str, mend: str) -> None:
    sizes: Mapping[str, int | None] = {k: c.vocabulary for k, c in manifest.columns.items()}
    for name, vocabulary in manifest.vocabularies.items():
        size = 256 if vocabulary.entries is None else len(vocabulary.entries)
        if sizes.get(name) != size:
            raise DataError(
                f"{where}: field vocabularies.{name}: {size} entries for a column with a"
                f" vocabulary of {sizes.get(name)}; {mend}"
            )
