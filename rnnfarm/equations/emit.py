"""The text of one operation: as NumPy calls that write into a buffer, and as a C expression.

The C expression is one text for the CPU and for CUDA. Arithmetic is written with operators, all
else as calls of functions named ``rnn_…``, which each kind of kernel defines for its own type: a
vector of the processor, or one float of a GPU's thread.
"""

from __future__ import annotations

import math

from rnnfarm.equations.graph import Symbol

#: Operations that are one NumPy function of the same number of arguments.
_UFUNCS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "neg": "negative",
    "tanh": "tanh", "exp": "exp", "log": "log", "sqrt": "sqrt", "abs": "absolute", "sign": "sign",
    "less": "less", "less_equal": "less_equal", "equal": "equal",
}  # fmt: skip
#: Further operations whose statements read each argument before they write over it.
_IN_PLACE = frozenset({"minimum", "maximum", "relu", "sigmoid", "copy"})


def numpy_calls(symbol: Symbol, args: list[str], out: str) -> list[str]:
    """Statements that compute ``symbol`` from the texts of its arguments into ``out``.

    ``out`` may be the buffer of those arguments that ``may_overwrite`` allows. The statements use
    ``np`` and the arrays alone.
    """
    op = symbol.op
    if op in ("minimum", "maximum"):  # NumPy deprecates a third positional argument of these
        return [f"np.{op}({', '.join(args)}, out={out})"]
    if op in _UFUNCS:
        return [f"np.{_UFUNCS[op]}({', '.join(args)}, {out})"]
    if op == "relu":
        return [f"np.maximum({args[0]}, 0.0, out={out})"]
    if op == "softplus":
        # max(v, 0) + log1p(exp(-|v|)): an eighth of the time of NumPy's logaddexp.
        return [
            f"np.absolute({args[0]}, {out})",
            f"np.negative({out}, {out})",
            f"np.exp({out}, {out})",
            f"np.log1p({out}, {out})",
            f"np.add({out}, np.maximum({args[0]}, 0.0), {out})",
        ]
    if op == "sigmoid":
        # exp overflows to infinity for very negative arguments, and 1 / infinity is right: 0.
        return [
            f"np.negative({args[0]}, {out})",
            f"np.exp({out}, {out})",
            f"np.add({out}, 1.0, {out})",
            f"np.reciprocal({out}, {out})",
        ]
    if op == "where":
        start = [] if args[2] == out else [f"np.copyto({out}, {args[2]})"]
        return [*start, f"np.copyto({out}, {args[1]}, where={args[0]})"]
    if op == "row_sum":
        return [f"np.add.reduce({args[0]}, -1, None, {out}, True)"]
    if op == "row_max":
        return [f"np.maximum.reduce({args[0]}, -1, None, {out}, True)"]
    if op == "pick":
        unit = _unit_number(args[1])
        return [f"np.copyto({out}, np.take_along_axis({args[0]}, {unit}, -1))"]
    if op == "place":
        unit = _unit_number(args[1])
        return [f"{out}.fill(0.0)", f"np.put_along_axis({out}, {unit}, {args[0]}, -1)"]
    if op == "add_at":
        unit = _unit_number(args[2])
        start = [] if args[0] == out else [f"np.copyto({out}, {args[0]})"]
        there = f"np.take_along_axis({out}, {unit}, -1)"
        return [*start, f"np.put_along_axis({out}, {unit}, {there} + {args[1]}, -1)"]
    if op in ("copy", "fill"):
        return [f"np.copyto({out}, {args[0]})"]
    raise NotImplementedError(f"the NumPy kernel has no operation {op!r}")


def numpy_number(value: float) -> str:
    """A number as Python text, in which ``np`` is NumPy, that gives the same number."""
    if math.isfinite(value):
        return repr(value)
    return "np.nan" if value != value else "np.inf" if value > 0 else "-np.inf"


def _unit_number(text: str) -> str:
    """The text of a unit's number as an index array."""
    return f"{text}.astype(np.intp, copy=False)"


def may_overwrite(symbol: Symbol, position: int) -> bool:
    """Whether the result may be written over the argument at ``position``."""
    if symbol.op == "add_at":
        return position == 0
    if symbol.op == "where":
        return position == 2
    return symbol.op in _UFUNCS or symbol.op in _IN_PLACE


#: Operations that C has an operator for, on floats and on vectors alike.
_OPERATORS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
#: Operations whose value is their argument's.
_SAME = frozenset({"copy", "fill"})


def c_expression(symbol: Symbol, args: list[str], unit: str = "unit") -> str:
    """The C expression of one unit of ``symbol`` from the texts of its arguments' units.

    Args:
        args: names, not expressions that would need brackets.
        unit: the text of the unit's number, as a float.
    """
    op = symbol.op
    if op in _OPERATORS:
        return f"{args[0]} {_OPERATORS[op]} {args[1]}"
    if op == "neg":
        return f"-{args[0]}"
    if op in _SAME:
        return args[0]
    if op == "constant":
        return f"rnn_splat({c_number(symbol.attribute)})"
    if op == "unit_index":
        return unit
    if op == "place":
        return f"rnn_where(rnn_equal({unit}, {args[1]}), {args[0]}, rnn_splat(0))"
    if op == "add_at":
        return f"rnn_where(rnn_equal({unit}, {args[2]}), {args[0]} + {args[1]}, {args[0]})"
    return f"rnn_{op}({', '.join(args)})"


def c_number(value: float) -> str:
    """A number as C text that reads back as the same."""
    if value != value:
        return '__builtin_nanf("")'
    if value in (float("inf"), float("-inf")):
        return f"{'-' if value < 0 else ''}__builtin_inff()"
    return f"(real){value!r}"
