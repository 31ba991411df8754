"""Sorting more rows than fit into memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from rnnfarm.data.external_sort import Block, concatenate, len_of, merge_sorted, sort_blocks, take
from rnnfarm.errors import RunError


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    """The folder in which temporary folders are made, watched for what is left there."""
    with mock.patch.object(tempfile, "tempdir", str(tmp_path)):
        yield tmp_path
    assert not list(tmp_path.iterdir())


def rows(count: int, seed: int = 0) -> Block:
    rng = np.random.default_rng(seed)
    return {
        "group": rng.integers(0, 7, count),
        "number": np.arange(count),
        "cells": rng.standard_normal((count, 3)).astype(np.float32),
    }


def cut(block: Block, size: int) -> Iterator[Block]:
    yield from (take(block, slice(i, i + size)) for i in range(0, len_of(block), size))


@pytest.mark.parametrize("memory", [1 << 10, 1 << 14, 1 << 30])
@pytest.mark.parametrize("size", [1, 37, 5000])
def test_the_order_does_not_depend_on_blocks_or_memory(
    temporary: Path, memory: int, size: int
) -> None:
    block = rows(2000)
    with mock.patch("rnnfarm.data.external_sort.FAN_IN", 4):
        found = concatenate(list(sort_blocks(cut(block, size), ["group", "number"], memory)))
    order = np.argsort(block["group"], kind="stable")
    for name, array in block.items():
        np.testing.assert_array_equal(found[name], array[order])
        assert found[name].dtype == array.dtype


def test_nothing_is_sorted_into_nothing(temporary: Path) -> None:
    assert list(sort_blocks([], ["number"], 1 << 10)) == []


def test_the_folder_is_private_and_goes_with_an_error(temporary: Path) -> None:
    def failing() -> Iterator[Block]:
        yield from cut(rows(500), 10)
        (folder,) = temporary.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(list(folder.iterdir())) > 1
        raise ValueError("the reader failed")

    with pytest.raises(ValueError, match="the reader failed"):
        list(sort_blocks(failing(), ["group", "number"], 1 << 10))


def test_the_folder_goes_where_the_rest_is_not_wanted(temporary: Path) -> None:
    found = sort_blocks(cut(rows(500), 10), ["group", "number"], 1 << 10)
    next(found)
    assert list(temporary.iterdir())
    found.close()  # type: ignore[attr-defined]


def test_a_disk_without_room_is_named(temporary: Path) -> None:
    full = OSError(28, "No space left on device")
    with (
        mock.patch("rnnfarm.data.external_sort.pa.OSFile", side_effect=full),
        pytest.raises(RunError, match=r"No space left on device\); free some space, or .* TMPDIR"),
    ):
        list(sort_blocks(cut(rows(500), 10), ["number"], 1 << 10))


def test_merging_holds_a_block_of_each_source() -> None:
    block = rows(1000)
    block["group"] = np.sort(block["group"])
    sources = [cut(take(block, slice(i, None, 3)), 10) for i in range(3)]
    merged = list(merge_sorted(sources, ["group", "number"]))
    assert max(map(len_of, merged)) <= 30
    np.testing.assert_array_equal(concatenate(merged)["number"], np.arange(1000))
