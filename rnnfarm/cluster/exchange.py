"""What an exchange is: how the workers of a group add up a step's gradient.

The gradient is cut into buckets (``buckets.py``). A worker sends what it has of a bucket as soon as
its lanes have it, while the layers below still go backwards, and receives the sum over all lanes
when it needs it. Every sum is that of the fixed tree (``training/lanes.py``), whatever adds it up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rnnfarm.training.lanes import Node

#: Arrays of the exchange's device that are added element by element.
Part = Sequence[Any]


@dataclass(frozen=True)
class Membership:
    """A worker's place in its group.

    Attributes:
        generation: the number of the group; messages of an earlier one mean nothing any more.
        rank: this worker's number.
        lanes: how many lanes the job has.
        mine: the lanes of every worker, by rank.
        addresses: what every worker's ``Exchange.address`` gave, by rank.
        sizes: the elements of every bucket.
    """

    generation: int
    rank: int
    lanes: int
    mine: tuple[range, ...]
    addresses: tuple[Any, ...]
    sizes: tuple[int, ...]

    @property
    def workers(self) -> int:
        return len(self.mine)


class Abandoned(Exception):  # noqa: N818  (it is no error of the exchange)
    """The group has lost a worker, so that what ``receive`` waits for will not come."""


class Exchange(ABC):
    """Adds up over workers; made once in every worker, and connected anew for every group.

    Attributes:
        devices: the devices whose arrays it adds.
        priority: among exchanges that serve a device, the highest is chosen.
    """

    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    priority: ClassVar[int] = 0

    def address(self) -> Any:
        """What the others need in order to reach this worker; something that Ray can send."""
        return None

    @property
    def on_host(self) -> bool:
        """Whether it adds the host's arrays; those of another device are brought there."""
        return "cpu" in self.devices

    @abstractmethod
    def connect(self, place: Membership) -> None:
        """Forget everything, and be part of a new group."""

    @abstractmethod
    def send(self, step: int, bucket: int, parts: Mapping[Node, Part]) -> None:
        """Give this worker's sums of a bucket: one for each node of the tree that it has whole.

        The arrays may be changed, and may be written over once the bucket was received. Threads
        may call this at the same time for different buckets.
        """

    @abstractmethod
    def receive(self, step: int, bucket: int) -> Part:
        """Wait for the sum of a bucket over all lanes. Raises Abandoned, see ``abandon``."""

    def deliver(self, message: Any) -> None:
        """Take a message that another worker's exchange sent by way of the worker's actor."""
        raise NotImplementedError(f"{type(self).__name__} sends no messages through actors")

    @abstractmethod
    def abandon(self) -> None:
        """Let ``receive`` raise Abandoned until the exchange is connected again."""
