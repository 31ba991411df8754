"""The scripts that are kept for a GPU run to their end without one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rnnfarm_cupy.host import find_compiler

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler"),
]
BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def rows_of(script: str, *options: str) -> list[dict[str, Any]]:
    command = [sys.executable, str(BENCHMARKS / script), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_gpu() -> None:
    rows = rows_of("gpu.py", "--host", "--quick", "--only", "gru")
    assert sum(row.get("pass") == "check" for row in rows) == 6
    assert sum(row.get("pass") == "forward+backward" for row in rows) == 3
    assert not any(row.get("error") for row in rows if row.get("pass") == "check")


def test_gpu_model() -> None:
    rows = rows_of("gpu_model.py", "--cell", "gru")
    assert len(rows) == 5 * 3 * 2  # shapes, precisions, passes
    quick = [row for row in rows if row["persistent"]]
    assert quick
    assert all(row["us"] < row["stepwise_us"] for row in quick)


def test_gpu_curves() -> None:
    (row,) = rows_of("gpu_curves.py", "--host", "--steps", "4")
    assert row["agrees"] is True
    assert row["steps"] == 4
