"""The kernel that runs plans through generated CUDA."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rnnfarm.equations.graph import Symbol
from rnnfarm.equations.plan import Plan
from rnnfarm.equations.regions import Program, Region
from rnnfarm.errors import DeviceError
from rnnfarm.kernels.case import case_of
from rnnfarm.kernels.fused_rows import can_be_fused
from rnnfarm.kernels.interface import Array, Kernel, RowKernel, WindowKernel
from rnnfarm_cupy.device import CUDADevice
from rnnfarm_cupy.figures import H200
from rnnfarm_cupy.loop import LoopText
from rnnfarm_cupy.partition import Partition, Spread
from rnnfarm_cupy.persistent import KernelText, PersistentCode
from rnnfarm_cupy.resident import (
    Resident,
    choices,
    debugging,
    loops_of,
    made,
)
from rnnfarm_cupy.rows import CUDARows
from rnnfarm_cupy.runtime import PRECISIONS, Runtime, arithmetic
from rnnfarm_cupy.source import (
    SIZES,
    RegionCode,
    SourceWriter,
    StageCode,
    program_text,
)
from rnnfarm_cupy.workspace import Workspace

log = logging.getLogger("rnnfarm")
#: The environment's choice of what runs the kernels: ``host`` for the CPU's stand-in.
VARIABLE = "RNNFARM_CUDA"
#: The environment's choice whether one kernel may go through all steps: ``never``.
PERSISTENT = "RNNFARM_CUDA_PERSISTENT"
#: Steps from which on a persistent kernel is worth its preparations.
WORTH_PERSISTENT = 8
#: Steps of the window on which persistent kernels are compared with kernels for every step.
CHECKED_STEPS = 3


class CUDAKernel(Kernel):
    """Runs plans on an NVIDIA GPU, through CUDA that is generated from them."""

    devices: ClassVar[tuple[str, ...]] = ("cuda",)
    priority = 20

    def __init__(
        self,
        runtime: Runtime | None = None,
        precision: str = "full",
        spread: Spread | None = None,
    ) -> None:
        """``spread``: of all persistent kernels, where it is not to be chosen for each window."""
        self._runtime = runtime
        self.precision = precision
        self.spread = spread

    @property
    def runtime(self) -> Runtime:
        """What runs the kernels. DeviceError where there is no GPU."""
        if self._runtime is None:
            self._runtime = the_runtime()
        return self._runtime

    def in_precision(self, precision: str) -> CUDAKernel:
        if precision not in PRECISIONS:
            raise ValueError(f"precision {precision!r} is none of {', '.join(PRECISIONS)}")
        return CUDAKernel(self._runtime, precision, self.spread)

    def refusal(self, plan: Plan, device: str, dtype: str) -> str | None:
        if device != "cuda":
            return f"it runs on NVIDIA GPUs, not on {device}"
        if dtype not in SIZES:
            return f"it computes in {' and '.join(SIZES)}, not in {dtype}"
        return self.missing()

    def build(self, plan: Plan, dtype: str) -> WindowKernel:
        return CUDAWindowKernel(plan, dtype, self.precision, self.runtime, self.spread)

    def text(self, plan: Plan, dtype: str) -> str:
        return write(plan, dtype, self.precision).source()

    def rows(
        self,
        name: str,
        results: Mapping[str, Symbol],
        dtype: str,
        scalars: Collection[str] = (),
        integers: Collection[str] = (),
    ) -> RowKernel | None:
        if dtype not in SIZES or not can_be_fused(results, integers, dtype):
            return None
        return CUDARows(name, results, dtype, scalars, integers, self.runtime)

    def device(self) -> CUDADevice:
        return CUDADevice(self.runtime, self.precision)

    def about(self) -> tuple[str, ...]:
        one = self.runtime.figures()
        waits = f"{one.barrier * 1e6:.2f} µs"
        if one.cluster_barrier is not None:
            waits += f", in a cluster {one.cluster_barrier * 1e6:.2f} µs"
        return (
            f"{one.name}: {one.multiprocessors} multiprocessors with {one.registers >> 8} KiB of "
            f"registers and {one.shared >> 10} KiB of shared memory for a block; blocks wait for "
            f"each other {waits}",
        )

    def remarks(self, plan: Plan, dtype: str, steps: int, rows: int) -> tuple[str, ...]:
        if dtype not in SIZES:
            return ()
        here = self.missing() is None
        figures = self.runtime.figures() if here else H200
        where = figures.name if here else f"{figures.name}, for this machine has no GPU"
        found = choices(loops_of(Program(plan)), rows, arithmetic(dtype, self.precision), figures)
        return (
            f"predicted for {where}, {rows} rows",
            *(choice.sentence() for choice in found),
        )

    def missing(self) -> str | None:
        if self._runtime is not None or os.environ.get(VARIABLE) == "host":
            return None
        from rnnfarm_cupy.gpu import missing_gpu

        return missing_gpu()


@functools.cache
def the_runtime() -> Runtime:
    """This process's GPU, or its stand-in where the environment asks for that."""
    if os.environ.get(VARIABLE) == "host":
        from rnnfarm_cupy.host import HostRuntime

        return HostRuntime()
    from rnnfarm_cupy.gpu import CuPyRuntime

    return CuPyRuntime()


@dataclass(frozen=True)
class Written:
    """A plan's kernels.

    Attributes:
        regions: the kernels of each region, by its name.
        loops: for each region of steps its text as a loop of one kernel, or why that cannot be.
        persistent: those of them that are a part of the program.
    """

    program: Program
    writer: SourceWriter
    regions: dict[str, RegionCode]
    loops: dict[str, LoopText | str]
    persistent: dict[str, PersistentCode]

    def source(self) -> str:
        """The text of the program."""
        if not self.persistent:
            return self.writer.source()
        dtype, precision = self.writer.dtype, self.writer.precision
        return program_text(dtype, precision, self.writer.kernels, True, debugging())


def write(plan: Plan, dtype: str, precision: str, partition: Partition | None = None) -> Written:
    """A plan's kernels; where a partition is given, steps are persistent kernels if they can."""
    program = Program(plan)
    writer = SourceWriter(program, dtype, precision)
    loops = loops_of(program)
    persistent: dict[str, PersistentCode] = {}
    regions = {}
    for action in (*program.forward, *program.backward, *program.input_gradient):
        if not isinstance(action, Region):
            continue
        loop = loops.get(action.name)
        if partition is not None and isinstance(loop, LoopText):
            code = KernelText(loop, partition, arithmetic(dtype, precision)).code()
            persistent[action.name] = code
            writer.kernels += [*code.packs, code]
        else:
            regions[action.name] = writer.add(action)
    return Written(program, writer, regions, loops, persistent)


class CUDAWindowKernel(WindowKernel):
    """A plan, compiled to CUDA."""

    def __init__(
        self,
        plan: Plan,
        dtype: str,
        precision: str,
        runtime: Runtime,
        spread: Spread | None = None,
    ) -> None:
        self.plan = plan
        self.dtype = np.dtype(dtype)
        self.precision = precision if dtype == "float32" else "full"
        self.arithmetic = arithmetic(dtype, self.precision)
        self.runtime = runtime
        self.device = CUDADevice(runtime, precision)
        self.variant = f"{runtime.name}, {self.precision}"
        self.spread = spread
        partition = None if spread is None else spread.partition
        written = write(plan, dtype, self.precision, partition)
        self.written = written
        self.program, self.regions = written.program, written.regions
        #: Bytes of a word of packed weights.
        self.word = self.dtype.itemsize if self.precision == "full" else 4
        self.packed = written.writer.packed
        self.codes = written.writer.kernels
        self.source = written.source()
        reached = {w.name for g in plan.weight_gradients for w in g.weights}
        #: Parameters without a gradient.
        self._unreached = plan.parameters.keys() - reached - plan.vector_gradients.keys()
        #: By the number of rows.
        self._residents: dict[int, Resident | None] = {}

    @property
    def word_type(self) -> Any:
        """Of packed weights and operands."""
        return self.dtype if self.precision == "full" else np.dtype(np.uint32)

    def resident(self, steps: int, rows: int) -> Resident | None:
        """The persistent kernels for windows of this size, if there are any."""
        if self.spread is not None:
            codes = self.written.persistent
            groups = dict.fromkeys(codes, self.spread.groups)
            return Resident(codes, groups, self.functions)
        if steps < WORTH_PERSISTENT or os.environ.get(PERSISTENT) == "never":
            return None
        if rows not in self._residents:
            self._residents[rows] = self._chosen(rows)
        return self._residents[rows]

    def _chosen(self, rows: int) -> Resident | None:
        """The persistent kernels that are predicted to be faster and give the same bits."""
        loops = self.written.loops
        found = choices(loops, rows, self.arithmetic, self.runtime.figures())
        chosen = [choice for choice in found if choice.persistent]
        if not chosen:
            return None
        try:
            resident, program = made(self.runtime, loops, chosen, str(self.dtype), self.precision)
            fault = None if program.checked else self._difference(resident, rows)
        except DeviceError as error:
            fault = str(error)
        if fault is not None:
            log.warning(
                "%s runs through kernels for every step, which is slower: %s; please report this "
                "to the authors of rnnfarm-cupy", self.plan.cell, fault,
            )  # fmt: skip
            return None
        program.mark_checked()
        return resident

    def _difference(self, resident: Resident, rows: int) -> str | None:
        """What persistent kernels give another bit of than kernels for every step, or None."""
        case = case_of(self, (CHECKED_STEPS, rows), 0, str(self.dtype))
        results = []
        for one in (None, resident):
            case.workspace = Workspace(self, CHECKED_STEPS, rows, one)
            results.append(case.results())
        for name, bits in results[0].items():
            if results[1][name] != bits:
                return f"in its self-check the {name} differs from theirs"
        return None

    @property
    def checked(self) -> bool:  # type: ignore[override]
        """Whether this very program has passed its self-check on this GPU before."""
        return self.runtime.load(self.source).checked

    def mark_checked(self) -> None:
        self.runtime.load(self.source).mark_checked()

    @functools.cached_property
    def functions(self) -> dict[str, Any]:
        """The compiled kernels, by name."""
        program = self.runtime.load(self.source)
        found = {}
        for code in self.codes:
            shared = 0
            if isinstance(code, StageCode):
                shared = code.shared(self.rows_of(code, 1 << 30), self.word)
            elif isinstance(code, PersistentCode):
                shared = code.shared
            found[code.name] = program.function(code.name, shared)
        return found

    def rows_of(self, code: StageCode, rows: int) -> int:
        """Rows of a stage's block: as many as are worth it and fit. No bit depends on it."""
        for many in (64, 32):
            if many > code.most:
                continue
            if rows > many // 2 and code.shared(many, self.word) <= self.runtime.shared_limit:
                return many
        return 16

    def workspace(self, steps: int, rows: int, threads: int = 1) -> Workspace:
        return Workspace(self, steps, rows, self.resident(steps, rows))

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
            self.runtime.copy(workspace.arrays[f"state {name}"][0], states[name])
        workspace.act(self.program.forward)
        return workspace.arrays[f"state {self.plan.output}"][1 : len(x) + 1]

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
            given, target = d_states.get(name), workspace.arrays[f"d {name}"][0]
            if given is None:
                self.runtime.clear(target)
            else:
                self.runtime.copy(target, given)
        for name, gradient in gradients.items():
            workspace.give(f"gradient {name}", gradient)
            if name in self._unreached:
                self.runtime.clear(gradient)
        workspace.act(self.program.backward)
        half = workspace.length % 2
        d_before = {name: workspace.arrays[f"d {name}"][half] for name in self.plan.states}
        return self._d_x(workspace) if need_d_x else None, d_before

    def states_after(self, workspace: Workspace, step: int) -> dict[str, Array]:
        return {name: workspace.arrays[f"state {name}"][step] for name in self.plan.states}

    def _d_x(self, workspace: Workspace) -> Array:
        place = self.program.d_x
        if place is None:
            shape = (workspace.length, workspace.rows, self.plan.width_in)
            zeros = self.runtime.empty(shape, self.dtype)
            self.runtime.clear(zeros)
            return zeros
        workspace.act(self.program.input_gradient)
        first, width = int(place.later), self.plan.width_in
        array = workspace.arrays[place.buffer][first : workspace.length + first]
        if not place.offset and array.shape[-1] == width:
            return array
        # It is a part of what is kept for the weights' gradients.
        apart = self.runtime.empty((*array.shape[:2], width), self.dtype)
        self.device.copy_columns(array, place.offset, apart, 0, width)
        return apart
