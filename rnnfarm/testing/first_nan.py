"""The line of a cell's equations whose result is the first that is not finite."""

from __future__ import annotations

import linecache
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnfarm.equations.emit import numpy_calls
from rnnfarm.equations.graph import Symbol, ancestors, is_condition, ordered, recording_places
from rnnfarm.equations.parts import Cell, trace_cell
from rnnfarm.kernels.case import Case
from rnnfarm.testing.tools import Array


def first_not_finite(cell: Cell, case: Case) -> str | None:
    """Return ``FILE, line N: CODE`` of the first result in a window that is not finite.

    None where everything that the cell computes is finite.
    """
    with recording_places():
        trace = trace_cell(cell, case.x.shape[-1], case.plan.hidden)
    needed = ordered(ancestors(trace.new_states.values()))
    states: Mapping[str, Array] = case.states
    for x in case.x:
        values: dict[Symbol, Array] = {}
        given = {"x": x, **states}
        for symbol in needed:
            values[symbol] = _value(symbol, values, given, case.parameters)
            if not is_condition(symbol) and not np.isfinite(values[symbol]).all():
                return _place(*trace.graph.places[symbol])
        states = {name: values[symbol] for name, symbol in trace.new_states.items()}
    return None


def _value(
    symbol: Symbol, values: Mapping[Symbol, Array], given: Mapping[str, Array], weights: Any
) -> Array:
    """The value of one symbol (B, width), or (1, width) where it is the same for all rows."""
    args = [values[arg] for arg in symbol.args]
    found: Array
    if symbol.op == "input":
        return given[symbol.attribute]
    if symbol.op == "parameter":
        found = weights[symbol.attribute][None, :]
    elif symbol.op == "constant":
        found = np.full((1, 1), symbol.attribute)
    elif symbol.op == "unit_index":
        found = np.arange(float(symbol.width))[None, :]
    elif symbol.op == "slice":
        found = args[0][:, slice(*symbol.attribute)]
    elif symbol.op == "concat":
        found = np.concatenate(args, axis=1)
    elif symbol.op == "matmul":
        found = args[0] @ np.concatenate([weights[w.name] for w in symbol.attribute], axis=1)
    else:
        rows = max(len(arg) for arg in args)
        found = np.empty((rows, symbol.width), np.bool_ if is_condition(symbol) else np.float64)
        names = {f"a{k}": arg for k, arg in enumerate(args)}
        for line in numpy_calls(symbol, list(names), "out"):
            exec(line, {"np": np}, {**names, "out": found})
    return found


def _place(file: str, number: int) -> str:
    return f"{file}, line {number}: {linecache.getline(file, number).strip()}"
