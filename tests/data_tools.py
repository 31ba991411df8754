"""What the tests of data share: small datasets, and the real data of a development machine."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from rnnfarm.data import Column, Dataset, DatasetWriter, open_dataset

VOCABULARY = 50


def sequences(lengths, seed=0):
    """A sequence of tokens, values (width 2) and labels for every length."""
    rng = np.random.default_rng(seed)
    return [
        {
            "tokens": rng.integers(0, VOCABULARY, n),
            "values": rng.standard_normal((n, 2)).astype(np.float32),
            "labels": rng.integers(0, 300, n),
        }
        for n in lengths
    ]


def write(path, rows, split="train", piece=1 << 20, batch_rows=1000, shard_bytes=1 << 26):
    """Write `rows` with limits as small as a test wants them."""
    columns = {
        "tokens": Column.tokens(VOCABULARY),
        "values": Column.values(2),
        "labels": Column.tokens(300),
    }
    with (
        mock.patch("rnnfarm.data.writer.BATCH_STEPS", piece),
        mock.patch("rnnfarm.data.shards.BATCH_ROWS", batch_rows),
        DatasetWriter(path, columns, shard_bytes=shard_bytes) as writer,
    ):
        for row in rows:
            writer.append(split, row)
    return open_dataset(path)


def real_data(name: str) -> Path:
    """A file of the development machine's data; the test is skipped where there is none."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    path = Path(os.environ.get("RNNFARM_TEST_DATA", beside)) / name
    if not path.exists():
        pytest.skip(f"real data {name} is not on this machine (RNNFARM_TEST_DATA)")
    return path


def sentence_of(error: BaseException) -> str:
    """The message of an error, which must be one line that a user can act on."""
    text = str(error)
    assert "\n" not in text
    assert "Traceback" not in text
    return text


__all__ = ["VOCABULARY", "Dataset", "real_data", "sentence_of", "sequences", "write"]
