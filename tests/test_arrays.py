"""The reader of NumPy arrays: splits, precision, and whatever is no array of numbers."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tomli_w
from conftest import Call

from rnnfarm.builtin.arrays import NumPyArrays
from rnnfarm.data import Dataset, build_dataset
from rnnfarm.data.numpy_files import load_arrays
from rnnfarm.errors import DataError, JobError

Array = npt.NDArray[Any]


def build(folder: Path, **settings: Any) -> Dataset:
    reader = NumPyArrays(**settings)
    reader.base = folder
    return build_dataset(reader, folder / "made")


def steps_of(dataset: Dataset, split: str, column: str = "values") -> Array:
    """All steps of a split, one after the other."""
    view = dataset.split(split)
    return np.array(view.read(column, 0, view.steps))


def test_the_end_of_one_sequence_is_for_validation_and_test(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(20.0)[:, None])
    dataset = build(tmp_path, files=["a.npy"], valid=0.2, test=0.1)
    parts = {split: steps_of(dataset, split)[:, 0].tolist() for split in dataset.splits}
    numbers = list(range(20))
    assert parts == {"train": numbers[:14], "valid": numbers[14:18], "test": numbers[18:]}


def test_the_last_of_many_sequences_are_for_validation_and_test(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", values=np.arange(40.0).reshape(10, 2, 2), label=np.arange(10) % 3)
    dataset = build(
        tmp_path, files=["a.npz"], values="values", target="label", classes=3, valid=0.2, test=0.3
    )
    assert {name: split.sequences for name, split in dataset.splits.items()} == {
        "train": 5,
        "valid": 2,
        "test": 3,
    }
    assert steps_of(dataset, "test")[::2, 0].tolist() == [28, 32, 36]
    view = dataset.split("test")
    assert [int(view.own("target", s)[0]) for s in view.starts().tolist()] == [1, 2, 0]


def test_files_for_validation_and_test_take_the_place_of_a_part(tmp_path: Path) -> None:
    for name, first in (("a", 0.0), ("b", 100.0), ("c", 200.0)):
        np.save(tmp_path / f"{name}.npy", first + np.arange(10.0)[:, None])
    dataset = build(tmp_path, files=["*.npy"], test_files=["c.npy"], valid=0.2)
    assert steps_of(dataset, "valid")[:, 0].tolist() == [8, 9, 108, 109]
    assert steps_of(dataset, "test")[:, 0].tolist() == [200.0 + k for k in range(10)]
    reader = NumPyArrays(files=[str(tmp_path / "a.npy")], valid=0.5, test=0.5)
    with pytest.raises(JobError, match="leave nothing to train"):
        build_dataset(reader, tmp_path / "none")


def notes_of(folder: Path, array: Array, **settings: Any) -> list[str]:
    np.save(folder / "a.npy", array)
    dataset = build(folder, files=["a.npy"], valid=0, **settings)
    assert dataset.provenance is not None
    return dataset.provenance.notes


@pytest.mark.parametrize(
    ("array", "feature", "within"),
    [
        # Seconds since 1970: float32 knows one in 128 of them.
        (1.7e9 + np.arange(1000.0)[:, None], 0, 64),
        # Ids from 2**24 on: every second one becomes its neighbour.
        (np.arange(2**24 - 5, 2**24 + 5)[:, None], 0, 1),
        (np.array([[0, 2**24 + 1]], np.int64).T, 0, 1),
        (np.array([[0.5, 3.0], [0.25, 16777217.0]]), 1, 1),
        (np.array([[0, 2**63 - 1]], np.int64).T, 0, 1),
    ],
)
def test_what_float32_does_not_keep_is_said_once(
    array: Array, feature: int, within: float, tmp_path: Path
) -> None:
    (note,) = notes_of(tmp_path, array)
    assert f"values of feature {feature}, which go from" in note
    assert "kept as float32" in note
    lost = np.abs(array.astype(np.longdouble) - array.astype(np.float32)).max()
    assert f"to within {float(lost):.3g} only" in note
    assert lost >= within


@pytest.mark.parametrize(
    "array",
    [
        np.random.default_rng(0).standard_normal((100, 3)),  # rounded, as any float32
        np.arange(2**24 - 10, 2**24)[:, None],
        np.full((5, 1), 0.1),
        np.array([[True], [False]]),
        np.array([[1], [-7]], np.int8),
        np.array([[1e-30], [3e38]]),
    ],
)
def test_ordinary_values_are_taken_without_a_word(array: Array, tmp_path: Path) -> None:
    assert notes_of(tmp_path, array) == []


def test_truth_values_are_numbers_and_classes(tmp_path: Path) -> None:
    flags = np.array([True, False, True, True])
    np.savez(tmp_path / "a.npz", values=flags[:, None], seen=flags)
    settings: dict[str, Any] = {"files": ["a.npz"], "target": "seen", "classes": 2, "valid": 0}
    dataset = build(tmp_path, **settings)
    assert steps_of(dataset, "train")[:, 0].tolist() == [1, 0, 1, 1]
    assert steps_of(dataset, "train", "target").tolist() == [1, 0, 1, 1]


def test_a_run_in_float64_says_that_its_values_are_float32(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.random.default_rng(0).random((40, 1)))
    job = {
        "data": {"path": "data", "build": {"reader": "numpy", "files": ["a.npy"]}},
        "model": {
            "input": {"kind": "none"},
            "layers": [{"cell": "elman", "hidden": 2}],
            "loss": "mse",
        },
        "training": {"batch": 2, "window": 4, "steps": 1, "kernel": "numpy"},
    }
    (tmp_path / "job.toml").write_text(tomli_w.dumps(job))
    note = "training.dtype = 'float64' computes in float64, but"
    code, _, errors = call("train", "job.toml", "--out", "a", "--set", "training.dtype=float64")
    assert code == 0, errors
    assert note in errors
    assert "data keeps its values (values) as float32" in errors
    assert note not in call("train", "job.toml", "--out", "b")[2]


def large(at: tuple[int, ...], shape: tuple[int, ...], value: float) -> Array:
    array = np.zeros(shape)
    array[at] = value
    return array


@pytest.mark.parametrize(
    ("array", "settings", "sentence"),
    [
        (
            large((7, 1), (9, 2), 1e39),
            {},
            "column 'values': 1e+39 at index [7, 1] is more than a float32 holds (3.4e+38); divide",
        ),
        (large((2, 3, 1), (3, 4, 2), -1e300), {}, "-1e+300 at index [2, 3, 1] is more than"),
        (large((8, 1), (9, 2), np.inf), {}, "inf at index [8, 1] is not finite"),
        (
            np.arange(12).reshape(3, 4),
            {"vocabulary": 11},
            "11 at index [2, 3] is outside the vocab",
        ),
        (np.arange(6), {"vocabulary": 4}, "4 at index [4] is outside the vocabulary of 4"),
        (np.array([0, -1]), {"vocabulary": 4}, "-1 at index [1] is outside the vocabulary of 4"),
        (np.array([0.5, 1.0]), {"vocabulary": 4}, "takes integers, since 'vocabulary' is given"),
        (np.ones(5), {}, "reshape(-1, 1) makes it one value a step"),
        (np.ones(()), {}, "of shape (), but takes (T, F) or (N, T, F)"),
        (np.ones((2, 2, 2, 2)), {}, "of shape (2, 2, 2, 2), but takes (T, F) or (N, T, F)"),
        (np.ones((2, 2, 2), int), {"vocabulary": 4}, "but takes (T,) or (N, T); reshape it"),
        (np.ones((3, 0)), {}, "which holds nothing"),
        (np.ones((0, 3)), {}, "which holds nothing"),
        (np.ones((3, 1), complex), {}, "is complex128 of shape (3, 1), but takes numbers"),
        (np.array([["2020-01-01"]], "M8[D]"), {}, "is datetime64[D] of shape"),
        (np.array([["a"]]), {}, "is <U1 of shape"),
        (np.zeros((3, 1), [("a", "f4")]), {}, "but takes numbers"),
        (np.array([[{}]]), {}, "holds Python objects; save numbers with numpy.save"),
        (np.ones((3, 1)), {"values": "v"}, "is a .npy file, whose array has no name 'v'"),
    ],
)
def test_what_is_no_sequence_of_numbers(
    array: Array, settings: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises((DataError, JobError)) as error:
        build(tmp_path, files=["a.npy"], valid=0, **settings)
    assert str(error.value).startswith(f"{tmp_path / 'a.npy'}: ")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_files_of_other_columns_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((4, 2)))
    np.save(tmp_path / "b.npy", np.ones((4, 3)))
    with pytest.raises(
        DataError, match=r"b\.npy: its values \(4, 3\) are other columns than those"
    ):
        build(tmp_path, files=["*.npy"], valid=0)


def test_an_archive_with_nothing_in_it(tmp_path: Path) -> None:
    zipfile.ZipFile(tmp_path / "a.npz", "w").close()
    with pytest.raises(DataError, match=r"a\.npz: holds no array; write it again with numpy"):
        build(tmp_path, files=["a.npz"])


def method(path: Path, data: bytes) -> None:
    """A compression method that zipfile does not know, in both headers of the only entry."""
    broken = bytearray(data)
    for mark, offset in ((b"PK\x01\x02", 10), (b"PK\x03\x04", 8)):
        at = broken.find(mark) + offset
        broken[at : at + 2] = (77).to_bytes(2, "little")
    path.write_bytes(broken)


def encrypted(path: Path, data: bytes) -> None:
    broken = bytearray(data)
    for mark, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        broken[broken.find(mark) + offset] |= 1
    path.write_bytes(broken)


def no_array(path: Path, data: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("values.npy", b"no array")


def header(text: str) -> Callable[[Path, bytes], None]:
    """A .npy file whose header says something else."""

    def spoil(path: Path, data: bytes) -> None:
        raw = text.encode("latin1")
        path.write_bytes(b"\x93NUMPY\x01\x00" + len(raw).to_bytes(2, "little") + raw + bytes(48))

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        *(method, encrypted, no_array),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (True, 3), }\n"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 3), }\n"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (10**12, 3), }\n"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 3), }\n"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (2,"),
        header("{'descr': 'nonsense', 'fortran_order': False, 'shape': (2, 3), }\n"),
        header("[" * 5000),
        header(""),
        header("\xff\xfe\x00"),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
def test_damage_is_one_sentence(
    spoil: Callable[[Path, bytes], None], whole: bool, tmp_path: Path
) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, values=np.arange(6.0).reshape(3, 2))
    spoil(path, path.read_bytes())
    read = partial(load_arrays, path, mmap_mode=None)
    with pytest.raises(DataError) as error:
        read() if whole else build(tmp_path, files=["a.npz"], valid=0)
    assert str(error.value).startswith(f"{path}: ")
    assert str(error.value).isprintable()
