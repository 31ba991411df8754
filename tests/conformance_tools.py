"""What the kernels' tests of conformance share: cells, odd sizes, and numbers that stay tame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from rnnfarm_example.cells import CoRNN, LiGRU
from thorough import times

from rnnfarm.builtin import cells
from rnnfarm.equations.parts import Cell
from rnnfarm.kernels.case import Case

#: Random cells in each of the ten parts of a test; every program is compiled, so that all of them
#: take minutes: RNNFARM_THOROUGH=1 tries as many as the kernels were released with.
RANDOM_CELLS = times(usual=3, thorough=10)

ODD = (1, 2, 3, 5, 17, 31, 33, 100)
CELLS: dict[str, Cell] = {
    "elman": cells.Elman(),
    "elman-relu": cells.Elman(activation="relu"),
    "jordan": cells.Jordan(),
    "lstm": cells.LSTM(),
    "lstm-peephole": cells.LSTMPeephole(),
    "lstm-projection": cells.LSTMProjection(projection=5),
    "lstm-layer-norm": cells.LSTMLayerNorm(),
    "gru": cells.GRU(),
    "gru-reset-before": cells.GRUResetBefore(),
    "mgu": cells.MGU(),
    "mgu-gate-after": cells.MGUGateAfter(),
    "indrnn": cells.IndRNN(),
    "ligru": LiGRU(),
    "cornn": CoRNN(),
}


def with_random_cells(part: int, count: int) -> Callable[[Callable[..., None]], Any]:
    """A decorator of what draws a cell from ``st.data()`` and checks it: ``count`` times."""

    def decorate(check: Callable[..., None]) -> Any:
        configure = settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # to shrink a failure would compile hundreds of programs
            suppress_health_check=list(HealthCheck),
        )
        return seed(part)(configure(given(st.data())(check)))

    return decorate


def tamed(case: Case) -> Case:
    """Weights so small that the states do not run away over a hundred steps."""
    for name, array in case.parameters.items():
        root = np.sqrt(len(array)) if array.ndim == 2 else 2.0
        case.parameters[name] = array / array.dtype.type(root)
    return case


def as_float64(case: Case) -> Case:
    for mapping in (case.parameters, case.states, case.extras, case.d_states):
        for name, array in mapping.items():
            if array.dtype != np.bool_:
                mapping[name] = array.astype(np.float64)
    case.x, case.d_output = case.x.astype(np.float64), case.d_output.astype(np.float64)
    return case
