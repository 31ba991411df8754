"""Checkpoints: written whole or not at all, read only where they are whole, pruned with care."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_tools import sentence_of
from training_tools import REGISTRY, make_job, token_job, write_tokens

from rnnfarm.errors import DataError, JobError, RunError
from rnnfarm.strict_json import to_json
from rnnfarm.training.checkpoint import (
    best_checkpoint,
    checkpoints,
    newest_checkpoint,
    prune,
    read_checkpoint,
    sweep,
    write_checkpoint,
)
from rnnfarm.training.run import choose_checkpoint, restore_arrays
from rnnfarm.training.session import train

ARRAYS = {
    "parameters.layer1.W.x": np.arange(12, dtype=np.float32).reshape(3, 4),
    "optimizer.mean": np.linspace(0, 1, 7),
    "states.layer1.h": np.ones((2, 3), np.float32),
}


def write(folder: Path, step: int, value: Any = None, mode: str = "min", **facts: Any) -> Path:
    """A checkpoint that was measured at ``value``."""
    monitored = {"metric": "valid_loss", "mode": mode, "value": value}
    return write_checkpoint(folder, step, ARRAYS, {"monitored": monitored, **facts})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def flip(path: Path, place: int, bit: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= bit
    path.write_bytes(content)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    path = write(tmp_path / "c", 12, 1.5, note=[1, {"a": None}], keys={2: "b", 10: "c"})
    assert path == tmp_path / "c" / "step-00000012"
    assert names(path) == ["checkpoint.json", "state.safetensors"]
    found = read_checkpoint(path)
    assert found.step == 12
    assert found.facts["note"] == [1, {"a": None}]
    assert found.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found.arrays[name].dtype == array.dtype
        assert np.array_equal(found.arrays[name], array)
    assert list(found.group("states")) == ["layer1.h"]
    assert list(found.group("parameters")) == ["layer1.W.x"]
    assert names(tmp_path / "c") == ["step-00000012"]


def test_arrays_of_a_checkpoint_can_be_written_to(tmp_path: Path) -> None:
    """A resumed run changes its states in place."""
    array = read_checkpoint(write(tmp_path, 1)).arrays["optimizer.mean"]
    target = {"mean": np.zeros(7)}
    restore_arrays(read_checkpoint(tmp_path / "step-00000001"), "optimizer", target)
    target["mean"] += 1
    assert np.array_equal(target["mean"], array + 1)


def test_the_newest_whole_one_is_found(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "absent") is None
    for step in (9, 100_000_000, 20):
        write(tmp_path, step)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 100_000_000
    assert [path.name for path in checkpoints(tmp_path)] == [
        "step-00000009", "step-00000020", "step-100000000",
    ]  # fmt: skip


def test_writing_a_step_again_keeps_the_whole_one_and_moves_a_damaged_one(tmp_path: Path) -> None:
    path = write(tmp_path, 5)
    before = (path / "state.safetensors").stat().st_mtime_ns
    write(tmp_path, 5)
    assert (path / "state.safetensors").stat().st_mtime_ns == before
    flip(path / "state.safetensors", -1)
    damaged = (path / "state.safetensors").read_bytes()
    write(tmp_path, 5)
    assert read_checkpoint(path).step == 5
    assert names(tmp_path) == ["step-00000005", "step-00000005.damaged-1"]
    kept = tmp_path / "step-00000005.damaged-1" / "state.safetensors"
    assert kept.read_bytes() == damaged
    flip(path / "checkpoint.json", 5)
    write(tmp_path, 5)
    assert "step-00000005.damaged-2" in names(tmp_path)


# -- damage ----------------------------------------------------------------------------------------


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def rewrite(path: Path, **facts: Any) -> None:
    file = path / "checkpoint.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


DAMAGES: dict[str, tuple[Any, str]] = {
    "cut off": (lambda p: cut(p / "state.safetensors", 100), "has 100 bytes instead of"),
    "empty": (lambda p: cut(p / "state.safetensors", 0), "has 0 bytes instead of"),
    "bit flip": (lambda p: flip(p / "state.safetensors", -3), "checksum of state.safetensors"),
    "bit flip in the header": (lambda p: flip(p / "state.safetensors", 0), "checksum of state"),
    "no state": (lambda p: (p / "state.safetensors").unlink(), "state.safetensors is missing"),
    "no facts": (lambda p: (p / "checkpoint.json").unlink(), "checkpoint.json is missing"),
    "facts cut off": (lambda p: cut(p / "checkpoint.json", 50), "is not readable as JSON"),
    "facts changed": (lambda p: rewrite(p, step=8), "the checksum of checkpoint.json is wrong"),
    "no object": (lambda p: (p / "checkpoint.json").write_text("[1]"), "is no JSON object"),
    "no text": (lambda p: (p / "checkpoint.json").write_bytes(b"\xff\xfe"), "is no UTF-8 text"),
    "future": (lambda p: rewrite(p, format=2), "its format is 2, and this version"),
    "empty folder": (lambda p: [f.unlink() for f in p.iterdir()], "checkpoint.json is missing"),
    "folder for a file": (
        lambda p: ((p / "state.safetensors").unlink(), (p / "state.safetensors").mkdir()),
        "state.safetensors is a folder",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_named_skipped_and_never_deleted(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)
    path = write(tmp_path, 3)
    hurt, sentence = DAMAGES[damage]
    hurt(path)
    with caplog.at_level(logging.WARNING, "rnnfarm"):
        found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 2
    (record,) = caplog.records
    assert str(path) in record.getMessage()
    assert sentence in record.getMessage()
    with pytest.raises(DataError) as error:
        read_checkpoint(path)
    assert sentence in sentence_of(error.value)
    assert str(path) in sentence_of(error.value)
    assert error.value.exit_code == 5
    for step in range(4, 9):
        write(tmp_path, step)
        prune(tmp_path, 1)
    prune(tmp_path, 1)
    left = [path.name for path in checkpoints(tmp_path)]
    assert left == ["step-00000003", "step-00000008"]


def test_every_flipped_byte_is_seen(tmp_path: Path) -> None:
    path = write(tmp_path, 3, 1.25)
    for file in (path / "state.safetensors", path / "checkpoint.json"):
        content = file.read_bytes()
        for place in range(len(content)):
            flip(file, place, 1 << (place % 7))
            if file.suffix == ".json" and _same_json(file.read_bytes(), content):
                continue  # only its spaces differ
            with pytest.raises(DataError):
                read_checkpoint(path)
            file.write_bytes(content)
    assert read_checkpoint(path).step == 3


def _same_json(one: bytes, other: bytes) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


# -- pruning ---------------------------------------------------------------------------------------


def test_pruning_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    for step, loss in enumerate([3.0, 1.0, 2.0, 2.5, 2.6, 2.7], 1):
        write(tmp_path, step, loss)
        prune(tmp_path, 2)
    assert names(tmp_path) == ["step-00000002", "step-00000005", "step-00000006"]
    assert best_checkpoint(tmp_path) == tmp_path / "step-00000002"


@pytest.mark.parametrize("loss", [None, float("nan"), float("inf")])
def test_pruning_without_a_best(tmp_path: Path, loss: Any) -> None:
    for step in range(1, 6):
        write(tmp_path, step, loss)
        prune(tmp_path, 2)
    assert names(tmp_path) == ["step-00000004", "step-00000005"]
    assert best_checkpoint(tmp_path) is None


def test_a_loss_that_is_no_number_is_not_the_best(tmp_path: Path) -> None:
    for step, loss in enumerate([float("nan"), 2.0, 1.5, None], 1):
        write(tmp_path, step, loss)
    assert best_checkpoint(tmp_path) == tmp_path / "step-00000003"


def test_the_best_where_a_metric_should_rise(tmp_path: Path) -> None:
    for step, accuracy in enumerate([0.5, 0.9, 0.7, 0.9, 0.8], 1):
        write(tmp_path, step, accuracy, "max")
        prune(tmp_path, 1)
    assert names(tmp_path) == ["step-00000002", "step-00000005"]
    assert best_checkpoint(tmp_path) == tmp_path / "step-00000002"


def test_one_that_was_not_measured_is_not_the_best(tmp_path: Path) -> None:
    write(tmp_path, 1, 2.0)
    write_checkpoint(tmp_path, 2, ARRAYS, {"monitored": None, "valid_loss": 1.0})
    assert best_checkpoint(tmp_path) == tmp_path / "step-00000001"


def test_what_a_run_measured_only_because_it_ended_counts_until_it_goes_on(tmp_path: Path) -> None:
    write(tmp_path, 1, 2.0)
    write(tmp_path, 2, 1.0, only_at_end=True)
    assert best_checkpoint(tmp_path) == tmp_path / "step-00000002"
    assert best_checkpoint(tmp_path, lasting=True) == tmp_path / "step-00000001"
    write(tmp_path, 3, 3.0)
    assert best_checkpoint(tmp_path) == tmp_path / "step-00000001"


def test_pruning_leaves_what_a_run_in_one_piece_would(tmp_path: Path) -> None:
    """A checkpoint that only the end of a piece has written goes with the next one."""
    for step, passing in ((10, False), (20, False), (25, True), (27, True), (30, False)):
        write(tmp_path, step, 30 - step, passing=passing, only_at_end=passing)
        prune(tmp_path, 2)
        if step == 27:
            assert names(tmp_path) == ["step-00000020", "step-00000027"]
    assert names(tmp_path) == ["step-00000020", "step-00000030"]


def test_leftovers_are_swept_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    write(folder, 1)
    (folder / ".step-00000002.77.tmp").mkdir()
    (folder / ".step-00000002.77.tmp" / "state.safetensors").write_bytes(b"half")
    (folder / ".step-00000001.removed-1").mkdir()
    (folder / "step-00000003.damaged-1").mkdir()
    (folder / "mine.txt").write_text("a user's own")
    (tmp_path / ".job.toml.77.tmp").write_text("half")
    (tmp_path / "notes.tmp").write_text("a user's own")
    sweep(tmp_path)
    assert names(folder) == ["mine.txt", "step-00000001", "step-00000003.damaged-1"]
    assert names(tmp_path) == ["checkpoints", "notes.tmp"]


# -- full disks and kills --------------------------------------------------------------------------


def test_no_room_is_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk."""
    write(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    big = {"parameters.w": np.zeros(100_000)}
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(RunError) as error:
            write_checkpoint(tmp_path, 2, big, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert "step-00000002 could not be written" in sentence_of(error.value)
    assert "--resume" in sentence_of(error.value)
    assert names(tmp_path) == ["step-00000001"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="could not be written"):
        write(tmp_path / "file", 1)


WRITER = """
import sys
from pathlib import Path
import numpy as np
from rnnfarm.training.checkpoint import checkpoints, prune, write_checkpoint
folder = Path(sys.argv[1])
step = max((int(p.name[5:]) for p in checkpoints(folder)), default=0)
print("ready", flush=True)
while True:
    step += 1
    arrays = {f"parameters.{k}": np.full(60_000, step, np.float32) for k in range(4)}
    monitored = {"metric": "valid_loss", "mode": "min", "value": 1.0 + step % 5}
    write_checkpoint(folder, step, arrays, {"monitored": monitored})
    prune(folder, 2)
    print(step, flush=True)
"""


def test_a_kill_at_any_instant_leaves_whole_checkpoints(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    moments = random.Random(4)
    newest = kills = 0
    while kills < 12 or newest <= 12:  # on a slow machine more kills, until they met enough
        kills += 1
        assert kills <= 200
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        for _ in range(moments.randint(0, 4)):
            process.stdout.readline()
        time.sleep(moments.uniform(0.0, 0.08))
        process.kill()
        process.wait()
        process.stdout.close()
        for path in checkpoints(folder):
            found = read_checkpoint(path)
            for array in found.arrays.values():
                assert (array == found.step).all()
        found_newest = newest_checkpoint(folder)
        if found_newest is not None:
            assert found_newest.step >= newest
            newest = found_newest.step
    sweep(tmp_path)
    assert all(name.startswith("step-") for name in names(folder))


# -- a run's checkpoints ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    write_tokens(folder / "data", {"train": [200], "valid": [60]})
    job = token_job(folder / "data", steps=8, checkpoint_every=2, evaluate_every=2, keep=9)
    train(make_job(job), REGISTRY, out=folder / "run")
    return folder / "run"


def test_checkpoints_are_chosen_by_name_step_newest_and_best(run: Path) -> None:
    assert choose_checkpoint(run, "newest").step == 8
    assert choose_checkpoint(run, "step-00000004").step == 4
    assert choose_checkpoint(run, "4").step == 4
    losses = {c.step: c.facts["valid_loss"] for c in map(read_checkpoint, checkpoints(
        run / "checkpoints"))}  # fmt: skip
    assert losses[choose_checkpoint(run, "best").step] == min(losses.values())
    for wrong in ("5", "step-4", "²", "../step-00000004"):
        with pytest.raises(JobError, match="there are: step-00000002, step-00000004"):
            choose_checkpoint(run, wrong)
    with pytest.raises(DataError, match="there is no whole checkpoint"):
        choose_checkpoint(run / "absent", "newest")


def test_facts_of_a_checkpoint(run: Path) -> None:
    facts = choose_checkpoint(run, "6").facts
    assert facts["format"] == 1
    assert facts["cursor"] == {"window": 6, "epoch": 0, "index": 6}
    assert facts["seed"] == 0
    assert facts["kernels"].keys() == {"layer1", "loss", "optimizer"}
    assert facts["equations"].keys() == {"layer1", "loss", "optimizer"}
    assert facts["plugins"].keys() >= {"rnnfarm"}
    assert facts["job"]["training"]["steps"] == 8
    assert len(facts["parameters_sha256"]) == 64


def test_parameters_of_another_model_are_refused(run: Path) -> None:
    checkpoint = choose_checkpoint(run, "newest")
    saved = checkpoint.group("parameters")
    with pytest.raises(DataError, match="its parameters are of another model") as error:
        restore_arrays(checkpoint, "parameters", {**saved, "layer2.W": np.zeros(1)})
    assert "layer2.W" in sentence_of(error.value)
    name = next(iter(saved))
    for other in (np.zeros((2, 9), np.float32), saved[name].astype(np.float64)):
        with pytest.raises(DataError, match=f"parameters.{name} is float32"):
            restore_arrays(checkpoint, "parameters", {**saved, name: other})


# -- a right checksum does not make fields right ---------------------------------------------------


def with_facts(path: Path, **facts: Any) -> None:
    """Change fields of a checkpoint.json, and make its checksum anew; `...` takes one out."""
    whole = json.loads((path / "checkpoint.json").read_text()) | facts
    whole = {key: value for key, value in whole.items() if value is not ...}
    del whole["sha256"]
    whole["sha256"] = hashlib.sha256(to_json(whole, sort_keys=True).encode()).hexdigest()
    (path / "checkpoint.json").write_text(json.dumps(whole))


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"step": "1"}, "field step"),
        ({"step": -1}, "field step"),
        ({"step": True}, "field step"),
        ({"files": []}, "field files"),
        ({"files": {}}, "state.safetensors is missing"),
        ({"files": {"state.safetensors": {"bytes": "9", "sha256": ""}}}, "safetensors.bytes"),
        ({"data": ["train"]}, "field data"),
        ({"monitored": {"metric": "valid_loss"}}, "field monitored.mode"),
        ({"monitored": 3}, "field monitored"),
        ({"scales": {"x": {"mean": [1.0], "deviation": [0.0]}}}, "field scales.x.deviation.0"),
        ({"scales": {"x": {"mean": [1.0], "deviation": []}}}, "not equally long"),
        ({"callbacks": {"state": 1}}, "field callbacks"),
        ({"kernels": None}, "field kernels"),
        ({"best": {"step": 1}}, "field best.monitor"),
        ({"evaluation": {"step": 1}}, "field evaluation.valid_loss"),
        ({"seconds": -1}, "field seconds"),
        ({"passing": "no"}, "field passing"),
    ],
)
def test_fields_are_checked_by_type(tmp_path: Path, fields: dict[str, Any], what: str) -> None:
    write(tmp_path, 1, 0.5)
    path = write(tmp_path, 2, 0.25)
    with_facts(path, note=1)
    assert read_checkpoint(path).step == 2
    with_facts(path, **fields)
    with pytest.raises(DataError, match=what) as error:
        read_checkpoint(path)
    assert f"the checkpoint {path} is damaged: checkpoint.json" in sentence_of(error.value)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1


def test_a_checkpoint_of_no_run_is_named(tmp_path: Path) -> None:
    """A run is not resumed from a checkpoint that lacks what it needs."""
    write_tokens(tmp_path / "d", {"train": [60]})
    raw = token_job(tmp_path / "d", steps=2)
    train(make_job(raw), REGISTRY, out=tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "step-00000002"
    raw["training"]["steps"] = 3
    kept = (path / "checkpoint.json").read_text()
    for field in ("schedule", "callbacks", "data", "kernels", "train_loss", "plugins"):
        (path / "checkpoint.json").write_text(kept)
        with_facts(path, **{field: ...})
        with pytest.raises(DataError, match=f"has no field '{field}'"):
            train(make_job(raw), REGISTRY, out=tmp_path / "run", resume=True)
    (path / "checkpoint.json").write_text(kept)
    with_facts(path, best={"step": 1, "monitor": "a", "mode": "min", "value": 1.0, "more": 1})
    with pytest.raises(DataError, match="its evaluations are not those of this run"):
        train(make_job(raw), REGISTRY, out=tmp_path / "run", resume=True)
    (path / "checkpoint.json").write_text(kept)
    with_facts(path, callbacks=[{"state": None, "stop": None}])
    with pytest.raises(DataError, match="has the states of 1 callbacks"):
        train(make_job(raw), REGISTRY, out=tmp_path / "run", resume=True)
    (path / "checkpoint.json").write_text(kept)
    with_facts(path, seconds=...)
    assert train(make_job(raw), REGISTRY, out=tmp_path / "run", resume=True).steps == 3


def test_a_state_is_not_read_before_its_size_is_known(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    with (path / "state.safetensors").open("rb+") as file:
        file.truncate(1 << 42)  # takes no room on the disk
    with pytest.raises(DataError, match=r"has 4398046511104 bytes instead of"):
        read_checkpoint(path)


def test_what_is_no_checkpoint_among_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "checkpoints"
    write(folder, 1, 0.5)
    (folder / "step-00000002").write_text("a file")
    (folder / "step-00000003").mkdir()
    (folder / "step-00000004" / "checkpoint.json").mkdir(parents=True)
    (folder / "step-00000005").mkdir()
    os.mkfifo(folder / "step-00000005" / "checkpoint.json")
    (folder / "step-00000006").symlink_to(tmp_path / "nowhere")
    (folder / ".step-mine").write_text("a file")
    (folder / "step-٣").mkdir()
    (tmp_path / ".mine.tmp").mkdir()
    (tmp_path / ".note.tmp").write_text("mine")
    (tmp_path / ".job.toml.17.tmp").write_text("half")
    with caplog.at_level(logging.WARNING):
        found = newest_checkpoint(folder)
    assert found is not None
    assert found.step == 1
    assert caplog.text.count("is damaged and was skipped") == 5
    before = {*names(folder), *names(tmp_path)}
    sweep(tmp_path)
    assert before - {*names(folder), *names(tmp_path)} == {".job.toml.17.tmp"}
    assert best_checkpoint(folder) == folder / "step-00000001"
    prune(folder, 1)


@pytest.mark.parametrize("file", ["state.safetensors", "checkpoint.json"])
def test_best_says_that_it_takes_another(
    tmp_path: Path, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    for step, value in ((1, 0.5), (2, 0.25), (3, 0.75)):
        write(tmp_path / "checkpoints", step, value)
    assert choose_checkpoint(tmp_path, "best").step == 2
    assert not caplog.records
    damaged = tmp_path / "checkpoints" / "step-00000002"
    flip(damaged / file, -3)
    assert choose_checkpoint(tmp_path, "best").step == 1
    assert f"the checkpoint {damaged}" in caplog.text
    assert "is taken" in caplog.text


def test_a_run_whose_job_is_lost_is_not_trained_into(tmp_path: Path) -> None:
    write_tokens(tmp_path / "d", {"train": [60]})
    job, run = make_job(token_job(tmp_path / "d", steps=2)), tmp_path / "run"
    train(job, REGISTRY, out=run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    (run / "job.toml").unlink()
    for resume in (False, True):
        with pytest.raises(JobError, match=r"whose job\.toml is lost; bring that back"):
            train(job, REGISTRY, out=run, resume=resume)
    (run / "job.toml").symlink_to("nowhere")
    with pytest.raises(JobError, match="this is not a run"):
        train(job, REGISTRY, out=run, resume=True)
    (run / "job.toml").unlink()
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == {
        path: content for path, content in before.items() if path.name != "job.toml"
    }
