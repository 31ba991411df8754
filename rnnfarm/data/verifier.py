"""Verifying shards by their checksums: each once a process, in a thread beside what reads them."""

from __future__ import annotations

import hashlib
import os
import threading
import zlib
from collections import deque
from typing import TYPE_CHECKING, Any

from rnnfarm.data.shards import REBUILD
from rnnfarm.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from rnnfarm.data.manifest import ShardInfo
    from rnnfarm.data.place import Place

    Block = bytes | memoryview

BLOCK = 8 << 20


def wrong_checksum(place: Place, info: ShardInfo) -> str:
    """Return the sentence about a shard whose checksum is not the manifest's."""
    return (
        f"{place.show(info.file)}: its checksum is not the manifest's, so the shard is damaged;"
        f" {REBUILD}"
    )


def is_whole(blocks: Iterable[Block], info: ShardInfo) -> bool:
    """Return whether the bytes of a shard have its checksum: CRC-32, or SHA-256 where the dataset
    was built before there was another."""
    if info.crc32 is not None:
        found = 0
        for block in blocks:
            found = zlib.crc32(block, found)
        return found == info.crc32
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest() == info.sha256


def _same_file(path: Path, before: os.stat_result) -> Iterator[bytes]:
    """The blocks of a local file, read and not mapped: a file that is cut off meanwhile would end
    the process. _ReplacedError where it is not the one that was mapped."""
    with path.open("rb", buffering=0) as file:
        if not os.path.samestat(os.fstat(file.fileno()), before):
            raise _ReplacedError
        while block := file.read(BLOCK):
            yield block


def _copy(buffer: memoryview) -> Iterator[memoryview]:
    """The blocks of a shard that was fetched into this process."""
    return (buffer[at : at + BLOCK] for at in range(0, len(buffer), BLOCK))


class _ReplacedError(Exception):
    """A dataset was built anew; what is mapped has no name any more."""


class _Checks:
    """The checks of this process: those that wait, and what was found of those that are done.

    One thread does them, in order, and ends with the last one.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Any, Iterable[Block], ShardInfo]] = deque()
        self._thread: threading.Thread | None = None
        #: Whether each file is whole, None as long as that is not known.
        self.found: dict[Any, bool | None] = {}
        #: How many were found damaged.
        self.damaged = 0

    def add(self, key: Any, blocks: Iterable[Block], info: ShardInfo) -> None:
        with self._changed:
            if key in self.found:
                return
            self.found[key] = None
            self._waiting.append((key, blocks, info))
            if self._thread is None or not self._thread.is_alive():
                # A daemon: a process that ends does not wait for it.
                self._thread = threading.Thread(target=self._run, name="verify", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._thread = None
                    return
                key, blocks, info = self._waiting.popleft()
            try:
                whole = is_whole(blocks, info)
            except (_ReplacedError, FileNotFoundError):
                whole = True  # the next shard that is mapped says so
            except OSError:
                whole = False
            del blocks
            with self._changed:
                self.found[key] = whole
                self.damaged += not whole
                self._changed.notify_all()

    def wait(self, key: Any) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.found[key] is not None)


CHECKS = _Checks()


class Verifier:
    """Verifies the shards of one split as they are mapped."""

    def __init__(self) -> None:
        #: Of every shard that was mapped: its file as it is on the disk, and how it is named.
        self._mapped: dict[Any, tuple[Place, ShardInfo]] = {}

    def verify(self, place: Place, info: ShardInfo, mapped: Any) -> None:
        """Begin to verify a shard, which is `mapped`, unless it was done before."""
        key: Any = object()  # what was fetched is a copy of its own
        blocks: Iterable[Block]
        if place.local is not None:
            path = place.local / info.file
            now = path.stat()
            key = (path, now.st_ino, now.st_size, now.st_mtime_ns, info.sha256, info.crc32)
            blocks = _same_file(path, now)
        else:
            mapped.seek(0)
            blocks = _copy(memoryview(mapped.read_buffer()))
        self._mapped[key] = (place, info)
        CHECKS.add(key, blocks, info)

    def check(self) -> None:
        """DataError where a shard is known to be damaged by now; waits for none."""
        if CHECKS.damaged:
            for key, (place, info) in list(self._mapped.items()):
                if CHECKS.found[key] is False:
                    raise DataError(wrong_checksum(place, info))

    def confirm(self) -> None:
        """Wait until all shards that were mapped are verified; DataError where one is damaged."""
        for key in list(self._mapped):
            CHECKS.wait(key)
        self.check()
