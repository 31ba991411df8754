"""What rnnfarm makes of a cell, for people: ``rnnfarm explain CELL``.

The equations and gradients are those of one time step as the cell has them, with no mask, reset or
dropout. A value is named as the cell's source names it where it does; ``v'`` is a state's new
value, ``∂v`` the derivative of the loss by ``v``, and ``δv`` the part of it that arrives from later
steps and from the layers above.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rnnfarm.equations.derive import Derivative, derive
from rnnfarm.equations.graph import Parameter, Symbol, is_condition, ordered
from rnnfarm.equations.instrument import PlanOptions
from rnnfarm.equations.language import layer_norm
from rnnfarm.equations.parts import Cell, CellTrace, trace_cell
from rnnfarm.equations.plan import Plan, plan_trace
from rnnfarm.equations.show import Printer, weights_text

SCHEMA = 1
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Line:
    """``name = text``."""

    name: str
    text: str


@dataclass(frozen=True)
class Value:
    """A value that is kept for the backward, and its memory in float32 a step and row."""

    text: str
    width: int
    bytes: int


@dataclass(frozen=True)
class Product:
    """A product with learned weights."""

    text: str
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Explanation:
    """What ``explain`` found; ``stages`` has the products and the number of operations of each."""

    cell: str
    inputs: int
    hidden: int
    states: dict[str, int]
    parameters: tuple[Parameter, ...]
    equations: tuple[Line, ...]
    gradients: tuple[Line, ...]
    parameter_gradients: tuple[Line, ...]
    hoisted: tuple[Product, ...]
    stages: tuple[tuple[tuple[Product, ...], int], ...]
    saved: tuple[Value, ...]
    source: str | None = None
    remarks: tuple[str, ...] = ()

    @property
    def output(self) -> str:
        return next(iter(self.states))

    @property
    def parameter_count(self) -> int:
        return sum(math.prod(parameter.shape) for parameter in self.parameters)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values; ``schema`` is 1."""
        plain = asdict(self)
        plain["stages"] = [
            {"products": [asdict(p) for p in products], "operations": count}
            for products, count in self.stages
        ]
        return {
            "schema": SCHEMA,
            **plain,
            "output": self.output,
            "parameter_count": self.parameter_count,
            "saved_bytes": sum(value.bytes for value in self.saved),
        }

    def text(self) -> str:
        """The page that ``rnnfarm explain`` prints."""
        from rnnfarm.equations.page import page

        return page(self)


def explain(
    cell: Cell,
    inputs: int = 64,
    hidden: int = 128,
    source: str | None = None,
    remarks: Sequence[str] = (),
) -> Explanation:
    """Trace a cell and describe it; CellError for a mistake in it.

    Args:
        inputs: the width of the input.
        hidden: the width of the hidden states.
        source: the source that a kernel generates for it, to be shown with it.
        remarks: what that kernel says of how it runs it.
    """
    trace, printer = _traced(cell, inputs, hidden)
    equations = tuple(_equations(trace, printer))
    gradients, found = _gradients(trace, printer)
    for symbol in printer.reached(trace.new_states.values()):
        if symbol in printer.names or symbol in printer.calls:
            symbol.label = printer.text(symbol)
    plan = plan_trace(trace, hidden, PlanOptions())
    return Explanation(
        cell=trace.name,
        inputs=inputs,
        hidden=hidden,
        states=plan.states,
        parameters=tuple(trace.graph.parameters.values()),
        equations=equations,
        gradients=tuple(gradients),
        parameter_gradients=tuple(_parameter_gradients(trace, found, printer)),
        **_work(plan),
        source=source,
        remarks=tuple(remarks),
    )


# -- names ----------------------------------------------------------------------------------------


@dataclass
class _Watched:
    """What the equations called their values, and the layer norms among them."""

    names: dict[str, Symbol] = field(default_factory=dict)
    calls: dict[Symbol, tuple[str, Symbol]] = field(default_factory=dict)


def _traced(cell: Cell, inputs: int, hidden: int) -> tuple[CellTrace, Printer]:
    """The trace, and a printer that knows what the cell's source calls its values."""
    watched = _Watched()
    step = getattr(cell.step, "__func__", cell.step).__code__

    def watch(frame: Any, event: str, value: Any) -> None:
        if event == "return" and frame.f_code is step:
            watched.names = {n: v for n, v in frame.f_locals.items() if isinstance(v, Symbol)}
        elif event == "return" and frame.f_code is layer_norm.__code__ and value is not None:
            vector, epsilon = frame.f_locals["vector"], frame.f_locals["epsilon"]
            usual = epsilon == 1e-5
            call = "layer_norm({})" if usual else f"layer_norm({{}}, {epsilon:g})"
            watched.calls[value] = (call, vector)

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        trace = trace_cell(cell, inputs, hidden)
    finally:
        sys.setprofile(before)
    return trace, _printer(trace, watched)


def _printer(trace: CellTrace, watched: _Watched) -> Printer:
    """Names of the new states, of gates, and of what the source has a variable for."""
    names: dict[Symbol, str] = {trace.x: "x"} | {s: n for n, s in trace.states.items()}
    taken = set(names.values())

    def name(symbol: Symbol, wanted: str) -> None:
        if symbol not in names:
            subscripts = itertools.count(2)
            chosen = wanted
            while chosen in taken:
                chosen = wanted + _subscript(next(subscripts))
            taken.add(chosen)
            names[symbol] = chosen

    for state, symbol in trace.new_states.items():
        name(symbol, f"{state}'")
    for symbol in trace.graph.symbols:
        if symbol.op == "slice" and symbol.label:
            name(symbol, symbol.label)
    printer = Printer(names, watched.calls)
    needed = printer.reached(trace.new_states.values())
    for variable, symbol in watched.names.items():
        # Not what is one function of what has this name already: z = sigmoid(z).
        if (
            symbol in needed
            and symbol.op != "parameter"
            and (variable not in taken or not printer.is_short(symbol))
        ):
            name(symbol, variable)
    for base in {s.args[0] for s in names if _is_gate(s)}:
        gates = _gates(base, trace, printer)
        if gates:
            names[base] = f"({', '.join(names[g] for g in gates)})"
    return printer


def _subscript(number: int) -> str:
    return "".join("₀₁₂₃₄₅₆₇₈₉"[int(digit)] for digit in str(number))


def _name_repeated(roots: Sequence[Symbol], printer: Printer) -> None:
    """Give what would be written out twice a name: u₁, u₂, …"""
    number = sum(name[0] == "u" and name[1:] >= "₀" for name in printer.names.values())
    for symbol in printer.repeated(roots):
        number += 1
        printer.names[symbol] = "u" + _subscript(number)


# -- equations and gradients ----------------------------------------------------------------------


def _equations(trace: CellTrace, printer: Printer) -> Iterator[Line]:
    new = trace.new_states
    _name_repeated(list(new.values()), printer)
    for symbol in ordered(printer.reached(new.values())):
        if symbol in printer.names and symbol.args and not _is_gate(symbol):
            yield Line(printer.names[symbol].strip("()"), printer.definition(symbol))
    for state, symbol in new.items():
        if printer.names[symbol] != f"{state}'":  # one that the cell only passes on
            yield Line(f"{state}'", printer.text(symbol))


def _is_gate(symbol: Symbol) -> bool:
    return symbol.op == "slice" and bool(symbol.label)


def _gates(symbol: Symbol, trace: CellTrace, printer: Printer) -> list[Symbol]:
    """The gates that a symbol is cut into, where those are all of it."""
    gates = [s for s in trace.graph.symbols if s.args == (symbol,) and _is_gate(s)]
    gates = sorted((s for s in gates if s in printer.names), key=lambda s: s.attribute)
    return gates if sum(s.width for s in gates) == symbol.width else []


def _gradients(trace: CellTrace, printer: Printer) -> tuple[list[Line], Derivative]:
    """Lines of the derivatives, and those of the parameters."""
    graph, known = trace.graph, set(printer.names)
    seeds = {s: graph.input(f"δ{name}", s.width) for name, s in trace.new_states.items()}
    found = derive(seeds, [s for s in known if not _is_gate(s)])
    alike, split = _name_gradients(trace, printer, found)
    roots = [*found.of.values(), *found.vectors.values(), *(g for _, _, g in found.weights)]
    _name_repeated(roots, printer)
    named = ordered(s for s in printer.reached(roots) if s in printer.names and s not in known)
    lines = [line for symbol in alike if symbol not in named for line in alike[symbol]]
    for symbol in named:
        if symbol.args and symbol not in split:
            lines.append(Line(printer.names[symbol], printer.definition(symbol)))
        lines += alike.get(symbol, [])
    for name, symbol in (("x", trace.x), *trace.states.items()):
        gradient = found.of.get(symbol)
        text = "0" if gradient is None else printer.text(gradient)
        if text != f"∂{name}":
            lines.append(Line(f"∂{name}", text))
    return lines, found


def _name_gradients(
    trace: CellTrace, printer: Printer, found: Derivative
) -> tuple[dict[Symbol, list[Line]], set[Symbol]]:
    """Name the derivatives by what has a name, gates one by one.

    Returns:
        By what they say is the same, lines for gates whose derivative is a constant, or that of
        another gate too; and the joined derivatives that are known gate by gate.
    """
    names = printer.names
    alike: dict[Symbol, list[Line]] = {}
    known: set[Symbol] = set()
    for symbol, gradient in found.of.items():
        gates = _gates(symbol, trace, printer)
        parts = [_part_at(gradient, *gate.attribute) for gate in gates]
        if not gates or not all(isinstance(part, Symbol) for part in parts):
            continue
        known.add(gradient)
        for gate, part in zip(gates, parts, strict=True):
            if part is not None and part.args and part not in names and part.op != "fill":
                names[part] = f"∂{names[gate]}"
            elif part is not None:
                line = Line(f"∂{names[gate]}", printer.text(part))
                alike.setdefault(part, []).append(line)
    for symbol, gradient in found.of.items():
        if gradient.args:
            names.setdefault(gradient, f"∂{names[symbol]}")
    return alike, known


def _part_at(gradient: Symbol, start: int, stop: int) -> Symbol | None:
    """The part of a joined derivative for these units, if it is one; zeros are in any part."""
    position = 0
    for part in gradient.args if gradient.op == "concat" else (gradient,):
        first, position = position, position + part.width
        if (first, position) == (start, stop) or (
            first <= start and stop <= position and part.op == "fill" and not part.args[0].args
        ):
            return part
    return None


def _parameter_gradients(trace: CellTrace, found: Derivative, printer: Printer) -> Iterator[Line]:
    texts = {name: printer.text(gradient) for name, gradient in found.vectors.items()}
    for (weight,), vector, gradient in found.weights:
        texts[weight.name] = f"{printer.tight(vector)}ᵀ·{printer.tight(gradient)}"
    for name in trace.graph.parameters:
        yield Line(f"∂{name}", f"Σ {texts[name]}" if name in texts else "0, since nothing uses it")


# -- what a kernel has to do ----------------------------------------------------------------------


def _work(plan: Plan) -> dict[str, Any]:
    """The products, the stages and what is kept, as fields of an ``Explanation``."""
    labels = {s: s.label for s in plan.graph.symbols if s.label and s.op != "parameter"}
    printer = Printer(labels)
    held = [plan.inputs[name] for name in plan.states]
    later = {a for s in (*plan.backward_step, *plan.epilogue) for a in s.args}
    later |= {gradient.vector for gradient in plan.weight_gradients}
    held += [*plan.saved, *(s for s in plan.prologue if s in later)]
    return {
        "hoisted": _products(plan.prologue, printer),
        "stages": tuple(
            (_products(stage.products, printer), len(stage.elementwise)) for stage in plan.stages
        ),
        "saved": tuple(
            Value(printer.text(s), s.width, s.width * (1 if is_condition(s) else FLOAT_BYTES))
            for s in held
        ),
    }


def _products(symbols: Sequence[Symbol], printer: Printer) -> tuple[Product, ...]:
    return tuple(
        Product(f"{printer.tight(s.args[0])}·{weights_text(s)}", s.args[0].width, s.width)
        for s in symbols
        if s.op == "matmul"
    )
