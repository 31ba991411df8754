"""Truncated backpropagation through time on one lane (Williams and Peng 1990).

A lane is a fixed group of rows of the batch. Its window number ``n`` starts from the states that
window ``n - 1`` left behind; the gradient ends where the window starts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rnnfarm.data.window import Window, Windows
from rnnfarm.nn.layer import Arrays, FloatArray, Memory, Pass
from rnnfarm.nn.loss import LossFunction
from rnnfarm.nn.network import Network, NetworkBackward

#: ``ready(lane, layer, sums)``: the gradient of a layer's parameters is written into ``sums``.
Ready = Callable[[int, str, "Sums"], None]


@dataclass
class Sums:
    """What is added up over lanes.

    Attributes:
        loss: the sum of the loss over valid steps.
        count: the number of valid steps.
        correct: of these, how many targets were the likeliest class; evaluation of classes only.
        gradient: the gradient of ``loss``, in the arena's layout; None in evaluation.
    """

    loss: float
    count: int
    correct: int = 0
    gradient: npt.NDArray[np.floating] | None = None


def add_sums(left: Sums, right: Sums) -> Sums:
    """The sum of two; adds the gradients into the left one's array."""
    if left.gradient is not None and right.gradient is not None:
        left.gradient += right.gradient
    return Sums(
        left.loss + right.loss,
        left.count + right.count,
        left.correct + right.correct,
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
        self.memory = Memory()
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
        window = windows.read(step, self.rows)
        run = self.start(window, step, seed, windows.stride, training=True)
        with np.errstate(all="ignore"):  # the step looks for what is no number
            output, backward = self.network.forward(parameters, window.x, run)  # (T, B, O)
            d_output = self.memory.array("d_output", output.shape, output.dtype)
            loss = self.loss(output, window.target, window.valid, d_output, self.threads)
            gradient = self.memory.array("gradient", (self.network.layout.size,), output.dtype)
            sums = Sums(loss.total, loss.count, gradient=gradient)
            tell = None if ready is None else lambda layer: ready(self.index, layer, sums)
            backward(d_output, self.network.layout.views(gradient), None, tell)
        self.states = run.new_states
        self.last = _Last(window, run, d_output, backward)
        return sums

    def evaluate(self, windows: Windows, step: int, parameters: Arrays, seed: int) -> Sums:
        """Forward and loss over window ``step``, without dropout; carries the states on."""
        window = windows.read(step, self.rows)
        output = self.output(window, step, parameters, seed, windows.stride)
        loss = self.loss(output, window.target, window.valid, None, self.threads)
        correct = 0
        if self.loss.loss.target_kind == "classes":
            counted = self.loss.counted(window.target, window.valid)
            correct = int(np.sum((output.argmax(-1) == window.target) & counted))
        return Sums(loss.total, loss.count, correct)

    def output(
        self, window: Window, step: int, parameters: Arrays, seed: int, carry: int
    ) -> FloatArray:
        """The output ``(T, B, O)`` of a window, without dropout; carries the states on."""
        run = self.start(window, step, seed, carry, training=False)
        with np.errstate(all="ignore"):
            output, _ = self.network.forward(parameters, window.x, run)
        self.states = run.new_states
        return output

    def start(self, window: Window, step: int, seed: int, carry: int, *, training: bool) -> Pass:
        """The pass of a window through the network, from this lane's states."""
        return Pass(
            training=training,
            seed=seed,
            step=step,
            lane=self.index,
            mask=None if window.mask is None else window.mask[..., None],
            reset=None if window.reset is None else window.reset[..., None],
            states=self.states,
            carry=carry,
            memory=self.memory,
            threads=self.threads,
        )

    def gradient_flow(self) -> dict[str, dict[str, float]]:
        """How much of the gradient of the last step's loss arrives how many steps before.

        For the window that ``train`` read last, before its parameters are changed: by layer and by
        distance 0, 1, 2, 4, … steps, the norm over rows and units of ∂L/∂h, where L is the loss of
        the window's last step alone.
        """
        d_last = np.zeros_like(self.last.d_output)
        d_last[-1] = self.last.d_output[-1]
        scratch = np.empty(self.network.layout.size, d_last.dtype)
        records: dict[str, FloatArray] = {}
        self.last.backward(d_last, self.network.layout.views(scratch), records)
        return {name: _by_distance(record) for name, record in sorted(records.items())}

    def first_not_finite(self, parameters: Arrays) -> str | None:
        """The first layer whose output is no number in the window that ``train`` read last."""
        with np.errstate(all="ignore"):
            return self.network.first_not_finite(parameters, self.last.window.x, self.last.run)


@dataclass(frozen=True)
class _Last:
    """The last window, for figures that are not wanted at every step."""

    window: Window
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


def share_threads(lanes: Sequence[Lane], threads: int) -> None:
    """Divide threads among lanes that compute at once; each has at least one."""
    for lane in lanes:
        lane.threads = max(1, threads // len(lanes))
