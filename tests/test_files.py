"""Reading texts, and temporary folders that are locked."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from rnnfarm.files import LOCK, make_locked_folder, remove_lock, remove_unlocked

MAKER = """
import shutil, sys, time
from pathlib import Path
from rnnfarm.files import make_locked_folder
for _ in range(150):
    folder, lock = make_locked_folder("t-", Path(sys.argv[1]))
    (folder / "mine").touch()
    time.sleep(0)
    assert (folder / "mine").exists() and (folder / "lock").exists(), folder
    shutil.rmtree(folder)
    lock.close()
"""
SWEEPER = """
import sys
from pathlib import Path
from rnnfarm.files import remove_unlocked
place = Path(sys.argv[1])
while not (place / "end").exists():
    for folder in place.glob("t-*"):
        remove_unlocked(folder)
"""


def test_a_living_folder_is_never_removed(tmp_path: Path) -> None:
    """Four processes make folders while two remove whatever is not locked."""
    start = [sys.executable, "-c"]
    sweepers = [subprocess.Popen([*start, SWEEPER, str(tmp_path)]) for _ in range(2)]
    makers = [
        subprocess.Popen([*start, MAKER, str(tmp_path)], stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = [maker.communicate(timeout=120)[1] for maker in makers]
    (tmp_path / "end").touch()
    assert [sweeper.wait(timeout=60) for sweeper in sweepers] == [0, 0]
    assert said == [""] * 4
    assert [maker.returncode for maker in makers] == [0] * 4


def test_what_a_dead_process_left_is_removed(tmp_path: Path) -> None:
    code = MAKER.split("    (folder")[0] + "    break\n"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    (folder,) = tmp_path.iterdir()
    assert remove_unlocked(folder)
    assert not folder.exists()
    living, lock = make_locked_folder("t-", tmp_path)
    assert not remove_unlocked(living)
    (living / LOCK).unlink()
    lock.close()
    assert not remove_unlocked(living)  # without a lock file it is not known whose it is


@pytest.mark.parametrize("prefix", ["a [1]*?", "ä"])
def test_odd_names(tmp_path: Path, prefix: str) -> None:
    folder, lock = make_locked_folder(prefix, tmp_path)
    lock.close()
    assert remove_unlocked(folder)


def test_the_lock_of_a_killed_build_is_removed_from_what_stays(tmp_path: Path) -> None:
    with (tmp_path / LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not remove_lock(tmp_path)  # its process lives
    assert remove_lock(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not remove_lock(tmp_path)
    (tmp_path / LOCK).write_text("mine")
    assert not remove_lock(tmp_path)
