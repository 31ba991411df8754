"""Reading .npy and .npz files, whatever is in them, in constant memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rnnfarm.errors import DataError, RnnfarmError, printable
from rnnfarm.small_files import UnreadableError, open_regular

IN_MEMORY = 32 << 20  # bytes of an unpacked array
Arrays = dict[str, npt.NDArray[Any]]


def load_arrays(
    path: Path,
    choose: Callable[[Sequence[str]], Sequence[str]] = lambda names: names,
    mmap_mode: Literal["r"] | None = "r",
) -> Arrays:
    """Return the arrays of a file by name: that of a .npy file as "", of a .npz file those chosen.

    Large arrays are mapped, and those of a .npz file unpacked into a file without a name for that.
    DataError where the file is none of NumPy's, holds Python objects, or is damaged.
    """
    try:
        with open_regular(path), np.errstate(over="ignore"):  # of a shape beyond all numbers
            loaded = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            found = {name: _member(loaded, name) for name in choose(loaded.files)}
    except RnnfarmError:
        raise
    except UnreadableError as error:
        raise DataError(f"{path}: {error}; correct the path") from None
    except Exception as error:
        # NumPy evaluates a file's header, zipfile and zlib unpack it: damage can raise anything.
        raise DataError(f"{path}: cannot be read as .npy or .npz ({_why(error)})") from None
    for name, array in found.items():
        if not isinstance(array, np.ndarray):  # NumPy gives what it does not know as bytes
            raise DataError(f"{path}: '{name}' in it is no array; write it again with numpy.savez")
    return found


def _member(loaded: Any, name: str) -> Any:
    """An array of a .npz file, which may unpack to far more than the file has."""
    stored = name if name in loaded.zip.namelist() else f"{name}.npy"
    if loaded.zip.getinfo(stored).file_size <= IN_MEMORY:
        return loaded[name]
    with (
        loaded.zip.open(stored) as packed,
        tempfile.NamedTemporaryFile(prefix="rnnfarm-", suffix=".npy") as file,
    ):
        shutil.copyfileobj(packed, file, 1 << 20)
        file.flush()
        return np.load(file.name, mmap_mode="r", allow_pickle=False)


def _why(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "allow_pickle" in text or "pickled" in text or "Python objects" in text:
        return "it is no file of NumPy's, or holds Python objects; save numbers with numpy.save"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}; correct the path or its permissions"
    shown = text or type(error).__name__
    return printable(f"{shown[:200]}; it is damaged, write it again with numpy.save")
