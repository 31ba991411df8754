"""The exchange between GPUs, its messages carried by a stand-in for NCCL between threads."""

from __future__ import annotations

import importlib
import os
import queue
import sys
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rnnfarm_cupy import gpu, nccl
from rnnfarm_cupy.device import CUDADevice
from rnnfarm_cupy.gpu import CuPyRuntime
from rnnfarm_cupy.host import DeviceLike, HostRuntime, find_compiler
from rnnfarm_cupy.nccl import NCCL, Communicator, CuPyCommunicator, Reached
from rnnfarm_cupy.runtime import Runtime

from rnnfarm.cluster.exchange import Abandoned, Membership
from rnnfarm.errors import DeviceError
from rnnfarm.plugins import Registry
from rnnfarm.training.lanes import deal, owned_nodes, reduce_tree

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")
#: One for all workers, for one launch of a compiled program at a time is all that it can do.
RUNTIME = HostRuntime()
#: Seconds after which a thread counts as stuck.
LONG = 60


class Hub:
    """What the members of a group share."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.joined: set[int] = set()
        self.boxes: dict[tuple[int, int], queue.Queue[Any]] = defaultdict(queue.Queue)


class Threads(Communicator):
    """A communicator between threads of one process; as strict as NCCL is."""

    hubs: defaultdict[bytes, Hub] = defaultdict(Hub)
    aborts = 0

    def __init__(self, runtime: Runtime) -> None:
        self.device = CUDADevice(runtime)
        self.aborted = False
        self.calls: list[tuple[str, Any, Any]] | None = None

    def fresh_id(self) -> bytes:
        return os.urandom(128)

    def join(self, identity: bytes, workers: int, rank: int) -> None:
        self.hub, self.workers, self.rank = self.hubs[identity], workers, rank
        with self.hub.changed:
            assert rank not in self.hub.joined
            self.hub.joined.add(rank)
            self.hub.changed.notify_all()
            while len(self.hub.joined) < workers:
                self.hub.changed.wait(0.01)
                self._go_on()

    def _go_on(self) -> None:
        if self.aborted:
            raise RuntimeError("aborted")

    def mark(self) -> Any:
        return "mark"

    def follow(self, mark: Any) -> None:
        assert mark == "mark"

    @contextmanager
    def group(self) -> Iterator[None]:
        self.calls = []
        yield
        calls, self.calls = self.calls, None
        for what, array, more in calls:  # first all that is sent: recvs wait
            if what == "send":
                self._put(array, more)
            elif what == "gather":
                self._check_places(array, more)
                for rank in range(self.workers):
                    self._put(array, rank)
        for what, array, more in calls:
            if what == "recv":
                self._get(array, more)
            elif what == "gather":
                for rank in range(self.workers):
                    self._get(more[rank * array.size : (rank + 1) * array.size], rank)

    def _check_places(self, array: Any, out: Any) -> None:
        assert out.size == self.workers * array.size
        assert out.dtype == array.dtype
        if np.may_share_memory(array.view(np.ndarray), out.view(np.ndarray)):
            own = out[self.rank * array.size :]
            assert array.ctypes.data == own.ctypes.data

    def _put(self, array: Any, rank: int) -> None:
        assert isinstance(array, DeviceLike)
        assert array.flags.c_contiguous
        self.hub.boxes[self.rank, rank].put(np.array(array.view(np.ndarray)))

    def _get(self, array: Any, rank: int) -> None:
        assert isinstance(array, DeviceLike)
        assert array.flags.c_contiguous
        while True:
            self._go_on()
            try:
                found = self.hub.boxes[rank, self.rank].get(timeout=0.01)
            except queue.Empty:
                continue
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            array.view(np.ndarray)[...] = found
            return

    def _call(self, *call: Any) -> None:
        assert self.calls is not None
        self.calls.append(call)

    def send(self, array: Any, rank: int) -> None:
        assert rank != self.rank
        self._call("send", array, rank)

    def recv(self, array: Any, rank: int) -> None:
        assert rank != self.rank
        self._call("recv", array, rank)

    def all_gather(self, array: Any, out: Any) -> None:
        self._call("gather", array, out)

    def point(self) -> Reached:
        looks = iter([False, False])
        return lambda: next(looks, True)

    def check(self) -> None:
        self._go_on()

    def abort(self) -> None:
        Threads.aborts += 1
        self.aborted = True

    def drain(self) -> None:
        pass


class Actor:
    """The address of a worker in this process: ``actor.deliver.options(…).remote(message)``."""

    def __init__(self, exchange: NCCL) -> None:
        self._exchange = exchange
        self.messages: list[Any] = []
        self.deliver = self

    def options(self, *, num_returns: int) -> Actor:
        assert num_returns == 0
        return self

    def remote(self, message: Any) -> None:
        self.messages.append(message)
        self._exchange.deliver(message)


class Team:
    """Exchanges of several workers."""

    def __init__(self, workers: int) -> None:
        self.exchanges = [NCCL(RUNTIME, Threads) for _ in range(workers)]
        self.actors = [Actor(exchange) for exchange in self.exchanges]

    def places(
        self, generation: int, lanes: int, mine: Sequence[range], sizes: Sequence[int]
    ) -> list[Membership]:
        return [
            Membership(generation, rank, lanes, tuple(mine), tuple(self.actors), tuple(sizes))
            for rank in range(len(mine))
        ]

    def connect(self, places: Sequence[Membership], order: int = 1) -> None:
        for place in places[::order]:
            self.exchanges[place.rank].connect(place)

    def leave(self) -> None:
        for exchange in self.exchanges:
            exchange.abandon()


@pytest.fixture
def team() -> Iterator[Callable[[int], Team]]:
    teams: list[Team] = []

    def make(workers: int) -> Team:
        teams.append(Team(workers))
        return teams[-1]

    yield make
    for one in teams:
        one.leave()


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What ``work(rank)`` gives, called in a thread for each rank."""
    results: list[Any] = [None] * count

    def run(rank: int) -> None:
        try:
            results[rank] = work(rank)
        except BaseException as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(k,), daemon=True) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def host_add(left: Any, right: Any) -> Any:
    return [a + b for a, b in zip(left, right, strict=True)]


def gradients(
    lanes: int, shapes: Sequence[Sequence[tuple[int, ...]]], dtype: str, seed: int
) -> list[list[list[np.ndarray]]]:
    """For each bucket and lane its arrays, of very unlike sizes; with bucket 0's figures."""
    random = np.random.default_rng(seed)

    def array(shape: tuple[int, ...], kind: str) -> np.ndarray:
        return (random.standard_normal(shape) * 10.0 ** random.integers(-6, 6, shape)).astype(kind)

    return [
        [
            [array(s, dtype) for s in bucket] + ([array((2,), "float64")] if number == 0 else [])
            for _ in range(lanes)
        ]
        for number, bucket in enumerate(shapes)
    ]


SHAPES = [[(3, 5), (7,)], [(1,)], [(401, 3), (64,), (2, 2, 2)], [(128,)]]
SIZES = [22, 1, 1275, 128]


def one_step(
    team: Team, places: Sequence[Membership], step: int, dtype: str, shapes: Any = SHAPES
) -> None:
    """Send and receive a step in all workers; every bit has to be the fixed tree's."""
    lanes = places[0].lanes
    given = gradients(lanes, shapes, dtype, step)
    expected = [
        reduce_tree((0, lanes), {(k, k + 1): of[k] for k in range(lanes)}, host_add) for of in given
    ]

    def work(rank: int) -> list[list[np.ndarray]]:
        place, exchange = places[rank], team.exchanges[rank]
        nodes = owned_nodes(lanes, place.mine[rank])
        # In another order on every worker, and by several threads.
        order = np.random.default_rng([step, rank]).permutation(len(given)).tolist()

        def send(bucket: int) -> None:
            leaves = {(k, k + 1): given[bucket][k] for k in place.mine[rank]}
            parts = {
                node: [RUNTIME.put(a) for a in reduce_tree(node, leaves, host_add)]
                for node in nodes
            }
            exchange.send(step, bucket, parts)

        for bucket in order[::2]:
            send(bucket)
        together(len(order[1::2]), lambda k: send(order[1::2][k]))
        found = []
        for bucket in range(len(given)):
            arrays = exchange.receive(step, bucket)
            assert all(isinstance(array, DeviceLike) for array in arrays)
            found.append([RUNTIME.get(array) for array in arrays])
        return found

    for found in together(len(places), work):
        for arrays, wanted in zip(found, expected, strict=True):
            assert [a.shape for a in arrays] == [w.shape for w in wanted]
            for array, right in zip(arrays, wanted, strict=True):
                assert array.dtype == right.dtype
                assert array.tobytes() == right.tobytes()


DEALS = {
    **{f"{w} of {n}": (n, deal(n, w)) for n in (4, 5, 8) for w in (1, 2, 3, 4)},
    "uneven 2": (8, [range(1), range(1, 8)]),
    "uneven 3": (8, [range(1), range(1, 7), range(7, 8)]),
    "uneven 4": (7, [range(3), range(3, 4), range(4, 6), range(6, 7)]),
}


@needs_compiler
@pytest.mark.parametrize("aligned", [1, 32])
@pytest.mark.parametrize("dealt", DEALS)
def test_sums_are_the_fixed_trees(
    team: Callable[[int], Team], monkeypatch: pytest.MonkeyPatch, dealt: str, aligned: int
) -> None:
    monkeypatch.setattr(nccl, "ALIGNED", aligned)
    lanes, mine = DEALS[dealt]
    workers = team(len(mine))
    places = workers.places(1, lanes, mine, SIZES)
    workers.connect(places)
    for step in (7, 8, 9):
        one_step(workers, places, step, "float32")


@needs_compiler
def test_gradients_in_float64_travel_with_the_figures(team: Callable[[int], Team]) -> None:
    workers = team(3)
    places = workers.places(1, 8, deal(8, 3), SIZES)
    workers.connect(places)
    one_step(workers, places, 0, "float64")


@needs_compiler
def test_the_order_of_additions_shows(team: Callable[[int], Team]) -> None:
    """The check above sees another order than the tree's."""
    (given,) = gradients(8, [[(401, 3)]], "float32", 0)
    tree = reduce_tree((0, 8), {(k, k + 1): given[k] for k in range(8)}, host_add)
    row = given[0]
    for lane in given[1:]:
        row = host_add(row, lane)
    assert tree[0].tobytes() != row[0].tobytes()


@needs_compiler
def test_another_group_after_the_first(team: Callable[[int], Team]) -> None:
    workers = team(4)
    places = workers.places(1, 8, deal(8, 4), SIZES)
    workers.connect(places)
    one_step(workers, places, 0, "float32")
    before = Threads.aborts
    # Fewer workers, of which the last hears of worker 0's message before it is connected.
    fewer = workers.places(2, 8, deal(8, 3), SIZES)
    workers.connect(fewer)
    one_step(workers, fewer, 0, "float32")
    # More, connected in the other order.
    workers.connect(workers.places(3, 8, deal(8, 4), SIZES)[1:], -1)
    more = workers.places(3, 8, deal(8, 4), SIZES)
    workers.exchanges[0].connect(more[0])
    one_step(workers, more, 1, "float32")
    eventually(lambda: Threads.aborts >= before + 6)


def eventually(there: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG
    while not there():
        assert time.monotonic() < end
        time.sleep(0.01)


@needs_compiler
def test_messages_of_an_earlier_group_are_ignored(team: Callable[[int], Team]) -> None:
    workers = team(2)
    places = workers.places(5, 4, deal(4, 2), SIZES)
    workers.exchanges[1].deliver((4, b"earlier, before the group"))
    workers.exchanges[1].connect(places[1])
    workers.exchanges[1].deliver((4, b"earlier, in the group"))
    workers.exchanges[1].deliver((6, b"of the next one"))
    member = workers.exchanges[1]._member
    assert member is not None
    assert member._thread is None
    workers.exchanges[0].connect(places[0])
    ((generation, identity),) = workers.actors[1].messages
    assert generation == 5
    one_step(workers, places, 0, "float32")
    assert workers.exchanges[1]._identities == {6: b"of the next one"}
    # Every group has a name of its own.
    workers.connect(workers.places(7, 4, deal(4, 2), SIZES))
    assert workers.actors[1].messages[-1][1] != identity


@needs_compiler
@pytest.mark.parametrize("where", ["nobody joins", "nobody sends", "nothing is known"])
def test_abandoning_ends_the_wait(team: Callable[[int], Team], where: str) -> None:
    workers = team(2)
    places = workers.places(1, 2, deal(2, 2), [3])
    if where == "nobody sends":
        workers.connect(places)
    else:
        workers.exchanges[where == "nothing is known"].connect(places[where == "nothing is known"])
    rank = int(where == "nothing is known")
    exchange = workers.exchanges[rank]
    exchange.send(0, 0, {(rank, rank + 1): [RUNTIME.put(np.ones(3, np.float32))]})
    waiting = threading.Event()

    def wait() -> str:
        waiting.set()
        with pytest.raises(Abandoned):
            exchange.receive(0, 0)
        return "woken"

    def abandon(who: int) -> str:
        if who == 0:
            return wait()
        waiting.wait(LONG)
        time.sleep(0.05)
        exchange.abandon()
        exchange.abandon()
        return "told"

    assert together(2, abandon) == ["woken", "told"]
    with pytest.raises(Abandoned):
        exchange.receive(0, 0)
    member = exchange._member
    assert member is not None
    eventually(lambda: member._thread is None or not member._thread.is_alive())
    # And it can be part of the next group.
    again = workers.places(2, 2, deal(2, 2), SIZES)
    workers.connect(again)
    one_step(workers, again, 0, "float32")


@needs_compiler
def test_an_aborted_message_is_no_sum(
    team: Callable[[int], Team], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the stream comes to because it was aborted."""
    workers = team(2)

    class Stuck(Threads):
        def point(self) -> Reached:
            return lambda: self.aborted

        def check(self) -> None:
            pass

    monkeypatch.setattr(workers.exchanges[0], "_communicator", Stuck)
    places = workers.places(1, 2, deal(2, 2), [3])
    workers.connect(places)
    for rank in range(2):
        part = [RUNTIME.put(np.ones(3, np.float32))]
        workers.exchanges[rank].send(0, 0, {(rank, rank + 1): part})
    workers.exchanges[1].receive(0, 0)
    timer = threading.Timer(0.1, workers.exchanges[0].abandon)
    timer.start()
    with pytest.raises(Abandoned):
        workers.exchanges[0].receive(0, 0)


class Failing(Threads):
    """What NCCL does where it cannot connect."""

    def join(self, identity: bytes, workers: int, rank: int) -> None:
        raise RuntimeError("NCCL_ERROR_SYSTEM_ERROR:\nno such interface")


@needs_compiler
@pytest.mark.parametrize("died", [False, True])
def test_a_failure_of_nccl(monkeypatch: pytest.MonkeyPatch, died: bool) -> None:
    monkeypatch.setattr(nccl, "PATIENCE", LONG if died else 0.01)
    exchange = NCCL(RUNTIME, Failing)
    addresses = (Actor(exchange), Actor(NCCL(RUNTIME, Threads)))
    exchange.connect(Membership(1, 0, 2, tuple(deal(2, 2)), addresses, (3,)))
    if died:  # NCCL fails before the driver tells of it
        timer = threading.Timer(0.1, exchange.abandon)
        timer.start()
        with pytest.raises(Abandoned):
            exchange.receive(0, 0)
        return
    with pytest.raises(DeviceError, match=r"failed .*\(NCCL_ERROR_SYSTEM_ERROR: no such interf"):
        exchange.receive(0, 0)
    exchange.abandon()


def test_a_worker_alone_needs_no_nccl() -> None:
    class Absent(Threads):
        def __init__(self, runtime: Runtime) -> None:
            raise AssertionError

    exchange = NCCL(RUNTIME, Absent)
    exchange.connect(Membership(1, 0, 4, (range(4),), (None,), (3,)))
    part = [RUNTIME.put(np.arange(3.0))]
    exchange.send(7, 0, {(0, 4): part})
    assert exchange.receive(7, 0)[0] is part[0]
    exchange.abandon()
    with pytest.raises(Abandoned):
        exchange.receive(8, 0)


def test_an_exchange_that_is_not_connected_says_so() -> None:
    exchange = NCCL(RUNTIME, Threads)
    with pytest.raises(RuntimeError, match="before it was connected"):
        exchange.send(0, 0, {})
    exchange.abandon()


def test_it_is_the_plugins() -> None:
    assert Registry.load().get("exchanges", "nccl") is NCCL
    assert not NCCL().on_host


# -- CuPy -----------------------------------------------------------------------------------------


def test_nccl_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (None, SimpleNamespace(available=False)):
        monkeypatch.setitem(sys.modules, "cupy.cuda.nccl", module)
        with pytest.raises(DeviceError, match=r"pip install rnnfarm-cupy\[cuda13\]"):
            nccl.load_nccl()
    exchange = NCCL(RUNTIME)
    with pytest.raises(DeviceError, match=r"cluster\.exchange = 'object_store'"):
        exchange.connect(Membership(1, 0, 2, tuple(deal(2, 2)), (None, None), (3,)))


class FakeNccl:
    """NCCL as CuPy 14 has it, noting its calls."""

    available = True
    NCCL_FLOAT32, NCCL_FLOAT64 = 7, 8

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.error: Exception | None = None

    def get_unique_id(self) -> bytes:
        return bytes(128)

    def groupStart(self) -> None:
        self.calls.append("start")

    def groupEnd(self) -> None:
        self.calls.append("end")

    def NcclCommunicator(self, ndev: int, commId: bytes, rank: int) -> FakeNccl:
        assert len(commId) == 128
        self.calls.append(("init", ndev, rank))
        return self

    def send(self, sendbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        self.calls.append(("send", sendbuf, count, datatype, peer, stream))

    def recv(self, recvbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        self.calls.append(("recv", recvbuf, count, datatype, peer, stream))

    def allGather(self, sendbuf: int, recvbuf: int, count: int, datatype: int, stream: int) -> None:
        self.calls.append(("gather", sendbuf, recvbuf, count, datatype, stream))

    def check_async_error(self) -> None:
        if self.error is not None:
            raise self.error

    def abort(self) -> None:
        self.calls.append("abort")


class FakeStream:
    def __init__(self, non_blocking: bool = False) -> None:
        self.ptr, self.calls = 99, []  # type: int, list[Any]

    def wait_event(self, event: Any) -> None:
        self.calls.append(event)

    def synchronize(self) -> None:
        self.calls.append("synchronize")


class FakeEvent:
    def __init__(self, disable_timing: bool = False) -> None:
        self.done = False

    def record(self, stream: Any) -> None:
        self.stream = stream


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> tuple[FakeNccl, CuPyCommunicator]:
    found = FakeNccl()
    monkeypatch.setattr(nccl, "load_nccl", lambda: found)
    runtime = object.__new__(CuPyRuntime)
    memory = SimpleNamespace(OutOfMemoryError=MemoryError)
    runtime.cuda = SimpleNamespace(Stream=FakeStream, Event=FakeEvent, memory=memory)
    runtime.errors = (OSError,)
    runtime.name = "a GPU"
    runtime.stream, runtime._stream = FakeStream(), 11
    runtime._threads = {threading.get_ident()}
    runtime._device = SimpleNamespace(use=lambda: found.calls.append("use"))
    runtime._calls = SimpleNamespace(free=lambda pointer: None)
    return found, CuPyCommunicator(runtime)


def test_calls_of_nccl(fake: tuple[FakeNccl, CuPyCommunicator]) -> None:
    found, communicator = fake
    runtime = communicator._runtime
    communicator.check()  # nobody is there yet
    communicator.join(communicator.fresh_id(), 3, 1)
    narrow, wide = (
        SimpleNamespace(data=SimpleNamespace(ptr=pointer), size=5, dtype=np.dtype(kind))
        for pointer, kind in ((1000, "float32"), (2000, "float64"))
    )

    def broken() -> None:
        with communicator.group():
            communicator.send(narrow, 0)
            communicator.recv(wide, 2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    communicator.all_gather(narrow, wide)
    assert found.calls == [
        "use", ("init", 3, 1), "start", ("send", 1000, 5, 7, 0, 99), ("recv", 2000, 5, 8, 2, 99),
        "end", ("gather", 1000, 2000, 5, 7, 99),
    ]  # fmt: skip
    # The exchange's device starts kernels in the exchange's stream, the runtime's as before.
    assert communicator.device.runtime._stream == 99  # type: ignore[attr-defined]
    assert runtime._stream == 11
    mark = communicator.mark()
    assert mark.stream is runtime.stream
    communicator.follow(mark)
    assert communicator._stream.calls == [mark]
    reached = communicator.point()
    assert reached() is False
    communicator.drain()


def test_errors_and_the_end_of_nccl(fake: tuple[FakeNccl, CuPyCommunicator]) -> None:
    found, communicator = fake
    communicator.join(bytes(128), 2, 0)
    communicator.check()
    found.error = KeyError(7)  # as CuPy 14 raises ncclInProgress
    communicator.check()
    found.error = RuntimeError("NCCL_ERROR_REMOTE_ERROR")
    with pytest.raises(RuntimeError, match="REMOTE"):
        communicator.check()
    communicator.abort()
    communicator.abort()
    communicator.check()
    assert found.calls.count("abort") == 1


def test_who_is_aborted_while_it_joins_leaves_at_once(
    fake: tuple[FakeNccl, CuPyCommunicator],
) -> None:
    found, communicator = fake
    communicator.abort()
    assert "abort" not in found.calls
    communicator.join(bytes(128), 2, 0)
    assert found.calls[-1] == "abort"


def test_names_of_cupys_nccl() -> None:
    """Where NCCL is installed, with a GPU or without."""
    with warnings.catch_warnings(action="ignore"):
        module: Any = importlib.import_module("cupy.cuda.nccl")
    if not module.available:
        pytest.skip("there is no NCCL")
    assert (module.NCCL_FLOAT32, module.NCCL_FLOAT64) == (7, 8)
    assert len(bytes(module.get_unique_id())) == 128
    for name in ("send", "recv", "allGather", "abort", "check_async_error"):
        assert hasattr(module.NcclCommunicator, name)


def _gpus() -> int:
    if gpu.missing_gpu() is not None:
        return 0
    return int(importlib.import_module("cupy.cuda").runtime.getDeviceCount())


@pytest.mark.gpu
@pytest.mark.skipif(_gpus() < 2, reason="there are not two GPUs")
def test_two_gpus() -> None:
    lanes, mine = 8, [range(3), range(3, 8)]
    given = gradients(lanes, SHAPES, "float32", 0)
    runtimes = together(2, CuPyRuntime)
    exchanges = [NCCL(runtime) for runtime in runtimes]
    actors = tuple(Actor(exchange) for exchange in exchanges)

    def work(rank: int) -> list[list[np.ndarray]]:
        runtime, exchange = runtimes[rank], exchanges[rank]
        exchange.connect(Membership(1, rank, lanes, tuple(mine), actors, tuple(SIZES)))
        for bucket in range(len(SHAPES)):
            leaves = {(k, k + 1): given[bucket][k] for k in mine[rank]}
            nodes = owned_nodes(lanes, mine[rank])
            parts = {n: [runtime.put(a) for a in reduce_tree(n, leaves, host_add)] for n in nodes}
            exchange.send(0, bucket, parts)
        return [
            [runtime.get(a) for a in exchange.receive(0, bucket)] for bucket in range(len(SHAPES))
        ]

    for found in together(2, work):
        for bucket, arrays in enumerate(found):
            leaves = {(k, k + 1): given[bucket][k] for k in range(lanes)}
            wanted = reduce_tree((0, lanes), leaves, host_add)
            assert [a.tobytes() for a in arrays] == [w.tobytes() for w in wanted]
    for exchange in exchanges:
        exchange.abandon()
