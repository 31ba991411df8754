"""Datasets on the disk: what others see in them, how they are written, what damage is called."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from data_tools import sentence_of, sequences, write
from pyarrow import fs

from rnnfarm.data import Column, DatasetWriter, Reader, Streams, Vocabulary, open_dataset
from rnnfarm.data.build import build_dataset
from rnnfarm.data.writer import remove_leftovers
from rnnfarm.errors import DataError, JobError, RunError


def read_back(path, split="train"):
    """The sequences of a split by plain pyarrow and the manifest, with none of rnnfarm's code."""
    manifest = json.loads((path / "dataset.json").read_text())
    rows = []
    for shard in manifest["splits"][split]["shards"]:
        table = pa.ipc.open_file(pa.memory_map(str(path / shard["file"]))).read_all()
        for i, row in enumerate(table.to_pylist()):
            if i in shard.get("continues", []):
                rows[-1] = {name: rows[-1][name] + row[name] for name in row}
            else:
                rows.append(row)
    return rows


@pytest.mark.parametrize(
    "limits", [{}, {"piece": 7}, {"batch_rows": 2}, {"piece": 4, "shard_bytes": 100}]
)
def test_plain_pyarrow_reads_what_was_written(tmp_path, limits):
    rows = sequences([5, 1, 30, 8, 2])
    write(tmp_path / "d", rows, **limits)
    found = read_back(tmp_path / "d")
    assert len(found) == len(rows)
    for got, row in zip(found, rows, strict=True):
        for name in row:
            np.testing.assert_array_equal(np.array(got[name], row[name].dtype), row[name])


def test_shards_have_the_promised_types(tmp_path):
    write(tmp_path / "d", sequences([3]))
    schema = pa.ipc.open_file(str(tmp_path / "d" / "shard-00000.arrow")).schema
    assert schema.field("tokens").type == pa.large_list(pa.uint8())
    assert schema.field("labels").type == pa.large_list(pa.uint16())
    assert schema.field("values").type == pa.large_list(pa.list_(pa.float32(), 2))


def test_width_one_is_a_plain_list(tmp_path):
    with DatasetWriter(tmp_path / "d", {"v": Column.values(1)}) as writer:
        writer.append("train", {"v": np.arange(3.0)[:, None]})
    assert read_back(tmp_path / "d") == [{"v": [0.0, 1.0, 2.0]}]
    figures = open_dataset(tmp_path / "d").split("train").read("v", 1, 3)
    np.testing.assert_array_equal(figures, [[1], [2]])


def test_manifest_counts_and_checksums(tmp_path):
    dataset = write(tmp_path / "d", sequences([5, 1, 30]), shard_bytes=100)
    train = dataset.splits["train"]
    assert (train.sequences, train.steps) == (3, 36)
    assert len(train.shards) > 1
    for shard in train.shards:
        data = (tmp_path / "d" / shard.file).read_bytes()
        assert shard.bytes == len(data)
        assert shard.sha256 == hashlib.sha256(data).hexdigest()
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == [
        "dataset.json",
        *(shard.file for shard in train.shards),
    ]
    assert dataset.verify() == []
    assert json.loads(json.dumps(dataset.info()))["splits"]["train"]["steps"] == 36


def test_reading_makes_no_copy_and_keeps_no_file_open(tmp_path):
    split = write(tmp_path / "d", sequences([1000])).split("train")
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None
    figures = split.read("values", 10, 900)
    assert not figures.flags.owndata
    assert not figures.flags.writeable
    assert np.shares_memory(figures, split.read("values", 10, 20))
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before


def test_read_over_every_border(tmp_path):
    rows = sequences([5, 1, 30, 8, 2])
    split = write(tmp_path / "d", rows, piece=4, batch_rows=3, shard_bytes=150).split("train")
    whole = np.concatenate([row["tokens"] for row in rows])
    for low in range(len(whole)):
        for high in range(low, len(whole) + 1):
            np.testing.assert_array_equal(split.read("tokens", low, high), whole[low:high])
            starts = [s for s in (0, 5, 6, 36, 44) if low <= s < high]
            np.testing.assert_array_equal(split.starts(low, high), starts)
    with pytest.raises(IndexError):
        split.read("tokens", 0, len(whole) + 1)


def test_a_long_sequence_stays_one(tmp_path):
    rows = sequences([100, 3])
    dataset = write(tmp_path / "d", rows, piece=8, shard_bytes=200)
    assert dataset.splits["train"].sequences == 2
    assert dataset.split("train").starts().tolist() == [0, 100]
    assert len(dataset.splits["train"].shards) > 2
    assert dataset.verify() == []


def test_pieces_of_a_reader_stay_one_sequence(tmp_path):
    with DatasetWriter(tmp_path / "d", {"t": Column.tokens(9)}) as writer:
        for i in range(5):
            writer.append("train", {"t": np.full(3, i)}, continues=i > 0)
        writer.append("train", {"t": np.empty(0, np.int64)})
    dataset = open_dataset(tmp_path / "d")
    assert dataset.split("train").starts().tolist() == [0]
    assert dataset.splits["train"].sequences == 1


# Where a dataset lies.


def test_a_file_uri_is_the_local_path(tmp_path):
    rows = sequences([20])
    path = tmp_path / "d"
    write(path.as_uri(), rows)
    assert (path / "dataset.json").exists()
    dataset = open_dataset(path.as_uri())
    np.testing.assert_array_equal(dataset.split("train").read("tokens", 0, 20), rows[0]["tokens"])
    assert not dataset.split("train").read("tokens", 0, 20).flags.owndata


@pytest.mark.parametrize("kind", ["subtree", "mock"])
def test_other_filesystems(tmp_path, kind):
    filesystem = (
        fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
        if kind == "subtree"
        else fs._MockFileSystem()
    )
    columns = {"t": Column.tokens(9), "v": Column.values(3)}
    with DatasetWriter("a/d", columns, filesystem=filesystem, shard_bytes=64) as writer:
        for n in (10, 20):
            writer.append("train", {"t": np.arange(n) % 9, "v": np.ones((n, 3))})
        with pytest.raises(DataError, match="did not end"):
            # The shards are in place, but without a manifest they are no dataset.
            open_dataset("a/d", filesystem=filesystem)
    dataset = open_dataset("a/d", filesystem=filesystem)
    assert dataset.verify() == []
    tokens = dataset.split("train").read("t", 5, 25)
    np.testing.assert_array_equal(tokens, [*(np.arange(5, 10) % 9), *(np.arange(15) % 9)])
    with (
        pytest.raises(JobError, match="never overwritten"),
        DatasetWriter("a/d", columns, filesystem=filesystem),
    ):
        pass
    assert dataset.verify() == []


def test_a_failed_build_elsewhere_leaves_nothing():
    filesystem = fs._MockFileSystem()
    columns = {"t": Column.tokens(9)}
    with (
        pytest.raises(DataError, match="9 in step 9"),
        DatasetWriter("d", columns, filesystem=filesystem) as writer,
    ):
        writer.append("train", {"t": np.arange(10)})
    assert filesystem.get_file_info("d").type == fs.FileType.NotFound


def test_an_unknown_filesystem():
    with pytest.raises(JobError, match=r"nowhere://x: no filesystem of pyarrow"):
        open_dataset("nowhere://x")


# Writing.


def test_an_existing_dataset_is_never_overwritten(tmp_path):
    write(tmp_path / "d", sequences([5]))
    before = {p: p.read_bytes() for p in (tmp_path / "d").iterdir()}
    with pytest.raises(JobError, match="never overwritten"):
        write(tmp_path / "d", sequences([7]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(JobError, match="already exists"):
        write(tmp_path / "empty", sequences([7]))
    assert {p: p.read_bytes() for p in (tmp_path / "d").iterdir()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "empty"]


def test_two_builds_of_one_path_give_one_dataset(tmp_path):
    columns = {"t": Column.tokens(9)}
    slow = DatasetWriter(tmp_path / "d", columns)
    slow.__enter__()
    slow.append("train", {"t": np.zeros(3, int)})
    with DatasetWriter(tmp_path / "d", columns) as fast:
        fast.append("train", {"t": np.ones(3, int)})
    with pytest.raises(JobError, match="never overwritten"):
        slow.__exit__(None, None, None)
    assert open_dataset(tmp_path / "d").split("train").read("t", 0, 3).tolist() == [1, 1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"t": np.arange(3)}, "columns t where the dataset has t, v"),
        ({"t": np.arange(3), "v": np.ones((2, 2))}, "not equally long"),
        ({"t": np.arange(3), "v": np.ones((3, 3))}, r"'v': steps of shape \(3,\)"),
        (
            {"t": np.array([1, 9]), "v": np.ones((2, 2))},
            "9 in step 1 of row 0 of shard-00000.arrow lies outside",
        ),
        ({"t": np.array([-1, 2]), "v": np.ones((2, 2))}, "-1 in step 0 of row 0"),
        ({"t": np.array([0.5]), "v": np.ones((1, 2))}, "tokens are integers"),
        ({"t": np.arange(2), "v": np.array([[1, 2], [1, np.nan]])}, "step 1 of row 0"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_left(tmp_path, row, what):
    columns = {"t": Column.tokens(9), "v": Column.values(2)}
    with (
        pytest.raises(DataError, match=what),
        DatasetWriter(tmp_path / "d", columns) as writer,
    ):
        writer.append("train", row)
    assert list(tmp_path.iterdir()) == []


def test_a_build_without_data_is_refused(tmp_path):
    with (
        pytest.raises(DataError, match="holds no data"),
        DatasetWriter(tmp_path / "d", {"t": Column.tokens(9)}),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(RunError, match="cannot be written"),
        DatasetWriter(tmp_path / "file" / "d", {"t": Column.tokens(9)}),
    ):
        pass


BUILD = """
import itertools, sys
import numpy as np
from rnnfarm.data import Column, DatasetWriter

with DatasetWriter(sys.argv[1], {"t": Column.tokens(256)}, shard_bytes=1 << 16) as writer:
    for n in itertools.count():
        writer.append("train", {"t": np.full(5000, n % 256)})
        print(n, flush=True)
"""


def test_a_killed_build_leaves_no_dataset_and_is_cleaned_up(tmp_path):
    path = tmp_path / "d"
    child = subprocess.Popen(
        [sys.executable, "-c", BUILD, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        while int(child.stdout.readline()) < 100:
            pass
        assert remove_leftovers(path) == []  # a living build is left alone
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith("d.building-")
    assert list(leftover.glob("*.arrow"))
    for wrong in (path, leftover):
        with pytest.raises(DataError):
            open_dataset(wrong)
    other = tmp_path / "d.building-by-hand"
    other.mkdir()
    said = []
    build_dataset(_Tiny(), path, progress=said.append)
    assert any(str(leftover) in line and "killed" in line for line in said)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", other.name]
    assert open_dataset(path).verify() == []


def test_leftovers_are_swept_by_whatever_command_meets_them(tmp_path, call):
    path = tmp_path / "d"
    write(path, sequences([5]))
    for command in (["info"], ["verify"]):
        leftover = tmp_path / "d.building-1"
        leftover.mkdir()
        (leftover / "lock").touch()
        (path / "lock").touch()
        code, _, said = call("data", *command, path)
        assert code == 0
        assert f"removed {leftover}" in said
        assert f"removed {path / 'lock'}" in said
        assert [p.name for p in tmp_path.iterdir()] == ["d"]
        assert sorted(p.name for p in path.iterdir()) == ["dataset.json", "shard-00000.arrow"]


SHORT = """
import sys
import numpy as np
from rnnfarm.data import Column, DatasetWriter

print("ready", flush=True)
with DatasetWriter(sys.argv[1], {"t": Column.tokens(256)}, shard_bytes=1 << 14) as writer:
    for n in range(300):
        writer.append("train", {"t": np.full(1000, n % 256)})
print("done", flush=True)
"""


def test_a_build_killed_at_any_moment_leaves_a_whole_dataset_or_none(tmp_path):
    whole = 0
    for kill in range(10):
        path = tmp_path / f"d{kill}"
        command = [sys.executable, "-c", SHORT, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout.readline() == "ready\n"
            time.sleep(0.003 * kill)
            child.kill()
        if path.exists():
            dataset = open_dataset(path)
            assert dataset.verify() == []
            assert dataset.splits["train"].steps == 300_000
            whole += 1
        else:
            remove_leftovers(path)
            build_dataset(_Tiny(), path)
        assert not [p for p in tmp_path.glob(f"d{kill}.building-*") if (p / "lock").exists()]
    assert whole < 10


class _Tiny(Reader):
    def columns(self):
        return {"t": Column.tokens(256)}

    def vocabularies(self):
        return {"t": Vocabulary("byte")}

    def sequences(self):
        yield "train", {"t": np.arange(10)}


# Damage.


@pytest.fixture
def damaged(tmp_path):
    """A dataset of several shards, and its first and last shard."""
    dataset = write(tmp_path / "d", sequences([40] * 5), shard_bytes=300)
    shards = [tmp_path / "d" / shard.file for shard in dataset.splits["train"].shards]
    assert len(shards) >= 3
    return tmp_path / "d", shards


def read_all(path):
    dataset = open_dataset(path)
    return dataset.split("train").read("tokens", 0, dataset.splits["train"].steps)


def edit(path, change):
    manifest = json.loads((path / "dataset.json").read_text())
    change(manifest)
    (path / "dataset.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda m: m.update(format=2), "format 2 is newer"),
        (lambda m: m.pop("format"), "no field format"),
        (lambda m: m.pop("columns"), "field columns: Field required"),
        (lambda m: m.update(columns={}), "field columns: there is no column"),
        (lambda m: m["columns"]["tokens"].update(kind="token"), "field columns.tokens.kind"),
        (lambda m: m["columns"]["tokens"].update(vocabulary=None), "field columns.tokens: a col"),
        (lambda m: m["splits"]["train"].update(steps=3), "splits.train.steps: 3 is not the sum"),
        (lambda m: m["splits"]["train"]["shards"].pop(), "is not the sum over the shards"),
        (
            lambda m: m["splits"]["train"]["shards"][1].update(file="../x.arrow"),
            "splits.train.shards.1.file",
        ),
        (
            lambda m: m["vocabularies"].update(tokens={"unit": "word", "entries": ["a"]}),
            "1 entries for a column with a vocabulary of 50",
        ),
    ],
)
def test_a_damaged_manifest_is_named_by_its_field(damaged, change, what):
    path, _ = damaged
    edit(path, change)
    with pytest.raises(DataError, match=what) as error:
        open_dataset(path)
    assert "dataset.json" in sentence_of(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": "one"}', "\xff"])
def test_a_manifest_that_is_none(damaged, text):
    path, _ = damaged
    (path / "dataset.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"dataset\.json: not") as error:
        open_dataset(path)
    sentence_of(error.value)


def test_no_dataset(tmp_path, damaged):
    (tmp_path / "other").mkdir()
    (tmp_path / "file").write_text("x")
    (damaged[0] / "dataset.json").unlink()
    for name, what in {
        "nothing": "there is no dataset here",
        "other": "not a dataset",
        "d": "a build that did not end",
    }.items():
        with pytest.raises(DataError, match=what) as error:
            open_dataset(tmp_path / name)
        assert name in sentence_of(error.value)
    with pytest.raises(DataError):
        open_dataset(tmp_path / "file")


def cut_off(shard):
    shard.write_bytes(shard.read_bytes()[:-100])


def empty(shard):
    shard.write_bytes(b"")


def noise(shard):
    shard.write_bytes(os.urandom(shard.stat().st_size))


def other_columns(shard):
    with pa.OSFile(str(shard), "wb") as file:
        batch = pa.record_batch({"tokens": pa.array([[1]], pa.large_list(pa.uint8()))})
        with pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
    edit(shard.parent, lambda m: _set_size(m, shard))


def other_type(shard):
    with pa.OSFile(str(shard), "wb") as file:
        batch = pa.record_batch({n: pa.array([[1]]) for n in ("tokens", "values", "labels")})
        with pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
    edit(shard.parent, lambda m: _set_size(m, shard))


def _set_size(manifest, shard):
    for entry in manifest["splits"]["train"]["shards"]:
        if entry["file"] == shard.name:
            entry["bytes"] = shard.stat().st_size


def wrong_counts(shard):
    def change(manifest):
        entries = manifest["splits"]["train"]["shards"]
        entries[0]["steps"] += 1
        entries[-1]["steps"] -= 1

    edit(shard.parent, change)


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (Path.unlink, "this shard of the dataset is missing"),
        (cut_off, "so it is cut off or another file"),
        (empty, "0 bytes where the manifest says"),
        (noise, "not readable as an Arrow file"),
        (other_columns, "column 'values' is missing"),
        (other_type, "column 'tokens' is list<item: int64> where"),
        (wrong_counts, "where the manifest says"),
    ],
)
def test_a_damaged_shard_is_named_when_it_is_read(damaged, damage, what):
    path, shards = damaged
    damage(shards[0])
    open_dataset(path)  # opening reads the manifest alone
    with pytest.raises(DataError, match=what) as error:
        read_all(path)
    assert str(shards[0]) in sentence_of(error.value)
    assert "again" in str(error.value)


def test_verify_names_every_damaged_shard(damaged):
    path, shards = damaged
    data = bytearray(shards[1].read_bytes())
    data[len(data) // 2] ^= 1
    shards[1].write_bytes(data)
    cut_off(shards[2])
    shards[0].unlink()
    problems = open_dataset(path).verify()
    assert len(problems) == 3
    for shard, problem, what in zip(
        shards, problems, ["is missing", "its checksum", "cut off"], strict=False
    ):
        assert shard.name in problem
        assert what in problem


def test_every_flipped_byte_is_seen(tmp_path):
    write(tmp_path / "d", sequences([3]))
    shard = tmp_path / "d" / "shard-00000.arrow"
    whole = shard.read_bytes()
    dataset = open_dataset(tmp_path / "d")
    for at in range(0, len(whole), 13):
        data = bytearray(whole)
        data[at] ^= 0x10
        shard.write_bytes(data)
        assert len(dataset.verify()) == 1


def test_damage_of_any_kind_is_an_error_and_no_crash(tmp_path):
    write(tmp_path / "d", sequences([20, 30, 50] * 3), batch_rows=2)
    shard = tmp_path / "d" / "shard-00000.arrow"
    whole = np.frombuffer(shard.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    said = []
    for _ in range(400):
        data = whole.copy()
        data[rng.integers(0, len(whole), rng.integers(1, 6))] = rng.integers(0, 256)
        shard.unlink()  # a mapped file must not change
        shard.write_bytes(data.tobytes())
        split = open_dataset(tmp_path / "d", verify=False).split("train")
        try:
            for column in ("tokens", "values", "labels"):
                assert len(split.read(column, 0, split.steps)) == 300
            assert len(split.starts()) == 9
        except DataError as error:
            said.append(sentence_of(error))
    assert all(str(shard) in sentence for sentence in said)
    assert 100 < len(said) < 400


def test_unknown_names(damaged):
    dataset = open_dataset(damaged[0])
    with pytest.raises(JobError, match="did you mean 'train'"):
        dataset.split("trian")
    with pytest.raises(JobError, match="did you mean 'tokens'"):
        Streams(dataset.split("train"), input="token", target="next", batch=1, window=4)


def test_opening_a_thousand_shards_reads_the_manifest_alone(tmp_path):
    entry = {"sequences": 1, "steps": 10, "bytes": 1000, "sha256": "0" * 64}
    shards = [{"file": f"shard-{i:05d}.arrow", **entry} for i in range(1000)]
    manifest = {
        "format": 1,
        "columns": {"t": {"kind": "tokens", "dtype": "uint8", "width": 1, "vocabulary": 256}},
        "splits": {"train": {"shards": shards, "sequences": 1000, "steps": 10_000}},
    }
    (tmp_path / "dataset.json").write_text(json.dumps(manifest))
    open_dataset(tmp_path)
    start = time.perf_counter()
    assert open_dataset(tmp_path).split("train").steps == 10_000
    assert time.perf_counter() - start < 0.2
