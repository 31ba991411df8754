"""Shards are verified once a process, in a thread, when they are first read."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_tools import sentence_of, sequences, write
from pyarrow import fs
from training_tools import REGISTRY, make_job, value_job, write_values

from rnnfarm.data import Column, Dataset, DatasetWriter, Split, open_dataset, verifier
from rnnfarm.errors import DataError
from rnnfarm.training.evaluate import evaluate_run
from rnnfarm.training.predict import predict
from rnnfarm.training.result import Result
from rnnfarm.training.session import train


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Five shards of one sequence each."""
    made = write(tmp_path / "d", sequences([40] * 5), shard_bytes=1)
    assert len(made.splits["train"].shards) == 5
    return made


def flip(path: str | Path, split: str = "train", number: int = 0) -> Path:
    """Change a value in a shard of a dataset, to another finite one."""
    info = open_dataset(path).splits[split].shards[number]
    before = sum(shard.steps for shard in open_dataset(path).splits[split].shards[:number])
    read = open_dataset(path, verify=False).split(split).read("values", before, before + 3)
    shard = Path(path) / info.file
    data = bytearray(shard.read_bytes())
    data[data.index(np.array(read).tobytes())] ^= 0x55
    shard.write_bytes(data)
    return shard


def read_all(split: Split) -> None:
    split.read("values", 0, split.steps)


def forget_crc(dataset: Dataset) -> None:
    """Make the manifest one of an earlier rnnfarm."""
    path = Path(dataset.path) / "dataset.json"
    manifest = json.loads(path.read_text())
    for shard in manifest["splits"]["train"]["shards"]:
        del shard["crc32"]
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("earlier", [False, True], ids=["crc32", "sha256"])
def test_a_changed_bit_is_named_once_its_shard_was_read(dataset: Dataset, earlier: bool) -> None:
    if earlier:
        forget_crc(dataset)
    split = open_dataset(dataset.path).split("train")
    read_all(split)
    split.confirm_whole()
    shard = flip(dataset.path, number=3)
    split = open_dataset(dataset.path).split("train")
    split.read("values", 0, 120)  # the other shards alone
    split.confirm_whole()
    read_all(split)
    with pytest.raises(DataError, match="its checksum is not the manifest's") as error:
        split.confirm_whole()
    assert str(shard) in sentence_of(error.value)
    with pytest.raises(DataError, match=shard.name):
        split.check_whole()
    again = open_dataset(dataset.path).split("train")  # it is known by now, and found again
    read_all(again)
    with pytest.raises(DataError, match=shard.name):
        again.confirm_whole()


def test_whoever_does_not_want_it_is_told_nothing(dataset: Dataset) -> None:
    flip(dataset.path, number=0)
    split = open_dataset(dataset.path, verify=False).split("train")
    read_all(split)
    split.confirm_whole()


def test_a_shard_is_verified_once_and_again_when_its_file_is_another(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    whole = verifier.is_whole

    def counting(blocks: Any, info: Any) -> bool:
        seen.append(info)
        return whole(blocks, info)

    monkeypatch.setattr(verifier, "is_whole", counting)
    for _ in range(3):
        split = open_dataset(dataset.path).split("train")
        read_all(split)
        split.confirm_whole()
    assert [info.file for info in seen] == [shard.file for shard in dataset.splits["train"].shards]
    shard = Path(dataset.path) / "shard-00001.arrow"
    good = shard.read_bytes()
    flip(dataset.path, number=1)
    split = open_dataset(dataset.path).split("train")
    read_all(split)
    with pytest.raises(DataError):
        split.confirm_whole()
    shard.write_bytes(good)
    split = open_dataset(dataset.path).split("train")
    read_all(split)
    split.confirm_whole()
    assert len(seen) == 7


def test_what_is_fetched_is_verified_too() -> None:
    filesystem = fs._MockFileSystem()
    with DatasetWriter("d", {"t": Column.tokens(9)}, filesystem=filesystem) as writer:
        writer.append("train", {"t": np.arange(9)})
    split = open_dataset("d", filesystem=filesystem).split("train")
    split.read("t", 0, 9)
    split.confirm_whole()
    with filesystem.open_input_stream("d/shard-00000.arrow") as file:
        data = bytearray(file.read())
    data[data.index(np.arange(9, dtype=np.uint8).tobytes())] = 5
    with filesystem.open_output_stream("d/shard-00000.arrow") as file:
        file.write(bytes(data))
    split = open_dataset("d", filesystem=filesystem).split("train")
    assert split.read("t", 0, 3).tolist() == [5, 1, 2]
    with pytest.raises(DataError, match=r"d/shard-00000\.arrow: its checksum"):
        split.confirm_whole()


def test_a_shard_that_is_cut_off_meanwhile_is_damaged_and_no_crash(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, whole = threading.Event(), verifier.is_whole

    def waiting(blocks: Any, info: Any) -> bool:
        go.wait()
        return whole(blocks, info)

    monkeypatch.setattr(verifier, "is_whole", waiting)
    split = open_dataset(dataset.path).split("train")
    split.starts()
    os.truncate(Path(dataset.path) / "shard-00002.arrow", 100)
    (Path(dataset.path) / "shard-00004.arrow").unlink()  # it stays mapped, and says nothing
    go.set()
    with pytest.raises(DataError, match="shard-00002"):
        split.confirm_whole()


def test_other_splits_are_not_to_blame(dataset: Dataset, tmp_path: Path) -> None:
    flip(dataset.path, number=2)
    damaged = open_dataset(dataset.path).split("train")
    read_all(damaged)
    with pytest.raises(DataError):
        damaged.confirm_whole()
    other = write(tmp_path / "other", sequences([7])).split("train")
    read_all(other)
    other.confirm_whole()


# What is made of damaged data does not count.


@pytest.fixture
def job(tmp_path: Path) -> dict[str, Any]:
    write_values(tmp_path / "data", {"train": [300], "valid": [60]})
    return value_job(tmp_path / "data", steps=8, evaluate_every=4, checkpoint_every=4)


def trained(raw: dict[str, Any], out: Path) -> Result:
    return train(make_job(raw), REGISTRY, out=out)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_run_on_a_damaged_shard_ends_without_a_checkpoint(
    job: dict[str, Any], tmp_path: Path, split: str
) -> None:
    right = trained(job, tmp_path / "right")
    shard = flip(tmp_path / "data", split)
    with pytest.raises(DataError) as error:
        trained(job, tmp_path / "run")
    assert error.value.exit_code == 5
    assert str(shard) in sentence_of(error.value)
    assert not list((tmp_path / "run" / "checkpoints").glob("step-*"))
    assert not (tmp_path / "run" / "run.json").exists()
    job["data"]["verify"] = False
    loose = trained(job, tmp_path / "loose")
    assert (loose.parameters_sha256 == right.parameters_sha256) == (split == "valid")


def test_a_run_is_the_same_with_and_without(job: dict[str, Any], tmp_path: Path) -> None:
    first = trained(job, tmp_path / "a")
    job["data"]["verify"] = False
    assert trained(job, tmp_path / "b").parameters_sha256 == first.parameters_sha256
    job["training"]["steps"] = 10
    train(make_job(job), REGISTRY, out=tmp_path / "a", resume=True)  # it may be changed


def test_nothing_is_measured_or_predicted_on_a_damaged_shard(
    job: dict[str, Any], tmp_path: Path
) -> None:
    trained(job, tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    shard = flip(tmp_path / "data", "valid")
    for make in (
        lambda: evaluate_run(tmp_path / "run", REGISTRY),
        lambda: list(predict(tmp_path / "run", REGISTRY, split="valid")),
    ):
        with pytest.raises(DataError, match=shard.name):
            make()
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
