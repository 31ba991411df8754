"""The page that ``rnnfarm explain`` prints."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rnnfarm.equations.graph import Parameter

if TYPE_CHECKING:
    from rnnfarm.equations.explain import Explanation, Line, Product


def page(e: Explanation) -> str:
    """An explanation as text."""
    return "\n".join(itertools.chain(*_sections(e))) + "\n"


def _sections(e: Explanation) -> Iterator[Iterator[str] | list[str]]:
    states = ", ".join(f"{n} ({w})" for n, w in e.states.items())
    yield [f"{e.cell}: {e.inputs} inputs, {e.hidden} units; states {states}; output {e.output}"]
    arriving = ", ".join(f"δ{name}" for name in e.states)
    yield _section("Equations", _aligned(e.equations))
    yield _section(
        f"Gradients (∂v is the loss's derivative by v; {arriving} from later steps and above)",
        _aligned(e.gradients),
    )
    yield _section("Parameter gradients (Σ over steps and rows)", _aligned(e.parameter_gradients))
    yield _section(f"Parameters ({e.parameter_count:,})", _table(map(_parameter_row, e.parameters)))
    yield _section("Once a window, for all steps together", _table(map(_product_row, e.hoisted)))
    yield _section("At every step", _table(_stage_rows(e)))
    total = sum(value.bytes for value in e.saved)
    rows = ([_cut(v.text), f"{v.width:>6}", f"{v.bytes:>8,} bytes"] for v in e.saved)
    yield _section(f"Kept for the backward ({total:,} bytes a step and row)", _table(rows))
    if e.remarks:
        yield _section("How it runs", iter(e.remarks))
    if e.source is not None:
        yield _section("Generated source", iter(e.source.splitlines()))


def _section(title: str, lines: Iterator[str]) -> Iterator[str]:
    yield from ("", title)
    empty = True
    for line in lines:
        empty = False
        yield f"  {line}".rstrip()
    if empty:
        yield "  none"


def _aligned(lines: Sequence[Line]) -> Iterator[str]:
    width = max((len(line.name) for line in lines), default=0)
    return (f"{line.name:<{width}} = {line.text}" for line in lines)


def _table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as they have to be."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "   ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))


def _parameter_row(parameter: Parameter) -> list[str]:
    shape = " × ".join(map(str, parameter.shape))
    init = parameter.init[:1] if len(set(parameter.init)) == 1 else parameter.init
    return [parameter.name, shape, ", ".join(init)]


def _product_row(product: Product) -> list[str]:
    return [_cut(product.text), f"{product.inputs} → {product.outputs}"]


def _stage_rows(e: Explanation) -> Iterator[list[str]]:
    for number, (products, count) in enumerate(e.stages, 1):
        text = " and ".join(f"{_cut(p.text)} ({p.inputs} → {p.outputs})" for p in products)
        operations = f"{count} elementwise operation{'s' * (count != 1)}"
        yield [f"stage {number}", f"{text}, then {operations}" if text else operations]


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
