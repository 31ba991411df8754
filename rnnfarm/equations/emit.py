"""The text of one operation, as NumPy calls that write into a buffer."""

from __future__ import annotations

from rnnfarm.equations.graph import Symbol

#: Operations that are one NumPy function of the same number of arguments.
_UFUNCS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "neg": "negative",
    "tanh": "tanh", "exp": "exp", "log": "log", "sqrt": "sqrt", "abs": "absolute",
    "minimum": "minimum", "maximum": "maximum",
    "less": "less", "less_equal": "less_equal", "equal": "equal",
}  # fmt: skip


def numpy_calls(symbol: Symbol, args: list[str], out: str) -> list[str]:
    """Statements that compute ``symbol`` from the texts of its arguments into ``out``.

    ``out`` may be the buffer of any argument but the first two of a ``where``. The statements use
    ``np`` and the arrays alone.
    """
    op = symbol.op
    if op in _UFUNCS:
        return [f"np.{_UFUNCS[op]}({', '.join(args)}, {out})"]
    if op == "relu":
        return [f"np.maximum({args[0]}, 0.0, {out})"]
    if op == "softplus":
        return [f"np.logaddexp({args[0]}, 0.0, {out})"]
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
    if op in ("copy", "fill", "slice"):
        return [f"np.copyto({out}, {args[0]})"]
    raise NotImplementedError(f"the NumPy kernel has no operation {op!r}")


def may_overwrite(symbol: Symbol, position: int) -> bool:
    """Whether the result may be written over the argument at ``position``."""
    if symbol.op == "where":
        return position == 2
    return symbol.op in _UFUNCS or symbol.op in ("relu", "softplus", "sigmoid", "copy")
