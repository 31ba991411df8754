"""Truncated backpropagation through time on one lane (Williams and Peng 1990).

A lane is a fixed group of rows of the batch. Its window number ``n`` starts from the states that
window ``n - 1`` left behind; the gradient ends where the window starts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rnnfarm.data.window import Window, Windows
from rnnfarm.kernels.device import HOST, Device
from rnnfarm.nn.layer import Arrays, FloatArray, Memory, Pass
from rnnfarm.nn.loss import LossFunction
from rnnfarm.nn.network import Network, NetworkBackward
from rnnfarm.training.ctc_decode import greedy_edits

#: ``ready(lane, layer, sums)``: the gradient of a layer's parameters is written into ``sums``.
Ready = Callable[[int, str, "Sums"], None]


@dataclass
class Sums:
    """What is added up over lanes.

    Attributes:
        loss: the sum of the loss over valid steps.
        count: the number of valid steps.
        weight: the sum of their weights, or their number where classes have none.
        correct: of these, how many targets were the likeliest class; evaluation of classes only.
        edits: how many labels would have to be changed in what was found; evaluation of labels
            only.
        labels: how many labels there are.
        gradient: the gradient of ``loss``, in the arena's layout; None in evaluation.
    """

    loss: Any
    count: int
    weight: float = 0.0
    correct: Any = 0
    edits: int = 0
    labels: int = 0
    gradient: Any = None

    def settled(self) -> Sums:
        """The same, with figures that are there."""
        return replace(self, loss=float(self.loss), correct=int(float(self.correct)))


def add_sums(left: Sums, right: Sums, device: Device = HOST) -> Sums:
    """The sum of two; adds the gradients into the left one's array."""
    if left.gradient is not None and right.gradient is not None:
        device.add(left.gradient, right.gradient, left.gradient)
    return Sums(
        left.loss + right.loss,
        left.count + right.count,
        left.weight + right.weight,
        left.correct + right.correct,
        left.edits + right.edits,
        left.labels + right.labels,
        left.gradient,
    )


class Lane:
    """One lane: its rows, the states that it carries, and its memory."""

    def __init__(self, index: int, rows: slice, network: Network, loss: LossFunction) -> None:
        self.index = index
        self.rows = rows
        self.network = network
        self.loss = loss
        self.states: dict[str, dict[str, FloatArray]] = network.zero_states(rows.stop - rows.start)
        self.device = network.device
        self.memory = Memory(self.device)
        self._send = self.device.sender()
        #: The next window, on its way to the device.
        self._ahead: tuple[int, Given] | None = None
        #: How many threads this lane may use for itself.
        self.threads = 1

    def train(
        self,
        windows: Windows,
        step: int,
        parameters: Arrays,
        seed: int,
        ready: Ready | None = None,
    ) -> Sums:
        """Forward, loss and backward over window ``step``; carries the states on."""
        given = self._on_device(windows, step)
        run = self.start(given, step, seed, windows.stride, training=True)
        with np.errstate(all="ignore"):  # the step looks for what is no number
            output, backward = self.network.forward(parameters, given.x, run)  # (T, B, O)
            d_output = self.memory.array("d_output", output.shape, output.dtype)
            loss = self.loss.compare(output, given.goal, d_output, self.threads, self.device)
            gradient = self.memory.array("gradient", (self.network.layout.size,), output.dtype)
            sums = Sums(loss.total, loss.count, loss.weight, gradient=gradient)
            tell = None if ready is None else lambda layer: ready(self.index, layer, sums)
            backward(d_output, self.network.layout.views(gradient), None, tell)
        self.states = run.new_states
        self.last = _Last(given.x, run, d_output, backward)
        if not self.device.immediate:  # while the device computes
            self._ahead = (step + 1, self._sent(windows, step + 1))
        return sums

    def _on_device(self, windows: Windows, step: int) -> Given:
        """Window ``step`` on the device."""
        if self._ahead is not None and self._ahead[0] == step:
            return self._ahead[1]
        return self._sent(windows, step)

    def _sent(self, windows: Windows, step: int) -> Given:
        return self.given(windows.read(step, self.rows))

    def given(self, window: Window) -> Given:
        """A window on the device, and what its output is compared with."""
        self.network.check(window.x)
        goal = self.loss.goal(window.target, window.valid)
        sent = self._send({
            **_read(window),
            "target": goal.target,
            "counts": goal.counts,
            "weight": goal.weight,
            "fed": window.fed,
            "fed_mask": None if window.fed is None else window.valid[..., None],
        })  # fmt: skip
        on_device = replace(
            goal, target=sent["target"], counts=sent["counts"], weight=sent.get("weight")
        )
        fed = sent.get("fed"), sent.get("fed_mask")
        return Given(sent["x"], sent["mask"], sent["reset"], on_device, *fed)

    def evaluate(self, windows: Windows, step: int, parameters: Arrays, seed: int) -> Sums:
        """Forward and loss over window ``step``, without dropout; carries the states on."""
        given = self._sent(windows, step)
        output = self._output(given, step, parameters, seed, windows.stride)
        loss = self.loss.measured.compare(output, given.goal, None, self.threads, self.device)
        sums = Sums(loss.total, loss.count, loss.weight)
        goal = given.goal
        if self.loss.loss.of_labels:
            sums.edits, sums.labels = greedy_edits(self.device.get(output), *goal.given)
        elif self.loss.loss.of_classes:
            rows = output.reshape(-1, output.shape[-1])
            targets, counts = goal.target.reshape(-1), goal.counts.reshape(-1)
            sums.correct = self.device.correct(rows, targets, counts)
        return sums

    def output(
        self, window: Window, step: int, parameters: Arrays, seed: int, carry: int
    ) -> FloatArray:
        """The output ``(T, B, O)`` of a window, on the host, without dropout; carries the states
        on."""
        return self.device.get(self._output(self.shown(window), step, parameters, seed, carry))

    def shown(self, window: Window) -> Given:
        """A window on the device, without what its output is compared with."""
        self.network.check(window.x)
        sent = self._send(_read(window))
        return Given(sent["x"], sent["mask"], sent["reset"], None)

    def _output(self, given: Given, step: int, parameters: Arrays, seed: int, carry: int) -> Any:
        run = self.start(given, step, seed, carry, training=False)
        with np.errstate(all="ignore"):
            output, _ = self.network.forward(parameters, given.x, run)
        self.states = run.new_states
        return output

    def start(self, given: Given, step: int, seed: int, carry: int, *, training: bool) -> Pass:
        """The pass of a window through the network, from this lane's states."""
        return Pass(
            training=training,
            seed=seed,
            step=step,
            lane=self.index,
            mask=given.mask,
            reset=given.reset,
            states=self.states,
            carry=carry,
            memory=self.memory,
            threads=self.threads,
            fed=given.fed,
            fed_mask=given.fed_mask,
        )

    def gradient_flow(self) -> dict[str, dict[str, float]]:
        """How much of the gradient of the last step's loss arrives how many steps before.

        For the window that ``train`` read last, before its parameters are changed: by layer and by
        distance 0, 1, 2, 4, … steps, the norm over rows and units of ∂L/∂h, where L is the loss of
        the window's last step alone.
        """
        device, last = self.device, self.last.d_output
        d_last = device.zeros(last.shape, last.dtype)
        device.add(d_last[-1], last[-1], d_last[-1])
        scratch = device.empty((self.network.layout.size,), last.dtype)
        records: dict[str, FloatArray] = {}
        self.last.backward(d_last, self.network.layout.views(scratch), records)
        found = sorted(records.items())
        return {name: _by_distance(device.get(record)) for name, record in found}

    def first_not_finite(self, parameters: Arrays) -> str | None:
        """The first layer whose output is no number in the window that ``train`` read last."""
        with np.errstate(all="ignore"):
            return self.network.first_not_finite(parameters, self.last.x, self.last.run)


def _read(window: Window) -> dict[str, Any]:
    """What the network reads of a window, ``x`` (T, B, …), ``mask`` and ``reset`` (T, B, 1)."""
    mask = None if window.mask is None else window.mask[..., None]
    reset = None if window.reset is None else window.reset[..., None]
    return {"x": window.x, "mask": mask, "reset": reset}


@dataclass(frozen=True)
class Given:
    """A window on the device."""

    x: Any
    mask: Any
    reset: Any
    goal: Any
    fed: Any = None
    fed_mask: Any = None


@dataclass(frozen=True)
class _Last:
    """The last window, for figures that are not wanted at every step."""

    x: Any
    run: Pass
    d_output: FloatArray
    backward: NetworkBackward


def _by_distance(record: FloatArray) -> dict[str, float]:
    steps = len(record)
    distances = [0, *(1 << k for k in range((steps - 1).bit_length()))]
    return {
        str(distance): float(np.linalg.norm(record[steps - 1 - distance].astype(np.float64)))
        for distance in distances
        if distance < steps
    }


def make_lanes(count: int, batch: int, network: Network, loss: LossFunction) -> list[Lane]:
    """``count`` lanes of equally many rows."""
    rows = batch // count
    return [Lane(k, slice(k * rows, (k + 1) * rows), network, loss) for k in range(count)]


def available_threads(wanted: int) -> int:
    """``wanted`` threads, or one a core that this process may use where that is 0."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return wanted or cores or 1


def lane_executor(device: Device, threads: int, lanes: int) -> ThreadPoolExecutor:
    """What computes lanes at once; a device that queues work takes them one after the other."""
    return ThreadPoolExecutor(min(threads, lanes) if device.immediate else 1)


def share_threads(lanes: Sequence[Lane], threads: int) -> None:
    """Divide threads among lanes that compute at once; each has at least one."""
    for lane in lanes:
        lane.threads = max(1, threads // len(lanes))
