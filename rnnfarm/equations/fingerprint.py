"""A fingerprint of equations: equal where the traced operations are the same.

By it workers see that they trace a cell alike, and a run sees that a cell was edited. It is of what
is computed, not of how it is written: names of variables, comments and initialisers do not count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from rnnfarm.equations.graph import Parameter, Symbol, ancestors, ordered
from rnnfarm.errors import CellError

FORMAT = 1


def stable_fingerprint(
    part: str,
    results: Mapping[str, Symbol | None],
    again: Callable[[], Mapping[str, Symbol | None]],
) -> str:
    """Return the fingerprint of a part's equations.

    Raises CellError where tracing them again gives another one.
    """
    first = fingerprint(results)
    if fingerprint(again()) != first:
        raise CellError(
            f"{part}: its equations are others each time they are traced; step must depend on its "
            "arguments and settings alone, and draw no numbers of its own"
        )
    return first


def fingerprint(results: Mapping[str, Symbol | None]) -> str:
    """Return the fingerprint of what computes ``results``, 16 hexadecimal digits."""
    given = {name: symbol for name, symbol in results.items() if symbol is not None}
    needed = ordered(ancestors(given.values()))
    number = {symbol: k for k, symbol in enumerate(needed)}
    told = [[s.op, [number[arg] for arg in s.args], _attribute(s), s.width] for s in needed]
    ends = [[name, number[symbol]] for name, symbol in given.items()]
    return hashlib.sha256(json.dumps([FORMAT, told, ends]).encode()).hexdigest()[:16]


def _attribute(symbol: Symbol) -> Any:
    """What an operation is given beside its arguments, as text or plain lists."""
    if symbol.op == "parameter":
        return _parameter(symbol.graph.parameters[symbol.attribute])
    if symbol.op == "matmul":
        return [_parameter(weight) for weight in symbol.attribute]
    if symbol.op == "constant":
        return repr(symbol.attribute)
    return symbol.attribute


def _parameter(parameter: Parameter) -> list[Any]:
    """What of a parameter the equations and its updates go by."""
    return [parameter.name, list(parameter.shape), parameter.decay, parameter.bound]
