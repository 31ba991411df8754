"""Arrays of .npy and .npz files are read in constant memory, or refused with a sentence."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_tools import sentence_of

from rnnfarm.data import numpy_files
from rnnfarm.data.numpy_files import load_arrays
from rnnfarm.errors import DataError


def header(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (63 - (len(text) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_large_array_of_a_npz_file_is_mapped(
    tmp_path: Path, save: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numpy_files, "IN_MEMORY", 1000)
    large, small = np.arange(3000, dtype=np.float32).reshape(-1, 2), np.arange(9)
    save(tmp_path / "a.npz", large=large, small=small)
    found = load_arrays(tmp_path / "a.npz")
    assert isinstance(found["large"], np.memmap)
    assert not isinstance(found["small"], np.memmap)
    np.testing.assert_array_equal(found["large"], large)
    np.testing.assert_array_equal(found["small"], small)


def test_what_is_packed_into_little_is_not_unpacked_into_memory(tmp_path: Path) -> None:
    """64 MiB in 64 KB: were they in memory, they would be no map."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("values.npy", header("(8388608, 2)") + bytes(64 << 20))
    assert (tmp_path / "a.npz").stat().st_size < 100_000
    (values,) = load_arrays(tmp_path / "a.npz").values()
    assert isinstance(values, np.memmap)
    assert values.shape == (8388608, 2)


@pytest.mark.parametrize(
    "content",
    [
        header("(1000000000000, 2)") + bytes(80),
        header("(2147483647, 2147483647)") + bytes(80),
        header("(-1, 2)") + bytes(80),
        header("('x', 2)") + bytes(80),
        header("(10, 2)", "'|O'") + bytes(80),
        header("(10, 2)")[:40],
        header("(10, 2)")[:9],
        b"\x93NUMPY\x01\0\xff\xff",
        b"\x93NUMPY\x09\0" + header("(10, 2)")[8:],
    ],
)
def test_damaged_headers_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as packed:
        packed.writestr("values.npy", content)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(DataError, match=name) as error:
            load_arrays(tmp_path / name)
        assert "Error" not in sentence_of(error.value)


def test_another_compression_and_what_is_no_file(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.save(file, np.ones((3, 2), np.float32))
    with zipfile.ZipFile(tmp_path / "lzma.npz", "w", zipfile.ZIP_LZMA) as packed:
        packed.writestr("values.npy", file.getvalue())
    np.testing.assert_array_equal(load_arrays(tmp_path / "lzma.npz")["values"], np.ones((3, 2)))
    data = bytearray((tmp_path / "lzma.npz").read_bytes())
    data[8] = data[data.rindex(b"PK\x01\x02") + 10] = 99  # a method that nobody knows
    (tmp_path / "odd.npz").write_bytes(data)
    os.mkfifo(tmp_path / "pipe.npy")
    wrong = {"odd.npz": "compression", "pipe.npy": "is a pipe", "no.npy": "is missing"}
    for name, what in wrong.items():
        with pytest.raises(DataError, match=what) as error:
            load_arrays(tmp_path / name)
        assert str(tmp_path / name) in sentence_of(error.value)
