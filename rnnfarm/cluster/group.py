"""The group of workers that the driver holds: starting them, calling them, seeing them die.

A worker lives in a slot, a bundle of a placement group. A slot whose worker has died is filled
again in the background; what is filled joins the group when the driver says so.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import (
    GetTimeoutError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
)
from ray.util import placement_group, remove_placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from rnnfarm.cluster.worker import WAITING, Home, PartError, Reply, Worker
from rnnfarm.data.scale import Scale
from rnnfarm.errors import DeviceError, JobError, PluginError, RnnfarmError, RunError
from rnnfarm.job_tables import Job

log = logging.getLogger("rnnfarm")
#: Seconds after which a slot is filled again whose worker could not start; doubled each time.
BACKOFF = 1.0
#: Seconds that a worker may take to answer a pulse, at most; a stopped process never does.
PULSE = 10.0
#: Seconds between two looks at whether Ray itself is still there.
LOOK = 1.0
#: What Ray raises where a worker is not there any more; the second is its watch over memory.
DIED = (RayActorError, OutOfMemoryError)
#: Why equations may differ where all nodes have the same plugins.
EQUATIONS = (
    "equations that differ from process to process depend on more than their arguments and "
    "settings: random numbers, the time, the order of a set"
)


@dataclass(eq=False)
class Slot:
    """A place for a worker, and who is there: nobody, one that starts, or a member of the group."""

    placement: PlacementGroup
    bundle: int
    actor: Any = None
    ready: Any = None  # the ref of its Home
    home: Home | None = None
    failures: int = 0
    retry: float = 0.0  # when it may be filled again


class GroupBroken(Exception):  # noqa: N818  (the engine mends it)
    """Workers died or hung; the message says which and why."""


class Group:
    """The workers of a run.

    Args:
        blocked: the plugins that are not loaded.
        moved: the driver's working directory, where Ray has copied it to every node.
        scales, loss: how columns are scaled, and the settings of the loss, which the driver has
            learned for all.
        facts: what the driver has, which the workers are compared with.
        log_file: where Ray's own notices go.
        say: tells of what happens.
        lost: says which of Ray's own processes has ended; '' where none has.
    """

    def __init__(
        self,
        job: Job,
        blocked: Sequence[str],
        moved: str | None,
        scales: Mapping[str, Scale],
        loss: Mapping[str, Any],
        facts: dict[str, str],
        log_file: Path,
        say: Callable[[str], None],
        lost: Callable[[], str],
    ) -> None:
        self.job, self.cluster = job, job.cluster
        self.arguments = (job.to_dict(), list(blocked), moved, dict(scales), dict(loss))
        self.facts = facts
        self.log_file = log_file
        self.say = say
        self.lost = lost
        self.members: list[Slot] = []  # by rank
        self.slots: list[Slot] = []
        self.generation = 0
        self.failure = "no worker is there"
        gpus = self.cluster.gpus
        if gpus is None:
            gpus = int(job.training.device == "cuda")
        self.bundle: dict[str, float] = {"CPU": self.cluster.cpus, **self.cluster.resources}
        if gpus:
            self.bundle["GPU"] = gpus
        custom = {k: v for k, v in self.bundle.items() if k not in ("CPU", "GPU")}
        # A concurrency group of its own for what must be answered while a step is computed.
        remote: Any = ray.remote  # whose types do not know concurrency groups
        self.actor = remote(
            num_cpus=self.cluster.cpus,
            num_gpus=gpus,
            resources=custom,
            max_restarts=0,
            concurrency_groups={"mail": 1, "control": 1},
        )(Worker)

    # -- starting ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the workers; returns when the least number of them is ready to join.

        DeviceError where the cluster has no place for them.
        """
        least, most = self.cluster.least, self.cluster.most
        first = placement_group([self.bundle] * least, strategy=self.cluster.placement.upper())
        self.slots = [Slot(first, k) for k in range(least)]
        # Each of the others may come when there is room for it.
        self.slots += [Slot(placement_group([self.bundle]), 0) for _ in range(most - least)]
        for slot in self.slots:
            self._fill(slot)
        if not first.wait(timeout_seconds=min(2.0, self.cluster.start_timeout)):
            self.say(f"waiting for {self._wanted(least)}; {_resources()}")
            if not first.wait(timeout_seconds=self.cluster.start_timeout):
                raise DeviceError(
                    f"there is no room for {self._wanted(least)}: {_resources()}; start with fewer "
                    "workers, lower cluster.cpus, gpus or resources, add nodes, or wait longer "
                    "(cluster.start_timeout)"
                )
        self._await_ready(self.slots[:least])

    def _wanted(self, count: int) -> str:
        each = _amounts(self.bundle)
        several = f"{count} workers" if count > 1 else "a worker"
        strict = self.cluster.placement.startswith("strict_")
        return f"{several} with {each}{' each' * (count > 1)}" + (
            f" ({self.cluster.placement})" if strict else ""
        )

    def _fill(self, slot: Slot) -> None:
        strategy = PlacementGroupSchedulingStrategy(
            placement_group=slot.placement, placement_group_bundle_index=slot.bundle
        )
        slot.actor = self.actor.options(scheduling_strategy=strategy).remote()
        slot.ready = slot.actor.call.remote("prepare", *self.arguments)
        slot.home = None

    def _await_ready(self, slots: Sequence[Slot]) -> None:
        """Wait until workers have made their parts; an error of one is raised."""
        deadline = time.monotonic() + self.cluster.start_timeout
        for slot in slots:
            last = None
            while not ray.wait([slot.ready], timeout=max(deadline - time.monotonic(), 0.1))[0]:
                doing = pulse(slot, PULSE)
                if doing is None or doing == last:
                    raise DeviceError(
                        f"a worker was not ready within {self.cluster.start_timeout:g} s "
                        f"({'it is ' + doing[0] if doing else 'its process is not up'}); look at "
                        "the cluster's nodes, or wait longer (cluster.start_timeout)"
                    )
                last = doing
                self.say(f"a worker is still {doing[0]}")
                deadline = time.monotonic() + self.cluster.start_timeout

    def waiting(self) -> bool:
        """Whether a worker is ready to join; fills the slots of those that have died."""
        now = time.monotonic()
        outside = [slot for slot in self.slots if slot not in self.members]
        for slot in outside:
            if slot.actor is None and now >= slot.retry:
                self._fill(slot)
        refs = [slot.ready for slot in outside if slot.home is None and slot.actor is not None]
        return bool(refs) and bool(ray.wait(refs, timeout=0)[0])

    def join(self) -> None:
        """Form a new group of the workers that are left and all that are ready to join.

        Where nobody is left, waits for the first. Raises DeviceError with a table where workers of
        a group that is formed for the first time differ; one that comes later is left out.
        """
        if not self.slots:
            self.start()
        self._admit()
        if not self.members:
            self._await_ready([self._first_starting()])
            self._admit()
        if not self.members:
            raise GroupBroken(self.failure)
        self.generation += 1
        addresses = [slot.home.address for slot in self.members if slot.home]
        self.call(
            "connect",
            each=lambda rank: (self.generation, rank, len(self.members), addresses),
        )

    def _first_starting(self) -> Slot:
        for slot in self.slots:
            if slot.actor is None:
                self._fill(slot)
        refs = {slot.ready: slot for slot in self.slots}
        done, _ = ray.wait(list(refs), timeout=self.cluster.start_timeout)
        return refs[done[0]] if done else self.slots[0]

    def _admit(self) -> None:
        first = self.generation == 0
        for slot in self.slots:
            if slot in self.members or slot.actor is None or len(self.members) == self._most():
                continue
            if not ray.wait([slot.ready], timeout=0)[0]:
                continue
            try:
                reply = ray.get(slot.ready)
            except RayError as error:
                cause = _cause(error)
                if first and not isinstance(cause, DIED):
                    raise self._named("a worker", cause, error) from error
                self.failure = f"a worker could not join ({_line(cause)})"
                self._failed(slot, self.failure)
                continue
            slot.home = reply.result
            self._tell({slot: reply.lines})
            differences = self._differences(slot)
            if differences and first:
                advice = "install the same on every node"
                if any(line.startswith("  equations of") for line in differences):
                    advice += f" ({EQUATIONS})"
                raise DeviceError(
                    f"the workers differ from the driver; {advice}:\n" + "\n".join(differences)
                )
            if differences:
                self._failed(
                    slot,
                    f"a worker on {slot.home.host} may not join, it differs: "
                    + "; ".join(line.strip() for line in differences),
                )
                continue
            slot.failures = 0
            self.members.append(slot)

    def _most(self) -> int:
        return self.job.training.lanes

    def _failed(self, slot: Slot, why: str) -> None:
        """Empty a slot; it is filled again after a while, and later each time."""
        if slot.failures == 0:
            log.warning("%s", why)
        self._empty(slot)
        slot.retry = time.monotonic() + BACKOFF * 2 ** min(slot.failures, 6)
        slot.failures += 1

    def _differences(self, slot: Slot) -> list[str]:
        """Where a worker's facts are not the first member's, or not the driver's."""
        assert slot.home is not None
        new = f"worker {len(self.members)} on {slot.home.host}"
        known = [("driver", self.facts)]
        if self.members and (home := self.members[0].home):
            known.append((f"worker 0 on {home.host}", home.facts))
        return [
            f"  {name}: {who} {facts.get(name, 'none')}, {new} {slot.home.facts.get(name, 'none')}"
            for who, facts in known
            for name in sorted(facts.keys() | (slot.home.facts.keys() if who != "driver" else ()))
            if facts.get(name) != slot.home.facts.get(name)
        ]

    # -- calling ----------------------------------------------------------------------------------

    def call(
        self, method: str, *arguments: Any, each: Callable[[int], tuple[Any, ...]] | None = None
    ) -> list[Any]:
        """Run a method in every worker; what each gave, by rank.

        Args:
            each: gives the arguments by rank, where they are not the same for all.

        Raises:
            GroupBroken: workers died, or made no progress for ``cluster.deadline`` seconds.
            RnnfarmError: the first error of the first worker that failed, with its rank and host.
        """
        pending = {
            slot.actor.call.remote(method, *(each(rank) if each else arguments)): slot
            for rank, slot in enumerate(self.members)
        }
        replies: dict[Slot, Reply] = {}
        watch = _Watch(self.cluster.deadline)
        while pending:
            if done := self._wait(pending, watch.patience):  # and whoever else is done by now
                done, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0)
            else:
                self._look_after(pending, watch)
            for ref in done:
                slot = pending.pop(ref)
                try:
                    replies[slot] = ray.get(ref)
                except RayError as error:
                    failure = self._failure(slot, error)
                    self._stop(pending)
                    raise failure from error
        self._tell({slot: replies[slot].lines for slot in self.members})
        return [replies[slot].result for slot in self.members]

    def _wait(self, pending: dict[Any, Slot], seconds: float) -> list[Any]:
        """Return the first reply, none after so many seconds; DeviceError where Ray has ended."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            done, _ = ray.wait(list(pending), timeout=min(left, LOOK))
            if done:
                return list(done)
            self.check_ray()
        return []

    def check_ray(self) -> None:
        """Raise DeviceError where a process has ended that Ray itself cannot do without."""
        if name := self.lost():
            raise DeviceError(
                f"Ray's own {name} on this machine has ended, and the workers with it; look for "
                "what has ended it (memory, a kill), and go on with --resume"
            )

    def _failure(self, slot: Slot, error: RayError) -> Exception:
        """What a worker's failed call means; one that died leaves the group."""
        cause = _cause(error)
        if not isinstance(cause, DIED):
            return self._named(self._who(slot), cause, error)
        who = self._who(slot)
        self._lose(slot)
        return GroupBroken(f"{who} died ({_line(cause)})")

    def _lose(self, slot: Slot) -> None:
        self.members.remove(slot)
        self._empty(slot)
        slot.retry = 0.0

    def _stop(self, pending: dict[Any, Slot]) -> None:
        """Get every other worker out of a call that cannot end any more."""
        told = [slot.actor.abandon.remote() for slot in pending.values()]
        end = time.monotonic() + self.cluster.deadline
        for ref, slot in pending.items():
            try:
                ray.get(ref, timeout=max(end - time.monotonic(), 0.1))
            except DIED as error:
                log.warning("%s died too (%s)", self._who(slot), _line(error))
                self._lose(slot)
            except GetTimeoutError:
                log.warning("%s did not stop and was ended", self._who(slot))
                _kill_process(slot)
                self._lose(slot)
            except RayTaskError:
                pass  # Abandoned, or an error that the first failure has caused
        # Nobody may hear of it only after it has joined the next group.
        if told:
            ray.wait(told, num_returns=len(told), timeout=max(end - time.monotonic(), 0.1))

    def _look_after(self, pending: dict[Any, Slot], watch: _Watch) -> None:
        """End the workers that have got no further for too long; the call then sees them die."""
        stuck = [slot for slot in pending.values() if watch.stuck(slot)]
        idle = [slot for slot in stuck if watch.waits(slot)]
        for slot in stuck:
            if slot not in idle:
                log.warning(
                    "%s made no progress for %g s (cluster.deadline) %s; it is ended",
                    self._who(slot), self.cluster.deadline, watch.how(slot),
                )  # fmt: skip
                _kill_process(slot)
        if len(idle) == len(pending):
            self._stop(pending)
            raise GroupBroken(
                f"for {self.cluster.deadline:g} s (cluster.deadline) the workers have only been "
                "waiting for each other"
            )

    def _who(self, slot: Slot) -> str:
        host = slot.home.host if slot.home else "a node"
        pid = f", process {slot.home.pid}" if slot.home else ""
        rank = f"worker {self.members.index(slot)}" if slot in self.members else "a worker"
        return f"{rank} (on {host}{pid})"

    def _named(self, who: str, cause: BaseException, error: RayError) -> Exception:
        """An error of a worker as the user is to see it; Ray's own text goes to the file."""
        logging.getLogger("ray").error("%s: %s", who, error)
        if isinstance(cause, JobError):
            return JobError([f"{who}: {sentence}" for sentence in cause.errors])
        if isinstance(cause, PartError):
            return PluginError(f"{who}: {cause}; its traceback is in {self.log_file}")
        if isinstance(cause, RnnfarmError | MemoryError):
            return type(cause)(f"{who}: {cause}")
        return RunError(f"{who}: an unexpected {_line(cause)}; its traceback is in {self.log_file}")

    def _tell(self, lines: dict[Slot, list[tuple[str, str]]]) -> None:
        """Show what workers have printed; a line that several have printed once."""
        said: dict[tuple[str, str], list[Slot]] = {}
        for slot, written in lines.items():
            for item in dict.fromkeys(written):
                said.setdefault(item, []).append(slot)
        for (stream, line), slots in said.items():
            if not line.strip():
                continue
            if len(slots) == 1:
                who = self._who(slots[0])
            else:
                who = "workers " + ", ".join(str(self.members.index(slot)) for slot in slots)
            (self.say if stream == "stdout" else log.warning)(f"{who}: {line}")

    # -- ending -----------------------------------------------------------------------------------

    def _empty(self, slot: Slot) -> None:
        ray.kill(slot.actor)
        slot.actor = slot.ready = slot.home = None

    def end(self) -> None:
        """End every worker and give its place back; those of a Ray that has ended are gone."""
        if self.lost():
            self.members, self.slots = [], []
            return
        for slot in self.slots:
            if slot.actor is not None:
                self._empty(slot)
        for placement in {slot.placement.id: slot.placement for slot in self.slots}.values():
            remove_placement_group(placement)
        self.members, self.slots = [], []


class _Watch:
    """Sees which workers get no further during a call, by asking them now and then."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        #: Seconds between two questions.
        self.patience = deadline / 4
        self._began = time.monotonic()
        #: What each was doing when it had last got further, and when that was.
        self._seen: dict[Slot, tuple[tuple[str, int] | None, float]] = {}
        self._answers: dict[Slot, tuple[str, int] | None] = {}

    def stuck(self, slot: Slot) -> bool:
        """Whether it has made no progress for the deadline."""
        answer = self._answers[slot] = pulse(slot, self.patience)
        known, since = self._seen.get(slot, (None, self._began))
        if answer is not None and answer != known:
            self._seen[slot] = answer, time.monotonic() if known else self._began
        known, since = self._seen.get(slot, (None, self._began))
        return time.monotonic() - since >= self.deadline

    def waits(self, slot: Slot) -> bool:
        answer = self._answers[slot]
        return answer is not None and answer[0].startswith(WAITING)

    def how(self, slot: Slot) -> str:
        answer = self._answers[slot]
        return "and does not answer" if answer is None else f"while {answer[0]}"


def pulse(slot: Slot, seconds: float) -> tuple[str, int] | None:
    """What a worker is doing and how far it is; None where it does not answer in time."""
    try:
        answer: tuple[str, int] = ray.get(slot.actor.pulse.remote(), timeout=min(seconds, PULSE))
    except RayError:  # dead ones are seen by their calls
        return None
    return answer


def _kill_process(slot: Slot) -> None:
    """End a worker's process from its own node: a stopped one does not hear Ray's call."""
    if slot.home is None:
        return
    there = NodeAffinitySchedulingStrategy(node_id=slot.home.node, soft=False)
    kill = ray.remote(num_cpus=0, max_retries=0)(_sigkill)
    try:
        ray.get(
            kill.options(scheduling_strategy=there).remote(slot.home.pid),
            timeout=PULSE,
        )
    except RayError as error:  # its node is gone, and so is it
        log.warning("worker process %s: %s", slot.home.pid, _line(error))


def _sigkill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _cause(error: RayError) -> BaseException:
    """What a worker raised, where that is why the call failed; else Ray's error."""
    if isinstance(error, RayTaskError):
        cause = error.cause
        if isinstance(cause, RnnfarmError | MemoryError):
            return cause
    return error


def _line(error: BaseException) -> str:
    """Why, on one line: of what Ray says about a dead actor the first sentence that says it."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if isinstance(error, DIED):  # not the lines that only name the actor
        names = re.compile(r"(class_name|actor_id|pid|name|namespace|ip): |The actor died unexp")
        lines = [line for line in lines if not names.match(line)][:1] or lines[:1]
    line = (lines or [type(error).__name__])[-1].partition("Some common causes")[0]
    return line[:300].rstrip(". ")


def _amounts(bundle: dict[str, float]) -> str:
    return ", ".join(
        f"{amount:g} {name}{'s' * (amount != 1 and name in ('CPU', 'GPU'))}"
        for name, amount in bundle.items()
    )


def _resources() -> str:
    """What the cluster has, for a sentence."""
    own = ("CPU", "GPU")
    have, free = ray.cluster_resources(), ray.available_resources()
    shown = [
        f"{free.get(name, 0):g} of {amount:g} {name}{'s' * (amount != 1 and name in own)} free"
        for name, amount in sorted(have.items())
        if name in own
        or not (":" in name or "memory" in name or name.startswith(("node", "accel")))
    ]
    nodes = sum(node["Alive"] for node in ray.nodes())
    return f"the cluster has {nodes} node{'s' * (nodes != 1)} with {', '.join(shown) or 'no CPUs'}"
