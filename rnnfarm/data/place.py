"""Where a dataset lies: a folder on any filesystem that pyarrow.fs opens."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import pyarrow as pa
from pyarrow import fs

from rnnfarm.data.patience import patiently
from rnnfarm.errors import DataError, JobError, printable
from rnnfarm.small_files import MOST_MANIFEST

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 8 << 20


@dataclass(frozen=True)
class Place:
    """A folder `path` on `filesystem`; `shown` is how messages name it."""

    filesystem: Any
    path: str
    shown: str

    @classmethod
    def of(cls, path: str | os.PathLike[str], filesystem: Any = None) -> Place:
        """A local path, any URI of pyarrow.fs, or a path on `filesystem`."""
        shown = os.fspath(path)
        if filesystem is not None:
            return cls(filesystem, shown, shown)
        if "://" not in shown:
            return cls(fs.LocalFileSystem(), os.path.abspath(shown), shown)
        try:
            filesystem, inner = patiently(shown, fs.FileSystem.from_uri, shown)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise JobError(
                f"{shown}: no filesystem of pyarrow opens this address ({error}); mend it"
            ) from None
        return cls(filesystem, inner.rstrip("/"), shown)

    @property
    def local(self) -> Path | None:
        """The folder as a local path, None when it is not on the local filesystem."""
        return Path(self.path) if isinstance(self.filesystem, fs.LocalFileSystem) else None

    def _ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the filesystem."""
        return self._wait(getattr(self.filesystem, method), *arguments)

    def _wait(self, call: Any, *arguments: Any) -> Any:
        """Make a call, which may wait for a network where the folder is not local."""
        if self.local is not None:
            return call(*arguments)
        return patiently(self.shown, call, *arguments)

    def file(self, name: str) -> str:
        """The path of a file in the folder, on its filesystem."""
        return f"{self.path}/{name}"

    def show(self, name: str) -> str:
        """A file in the folder, as messages name it."""
        return f"{self.shown.rstrip('/')}/{name}"

    def exists(self) -> bool:
        """Whether there is anything at the path."""
        try:
            return bool(self._ask("get_file_info", self.path).type != fs.FileType.NotFound)
        except (pa.ArrowException, OSError, ValueError) as error:
            said = printable(" ".join(str(error).split()))
            raise JobError(
                f"{self.shown}: cannot be looked up ({said[:300]}); correct the path"
            ) from None

    def names(self) -> list[str]:
        """The files of the folder."""
        selector = fs.FileSelector(self.path, allow_not_found=True)
        return sorted(info.base_name for info in self._ask("get_file_info", selector))

    def size(self, name: str) -> int | None:
        """Bytes of a file; None when it is not there."""
        info = self._ask("get_file_info", self.file(name))
        return cast("int", info.size) if info.type == fs.FileType.File else None

    def version(self, name: str) -> tuple[int | None, int | None]:
        """The size of a file and the time of its last change, by which another file is noticed."""
        info = self._ask("get_file_info", self.file(name))
        return info.size, info.mtime_ns

    def read(self, name: str) -> bytes:
        """A whole small file; DataError where it is larger than a manifest may be."""
        if (self.size(name) or 0) > MOST_MANIFEST:
            raise DataError(
                f"{self.show(name)}: is larger than {MOST_MANIFEST >> 20} MiB, the most that such a"
                " file has; restore it"
            )
        return b"".join(self.blocks(name))

    def blocks(self, name: str) -> Iterator[bytes]:
        """A file in blocks, in constant memory."""
        with self._ask("open_input_stream", self.file(name)) as stream:
            while block := self._wait(stream.read, BLOCK):
                yield block

    def create(self, name: str) -> IO[bytes]:
        """A new file to write to."""
        if (folder := self.local) is not None:
            return (folder / name).open("xb")
        return cast("IO[bytes]", self.filesystem.open_output_stream(self.file(name)))

    def map(self, name: str) -> Any:
        """The file as a pyarrow.MemoryMappedFile.

        A file that is not local is fetched whole into a temporary file, which has no name any
        more once it is mapped, so that nothing is left behind however the process ends.
        """
        if self.local is not None:
            return pa.memory_map(self.file(name))
        with tempfile.NamedTemporaryFile(prefix="rnnfarm-") as copy:
            for block in self.blocks(name):
                copy.write(block)
            copy.flush()
            return pa.memory_map(copy.name)
