"""The steps of a window as one kernel, which goes through all of them itself.

A region of steps can be one where nothing but products goes across units: between them every value
belongs to one unit of one row, and so to one thread of the block that has the unit and the row.
What a thread computes stays in its registers, from phase to phase and from step to step; a
product's operand is published to the other blocks of the group (see persistent.cuh).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from rnnfarm.equations.block import Block, address
from rnnfarm.equations.graph import Symbol, is_condition
from rnnfarm.equations.memory import Buffers, Location
from rnnfarm.equations.regions import Program, Region
from rnnfarm.equations.schedule import Key, Pass, Schedule
from rnnfarm.equations.segments import Segment
from rnnfarm_cupy.partition import TILE, Partition, Shape, Sizes
from rnnfarm_cupy.predict import Work
from rnnfarm_cupy.source import Code, kernel_text, pack_text

#: The pairs of a pass.
PASS = "pass * EACH", "(pass + 1) * EACH"


@dataclass(frozen=True)
class Phase:
    """Passes over the units of a thread; the first one may begin with products.

    Attributes:
        products: the segments of each product, in the order of its columns.
    """

    products: dict[Symbol, tuple[Segment, ...]]
    passes: tuple[Pass, ...]


@dataclass(frozen=True)
class Loop:
    """A region of steps that one kernel can go through.

    Attributes:
        width: units of every value.
        phases: of a step; each but the first begins with products.
    """

    region: Region
    width: int
    phases: tuple[Phase, ...]

    @property
    def products(self) -> list[tuple[Symbol, tuple[Segment, ...]]]:
        """All products of a step, in order."""
        return [found for phase in self.phases for found in phase.products.items()]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """What the products take, for the choice of a partition."""
        return tuple(
            Shape(symbol.args[0].width, len(segments), phase)
            for phase, one in enumerate(self.phases)
            for symbol, segments in one.products.items()
        )


def loop_of(region: Region) -> Loop | str:
    """The region as a loop, or a sentence that says why it cannot be one."""
    passes = [one for one in region.passes if one.products or one.stores or one.reductions]
    if any(one.reductions for one in passes):
        return "it reduces whole rows within a step, as layer_norm does"
    operands = [s.symbol.args[0] for one in passes for s in one.products]
    parts = [part for operand in operands for part in region.schedule.segments.of(operand)]
    widths = sorted({one.width for one in passes} | {part.width for part in parts})
    if len(widths) != 1:
        return f"its values have several widths ({', '.join(map(str, widths))})"
    if widths == [1]:
        return "it has one unit"
    phases: list[tuple[dict[Symbol, tuple[Segment, ...]], list[Pass]]] = [({}, [])]
    for one in passes:
        if one.products:
            phases.append((_by_symbol(one), []))
        phases[-1][1].append(one)
    found = (Phase(products, tuple(those)) for products, those in phases)
    return Loop(region, widths[0], tuple(found))


def _by_symbol(one: Pass) -> dict[Symbol, tuple[Segment, ...]]:
    found: dict[Symbol, tuple[Segment, ...]] = {}
    for segment in sorted(one.products, key=lambda s: (s.symbol.index, s.start)):
        found[segment.symbol] = (*found.get(segment.symbol, ()), segment)
    return found


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


# -- values in registers ----------------------------------------------------------------------


@dataclass
class Registers:
    """The arrays of registers that blocks of text share; each has an element for every pair of a
    row and a unit that a thread has.

    Attributes:
        own: states from step to step, by their place in memory.
        values: what a phase computes and a later one reads.
        fetched: declarations of what each phase reads from memory; of these there are as many
            elements as are multiplied at a time.
    """

    own: dict[tuple[str, int], str] = field(default_factory=dict)
    values: dict[Segment, str] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)

    def state(self, location: Location) -> str:
        key = location.buffer, location.offset
        return self.own.setdefault(key, f"own{len(self.own)}")

    def value(self, segment: Segment) -> str:
        return self.values.setdefault(segment, f"kept{len(self.values)}")

    def fetch(self, condition: bool) -> str:
        name = f"got{len(self.fetched)}"
        self.fetched.append(f"{'mask' if condition else 'real'} {name}[EACH];")
        return name


class LoopBlock(Block):
    """The text of one pass for one unit of one row, whose values are in registers.

    Attributes:
        fetches: lines that read what it needs from memory, and ``sources``, the pointers to that.
        prefetches: lines that have it brought nearer.
    """

    def __init__(
        self, schedule: Schedule, key: Key, buffers: Buffers, carried: str, registers: Registers
    ) -> None:
        super().__init__(schedule, None, key[2], buffers, 1)
        self.key = key
        self.fetches: list[str] = []
        self.prefetches: list[str] = []
        self.sources: dict[str, str] = {}
        self._carried, self._registers = carried, registers
        self._fetched: dict[tuple[Location, bool], str] = {}

    def _text(self, segment: Segment) -> str:
        inside = segment not in self.tiles and self.schedule.at_hand(segment) is None
        if inside and self.schedule.readable(segment, self.key) is not None:
            return f"{self._registers.value(segment)}[q]"
        return super()._text(segment)

    def _load(self, segment: Segment, location: Location) -> str:
        if self.buffers.known[location.buffer].kind == self._carried and not location.later:
            text = f"{self._registers.state(location)}[q]"
        else:
            text = f"{self._fetch(segment, location)}[q % EACH]"
        if location.plus is not None:
            text += f" + {self._load(segment, location.plus)}"
        return text

    def _fetch(self, segment: Segment, location: Location) -> str:
        single = Location(location.buffer, location.offset, location.later)
        key = single, is_condition(segment.symbol)
        if key not in self._fetched:
            self._fetched[key] = self._registers.fetch(key[1])
            pointers, self.pointers = self.pointers, self.sources
            text = super()._load(segment, single)
            if self.buffers.known[location.buffer].kind != "vector":
                unit = " + u" if segment.width > 1 else ""
                place = f"{self.pointer(single)} + {location.offset}{unit}"
                self.prefetches.append(f"rnn_prefetch({place});")
            self.pointers = pointers
            self.fetches.append(f"{self._fetched[key]}[q % EACH] = {text};")
        return self._fetched[key]


# -- the kernel -------------------------------------------------------------------------------


class LoopWriter:
    """Writes the kernel of a loop; only its constants depend on the partition.

    Attributes:
        reads, writes: numbers that a step reads and writes in memory for a unit of a row.
        states: numbers that are in registers from step to step.
        lines: of generated text.
    """

    def __init__(self, program: Program, loop: Loop) -> None:
        self.program, self.loop = program, loop
        self.schedule, self.buffers = loop.region.schedule, program.buffers
        self.back = loop.region.kind == "backward"
        self._registers = Registers()
        self._carried = "pair" if self.back else "history"
        self._numbers = {symbol: k for k, (symbol, _) in enumerate(loop.products)}
        self._next: dict[str, str] = {}
        #: The block of the pass that stores a segment.
        self._homes: dict[Segment, LoopBlock] = {}
        #: For each phase its blocks.
        self._blocks: list[list[LoopBlock]] = []
        for number in range(len(loop.phases)):
            self._write_phase(number)
        self._keep_values()
        self.reads = len(self._registers.fetched)
        self.writes = sum("rnn_store(" in line for b in self._all() for line in b.body)
        self.states = len(self._registers.own)
        self.lines = sum(len(block.head) + len(block.body) for block in self._all())

    def _all(self) -> Iterator[LoopBlock]:
        for blocks in self._blocks:
            yield from blocks

    def _block(self, key: Key) -> LoopBlock:
        return LoopBlock(self.schedule, key, self.buffers, self._carried, self._registers)

    def _write_phase(self, number: int) -> None:
        phase = self.loop.phases[number]
        blocks: list[LoopBlock] = []
        self._blocks.append(blocks)
        if self.back and number == 0:
            self._record()
        for one in phase.passes:
            block = self._block(one.key)
            blocks.append(block)
            for symbol, segments in phase.products.items() if one.products else ():
                product = f"product{self._numbers[symbol]}"
                for slot, segment in enumerate(segments):
                    block.tiles[segment] = (
                        f"rnn_total<KW>(z_{product} + i / WS * {product}.WIDTH + {slot} * WS "
                        f"+ i % WS, ROWS * {product}.WIDTH)"
                    )
            for segment, location in one.stores:
                self._store(block, segment, location)
        if number + 1 < len(self.loop.phases):
            self._publish(number, self.loop.phases[number + 1])

    def _store(self, block: LoopBlock, segment: Segment, location: Location) -> None:
        kind = self.buffers.known[location.buffer].kind
        self._homes.setdefault(segment, block)
        if kind == self._carried:
            own = self._registers.state(Location(location.buffer, location.offset))
            self._next[own] = f"next_{own}"
            value = block.value(segment)
            if is_condition(segment.symbol):
                value = f"rnn_from_mask({value})"
            block.body.append(f"next_{own}[q] = {value};")
        if kind == "scratch" or location.buffer.startswith("argument ") or kind == "pair":
            return  # for later phases, which have it in registers
        block.store(segment, location)

    def _publish(self, number: int, following: Phase) -> None:
        """Publish what the products of the next phase take."""
        block = self._block(following.passes[0].key)
        self._blocks[number].append(block)
        for symbol in following.products:
            number = self._numbers[symbol]
            for segment, offset in self.schedule.segments.numbered(symbol.args[0]):
                value = block.value(segment)
                block.body.append(
                    f"rnn_publish(slot{number} + (STEP_OF({offset}, (int)u) * RG + row / 16) * "
                    f"RNN_CELL, {offset} + (int)u, row, {value});"
                )

    def _record(self) -> None:
        """Write down the whole gradient of a step's output."""
        plan = self.program.plan
        block = self._block((-1, 1, self.loop.width))
        self._blocks[0].append(block)
        symbol = plan.inputs[f"d:{plan.output}"]
        number = self.buffers.number["given record"]
        for segment, offset in self.schedule.segments.numbered(symbol):
            place = address(self.buffers, Location("given record"), "r")
            value = block.value(segment)
            block.body.append(f"if (p[{number}]) ({place})[{offset} + u] = {value};")

    def _keep_values(self) -> None:
        """Have each value that a later block reads put where it is read."""
        done: set[Segment] = set()
        while waiting := self._registers.values.keys() - done:  # one may read another
            for segment in sorted(waiting, key=lambda s: (s.symbol.index, s.start)):
                home = self._homes[segment]
                name = self._registers.value(segment)
                home.body.append(f"{name}[q] = {home.value(segment)};")
                done.add(segment)

    @property
    def work(self) -> Work:
        """What a step takes, for predictions."""
        loop = self.loop
        return Work(loop.shapes, loop.width, self.reads, self.writes, self.states, self.lines)

    # -- text ---------------------------------------------------------------------------------

    def code(self, partition: Partition, precision: str) -> PersistentCode:
        """The kernel for a partition; ``precision`` is ``float64`` in that dtype."""
        name = f"persistent_{self.loop.region.name}"
        sizes = partition.sizes(self.loop.shapes, self.loop.width, precision)
        packs, words = [], []
        for number, (symbol, segments) in enumerate(self.loop.products):
            numbers = self.program.weight_buffers(symbol.attribute)
            one = sizes.products[number]
            tiles = one.tiles * partition.column_groups
            pack = f"{name}_pack{number}"
            share = partition.share(self.loop.width)
            layout = _Layout(self.loop.width, share, one.steps, tiles)
            words.append(partition.slices * layout.words(precision))
            lines = layout.lines(words[-1])
            text, buffers = pack_text(pack, symbol, segments, numbers, lines, "rnn_word *to")
            packs.append(Code(pack, text, buffers))
        packed = "".join(f", const rnn_word *packed{k}" for k in range(len(words)))
        arguments = (
            "int T, int B, int share, unsigned *counters, rnn_word *slots, int *fault" + packed
        )
        body = [*self._constants(partition, sizes), *self._start(sizes), *self._steps(partition)]
        dims = f"__cluster_dims__({partition.slices}, 1, 1) " if partition.cluster else ""
        text, buffers = kernel_text(name, arguments, body, partition.threads, dims)
        return PersistentCode(
            *(name, text, buffers, self.loop.region, partition, tuple(packs), tuple(words)),
            *(sizes.shared, sizes.slot_words),
        )

    def _constants(self, partition: Partition, sizes: Sizes) -> Iterator[str]:
        """What depends on the partition, beside the products' types."""
        share = partition.share(self.loop.width)
        pairs = partition.pairs(self.loop.width)
        passes = -(-partition.row_groups // partition.at_once)
        constants = {
            "W": self.loop.width,
            "WS": share,
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
        for number, one in enumerate(sizes.products):
            peers = "true" if partition.cluster else "false"
            values = (one.steps, partition.k_warps, partition.column_groups, one.tiles)
            others = (partition.at_once, one.kept, one.chunk, partition.ahead)
            listed = ", ".join(map(str, (*values, *others)))
            yield f"rnn_resident<{listed}, {peers}> product{number};"

    def _start(self, sizes: Sizes) -> Iterator[str]:
        """What comes before the first step."""
        yield "RNN_SHARED;"
        yield "int *const gave_up = (int *)rnn_shared;"
        yield "rnn_word *const rest = (rnn_word *)(rnn_shared + 16);"
        yield f"rnn_word *const buffers = rest + {sizes.rest_words};"
        yield f"real *const z = (real *)(buffers + {sizes.buffer_words});"
        cluster = sizes.slot_words == 0
        if cluster:
            yield f"rnn_word *const own_slots = (rnn_word *)(z + {sizes.sum_numbers});"
            every = 2 * sum(sizes.slots)
            yield f"for (int i = threadIdx.x; i < {every}; i += blockDim.x) own_slots[i] = 0;"
        else:
            yield f"rnn_word *const own_slots = slots + group * {sizes.slot_words}L;"
        yield "unsigned *const counter = counters + group * 32;"
        yield "unsigned waited = 0;"
        yield "if (threadIdx.x == 0) *gave_up = 0;"
        start = 0
        for number, one in enumerate(sizes.products):
            tiles = f"product{number}.TILES * product{number}.WORDS * {one.steps}L"
            yield f"rnn_word *const rest{number} = rest + {start};"
            yield f"product{number}.load(packed{number} + slice * {tiles}, rest{number});"
            start += one.rest
        yield "(void)gave_up, (void)counter, (void)waited, (void)rest, (void)z, (void)own_slots;"
        yield "__syncthreads();"
        for name in self._registers.own.values():
            yield f"real {name}[PAIRS], next_{name}[PAIRS];"
        for segment, name in self._registers.values.items():
            yield f"{'mask' if is_condition(segment.symbol) else 'real'} {name}[PAIRS];"
        yield from self._registers.fetched
        self._slots = sizes.slots
        self._cluster = cluster

    def _steps(self, partition: Partition) -> Iterator[str]:
        """The loop through the steps."""
        yield "int t = T - 1;" if self.back else "int t = 0;"
        yield "const long flip = 0; (void)flip;" if self.back else ""
        yield from self._each(
            [
                f"{name}[q] = ({address(self.buffers, Location(buffer), 'r')})[{offset} + u];"
                for (buffer, offset), name in self._registers.own.items()
            ]
        )
        alone, several = len(self.loop.phases) == 1, partition.row_groups > partition.at_once
        if not several:
            yield from self._each(self._fetches(0))
        yield f"for (int left = T; left > 0; --left, t += {-1 if self.back else 1}) {{"
        start = 0
        for number, size in enumerate(self._slots):
            yield f"rnn_word *const slot{number} = own_slots + {start} + left % 2 * {size};"
            start += 2 * size
        if several:
            yield from self._passes(
                [*self._each(self._fetches(0), *PASS), *self._each(self._lines(0), *PASS)]
            )
        else:
            yield from self._each(self._lines(0))
        for number in range(1, len(self.loop.phases)):
            yield from self._phase(number, partition)
        yield from self._each([f"{o}[q] = {n}[q];" for o, n in self._next.items()])
        if alone and not several:
            yield from self._fetch_next()
        yield "}"
        if self.back:
            yield from self._leave()
        if partition.cluster:  # others may still read what this block has published
            yield "rnn_cluster_arrive();"
            yield "rnn_cluster_wait();"

    def _phase(self, number: int, partition: Partition) -> Iterator[str]:
        """A wait for what the products take, the products, and what follows from them."""
        cluster = partition.cluster
        if cluster:
            yield "rnn_cluster_arrive();"
        else:
            yield "__syncthreads();"
            yield "if (threadIdx.x == 0) rnn_signal(counter);"
        # Reads that nobody has to be waited for come while the others are waited for.
        several = partition.row_groups > partition.at_once
        yield from self._each(self._fetches(number), "0", "EACH")
        if number == len(self.loop.phases) - 1:
            yield from self._prefetch_next() if several else self._fetch_next()
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
        if several:
            body += ["if (pass > 0) {", *self._each(self._fetches(number), *PASS), "}"]
        start = "z"
        for symbol in self.loop.phases[number].products:
            k = self._numbers[symbol]
            body.append(f"real *const z_product{k} = {start};")
            start = f"z_product{k} + KW * ROWS * product{k}.WIDTH"
            body.append(f"product{k}.multiply([&](int step, int m) {{")
            body += self._cell(k, cluster)
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

    def _cell(self, number: int, cluster: bool) -> Iterator[str]:
        """Where a cell of an operand lies."""
        if not cluster:
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
            for block in self._blocks[number]
            for line in (
                ["{", *block.sources.values(), *block.fetches, "}"] if block.fetches else []
            )
        ]

    def _fetch_next(self) -> Iterator[str]:
        """Read what the first phase of the next step needs."""
        lines = self._fetches(0)
        if lines:
            yield "if (left > 1) {"
            yield f"const int now = t, t = now + {-1 if self.back else 1};"
            yield from self._each(lines)
            yield "}"

    def _prefetch_next(self) -> Iterator[str]:
        """Have that brought nearer, where there are no registers for it."""
        lines = [
            line
            for block in self._blocks[0]
            if block.prefetches
            for line in ("{", *block.sources.values(), *block.prefetches, "}")
        ]
        if lines:
            yield "if (left > 1) {"
            yield f"const int now = t, t = now + {-1 if self.back else 1};"
            yield from self._each(lines, unroll=" 1")
            yield "}"

    def _lines(self, number: int) -> list[str]:
        found: list[str] = []
        for block in self._blocks[number]:
            found += ["{", *block.pointers.values(), *block.head, *block.body, "}"]
        return found

    def _leave(self) -> Iterator[str]:
        """Write the gradients of the states before the first step."""
        yield "t = 0;"
        yield "{ const int flip = (T - 1) & 1; (void)flip;"
        yield from self._each(
            [
                f"({address(self.buffers, Location(buffer, later=True), 'r')})[{offset} + u] = "
                f"{name}[q];"
                for (buffer, offset), name in self._registers.own.items()
            ]
        )
        yield "}"


@dataclass(frozen=True)
class _Layout:
    """How a product's weights are packed for persistent kernels: slice by slice."""

    width: int
    share: int
    steps: int
    tiles: int

    def words(self, precision: str) -> int:
        """Of a slice."""
        return self.steps * self.tiles * 8 * TILE[precision]

    def lines(self, total: int) -> list[str]:
        """From word ``i``: its first input ``first``, its ``segment`` and its unit ``u``."""
        return [
            f"for (long i = blockIdx.x * (long)blockDim.x + threadIdx.x; i < {total}L;",
            "     i += (long)gridDim.x * blockDim.x) {",
            "    const int within = i % (8 * RNN_TILE);",
            f"    const long tile = i / (8 * RNN_TILE) % {self.tiles};",
            f"    const long step = i / (8L * RNN_TILE * {self.tiles}) % {self.steps};",
            f"    const long slice = i / (8L * RNN_TILE * {self.tiles * self.steps});",
            "#if RNN_MODE == 0",
            "    const int word = within / RNN_TILE, lane_column = within % RNN_TILE;",
            "#else",
            "    const int word = within / 2 % 4 + within % 2 * 4, lane_column = within / 8;",
            "#endif",
            "    const long column = tile * RNN_TILE + lane_column;",
            f"    const int segment = column / {self.share};",
            f"    const long u = slice * {self.share} + column % {self.share};",
            "    const long first = step * RNN_STEP + word * RNN_INPUTS;",
        ]
