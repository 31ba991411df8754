"""What authors are told of what symbols cannot do, and what is written instead."""

from __future__ import annotations

from typing import Any

#: What messages offer in place of what does not work on symbols.
FUNCTIONS = (
    "rnnfarm's tanh, sigmoid, relu, softplus, exp, log, sqrt, abs, minimum, maximum, where, equal, "
    "sign, row_sum, row_max, layer_norm, split, pick"
)
#: What is written in place of attributes and methods that arrays have.
INSTEAD = {
    **dict.fromkeys(("shape", "size", "ndim"), "the width of v is v.width"),
    **dict.fromkeys(
        ("T", "transpose", "dot", "reshape"),
        "a symbol is a row of units: affine(v) is a product with learned weights, "
        "row_sum(a * b) one of two rows",
    ),
    "sum": "write row_sum(v)",
    "mean": "write row_sum(v) / v.width",
    "max": "write row_max(v)",
    "item": "equations are traced before there are numbers",
}


def array_in_equation(value: Any) -> str:
    """What is wrong with a NumPy number or array among symbols."""
    if value.shape == ():
        return f"the NumPy number {value!r} in an equation: write float(…) around it"
    return (
        f"an array of shape {value.shape} in an equation, whose constants are plain numbers: "
        "parameter(name, init=…) is a learned vector, unit_index(width) the numbers of the units"
    )
