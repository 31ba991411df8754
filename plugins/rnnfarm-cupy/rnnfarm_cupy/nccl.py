"""The exchange through NCCL: gradients go from GPU to GPU, one worker for each.

NCCL adds in an order of its own, so it only moves here. A bucket is cut into as many slices as
there are workers. Everyone sends each slice of its parts to the worker that adds that slice up, in
the order of the fixed tree, and then all gather the sums. So a worker sends and receives about
twice the gradient, however many workers there are, and the bits are the tree's.

Three threads meet: the lanes' copy a bucket's arrays side by side, one of the exchange's own starts
all messages, in a stream of its own beside the backward pass, and the worker's waits for the sums.
"""

from __future__ import annotations

import copy
import importlib
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from threading import Condition, Lock, Thread
from typing import Any, ClassVar

import ray

from rnnfarm.cluster.exchange import Abandoned, Exchange, Membership, Part
from rnnfarm.errors import DeviceError, RnnfarmError
from rnnfarm.kernels.device import Device
from rnnfarm.training.lanes import Node, owned_nodes, reduce_tree
from rnnfarm_cupy.device import CUDADevice
from rnnfarm_cupy.runtime import Array, Runtime

#: A step and a bucket of it.
Key = tuple[int, int]
#: Says whether the exchange's stream has reached a point.
Reached = Callable[[], bool]
#: Slices are a multiple of this many elements, so that all start where GPUs copy fastest.
ALIGNED = 32
#: Seconds between two looks at whether a bucket is there.
LOOK = 5e-5
#: Seconds that a failure of NCCL is kept back. A worker that dies makes NCCL fail in the others
#: too, often before the driver has noticed and has them abandon the group.
PATIENCE = 30.0
#: From nccl.h, and not an error: a call of another thread is not through yet.
IN_PROGRESS = 7


class Communicator(ABC):
    """The GPUs of a group as one of them sees them, and a stream for what passes between them.

    All but ``mark``, ``check``, ``abort`` and ``drain`` is called by one thread.

    Attributes:
        device: computes in the exchange's stream.
    """

    device: Device

    @abstractmethod
    def __init__(self, runtime: Runtime) -> None:
        """Talk to nobody yet. DeviceError where NCCL cannot be had."""

    @abstractmethod
    def fresh_id(self) -> bytes:
        """What all members of one group need to find each other."""

    @abstractmethod
    def join(self, identity: bytes, workers: int, rank: int) -> None:
        """Wait until all workers are there."""

    @abstractmethod
    def mark(self) -> Any:
        """The point that the runtime's stream, in which all else computes, has been given."""

    @abstractmethod
    def follow(self, mark: Any) -> None:
        """Let the exchange's stream wait for a mark."""

    @abstractmethod
    def group(self) -> AbstractContextManager[None]:
        """What is called within goes together, and in whatever order it can."""

    @abstractmethod
    def send(self, array: Array, rank: int) -> None:
        """Send a contiguous array, in the exchange's stream."""

    @abstractmethod
    def recv(self, array: Array, rank: int) -> None:
        """Receive a contiguous array, in the exchange's stream."""

    @abstractmethod
    def all_gather(self, array: Array, out: Array) -> None:
        """``out`` = every worker's array, by rank. The array may lie at its place in ``out``."""

    @abstractmethod
    def point(self) -> Reached:
        """The point that the exchange's stream has been given."""

    @abstractmethod
    def check(self) -> None:
        """Raise what NCCL has noticed in the meantime."""

    @abstractmethod
    def abort(self) -> None:
        """Break off everything, from whatever thread."""

    @abstractmethod
    def drain(self) -> None:
        """Wait until nothing of the exchange's stream runs any more."""


class NCCL(Exchange):
    """Adds up on the GPUs; NCCL moves the gradients between them."""

    devices: ClassVar[tuple[str, ...]] = ("cuda",)
    priority: ClassVar[int] = 10

    def __init__(
        self, runtime: Runtime | None = None, communicator: type[Communicator] | None = None
    ) -> None:
        self._runtime = runtime
        self._communicator = communicator or CuPyCommunicator
        self._member: _Member | None = None
        self._lock = Lock()
        #: By generation: worker 0's may come before the driver has had this worker connect.
        self._identities: dict[int, bytes] = {}

    def address(self) -> Any:
        return ray.get_runtime_context().current_actor

    def connect(self, place: Membership) -> None:
        if self._member is not None:
            self._member.abandon()
        if self._runtime is None:
            from rnnfarm_cupy.kernel import the_runtime

            self._runtime = the_runtime()
        alone = place.workers == 1
        communicator = None if alone else self._communicator(self._runtime)
        member = _Member(place, CUDADevice(self._runtime), communicator)
        with self._lock:
            self._member = member
            known = {g: i for g, i in self._identities.items() if g >= place.generation}
            self._identities = known
            identity = known.pop(place.generation, None)
        if communicator is not None and place.rank == 0:
            # A fresh one for every group: nobody of an earlier one can be met by it.
            identity = communicator.fresh_id()
            for rank in range(1, place.workers):
                told = place.addresses[rank].deliver.options(num_returns=0)
                told.remote((place.generation, identity))
        if identity is not None:
            member.start(identity)

    def deliver(self, message: Any) -> None:
        generation, identity = message
        with self._lock:
            member = self._member
            now = member.place.generation if member is not None else -1
            if generation > now:
                self._identities[generation] = identity
        if member is not None and generation == now:
            member.start(identity)

    def send(self, step: int, bucket: int, parts: Mapping[Node, Part]) -> None:
        self._here().send((step, bucket), parts)

    def receive(self, step: int, bucket: int) -> Part:
        return self._here().receive((step, bucket))

    def abandon(self) -> None:
        if self._member is not None:
            self._member.abandon()

    def _here(self) -> _Member:
        if self._member is None:
            raise RuntimeError("the exchange was used before it was connected")
        return self._member


class _Member:
    """One generation of the group, of which nothing is left for the next."""

    def __init__(
        self, place: Membership, device: Device, communicator: Communicator | None
    ) -> None:
        self.place = place
        self._device = device
        self._communicator = communicator
        self._nodes = [owned_nodes(place.lanes, mine) for mine in place.mine]
        self._changed = Condition()
        self._blocks: dict[int, list[_Block]] = {}
        self._ready: dict[Key, Any] = {}
        self._sums: dict[Key, tuple[Part, Reached]] = {}
        self._abandoned = False
        self._failure: Exception | None = None
        self._thread: Thread | None = None

    def start(self, identity: bytes) -> None:
        """Find the others, in a thread: one that never comes would be waited for for ever."""
        with self._changed:
            if self._communicator is None or self._thread is not None or self._abandoned:
                return
            arguments = (self._communicator, identity)
            self._thread = Thread(
                target=self._work, args=arguments, name="rnnfarm-nccl", daemon=True
            )
            self._thread.start()

    def send(self, key: Key, parts: Mapping[Node, Part]) -> None:
        if self._communicator is None:
            with self._changed:
                self._sums[key] = parts[0, self.place.lanes], lambda: True
                self._changed.notify_all()
            return
        blocks = self._blocks.get(key[1])
        if blocks is None:
            like = next(iter(parts.values()))
            blocks = self._blocks[key[1]] = self._make_blocks(like)
        # Copied in the stream that has computed the parts. What is written over there was read in
        # that stream too, or by messages that ``receive`` has seen the end of.
        for block in blocks:
            for node, flat in block.own.items():
                for number, start, stop in block.places:
                    self._device.assign(flat[start:stop], parts[node][number].reshape(-1))
        mark = self._communicator.mark()
        with self._changed:
            self._ready[key] = mark
            self._changed.notify_all()

    def receive(self, key: Key) -> Part:
        with self._changed:
            self._changed.wait_for(lambda: key in self._sums or self._abandoned or self._failure)
            total, reached = self._sums.pop(key, ((), lambda: False))
        # The host waits, and not the stream that computes: a message that never comes must not
        # stop that one, and what an aborted one leaves behind must not be taken for a sum.
        # Whatever the stream is given afterwards comes after the sum, without further ado.
        try:
            while not self._abandoned and not reached():
                if self._failure is not None:
                    raise self._failure
                if self._communicator is not None:
                    self._communicator.check()
                time.sleep(LOOK)
        except Exception as error:
            self._fail(error)
        if self._abandoned:  # set before anything is aborted
            raise Abandoned
        return total

    def abandon(self) -> None:
        with self._changed:
            if self._abandoned:
                return
            self._abandoned = True
            self._changed.notify_all()
        if self._communicator is not None:
            # In a thread, for NCCL may wait for others in it, and the driver waits for us.
            Thread(target=self._end, args=(self._communicator,), daemon=True).start()

    def _end(self, communicator: Communicator) -> None:
        communicator.abort()
        # Where a worker died before all were there, NCCL may wait in that thread until the process
        # ends. Neither thread then does any harm but to a few arrays' memory.
        if self._thread is not None:
            self._thread.join()
        # Until then this thread holds the arrays that messages may still be written into.
        communicator.drain()

    def _fail(self, error: Exception) -> None:
        with self._changed:
            if self._changed.wait_for(lambda: self._abandoned, PATIENCE):
                raise Abandoned
        if isinstance(error, RnnfarmError):
            raise error
        text = " ".join(f"{error}".split()) or type(error).__name__
        raise DeviceError(
            f"NCCL failed between the workers' GPUs ({text}); set NCCL_DEBUG=INFO to see more, or "
            "cluster.exchange = 'object_store' to do without it"
        ) from error

    def _make_blocks(self, like: Part) -> list[_Block]:
        """Memory for a bucket, used again in every step."""
        place = self.place
        kinds = list(dict.fromkeys(array.dtype for array in like))
        blocks = []
        for dtype in kinds:
            places, start = [], 0
            for number, array in enumerate(like):
                if array.dtype == dtype:
                    places.append((number, start, start + array.size))
                    start += array.size
            width = -(-start // (place.workers * ALIGNED)) * ALIGNED
            # What fills the last slices up is added and sent with the rest, and never looked at.
            empty = self._device.empty
            own = {node: empty((width * place.workers,), dtype) for node in self._nodes[place.rank]}
            received = {
                node: empty((width,), dtype)
                for rank, nodes in enumerate(self._nodes)
                for node in nodes
                if rank != place.rank
            }
            shapes = [like[number].shape for number, _, _ in places]
            blocks.append(_Block(places, shapes, width, own, received))
        return blocks

    # -- the exchange's thread --------------------------------------------------------------------

    def _work(self, communicator: Communicator, identity: bytes) -> None:
        try:
            communicator.join(identity, self.place.workers, self.place.rank)
            for key, mark in self._in_order():
                communicator.follow(mark)
                blocks = self._blocks[key[1]]
                self._exchange(communicator, blocks)
                sums = _sums_of(blocks), communicator.point()
                with self._changed:
                    self._sums[key] = sums
                    self._changed.notify_all()
        except Exception as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _in_order(self) -> Iterator[tuple[Key, Any]]:
        """What was sent, each step's buckets by their numbers, until the group is abandoned.

        NCCL's messages have no names: they are told apart by their order, which has to be the same
        on all workers, whichever of their lanes are done first.
        """
        step = -1
        while True:
            for bucket in range(len(self.place.sizes)):
                key = self._await_next(step, bucket)
                if key is None:
                    return
                step = key[0]
                yield key, self._ready.pop(key)

    def _await_next(self, step: int, bucket: int) -> Key | None:
        """The bucket that comes next; None once the group is abandoned."""
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or self._due(step, bucket))
            return None if self._abandoned else self._due(step, bucket)[0]

    def _due(self, step: int, bucket: int) -> list[Key]:
        """The bucket that comes next, if it is there; bucket 0 begins a step."""
        found = [key for key in self._ready if key[1] == bucket and (bucket == 0 or key[0] == step)]
        return sorted(found)[:1]

    def _exchange(self, communicator: Communicator, blocks: Sequence[_Block]) -> None:
        """Start everything that adds a bucket up over the workers."""
        me, root = self.place.rank, (0, self.place.lanes)
        others = [rank for rank in range(self.place.workers) if rank != me]

        # The additions run in the exchange's stream, between the messages before and after them.
        # In the one that computes they would hold up the layers below until all workers' parts are
        # there.
        def add(left: Array, right: Array) -> Array:
            communicator.device.add(left, right, left)
            return left

        with communicator.group():
            for block in blocks:
                for rank in others:
                    for flat in block.own.values():
                        communicator.send(block.slice_of(flat, rank), rank)
                    for node in self._nodes[rank]:
                        communicator.recv(block.received[node], rank)
        totals = []
        for block in blocks:
            parts = {node: block.slice_of(flat, me) for node, flat in block.own.items()}
            totals.append(reduce_tree(root, {**parts, **block.received}, add))
        with communicator.group():
            for block, total in zip(blocks, totals, strict=True):
                # The sum lies in the array of the tree's first node, which is worker 0's: there at
                # its place in ``gathered``, and elsewhere in what was received.
                communicator.all_gather(total, block.gathered)


@dataclass(frozen=True)
class _Block:
    """The arrays of a bucket that are of one dtype, side by side.

    Attributes:
        places: of each its number in a part, and where it starts and stops.
        shapes: of each.
        width: elements of a slice.
        own: all slices of each of this worker's nodes.
        received: this worker's slice of each other node.
    """

    places: list[tuple[int, int, int]]
    shapes: list[tuple[int, ...]]
    width: int
    own: dict[Node, Array]
    received: dict[Node, Array]

    def slice_of(self, flat: Array, rank: int) -> Array:
        return flat[rank * self.width : (rank + 1) * self.width]

    @property
    def gathered(self) -> Array:
        """Where the sums come: the memory of the first node, which has been read by then."""
        return next(iter(self.own.values()))


def _sums_of(blocks: Sequence[_Block]) -> Part:
    """The arrays of a part, as views of what was gathered."""
    found = {
        number: block.gathered[start:stop].reshape(shape)
        for block in blocks
        for (number, start, stop), shape in zip(block.places, block.shapes, strict=True)
    }
    return [found[number] for number in sorted(found)]


class CuPyCommunicator(Communicator):
    """NCCL through CuPy."""

    def __init__(self, runtime: Runtime) -> None:
        from rnnfarm_cupy.gpu import CuPyRuntime

        if not isinstance(runtime, CuPyRuntime):
            raise DeviceError(
                f"cluster.exchange: NCCL does not reach {runtime.name}; set cluster.exchange = "
                "'object_store'"
            )
        self._nccl = load_nccl()
        self._kinds = {"float32": self._nccl.NCCL_FLOAT32, "float64": self._nccl.NCCL_FLOAT64}
        self._runtime = runtime
        self._lock = Lock()
        self._comm: Any = None
        self._aborted = False
        runtime.enter()
        with runtime._waiting():
            self._stream: Any = runtime.cuda.Stream(non_blocking=True)
        self._address = int(self._stream.ptr)
        # The same GPU, programs and locks, but for the stream that kernels are started in.
        other = copy.copy(runtime)
        other.stream, other._stream = self._stream, self._address
        self.device = CUDADevice(other)

    def fresh_id(self) -> bytes:
        return bytes(self._nccl.get_unique_id())

    def join(self, identity: bytes, workers: int, rank: int) -> None:
        # Not ``enter``, which knows threads by their numbers: this may be that of one that ended.
        self._runtime._device.use()
        self._runtime._calls.free(0)
        comm = self._nccl.NcclCommunicator(workers, identity, rank)
        with self._lock:
            self._comm = comm
            late = self._aborted
        if late:
            comm.abort()

    def mark(self) -> Any:
        runtime = self._runtime
        runtime.enter()
        with runtime._waiting():
            event = runtime.cuda.Event(disable_timing=True)
            event.record(runtime.stream)
        return event

    def follow(self, mark: Any) -> None:
        self._stream.wait_event(mark)

    @contextmanager
    def group(self) -> Iterator[None]:
        self._nccl.groupStart()
        try:
            yield
        finally:  # or the thread's next calls would belong to it
            self._nccl.groupEnd()

    def send(self, array: Array, rank: int) -> None:
        kind = self._kinds[array.dtype.name]
        self._comm.send(array.data.ptr, array.size, kind, rank, self._address)

    def recv(self, array: Array, rank: int) -> None:
        kind = self._kinds[array.dtype.name]
        self._comm.recv(array.data.ptr, array.size, kind, rank, self._address)

    def all_gather(self, array: Array, out: Array) -> None:
        kind = self._kinds[array.dtype.name]
        self._comm.allGather(array.data.ptr, out.data.ptr, array.size, kind, self._address)

    def point(self) -> Reached:
        event = self._runtime.cuda.Event(disable_timing=True)
        event.record(self._stream)
        return lambda: bool(event.done)

    def check(self) -> None:
        with self._lock:  # what is aborted is no more
            if self._comm is None or self._aborted:
                return
            try:
                self._comm.check_async_error()
            except Exception as error:
                # CuPy has no words for every status, and then raises its number.
                if IN_PROGRESS in (getattr(error, "status", None), *error.args):
                    return
                raise

    def abort(self) -> None:
        with self._lock:
            comm = None if self._aborted else self._comm
            self._aborted = True
        if comm is not None:
            comm.abort()

    def drain(self) -> None:
        self._stream.synchronize()


def load_nccl() -> Any:
    """CuPy's module of NCCL. DeviceError where there is none."""
    reason = "CuPy finds no libnccl.so.2"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CuPy's, which is no sentence of ours
            found: Any = importlib.import_module("cupy.cuda.nccl")
        if found.available:
            return found
    except ImportError as error:
        reason = " ".join(str(error).split())
    raise DeviceError(
        f"cluster.exchange: NCCL, which moves gradients between GPUs, cannot be loaded ({reason}); "
        "run pip install rnnfarm-cupy[cuda13], or rnnfarm-cupy[cuda12] for CuPy for CUDA 12, or "
        "set cluster.exchange = 'object_store'"
    )
