"""Vocabularies: from text to ids and back."""

from __future__ import annotations

import codecs
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rnnfarm.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt

    from rnnfarm.data.manifest import VocabularyInfo

UNKNOWN = "<unk>"
NEWLINE = "\n"


def labels_of(vocabulary: VocabularyInfo | None) -> list[str] | None:
    """Return the labels of a column of classes by their ids, None for one of a text, whose
    vocabulary has `<unk>`, a line end, or no words."""
    if vocabulary is None or vocabulary.unit != "word" or vocabulary.entries is None:
        return None
    text = {UNKNOWN, NEWLINE} & set(vocabulary.entries)
    return None if text else vocabulary.entries


class Vocabulary:
    """The ids of a column of tokens.

    unit: `byte` (UTF-8 bytes, 256 ids), `character`, or `word` (what white space separates, and
    the line end, which is a word of its own). `entries[id]` is the text of an id, None for bytes.
    Text outside the entries becomes `<unk>` where there is such an entry.
    """

    def __init__(
        self, unit: Literal["byte", "character", "word"], entries: Sequence[str] | None = None
    ) -> None:
        self.unit = unit
        self.entries = None if entries is None else list(entries)

    @property
    def size(self) -> int:
        """The number of ids."""
        return 256 if self.entries is None else len(self.entries)

    @cached_property
    def index(self) -> dict[str, int]:
        """The id of every entry."""
        return {entry: i for i, entry in enumerate(self.entries or [])}

    @cached_property
    def unknown(self) -> int | None:
        """The id of `<unk>`, None where there is none."""
        return self.index.get(UNKNOWN)

    def encode(self, text: str) -> npt.NDArray[np.int32]:
        """The ids of `text` (steps,); JobError that names what has no id and no `<unk>`."""
        if self.unit == "byte":
            return np.frombuffer(text.encode(), np.uint8).astype(np.int32)
        if self.unit == "character":
            return self.encode_characters(text)
        return self.encode_words(words(text))

    def encode_words(self, items: Sequence[str]) -> npt.NDArray[np.int32]:
        """The ids of words."""
        lacking = -1 if self.unknown is None else self.unknown
        get = self.index.get
        ids = np.fromiter((get(item, lacking) for item in items), np.int32, len(items))
        self._refuse(ids, items)
        return ids

    def encode_characters(self, text: str) -> npt.NDArray[np.int32]:
        """The ids of characters, by one look-up in a table of code points."""
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        ids = self._table[np.minimum(points, len(self._table) - 1)]
        self._refuse(ids, text)
        return ids

    @cached_property
    def _table(self) -> npt.NDArray[np.int32]:
        singles = {ord(e): i for e, i in self.index.items() if len(e) == 1}
        lacking = -1 if self.unknown is None else self.unknown
        table = np.full(max(singles, default=0) + 2, lacking, np.int32)
        table[list(singles)] = list(singles.values())
        return table

    def _refuse(self, ids: npt.NDArray[np.int32], items: Sequence[str]) -> None:
        if ids.size and int(ids.min()) < 0:
            item = items[int(np.argmin(ids))]
            raise JobError(
                f"the text has the {self.unit} {item!r}, which is not in the data's vocabulary;"
                " leave it out"
            )

    def decode(self, ids: Iterable[int] | npt.NDArray[Any]) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD."""
        return "".join(self.decode_each(ids))

    def decode_each(self, ids: Iterable[int] | npt.NDArray[Any]) -> Iterator[str]:
        """The text of ids piece by piece, as far as it is known after each id."""
        if self.entries is None:
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            for i in ids:
                if piece := decoder.decode(bytes([int(i)])):
                    yield piece
            yield decoder.decode(b"", final=True)
            return
        before = NEWLINE
        for i in ids:
            entry = self.entries[int(i)]
            spaced = self.unit == "word" and NEWLINE not in (before, entry)
            yield f" {entry}" if spaced else entry
            before = entry


def words(text: str) -> list[str]:
    """The words of `text`: what white space separates, and each line end as a word."""
    lines = text.split(NEWLINE)
    found = lines[0].split()
    for line in lines[1:]:
        found.append(NEWLINE)
        found += line.split()
    return found
