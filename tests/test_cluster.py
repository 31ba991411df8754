"""Training with Ray workers: the same bits for any number of them, and what the user sees."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import ray
import tomli_w
from cluster_tools import (
    Disturbed,
    cluster_job,
    nothing_left,
    ray_cluster,
    run_disturbed,
    start_rnnfarm,
)
from ray.cluster_utils import Cluster
from test_loop import gaps_job, write_gaps
from thorough import times
from threadpoolctl import threadpool_info
from training_tools import REGISTRY, make_job, write_values

import rnnfarm
from rnnfarm.cluster.buckets import owners_pay
from rnnfarm.cluster.connect import _explained
from rnnfarm.cluster.group import Group
from rnnfarm.cluster.train import train_with_workers
from rnnfarm.data import Column, DatasetWriter, open_dataset
from rnnfarm.errors import DeviceError, JobError, PluginError, RunError
from rnnfarm.report import Progress
from rnnfarm.training.session import train
from rnnfarm.training.setup import make_model

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is on the workers' path."""
    return tmp_path_factory.mktemp("modules")


@pytest.fixture(scope="module")
def cluster(modules: Path) -> Iterator[Cluster]:
    with ray_cluster(nodes=2, cpus=2, path=modules) as cluster:
        yield cluster


@pytest.mark.parametrize("mode", ["streams", "examples", "values"][: times(usual=1, thorough=3)])
def test_workers_give_the_bits_of_one_process(
    cluster: Cluster, data: Path, tmp_path: Path, mode: str
) -> None:
    raw = cluster_job(data)
    if mode == "examples":
        raw["data"] |= {"mode": "examples", "target": "labels"}
    if mode == "values":
        write_values(tmp_path / "values", {"train": [90, 70] * 4, "valid": [60] * 4})
        raw["data"]["path"] = str(tmp_path / "values")
        bounded = {"cell": "indrnn", "hidden": 8, "reach": 200}
        layers = [bounded, *raw["model"]["layers"]]
        raw["model"] |= {"input": {"kind": "none"}, "loss": "mse", "layers": layers}
        raw["training"]["dtype"] = "float64"
    job = make_job(raw)
    alone = train(job, REGISTRY, out=tmp_path / "alone")
    for workers in (1, 2, 3, 4):
        result = train_with_workers(job, REGISTRY, workers, out=tmp_path / str(workers))
        assert result.workers == workers
        assert result.parameters_sha256 == alone.parameters_sha256, workers
        assert (result.train_loss, result.valid_loss) == (alone.train_loss, alone.valid_loss)
    nothing_left()


SHAPES: dict[str, dict[str, Any]] = {
    "label": {"pool": "attention"},
    "letters": {
        "layers": [{"cell": "gru", "hidden": 5, "bidirectional": True, "dropout": 0.2}],
        "decoder": {
            "size": 4, "layers": [{"cell": "lstm", "hidden": 6}], "attention": "general",
            "sampling": 0.3,
        },
    },
}  # fmt: skip


@pytest.mark.parametrize("target", SHAPES)
def test_targets_of_whole_sequences(
    cluster: Cluster, data: Path, tmp_path: Path, target: str
) -> None:
    columns = {
        "tokens": Column.tokens(7),
        "label": Column.tokens(3, own=True),
        "letters": Column.tokens(6, own=True),
    }
    random = np.random.default_rng(0)
    with DatasetWriter(tmp_path / "data", columns) as writer:
        for number in range(40):
            row = {
                "tokens": random.integers(0, 7, 4 + number % 9),
                "label": random.integers(0, 3, 1),
                "letters": random.integers(3, 6, number % 5),
            }
            writer.append("valid" if number % 5 == 0 else "train", row)
    raw = cluster_job(data, window=16)
    raw["data"] = {"path": str(tmp_path / "data"), "mode": "examples", "target": target}
    raw["model"] |= SHAPES[target]
    job = make_job(raw)
    alone = train(job, REGISTRY, out=tmp_path / "alone")
    for workers in (1, 3):
        result = train_with_workers(job, REGISTRY, workers, out=tmp_path / str(workers))
        assert result.parameters_sha256 == alone.parameters_sha256, workers
        assert (result.train_loss, result.valid_loss) == (alone.train_loss, alone.valid_loss)


def test_large_layers_in_several_buckets(cluster: Cluster, data: Path, tmp_path: Path) -> None:
    """The arrays go through shared memory, and of three workers each owns some of the buckets."""
    layers = [{"cell": "gru", "hidden": 800}, {"cell": "lstm", "hidden": 800, "dropout": 0.1}]
    raw = cluster_job(data, steps=3, optimizer={"name": "sgd", "lr": 0.1})
    raw["model"] |= {"layers": layers, "input": {"kind": "embedding", "size": 800}}
    raw["model"]["output"] = {"tied": True}
    job = make_job(raw)
    model = make_model(job, open_dataset(data), REGISTRY)
    assert owners_pay(model.network.layout.size, 3)
    alone = train(job, REGISTRY, out=tmp_path / "alone")
    for workers in (2, 3):
        result = train_with_workers(job, REGISTRY, workers, out=tmp_path / str(workers))
        assert result.parameters_sha256 == alone.parameters_sha256, workers


def test_a_run_of_workers_is_resumed_by_one_process(
    cluster: Cluster, data: Path, tmp_path: Path
) -> None:
    whole = train(make_job(cluster_job(data)), REGISTRY, out=tmp_path / "whole")
    out = tmp_path / "run"
    train_with_workers(make_job(cluster_job(data, steps=7)), REGISTRY, 3, out=out)
    result = train(make_job(cluster_job(data)), REGISTRY, out=out, resume=True)
    assert result.parameters_sha256 == whole.parameters_sha256


def test_workers_resume_with_other_data(cluster: Cluster, tmp_path: Path) -> None:
    """To the bits of one process: with the scale and the number of updates of the checkpoint."""
    stream = "1" * 8 + "0" * 16 + "1" * 24  # two of them: the steps 2 and 3 are no updates
    paths = [
        write_gaps(tmp_path / "first", 2 * stream, "1" * 24),
        write_gaps(tmp_path / "second", 2 * stream[::-1], "1" * 32),
    ]
    found = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        for path, steps in zip(paths, (3, 9), strict=True):
            raw = gaps_job(path, batch=2, lanes=2, steps=steps, evaluate_every=3)
            raw["data"]["scale"] = "standard"
            raw["cluster"] = {"snapshot_every": 2}
            job = make_job(raw)
            if workers == 1:
                result = train(job, REGISTRY, out=out, resume=True)
            else:
                result = train_with_workers(job, REGISTRY, workers, out=out, resume=True)
        found.append((result.parameters_sha256, result.valid_loss, result.best))
    assert found[0] == found[1]


def test_from_python(cluster: Cluster, data: Path, tmp_path: Path) -> None:
    """With the connection that this process has."""
    raw = cluster_job(data, steps=3)
    alone = rnnfarm.train(raw, out=tmp_path / "alone")
    result = rnnfarm.train(raw, out=tmp_path / "workers", workers=(1, 2))
    assert result.parameters_sha256 == alone.parameters_sha256
    assert ray.is_initialized()


def test_gradient_flow_comes_from_the_worker_of_lane_0(
    cluster: Cluster, data: Path, tmp_path: Path
) -> None:
    job = make_job(cluster_job(data, steps=4, gradient_flow_every=2))
    train(job, REGISTRY, out=tmp_path / "alone")
    train_with_workers(job, REGISTRY, 2, out=tmp_path / "two")

    def flows(run: str) -> list[Any]:
        lines = (tmp_path / run / "metrics.jsonl").read_text().splitlines()
        return [entry for line in lines if "gradient_flow" in (entry := json.loads(line))]

    assert len(flows("alone")) == 2
    assert flows("two") == flows("alone")


def test_an_error_in_a_worker_is_what_the_user_sees(
    cluster: Cluster, data: Path, tmp_path: Path
) -> None:
    job = make_job(
        cluster_job(data, optimizer={"name": "sgd", "lr": 1e38}, clip=None, dtype="float32")
    )
    with pytest.raises(
        RunError, match=r"worker \d \(on .*, process \d+\): step [23]: the (loss|gradient) is no "
    ):
        train_with_workers(job, REGISTRY, 2, out=tmp_path / "run")
    nothing_left()


def test_a_fault_in_a_plugin_part_is_named(
    cluster: Cluster,
    modules: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And what it printed comes to the terminal, each line whole and only once."""
    monkeypatch.syspath_prepend(str(modules))
    (modules / "cluster_broken.py").write_text(
        "from rnnfarm.builtin.losses import MeanSquaredError\n"
        "class Broken(MeanSquaredError):\n"
        "    calls: int = 0\n"
        "    def evaluate(self, output, target, valid, d_output):\n"
        "        print('from', 'the loss')\n"
        "        if d_output is None: raise KeyError('lost')\n"
        "        d_output[...] = 0\n"
        "        return 1.0, int(valid.sum())\n"
    )
    write_values(tmp_path / "values", {"train": [90, 70] * 4, "valid": [60] * 4})
    raw = cluster_job(tmp_path / "values", steps=4, evaluate_every=4)
    raw["model"] |= {"input": {"kind": "none"}, "loss": "cluster_broken:Broken"}
    progress = Progress(quiet=False)
    with pytest.raises(PluginError) as caught:
        train_with_workers(make_job(raw), REGISTRY, 2, out=tmp_path / "run", progress=progress)
    assert "Broken.evaluate (" in str(caught.value)
    assert "cluster_broken.py, line 6): KeyError: 'lost'; its traceback is in" in str(caught.value)
    assert "raise KeyError('lost')" in (tmp_path / "run" / "ray.log").read_text()
    shown = [line for line in capsys.readouterr().err.splitlines() if "from the loss" in line]
    assert shown == ["workers 0, 1: from the loss"] * 4
    nothing_left()


def test_more_workers_than_lanes(data: Path, tmp_path: Path) -> None:
    job = make_job(cluster_job(data))
    with pytest.raises(JobError, match="--workers 5: 5 workers cannot share 4 lanes; set"):
        train_with_workers(job, REGISTRY, 5, out=tmp_path / "run")


def test_no_room(cluster: Cluster, data: Path, tmp_path: Path) -> None:
    raw = cluster_job(data, cluster={"start_timeout": 1.0, "cpus": 2})
    with pytest.raises(
        DeviceError,
        match=r"no room for 3 workers with 2 CPUs each: the cluster has 3 nodes with 4 of 4 CPUs "
        r"free; start with fewer workers",
    ):
        train_with_workers(make_job(raw), REGISTRY, 3, out=tmp_path / "run")
    raw = cluster_job(data, cluster={"start_timeout": 1.0, "resources": {"tpu": 1}, "gpus": 1})
    with pytest.raises(DeviceError, match=r"a worker with 1 CPU, 1 tpu, 1 GPU: the cluster has"):
        train_with_workers(make_job(raw), REGISTRY, 1, out=tmp_path / "run2")
    nothing_left()


def test_workers_that_differ(
    cluster: Cluster, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Group.__init__

    def with_other_facts(self: Group, *arguments: Any) -> None:
        make(self, *arguments)
        self.facts = self.facts | {"plugin other": "1.0"}

    monkeypatch.setattr(Group, "__init__", with_other_facts)
    with pytest.raises(DeviceError, match=r"(?s)workers differ.*plugin other: driver 1\.0, worker"):
        train_with_workers(make_job(cluster_job(data)), REGISTRY, 2, out=tmp_path / "run")
    nothing_left()


def test_parameters_that_drift_apart(
    cluster: Cluster, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a processor or memory computes wrongly: found at the next snapshot."""

    def damage(trainer: Disturbed) -> None:
        def change(worker: Any) -> None:
            worker.trainer.arena[0] += 1.0

        ray.get(trainer.group.members[1].actor.__ray_call__.remote(change))

    with pytest.raises(RunError, match=r"(?s)step 7: the workers' parameters are not the same"):
        run_disturbed(monkeypatch, cluster_job(data), 2, tmp_path / "run", {6: damage})
    nothing_left()


def test_a_worker_reads_only_the_shards_of_its_lanes(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rnnfarm.data import Column, DatasetWriter

    columns = {"tokens": Column.tokens(7)}
    with DatasetWriter(tmp_path / "data", columns, shard_bytes=1000) as writer:
        for _ in range(40):
            writer.append("train", {"tokens": np.arange(300) % 7})
    mapped: list[int] = []

    def look(trainer: Disturbed) -> None:
        def count(worker: Any) -> tuple[int, int]:
            split = worker.trainer.windows.split
            return split._shard.cache_info().currsize, len(split.info.shards)

        actors = [slot.actor for slot in trainer.group.members]
        mapped.extend(ray.get([actor.__ray_call__.remote(count) for actor in actors]))

    run_disturbed(
        monkeypatch, cluster_job(tmp_path / "data", steps=3), 4, tmp_path / "run", {2: look}
    )
    shards = mapped[0][1]
    assert shards == 10
    assert all(count <= 2 for count, _ in mapped), mapped


def test_what_a_worker_is_given(
    cluster: Cluster, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPUs, threads, niceness, no GPU to see, and the place."""
    found: dict[str, list[Any]] = {}

    def look(placement: str) -> Any:
        def ask(worker: Any) -> Any:
            blas = [i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"]
            niceness = os.getpriority(os.PRIO_PROCESS, 0)
            visible = os.environ["CUDA_VISIBLE_DEVICES"]
            threads = worker.trainer.executor._max_workers
            return ray.get_runtime_context().get_node_id(), blas, niceness, visible, threads

        def disturb(trainer: Disturbed) -> None:
            actors = [slot.actor for slot in trainer.group.members]
            found[placement] = ray.get([actor.__ray_call__.remote(ask) for actor in actors])

        return disturb

    for placement, cpus in (("strict_pack", 1), ("strict_spread", 2)):
        job = cluster_job(
            data, steps=2, device="cpu",
            cluster={"placement": placement, "niceness": 3, "cpus": cpus},
        )  # fmt: skip
        out = tmp_path / placement
        run_disturbed(monkeypatch, job, 2, out, {1: look(placement)})
        monkeypatch.undo()
        for _, blas, niceness, visible, threads in found[placement]:
            assert set(blas) == {1}
            assert (niceness, visible, threads) == (3, "", cpus)
    assert len({node for node, *_ in found["strict_pack"]}) == 1
    assert len({node for node, *_ in found["strict_spread"]}) == 2


def test_versions_that_do_not_fit() -> None:
    """Ray's own words, as two versions of it cannot be installed side by side."""
    with (
        pytest.raises(
            DeviceError,
            match=r"--address h:1: .* different versions \(Ray 2.55.0, Python 3.12.1 and Ray "
            r"2.60.0, Python 3.11.7\); install the cluster's versions",
        ),
        _explained("h:1"),
    ):
        raise RuntimeError(
            "Version mismatch: The cluster was started with:\n    Ray: 2.55.0\n"
            "    Python: 3.12.1\nThis process on node 10.0.0.1 was started with:\n"
            "    Ray: 2.60.0\n    Python: 3.11.7\n"
        )


# -- the command line -----------------------------------------------------------------------------


@pytest.fixture
def job_file(data: Path, tmp_path: Path) -> Path:
    path = tmp_path / "job.toml"
    path.write_text(tomli_w.dumps(cluster_job(data)))
    return path


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("ray://127.0.0.1:1", "takes its address as HOST:PORT"),
        ("127.0.0.1:1", "--address 127.0.0.1:1: no Ray cluster answers there"),
        ("HTTP", "answers as a web server does; a cluster's dashboard is for `rnnfarm submit`"),
        ("nonsense", "--address nonsense: no Ray cluster answers there"),
    ],
)
def test_an_address_where_nothing_answers(
    job_file: Path, tmp_path: Path, address: str, sentence: str
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        if address == "HTTP":
            address = f"127.0.0.1:{server.server_port}"
        process = start_rnnfarm("train", job_file, "--address", address, "--out", tmp_path / "run")
        _, errors = process.communicate(timeout=100)
        server.shutdown()
    assert process.returncode == 4, errors
    assert sentence in errors
