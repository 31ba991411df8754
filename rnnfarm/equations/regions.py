"""A plan as regions: what a fused kernel runs, what a BLAS does between, where each value lies.

Everything is found from its end: the gradients that are asked for say what the epilogue needs, that
says what the backward steps have to keep, and so on down to the prologue.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from rnnfarm.equations.graph import Parameter, Symbol, depends_on, is_condition
from rnnfarm.equations.memory import Buffer, Buffers, Location
from rnnfarm.equations.plan import CHEAP, PER_WINDOW, Plan
from rnnfarm.equations.schedule import PRODUCTS, Memory, Pass, Schedule
from rnnfarm.equations.segments import REDUCTIONS, Segment, Segments


@dataclass
class Region:
    """Passes that run in generated code.

    Attributes:
        name: of the function.
        kind: ``forward`` and ``backward`` go through the steps with fused products, ``window``
            through the steps without any, ``once`` runs one step, ``sums`` adds up over all rows.
        sums: for each learned vector, what is summed and where in its gradient the sum goes.
    """

    name: str
    kind: str
    schedule: Schedule
    passes: list[Pass] = field(default_factory=list)
    sums: list[tuple[Segment, Location]] = field(default_factory=list)


@dataclass(frozen=True)
class Product:
    """``argument @ [W₁ | W₂ | …]``, or with the weights transposed, over the whole window."""

    argument: Location
    weights: tuple[Parameter, ...]
    transposed: bool
    result: Location


@dataclass(frozen=True)
class WeightGradient:
    """``gradient of [W₁ | W₂ | …] = vectorᵀ @ gradient`` over the whole window."""

    weights: tuple[Parameter, ...]
    vector: Location
    gradient: Location


Action = Region | Product | WeightGradient


class Program:
    """The regions of a plan.

    Attributes:
        forward, backward: what a window takes, in order.
        input_gradient: what the gradient of ``x`` takes beyond ``backward``.
        d_x: where that lies.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.buffers = Buffers()
        zero = plan.graph.constant(0.0)
        self._zeros = {n: plan.graph.fill(zero, w) for n, w in plan.states.items()}
        self.segments = Segments(plan.graph.symbols)
        self.backward: list[Action] = []
        self.input_gradient: list[Action] = []
        self.d_x: Location | None = None
        self._prologue = set(plan.prologue)
        self._once = {*plan.once, *plan.backward_once}
        #: Where values lie that the prologue computes, or that are the same at every step.
        self._hoisted: dict[Segment, Location] = {}
        #: What the forward leaves, and where each segment of it lies.
        self._saved: dict[Symbol, Location] = {}
        self._left: dict[Segment, Location] = {}
        for name, width in plan.states.items():
            self.buffers.add(f"state {name}", Buffer("history", width))
        for symbol in plan.saved:
            self._leave(symbol, self._window("saved", symbol))
        for name, symbol in plan.new.items():
            self._leave(symbol, Location(f"state {name}", later=True))
        if plan.options.training:
            self._plan_backward()
        forward = self._plan_forward()
        self.forward: list[Action] = [*self._plan_hoisted(), forward]

    # -- where values lie ---------------------------------------------------------------------

    def _window(self, kind: str, symbol: Symbol) -> Location:
        """A window buffer for a symbol."""
        name = f"{kind} {symbol.index}"
        return Location(self.buffers.add(name, Buffer("window", symbol.width)))

    def _leaf(self, segment: Segment) -> Location | None:
        """Where a value lies that is given, ``d:…`` apart."""
        symbol, name = segment.symbol, segment.symbol.attribute
        if segment.op == "parameter":
            buffer = Buffer("vector", symbol.width, given=True)
        elif segment.op != "input" or name.startswith("d:"):
            return None
        elif name in self.plan.states:
            return Location(f"state {name}", segment.start)
        else:
            element = "bool" if is_condition(symbol) else "real"
            kind = "rows" if name.startswith(PER_WINDOW) else "window"
            buffer = Buffer(kind, symbol.width, element, given=True)
        prefix = "parameter" if segment.op == "parameter" else "given"
        return Location(self.buffers.add(f"{prefix} {name}", buffer), segment.start)

    def _before(self, segment: Segment) -> Location | None:
        """Where a value lies before the first step."""
        found = self._leaf(segment) or self._hoisted.get(segment)
        if found is not None:
            return found
        symbol = segment.symbol
        hoisted = symbol in self._prologue or symbol in self._once
        if not hoisted or symbol.op in CHEAP:  # what is cheap is computed where it is needed
            return None
        if symbol in self._prologue:
            location = self._window("hoisted", symbol)
        else:
            name = f"once {symbol.index}"
            location = Location(self.buffers.add(name, Buffer("rows", symbol.width)))
        self._hoisted[segment] = location.shifted(segment.start)
        return self._hoisted[segment]

    def _after(self, segment: Segment) -> Location | None:
        """Where a value lies once the forward is through."""
        return self._left.get(segment) or self._before(segment)

    def _leave(self, symbol: Symbol, location: Location) -> None:
        """Have the forward leave a symbol at a location."""
        self._saved[symbol] = location
        for part, offset in self.segments.numbered(symbol):
            if part.symbol.args:
                self._left.setdefault(part, location.shifted(offset))

    def _whole(
        self, symbol: Symbol, at_hand: Callable[[Segment], Location | None]
    ) -> Location | None:
        """Where a symbol lies whole, if its segments lie side by side."""
        parts = self.segments.numbered(symbol)
        start = at_hand(parts[0][0])
        if start is None or start.plus is not None:
            return None
        if self.buffers.known[start.buffer].kind == "vector":
            return None
        together = all(at_hand(part) == start.shifted(offset) for part, offset in parts)
        return start if together else None

    def _argument(self, symbol: Symbol) -> Location:
        """Where a step puts a product's argument that nothing else keeps."""
        name = f"argument {symbol.index}"
        return Location(self.buffers.add(name, Buffer("rows", symbol.width)))

    def packed_buffer(self, name: str, size: int, weights: tuple[Parameter, ...]) -> dict[str, int]:
        """The number of a buffer for packed weights (under ``""``), and of the weights' own."""
        self.buffers.add(name, Buffer("packed", size))
        return {"": self.buffers.number[name], **self.weight_buffers(weights)}

    def weight_buffers(self, weights: tuple[Parameter, ...]) -> dict[str, int]:
        """The numbers of the weights' own buffers, by their names."""
        numbers = {}
        for weight in weights:
            own = f"weight {weight.name}"
            width = weight.shape[0] * weight.shape[1]
            self.buffers.add(own, Buffer("packed", width, given=True))
            numbers[weight.name] = self.buffers.number[own]
        return numbers

    # -- forward ------------------------------------------------------------------------------

    def _plan_forward(self) -> Region:
        def vector(symbol: Symbol) -> tuple[Location, bool]:
            there = self._whole(symbol, self._before)
            if there is not None:
                return there, True
            if symbol in self._saved:
                return self._saved[symbol], False
            return self._argument(symbol), False

        schedule = Schedule(self.segments, Memory(self._before, vector, self.buffers.scratch))
        for symbol, location in self._saved.items():
            schedule.store_whole(symbol, location)
        return Region("forward", "forward", schedule, schedule.passes())

    def _plan_hoisted(self) -> list[Action]:
        """The prologue, and before it what is the same at every step."""
        prologue = self._schedule_window(self._leaf_or_once)
        for segment, location in list(self._hoisted.items()):
            if segment.symbol not in self._prologue:
                continue
            if segment.op in PRODUCTS:
                prologue.require(segment)
            else:
                prologue.store(segment, location)
        actions = self._actions("prologue", prologue)
        once = self._schedule_window(self._leaf)
        for segment, location in self._hoisted.items():
            if segment.symbol not in self._prologue:
                once.store(segment, location)
        passes = once.passes()
        first: list[Action] = [Region("once", "once", once, passes)] if passes else []
        return [*first, *actions]

    def _leaf_or_once(self, segment: Segment) -> Location | None:
        return self._leaf(segment) if segment.symbol in self._prologue else self._before(segment)

    def _schedule_window(self, at_hand: Callable[[Segment], Location | None]) -> Schedule:
        """A schedule over the window, whose products are the BLAS's."""

        def vector(symbol: Symbol) -> tuple[Location, bool]:
            there = self._whole(symbol, at_hand)
            return (there, True) if there is not None else (self._window("whole", symbol), False)

        def product(segment: Segment) -> Location:
            return self._window("hoisted", segment.symbol).shifted(segment.start)

        def between(width: int) -> Location:
            # All steps' values: a product over the window may come before they are read.
            name = f"between {len(self.buffers.number)}"
            return Location(self.buffers.add(name, Buffer("window", width)))

        return Schedule(self.segments, Memory(at_hand, vector, between, product))

    def _actions(self, name: str, schedule: Schedule) -> list[Action]:
        """The passes of a window's schedule and the products between them, in order."""
        actions: list[Action] = []
        pending: list[Pass] = []

        def flush() -> None:
            if pending:
                actions.append(Region(f"{name}_{len(actions)}", "window", schedule, [*pending]))
                pending.clear()

        for one in schedule.passes():
            if one.stores or one.reductions:
                pending.append(one)
            if one.whole_products:
                flush()
            actions += [self._product(schedule, symbol) for symbol in one.whole_products]
        flush()
        return actions

    def _product(self, schedule: Schedule, symbol: Symbol) -> Product:
        """A product over the whole window."""
        transposed = symbol.op == "matmul_transposed"
        argument, result = schedule.vector(symbol.args[0]), self._window("hoisted", symbol)
        return Product(argument, symbol.attribute, transposed, result)

    # -- backward -----------------------------------------------------------------------------

    def _plan_backward(self) -> None:
        plan = self.plan
        given = {s for n, s in plan.inputs.items() if n.startswith("d:")}
        arriving = depends_on(plan.graph.symbols, given)
        self._looped = (set(plan.backward_step) & arriving) | given
        self._late = arriving - self._looped
        self._kept: dict[Segment, Location] = {}
        for name, width in plan.states.items():
            self.buffers.add(f"d {name}", Buffer("pair", width))
        output = plan.states[plan.output]
        self.buffers.add("given dy", Buffer("window", output, given=True))
        self.buffers.add("given record", Buffer("window", output, given=True))
        late = self._plan_epilogue()
        self.backward = [self._plan_backward_steps(), *late]

    def _end(self, segment: Segment) -> Location | None:
        """Where a value lies once the backward steps are through."""
        if segment in self._kept:
            return self._kept[segment]
        if segment.symbol not in self._looped:
            return self._after(segment)
        name = f"kept {segment.symbol.index} {segment.start}"
        self.buffers.add(name, Buffer("window", segment.width))
        self._kept[segment] = Location(name)
        return self._kept[segment]

    def _kept_whole(self, symbol: Symbol) -> Location | None:
        """Where a value lies whole that forward or backward steps can leave in one piece."""
        parts = self.segments.of(symbol)
        if any(part.symbol in self._late for part in parts):
            return None
        looped = [part for part in parts if part.symbol in self._looped]
        there = self._whole(symbol, lambda part: self._kept.get(part) or self._after(part))
        if there is not None and (not looped or all(part in self._kept for part in looped)):
            return there
        if not looped:
            if all(part.symbol in self._prologue for part in parts if part.symbol.args):
                return None
            location = self._window("saved", symbol)
            self._leave(symbol, location)
            return location
        location = self._window("kept", symbol)
        for part, offset in self.segments.numbered(symbol):
            place = location.shifted(offset)
            self._kept.setdefault(part, place)
            self._copies.append((part, place))
        return location

    def _plan_epilogue(self) -> list[Action]:
        plan = self.plan
        self._copies: list[tuple[Segment, Location]] = []
        schedule = self._schedule_window(self._end)
        wholes: dict[Symbol, Location] = {}

        def whole(symbol: Symbol) -> Location:
            if symbol not in wholes:
                found = self._kept_whole(symbol)
                if found is None:
                    found = self._window("whole", symbol)
                    schedule.store_whole(symbol, found)
                wholes[symbol] = found
            return wholes[symbol]

        gradients: list[Action] = [
            WeightGradient(g.weights, whole(g.vector), whole(g.gradient))
            for g in plan.weight_gradients
        ]
        sums = self._plan_sums(schedule)
        self._plan_input_gradient()
        return [*self._actions("epilogue", schedule), *gradients, *sums]

    def _plan_sums(self, epilogue: Schedule) -> list[Action]:
        """The gradients of learned vectors."""
        plan = self.plan
        across: dict[Segment, Location] = {}

        def at_hand(segment: Segment) -> Location | None:
            if segment.op in REDUCTIONS or segment.op in PRODUCTS:
                there = self._end(segment)
                if there is None and segment not in across:
                    name = f"summed {segment.symbol.index} {segment.start}"
                    self.buffers.add(name, Buffer("window", segment.width))
                    across[segment] = Location(name)
                    epilogue.store(segment, across[segment])
                return there or across[segment]
            return self._end(segment)

        memory = Memory(at_hand, lambda s: (Location("none"), True), self.buffers.scratch)
        schedule = Schedule(self.segments, memory)
        region = Region("sums", "sums", schedule)
        for name, parts in plan.vector_gradients.items():
            width = plan.parameters[name].shape[0]
            buffer = self.buffers.add(f"gradient {name}", Buffer("vector", width, given=True))
            offset = 0
            for part in parts:
                for segment in self.segments.of(part):
                    self._reach(schedule, segment)
                    region.sums.append((segment, Location(buffer, offset)))
                    offset += segment.width
        return [region] if region.sums else []

    def _reach(self, schedule: Schedule, segment: Segment) -> None:
        """Have everything at hand that a sum is computed from."""
        waiting, seen = [segment], set()
        while waiting:
            one = waiting.pop()
            if one in seen or schedule.at_hand(one) is not None:
                continue
            seen.add(one)
            waiting += schedule.arguments(one)

    def _plan_input_gradient(self) -> None:
        """The gradient of the input, which only layers above others need."""
        plan = self.plan
        if plan.d_x is None:
            return
        self.d_x = self._kept_whole(plan.d_x)
        if self.d_x is not None:
            return
        schedule = self._schedule_window(self._end)
        memory = schedule.memory

        def vector(symbol: Symbol) -> tuple[Location, bool]:
            there = self._kept_whole(symbol) or self._whole(symbol, memory.at_hand)
            return (there, True) if there is not None else (self._window("whole", symbol), False)

        schedule.memory = Memory(memory.at_hand, vector, memory.scratch, memory.product)
        parts = self.segments.of(plan.d_x)
        first = parts[0]
        if first.op in PRODUCTS and parts == self.segments.of(first.symbol):
            for segment in parts:
                schedule.require(segment)
            self.d_x = self._window("hoisted", first.symbol)
        else:
            self.d_x = self._window("d_x", plan.d_x)
            schedule.store_whole(plan.d_x, self.d_x)
        self.input_gradient = self._actions("input_gradient", schedule)

    def _plan_backward_steps(self) -> Region:
        plan = self.plan

        def at_hand(segment: Segment) -> Location | None:
            symbol = segment.symbol
            if symbol.op == "input" and symbol.attribute.startswith("d:"):
                name = symbol.attribute[2:]
                plus = Location("given dy", segment.start) if name == plan.output else None
                return Location(f"d {name}", segment.start, plus=plus)
            return self._after(segment)

        def vector(symbol: Symbol) -> tuple[Location, bool]:
            there = self._whole(symbol, at_hand)
            if there is not None:
                return there, True
            return self._whole(symbol, self._kept.get) or self._argument(symbol), False

        schedule = Schedule(self.segments, Memory(at_hand, vector, self.buffers.scratch))
        for segment, location in [*self._kept.items(), *self._copies]:
            schedule.store(segment, location)
        for name, symbol in plan.d_states.items():
            target = Location(f"d {name}", later=True)
            schedule.store_whole(self._zeros[name] if symbol is None else symbol, target)
        return Region("backward", "backward", schedule, schedule.passes())
