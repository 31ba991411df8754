"""The lines of a generated function, and how they name values.

Where a value lives decides how the source names it. At one time step ``t`` it is a view ``name[t]``
of a window buffer, a scratch buffer ``name``, or a number; over the whole window it is an array
``all_name`` of shape ``(T, B, W)``. Views are made once, when a workspace is, not at every step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rnnfarm.equations.emit import numpy_calls, numpy_number
from rnnfarm.equations.graph import Parameter, Symbol, base_of, is_condition
from rnnfarm.equations.plan import PER_WINDOW, Plan
from rnnfarm.kernels.places import Buffer, Place, Places, last_uses


class Writer(Places):
    """The lines of one function."""

    def __init__(self, plan: Plan, buffers: dict[str, Buffer]) -> None:
        super().__init__(plan, buffers)
        self.lines: list[str] = []
        self.locals: dict[str, str] = {}
        self.indent = ""
        # Numbered, so that no parameter's name can clash with another or with a buffer's.
        self.names = {n: f"p{k}_{_identifier(n)}" for k, n in enumerate(plan.parameters)}

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
            return numpy_number(symbol.attribute)
        place = places.get(symbol) or self.part(symbol, places)
        if place is None:
            return self._leaf(symbol, stepwise)
        return self._place_text(place, stepwise)

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
        base = base_of(symbol)
        part = "[..., {}:{}]".format(*symbol.attribute) if symbol.op == "slice" else ""
        suffix = "_{}_{}".format(*symbol.attribute) if symbol.op == "slice" else ""
        if base.op == "unit_index":
            return self.local(f"index_{base.width}{suffix}", f"np.arange({base.width}.0)" + part)
        if base.op == "parameter":
            return self.parameter(base.attribute, suffix, part)
        assert base.op == "input", f"{symbol!r} has no place"
        # A state's name is a Python name and stays whole, so that no two of them become one.
        name = base.attribute.rstrip("?").replace(":", "_") + suffix
        given = f'given["{base.attribute}"]{part}'
        if base.attribute.startswith(PER_WINDOW):
            return self.local(name, given)
        if not stepwise:
            return self.local("all_" + name, given)
        return self.local(name, f"list({given})") + "[t]"

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

    def once(self, symbols: Iterable[Symbol]) -> None:
        for symbol in symbols:
            self.place_once([symbol])
            if symbol in self.step_places:
                self._operation(symbol, self.at_step)

    def window(self, symbols: Sequence[Symbol]) -> None:
        """Operations over the whole window at once."""
        joined = self.place_joined(symbols, self.window_places, "window", "w")
        for symbol, place in joined.items():
            self.window_places.setdefault(symbol, place)
        self.place_window(symbols)
        for symbol in symbols:
            if symbol in self.window_places:
                self._operation(symbol, self.over_window)

    def steps(self, symbols: Sequence[Symbol], d_states: dict[Symbol, str]) -> None:
        """Operations of one time step, with scratch buffers used again as soon as they are free."""
        joined = self.place_joined(symbols, self.step_places, "rows", "j")
        last = last_uses(symbols, set(d_states) | set(self.plan.new.values()))
        free: dict[tuple[int, bool], list[str]] = {}
        scratch: dict[Symbol, Place] = {}
        for position, symbol in enumerate(symbols):
            if symbol.op == "slice" and self.is_view(symbol) and symbol not in self.step_places:
                continue
            ending = [a for a in scratch if last.get(a, -1) == position]
            reusable = [a for a in ending if self.may_reuse(symbol, a)]
            for arg in reusable:
                free.setdefault((arg.width, is_condition(arg)), []).append(scratch.pop(arg).buffer)
            if symbol in joined:
                self.step_places[symbol] = joined[symbol]
            elif symbol not in self.step_places:
                place = self.gradient_place(symbol, d_states, last, position)
                if place is None:
                    place = scratch[symbol] = self._scratch(symbol, free)
                self.step_places[symbol] = place
            self._operation(symbol, self.at_step)
            for arg in ending:
                if arg in scratch:
                    key = (arg.width, is_condition(arg))
                    free.setdefault(key, []).append(scratch.pop(arg).buffer)

    def _scratch(self, symbol: Symbol, free: dict[tuple[int, bool], list[str]]) -> Place:
        names = free.get((symbol.width, is_condition(symbol)))
        if names:
            return Place(names.pop(), 0, symbol.width)
        return self.own(symbol, "rows", "s")

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
        place = self.part(symbol, self.window_places if windowed else self.step_places)
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
            for weight, first, last in spans(weights):
                span, turn = (f"{first}:{last}", ".T") if transposed else (f":, {first}:{last}", "")
                self.locals[f"{name}[{span}]"] = f'params["{weight.name}"]{turn}'
        return name


def spans(weights: Sequence[Parameter]) -> Iterable[tuple[Parameter, int, int]]:
    start = 0
    for weight in weights:
        yield weight, start, start + weight.shape[1]
        start += weight.shape[1]


def _view_name(place: Place, buffer: Buffer) -> str:
    name = place.buffer
    if (place.start, place.stop) != (0, buffer.width):
        span = f"{place.start}_{place.stop}"
        # A state may be called h_0_2, so a part of a state is named the other way round.
        name = f"{name}_{span}" if name[1:].isdigit() else f"part_{span}_{name}"
    return f"new_{name}" if place.first else name


def _identifier(text: str) -> str:
    """A parameter's name as part of a Python name."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in text)
