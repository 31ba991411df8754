"""Steps that one kernel can go through itself, and the text of what a thread computes in them.

A region of steps can be one where nothing but products goes across units: between them every value
belongs to one unit of one row, and so to one thread of the block that has the unit and the row.
What a thread computes stays in its registers, from phase to phase and from step to step; a
product's operand is published to the other blocks of the group (see persistent.cuh).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from rnnfarm.equations.block import Block, address
from rnnfarm.equations.graph import Symbol, is_condition
from rnnfarm.equations.memory import Buffers, Location
from rnnfarm.equations.regions import Program, Region
from rnnfarm.equations.schedule import Key, Pass, Schedule
from rnnfarm.equations.segments import Segment
from rnnfarm_cupy.partition import Shape
from rnnfarm_cupy.predict import Work


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


# -- blocks of text ---------------------------------------------------------------------------


class LoopText:
    """The text of a loop's phases, which is the same for every partition.

    Attributes:
        reads, writes: numbers that a step reads and writes in memory for a unit of a row.
        states: numbers that are in registers from step to step.
        lines: of generated text.
        registers: the arrays that hold values.
        blocks: for each phase its text.
        following: by the names of states' registers, those of their new values.
        back: whether the steps go backwards.
    """

    def __init__(self, program: Program, loop: Loop) -> None:
        self.program, self.loop = program, loop
        self.schedule, self.buffers = loop.region.schedule, program.buffers
        self.back = loop.region.kind == "backward"
        self.registers = Registers()
        self._carried = "pair" if self.back else "history"
        self.numbers = {symbol: k for k, (symbol, _) in enumerate(loop.products)}
        self.following: dict[str, str] = {}
        #: The block of the pass that stores a segment.
        self._homes: dict[Segment, LoopBlock] = {}
        #: For each phase its blocks.
        self.blocks: list[list[LoopBlock]] = []
        for number in range(len(loop.phases)):
            self._write_phase(number)
        self._keep_values()
        self.reads = len(self.registers.fetched)
        self.writes = sum("rnn_store(" in line for b in self._all() for line in b.body)
        self.states = len(self.registers.own)
        self.lines = sum(len(block.head) + len(block.body) for block in self._all())

    def _all(self) -> Iterator[LoopBlock]:
        for blocks in self.blocks:
            yield from blocks

    def _block(self, key: Key) -> LoopBlock:
        return LoopBlock(self.schedule, key, self.buffers, self._carried, self.registers)

    def _write_phase(self, number: int) -> None:
        phase = self.loop.phases[number]
        blocks: list[LoopBlock] = []
        self.blocks.append(blocks)
        if self.back and number == 0:
            self._record()
        for one in phase.passes:
            block = self._block(one.key)
            blocks.append(block)
            for symbol, segments in phase.products.items() if one.products else ():
                product = f"product{self.numbers[symbol]}"
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
            own = self.registers.state(Location(location.buffer, location.offset))
            self.following[own] = f"next_{own}"
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
        self.blocks[number].append(block)
        for symbol in following.products:
            number = self.numbers[symbol]
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
        self.blocks[0].append(block)
        symbol = plan.inputs[f"d:{plan.output}"]
        number = self.buffers.number["given record"]
        for segment, offset in self.schedule.segments.numbered(symbol):
            place = address(self.buffers, Location("given record"), "r")
            value = block.value(segment)
            block.body.append(f"if (p[{number}]) ({place})[{offset} + u] = {value};")

    def _keep_values(self) -> None:
        """Have each value that a later block reads put where it is read."""
        done: set[Segment] = set()
        while waiting := self.registers.values.keys() - done:  # one may read another
            for segment in sorted(waiting, key=lambda s: (s.symbol.index, s.start)):
                home = self._homes[segment]
                name = self.registers.value(segment)
                home.body.append(f"{name}[q] = {home.value(segment)};")
                done.add(segment)

    @property
    def work(self) -> Work:
        """What a step takes, for predictions."""
        loop = self.loop
        return Work(loop.shapes, loop.width, self.reads, self.writes, self.states, self.lines)
