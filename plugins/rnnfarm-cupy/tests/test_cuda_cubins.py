"""All kernels of all built-in parts are compiled for GPUs that are not here."""

from __future__ import annotations

import pytest
from rnnfarm_cupy.compiler import compile_cubin, missing_compiler
from rnnfarm_cupy.device import CUDADevice
from rnnfarm_cupy.figures import A100, H200, Figures
from rnnfarm_cupy.kernel import CUDAKernel, write
from rnnfarm_cupy.resident import choices, made
from rnnfarm_cupy.runtime import Program, Runtime
from thorough import THOROUGH, times

from rnnfarm.equations.plan import make_plan
from rnnfarm.kernels.case import variants
from rnnfarm.kernels.choose import KernelChoice
from rnnfarm.nn.loss import LossFunction
from rnnfarm.plugins import Registry
from rnnfarm.training.optimizer import OptimizerPass

pytestmark = pytest.mark.skipif(missing_compiler() is not None, reason=str(missing_compiler()))
REGISTRY = Registry.load()
ARCHES = ("sm_80", "sm_90")
PRECISIONS = ("full", "tf32", "bf16", "float64")


def compiled(source: str, arches: tuple[str, ...] = ARCHES) -> None:
    """No kernel keeps registers in memory."""
    for arch in arches:
        found = compile_cubin(source, arch)
        assert found.kernels
        for figures in found.kernels:
            print(arch, figures)
            assert figures.spill_bytes == 0, (arch, figures)


#: Usually two precisions of each cell, and one architecture of each.
OF_CELLS = [
    (precision, name)
    for turn, name in enumerate(REGISTRY.names("cells"))
    for place, precision in enumerate(PRECISIONS)
    if THOROUGH or (turn + place) % 2 == 0
]


@pytest.mark.parametrize(("precision", "name"), OF_CELLS)
def test_cells(name: str, precision: str) -> None:
    """At a width that fills tiles, with all that a plan may have."""
    settings = {"projection": 128} if name == "lstm_projection" else {}
    cell = REGISTRY.get("cells", name)(**settings)
    plan = make_plan(cell, 256, 512, variants(cell.states)["all"])
    turn = OF_CELLS.index((precision, name))
    dtype, precision = ("float64", "full") if precision == "float64" else ("float32", precision)
    arches = ARCHES if THOROUGH else (ARCHES[turn % 2],)
    compiled(write(plan, dtype, precision).source(), arches)


#: Rows and widths at which persistent kernels are compiled: those of ``benchmarks/gpu.py``.
SHAPES = ((16, 768), (64, 512), (256, 1024), (32, 256))
OF_UNITS = ("lstm", "gru", "elman", "mgu_gate_after", "lstm_peephole", "indrnn")
#: A compile takes many seconds: usually of the GRU alone.
PERSISTENT = (
    [(name, arch) for name in OF_UNITS for arch in ARCHES] if THOROUGH else [("gru", "sm_80")]
)


class Collecting(Runtime):
    """Takes sources, and computes nothing."""

    name, shared_limit, multiprocessors = "none", 99 << 10, 4

    def __init__(self) -> None:
        self.sources: list[str] = []

    def load(self, source: str) -> Program:
        self.sources.append(source)
        return Named()

    def is_mine(self, array: object) -> bool:
        return False

    def _nothing(self, *_: object, **__: object) -> None:
        raise AssertionError("nothing is computed here")

    empty = put = get = address = copy = clear = launch = product = recorded = _nothing  # type: ignore[assignment]
    late = sender = synchronize = elapsed = figures = resident = _nothing  # type: ignore[assignment]


class Named(Program):
    def function(self, name: str, shared: int = 0) -> str:
        return name


class Compiled(Program):
    def __init__(self, source: str, arch: str) -> None:
        self._kernels = {one.name: one for one in compile_cubin(source, arch).kernels}

    def spills(self, name: str) -> int:
        return self._kernels[name].spill_bytes

    def function(self, name: str, shared: int = 0) -> str:
        return name


class Compiling(Collecting):
    """Compiles sources for a device that is not here."""

    def __init__(self, arch: str, figures: Figures) -> None:
        super().__init__()
        self.arch, self.shared_limit = arch, figures.shared
        self.multiprocessors = figures.multiprocessors

    def load(self, source: str) -> Program:
        return Compiled(source, self.arch)

    def resident(self, function: object, block: int, shared: int) -> int:
        return self.multiprocessors


@pytest.mark.parametrize(("name", "arch"), PERSISTENT)
def test_persistent_kernels(name: str, arch: str) -> None:
    """As they are chosen for an A100 and an H200: a precision for each shape and architecture."""
    cell = REGISTRY.get("cells", name)()
    figures = A100 if arch == "sm_80" else H200
    shapes = SHAPES[:: 1 if arch == "sm_90" else 3] if THOROUGH else SHAPES[:1]
    for number, (rows, hidden) in enumerate(shapes):
        turn = number + OF_UNITS.index(name) + ARCHES.index(arch)
        precision = ("bf16", "tf32", "full")[turn % 3]
        plan = make_plan(cell, hidden, hidden, variants(cell.states)[("plain", "all")[turn % 2]])
        loops = write(plan, "float32", precision).loops
        chosen = [
            choice
            for choice in choices(loops, rows, precision, figures)
            if choice.prediction is not None
        ]
        if chosen:
            runtime = Compiling(arch, figures)
            resident, program = made(runtime, loops, chosen, "float32", precision)
            for code in resident.codes.values():
                print(arch, figures.name, rows, hidden, precision, code.name, code.partition)
                assert program.spills(code.name) == 0, code.partition


@pytest.mark.parametrize("dtype", ["float32", "float64"][: times(usual=1, thorough=2)])
def test_losses_optimizers_and_the_library(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where nothing is computed, nothing can be checked.
    monkeypatch.setattr("rnnfarm.kernels.choose.rows_check", lambda *_: None)
    runtime = Collecting()
    choice = KernelChoice({"cuda": CUDAKernel(runtime)}, device="cuda", dtype=dtype)
    for name in REGISTRY.names("losses"):
        loss = REGISTRY.get("losses", name)()
        LossFunction(loss, loss.outputs(300), 300, dtype, choice)
    for name in REGISTRY.names("optimizers"):
        optimizer = REGISTRY.get("optimizers", name)(weight_decay=0.1)
        OptimizerPass(optimizer, [(0, 8, True), (8, 9, False)], dtype, choice=choice, bound=1.0)
    assert CUDADevice(runtime)._programs
    assert len(runtime.sources) > 20
    for number, source in enumerate(dict.fromkeys(runtime.sources)):
        compiled(source, ARCHES if THOROUGH else (ARCHES[number % 2],))
