"""What a column may not hold is named with its shard and row when it is first read."""

from __future__ import annotations

import hashlib
import json
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from data_tools import sentence_of

from rnnfarm.data import Column, Dataset, DatasetWriter, Streams, open_dataset
from rnnfarm.data.scale import Scale
from rnnfarm.errors import DataError
from rnnfarm.training.counts import target_counts

LENGTHS = (5, 3, 6)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Three sequences in record batches of two rows, with a label of their own each."""
    columns = {
        "tokens": Column.tokens(9),
        "values": Column.values(2),
        "label": Column.tokens(4, own=True),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rnnfarm.data.shards.BATCH_ROWS", 2)
        with DatasetWriter(tmp_path / "d", columns) as writer:
            for n in LENGTHS:
                writer.append(
                    "train",
                    {
                        "tokens": np.arange(n),
                        "values": np.ones((n, 2)),
                        "label": np.array([n % 4]),
                    },
                )
    return open_dataset(tmp_path / "d")


def put(dataset: Dataset, column: str, row: int, step: int, value: float) -> Path:
    """Write a value into a row of the shard, and make its checksums anew."""
    info = dataset.splits["train"].shards[0]
    path = Path(dataset.path) / info.file
    with pa.ipc.open_file(path.read_bytes()) as reader:
        table = reader.read_all()
        batches = [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)]
    lists = table.column(column).to_pylist()
    if column == "values":
        lists[row][step][1] = value
    else:
        lists[row][step] = value
    at = table.column_names.index(column)
    changed = pa.chunked_array([pa.array(lists, table.column(column).type)])
    table = table.set_column(at, column, changed)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        low = 0
        for rows in batches:
            writer.write_table(table.slice(low, rows).combine_chunks())
            low += rows
    manifest = json.loads((path.parent / "dataset.json").read_text())
    data = path.read_bytes()
    manifest["splits"]["train"]["shards"][0] |= {
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "crc32": zlib.crc32(data),
    }
    (path.parent / "dataset.json").write_text(json.dumps(manifest))
    return path


@pytest.mark.parametrize(
    ("column", "row", "step", "value", "what"),
    [
        ("tokens", 1, 2, 9, "holds 9, which lies outside the vocabulary of 9"),
        ("tokens", 2, 5, 255, "holds 255, which lies outside"),
        ("values", 0, 4, np.nan, r"holds \[1.0, nan\], which is not a finite number"),
        ("values", 2, 0, -np.inf, r"holds \[1.0, -inf\], which is not a finite number"),
        ("label", 1, 0, 4, "holds 4, which lies outside the vocabulary of 4"),
    ],
)
def test_a_forbidden_value_is_named_with_shard_and_row(
    dataset: Dataset, column: str, row: int, step: int, value: float, what: str
) -> None:
    path = put(dataset, column, row, step, value)
    split = open_dataset(dataset.path).split("train")
    read = split.all_own if column == "label" else partial(split.read, low=0, high=split.steps)
    with pytest.raises(DataError, match=what) as error:
        read(column)
    assert f"{path}, row {row}, step {step}: column '{column}'" in sentence_of(error.value)
    split.confirm_whole()  # the checksum is right
    (problem,) = open_dataset(dataset.path).verify()
    assert problem == str(error.value)


def test_nothing_is_computed_from_a_forbidden_value(dataset: Dataset) -> None:
    put(dataset, "values", 1, 0, np.nan)
    split = open_dataset(dataset.path).split("train")
    with pytest.raises(DataError, match="row 1, step 0"):
        Scale.of(split, "values")
    with pytest.raises(DataError, match="row 1, step 0"):
        Streams(split, input="values", target="next", batch=1, window=4).read(0)
    put(dataset, "tokens", 2, 1, 200)
    split = open_dataset(dataset.path).split("train")
    with pytest.raises(DataError, match="row 2, step 1"):
        target_counts(split, "tokens", ahead=True, goal="steps")


def test_other_record_batches_are_read(dataset: Dataset) -> None:
    put(dataset, "tokens", 2, 1, 200)
    split = open_dataset(dataset.path).split("train")
    assert split.read("tokens", 0, 8).tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert len(split.read("values", 0, 14)) == 14


def test_origins_of_another_type_are_refused(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "d", {"tokens": Column.tokens(9)}, origins=True) as writer:
        writer.append("train", {"tokens": np.arange(3)})
    path = tmp_path / "d" / "shard-00000.arrow"
    with pa.ipc.open_file(path.read_bytes()) as reader:
        table = reader.read_all()
    at = table.column_names.index("origin_row")
    for column in (pa.array(["x"]), pa.array([None], pa.int64())):
        odd = table.set_column(at, "origin_row", column)
        path.unlink()
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, odd.schema) as writer:
            writer.write_table(odd)
        manifest = json.loads((tmp_path / "d" / "dataset.json").read_text())
        manifest["splits"]["train"]["shards"][0]["bytes"] = path.stat().st_size
        (tmp_path / "d" / "dataset.json").write_text(json.dumps(manifest))
        split = open_dataset(tmp_path / "d", verify=False).split("train")
        with pytest.raises(DataError, match="column 'origin_row' is"):
            split.origin(0)
