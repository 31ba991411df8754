"""The check of cells."""

from __future__ import annotations

import numpy as np

from rnnfarm.equations.instrument import PlanOptions
from rnnfarm.equations.parts import Cell, trace_cell
from rnnfarm.errors import CellError
from rnnfarm.kernels.case import Case, Sizes, make_case, variants
from rnnfarm.nn.initialize import initial_values
from rnnfarm.testing.first_nan import first_not_finite
from rnnfarm.testing.tools import TOLERANCE, check_gradients, check_made_again, require

#: ``(T, B, I, H)`` with ones and twos among them.
ODD_SIZES: tuple[Sizes, ...] = ((1, 1, 1, 1), (2, 1, 3, 2), (1, 2, 2, 1), (7, 5, 1, 3))
#: The widths (I, H) that are tried for a cell that does not take the usual ones.
TRIED = sorted(
    ((inputs, hidden) for inputs in range(1, 17) for hidden in range(1, 17)),
    key=lambda pair: (abs(pair[1] - 4), abs(pair[0] - 3)),
)


def check_cell(cell: Cell, *, hidden: int = 4, tolerance: float = TOLERANCE) -> None:
    """Check a cell: gradients, determinism, and numbers that stay finite.

    Gradients are compared with central differences in float64, with masks, resets, every kind of
    initial state, zoneout and recurrent dropout, and at odd sizes.

    Args:
        cell: the cell with its settings.
        hidden: the hidden width of most checks, if it matters to the cell.
        tolerance: the relative error that is allowed.
    """
    check_made_again(cell)
    usual = usual_sizes(cell, hidden)
    kinds = variants(cell.states)
    cases = [(options, usual) for options in kinds.values()]
    odd = [sizes for sizes in ODD_SIZES if takes(cell, sizes)]
    cases += [(kinds[name], sizes) for sizes in odd for name in ("plain", "all")]
    with np.errstate(all="ignore"):
        _check_repeatable(cell, usual)
        for options, sizes in cases:
            _check_gradients(cell, options, sizes, tolerance)
        _check_uses_input(cell, usual)
        _check_stays_finite(cell, usual[2:])


def usual_sizes(cell: Cell, hidden: int = 4) -> Sizes:
    """Return ``(T, B, I, H)`` for the checks of a cell: with three inputs and ``hidden`` units, or
    with the first other widths that it can be traced with.

    Raises its CellError where there are none.
    """
    usual = (5, 3, 3, hidden)
    for inputs, units in () if takes(cell, usual) else TRIED:
        if takes(cell, (5, 3, inputs, units)):
            return (5, 3, inputs, units)
    trace_cell(cell, 3, hidden)
    return usual


def takes(cell: Cell, sizes: Sizes) -> bool:
    """Whether a cell can be traced with these widths."""
    try:
        trace_cell(cell, *sizes[2:])
    except CellError:
        return False
    return True


def _check_gradients(cell: Cell, options: PlanOptions, sizes: Sizes, tolerance: float) -> None:
    # A kink may lie between the two points of a difference, but a wrong gradient is wrong
    # wherever it is looked at, so one of three points has to agree.
    for seed in range(3):
        try:
            case = make_case(cell, options, sizes, seed)
            check_gradients(case, tolerance)
        except AssertionError as error:
            if seed == 2:
                line = first_not_finite(cell, case)
                raise AssertionError(f"{error} ({line})" if line else str(error)) from None
        else:
            return


def _check_repeatable(cell: Cell, sizes: Sizes) -> None:
    first, second = (make_case(cell, sizes=sizes).results() for _ in range(2))
    require(
        first == second,
        f"{type(cell).__name__}: traced twice, it gives two results; step must depend on its "
        "arguments and settings alone, and draw no numbers of its own",
    )


def _check_uses_input(cell: Cell, sizes: Sizes) -> None:
    case = make_case(cell, sizes=sizes)
    case.loss()
    require(
        case.backward()["x"].any(),
        f"{type(cell).__name__}: nothing that it gives depends on its input x",
    )


def _check_stays_finite(cell: Cell, widths: tuple[int, int]) -> None:
    """As it starts: from its own initial values, in float32."""
    name = type(cell).__name__
    for what, scale in (("ordinary inputs", 1.0), ("zeros", 0.0), ("inputs of about 100", 100.0)):
        case = _start(cell, (200, 2, *widths), scale)
        y, _ = case.forward()
        bad = np.argwhere(~np.isfinite(y))
        if len(bad):
            line = first_not_finite(cell, case)
            raise AssertionError(
                f"{name}: with {what} its output is not finite at step {bad[0][0] + 1} of 200"
                f"{f' ({line})' if line else ''}; bound what grows, and look at what exp, log, "
                "sqrt and divisions are given"
            )
        # Over many steps the gradient of a sound cell may explode; over two it may not.
        for key, array in _start(cell, (2, 2, *widths), scale).arrays().items():
            require(
                np.isfinite(array).all(),
                f"{name}: with {what} the {key} is not finite after two steps; look at what has "
                "no finite slope there (sqrt, log or a division at 0)",
            )


def _start(cell: Cell, sizes: Sizes, scale: float) -> Case:
    """Initial values as a run begins with, and inputs of the given size."""
    case = make_case(cell, sizes=sizes, dtype="float32")
    for key, parameter in case.plan.parameters.items():
        case.parameters[key][...] = initial_values(parameter, key, seed=0)
    for state in case.states.values():
        state[...] = 0.0
    case.x *= np.float32(scale)
    return case
