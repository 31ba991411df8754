"""Reading .npy and .npz files, whatever is in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rnnfarm.errors import DataError, RnnfarmError, printable

Arrays = dict[str, npt.NDArray[Any]]


def load_arrays(
    path: Path,
    choose: Callable[[Sequence[str]], Sequence[str]] = lambda names: names,
    mmap_mode: Literal["r"] | None = "r",
) -> Arrays:
    """Return the arrays of a file by name: that of a .npy file as "", of a .npz file those chosen.

    DataError where the file is none of NumPy's, holds Python objects, or is damaged.
    """
    try:
        loaded = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            found = {name: loaded[name] for name in choose(loaded.files)}
    except RnnfarmError:
        raise
    except Exception as error:
        # NumPy evaluates a file's header, zipfile and zlib unpack it: damage can raise anything.
        raise DataError(f"{path}: cannot be read as .npy or .npz ({_why(error)})") from None
    for name, array in found.items():
        if not isinstance(array, np.ndarray):  # NumPy gives what it does not know as bytes
            raise DataError(f"{path}: '{name}' in it is no array; write it again with numpy.savez")
    return found


def _why(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "allow_pickle" in text or "pickled" in text or "Python objects" in text:
        return "it is no file of NumPy's, or holds Python objects; save numbers with numpy.save"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}; correct the path or its permissions"
    shown = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return printable(f"{shown[:200]}; it is damaged, write it again with numpy.save")
