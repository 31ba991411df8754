"""How a persistent kernel is spread over a GPU: the partition, and what it takes of a block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

#: Bytes of a word of an operand and of weights, inputs of a word, columns of a tile, and words of
#: its weights that a lane has for a step; see persistent.cuh.
WORD = {"full": 4, "tf32": 4, "bf16": 4, "float64": 8}
INPUTS = {"full": 1, "tf32": 1, "bf16": 2, "float64": 1}
TILE = {"full": 32, "tf32": 8, "bf16": 8, "float64": 32}
HELD = {"full": 8, "tf32": 2, "bf16": 2, "float64": 8}
#: Sums that a product is added up in, and words of a cell of an operand.
SUMS, CELL = 8, 128


@dataclass(frozen=True)
class Shape:
    """What a product of a step takes: ``inputs`` times ``segments`` of the region's width.

    Attributes:
        phase: of the step in which it is.
    """

    inputs: int
    segments: int
    phase: int = 1


@dataclass(frozen=True)
class ProductSizes:
    """A block's part of a product.

    Attributes:
        steps: of the inputs, a multiple of 8.
        tiles: that a warp has side by side.
        kept: a warp's steps whose weights are in registers.
        chunk: steps of the operand that are copied at a time.
        rest, buffers, sums: words of the other weights, of the operand's buffers, and numbers of
            what the warps have added up, all in shared memory.
        held: registers of a thread for weights and sums.
    """

    steps: int
    tiles: int
    kept: int
    chunk: int
    rest: int
    buffers: int
    sums: int
    held: int


@dataclass(frozen=True)
class Sizes:
    """What a partition takes of a block, and of global memory for each group of rows.

    Attributes:
        slots: words of each operand's slot.
        shared: bytes, in all.
        slot_words: words of all slots of a group, where they are in global memory.
    """

    products: tuple[ProductSizes, ...]
    slots: tuple[int, ...]
    rest_words: int
    buffer_words: int
    sum_numbers: int
    shared: int
    slot_words: int


@dataclass(frozen=True)
class Partition:
    """How a window's rows and units are spread over blocks, and each block's over its warps.

    Attributes:
        slices: of the units; the blocks of a group of rows.
        row_groups: groups of 16 rows that a block can have, a multiple of
        at_once: how many of these it multiplies at a time.
        k_warps: warps that share a product's inputs, 4 or 8.
        column_groups: as many times as many warps share its columns.
        cluster: whether a group's blocks are a cluster, which has its own barrier and memory.
        kept: for each product a warp's steps whose weights are in registers.
        chunk: steps of an operand that are copied at a time, a multiple of 8, and ``ahead``, how
            many such copies are under way.
    """

    slices: int
    row_groups: int = 1
    at_once: int = 1
    k_warps: int = 4
    column_groups: int = 1
    cluster: bool = False
    kept: tuple[int, ...] = ()
    chunk: int = 8
    ahead: int = 2

    def __post_init__(self) -> None:
        if self.row_groups % self.at_once:
            raise ValueError(f"{self.row_groups} groups of rows are not {self.at_once} at a time")

    @property
    def warps(self) -> int:
        return self.k_warps * self.column_groups

    @property
    def threads(self) -> int:
        return 32 * self.warps

    @property
    def passes(self) -> int:
        """How often a block multiplies in a phase."""
        return -(-self.row_groups // self.at_once)

    @property
    def rows(self) -> int:
        """Rows that a block can have."""
        return 16 * self.row_groups

    def share(self, width: int) -> int:
        """Units of a slice."""
        return -(-width // self.slices)

    def pairs(self, width: int) -> int:
        """Pairs of a row and a unit that a thread has while it multiplies ``at_once`` groups."""
        return -(-16 * self.at_once * self.share(width) // self.threads)

    def relieved(
        self, registers: int, shapes: Sequence[Shape], width: int, precision: str
    ) -> Partition:
        """The same with so many registers fewer of a thread for weights, if there are as many."""
        sizes = self.sizes(shapes, width, precision).products
        kept = [one.kept for one in sizes]
        if not any(kept):
            return self
        most = max(range(len(kept)), key=lambda k: kept[k] * sizes[k].tiles)
        double = 2 if precision == "float64" else 1
        each = double * HELD[precision] * sizes[most].tiles
        kept[most] = max(0, kept[most] - -(-registers // each))
        return replace(self, kept=tuple(kept))

    def sizes(self, shapes: Sequence[Shape], width: int, precision: str) -> Sizes:
        """What it takes. ``precision`` is ``float64`` in that dtype."""
        products = tuple(
            self._product(shape, k, width, precision) for k, shape in enumerate(shapes)
        )
        rest = sum(one.rest for one in products)
        buffers = max((one.buffers for one in products), default=0)
        sums: dict[int, int] = {}
        for shape, one in zip(shapes, products, strict=True):
            sums[shape.phase] = sums.get(shape.phase, 0) + one.sums
        numbers = max(sums.values(), default=0)
        slots = tuple(
            self._slot(shape, one, width, precision)
            for shape, one in zip(shapes, products, strict=True)
        )
        both = 2 * sum(slots)
        word, real = WORD[precision], 8 if precision == "float64" else 4
        shared = 16 + word * (rest + buffers + (both if self.cluster else 0)) + real * numbers
        return Sizes(products, slots, rest, buffers, numbers, shared, 0 if self.cluster else both)

    def _product(self, shape: Shape, number: int, width: int, precision: str) -> ProductSizes:
        step = 8 * INPUTS[precision]
        steps = SUMS * -(-shape.inputs // (SUMS * step))
        columns = shape.segments * self.share(width)
        tiles = -(-columns // (self.column_groups * TILE[precision]))
        own, each = steps // self.k_warps, SUMS // self.k_warps
        kept = min(own, self.kept[number]) if number < len(self.kept) else 0
        all_tiles, words = tiles * self.column_groups, 8 * TILE[precision]
        chunk = min(self.chunk, steps)
        chunks = -(-steps // chunk)
        sums = 16 if TILE[precision] == 32 else 4
        double = 2 if precision == "float64" else 1
        return ProductSizes(
            steps,
            tiles,
            kept,
            chunk,
            (own - kept) * self.k_warps * all_tiles * words,
            min(chunks, self.ahead + 1) * chunk * self.at_once * CELL,
            self.k_warps * 16 * self.at_once * all_tiles * TILE[precision],
            double * (kept * HELD[precision] * tiles + each * sums * self.at_once * tiles),
        )

    def _slot(self, shape: Shape, one: ProductSizes, width: int, precision: str) -> int:
        step = 8 * INPUTS[precision]
        steps = shape.inputs // width * self.share(width) // step if self.cluster else one.steps
        return steps * self.row_groups * CELL

    def misfit(self, shapes: Sequence[Shape], width: int, precision: str) -> str | None:
        """Why a cluster cannot have these widths, or None."""
        step = 8 * INPUTS[precision]
        if not self.cluster:
            return None
        if self.slices * step * math.ceil(width / step / self.slices) != width:
            return f"{width} units are not {self.slices} slices of whole steps of {step}"
        if any(shape.inputs % (SUMS * step) for shape in shapes):
            return f"a product's inputs are no multiple of {SUMS * step}"
        return None


@dataclass(frozen=True)
class Spread:
    """A partition, and the groups of rows that a window is cut into."""

    partition: Partition
    groups: int
