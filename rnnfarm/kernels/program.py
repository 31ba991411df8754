"""Writes a plan as the source of two Python functions that call NumPy.

Where a value lives decides how the source names it. At one time step ``t`` it is a view ``name[t]``
of a window buffer, a scratch buffer ``name``, or a number; over the whole window it is an array
``all_name`` of shape ``(T, B, W)``. Views are made once, when a workspace is, not at every step.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

from rnnfarm.equations.emit import may_overwrite, numpy_calls
from rnnfarm.equations.graph import Parameter, Symbol, ancestors, is_condition
from rnnfarm.equations.plan import PER_WINDOW, Plan


@dataclass
class Buffer:
    """An array of a workspace.

    Attributes:
        kind: ``vector`` (W,), ``rows`` (B, W), ``window`` (T, B, W), ``history`` (T + 1, B, W) or
            ``weight`` (I, W).
        views: view name → (first step, first unit, last unit + 1).
    """

    kind: str
    width: int
    boolean: bool = False
    inputs: int = 0
    views: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    @property
    def timed(self) -> bool:
        return self.kind in ("window", "history")

    def shape(self, steps: int, rows: int) -> tuple[int, ...]:
        return {
            "vector": (self.width,),
            "rows": (rows, self.width),
            "window": (steps, rows, self.width),
            "history": (steps + 1, rows, self.width),
            "weight": (self.inputs, self.width),
        }[self.kind]


@dataclass(frozen=True)
class Place:
    """Where a value lives: part of a buffer, or (``buffer`` empty) a local of the source."""

    buffer: str
    start: int = 0
    stop: int = 0
    first: int = 0
    local: str = ""


def write_forward(plan: Plan, buffers: dict[str, Buffer]) -> str:
    """The source of ``forward(ws, T, B, params, given)``; adds the buffers that it needs."""
    writer = _Writer(plan, buffers)
    writer.once(plan.once)
    writer.window(plan.prologue)
    writer.lines.append("for t in range(T):")
    writer.indent = "    "
    loop = [s for stage in plan.stages for s in (*stage.products, *stage.elementwise)]
    writer.place_forward(loop)
    writer.steps(loop, {})
    for name, symbol in plan.new.items():
        target = Place(f"state_{name}", 0, symbol.width, first=1)
        if writer.step_places.get(symbol) != target:
            writer.add(f"np.copyto({writer.view(target)}, {writer.at_step(symbol)})")
    if writer.lines[-1].startswith("for"):
        writer.add("pass")
    return writer.source("def forward(ws, T, B, params, given):")


def write_backward(plan: Plan, buffers: dict[str, Buffer]) -> str:
    """The source of ``backward(ws, T, B, params, given, dy, grads, need_d_x, record)``."""
    writer = _Writer(plan, buffers)
    loop = [s for stage in plan.stages for s in (*stage.products, *stage.elementwise)]
    writer.place_once(plan.once)
    writer.place_window(plan.prologue)
    writer.place_forward(loop)
    writer.forget_scratch()
    writer.once(plan.backward_once)
    writer.place_backward()
    _write_backward_steps(plan, writer)
    _write_epilogue(plan, writer)
    signature = "params, given, dy, grads, need_d_x, record"
    return writer.source(f"def backward(ws, T, B, {signature}):")


def _write_backward_steps(plan: Plan, writer: _Writer) -> None:
    output = plan.output
    writer.local("dy_steps", "list(dy)")
    writer.local(f"d_{output}", f'ws.whole["d_{output}"]')
    writer.add(f"np.add(d_{output}, dy_steps[T - 1], d_{output})")
    writer.add("for t in range(T - 1, -1, -1):")
    writer.indent = "    "
    writer.add("if record is not None:")
    writer.add(f"    np.copyto(record[t], d_{output})")
    for symbol in plan.kept:
        if symbol.op == "input":
            kept = writer.window_places[symbol]
            writer.add(f"np.copyto({writer.view(kept)}, {writer.at_step(symbol)})")
    writer.steps(plan.backward_step, {s: n for n, s in plan.d_states.items() if s is not None})
    for name, gradient in plan.d_states.items():
        if name == output:
            continue
        text = "0.0" if gradient is None else writer.at_step(gradient)
        if text != f"d_{name}":
            writer.local(f"d_{name}", f'ws.whole["d_{name}"]')
            writer.add(f"np.copyto(d_{name}, {text})")
    # The gradient that arrives at the step before: this step's, and that of its own output.
    gradient = plan.d_states[output]
    text = "0.0" if gradient is None else writer.at_step(gradient)
    writer.add("if t:")
    writer.add(f"    np.add({text}, dy_steps[t - 1], d_{output})")
    writer.add("else:")
    writer.add(f"    np.copyto(d_{output}, {text})")
    writer.indent = ""


def _write_epilogue(plan: Plan, writer: _Writer) -> None:
    ends = [s for g in plan.weight_gradients for s in (g.vector, g.gradient)]
    ends += [s for parts in plan.vector_gradients.values() for s in parts]
    needed = ancestors(ends)
    writer.window([s for s in plan.epilogue if s in needed])
    for gradient in plan.weight_gradients:
        rows, arriving = writer.flat(gradient.vector), writer.flat(gradient.gradient)
        for weight, start, stop in _spans(gradient.weights):
            own = arriving if len(gradient.weights) == 1 else f"{arriving}[:, {start}:{stop}]"
            writer.add(f'np.matmul({rows}.T, {own}, grads["{weight.name}"])')
    _write_sums(plan, writer)
    reached = {w.name for g in plan.weight_gradients for w in g.weights}
    reached |= set(plan.vector_gradients)
    for name in plan.parameters:
        if name not in reached:
            writer.add(f'grads["{name}"].fill(0.0)')
    writer.add("if not need_d_x:")
    writer.add("    return None")
    writer.window([s for s in plan.epilogue if s not in needed])
    if plan.d_x is None:
        writer.add('return np.zeros_like(given["x"])')
    else:
        writer.add(f"return {writer.over_window(plan.d_x)}")


def _write_sums(plan: Plan, writer: _Writer) -> None:
    """The gradients of vectors: sums over rows, then over steps."""
    targets: list[tuple[str, Symbol]] = []
    for name, parts in plan.vector_gradients.items():
        start = 0
        for part in parts:
            span = f"[{start}:{start + part.width}]" if len(parts) > 1 else ""
            targets.append((f'grads["{name}"]{span}', part))
            start += part.width
    summed = writer.summed_whole([part for _, part in targets])
    for target, part in targets:
        place = writer.window_places.get(part)
        if all(s.op in ("constant", "fill") for s in ancestors([part])):
            # Only the part of a vector that nothing uses has a constant gradient.
            writer.add(f"{target}[...] = 0.0")
        elif place is not None and place.buffer in summed:
            writer.add(f"{target}[...] = {summed[place.buffer]}[{place.start}:{place.stop}]")
        else:
            rows = writer.over_window(part)
            writer.add(f"np.add.reduce(np.add.reduce({rows}, 1), 0, None, {target})")


def _spans(weights: Sequence[Parameter]) -> Iterable[tuple[Parameter, int, int]]:
    start = 0
    for weight in weights:
        yield weight, start, start + weight.shape[1]
        start += weight.shape[1]


class _Writer:
    """The lines of one function, and where each symbol's value lives."""

    def __init__(self, plan: Plan, buffers: dict[str, Buffer]) -> None:
        self.plan = plan
        self.buffers = buffers
        self.lines: list[str] = []
        self.locals: dict[str, str] = {}
        self.indent = ""
        self.step_places: dict[Symbol, Place] = {}
        self.window_places: dict[Symbol, Place] = {}
        self.rowwise = _rowwise(plan)
        self.uses = _uses(plan)
        # Numbered, so that no parameter's name can clash with another or with a buffer's.
        self.names = {n: f"p{k}_{_identifier(n)}" for k, n in enumerate(plan.parameters)}
        for name, width in plan.states.items():
            self.buffers.setdefault(f"state_{name}", Buffer("history", width))
            self.put(plan.inputs[name], Place(f"state_{name}", 0, width))

    # -- text -------------------------------------------------------------------------------------

    def add(self, line: str) -> None:
        self.lines.append(self.indent + line)

    def local(self, name: str, value: str) -> str:
        self.locals.setdefault(name, value)
        return name

    def parameter(self, name: str, suffix: str = "", part: str = "") -> str:
        """The local name of a parameter, or of a part of it."""
        return self.local(self.names[name] + suffix, f'params["{name}"]{part}')

    def source(self, signature: str) -> str:
        body = [f"{name} = {value}" for name, value in self.locals.items()] + self.lines
        return "\n    ".join([signature, *body]) + "\n"

    def view(self, place: Place) -> str:
        """The text of a place at step ``t``."""
        if not place.buffer:
            return place.local
        buffer = self.buffers[place.buffer]
        name = _view_name(place, buffer)
        if name != place.buffer or buffer.timed:
            buffer.views[name] = (place.first, place.start, place.stop)
        table = "steps" if buffer.timed else "whole"
        self.local(name, f'ws.{table}["{name}"]')
        return f"{name}[t]" if buffer.timed else name

    def at_step(self, symbol: Symbol) -> str:
        """The text of a symbol's value at step ``t``."""
        return self._text(symbol, self.step_places, stepwise=True)

    def over_window(self, symbol: Symbol) -> str:
        """The text of a symbol's value over the whole window, ``(T, B, W)``."""
        return self._text(symbol, self.window_places, stepwise=False)

    def flat(self, symbol: Symbol) -> str:
        """The text of a symbol's value as a matrix of ``T * B`` rows."""
        return f"{self.over_window(symbol)}.reshape(T * B, {symbol.width})"

    def _text(self, symbol: Symbol, places: dict[Symbol, Place], stepwise: bool) -> str:
        if symbol.op == "constant":
            return repr(symbol.attribute)
        place = places.get(symbol) or self._part(symbol, places)
        if place is None:
            return self._leaf(symbol, stepwise)
        return self._place_text(place, stepwise)

    @staticmethod
    def _part(symbol: Symbol, places: dict[Symbol, Place]) -> Place | None:
        """Where a slice lies within what it is a slice of."""
        if symbol.op != "slice" or symbol.args[0] not in places:
            return None
        base, (start, stop) = places[symbol.args[0]], symbol.attribute
        return Place(base.buffer, base.start + start, base.start + stop, base.first)

    def _place_text(self, place: Place, stepwise: bool) -> str:
        if stepwise or not self.buffers[place.buffer].timed:
            return self.view(place)
        name = "all_" + _view_name(place, self.buffers[place.buffer])
        array = f'ws.whole["{place.buffer}"][' + ("1:T + 1" if place.first else ":T")
        if (place.start, place.stop) != (0, self.buffers[place.buffer].width):
            array += f", :, {place.start}:{place.stop}"
        return self.local(name, array + "]")

    def _leaf(self, symbol: Symbol, stepwise: bool) -> str:
        """A value that the caller gave, or a part of one."""
        base = symbol.args[0] if symbol.op == "slice" else symbol
        part = "[..., {}:{}]".format(*symbol.attribute) if symbol.op == "slice" else ""
        suffix = "_{}_{}".format(*symbol.attribute) if symbol.op == "slice" else ""
        if base.op == "unit_index":
            return self.local(f"index_{base.width}{suffix}", f"np.arange({base.width}.0)" + part)
        if base.op == "parameter":
            return self.parameter(base.attribute, suffix, part)
        assert base.op == "input", f"{symbol!r} has no place"
        name = _identifier(base.attribute).rstrip("_") + suffix
        given = f'given["{base.attribute}"]{part}'
        if base.attribute.startswith(PER_WINDOW):
            return self.local(name, given)
        if not stepwise:
            return self.local("all_" + name, given)
        return self.local(name, f"list({given})") + "[t]"

    # -- places -----------------------------------------------------------------------------------

    def put(self, symbol: Symbol, place: Place) -> Place:
        """Fix a symbol's place, for a step and for the window alike."""
        self.step_places[symbol] = self.window_places[symbol] = place
        return place

    def own(self, symbol: Symbol, kind: str, prefix: str) -> Place:
        """A buffer of its own for a symbol."""
        name = f"{prefix}{symbol.index}"
        self.buffers.setdefault(name, Buffer(kind, symbol.width, is_condition(symbol)))
        return Place(name, 0, symbol.width)

    def place_once(self, symbols: Iterable[Symbol]) -> None:
        """Places of values that are computed once a window."""
        for symbol in symbols:
            if symbol.op != "slice" or not self._is_view(symbol):
                kind = "rows" if symbol in self.rowwise else "vector"
                self.put(symbol, self.own(symbol, kind, "o"))

    def place_window(self, symbols: Sequence[Symbol]) -> None:
        """Places of values that are computed over the whole window, where they have none yet."""
        here = set(symbols)
        for symbol in symbols:
            if symbol in self.window_places or (symbol.op == "slice" and self._window_view(symbol)):
                continue
            place = self._overwritten(symbol, here) or self.own(symbol, "window", "w")
            self.window_places[symbol] = place
            self.step_places.setdefault(symbol, place)

    def _overwritten(self, symbol: Symbol, here: set[Symbol]) -> Place | None:
        """The place of an argument that is computed here and that nothing else reads."""
        for arg in symbol.args:
            if arg not in here or self.uses[arg] != 1 or not self._may_reuse(symbol, arg):
                continue
            place = self.window_places.get(arg)
            if place is None and arg.args[0] in here and self._is_cut(arg.args[0]):
                place = self._part(arg, self.window_places)
            if place is not None and place.buffer.startswith("w"):
                return place
        return None

    def _is_cut(self, symbol: Symbol) -> bool:
        """Whether all that reads a value are slices that share no unit."""
        spans = sorted(s.attribute for s in self.uses if s.op == "slice" and s.args == (symbol,))
        apart = all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
        return apart and len(spans) == self.uses[symbol]

    def summed_whole(self, parts: Sequence[Symbol]) -> dict[str, str]:
        """Buffers of which every unit is among the parts: summed at once, by name of the sum."""
        covered: dict[str, set[Place]] = {}
        for part in parts:
            place = self.window_places.get(part)
            if place is not None and not place.first:
                covered.setdefault(place.buffer, set()).add(place)
        whole = {}
        for name, places in covered.items():
            width = self.buffers[name].width
            if len(places) > 1 and sum(p.stop - p.start for p in places) == width:
                rows = self._place_text(Place(name, 0, width), stepwise=False)
                self.add(f"sums_{name} = np.add.reduce(np.add.reduce({rows}, 1), 0)")
                whole[name] = f"sums_{name}"
        return whole

    def place_forward(self, loop: Sequence[Symbol]) -> None:
        """Places of the new states and of what is saved for the backward."""
        for symbol in self.plan.saved:
            self.put(symbol, self.own(symbol, "window", "v"))
        computed, taken = set(loop), set()
        for name, symbol in self.plan.new.items():
            place = Place(f"state_{name}", 0, symbol.width, first=1)
            if symbol in computed and symbol.op != "slice" and symbol not in taken:
                self.put(symbol, place)
                taken.add(symbol)
            elif symbol not in self.step_places:
                # Computed elsewhere and copied; the backward finds it in the state's history.
                self.window_places[symbol] = place
                taken.add(symbol)

    def forget_scratch(self) -> None:
        """In the backward every new state is read from its history."""
        for symbol, place in self.window_places.items():
            self.step_places.setdefault(symbol, place)

    def place_backward(self) -> None:
        plan = self.plan
        for name, width in plan.states.items():
            self.buffers.setdefault(f"d_{name}", Buffer("rows", width))
            leaf = plan.inputs.get(f"d:{name}")
            if leaf is not None:
                self.step_places[leaf] = Place(f"d_{name}", 0, width)
        for symbol in sorted(plan.kept, key=lambda s: s.op != "concat"):
            place = self._part_of_kept(symbol) or self.own(symbol, "window", "k")
            if symbol.op == "input":
                self.window_places[symbol] = place
            else:
                self.put(symbol, place)

    def _part_of_kept(self, symbol: Symbol) -> Place | None:
        """The place of a kept value inside a kept joined value that it is computed into."""
        for whole in self.plan.kept:
            if whole.op == "concat" and _computed_in_place(symbol) and symbol in whole.args:
                place = self.window_places[whole]
                start = sum(a.width for a in whole.args[: whole.args.index(symbol)])
                return Place(place.buffer, start, start + symbol.width)
        return None

    def _is_view(self, symbol: Symbol) -> bool:
        """Whether a slice is a view of something that has a place."""
        base = symbol.args[0]
        return base in self.step_places or base.op in ("input", "parameter", "unit_index")

    # -- operations -------------------------------------------------------------------------------

    def once(self, symbols: Iterable[Symbol]) -> None:
        for symbol in symbols:
            self.place_once([symbol])
            if symbol in self.step_places:
                self._operation(symbol, self.at_step)

    def window(self, symbols: Sequence[Symbol]) -> None:
        """Operations over the whole window at once."""
        joined = self._place_joined(symbols, self.window_places, "window", "w")
        for symbol, place in joined.items():
            self.window_places.setdefault(symbol, place)
        self.place_window(symbols)
        for symbol in symbols:
            if symbol in self.window_places:
                self._operation(symbol, self.over_window)

    def _window_view(self, symbol: Symbol) -> bool:
        base = symbol.args[0]
        return base in self.window_places or base.op in ("input", "parameter", "unit_index")

    def steps(self, symbols: Sequence[Symbol], d_states: dict[Symbol, str]) -> None:
        """Operations of one time step, with scratch buffers used again as soon as they are free."""
        joined = self._place_joined(symbols, self.step_places, "rows", "j")
        last = _last_uses(symbols, set(d_states) | set(self.plan.new.values()))
        free: dict[tuple[int, bool], list[str]] = {}
        scratch: dict[Symbol, Place] = {}
        for position, symbol in enumerate(symbols):
            if symbol.op == "slice" and self._is_view(symbol) and symbol not in self.step_places:
                continue
            ending = [a for a in scratch if last.get(a, -1) == position]
            reusable = [a for a in ending if self._may_reuse(symbol, a)]
            for arg in reusable:
                free.setdefault((arg.width, is_condition(arg)), []).append(scratch.pop(arg).buffer)
            if symbol in joined:
                self.step_places[symbol] = joined[symbol]
            elif symbol not in self.step_places:
                place = self._gradient_place(symbol, d_states, last, position)
                if place is None:
                    place = scratch[symbol] = self._scratch(symbol, free)
                self.step_places[symbol] = place
            self._operation(symbol, self.at_step)
            for arg in ending:
                if arg in scratch:
                    key = (arg.width, is_condition(arg))
                    free.setdefault(key, []).append(scratch.pop(arg).buffer)

    @staticmethod
    def _may_reuse(symbol: Symbol, arg: Symbol) -> bool:
        positions = [k for k, a in enumerate(symbol.args) if a is arg]
        same = symbol.width == arg.width and is_condition(symbol) == is_condition(arg)
        return bool(positions) and same and all(may_overwrite(symbol, k) for k in positions)

    def _scratch(self, symbol: Symbol, free: dict[tuple[int, bool], list[str]]) -> Place:
        names = free.get((symbol.width, is_condition(symbol)))
        if names:
            return Place(names.pop(), 0, symbol.width)
        return self.own(symbol, "rows", "s")

    def _gradient_place(
        self, symbol: Symbol, d_states: dict[Symbol, str], last: dict[Symbol, float], position: int
    ) -> Place | None:
        """A state's gradient goes straight to where the step before reads it, if that is free."""
        name = d_states.get(symbol)
        if name is None or name == self.plan.output:
            return None
        leaf = self.plan.inputs[f"d:{name}"]
        end = last.get(leaf, -1)
        if end < position or (end == position and self._may_reuse(symbol, leaf)):
            return Place(f"d_{name}", 0, symbol.width)
        return None

    def _place_joined(
        self, symbols: Sequence[Symbol], places: dict[Symbol, Place], kind: str, prefix: str
    ) -> dict[Symbol, Place]:
        """Places of the parts of joined values: each is computed where it is to be joined."""
        result: dict[Symbol, Place] = {}
        here = set(symbols)
        for symbol in symbols:
            if symbol.op != "concat":
                continue
            place = places.get(symbol) or self.own(symbol, kind, prefix)
            places[symbol] = place
            start = place.start
            for part in symbol.args:
                unplaced = part in here and part not in places and part not in result
                if unplaced and _computed_in_place(part):
                    result[part] = Place(place.buffer, start, start + part.width, place.first)
                start += part.width
        return result

    def _operation(self, symbol: Symbol, text: object) -> None:
        """The lines that compute a symbol into its place."""
        assert callable(text)
        windowed = text == self.over_window
        out = str(text(symbol))
        if symbol.op == "concat":
            self._join(symbol, windowed)
        elif symbol.op in ("matmul", "matmul_transposed"):
            arg = self.flat(symbol.args[0]) if windowed else self.at_step(symbol.args[0])
            out = self.flat(symbol) if windowed else out
            self.add(f"np.matmul({arg}, {self._weight(symbol, windowed)}, {out})")
        elif symbol.op == "slice":
            self.add(f"np.copyto({out}, {self._sliced(symbol, windowed)})")
        else:
            for line in numpy_calls(symbol, [str(text(a)) for a in symbol.args], out):
                self.add(line)

    def _sliced(self, symbol: Symbol, windowed: bool) -> str:
        """The text of a slice as part of its base, whatever place it has itself."""
        place = self._part(symbol, self.window_places if windowed else self.step_places)
        if place is None:
            return self._leaf(symbol, stepwise=not windowed)
        return self._place_text(place, stepwise=not windowed)

    def _join(self, symbol: Symbol, windowed: bool) -> None:
        """Copy those parts that were not computed in place."""
        places = self.window_places if windowed else self.step_places
        place = places[symbol]
        start = place.start
        for part in symbol.args:
            target = Place(place.buffer, start, start + part.width, place.first)
            if places.get(part) != target:
                given = self.over_window(part) if windowed else self.at_step(part)
                self.add(f"np.copyto({self._target(target, windowed)}, {given})")
            start += part.width

    def _target(self, place: Place, windowed: bool) -> str:
        if not windowed:
            return self.view(place)
        return f'ws.whole["{place.buffer}"][:T, :, {place.start}:{place.stop}]'

    def _weight(self, symbol: Symbol, windowed: bool) -> str:
        """The weights of a product, joined where there are several."""
        weights: tuple[Parameter, ...] = symbol.attribute
        transposed = symbol.op == "matmul_transposed"
        if transposed and not windowed:
            # A product with a transposed view takes up to half as long again, at every step.
            return self._copy_weights(weights, transposed=True)
        if len(weights) == 1:
            name = self.parameter(weights[0].name)
        else:
            name = self._copy_weights(weights, transposed=False)
        return self.local(f"turned_{name}", f"{name}.T") if transposed else name

    def _copy_weights(self, weights: tuple[Parameter, ...], transposed: bool) -> str:
        """Weights side by side (or their transposes below each other); copied once a window."""
        start = "turned" if transposed else "joined"
        name = "_".join([start, *(self.names[w.name] for w in weights), "copy"])
        inputs, width = weights[0].shape[0], sum(w.shape[1] for w in weights)
        if transposed:
            inputs, width = width, inputs
        # The forward's copy serves the backward too.
        there = name in self.buffers
        self.buffers.setdefault(name, Buffer("weight", width, inputs=inputs))
        if name in self.locals:
            return name
        self.local(name, f'ws.whole["{name}"]')
        if not there:
            for weight, first, last in _spans(weights):
                span, turn = (f"{first}:{last}", ".T") if transposed else (f":, {first}:{last}", "")
                self.locals[f"{name}[{span}]"] = f'params["{weight.name}"]{turn}'
        return name


def _uses(plan: Plan) -> Counter[Symbol]:
    """How many operations of a plan, or results that it gives, read each value."""
    stages = [s for stage in plan.stages for s in (*stage.products, *stage.elementwise)]
    regions = (plan.once, plan.prologue, stages, plan.backward_once, plan.backward_step)
    read = [arg for region in (*regions, plan.epilogue) for s in region for arg in set(s.args)]
    read += [*plan.new.values(), *plan.saved, *plan.kept]
    read += [s for s in (plan.d_x, *plan.d_states.values()) if s is not None]
    read += [s for g in plan.weight_gradients for s in (g.vector, g.gradient)]
    read += [s for parts in plan.vector_gradients.values() for s in parts]
    return Counter(read)


def _rowwise(plan: Plan) -> set[Symbol]:
    """Values that are the same at every step but differ from row to row."""
    given = {s for n, s in plan.inputs.items() if n.startswith(PER_WINDOW)}
    found = set(given)
    for symbol in plan.graph.symbols:
        if any(arg in found for arg in symbol.args):
            found.add(symbol)
    return found


def _computed_in_place(symbol: Symbol) -> bool:
    """Whether an operation can write into a part of a wider buffer."""
    return bool(symbol.args) and symbol.op not in ("slice", "matmul", "matmul_transposed")


def _last_uses(symbols: Sequence[Symbol], lasting: set[Symbol]) -> dict[Symbol, float]:
    """The position of the last use of every symbol; a slice's use is one of its base."""
    last: dict[Symbol, float] = {}
    for position, symbol in enumerate(symbols):
        for arg in symbol.args:
            last[arg] = position
            if arg.op == "slice":
                last[arg.args[0]] = position
    for symbol in lasting:
        last[symbol] = inf
        if symbol.op == "slice":
            last[symbol.args[0]] = inf
    return last


def _view_name(place: Place, buffer: Buffer) -> str:
    name = place.buffer
    if (place.start, place.stop) != (0, buffer.width):
        span = f"{place.start}_{place.stop}"
        # A state may be called h_0_2, so a part of a state is named the other way round.
        name = f"{name}_{span}" if name[1:].isdigit() else f"part_{span}_{name}"
    return f"new_{name}" if place.first else name


def _identifier(text: str) -> str:
    """A parameter's or input's name as part of a Python name."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in text)
