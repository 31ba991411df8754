"""GPU kernels for rnnfarm: CUDA generated from a plan, run through CuPy."""

from __future__ import annotations

import rnnfarm


@rnnfarm.hookimpl
def rnnfarm_kernels() -> dict[str, str]:
    return {"cuda": "rnnfarm_cupy.kernel:CUDAKernel"}


@rnnfarm.hookimpl
def rnnfarm_exchanges() -> dict[str, str]:
    return {"nccl": "rnnfarm_cupy.nccl:NCCL"}
