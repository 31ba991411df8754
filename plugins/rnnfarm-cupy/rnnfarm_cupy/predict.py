"""What a step takes on a GPU, in seconds: which partition is the best one, and whether to use it.

Nothing here changes a bit of what is computed. The numbers are predictions, from what is known of
the device (``figures.py``) and from counts of operations and bytes; where a device can be measured,
``benchmarks/gpu.py`` prints what it takes beside them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from rnnfarm_cupy.figures import Figures
from rnnfarm_cupy.partition import CELL, HELD, INPUTS, SUMS, TILE, WORD, Partition, Shape, Spread

#: Cycles: of a matrix instruction or an addition to a sum that the next one waits for, of a read
#: that the L2 cache answers, of one that another block's shared memory answers, and of a barrier of
#: a block with what it leaves idle.
MATRIX_LATENCY, SUM_LATENCY, CACHE_LATENCY, PEER_LATENCY, BARRIER = 33, 4, 300, 200, 40
#: Bytes in a cycle that a multiprocessor reads of its shared memory, and of other blocks'.
SHARED, PEERS = 128, 14
#: Instructions of a line of generated text, of what stands around each pair, and registers of a
#: thread for addresses and what is under way.
LINE, PAIR, REGISTERS = 3, 30, 66
#: Registers of a thread for reads ahead: where single numbers are multiplied, and for each further
#: group of rows where matrix instructions are.
AHEAD_PLAIN, AHEAD_MATRIX = 68, 28
#: Of the shared memory that a block may have, what buffers for operands may take.
BUFFERS = 0.5
WARPS = ((4, 1), (8, 1), (4, 2), (8, 2), (4, 4))
#: Rows of the groups that are tried.
SHARES = (8, 16, 32, 48, 64, 96, 128, 192, 256)


@dataclass(frozen=True)
class Work:
    """What a region does in a step.

    Attributes:
        width: units of every value.
        reads, writes: numbers of a unit of a row that pass between it and memory.
        states: numbers of a unit of a row that stay in registers.
        lines: of generated text.
    """

    shapes: tuple[Shape, ...]
    width: int
    reads: int
    writes: int
    states: int
    lines: int


@dataclass(frozen=True)
class Prediction:
    """What a step takes with a partition.

    Attributes:
        spread: the partition, and the groups of rows.
        seconds: of a step.
        parts: the same in parts: ``wait`` for other blocks, ``gather`` the operands, ``multiply``,
            ``units`` (elementwise math), and ``memory``, which goes on beside the others.
        registers: of a thread, as estimated.
        shared: bytes of a block.
    """

    spread: Spread
    seconds: float
    parts: dict[str, float]
    registers: int
    shared: int


@functools.lru_cache(maxsize=256)
def best(work: Work, rows: int, precision: str, figures: Figures) -> Prediction | None:
    """The partition with the shortest step, or None where none fits the device."""
    found = [
        prediction
        for partition, groups in _partitions(work, rows, precision, figures)
        if (prediction := predict(work, rows, precision, figures, Spread(partition, groups)))
    ]
    return min(found, key=lambda one: one.seconds, default=None)


def _partitions(
    work: Work, rows: int, precision: str, figures: Figures
) -> Iterator[tuple[Partition, int]]:
    if not work.shapes:  # nobody waits: as many blocks as there are
        partition = Partition(-(-work.width // 32), k_warps=8, column_groups=2)
        yield partition, -(-rows // 16)
        return
    for groups in sorted({-(-rows // share) for share in SHARES}):
        most = figures.multiprocessors // groups
        if most == 0:
            continue
        share = -(-rows // groups)
        row_groups = -(-share // 16)
        for units in _unit_shares(work.width, most):
            slices = -(-work.width // units)
            for at_once in (1, 2, 4):
                held = -(-row_groups // at_once) * at_once
                if at_once > row_groups or held // at_once > 8:
                    continue
                for k_warps, column_groups in WARPS:
                    one = Partition(slices, held, at_once, k_warps, column_groups)
                    yield one, groups
                    clustered = replace(one, cluster=True)
                    fits = groups <= _clusters(slices, figures)
                    if fits and clustered.misfit(work.shapes, work.width, precision) is None:
                        yield clustered, groups


def _clusters(slices: int, figures: Figures) -> int:
    """Clusters that run at the same time: each within one of the parts of a GPU, which have 16
    multiprocessors or a few more."""
    if not 1 < slices <= figures.cluster_most:
        return 0
    return figures.multiprocessors // 16 * (16 // slices)


def _unit_shares(width: int, most: int) -> list[int]:
    """Units of a slice that are worth a try, where there may be ``most`` slices."""
    least = -(-width // most)
    found = {min(width, -(-least // step) * step) for step in (1, 2, 4, 8, 16, 32, 64)}
    found |= {min(width, share) for share in (16, 32, 64, 128, 256) if share >= least}
    return sorted(share for share in found if share >= least)


def predict(
    work: Work, rows: int, precision: str, figures: Figures, spread: Spread
) -> Prediction | None:
    """What a step takes with a partition, or None where it does not fit the device."""
    fitted = _fitted(work, precision, figures, spread.partition)
    if fitted is None:
        return None
    partition, registers = fitted
    spread = Spread(partition, spread.groups)
    sizes = partition.sizes(work.shapes, work.width, precision)
    clock = figures.clock
    share = -(-rows // spread.groups)
    row_groups = -(-share // 16)
    passes = -(-row_groups // partition.at_once)
    phases = len({shape.phase for shape in work.shapes})
    waited = figures.barrier
    if partition.cluster:
        assert figures.cluster_barrier is not None
        waited = figures.cluster_barrier
    parts = {"wait": phases * waited if work.shapes else 0.0}
    cells = 0.5 if share <= 8 and partition.at_once == 1 else row_groups
    copied = sum(one.steps for one in sizes.products) * cells * CELL * WORD[precision]
    if partition.cluster:
        gather = copied / (PEERS * clock) + phases * passes * PEER_LATENCY / clock
    else:
        bandwidth = figures.cache / figures.multiprocessors
        gather = copied / bandwidth + phases * passes * CACHE_LATENCY / clock
    parts["gather"] = gather if work.shapes else 0.0
    cycles = 0.0
    for one in sizes.products:
        cycles += passes * _product_cycles(
            one.steps, one.tiles, one.kept, partition, precision, figures
        )
        cycles += passes * -(-one.steps // one.chunk) * BARRIER
    parts["multiply"] = cycles / clock
    real = 8 if precision == "float64" else 4
    pairs = partition.pairs(work.width) * passes
    sums = 2 * sum(one.sums for one in sizes.products) * real * passes / SHARED
    issued = pairs * partition.warps / 4 * (LINE * work.lines + PAIR)
    parts["units"] = (sums + issued + 200 + phases * BARRIER) / clock
    moved = (work.reads + work.writes) * rows * work.width * real / figures.memory
    seconds = max(sum(parts.values()), moved)
    return Prediction(spread, seconds, {**parts, "memory": moved}, registers, sizes.shared)


def _product_cycles(
    steps: int, tiles: int, kept: int, partition: Partition, precision: str, figures: Figures
) -> float:
    """Cycles in which a block multiplies ``at_once`` groups of rows."""
    warps, rows = partition.warps, 16 * partition.at_once
    own, each = steps // partition.k_warps, SUMS // partition.k_warps
    columns = tiles * partition.column_groups * TILE[precision]
    rate = figures.rates[precision] * min(1.0, warps / 4)
    sums = steps * 8 * INPUTS[precision] * columns * rows / rate
    matrix = TILE[precision] == 8
    latency = MATRIX_LATENCY if matrix else 8 * SUM_LATENCY
    chain = own / each * latency
    # A warp reads all rows of its steps: whole words, or a quarter of a cell's row for all lanes.
    operand = own * partition.at_once * (CELL * WORD[precision] / SHARED if matrix else 32)
    rest = (own - kept) * tiles * HELD[precision] * 32 * WORD[precision] / SHARED
    return max(sums, chain, warps * (operand + rest))


def _fitted(
    work: Work, precision: str, figures: Figures, partition: Partition
) -> tuple[Partition, int] | None:
    """The partition with as many weights in registers as there is room, and the registers."""
    limit = min(255, figures.registers // partition.threads // 8 * 8)
    double = 2 if precision == "float64" else 1
    passes = partition.passes
    each = partition.pairs(work.width)
    if each * passes > 16:
        return None
    used = REGISTERS + double * each * (work.reads + passes * 2 * work.states)
    bare = partition.sizes(work.shapes, work.width, precision)
    used += max((one.held for one in bare.products), default=0)
    used += 4 * partition.at_once * double + 2 * max(0, each - 2)
    used += 12 * max(0, len(bare.products) - 1)
    # What the compiler had besides, for reads ahead of their use.
    if work.shapes:
        plain = TILE[precision] == 32
        used += AHEAD_PLAIN if plain else AHEAD_MATRIX * (partition.at_once - 1)
    if used > limit:
        return None
    kept = []
    for one in bare.products:
        each = double * HELD[precision] * one.tiles
        own = one.steps // partition.k_warps
        kept.append(min(own, (limit - used) // each, MOST_KEPT[precision] // one.tiles))
        used += kept[-1] * each
    for chunks in (2, 3, 4, 6, 8, 16, 32, 64):
        steps = max((one.steps for one in bare.products), default=8)
        chunk = SUMS * -(-steps // (SUMS * chunks))
        made = replace(partition, kept=tuple(kept), chunk=chunk)
        sizes = made.sizes(work.shapes, work.width, precision)
        words = WORD[precision]
        if sizes.shared <= figures.shared and (
            sizes.buffer_words * words <= BUFFERS * figures.shared or chunk == SUMS
        ):
            return made, used
    return None


#: A warp's steps times tiles whose weights are in registers at most: all of them are written out
#: one by one, and a kernel has to fit its instruction cache.
MOST_KEPT = {"full": 24, "tf32": 96, "bf16": 96, "float64": 8}


def stepwise(work: Work, rows: int, precision: str, figures: Figures) -> float:
    """Seconds of a step whose products and passes are kernels of their own, in a graph."""
    real = 8 if precision == "float64" else 4
    clock = figures.clock
    if not work.shapes:  # one kernel, with a block for each row
        rounds = -(-work.width // 256) * -(-rows // figures.multiprocessors)
        warps = min(8, -(-work.width // 32))
        cycles = 200 + rounds * warps / 4 * (LINE * work.lines + PAIR)
        return max(
            cycles / clock, (work.reads + work.writes) * rows * work.width * real / figures.memory
        )
    seconds = 0.0
    phases = sorted({shape.phase for shape in work.shapes})
    for phase in phases:
        for shape in (s for s in work.shapes if s.phase == phase):
            seconds += _stage_seconds(shape, work.width, rows, precision, figures)
    seconds += figures.launch * max(1, len(phases)) + (LINE * work.lines + PAIR) / clock
    moved = (work.reads + work.writes + 2 * work.states) * rows * work.width * real
    return seconds + moved / figures.cache


def _stage_seconds(shape: Shape, width: int, rows: int, precision: str, figures: Figures) -> float:
    """One product of a step's kernel: see product.cuh."""
    clock, real = figures.clock, 8 if precision == "float64" else 4
    block_rows = 64 if rows > 32 else 32 if rows > 16 else 16
    units = {1: 32, 2: 16}.get(shape.segments, 8)
    tiles, row_blocks = -(-width // units), -(-rows // block_rows)
    waves = -(-tiles * row_blocks // (2 * figures.multiprocessors))
    chunks = -(-shape.inputs // (64 * INPUTS[precision]))
    weights = shape.inputs * shape.segments * width * (2 if precision == "bf16" else real)
    read = weights * row_blocks + rows * shape.inputs * real * tiles
    operations = shape.inputs * shape.segments * width * rows
    busy = operations / (figures.rates[precision] * clock * figures.multiprocessors)
    latency = (CACHE_LATENCY + chunks * 2 * BARRIER) / clock * waves
    return max(read / figures.cache, busy) + latency


@dataclass(frozen=True)
class Choice:
    """What runs a region of steps.

    Attributes:
        region: its name.
        stepwise: seconds of a step with kernels for every step.
        prediction: of the best persistent kernel, if there is one.
        refusal: why there is none.
    """

    region: str
    stepwise: float
    prediction: Prediction | None = None
    refusal: str | None = None

    @property
    def persistent(self) -> bool:
        """Whether one kernel goes through all steps."""
        return self.prediction is not None and self.prediction.seconds < self.stepwise

    def sentence(self) -> str:
        """What was chosen, and why."""
        stepwise = f"{self.stepwise * 1e6:.1f} µs a step with kernels for every step"
        if self.prediction is None:
            return f"{self.region}: kernels for every step, for {self.refusal}"
        one = self.prediction
        parts = ", ".join(f"{name} {time * 1e6:.1f}" for name, time in one.parts.items())
        times = f"{one.seconds * 1e6:.1f} µs a step predicted ({parts})"
        described = describe(one)
        if not self.persistent:
            return f"{self.region}: {stepwise}; a persistent one ({described}) has {times}"
        return f"{self.region}: one persistent kernel, {described}: {times}, against {stepwise}"


def describe(prediction: Prediction) -> str:
    """A partition in words."""
    one, groups = prediction.spread.partition, prediction.spread.groups
    kept = ", ".join(map(str, one.kept))
    return (
        f"{groups} groups of rows x {one.slices} slices of units, {one.threads} threads and "
        f"{prediction.shared >> 10} KiB a block"
        + (", which are clusters" if one.cluster else "")
        + (f", weights of {kept} steps a warp in registers" if kept else "")
    )


def choose(region: str, work: Work | str, rows: int, precision: str, figures: Figures) -> Choice:
    """What runs a region's steps; ``work`` is a sentence where one kernel cannot do it."""
    if isinstance(work, str):
        return Choice(region, 0.0, refusal=work)
    prediction = best(work, rows, precision, figures)
    seconds = stepwise(work, rows, precision, figures)
    if prediction is None:
        return Choice(region, seconds, refusal="no partition fits the device")
    return Choice(region, seconds, prediction)
