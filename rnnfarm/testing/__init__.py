"""The conformance kit: what every cell, loss, optimizer, schedule and kernel has to do.

For the tests of a plugin, with pytest or without::

    from rnnfarm.testing import check_cell
    from mycells import LiGRU

    def test_ligru() -> None:
        check_cell(LiGRU())

A check returns nothing, or raises AssertionError with a sentence that says what is wrong (and
CellError for equations that cannot be read). ``rnnfarm check DISTRIBUTION`` runs the checks on all
parts of an installed plugin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rnnfarm.testing.cells import check_cell
from rnnfarm.testing.kernels import check_kernel
from rnnfarm.testing.losses import check_loss
from rnnfarm.testing.optimizers import check_optimizer
from rnnfarm.testing.schedules import check_schedule
from rnnfarm.testing.tools import check_gradients, difference

__all__ = [
    "CHECKS",
    "check_cell",
    "check_gradients",
    "check_kernel",
    "check_loss",
    "check_optimizer",
    "check_schedule",
    "difference",
]

#: kind of part → its check; the parts of other kinds are only loaded.
CHECKS: dict[str, Callable[[Any], None]] = {
    "cells": check_cell,
    "losses": check_loss,
    "optimizers": check_optimizer,
    "schedules": check_schedule,
    "kernels": check_kernel,
}
