"""The schedules: their course, warm-up, and what a checkpoint keeps of them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from rnnfarm.builtin import rnnfarm_schedules
from rnnfarm.builtin.schedules import Constant, Cosine, InverseSqrt, Linear, Plateau, Step
from rnnfarm.errors import JobError
from rnnfarm.training.schedule import Schedule

ALL: dict[str, type[Schedule]] = {
    "constant": Constant,
    "step": Step,
    "cosine": Cosine,
    "linear": Linear,
    "inverse_sqrt": InverseSqrt,
    "plateau": Plateau,
}
REQUIRED: dict[str, dict[str, Any]] = {"step": {"every": 10}}
each = pytest.mark.parametrize("name", ALL)


def make(name: str, **settings: Any) -> Schedule:
    return ALL[name](**REQUIRED.get(name, {}) | settings)


def test_every_built_in_schedule_has_a_case() -> None:
    assert {name: f"{part.__module__}:{part.__name__}" for name, part in ALL.items()} == dict(
        rnnfarm_schedules()
    )


@each
def test_starts_at_one_and_stays_between_zero_and_one(name: str) -> None:
    schedule = make(name)
    course = [schedule(step, 100) for step in range(1, 101)]
    assert course[0] == 1.0
    assert all(0 <= factor <= 1 for factor in course)
    assert course == sorted(course, reverse=True)


@each
def test_warm_up_rises_evenly_and_then_the_course_begins(name: str) -> None:
    schedule, plain = make(name, warmup=4), make(name)
    assert [schedule(step, 104) for step in range(1, 5)] == [0.25, 0.5, 0.75, 1.0]
    if name != "inverse_sqrt":  # its course depends on the warm-up
        after = [schedule(step, 104) for step in range(5, 105)]
        assert after == [plain(step, 100) for step in range(1, 101)]


@each
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_a_warm_up_longer_than_the_run(name: str, steps: int) -> None:
    schedule = make(name, warmup=5)
    assert [schedule(step, steps) for step in range(1, steps + 1)] == [
        step / 5 for step in range(1, steps + 1)
    ]


@each
def test_steps_beyond_the_end_keep_the_last_factor_or_go_on(name: str) -> None:
    schedule = make(name)
    assert 0 <= schedule(1000, 100) <= schedule(100, 100)


def test_step() -> None:
    schedule = Step(every=3, gamma=0.5)
    assert [schedule(n, 9) for n in range(1, 10)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_cosine() -> None:
    schedule = Cosine(final=0.2)
    assert schedule(51, 100) == pytest.approx(0.6)
    assert schedule(26, 100) == pytest.approx(0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2)
    assert schedule(101, 100) == pytest.approx(0.2)


def test_linear() -> None:
    schedule = Linear(final=0.5)
    assert schedule(51, 100) == pytest.approx(0.75)
    assert schedule(101, 100) == pytest.approx(0.5)


@pytest.mark.parametrize("kind", [Cosine, Linear])
def test_a_course_with_steps_of_its_own_does_not_depend_on_the_run(kind: type[Schedule]) -> None:
    own, plain = kind(steps=40, warmup=5, final=0.1), kind(warmup=5, final=0.1)
    for steps in (10, 40, 100):
        assert [own(k, steps) for k in range(1, 41)] == [plain(k, 40) for k in range(1, 41)]
        assert own(90, steps) == pytest.approx(0.1)


def test_plateau_of_a_metric_that_should_rise_and_its_least_factor() -> None:
    schedule = Plateau(patience=1, gamma=0.1, minimum=0.05, mode="max")
    factors = []
    for value in (0.5, 0.6, 0.6, 0.55, 0.7, 0.1):
        schedule.observe(value)
        factors.append(schedule(1, 100))
    assert factors == pytest.approx([1, 1, 0.1, 0.05, 0.05, 0.05])


def test_inverse_sqrt() -> None:
    schedule = InverseSqrt(warmup=100)
    assert schedule(101, 1000) == 1.0
    assert schedule(401, 1000) == pytest.approx(0.5)
    assert InverseSqrt()(4, 10) == pytest.approx(0.5)


def test_plateau_falls_after_patience_evaluations_no_better() -> None:
    schedule = Plateau(patience=2, gamma=0.1, min_delta=0.5)
    losses = [3.0, 2.0, 1.6, 1.9, 1.0, 0.9, 0.8, 0.7, float("nan")]
    factors = []
    for step, loss in enumerate(losses, 1):
        schedule.observe(loss)
        factors.append(schedule(step, 100))
    assert factors == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001])


@each
@pytest.mark.parametrize("stop", [0, 1, 4, 7])
def test_goes_on_from_its_state(name: str, stop: int) -> None:
    losses = [3.0, 2.0, 2.5, 2.1, 2.0, 1.0, 1.5, 1.5, 1.5, 1.5, 1.5]
    settings: dict[str, Any] = {"patience": 2} if name == "plateau" else {}
    whole, first = make(name, **settings), make(name, **settings)

    def course(schedule: Schedule, start: int, end: int) -> list[float]:
        factors = []
        for step in range(start, end):
            schedule.observe(losses[step])
            factors.append(schedule(step + 1, 20))
        return factors

    expected = course(whole, 0, len(losses))
    got = course(first, 0, stop)
    resumed = make(name, **settings)
    resumed.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
    assert got + course(resumed, stop, len(losses)) == expected


def test_a_schedule_of_ones_own() -> None:
    class Sawtooth(Schedule):
        period: int = 4

        def factor(self, step: int, steps: int) -> float:
            return 1 - (step % self.period) / self.period

    assert [Sawtooth(warmup=1)(n, 7) for n in range(1, 7)] == [1, 1, 0.75, 0.5, 0.25, 1]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("constant", {"warmup": -1}),
        ("constant", {"final": 0.1}),
        ("step", {"every": 0}),
        ("cosine", {"final": 1.5}),
        ("plateau", {"gamma": 1.0}),
    ],
)
def test_settings_out_of_range(name: str, settings: dict[str, float]) -> None:
    with pytest.raises(JobError, match=next(iter(settings))):
        make(name, **settings)


def test_step_needs_every() -> None:
    with pytest.raises(JobError, match="every: is required"):
        Step()
