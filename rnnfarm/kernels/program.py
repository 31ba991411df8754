"""Writes a plan as the source of two Python functions that call NumPy."""

from __future__ import annotations

from rnnfarm.equations.graph import Symbol, ancestors
from rnnfarm.equations.plan import Plan
from rnnfarm.kernels.places import Buffer, Place
from rnnfarm.kernels.writer import Writer, spans


def write_forward(plan: Plan, buffers: dict[str, Buffer]) -> str:
    """The source of ``forward(ws, T, B, params, given)``; adds the buffers that it needs."""
    writer = Writer(plan, buffers)
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
    writer = Writer(plan, buffers)
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


def _write_backward_steps(plan: Plan, writer: Writer) -> None:
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


def _write_epilogue(plan: Plan, writer: Writer) -> None:
    ends = [s for g in plan.weight_gradients for s in (g.vector, g.gradient)]
    ends += [s for parts in plan.vector_gradients.values() for s in parts]
    needed = ancestors(ends)
    writer.window([s for s in plan.epilogue if s in needed])
    for gradient in plan.weight_gradients:
        rows, arriving = writer.flat(gradient.vector), writer.flat(gradient.gradient)
        for weight, start, stop in spans(gradient.weights):
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


def _write_sums(plan: Plan, writer: Writer) -> None:
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
