"""The parts that are written as equations: ``Cell``, ``Loss`` and ``Optimizer``.

Each has a ``step`` that is called once, with symbols. ``trace_cell``, ``trace_loss`` and
``trace_optimizer`` call it and check what it gave; a mistake is a ``CellError`` that names the
part, the file, the line and the mend.
"""

from __future__ import annotations

import inspect
import linecache
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal
from unicodedata import normalize

from rnnfarm.equations.graph import Graph, Symbol, ancestors, is_condition
from rnnfarm.equations.language import Trace, _current, maximum, minimum, row_sum
from rnnfarm.errors import CellError
from rnnfarm.settings import Part


class Cell(Part):
    """The equations of one time step.

    A subclass names its ``states`` (the first one is the cell's output) and writes
    ``step(self, x, *states)``, which returns the new states in the same order::

        class LSTM(Cell):
            states = ("h", "c")

            def step(self, x, h, c):
                i, f, g, o = affine(x, h, gates="ifgo")
                c = sigmoid(f) * c + sigmoid(i) * tanh(g)
                return sigmoid(o) * tanh(c), c
    """

    states: ClassVar[tuple[str, ...]] = ("h",)

    def widths(self, hidden: int) -> Mapping[str, int]:
        """Widths of those states that are not ``hidden`` wide (a projection's, say)."""
        return {}

    def step(self, *symbols: Any, **named: Any) -> Any:
        wanted = ", ".join(["self", "x", *self.states])
        raise CellError(f"it has no equations; write def step({wanted})")

    def state_widths(self, hidden: int) -> dict[str, int]:
        """The width of every state."""
        try:
            other = dict(self.widths(hidden))
        except Exception as error:
            raise CellError(
                f"{part_name(self)}.widths must be a method that gives a mapping, such as "
                f"{{'{self.states[0]}': 8}} ({type(error).__name__}: {error}{_place(error)})"
            ) from error
        unknown = set(other) - set(self.states)
        if unknown:
            raise CellError(
                f"{part_name(self)}.widths names {sorted(unknown)}, which are no states of it; "
                f"its states are {list(self.states)}"
            )
        bad = [f"{name}: {width!r}" for name, width in other.items() if not _is_width(width)]
        if bad:
            raise CellError(f"{part_name(self)}.widths gives {bad[0]}; a width is a number above 0")
        return {name: other.get(name, hidden) for name in self.states}


class Loss(Part):
    """A loss of each step, reduced over the valid steps.

    ``step(output, target)`` gives the loss of one step; units are summed, where PyTorch's losses
    divide by their number, too. Steps that are padding or ignored are in neither the sum nor the
    number of steps that divides it. ``target`` is one class number (width 1) where ``target_kind``
    is ``"classes"``, and a row of values where it is ``"values"``. A loss that is no such function
    (CTC) writes ``evaluate`` in place of ``step``.

    reduction: what training descends: the mean over the valid steps of the whole batch, or their
    sum. What is reported of a run is the mean either way.
    """

    target_kind: ClassVar[Literal["classes", "values"]] = "values"
    #: Whether a target is a list of labels for a whole sequence, at no known steps of it.
    of_labels: ClassVar[bool] = False
    #: The least and the largest value that a target may have; such a target is never scaled.
    target_range: ClassVar[tuple[float, float] | None] = None
    reduction: Literal["sum", "mean"] = "mean"
    #: The name by which people know this loss, and how many times the mean over steps *and values*
    #: that is; runs and evaluations then have it beside the loss. None where the loss says it all.
    metric: ClassVar[tuple[str, float] | None] = None

    def outputs(self, width: int) -> int:
        """The width of the network's output for a target of ``width`` values or classes."""
        return width

    def step(self, *symbols: Any, **named: Any) -> Any:
        raise CellError("it has no equations; write def step(self, output, target)")

    def interval(self, output: Any, width: int) -> tuple[Any, Any, Any]:
        """What outputs ``(…, O)`` of values say of their targets: the middle ``(…, width)``, and
        the low and the high end of an interval, or None twice where the loss learns none."""
        return output[..., :width], None, None

    def measured(self) -> Loss:
        """The loss that evaluation measures: this one, without what only training is helped by."""
        return self

    @property
    def class_weights(self) -> Sequence[float] | None:
        """How much a target of each class counts in training; None where all count alike.

        The mean over valid steps is then divided by the sum of their weights, not their number.
        """
        return None

    @property
    def wants_counts(self) -> bool:
        """Whether ``with_counts`` is to be asked before training."""
        return False

    def with_counts(self, counts: Any) -> Loss:
        """Return the loss with what it learns from how often each class is a target of the
        training part, ``counts`` (classes,)."""
        return self

    def ignored(self, target: Symbol) -> Symbol | None:
        """A comparison that is true for a target that does not count, or None."""
        return None

    #: A loss that is no equation of one step overrides this with a method
    #: ``evaluate(output, target, valid, d_output) -> (total, count)`` on arrays, which does what
    #: ``rnnfarm.nn.loss.LossFunction.__call__`` says; several threads may call it at once.
    evaluate: ClassVar[Callable[..., tuple[float, int]] | None] = None

    #: Whether a step's loss is minus the logarithm of what the output gives its target as its
    #: probability: then, of classes, evaluations have ``bits`` and ``perplexity``. It is said for
    #: the class's own ``step``; a class that is derived from it and has another says it anew.
    log_likelihood: ClassVar[bool] = False

    @property
    def of_classes(self) -> bool:
        """Whether each output says how likely the classes of one target are."""
        return self.target_kind == "classes" and self.evaluate is None

    @property
    def in_nats(self) -> bool:
        """Whether its mean over classes is one from which a perplexity follows."""
        return self.of_classes and self.log_likelihood and self._says_of_step("log_likelihood")

    @property
    def known_metric(self) -> tuple[str, float] | None:
        """``metric``, if it is said of the class's own ``step``."""
        return self.metric if self._says_of_step("metric") else None

    def _says_of_step(self, attribute: str) -> bool:
        """Whether an attribute is said of the ``step`` that the class has, not of an older one."""
        said, step = (
            next(k for k, kind in enumerate(type(self).__mro__) if name in vars(kind))
            for name in (attribute, "step")
        )
        return said <= step


class Optimizer(Part):
    """The update of one parameter element.

    ``step(param, grad, *states, lr, t)`` gives the new parameter and the new states; ``lr`` is the
    learning rate of this step and ``t`` the update's number, from 1: a step of which no target
    counts is none. States start at 0.

    lr: the learning rate, which the schedule multiplies; weight_decay: how strongly parameters are
    drawn towards 0.
    """

    states: ClassVar[tuple[str, ...]] = ()
    lr: float = 1e-3
    weight_decay: float = 0.0

    def step(self, *symbols: Any, **named: Any) -> Any:
        wanted = ", ".join(["self", "param", "grad", *self.states, "*", "lr", "t"])
        raise CellError(f"it has no equations; write def step({wanted})")


@dataclass(frozen=True)
class CellTrace:
    """A traced cell: symbols of one time step.

    ``x`` and ``states`` are the inputs, ``new_states`` the results, in the order of the cell's
    ``states``.
    """

    name: str
    graph: Graph
    x: Symbol
    states: dict[str, Symbol]
    new_states: dict[str, Symbol]
    #: What no new state depends on, such as ``gate 'o'``: a mistake as a rule.
    unused: tuple[str, ...] = ()


def trace_cell(cell: Cell, inputs: int, hidden: int) -> CellTrace:
    """Run a cell's equations once, on symbols ``inputs`` and ``hidden`` wide."""
    trace = Trace(hidden)
    graph = trace.graph
    _check_state_names(cell, ("x",))
    x = graph.input("x", inputs)
    states = {name: graph.input(name, w) for name, w in cell.state_widths(hidden).items()}
    trace.given = {x: "x"} | {symbol: name for name, symbol in states.items()}
    trace.states = set(states.values())
    _check_signature(cell, x, states)
    result = _run(trace, cell, lambda: cell.step(x, *states.values()))
    new = result if isinstance(result, tuple | list) else (result,)
    names = list(states)
    if len(new) != len(names):
        _fail(
            cell,
            f"step returns {len(new)} value{'s' * (len(new) != 1)} for the states {names}; return "
            "one for each, in this order, or change states = (…)",
        )
    for name, symbol in zip(names, new, strict=True):
        _check_number(cell, f"the new state {name!r}", symbol, graph)
        if symbol.width != states[name].width:
            _fail(
                cell,
                f"the new state {name!r} is {symbol.width} wide and the state is "
                f"{states[name].width} wide; say so in widths(), or use affine(…, units=…)",
            )
    for k, name in enumerate(names):
        for other, symbol in zip(names[:k], new[:k], strict=True):
            if symbol is new[k]:
                _fail(
                    cell,
                    f"the states {other!r} and {name!r} are returned as one and the same symbol; "
                    "drop one of them from states, or return the value that it should have",
                )
    found = dict(zip(names, new, strict=True))
    return CellTrace(part_name(cell), graph, x, states, found, tuple(_unused(trace, states, found)))


def _unused(trace: Trace, states: Mapping[str, Symbol], new: Mapping[str, Symbol]) -> Iterator[str]:
    """What of a cell's parameters, gates and states its new states do not depend on."""
    used = ancestors(new.values())
    read = {s.attribute for s in used if s.op == "parameter"}
    read |= {weight.name for s in used if s.op == "matmul" for weight in s.attribute}
    yield from (f"parameter {name!r}" for name in trace.graph.parameters if name not in read)
    yield from (
        f"gate {n!r}" for n, gate, whole in trace.gates if whole in used and gate not in used
    )
    others = list(states)[1:]
    # An output that the next step does not read is usual where another state is read.
    wanted = others if any(states[name] in used for name in others) else states
    yield from (f"state {name!r}" for name in wanted if states[name] not in used)
    yield from (f"state {n!r}, which never changes" for n in states if new[n] is states[n])


@dataclass(frozen=True)
class LossTrace:
    """A traced loss: ``rows`` is the loss of each row, ``ignored`` a condition or None.

    Where classes have weights, the rows are multiplied with the input ``weight``.
    """

    graph: Graph
    output: Symbol
    target: Symbol
    rows: Symbol
    ignored: Symbol | None

    @property
    def results(self) -> dict[str, Symbol | None]:
        """All that it computes, by name."""
        return {"rows": self.rows, "ignored": self.ignored}


def trace_loss(loss: Loss, outputs: int, targets: int) -> LossTrace:
    """Run a loss's equations once, for ``outputs`` outputs and ``targets`` target values."""
    trace = Trace(outputs, "loss")
    graph = trace.graph
    if loss.target_kind not in ("classes", "values"):
        _fail(loss, f"target_kind = {loss.target_kind!r}; write 'classes' or 'values'")
    output = graph.input("output", outputs)
    target = graph.input("target", 1 if loss.target_kind == "classes" else targets)
    rows = _run(trace, loss, lambda: loss.step(output, target))
    _check_number(loss, "its loss", rows, graph)
    ignored = _run(trace, loss, lambda: loss.ignored(target))
    if graph.parameters:
        _fail(loss, "a loss has no learned parameters")
    if ignored is not None and not (isinstance(ignored, Symbol) and is_condition(ignored)):
        _fail(loss, f"ignored() must give a comparison such as equal(target, 0), not {ignored!r}")
    rows = row_sum(rows)
    if loss.class_weights is not None:
        rows = rows * graph.input("weight", 1)
    return LossTrace(graph, output, target, rows, ignored)


@dataclass(frozen=True)
class OptimizerTrace:
    """A traced optimizer; all symbols are 1 wide and stand for every element of the arena."""

    graph: Graph
    inputs: dict[str, Symbol]
    outputs: dict[str, Symbol]


def trace_optimizer(
    optimizer: Optimizer,
    bound: float | None = None,
    guarded: bool = False,
    within: tuple[float, float] | None = None,
) -> OptimizerTrace:
    """Run an optimizer's equations once, on the gradient times an input ``scale``.

    Args:
        bound: the largest element that the scaled gradient may have; others are clipped.
        guarded: whether everything stays as it is where ``scale`` is NaN.
        within: the least and the largest value that the new parameter may have; others are brought
            back to it.
    """
    trace = Trace(1, "optimizer")
    graph = trace.graph
    _check_state_names(optimizer, ("param", "grad", "lr", "t", "scale"))
    names = ["param", "grad", *optimizer.states, "lr", "t", "scale"]
    inputs = {name: graph.input(name, 1) for name in names}
    gradient = inputs["grad"] * inputs["scale"]
    if bound is not None:
        gradient = _within(gradient, -bound, bound)
    given = [gradient if name == "grad" else inputs[name] for name in names[:-3]]
    result = _run(trace, optimizer, lambda: optimizer.step(*given, lr=inputs["lr"], t=inputs["t"]))
    new = result if isinstance(result, tuple | list) else (result,)
    wanted = ["param", *optimizer.states]
    if len(new) != len(wanted):
        _fail(optimizer, f"step returns {len(new)} values, not {len(wanted)}: {wanted}")
    for name, symbol in zip(wanted, new, strict=True):
        _check_number(optimizer, f"the new {name!r}", symbol, graph)
    if graph.parameters:
        _fail(optimizer, "an optimizer has no learned parameters; use states")
    outputs = dict(zip(wanted, new, strict=True))
    if within is not None:
        outputs["param"] = _within(outputs["param"], *within)
    if guarded:
        sound = graph.apply("equal", inputs["scale"], inputs["scale"])
        outputs = {n: graph.apply("where", sound, s, inputs[n]) for n, s in outputs.items()}
    return OptimizerTrace(graph, inputs, outputs)


def _within(symbol: Symbol, low: float, high: float) -> Symbol:
    """The symbol, brought between two numbers; NaN stays."""
    return minimum(maximum(symbol, low), high)


Equations = Cell | Loss | Optimizer


def part_name(part: Part) -> str:
    """``Class`` of a part, as messages name it."""
    return type(part).__name__


def _is_width(width: object) -> bool:
    return isinstance(width, int) and width >= 1


def _check_state_names(part: Cell | Optimizer, others: tuple[str, ...]) -> None:
    """The names become names of the generated source, beside those of ``others``."""
    names = part.states
    few = isinstance(part, Cell) and not names
    if few or isinstance(names, str) or not all(isinstance(n, str) for n in names):
        _fail(part, f"states = {names!r}; write a tuple of names, such as states = ('h',)")
    bad = [name for name in names if not name.isidentifier()]
    if bad:
        _fail(part, f"states = {names!r}: {bad[0]!r} is no Python name")
    # Names that Python takes for one and the same, such as 's' and the long 'ſ', are one.
    if len({*(normalize("NFKC", n) for n in names), *others}) < len(names) + len(others):
        known = ", ".join(map(repr, others))
        _fail(part, f"states = {names!r}: the names must differ from each other and from {known}")


def _check_signature(cell: Cell, x: Symbol, states: Mapping[str, Symbol]) -> None:
    """Whether ``step`` takes the input and every state."""
    try:
        inspect.signature(cell.step).bind(x, *states.values())
    except TypeError as error:
        wanted = ", ".join(["self", "x", *states])
        _fail(cell, f"step cannot be called ({error}); write def step({wanted})")


def _check_number(part: Equations, what: str, symbol: object, graph: Graph) -> None:
    if not isinstance(symbol, Symbol):
        _fail(part, f"{what} is {symbol!r}, which is no symbol; compute it from the arguments")
    elif symbol.graph is not graph:
        _fail(part, f"{what} belongs to another trace; compute it from the arguments of step")
    elif is_condition(symbol):
        _fail(part, f"{what} is a comparison; write where(condition, 1.0, 0.0)")


def _run(trace: Trace, part: Part, step: Callable[[], Any]) -> Any:
    """Call a part's equations, and say where a mistake in them is."""
    token = _current.set(trace)
    try:
        return step()
    except CellError as error:
        raise CellError(f"{part_name(part)}: {error}{_place(error)}") from error
    except Exception as error:
        raise CellError(
            f"{part_name(part)}: {type(error).__name__}: {error}{_place(error)}"
        ) from error
    finally:
        _current.reset(token)


_HERE = os.path.dirname(os.path.abspath(__file__))


def _place(error: BaseException) -> str:
    """`` (FILE, line N: CODE)`` of the last line before the language itself goes on."""
    place = ""
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if code.co_filename.startswith(_HERE):
            if place:
                break
        else:
            line = linecache.getline(code.co_filename, traceback.tb_lineno).strip()
            place = f" ({code.co_filename}, line {traceback.tb_lineno}: {line})"
        traceback = traceback.tb_next
    return place


def _fail(part: Equations, message: str) -> None:
    code = type(part).step.__code__
    raise CellError(
        f"{part_name(part)}: {message} ({code.co_filename}, line {code.co_firstlineno})"
    )
