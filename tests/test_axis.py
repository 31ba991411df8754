"""Axes: every tick lies within them, where its value is, and is written as that value."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rnnfarm.axis import Axis, nice, number

Finite = st.floats(allow_nan=False, allow_infinity=False)


def labels(*values: float, **how: bool) -> list[str]:
    axis = Axis(values, 0, 100, **how)
    return [axis.label(tick) for tick in axis.ticks]


MILLIONS = ["1e6", "1.000002e6", "1.000004e6", "1.000006e6", "1.000008e6", "1.00001e6"]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.003], ["0.003"]),  # a constant learning rate
        ([0.003, 0.003], ["0.003"]),
        ([0.0, 0.0], ["0"]),
        ([-2.5], ["-2.5"]),
        ([0, 1], ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ([-3, 7], ["-2", "0", "2", "4", "6"]),
        ([1.5e-4, 4e-4], ["1.5e-4", "2e-4", "2.5e-4", "3e-4", "3.5e-4", "4e-4"]),
        ([1e6, 1e6 + 10], MILLIONS),
        ([123456.1, 123456.9], ["123,456.2", "123,456.4", "123,456.6", "123,456.8"]),
        ([2e7, 9e7], ["2e7", "4e7", "6e7", "8e7"]),
        ([-1e308, 1.7e308], ["-1e308", "0", "1e308"]),
    ],
)
def test_ticks(values: list[float], shown: list[str]) -> None:
    assert labels(*values) == shown


def test_ticks_of_counts_and_of_powers() -> None:
    assert labels(1, 3, whole=True) == ["1", "2", "3"]
    assert labels(1, 1, whole=True) == ["1"]
    assert labels(0.002, 30, log=True) == ["0.001", "0.01", "0.1", "1", "10", "100"]
    assert labels(7, log=True) == ["1", "10"]
    assert labels(1e-9, 1e9, log=True) == ["1e-9", "1e-6", "0.001", "1", "1,000", "1e6", "1e9"]


@given(Finite, Finite)
@example(5e-324, 0.0)
@example(1e308, -1.7e308)
@example(1.7e308, 1.7e308)
@example(-1.1984620899082105e308, -1.1984620899022182e308)
@example(1.0, 1.0000000000000002)
@example(0.1, 0.30000000000000004)
def test_every_tick_is_true(one: float, other: float) -> None:
    axis = Axis([one, other], 10, 110)
    low, high = sorted((one, other))
    assert 1 <= len(axis.ticks) <= 11
    slack = 1e-9 * max(abs(low), abs(high)) + 1e-299
    for tick in axis.ticks:
        assert low - slack <= tick <= high + slack
        written = float(axis.label(tick).replace(",", ""))
        near = max(axis.step * 1e-3, abs(tick) * 1e-5, 1e-299)
        assert written == pytest.approx(tick, abs=near)
    assert len({axis.label(tick) for tick in axis.ticks}) == len(axis.ticks)
    places = [axis(tick) for tick in axis.ticks]
    assert all(a < b for a, b in pairwise(places))
    assert all(9.9 <= place <= 110.1 for place in [*places, axis(low), axis(high)])


@given(st.floats(min_value=5e-324, allow_infinity=False), st.floats(1e-6, 1e6))
def test_powers_of_ten_are_true(one: float, other: float) -> None:
    axis = Axis([one, other], 10, 110, log=True)
    for tick in axis.ticks:
        assert float(axis.label(tick).replace(",", "")) == pytest.approx(tick, rel=1e-9)
        assert math.isfinite(axis(tick))
    assert all(9.9 <= axis(value) <= 110.1 for value in (one, other))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((0, "0"), (1000, "1,000"), (0.25, "0.25"), (1e-5, "1e-5"), (2e7, "2e7")),
        *((-3e-4, "-3e-4"), (2.5e-4, "2.5e-4"), (1 / 3, "0.333333"), (5 / 700, "0.00714286")),
        *((100, "100"), (999999, "999,999"), (-0.0, "0"), (1e22, "1e22"), (math.nan, "-")),
        (1234567, "1.23457e6"),
    ],
)
def test_a_value_has_six_digits(value: float, shown: str) -> None:
    assert number(value) == shown


def test_steps_of_an_axis() -> None:
    assert [nice(v) for v in (0.11, 1, 1.2, 3, 7, 900)] == pytest.approx([0.2, 1, 2, 5, 10, 1000])
