"""What workers exchange: buckets, owners, and the parts of a run that need no Ray to be tried."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from training_tools import REGISTRY, make_job, token_job, write_tokens

from rnnfarm.cluster import buckets as module
from rnnfarm.cluster.buckets import make_buckets
from rnnfarm.cluster.choose import make_exchange
from rnnfarm.cluster.exchange import Abandoned, Membership
from rnnfarm.cluster.lines import MOST, Lines
from rnnfarm.cluster.object_store import ObjectStore, add_parts, owners
from rnnfarm.cluster.worker import _moved
from rnnfarm.errors import JobError, PluginError
from rnnfarm.nn.network import Network
from rnnfarm.training.setup import Model, make_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    dataset = write_tokens(tmp_path_factory.mktemp("exchange") / "data", {"train": [60]})
    layers = [{"cell": "lstm", "hidden": 40}, {"cell": "gru", "hidden": 40, "bidirectional": True}]
    raw = token_job(Path(dataset.path), model={"layers": layers}, data={"mode": "examples"})
    raw["data"]["target"] = "labels"
    raw["training"]["window"] = 60
    return make_model(make_job(raw), dataset, REGISTRY)


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize(("least", "piece"), [(1, 1), (500, 100), (1 << 20, 1 << 17)])
def test_buckets_hold_every_parameter_once(
    model: Model, monkeypatch: pytest.MonkeyPatch, workers: int, least: int, piece: int
) -> None:
    monkeypatch.setattr(module, "LEAST", least)
    monkeypatch.setattr(module, "PIECE", piece)
    monkeypatch.setattr(module, "MESSAGE", piece)
    network: Network = model.network
    found = make_buckets(network, workers)
    seen = np.zeros(network.layout.size, int)
    for bucket in found:
        for view in bucket.of(seen):
            view += 1
    assert (seen == 1).all()
    # Each is ready when its layer is, the highest layers first.
    order = [layer.name for layer in reversed(network.layers)]
    assert [bucket.after for bucket in found] == sorted(
        (bucket.after for bucket in found), key=order.index
    )
    for bucket in found:
        lowest = max(_layer_of(network, start, order) for start, _ in bucket.spans)
        assert order[lowest] == bucket.after
    if module.owners_pay(network.layout.size, workers):
        assert len(found) >= workers
    else:
        assert len(found) <= len(order)


def _layer_of(network: Network, start: int, order: list[str]) -> int:
    for name, first in network.layout.starts.items():
        size = int(np.prod(network.layout.parameters[name].shape))
        if first <= start < first + size:
            (layer,) = [layer for layer in network.layers if name in layer.parameters]
            return order.index(layer.name)
    raise AssertionError(start)


def test_owners_share_the_work() -> None:
    assert owners([5, 5, 5], 2) == [None, None, None]
    sizes = [k * module.MESSAGE for k in (8, 1, 1, 1, 7, 6, 5, 3)]
    found = owners(sizes, 4)
    loads = [sum(s for s, o in zip(sizes, found, strict=True) if o == w) for w in range(4)]
    assert sum(loads) == sum(sizes)
    assert max(loads) - min(loads) <= module.MESSAGE
    assert owners([1, 2, 3], 4) == [None, None, None]  # not worth a second round


def test_sums_are_made_in_place_where_that_can_be() -> None:
    own, received = np.ones(3, np.float32), np.full(3, 2, np.float32)
    received.flags.writeable = False
    for left, right in (([own.copy()], [received]), ([received], [own.copy()])):
        (total,) = add_parts(left, right)
        assert total.tolist() == [3, 3, 3]
        assert total is (left[0] if left[0].flags.writeable else right[0])
    (total,) = add_parts([received], [received])
    assert total.tolist() == [4, 4, 4]
    assert received.tolist() == [2, 2, 2]


def place(generation: int, workers: int = 1) -> Membership:
    lanes = tuple(range(k, k + 1) for k in range(workers))
    return Membership(generation, 0, workers, lanes, (None,) * workers, (3,))


def test_a_worker_alone_receives_what_it_sends() -> None:
    exchange = ObjectStore()
    exchange.connect(place(1))
    exchange.send(7, 0, {(0, 1): [np.arange(3.0)]})
    assert exchange.receive(7, 0)[0].tolist() == [0, 1, 2]


def test_messages_of_an_earlier_group_are_dropped() -> None:
    exchange = ObjectStore()
    exchange.connect(place(2))
    exchange.deliver((1, 7, 0, {(0, 1): [np.zeros(3)]}))
    exchange.deliver((2, 7, 0, {(0, 1): [np.ones(3)]}))
    assert exchange.receive(7, 0)[0].tolist() == [1, 1, 1]
    exchange.deliver((2, 8, 0, {(0, 1): [np.ones(3)]}))
    exchange.connect(place(3))  # forgets step 8
    exchange.deliver((3, 8, 0, {(0, 1): [np.zeros(3)]}))
    assert exchange.receive(8, 0)[0].tolist() == [0, 0, 0]


def test_abandoning_ends_the_wait() -> None:
    exchange = ObjectStore()
    exchange.connect(place(1, workers=2))
    exchange.deliver((1, 0, 0, {(0, 1): [np.zeros(3)]}))
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            exchange.receive(0, 0)
        except Abandoned as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    exchange.abandon()
    thread.join(10)
    assert len(caught) == 1
    with pytest.raises(Abandoned):
        exchange.receive(0, 0)


def test_an_exchange_that_is_not_connected_says_so() -> None:
    with pytest.raises(RuntimeError, match="before it was connected"):
        ObjectStore().send(0, 0, {})


def test_choosing_an_exchange(model: Model, tmp_path: Path) -> None:
    raw = token_job(tmp_path, model={"layers": [{"cell": "lstm", "hidden": 8}]})
    assert make_exchange(REGISTRY, make_job(raw), model)[0] == "object_store"
    gpus = replace(model, network=SimpleNamespace(device=SimpleNamespace(name="cuda")))
    raw["cluster"] = {"exchange": "object_store"}  # of the host: arrays are brought to it
    assert make_exchange(REGISTRY, make_job(raw), gpus)[0] == "object_store"
    raw["cluster"] = {"exchange": "object_stoer"}
    with pytest.raises((JobError, PluginError), match=r"cluster.exchange: .* did you mean"):
        make_job(raw)


def test_lines_of_threads_are_not_mixed() -> None:
    lines = Lines()
    from rnnfarm.cluster.lines import _Stream

    stream = _Stream(lines, "stdout")
    ready = threading.Barrier(4)

    def write(who: int) -> None:
        ready.wait()
        for _ in range(50):
            for piece in ("a", f"{who}", "b"):
                stream.write(piece)
            stream.write("\n")

    threads = [threading.Thread(target=write, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(lines.drain()) == sorted([("stdout", f"a{k}b") for k in range(4)] * 50)
    assert lines.drain() == []


def test_a_flood_of_lines_is_cut() -> None:
    lines = Lines()
    for k in range(MOST + 5):
        lines.add("stderr", str(k))
    found = lines.drain()
    assert found[-1] == ("stderr", "… and 5 more lines")
    assert len(found) == MOST + 1


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/ray/session/pack/dataset", "{here}/dataset"),
        ("/shared/data", "/shared/data"),
        ("s3://bucket/data", "s3://bucket/data"),
        ("/ray/session/package/data", "/ray/session/package/data"),
    ],
)
def test_paths_in_the_drivers_folder_are_meant_in_the_workers(path: str, expected: str) -> None:
    raw: dict[str, Any] = {"data": {"path": path, "base": "/ray/session/pack"}}
    moved = _moved(raw, "/ray/session/pack")
    assert moved["data"]["path"] == expected.format(here=Path.cwd())
    assert moved["data"]["base"] == str(Path.cwd())
    assert _moved(raw, None) == raw
