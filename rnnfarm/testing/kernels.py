"""The check of kernels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rnnfarm.equations.parts import Cell
from rnnfarm.kernels.case import Case, Sizes, disagreement, make_case, variants
from rnnfarm.kernels.interface import Kernel
from rnnfarm.testing.cells import ODD_SIZES
from rnnfarm.testing.tools import require, sizes_of

#: Beyond the odd ones: what is no multiple of a vector register, and what is one.
SIZES: tuple[Sizes, ...] = (*ODD_SIZES, (5, 3, 3, 4), (6, 17, 33, 65), (3, 32, 16, 64))


def check_kernel(
    kernel: Kernel,
    cells: Iterable[Cell] | None = None,
    *,
    dtypes: Iterable[str] = ("float32", "float64"),
    tolerances: Mapping[str, float] | None = None,
) -> None:
    """Compare a kernel with the NumPy reference, forward and backward.

    With masks, resets, zoneout and dropout, at odd sizes, in a workspace that is used again.

    Args:
        kernel: the kernel.
        cells: the cells that it has to run; the built-in ones if absent. Plans that the kernel
            refuses are passed over, but it may not refuse all.
        dtypes: the dtypes to check.
        tolerances: dtype → allowed difference, relative to the largest element.
    """
    allowed = {"float32": 1e-4, "float64": 1e-9} | dict(tolerances or {})
    ran = 0
    for cell in _builtin_cells() if cells is None else cells:
        for dtype in dtypes:
            for case, reference in _pairs(kernel, cell, dtype):
                _compare(case, reference, allowed[dtype])
                ran += 1
    require(ran, f"{type(kernel).__name__}: it refused every plan of every cell")


def _builtin_cells() -> list[Cell]:
    from rnnfarm.builtin import cells

    made: list[Cell] = [cells.LSTMProjection(projection=3), cells.Elman(activation="relu")]
    plain = (
        cells.Elman, cells.Jordan, cells.LSTM, cells.LSTMPeephole, cells.LSTMLayerNorm,
        cells.GRU, cells.GRUResetBefore, cells.MGU, cells.MGUGateAfter, cells.IndRNN,
    )  # fmt: skip
    return made + [cell() for cell in plain]


def _pairs(kernel: Kernel, cell: Cell, dtype: str) -> Iterable[tuple[Case, Case]]:
    kinds = variants(cell.states)
    for sizes in SIZES:
        for name in kinds if sizes == (5, 3, 3, 4) else ("plain", "all"):
            reference = make_case(cell, kinds[name], sizes, dtype=dtype)
            if kernel.refusal(reference.plan, kernel.devices[0], dtype) is None:
                yield make_case(cell, kinds[name], sizes, dtype=dtype, kernel=kernel), reference


def _compare(case: Case, reference: Case, allowed: float) -> None:
    who = f"the kernel of {case.plan.cell} in {case.x.dtype} at (T, B, I, H) = {sizes_of(case)}"
    found, expected = case.arrays(), reference.arrays()
    problem = disagreement(found, expected, allowed)
    require(problem is None, f"{who}: {problem}")
    require(
        case.results() == {name: array.tobytes() for name, array in found.items()},
        f"{who}: the same window gives other bits the second time",
    )
    for each in (case, reference):
        steps = max(1, len(each.x) - 1)
        each.x, each.d_output = each.x[:steps].copy(), each.d_output[:steps].copy()
        each.extras = {n: a[:steps] if a.ndim == 3 else a for n, a in each.extras.items()}
    problem = disagreement(case.arrays(), reference.arrays(), allowed)
    require(problem is None, f"{who}: after a shorter window in the same workspace, {problem}")
