"""Reading files in blocks of bytes, or of UTF-8 text."""

from __future__ import annotations

import codecs
import io
from typing import TYPE_CHECKING

from rnnfarm.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK = 1 << 20


def byte_blocks(path: Path) -> Iterator[bytes]:
    """Return a file in blocks of BLOCK bytes."""
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                yield block
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); fix its permissions") from None


def text_blocks(path: Path) -> Iterator[str]:
    """Return a UTF-8 file in blocks of text, without its byte order mark, every line end as `\\n`.

    DataError that names the line where the file is no UTF-8.
    """
    utf8 = codecs.getincrementaldecoder("utf-8-sig")()
    decoder = io.IncrementalNewlineDecoder(utf8, translate=True)
    try:
        for block in byte_blocks(path):
            if text := decoder.decode(block):
                yield text
        if text := decoder.decode(b"", final=True):
            yield text
    except UnicodeDecodeError:
        raise _not_utf8(path) from None


def clean_text(text: str) -> str:
    """Return a text as `text_blocks` gives it: every line end as `\\n`."""
    return io.IncrementalNewlineDecoder(None, translate=True).decode(text, final=True)


def _not_utf8(path: Path) -> DataError:
    with path.open("rb") as file:
        begin = file.read(2)
        if begin == b"\x1f\x8b":
            return DataError(f"{path}: is compressed; unpack it first (gunzip)")
        if begin in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return DataError(
                f"{path}: is UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8 IN > OUT)"
            )
        file.seek(0)
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                byte = line[error.start]
                return DataError(
                    f"{path}, line {number}: byte {byte:#04x} is not UTF-8; convert the file to"
                    " UTF-8 (iconv), or read it with the reader 'bytes'"
                )
    return DataError(f"{path}: ends in the middle of a character; convert the file to UTF-8")
