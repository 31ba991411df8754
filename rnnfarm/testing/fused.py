"""The check of a part on every kernel that this machine has, against the NumPy reference."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rnnfarm.equations.instrument import PlanOptions
from rnnfarm.equations.parts import Cell, Loss, Optimizer
from rnnfarm.equations.plan import make_plan
from rnnfarm.kernels.case import variants
from rnnfarm.kernels.choose import REFERENCE, KernelChoice, self_check
from rnnfarm.kernels.interface import Kernel
from rnnfarm.nn.loss import LossFunction
from rnnfarm.testing.cells import usual_sizes
from rnnfarm.testing.tools import require
from rnnfarm.training.optimizer import OptimizerPass

DTYPE = "float32"
#: Values or classes of a loss's target.
WIDTH = 5
SEGMENTS = ((0, 30, True), (30, 37, False))


def check_on_kernels(part: Cell | Loss | Optimizer, kernels: Mapping[str, Kernel]) -> list[str]:
    """Compare what every kernel computes of a part with the reference, in float32.

    Returns a sentence for each kernel that leaves the part to the reference. Raises AssertionError
    for one that cannot compile it, or computes something else.
    """
    notes: list[str] = []
    for name, kernel in kernels.items():
        if name == REFERENCE or kernel.missing() is not None:
            continue
        if isinstance(part, Cell):
            notes += _check_cell(part, name, kernel)
        elif isinstance(part, Optimizer) or part.evaluate is None:
            notes += _check_rows(part, name, kernel)
    return notes


def _check_cell(cell: Cell, name: str, kernel: Kernel) -> Iterator[str]:
    who = f"{type(cell).__name__}: the kernel {name!r}"
    sizes = usual_sizes(cell)
    kinds = variants(cell.states)
    for options in (PlanOptions(), kinds["all"]):
        plan = make_plan(cell, sizes[2], sizes[3], options)
        refusal = kernel.refusal(plan, kernel.devices[0], DTYPE)
        if refusal is not None:
            yield f"the kernel {name!r} does not run it: {refusal}"
            return
        try:
            fault = self_check(kernel.build(plan, DTYPE), plan, DTYPE)
        except Exception as error:  # whatever a foreign kernel raises
            raise AssertionError(f"{who} fails with {type(error).__name__}: {error}") from error
        require(fault is None, f"{who} cannot be used for it: {fault}")


def _check_rows(part: Loss | Optimizer, name: str, kernel: Kernel) -> Iterator[str]:
    choice = KernelChoice({name: kernel}, name, dtype=DTYPE)
    with _silent():
        if isinstance(part, Loss):
            used = LossFunction(part, part.outputs(WIDTH), WIDTH, DTYPE, choice).kernel_name
        else:
            used = OptimizerPass(part, SEGMENTS, DTYPE, choice=choice).kernel_name
    faults = "; ".join(sorted(choice.said))
    require(not faults, f"{type(part).__name__}: {faults}")
    if used != name:
        yield f"the kernel {name!r} leaves it to the kernel {used!r}"


@contextmanager
def _silent() -> Iterator[None]:
    """What a choice of kernels says becomes part of a finding, and is not said besides."""
    log = logging.getLogger("rnnfarm")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
