"""What a GPU can do, in numbers: what the times of kernels are predicted from.

What CUDA tells of a device is taken from it, and how long its blocks wait for each other is
measured on it. The rest is known by its compute capability, and stands in the table below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from rnnfarm_cupy.runtime import Launch, Runtime

#: Blocks of a cluster that every device with clusters can have, and that only some can.
PORTABLE_CLUSTER, LARGEST_CLUSTER = 8, 16
#: How many barriers are timed at once, how often, and the threads of a block that waits.
BARRIERS_TIMED, TIMES, BARRIER_THREADS = 1000, 3, 256


@dataclass(frozen=True)
class Figures:
    """What a device can do.

    Attributes:
        name: of the device, for messages.
        capability: its compute capability, such as 90 for 9.0.
        multiprocessors: of the device.
        registers: of 32 bits, of a multiprocessor.
        shared: bytes of shared memory that a block may have.
        clock: of the multiprocessors, in Hz; the highest, which they hold under a light load.
        memory: bytes that pass between memory and the device in a second.
        cache: bytes that pass between the L2 cache and all multiprocessors in a second.
        launch: seconds that a kernel of a graph costs beside its work.
        barrier: seconds in which blocks wait for each other by a counter in memory.
        cluster_barrier: seconds in which the blocks of a cluster do; None where there are none.
        cluster_most: blocks of a cluster at most; 0 where there are none.
        rates: multiplications with an addition that a multiprocessor does in a clock, by the
            precision of products (``full``, ``tf32``, ``bf16``) and for ``float64``.
    """

    name: str
    capability: int
    multiprocessors: int
    registers: int
    shared: int
    clock: float
    memory: float
    cache: float
    launch: float
    barrier: float
    cluster_barrier: float | None
    cluster_most: int
    rates: Mapping[str, float] = field(hash=False)

    def with_measured(self, barrier: float, cluster_barrier: float | None) -> Figures:
        """These figures with times that were measured on the device."""
        return replace(self, barrier=barrier, cluster_barrier=cluster_barrier)


@dataclass(frozen=True)
class Kind:
    """What is known of all devices of a compute capability.

    Attributes:
        rates: as in ``Figures``: full, tf32, bf16, float64.
        cache: bytes that pass between the L2 cache and a multiprocessor in a clock.
        cluster_most: as in ``Figures``.
        launch, barrier, cluster_barrier: as in ``Figures``.
    """

    rates: tuple[float, float, float, float]
    cache: float
    cluster_most: int
    launch: float
    barrier: float
    cluster_barrier: float | None


# rates: full and float64 are those of the CUDA C++ Programming Guide's table of arithmetic
# instructions. Those of mma.sync are NVIDIA's peaks for dense matrices: an A100 has 156 and 312
# teraflops (108 multiprocessors at 1.41 GHz: 512 and 1024), an A40 75 and 150 (84 at 1.74 GHz: 256
# and 512). An H100 has 495 and 989 (132 at 1.83 GHz: 1024 and 2048), but those are wgmma's:
# mma.sync reaches 62.9% of them on average (Luo et al., Dissecting the NVIDIA Hopper Architecture
# through Microbenchmarking and Multiple Level Analysis, arXiv:2501.12084), of which 62% are counted
# on. That sm_100 is as sm_90, and sm_120 as sm_89, is an estimate.
#
# cache: large reads that repeat reach 5.4e12 bytes a second on an A100, 6.9e12 on an H100 PCIe,
# 9.7e12 on an H200 and 5.2e12 on an L40 (gpu-benches' gpu-l2-cache), which is 35, 34, 37 and 15
# bytes a clock and multiprocessor. That a step's reads, which are smaller and mixed with writes,
# reach 60% to 75% of it is an estimate.
#
# launch, barrier, cluster_barrier: estimates. A barrier through memory is two __syncthreads, and an
# atomic addition and a read that sees it, each a way to the L2 cache and back, which is 0.15 to 0.3
# microseconds. What can be measured on the device is.
KINDS: Mapping[int, Kind] = {
    80: Kind((64, 512, 1024, 32), 26, 0, 1.5e-6, 1.3e-6, None),
    86: Kind((128, 256, 512, 2), 10, 0, 1.5e-6, 1.3e-6, None),
    89: Kind((128, 256, 512, 2), 10, 0, 1.5e-6, 1.3e-6, None),
    90: Kind((128, 635, 1270, 64), 21, LARGEST_CLUSTER, 1.3e-6, 1.0e-6, 0.25e-6),
    100: Kind((128, 635, 1270, 64), 21, LARGEST_CLUSTER, 1.3e-6, 1.0e-6, 0.25e-6),
    120: Kind((128, 256, 512, 2), 10, PORTABLE_CLUSTER, 1.3e-6, 1.3e-6, 0.25e-6),
}


def figures_of(
    name: str,
    capability: int,
    *,
    multiprocessors: int,
    shared: int,
    clock: float,
    memory: float,
    registers: int = 65_536,
) -> Figures:
    """The figures of a device, with what is known of its capability, or of the one before it."""
    kind = KINDS[max((one for one in KINDS if one <= capability), default=min(KINDS))]
    full, tf32, bf16, float64 = kind.rates
    # Products that are summed in float32 go half as fast on the cards for players: an RTX 3090 has
    # 36 and 71 teraflops (82 multiprocessors at 1.7 GHz: 128 and 256).
    half = 2 if "GeForce" in name else 1
    rates = {"full": full, "tf32": tf32 / half, "bf16": bf16 / half, "float64": float64}
    return Figures(
        name=name,
        capability=capability,
        multiprocessors=multiprocessors,
        registers=registers,
        shared=shared,
        clock=clock,
        memory=memory,
        cache=kind.cache * multiprocessors * clock,
        launch=kind.launch,
        barrier=kind.barrier,
        cluster_barrier=kind.cluster_barrier,
        cluster_most=kind.cluster_most,
        rates=rates,
    )


# From NVIDIA's data sheets; the shared memory of a block from the CUDA C++ Programming Guide, and
# the clocks those that nvidia-smi names as the highest (boost).
#: As an SXM module.
H200 = figures_of(
    "NVIDIA H200", 90, multiprocessors=132, shared=232_448, clock=1.98e9, memory=4.8e12
)
#: As an SXM module; with PCIe it has 114 multiprocessors, 1.755 GHz and 2.0e12 bytes a second.
H100 = figures_of(
    "NVIDIA H100", 90, multiprocessors=132, shared=232_448, clock=1.98e9, memory=3.35e12
)
#: With 80 GB; that with 40 GB has 1.555e12 bytes a second.
A100 = figures_of(
    "NVIDIA A100", 80, multiprocessors=108, shared=166_912, clock=1.41e9, memory=2.039e12
)

#: Barriers as persistent kernels have them, and nothing else.
BARRIERS = r"""
/* All blocks of the grid, which run at the same time. */
extern "C" __global__ void rnn_barriers(int count, unsigned *counter)
{
    for (int i = 1; i <= count; ++i) {
        __syncthreads();
        if (threadIdx.x == 0) {
            const unsigned wanted = (unsigned)i * gridDim.x;
            unsigned seen;
            asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
            do {
                asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                             : "=r"(seen) : "l"(counter) : "memory");
            } while (seen < wanted);
        }
        __syncthreads();
    }
}
#if __CUDA_ARCH__ >= 900
extern "C" __global__ void __cluster_dims__(8, 1, 1) rnn_cluster_barriers(int count)
{
    for (int i = 0; i < count; ++i) {
        asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
        asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
    }
}
#endif
"""


def measured_barriers(runtime: Runtime, clusters: bool) -> tuple[float, float | None]:
    """Seconds of a barrier of blocks on all multiprocessors, and of one of a cluster of eight.

    Both are without other work: what a step waits beside, for its slowest block, is its own time.
    """
    program = runtime.load(BARRIERS)
    counter = runtime.empty((1,), np.uint32)
    function, grid = program.function("rnn_barriers"), (runtime.multiprocessors, 1)
    arguments = [BARRIERS_TIMED, counter]
    launch = Launch(function, grid, BARRIER_THREADS, 0, arguments, together=True)
    barrier = _shortest(runtime, launch, partial(runtime.clear, counter))
    if not clusters:
        return barrier, None
    blocks = max(1, runtime.multiprocessors // PORTABLE_CLUSTER) * PORTABLE_CLUSTER
    function, arguments = program.function("rnn_cluster_barriers"), [BARRIERS_TIMED]
    launch = Launch(function, (blocks, 1), BARRIER_THREADS, 0, arguments, cluster=PORTABLE_CLUSTER)
    return barrier, _shortest(runtime, launch, lambda: None)


def _shortest(runtime: Runtime, barriers: Launch, prepare: Callable[[], Any]) -> float:
    """Seconds of a barrier in the best of some launches; the first is to wake the device up."""
    times = []
    for _ in range(1 + TIMES):
        prepare()
        times.append(runtime.elapsed(partial(runtime.launch, barriers)))
    return min(times[1:]) / BARRIERS_TIMED
