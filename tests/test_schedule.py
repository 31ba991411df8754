"""The passes of a fused kernel."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import pytest

from rnnfarm.builtin import cells
from rnnfarm.equations.graph import Symbol
from rnnfarm.equations.instrument import PlanOptions
from rnnfarm.equations.parts import Cell
from rnnfarm.equations.plan import make_plan
from rnnfarm.equations.schedule import Memory, Schedule
from rnnfarm.equations.segments import Segment, Segments


@dataclass(frozen=True)
class Place:
    name: str
    offset: int = 0

    def shifted(self, units: int) -> Place:
        return replace(self, offset=self.offset + units)


def forward_of(cell: Cell, options: PlanOptions | None = None) -> Schedule:
    """The schedule of a cell's forward step, without anything that is saved."""
    plan = make_plan(cell, 3, 8, options or PlanOptions(training=False))
    segments, numbers = Segments(plan.graph.symbols), itertools.count()
    before = {*plan.prologue}

    def at_hand(segment: Segment) -> Place | None:
        symbol = segment.symbol
        if symbol.op in ("input", "parameter") or (symbol in before and symbol.op == "matmul"):
            return Place(f"given {symbol.index}", segment.start)
        return None

    def vector(symbol: Symbol) -> tuple[Place, bool]:
        return Place(f"vector {symbol.index}"), symbol.op == "input"

    schedule = Schedule(
        segments, Memory(at_hand, vector, lambda width: Place(f"scratch {next(numbers)}"))
    )
    for name, symbol in plan.new.items():
        for part in segments.of(symbol):
            schedule.store(part, Place(name))
    return schedule


@pytest.mark.parametrize(
    ("cell", "keys"),
    [
        # One product and all its gates in one pass.
        (cells.LSTM(), [(0, 0, 8)]),
        (cells.GRU(), [(0, 0, 8)]),
        # The second product reads what the first one's pass has stored.
        (cells.GRUResetBefore(), [(0, 0, 8), (1, 0, 8)]),
        (cells.Jordan(), [(0, 0, 8), (1, 0, 8)]),
        (cells.IndRNN(), [(0, 1, 8)]),
        # Mean, variance and use of the gates, then the same of the cell state.
        (cells.LSTMLayerNorm(), [(0, 0, 8), (0, 1, 8), (1, 1, 8), (2, 1, 8), (3, 1, 8), (4, 1, 8)]),
    ],
)  # fmt: skip
def test_passes(cell: Cell, keys: list[tuple[int, int, int]]) -> None:
    assert [one.key for one in forward_of(cell).passes()] == keys


def test_a_reset_state_is_stored_before_its_product() -> None:
    schedule = forward_of(cells.LSTM(), PlanOptions(training=False, resets=True))
    first, second = schedule.passes()
    assert first.of_rows
    assert [segment.op for segment, _ in first.stores] == ["where"]
    assert not second.of_rows
    assert {place.name for _, place in second.stores} == {"h", "c"}


def test_what_is_dear_is_computed_once() -> None:
    """The gate of GRUResetBefore that both passes need is a sigmoid: the first one leaves it."""
    first, second = forward_of(cells.GRUResetBefore()).passes()
    kept = {segment for segment, place in first.stores if place.name.startswith("scratch")}
    assert {segment.op for segment in kept} <= {"sigmoid", "add"}
    assert len(kept) == 1
    assert len(second.products) == 1


def test_equations_may_be_deep() -> None:
    """No recursion: a chain of some thousand operations."""

    class Deep(Cell):
        def step(self, x: Symbol, h: Symbol) -> Symbol:
            for _ in range(3000):
                h = h * 0.999
            return h

    (one,) = forward_of(Deep()).passes()
    assert one.of_rows
