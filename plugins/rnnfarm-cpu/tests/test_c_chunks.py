"""Long blocks of C, cut into chunks: the same bits, and no more is kept than is read."""

from __future__ import annotations

from typing import Any

import pytest
from rnnfarm_cpu import chunks
from rnnfarm_cpu.chunks import chunked
from rnnfarm_cpu.compiler import find_compiler
from rnnfarm_cpu.kernel import CPUKernel

from rnnfarm import Cell, affine, layer_norm, row_max, sigmoid, split, tanh
from rnnfarm.equations.plan import make_plan
from rnnfarm.kernels.case import case_of, variants

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="there is no C compiler")


class Mixed(Cell):
    """Numbers of a row, vectors, reductions and products with what they need."""

    states = ("h", "c")

    def step(self, x: Any, h: Any, c: Any) -> Any:
        total = affine(x, h)
        for k, unit in enumerate(split(h, h.width)):
            total = total + 0.1 * k * tanh(unit * unit) * c
        return tanh(layer_norm(total) + row_max(c)), sigmoid(total) * c + affine(total, units=3 * 5)


@needs_compiler
def test_chunks_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for limits in ((10**9, 64), (1, 7)):
        monkeypatch.setattr(chunks, "LONG", limits[0])
        monkeypatch.setattr(chunks, "CHUNK", limits[1])
        cell = Mixed()
        plan = make_plan(cell, 3, 15, variants(cell.states)["all"])
        built = CPUKernel().build(plan, "float32")
        assert ("keep[" in built.source) == (limits[0] == 1)
        found.append(case_of(built, (5, 3), 0, "float32").results())
    assert found[0] == found[1]


def test_a_short_block_stays_as_it_is() -> None:
    head, body = ["const vec q0 = 1;"], ["const vec q1 = q0;"]
    assert chunked(head, body) == (head, body)


@pytest.mark.parametrize("terms", [1000, 4000])
def test_what_is_kept_between_chunks_is_no_more_than_is_read(terms: int) -> None:
    """A chain of sums keeps one value, and what the loop reads of the head stays."""
    head = [f"const vec q{k} = {f'q{k - 1} + 1' if k else '0'};" for k in range(terms)]
    body = [
        f"const vec q{terms + k} = q{terms - 1} + q{max(terms + k - 1, terms - 1)};"
        for k in range(200)
    ]
    new_head, new_body = chunked(head, body)
    size = int(new_head[0].removeprefix("vec keep[").removesuffix("];"))
    assert size <= 4
    assert len(new_head) + len(new_body) < 1.2 * (terms + 200)
