"""Ray workers whose arrays lie on a device: here each has the CPU's stand-in for a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_tools import cluster_job, nothing_left, ray_cluster
from ray.cluster_utils import Cluster
from rnnfarm_cupy import kernel
from rnnfarm_cupy.host import find_compiler
from training_tools import REGISTRY, make_job, write_tokens

from rnnfarm.cluster.train import train_with_workers
from rnnfarm.errors import DeviceError
from rnnfarm.training.session import train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    patch = pytest.MonkeyPatch()
    patch.setenv(kernel.VARIABLE, "host")
    kernel.the_runtime.cache_clear()
    with ray_cluster(nodes=1, cpus=3, path=tmp_path_factory.mktemp("modules")) as cluster:
        yield cluster
    patch.undo()
    kernel.the_runtime.cache_clear()


def test_workers_give_the_bits_of_one_process(cluster: Cluster, tmp_path: Path) -> None:
    """Gradients are brought to the host and added there, as where there is no NCCL."""
    assert os.environ[kernel.VARIABLE] == "host"
    write_tokens(tmp_path / "data", {"train": [90, 70] * 4, "valid": [60] * 4})
    raw = cluster_job(tmp_path / "data")
    raw["training"] |= {"device": "cuda", "steps": 6, "checkpoint_every": 3}
    raw["cluster"] = {**raw.get("cluster", {}), "gpus": 0, "exchange": "object_store"}
    job = make_job(raw)
    alone = train(job, REGISTRY, out=tmp_path / "alone")
    assert alone.kernel == "cuda"
    for workers in (2, 3):
        result = train_with_workers(job, REGISTRY, workers, out=tmp_path / str(workers))
        assert result.parameters_sha256 == alone.parameters_sha256, workers
        assert (result.train_loss, result.valid_loss) == (alone.train_loss, alone.valid_loss)
        assert result.kernel == "cuda"
    nothing_left()


def test_a_cluster_without_gpus(cluster: Cluster, tmp_path: Path) -> None:
    write_tokens(tmp_path / "data", {"train": [90, 70] * 4, "valid": [60] * 4})
    raw = cluster_job(tmp_path / "data")
    raw["training"]["device"] = "cuda"
    raw["cluster"] = {**raw.get("cluster", {}), "start_timeout": 2.0}
    with pytest.raises(DeviceError, match="GPU"):
        train_with_workers(make_job(raw), REGISTRY, 2, out=tmp_path / "run")
