"""Fused CPU kernels for rnnfarm: C generated from a plan, compiled at run time."""

from __future__ import annotations

import rnnfarm


@rnnfarm.hookimpl
def rnnfarm_kernels() -> dict[str, str]:
    return {"cpu": "rnnfarm_cpu.kernel:CPUKernel"}
