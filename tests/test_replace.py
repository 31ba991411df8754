"""Datasets that are built anew in the place of an old one: at no instant is there none."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rnnfarm import files
from rnnfarm.data import Column, DatasetWriter, open_dataset
from rnnfarm.data.writer import remove_leftovers
from rnnfarm.errors import DataError, JobError

COLUMNS = {"t": Column.tokens(9)}


def write(path: Path, token: int, replace: bool = False, count: int = 1) -> None:
    with DatasetWriter(path, COLUMNS, shard_bytes=64, replace=replace) as writer:
        for _ in range(count):
            writer.append("train", {"t": np.full(100, token)})


def tokens(path: Path) -> set[int]:
    return set(open_dataset(path).split("train").read("t", 0, 100).tolist())


@pytest.mark.parametrize("at_once", [True, False])
def test_a_new_dataset_takes_the_place_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    if not at_once:  # as on a system that cannot exchange two folders

        def cannot(one: Path, other: Path) -> None:
            raise OSError(22, "renameat2")

        monkeypatch.setattr(files, "_exchange_at_once", cannot)
    write(tmp_path / "d", 1)
    write(tmp_path / "d", 2, replace=True)
    assert tokens(tmp_path / "d") == {2}
    assert open_dataset(tmp_path / "d").verify() == []
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    assert not (tmp_path / "d" / "lock").exists()
    write(tmp_path / "e", 3, replace=True)  # there need not be one
    assert tokens(tmp_path / "e") == {3}


def test_a_build_that_fails_leaves_the_old_dataset(tmp_path: Path) -> None:
    write(tmp_path / "d", 1)
    with pytest.raises(DataError):
        write(tmp_path / "d", 77, replace=True)
    assert tokens(tmp_path / "d") == {1}
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_only_a_dataset_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "letters.txt").write_text("dear")
    with pytest.raises(JobError, match="is no dataset, so it is not replaced"):
        write(tmp_path / "d", 1, replace=True)
    assert (tmp_path / "d" / "letters.txt").read_text() == "dear"


def test_who_reads_the_old_dataset_is_told(tmp_path: Path) -> None:
    write(tmp_path / "d", 1, count=9)
    split = open_dataset(tmp_path / "d").split("train")
    assert split.read("t", 0, 10).tolist() == [1] * 10
    write(tmp_path / "d", 2, replace=True, count=9)  # shards of the same size
    with pytest.raises(DataError, match="was replaced or removed while it was read; start again"):
        split.read("t", split.steps - 10, split.steps)


def test_a_dataset_that_was_set_aside_is_named(tmp_path: Path) -> None:
    write(tmp_path / "d", 1)
    (tmp_path / "d").rename(tmp_path / "d.replaced-x1")
    with pytest.raises(DataError, match=r"left it as .*d\.replaced-x1: rename that"):
        open_dataset(tmp_path / "d")


AGAIN = """
import itertools, sys
import numpy as np
from rnnfarm.data import Column, DatasetWriter

for n in itertools.count():
    with DatasetWriter(sys.argv[1], {"t": Column.tokens(9)}, replace=True) as writer:
        writer.append("train", {"t": np.full(100, n % 9)})
    print(n, flush=True)
"""


def test_a_kill_at_any_moment_leaves_a_whole_dataset(tmp_path: Path) -> None:
    path = tmp_path / "d"
    for kill in range(6):
        command = [sys.executable, "-c", AGAIN, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            while int(child.stdout.readline()) < 3:
                pass
            time.sleep(0.002 * kill)
            child.kill()
        assert open_dataset(path).verify() == []
        assert len(tokens(path)) == 1
        remove_leftovers(path)
        left = [file for folder in tmp_path.glob("d.*") for file in folder.iterdir()]
        assert left == []  # at most an empty folder
