"""The steps of a window as one kernel, which goes through all of them itself; see persistent.cuh.

What a thread computes in a step is ``loop.py``'s; here is what stands around it: weights, waits,
products, and reads ahead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rnnfarm.equations.block import address
from rnnfarm.equations.graph import Symbol, is_condition
from rnnfarm.equations.memory import Location
from rnnfarm.equations.regions import Region
from rnnfarm.equations.segments import Segment
from rnnfarm_cupy.loop import LoopText
from rnnfarm_cupy.partition import TILE, Partition
from rnnfarm_cupy.source import Code, kernel_text, pack_text

#: The pairs of a pass.
PASS = "pass * EACH", "(pass + 1) * EACH"


@dataclass(frozen=True)
class PersistentCode(Code):
    """A kernel with ``slices`` blocks for each group of rows.

    It takes ``(T, B, share, counters, slots, fault, packed…)`` before its buffers: ``share`` rows
    of a group, a counter for every group (32 words apart, 0 before the launch), room for the
    operands (words that are 0 where nobody writes), where a debug build says what it waited for,
    and the packed weights of each product.

    Attributes:
        partition: what it was written for.
        packs: kernels that pack the weights: ``(packed)`` and their buffers.
        shared: bytes of shared memory.
        slot_words: words of room for operands that a group needs.
    """

    region: Region
    partition: Partition
    packs: tuple[Code, ...] = ()
    packed_words: tuple[int, ...] = ()
    shared: int = 0
    slot_words: int = 0


class KernelText:
    """The text of a loop's kernel for a partition."""

    def __init__(self, text: LoopText, partition: Partition, precision: str) -> None:
        """``precision`` is ``float64`` in that dtype."""
        self.text, self.loop = text, text.loop
        self.partition, self.precision = partition, precision
        self.sizes = partition.sizes(self.loop.shapes, self.loop.width, precision)
        self.name = f"persistent_{self.loop.region.name}"
        #: Whether groups of rows are multiplied in turn, and not all at a time.
        self.several = partition.passes > 1

    def code(self) -> PersistentCode:
        """The kernel, and those that pack its weights."""
        packs, words = [], []
        for number, (symbol, segments) in enumerate(self.loop.products):
            pack, size = self._pack(number, symbol, segments)
            packs.append(pack)
            words.append(size)
        packed = "".join(f", const rnn_word *packed{k}" for k in range(len(words)))
        arguments = (
            "int T, int B, int share, unsigned *counters, rnn_word *slots, int *fault" + packed
        )
        body = [*self._constants(), *self._start(), *self._steps()]
        partition = self.partition
        dims = f"__cluster_dims__({partition.slices}, 1, 1) " if partition.cluster else ""
        text, buffers = kernel_text(self.name, arguments, body, partition.threads, dims)
        return PersistentCode(
            *(self.name, text, buffers, self.loop.region, partition, tuple(packs), tuple(words)),
            *(self.sizes.shared, self.sizes.slot_words),
        )

    def _pack(self, number: int, symbol: Symbol, segments: tuple[Segment, ...]) -> tuple[Code, int]:
        """The kernel that packs a product's weights, and the words that they take."""
        numbers = self.text.program.weight_buffers(symbol.attribute)
        one, share = self.sizes.products[number], self.partition.share(self.loop.width)
        tiles = one.tiles * self.partition.column_groups
        words = self.partition.slices * one.steps * tiles * 8 * TILE[self.precision]
        lines = _pack_lines(share, one.steps, tiles, words)
        name = f"{self.name}_pack{number}"
        text, buffers = pack_text(name, symbol, segments, numbers, lines, "rnn_word *to")
        return Code(name, text, buffers), words

    def _constants(self) -> Iterator[str]:
        """What depends on the partition, and the products."""
        partition = self.partition
        pairs, passes = partition.pairs(self.loop.width), partition.passes
        constants = {
            "W": self.loop.width,
            "WS": partition.share(self.loop.width),
            "S": partition.slices,
            "RG": partition.row_groups,
            "M": partition.at_once,
            "ROWS": 16 * partition.at_once,
            "EACH": pairs,
            "PASSES": passes,
            "PAIRS": pairs * passes,
            "KW": partition.k_warps,
        }
        listed = ", ".join(f"{name} = {value}" for name, value in constants.items())
        yield f"constexpr int {listed};"
        yield "const int slice = blockIdx.x % S, group = blockIdx.x / S, r0 = group * share;"
        yield "const int rows = B - r0 < share ? B - r0 : share, u0 = slice * WS;"
        if partition.cluster:
            # A cluster's block has room for what it publishes itself, and for no other unit.
            yield (
                "auto STEP_OF = [](int offset, int u) "
                "{ return (offset / W * WS + u % WS) / RNN_STEP; };"
            )
        else:
            yield "auto STEP_OF = [](int offset, int u) { return (offset + u) / RNN_STEP; };"
        for number, one in enumerate(self.sizes.products):
            peers = "true" if partition.cluster else "false"
            values = (one.steps, partition.k_warps, partition.column_groups, one.tiles)
            others = (partition.at_once, one.kept, one.chunk, partition.ahead)
            listed = ", ".join(map(str, (*values, *others)))
            yield f"rnn_resident<{listed}, {peers}> product{number};"

    def _start(self) -> Iterator[str]:
        """What comes before the first step."""
        sizes, registers = self.sizes, self.text.registers
        yield "RNN_SHARED;"
        yield "int *const gave_up = (int *)rnn_shared;"
        yield "rnn_word *const rest = (rnn_word *)(rnn_shared + 16);"
        yield f"rnn_word *const buffers = rest + {sizes.rest_words};"
        yield f"real *const z = (real *)(buffers + {sizes.buffer_words});"
        if self.partition.cluster:
            yield f"rnn_word *const own_slots = (rnn_word *)(z + {sizes.sum_numbers});"
            every = 2 * sum(sizes.slots)
            yield f"for (int i = threadIdx.x; i < {every}; i += blockDim.x) own_slots[i] = 0;"
        else:
            yield f"rnn_word *const own_slots = slots + group * {sizes.slot_words}L;"
        yield "unsigned *const counter = counters + group * 32;"
        yield "unsigned waited = 0;"
        yield "if (threadIdx.x == 0) *gave_up = 0;"
        start = 0
        for number, one in enumerate(self.sizes.products):
            tiles = f"product{number}.TILES * product{number}.WORDS * {one.steps}L"
            yield f"rnn_word *const rest{number} = rest + {start};"
            yield f"product{number}.load(packed{number} + slice * {tiles}, rest{number});"
            start += one.rest
        yield "(void)gave_up, (void)counter, (void)waited, (void)rest, (void)z, (void)own_slots;"
        yield "__syncthreads();"
        for name in registers.own.values():
            yield f"real {name}[PAIRS], next_{name}[PAIRS];"
        for segment, name in registers.values.items():
            yield f"{'mask' if is_condition(segment.symbol) else 'real'} {name}[PAIRS];"
        yield from registers.fetched

    def _steps(self) -> Iterator[str]:
        """The loop through the steps."""
        yield f"int t = {self._first_step};"
        yield "const int flip = 0; (void)flip;"  # of a pair of halves the first one is read
        yield from self._each(
            f"{name}[q] = ({place})[{offset} + u];" for name, place, offset in self._states(False)
        )
        if not self.several:
            yield from self._each(self._fetches(0))
        yield f"for (int left = T; left > 0; --left, t += {self._stride}) {{"
        start = 0
        for number, size in enumerate(self.sizes.slots):
            yield f"rnn_word *const slot{number} = own_slots + {start} + left % 2 * {size};"
            start += 2 * size
        if self.several:
            fetches = self._each(self._fetches(0), *PASS)
            yield from self._passes([*fetches, *self._each(self._lines(0), *PASS)])
        else:
            yield from self._each(self._lines(0))
        for number in range(1, len(self.loop.phases)):
            yield from self._phase(number)
        yield from self._each(f"{own}[q] = {new}[q];" for own, new in self.text.following.items())
        if len(self.loop.phases) == 1 and not self.several:
            yield from self._fetch_next()
        yield "}"
        if self.text.back:
            yield from self._leave()
        if self.partition.cluster:  # others may still read what this block has published
            yield "rnn_cluster_arrive();"
            yield "rnn_cluster_wait();"

    @property
    def _stride(self) -> int:
        return -1 if self.text.back else 1

    @property
    def _first_step(self) -> str:
        return "T - 1" if self.text.back else "0"

    def _states(self, later: bool) -> Iterator[tuple[str, str, int]]:
        """The registers of the states, and where they lie in memory."""
        for (buffer, offset), name in self.text.registers.own.items():
            yield name, address(self.text.buffers, Location(buffer, later=later), "r"), offset

    def _phase(self, number: int) -> Iterator[str]:
        """A wait for what the products take, the products, and what follows from them."""
        cluster = self.partition.cluster
        if cluster:
            yield "rnn_cluster_arrive();"
        else:
            yield "__syncthreads();"
            yield "if (threadIdx.x == 0) rnn_signal(counter);"
        # Reads that nobody has to be waited for come while the others are waited for.
        yield from self._each(self._fetches(number), "0", "EACH")
        if number == len(self.loop.phases) - 1:
            yield from self._prefetch_next() if self.several else self._fetch_next()
        if cluster:
            yield "rnn_cluster_wait();"
        else:
            yield "waited += S;"
            yield "if (threadIdx.x == 0 && !rnn_await(counter, waited, t, fault)) *gave_up = 1;"
            yield "__syncthreads();"
            yield "#ifdef RNN_BOUND"
            yield "if (*gave_up) return;"
            yield "#endif"
        body: list[str] = []
        if self.several:
            body += ["if (pass > 0) {", *self._each(self._fetches(number), *PASS), "}"]
        start = "z"
        for symbol in self.loop.phases[number].products:
            k = self.text.numbers[symbol]
            body.append(f"real *const z_product{k} = {start};")
            start = f"z_product{k} + KW * ROWS * product{k}.WIDTH"
            body.append(f"product{k}.multiply([&](int step, int m) {{")
            body += self._cell(k)
            body.append(f"}}, rows - pass * ROWS, buffers, rest{k}, z_product{k});")
            body.append("__syncthreads();")
        yield from self._passes([*body, *self._each(self._lines(number), *PASS)])

    def _passes(self, lines: Iterable[str]) -> Iterator[str]:
        """Lines for every pass over groups of rows that are multiplied at a time."""
        yield "#pragma unroll"
        yield "for (int pass = 0; pass < PASSES; ++pass) {"
        yield "if (pass * ROWS >= rows) break;"
        yield from lines
        yield "}"

    def _cell(self, number: int) -> Iterator[str]:
        """Where a cell of an operand lies."""
        if not self.partition.cluster:
            yield f"return slot{number} + (step * RG + pass * M + m) * RNN_CELL;"
            return
        yield "const int input = step * RNN_STEP, unit = input % W;"
        yield f"rnn_word *const mine = slot{number} + "
        yield "((input / W * WS + unit % WS) / RNN_STEP * RG + pass * M + m) * RNN_CELL;"
        yield "return (const rnn_word *)rnn_of_peer(mine, unit / WS);"

    def _each(
        self, lines: Iterable[str], first: str = "0", end: str = "PAIRS", unroll: str = ""
    ) -> Iterator[str]:
        """Lines for every pair that the thread has; registers are had only where it is unrolled."""
        inner = list(lines)
        if not inner:
            return
        yield f"#pragma unroll{unroll}"
        yield f"for (int q = {first}; q < {end}; ++q) {{"
        yield "int i = q % EACH * blockDim.x + threadIdx.x;"
        # Many pairs' places would take more registers than computing them anew takes time.
        yield "if (PAIRS > 2) rnn_forget(i);"
        yield "const int row = q / EACH * ROWS + i / WS;"
        yield "const long u = u0 + i % WS, r = r0 + row; (void)r, (void)u;"
        yield "if (i >= ROWS * WS || row >= rows || u >= W) continue;"
        yield from inner
        yield "}"

    def _fetches(self, number: int) -> list[str]:
        return [
            line
            for block in self.text.blocks[number]
            for line in (
                ["{", *block.sources.values(), *block.fetches, "}"] if block.fetches else []
            )
        ]

    def _fetch_next(self) -> Iterator[str]:
        """Read what the first phase of the next step needs."""
        yield from self._of_next(self._fetches(0))

    def _prefetch_next(self) -> Iterator[str]:
        """Have that brought nearer, where there are no registers for it."""
        lines = [
            line
            for block in self.text.blocks[0]
            if block.prefetches
            for line in ("{", *block.sources.values(), *block.prefetches, "}")
        ]
        yield from self._of_next(lines, unroll=" 1")

    def _of_next(self, lines: list[str], unroll: str = "") -> Iterator[str]:
        """Lines with the next step as ``t``, where there is one."""
        if lines:
            yield "if (left > 1) {"
            yield f"const int now = t, t = now + {self._stride};"
            yield from self._each(lines, unroll=unroll)
            yield "}"

    def _lines(self, number: int) -> list[str]:
        found: list[str] = []
        for block in self.text.blocks[number]:
            found += ["{", *block.pointers.values(), *block.head, *block.body, "}"]
        return found

    def _leave(self) -> Iterator[str]:
        """Write the gradients of the states before the first step."""
        yield "{"
        yield "const int t = 0, flip = (T - 1) & 1; (void)t, (void)flip;"
        yield from self._each(
            f"({place})[{offset} + u] = {name}[q];" for name, place, offset in self._states(True)
        )
        yield "}"


def _pack_lines(share: int, steps: int, tiles: int, words: int) -> list[str]:
    """From word ``i`` its ``segment``, its unit ``u`` and its first input ``first``.

    Words are packed slice by slice: ``(slices, steps, tiles, words of a step of a tile)``.
    """
    return [
        f"for (long i = blockIdx.x * (long)blockDim.x + threadIdx.x; i < {words}L;",
        "     i += (long)gridDim.x * blockDim.x) {",
        "    const int within = i % (8 * RNN_TILE);",
        f"    const long tile = i / (8 * RNN_TILE) % {tiles};",
        f"    const long step = i / (8L * RNN_TILE * {tiles}) % {steps};",
        f"    const long slice = i / (8L * RNN_TILE * {tiles * steps});",
        "#if RNN_MODE == 0",
        "    const int word = within / RNN_TILE, lane_column = within % RNN_TILE;",
        "#else",
        "    const int word = within / 2 % 4 + within % 2 * 4, lane_column = within / 8;",
        "#endif",
        "    const long column = tile * RNN_TILE + lane_column;",
        f"    const int segment = column / {share};",
        f"    const long u = slice * {share} + column % {share};",
        "    const long first = step * RNN_STEP + word * RNN_INPUTS;",
    ]
