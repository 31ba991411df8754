"""The kernel that runs plans through generated C."""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import numpy as np

from rnnfarm.equations.graph import Symbol
from rnnfarm.equations.memory import Buffer, Location
from rnnfarm.equations.plan import Plan
from rnnfarm.equations.regions import Action, Product, Program, Region, WeightGradient
from rnnfarm.errors import DeviceError
from rnnfarm.kernels.fused_rows import can_be_fused
from rnnfarm.kernels.interface import Array, Kernel, RowKernel, WindowKernel
from rnnfarm_cpu.compiled import Compiled
from rnnfarm_cpu.compiler import NO_COMPILER, find_compiler
from rnnfarm_cpu.parts import Operands, parts
from rnnfarm_cpu.processor import this_target
from rnnfarm_cpu.rows import CPURows
from rnnfarm_cpu.source import SIZES, SourceWriter
from rnnfarm_cpu.team import team
from rnnfarm_cpu.tiles import Tiling

#: Arrays start at a cache line, so that no vector lies across two.
ALIGNMENT = 64
#: Bytes of recurrent weights, packed for forward and backward, from which on few rows are shared
#: among threads by their units: a step has to take longer than the threads wait for each other.
LARGE = 1 << 18


class CPUKernel(Kernel):
    """Runs plans through C that is generated from them and compiled on this machine."""

    devices = ("cpu",)
    priority = 10

    def refusal(self, plan: Plan, device: str, dtype: str) -> str | None:
        if device != "cpu":
            return f"it runs on the CPU, not on {device}"
        if dtype not in SIZES:
            return f"it computes in {' and '.join(SIZES)}, not in {dtype}"
        return self.missing()

    def build(self, plan: Plan, dtype: str) -> WindowKernel:
        return CPUWindowKernel(plan, dtype)

    def rows(
        self,
        name: str,
        results: Mapping[str, Symbol],
        dtype: str,
        scalars: Collection[str] = (),
        integers: Collection[str] = (),
    ) -> RowKernel | None:
        if dtype not in SIZES or self.missing() is not None:
            return None
        if not can_be_fused(results, integers, dtype):
            return None
        return CPURows(name, results, dtype, scalars, integers)

    def missing(self) -> str | None:
        try:
            this_target()
            return None if find_compiler() is not None else NO_COMPILER
        except DeviceError as error:  # what the environment asks for cannot be had
            return str(error)


class CPUWindowKernel(Compiled, WindowKernel):
    """A plan, compiled to C."""

    def __init__(self, plan: Plan, dtype: str) -> None:
        self.plan = plan
        self.dtype = np.dtype(dtype)
        target = this_target()
        self.variant = target.name
        self.program = Program(plan)
        #: Every thread's tiles; how large they are, the writer knows in the end.
        self.program.buffers.add("tiles", Buffer("packed", 0))
        writer = SourceWriter(self.program, Tiling.of(target, SIZES[dtype]), dtype)
        actions = (*self.program.forward, *self.program.backward, *self.program.input_gradient)
        self._regions = {
            action.name: writer.add(action) for action in actions if isinstance(action, Region)
        }
        self.compile(writer.source(), target)
        self.tile_size = writer.tile_size
        #: Bytes of all packed weights.
        self.recurrent_bytes = sum(writer.packed.values()) * self.dtype.itemsize
        reached = {w.name for g in plan.weight_gradients for w in g.weights}
        #: Parameters without a gradient.
        self._unreached = plan.parameters.keys() - reached - plan.vector_gradients.keys()

    def workspace(self, steps: int, rows: int, threads: int = 1) -> Workspace:
        return Workspace(self, steps, rows, threads)

    def forward(
        self,
        workspace: Workspace,
        parameters: Mapping[str, Array],
        x: Array,
        states: Mapping[str, Array],
        extras: Mapping[str, Array],
    ) -> Array:
        workspace.length = len(x)
        workspace.parameters = parameters
        workspace.give("given x", x)
        for name, array in extras.items():
            workspace.give(f"given {name}", array)
        for name, array in parameters.items():
            workspace.give(f"parameter {name}", array)
            workspace.give(f"weight {name}", array)
        for name in self.plan.states:
            np.copyto(workspace.arrays[f"state {name}"][0], states[name])
        self._act(workspace, self.program.forward)
        after: Array = workspace.arrays[f"state {self.plan.output}"][1 : len(x) + 1]
        return after

    def backward(
        self,
        workspace: Workspace,
        d_output: Array,
        d_states: Mapping[str, Array],
        gradients: Mapping[str, Array],
        need_d_x: bool = True,
        record: Array | None = None,
    ) -> tuple[Array | None, dict[str, Array]]:
        if not self.plan.options.training:
            raise RuntimeError("this plan was made for evaluation; it has no backward")
        workspace.gradients = gradients
        workspace.give("given dy", d_output)
        workspace.give("given record", record)
        for name in self.plan.states:
            given = d_states.get(name)
            np.copyto(workspace.arrays[f"d {name}"][0], 0.0 if given is None else given)
        for name, gradient in gradients.items():
            workspace.give(f"gradient {name}", gradient)
            if name in self._unreached:
                gradient.fill(0.0)
        self._act(workspace, self.program.backward)
        half = workspace.length % 2
        d_before = {name: workspace.arrays[f"d {name}"][half] for name in self.plan.states}
        return self._d_x(workspace) if need_d_x else None, d_before

    def states_after(self, workspace: Workspace, step: int) -> dict[str, Array]:
        return {name: workspace.arrays[f"state {name}"][step] for name in self.plan.states}

    def _d_x(self, workspace: Workspace) -> Array:
        if self.program.d_x is None:
            shape = (workspace.length, workspace.rows, self.plan.width_in)
            return np.zeros(shape, self.dtype)
        self._act(workspace, self.program.input_gradient)
        return workspace.window(self.program.d_x, self.plan.width_in)

    def _act(self, workspace: Workspace, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Region):
                workspace.run(self.run, self._regions[action.name])
            else:
                workspace.multiply(_products(workspace, action))


class Workspace:
    """The arrays of one window in flight, and the table of pointers to them."""

    def __init__(self, kernel: CPUWindowKernel, steps: int, rows: int, threads: int) -> None:
        buffers = kernel.program.buffers
        self.rows = rows
        self.threads = threads
        self.length = 0
        self.dtype = kernel.dtype
        self.arrays: dict[str, Array] = {}
        self.parameters: Mapping[str, Array] = {}
        self.gradients: Mapping[str, Array] = {}
        self._library = kernel.library
        self._buffers = buffers
        self._large = kernel.recurrent_bytes >= LARGE
        self._table = (ctypes.c_void_p * len(buffers.number))()
        for name, buffer in buffers.known.items():
            if buffer.given:
                continue
            shape = buffer.shape(steps, rows)
            if name == "tiles":
                shape = (kernel.tile_size * threads,)
            self.arrays[name] = aligned_zeros(shape, self.dtype)
            self._table[buffers.number[name]] = self.arrays[name].ctypes.data

    def give(self, name: str, array: Array | None) -> None:
        """Set an array that the caller brings, if the program reads it."""
        number = self._buffers.number.get(name)
        if number is None:
            return
        if array is None:
            self._table[number] = None
            return
        element = self._buffers.known[name].element
        dtype = np.dtype(np.bool_) if element == "bool" else self.dtype
        if array.dtype != dtype or not array.flags.c_contiguous:
            if name.startswith(("gradient ", "given record")):
                raise ValueError(f"{name}: it must be a contiguous array of {dtype}")
            array = np.ascontiguousarray(array, dtype)
        self.arrays[name] = array  # kept, so that it lives as long as its pointer
        self._table[number] = array.ctypes.data

    def run(self, function: Any, region: int) -> None:
        """Run a region of the compiled program."""
        by_units = self._large and self.rows < 2 * self.threads
        threads = self.threads if by_units else min(self.threads, self.rows)
        mates = team(self._library, self.threads)
        pool = None if mates is None else mates.pool
        function(region, self._table, self.length, self.rows, threads, int(by_units), pool)

    def multiply(self, products: list[Operands]) -> None:
        """Products by the BLAS, cut into parts that threads share."""
        tasks = [partial(np.matmul, *part) for product in products for part in parts(*product)]
        mates = team(self._library, self.threads)
        if mates is None or len(tasks) == 1:
            for task in tasks:
                task()
        else:
            mates.run(tasks)

    def window(self, location: Location, width: int) -> Array:
        """``(T, B, width)``: what lies at a location over the window."""
        first = int(location.later)
        array = self.arrays[location.buffer][first : self.length + first]
        return array[:, :, location.offset : location.offset + width]

    def flat(self, location: Location, width: int) -> Array:
        """The same as a matrix of ``T * B`` rows."""
        return self.window(location, width).reshape(self.length * self.rows, width)


def _products(workspace: Workspace, action: Product | WeightGradient) -> list[Operands]:
    """The products of an action: ``(a, b, out)`` each."""
    spans, start = [], 0
    for weight in action.weights:
        spans.append((weight.name, start, start + weight.shape[1]))
        start += weight.shape[1]
    inputs = action.weights[0].shape[0]
    if isinstance(action, WeightGradient):
        turned = workspace.flat(action.vector, inputs).T
        arriving = workspace.flat(action.gradient, start)
        return [(turned, arriving[:, a:b], workspace.gradients[name]) for name, a, b in spans]
    weights = [workspace.parameters[name] for name, _, _ in spans]
    if action.transposed:
        joined = weights[0] if len(weights) == 1 else np.concatenate(weights, axis=1)
        argument = workspace.flat(action.argument, start)
        return [(argument, joined.T, workspace.flat(action.result, inputs))]
    argument, result = workspace.flat(action.argument, inputs), workspace.flat(action.result, start)
    return [
        (argument, weight, result[:, a:b]) for weight, (_, a, b) in zip(weights, spans, strict=True)
    ]


def aligned_zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Zeros that start at a cache line."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)
