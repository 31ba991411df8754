"""The check of schedules."""

from __future__ import annotations

import json
import math

from rnnfarm.testing.tools import check_made_again, require
from rnnfarm.training.schedule import Schedule


def check_schedule(schedule: Schedule, *, steps: int = 100) -> None:
    """Check a schedule: factors are finite and not negative, and a restored one goes on alike."""
    check_made_again(schedule)
    name = type(schedule).__name__
    first = type(schedule)(**schedule.settings())
    for step in range(1, steps + 1):
        factor = first(step, steps)
        require(
            math.isfinite(factor) and factor >= 0,
            f"{name}: its factor at step {step} of {steps} is {factor}",
        )
        first.observe(1.0)
        second = type(schedule)(**schedule.settings())
        second.restore(json.loads(json.dumps(first.state())))
        require(
            second(step + 1, steps) == first(step + 1, steps),
            f"{name}: restored from its state() after step {step} it gives another factor",
        )
