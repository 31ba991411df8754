"""The recurrent layer: a cell, run by a kernel over a window, in one direction or in both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import numpy as np

from rnnfarm.equations.fingerprint import stable_fingerprint
from rnnfarm.equations.gather import gather_products
from rnnfarm.equations.graph import Parameter
from rnnfarm.equations.instrument import PlanOptions
from rnnfarm.equations.parts import Cell, trace_cell
from rnnfarm.equations.plan import plan_trace
from rnnfarm.errors import JobError, suggestion
from rnnfarm.kernels.choose import KernelChoice
from rnnfarm.kernels.interface import WindowKernel
from rnnfarm.kernels.progress import compiling
from rnnfarm.nn.gather import Gather
from rnnfarm.nn.layer import Arrays, Backward, FloatArray, Layer, Pass
from rnnfarm.nn.random import INITIAL_STATE, RECURRENT_DROPOUT, ZONEOUT

INITIAL = ("zero", "random", "learned")


@dataclass(frozen=True)
class Recurrence:
    """How a cell's states start and are regularised.

    Attributes:
        initial: ``zero``, ``random`` (standard normal) or ``learned``.
        zoneout: one probability for all states, or one by a state's name.
        recurrent_dropout: the probability of the variational dropout of recurrent products.
    """

    initial: str = "zero"
    zoneout: float | Mapping[str, float] = 0.0
    recurrent_dropout: float = 0.0

    def options(self, cell: Cell) -> PlanOptions:
        """These as a plan's options; JobError for what none of them can be."""
        if self.initial not in INITIAL:
            raise JobError(f"initial = {self.initial!r}; {suggestion(self.initial, INITIAL)}")
        zoneout = self.zoneout
        if not isinstance(zoneout, Mapping):
            zoneout = dict.fromkeys(cell.states, zoneout)
        unknown = set(zoneout) - set(cell.states)
        if unknown:
            raise JobError(
                f"zoneout names the states {sorted(unknown)}, and {type(cell).__name__} has "
                f"{list(cell.states)}"
            )
        for p in (self.recurrent_dropout, *zoneout.values()):
            if not 0.0 <= p < 1.0:
                raise JobError(
                    f"zoneout and recurrent_dropout are probabilities from 0 to below 1, not {p}"
                )
        return PlanOptions(
            initial=self.initial,
            zoneout=tuple((name, p) for name, p in zoneout.items() if p),
            recurrent_dropout=self.recurrent_dropout,
        )


class RecurrentLayer(Layer):
    """One direction of a recurrent layer; ``(T, B, I)`` → ``(T, B, H)``."""

    def __init__(
        self,
        name: str,
        cell: Cell,
        inputs: int,
        hidden: int,
        recurrence: Recurrence,
        choice: KernelChoice,
        tokens: bool = False,
    ) -> None:
        self.name = name
        self.cell = cell
        self.options = recurrence.options(cell)
        self.choice = choice
        self._kernels: dict[PlanOptions, tuple[str, WindowKernel]] = {}
        self._building = Lock()  # lanes ask for kernels at the same time
        self.inputs, self.hidden = inputs, hidden
        self.trace = trace_cell(cell, inputs, hidden)
        #: The fingerprint of its cell's equations at these widths.
        self.equations = stable_fingerprint(
            self.trace.name,
            self.trace.new_states,
            lambda: trace_cell(cell, inputs, hidden).new_states,
        )
        for what in self.trace.unused:
            choice.say(f"{self.trace.name}: nothing depends on its {what}; use it, or leave it out")
        order = plan_trace(self.trace, hidden, replace(self.options, training=False)).parameters
        #: What stands for one-hot vectors of the tokens that the layer reads, if it reads any.
        self.gather: Gather | None = None
        if tokens:
            found = gather_products(self.trace)
            assert found is not None, "the network asks first"
            self.trace, weights = found
            self.gather = Gather(name, weights)
        #: Whether something below has parameters to learn.
        self.need_d_x = True
        self.plan = self.kernel(masked=False, resets=False, training=True).plan
        self.width = self.plan.states[self.plan.output]
        self.parameters = {
            f"{name}.{key}": replace(
                parameter, name=f"{name}.{key}", gates=parameter.gates and name
            )
            for key, parameter in order.items()
        }

    def kernel(self, masked: bool, resets: bool, training: bool) -> WindowKernel:
        """The kernel of the plan with or without masks, resets and a backward; built once."""
        options = replace(self.options, masked=masked, resets=resets, training=training)
        if not training:  # dropout is off, and its place in the plan with it
            options = replace(options, recurrent_dropout=0.0)
        with self._building:
            if options not in self._kernels:
                plan = plan_trace(self.trace, self.hidden, options)
                with compiling(self.name):
                    self._kernels[options] = self.choice.build(plan)
            return self._kernels[options][1]

    @property
    def kernel_name(self) -> str:
        """The kernel that runs this layer, where it needs no masks and resets."""
        return next(iter(self._kernels.values()))[0]

    @property
    def kernel_variant(self) -> str:
        """That kernel, with what its bits depend on beside its name."""
        name, kernel = next(iter(self._kernels.values()))
        return f"{name} ({kernel.variant})" if kernel.variant else name

    def zero_states(self, rows: int) -> dict[str, FloatArray]:
        """States of ``rows`` rows before anything was read."""
        return {
            name: self.choice.where.zeros((rows, width), self.choice.dtype)
            for name, width in self.plan.states.items()
        }

    def forward(self, parameters: Arrays, x: Any, run: Pass) -> tuple[FloatArray, Backward]:
        kernel = self.kernel(run.mask is not None, run.reset is not None, run.training)
        gather_back = None
        if self.gather is not None:
            x, gather_back = self.gather.forward(parameters, x, run)
        steps, rows = x.shape[:2]
        workspace = self._workspace(kernel, run, steps, rows)
        mine = {key: parameters[f"{self.name}.{key}"] for key in kernel.plan.parameters}
        states = run.states.get(self.name) or self.zero_states(rows)
        output = kernel.forward(workspace, mine, x, states, self._extras(kernel, run, steps, rows))
        after = kernel.states_after(workspace, min(run.carry, steps))
        run.new_states[self.name] = {n: run.device.copy(value) for n, value in after.items()}

        return output, _WindowBackward(self, kernel, workspace, gather_back)

    def _workspace(self, kernel: WindowKernel, run: Pass, steps: int, rows: int) -> Any:
        key = (self.name, kernel)
        known = run.memory.workspaces.get(key)
        if known is None or known[0] != (rows, run.threads) or known[1] < steps:
            made = kernel.workspace(steps, rows, run.threads)
            known = run.memory.workspaces[key] = ((rows, run.threads), steps, made)
        return known[2]

    def _extras(self, kernel: WindowKernel, run: Pass, steps: int, rows: int) -> dict[str, Any]:
        """The plan's inputs besides ``x`` and the states."""
        extras: dict[str, Any] = {}
        dropout = self.options.recurrent_dropout
        for name, symbol in kernel.plan.inputs.items():
            purpose, _, state = name.rstrip("?").partition(":")
            layer = f"{self.name}.{state}"
            if name == "mask?":
                extras[name] = run.mask
            elif name == "reset?":
                extras[name] = run.reset
            elif purpose == "zoneout":
                shape = (steps, rows, symbol.width)
                extras[name] = run.memory.array(f"{layer}.zoneout", shape, np.bool_)
                random = run.random(ZONEOUT, layer)
                run.device.chosen(random, dict(self.options.zoneout)[state], extras[name])
            elif purpose == "drop":
                kept = run.random(RECURRENT_DROPOUT, layer).random((rows, symbol.width))
                extras[name] = self._loaded(run, name, (kept >= dropout) / (1.0 - dropout))
            elif purpose == "initial":
                normal = run.random(INITIAL_STATE, layer).standard_normal((rows, symbol.width))
                extras[name] = self._loaded(run, name, normal)
        return extras

    def _loaded(self, run: Pass, name: str, values: Any) -> FloatArray:
        """Numbers that the host has drawn, in the lane's memory."""
        array = run.memory.array(f"{self.name}.{name}", values.shape, self.choice.dtype)
        run.device.load(array, values.astype(self.choice.dtype))
        return array


class _WindowBackward:
    """The backward of one window; a ``Backward`` that can take and give states' gradients too."""

    def __init__(
        self, layer: RecurrentLayer, kernel: WindowKernel, workspace: Any, gather_back: Any
    ) -> None:
        self.layer, self.kernel, self.workspace = layer, kernel, workspace
        self.gather_back = gather_back

    def __call__(
        self, d_output: FloatArray, gradients: Arrays, records: dict[str, FloatArray] | None
    ) -> FloatArray | None:
        record = None
        if records is not None:
            device = self.layer.choice.where
            record = records[self.layer.name] = device.empty(d_output.shape, d_output.dtype)
        return self.run(d_output, gradients, None, record)[0]

    def run(
        self,
        d_output: FloatArray,
        gradients: Arrays,
        d_states: Arrays | None = None,
        record: FloatArray | None = None,
    ) -> tuple[FloatArray | None, dict[str, FloatArray]]:
        """The gradients of the input and of the states before the window."""
        name = self.layer.name
        targets = {key: gradients[f"{name}.{key}"] for key in self.kernel.plan.parameters}
        need_d_x = self.layer.need_d_x or self.gather_back is not None
        d_x, d_before = self.kernel.backward(
            self.workspace, d_output, d_states or {}, targets, need_d_x, record
        )
        if self.gather_back is None:
            return d_x, d_before
        self.gather_back(d_x, gradients)
        return None, d_before


class Bidirectional(Layer):
    """Two recurrent layers over the same input, one of them reading it backwards.

    ``(T, B, I)`` → ``(T, B, 2 H)``: the outputs side by side. The window must hold whole sequences.
    """

    def __init__(self, forwards: RecurrentLayer, backwards: RecurrentLayer) -> None:
        self.name = forwards.name
        self.ahead, self.back = forwards, backwards
        if backwards.gather is not None:
            backwards.gather.turned = True
        self.width = forwards.width + backwards.width
        self.parameters: dict[str, Parameter] = forwards.parameters | backwards.parameters

    def forward(self, parameters: Arrays, x: Any, run: Pass) -> tuple[FloatArray, Backward]:
        device, memory, shape = run.device, run.memory, x.shape[:2]
        ahead, backward_ahead = self.ahead.forward(parameters, x, run)
        reverse = replace(
            run,
            mask=None if run.mask is None else _turned(run, "mask", run.mask),
            reset=self._start(run, shape),
            states={},
        )
        turned = x if self.back.gather is not None else _turned(run, f"{self.name}.turned", x)
        back, backward_back = self.back.forward(parameters, turned, reverse)
        dtype = ahead.dtype
        output = memory.array(f"{self.name}.both", (*shape, self.width), dtype)
        split = self.ahead.width
        device.copy_columns(ahead, 0, output, 0, split)
        device.copy_columns(back, 0, output, split, self.back.width, turned=True)

        def backward(
            d_output: FloatArray, gradients: Arrays, records: dict[str, FloatArray] | None
        ) -> FloatArray | None:
            d_ahead = memory.array(f"{self.name}.d_ahead", (*shape, split), dtype)
            device.copy_columns(d_output, 0, d_ahead, 0, split)
            d_back = memory.array(f"{self.name}.d_back", (*shape, self.back.width), dtype)
            device.copy_columns(d_output, split, d_back, 0, self.back.width, turned=True)
            d_x_ahead = backward_ahead(d_ahead, gradients, records)
            d_x_back = backward_back(d_back, gradients, records)
            if records is not None:  # in the order of time, as all others
                record = records[self.back.name]
                records[self.back.name] = device.empty(record.shape, record.dtype)
                device.copy_columns(
                    record, 0, records[self.back.name], 0, record.shape[2], turned=True
                )
            if d_x_ahead is None or d_x_back is None:
                return None
            d_x = memory.array(f"{self.name}.d", x.shape, x.dtype)
            device.copy_columns(d_x_ahead, 0, d_x, 0, x.shape[2])
            device.copy_columns(d_x_back, 0, d_x, 0, x.shape[2], turned=True, add=True)
            return d_x

        return output, backward

    def _start(self, run: Pass, shape: tuple[int, ...]) -> Any:
        """Resets of the first step alone."""
        key = (f"{self.name}.start", shape)
        if key not in run.memory.workspaces:
            start = np.zeros((*shape, 1), np.bool_)
            start[0] = True
            run.memory.workspaces[key] = run.device.put(start)
        return run.memory.workspaces[key]


def _turned(run: Pass, name: str, array: Any) -> Any:
    """``(T, B, W)`` from the last step to the first."""
    turned = run.memory.array(name, array.shape, array.dtype)
    run.device.copy_columns(array, 0, turned, 0, array.shape[2], turned=True)
    return turned


class Residual(Layer):
    """A layer whose input is added to its output."""

    def __init__(self, inner: Layer, inputs: int) -> None:
        if inner.width != inputs:
            raise JobError(
                f"model.layers: {inner.name} is residual, and its output is {inner.width} wide "
                f"where its input is {inputs} wide; make them equal or set residual = false"
            )
        self.inner = inner
        self.name, self.width, self.parameters = inner.name, inner.width, inner.parameters

    def forward(self, parameters: Arrays, x: Any, run: Pass) -> tuple[FloatArray, Backward]:
        y, inner_backward = self.inner.forward(parameters, x, run)
        output = run.memory.array(f"{self.name}.residual", y.shape, y.dtype)
        run.device.add(x, y, output)

        def backward(
            d_output: FloatArray, gradients: Arrays, records: dict[str, FloatArray] | None
        ) -> FloatArray | None:
            d_x = inner_backward(d_output, gradients, records)
            if d_x is None:
                return None
            total = run.memory.array(f"{self.name}.residual.d", d_x.shape, d_x.dtype)
            run.device.add(d_x, d_output, total)
            return total

        return output, backward
