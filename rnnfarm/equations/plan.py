"""The plan of a cell: what a kernel has to compute for a window, and when.

``make_plan`` takes a traced cell and

1. puts in what every cell gets alike: state resets, padding masks, zoneout and variational dropout
   of the recurrence;
2. joins products that share their input into one;
3. derives the backward;
4. sorts every operation into the region where it runs once for as many steps as possible.

Forward, the regions are ``once`` (parameters alone), ``prologue`` (whole window: all that depends
on ``x`` alone) and the ``stages`` of one time step. Backward they are ``backward_once``, one
reversed time step (``backward_step``) and ``epilogue`` (whole window: input and weight gradients).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from rnnfarm.equations.derive import Derivative, derive
from rnnfarm.equations.graph import (
    Graph,
    Parameter,
    Symbol,
    ancestors,
    base_of,
    depends_on,
    ordered,
)
from rnnfarm.equations.instrument import PlanOptions, Step, instrument
from rnnfarm.equations.parts import Cell, CellTrace, trace_cell

#: Operations that are computed again in the backward rather than kept.
CHEAP = frozenset({
    "add", "sub", "mul", "neg", "where", "less", "less_equal", "equal", "relu", "minimum",
    "maximum", "abs", "slice", "fill", "concat",
})  # fmt: skip
#: Inputs that are the same at every step of a window.
PER_WINDOW = ("drop:", "initial:")


@dataclass(frozen=True)
class Stage:
    """One group of recurrent products, then the elementwise math that their results allow.

    The first stage of a cell has no products where something comes before them (a reset, a mask).
    """

    products: tuple[Symbol, ...]
    elementwise: tuple[Symbol, ...]


@dataclass(frozen=True)
class WeightGradient:
    """``gradient of [W₁ | W₂ | …] = vectorᵀ @ gradient`` over all rows and steps."""

    weights: tuple[Parameter, ...]
    vector: Symbol
    gradient: Symbol


@dataclass(frozen=True)
class Plan:
    """A traced cell, analysed. Symbols belong to ``graph``.

    Attributes:
        states: the width of every state; the first one is the output.
        inputs: symbols of all that comes from outside, by name: ``x``, the states of the step
            before, ``mask?``, ``reset?``, ``zoneout:STATE?``, ``drop:K``, ``initial:STATE`` and,
            backward, ``d:STATE``.
        new: the new value of every state.
        once, prologue, stages: the forward, in order.
        saved: symbols of the stages that the backward needs.
        d_x, d_states: gradients of ``x`` and of every state of the step before, None where zero.
        backward_once, backward_step, epilogue: the backward, in order.
        kept: symbols of ``backward_step`` that the epilogue needs.
        weight_gradients, vector_gradients: those of the learned parameters; a vector's gradient is
            the sum over rows and steps of symbols that lie side by side.
    """

    cell: str
    width_in: int
    hidden: int
    states: dict[str, int]
    options: PlanOptions
    graph: Graph
    parameters: dict[str, Parameter]
    inputs: dict[str, Symbol]
    new: dict[str, Symbol]
    once: tuple[Symbol, ...]
    prologue: tuple[Symbol, ...]
    stages: tuple[Stage, ...]
    saved: tuple[Symbol, ...] = ()
    d_x: Symbol | None = None
    d_states: dict[str, Symbol | None] = field(default_factory=dict)
    backward_once: tuple[Symbol, ...] = ()
    backward_step: tuple[Symbol, ...] = ()
    epilogue: tuple[Symbol, ...] = ()
    kept: tuple[Symbol, ...] = ()
    weight_gradients: tuple[WeightGradient, ...] = ()
    vector_gradients: dict[str, tuple[Symbol, ...]] = field(default_factory=dict)

    @property
    def output(self) -> str:
        """The name of the state that is the cell's output."""
        return next(iter(self.states))

    @property
    def recurrent_stages(self) -> int:
        """How many groups of recurrent products follow one another in a time step."""
        return sum(bool(stage.products) for stage in self.stages)


def make_plan(cell: Cell, inputs: int, hidden: int, options: PlanOptions | None = None) -> Plan:
    """Trace a cell, ``inputs`` wide in and ``hidden`` units wide, and analyse it.

    Raises CellError for a mistake in the cell.
    """
    return plan_trace(trace_cell(cell, inputs, hidden), hidden, options or PlanOptions())


def plan_trace(trace: CellTrace, hidden: int, options: PlanOptions) -> Plan:
    """Analyse a traced cell of ``hidden`` units."""
    step = instrument(trace, options)
    forward = ancestors(step.new.values())
    recurrent = depends_on(forward, set(step.previous.values()))
    timed = _timed(forward)
    computed = [s for s in ordered(forward) if s.args]
    plan = Plan(
        cell=step.name,
        width_in=step.x.width,
        hidden=hidden,
        states={name: s.width for name, s in step.previous.items()},
        options=options,
        graph=step.graph,
        parameters=dict(step.graph.parameters),
        inputs=_inputs(step.graph),
        new=step.new,
        once=tuple(s for s in computed if s not in timed and s not in recurrent),
        prologue=tuple(s for s in computed if s in timed and s not in recurrent),
        stages=_stages(tuple(s for s in computed if s in recurrent)),
    )
    return _with_backward(plan, step) if options.training else plan


def _inputs(graph: Graph) -> dict[str, Symbol]:
    return {s.attribute: s for s in graph.symbols if s.op == "input"}


def _timed(symbols: set[Symbol]) -> set[Symbol]:
    """Those symbols that may differ from step to step."""
    leaves = {s for s in symbols if s.op == "input" and not s.attribute.startswith(PER_WINDOW)}
    return depends_on(symbols, leaves)


def _stages(step: tuple[Symbol, ...]) -> tuple[Stage, ...]:
    """The operations of one time step, by the number of products that each has to wait for."""
    depth: dict[Symbol, int] = {}
    members: dict[int, tuple[list[Symbol], list[Symbol]]] = {}
    for symbol in step:
        before = max((depth.get(arg, 0) for arg in symbol.args), default=0)
        depth[symbol] = before + (symbol.op == "matmul")
        products, elementwise = members.setdefault(depth[symbol], ([], []))
        (products if symbol.op == "matmul" else elementwise).append(symbol)
    return tuple(Stage(tuple(p), tuple(e)) for _, (p, e) in sorted(members.items()))


def _with_backward(plan: Plan, step: Step) -> Plan:
    """The plan with its derived backward."""
    graph = plan.graph
    incoming = {name: graph.input(f"d:{name}", s.width) for name, s in step.previous.items()}
    found = derive(_seeds(plan.new, incoming), [step.x, *step.previous.values()])
    d_states = {name: _own(found.of.get(s)) for name, s in step.previous.items()}
    d_x = found.of.get(step.x)
    joined = {g for _, _, g in found.weights}
    summed = {name: _apart(g, joined) for name, g in found.vectors.items()}
    gradients = [*joined, *(part for parts in summed.values() for part in parts)]
    ends = [
        *(d for d in d_states.values() if d is not None),
        *([d_x] if d_x is not None else []),
        *gradients,
    ]
    vectors = {vector for _, vector, _ in found.weights}
    backward = ancestors([*ends, *vectors])
    arriving = depends_on(backward, set(incoming.values()) & backward)
    looped = ancestors(d for d in d_states.values() if d is not None) & arriving
    saved = _saved(plan, backward, arriving, found)
    at_hand = {*plan.prologue, *plan.new.values(), *saved}
    timed = _timed(backward)
    loop = _region({s for s in looped if s.args}, at_hand, timed)
    later = {s for s in arriving - looped if s.args} | vectors
    epilogue = _region(later, at_hand | looped, timed)
    needed_later = {arg for s in epilogue for arg in s.args} | set(gradients)
    needed_later |= {d_x} if d_x is not None else set()
    only_in_loop = looped | set(incoming.values())
    return replace(
        plan,
        inputs=_inputs(graph),
        saved=saved,
        d_x=d_x,
        d_states=d_states,
        backward_once=_region_once(plan, (*loop, *epilogue), ends, timed),
        backward_step=loop,
        epilogue=epilogue,
        kept=ordered({base_of(s) for s in needed_later if s in only_in_loop}),
        weight_gradients=tuple(WeightGradient(*entry) for entry in found.weights),
        vector_gradients=summed,
    )


def _seeds(new: dict[str, Symbol], incoming: dict[str, Symbol]) -> dict[Symbol, Symbol]:
    seeds: dict[Symbol, Symbol] = {}
    for name, symbol in new.items():
        seeds[symbol] = seeds[symbol] + incoming[name] if symbol in seeds else incoming[name]
    return seeds


def _own(gradient: Symbol | None) -> Symbol | None:
    """A gradient that is computed, not the incoming one of another state itself."""
    if gradient is None or gradient.args:
        return gradient
    return gradient.graph.make("copy", (gradient,), None, gradient.width)


def _apart(gradient: Symbol, stored: set[Symbol]) -> tuple[Symbol, ...]:
    """The parts of a joined gradient, unless it is stored joined anyway: no need to join to sum."""
    return gradient.args if gradient.op == "concat" and gradient not in stored else (gradient,)


def _saved(
    plan: Plan, backward: set[Symbol], arriving: set[Symbol], found: Derivative
) -> tuple[Symbol, ...]:
    """Which values of a time step the backward needs and cannot cheaply compute again."""
    forward = ancestors(plan.new.values())
    users = backward - forward
    frontier = {arg for user in users for arg in user.args if arg in forward}
    frontier |= {vector for _, vector, _ in found.weights}
    step = {s for stage in plan.stages for s in (*stage.products, *stage.elementwise)}
    at_hand = set(plan.new.values())
    saved: set[Symbol] = set()
    for symbol in ordered(step - at_hand):  # arguments first: no equations are too deep or shared
        if symbol.op in CHEAP and all(arg in at_hand or arg not in step for arg in symbol.args):
            at_hand.add(symbol)
        elif symbol in frontier and symbol not in arriving:
            saved.add(symbol)
            at_hand.add(symbol)
    return ordered(saved)


def _region(targets: set[Symbol], at_hand: set[Symbol], timed: set[Symbol]) -> tuple[Symbol, ...]:
    """What computes the targets from what is at hand, in order."""
    chosen: set[Symbol] = set()
    waiting = list(targets)
    while waiting:
        symbol = waiting.pop()
        if symbol.args and symbol in timed and symbol not in chosen and symbol not in at_hand:
            chosen.add(symbol)
            waiting.extend(symbol.args)
    return ordered(chosen)


def _region_once(
    plan: Plan, users: Iterable[Symbol], ends: list[Symbol], timed: set[Symbol]
) -> tuple[Symbol, ...]:
    """What the backward needs that is the same at every step and not yet computed forward."""
    needed = ancestors({arg for user in users for arg in user.args} | set(ends))
    return ordered(s for s in needed if s.args and s not in timed and s not in plan.once)
