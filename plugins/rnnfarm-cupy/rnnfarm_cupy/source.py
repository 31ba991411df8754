"""The CUDA text of a program: a kernel for every group of passes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TypeVar

from rnnfarm.equations.block import Block, address, pass_groups
from rnnfarm.equations.graph import Parameter, Symbol
from rnnfarm.equations.memory import Buffers, Location
from rnnfarm.equations.regions import Program, Region
from rnnfarm.equations.schedule import Pass, Schedule
from rnnfarm.equations.segments import Segment

MODES = {"full": 0, "tf32": 1, "bf16": 2}
SIZES = {"float32": 4, "float64": 8}
#: Words of inputs in shared memory at a time, and from row to row; see product.cuh.
CHUNK, ROW = 64, 68
#: Columns that a warp adds up at most.
COLUMNS = 32
#: Threads of a block that goes over packed weights or sums.
THREADS = 256
#: Sums over rows: the units and the rows that a block has, and the most blocks of rows.
SUM_UNITS, SUM_ROWS, SUM_PARTS = 32, 8, 64


#: The texts that all programs share.
PARTS = ("math", "rows", "product")


def header(dtype: str, precision: str, persistent: bool = False, debug: bool = False) -> str:
    """The part that all programs share.

    Args:
        persistent: whether its kernels go through all steps themselves.
        debug: whether these give up a wait that takes too long, and say what they waited for.
    """
    folder = files(__package__)
    mode = 0 if dtype == "float64" else MODES[precision]
    lines = [f"#define RNN_DOUBLE {int(dtype == 'float64')}", f"#define RNN_MODE {mode}"]
    if debug:  # of looks at a counter: seconds on a GPU
        lines += [
            "#ifdef RNN_HOST",
            "#define RNN_BOUND 2000",
            "#else",
            "#define RNN_BOUND (1 << 24)",
        ]
        lines.append("#endif")
    parts = (*PARTS, "persistent") if persistent else PARTS
    texts = [folder.joinpath(f"{name}.cuh").read_text() for name in parts]
    device = folder.joinpath("device.cuh").read_text()
    return "\n".join([*lines, "#ifndef RNN_HOST", device, "#endif", *texts])


@dataclass(frozen=True)
class Code:
    """A kernel's text.

    Attributes:
        buffers: numbers of the buffers whose pointers it takes, after its other arguments.
    """

    name: str
    text: str
    buffers: tuple[int, ...]


@dataclass(frozen=True)
class RowsCode(Code):
    """A kernel with one block for each row: ``(first, stride, count, T, B)``.

    Block ``k`` takes row ``k % B`` at step ``first + stride * (k / B)`` and ``count - 1`` more.
    """

    threads: int = 32


@dataclass(frozen=True)
class PackCode(Code):
    """A kernel that packs weights: no arguments but the buffers."""

    words: int = 0


@dataclass(frozen=True)
class StageCode(Code):
    """A kernel with a block for each tile of units (x) and each group of rows (y): ``(t, T, B)``.

    Attributes:
        tiles: how many blocks the units take.
        columns: of the tile in shared memory.
        widest: columns of the widest product.
        packs: kernels that have to run before the first step.
        most: rows that a block may have.
    """

    tiles: int = 1
    columns: int = 8
    widest: int = 8
    packs: tuple[PackCode, ...] = ()
    most: int = 64

    def shared(self, rows: int, word: int) -> int:
        """Bytes of shared memory for ``rows`` rows; ``word``: bytes of a word."""
        stages = 2 if word == 8 else 3
        width = self.widest + (0 if self.widest // 8 % 2 else 8)
        staged = (2 * rows * ROW + stages * CHUNK * width) * word
        real = 8 if word == 8 else 4
        return rows * self.columns * real + max(staged, 4 * rows * self.widest * real)


@dataclass(frozen=True)
class SumsCode(Code):
    """Two kernels: ``(T, B, parts, partial)`` and ``NAME_end`` ``(parts, partial)``.

    Attributes:
        width: units of each sum.
        count: how many sums there are.
        end: the second kernel.
    """

    width: int = 1
    count: int = 1
    end: Code = field(default_factory=lambda: Code("", "", ()))


@dataclass(frozen=True)
class RegionCode:
    """The kernels of a region, in order.

    Attributes:
        region: what they compute.
        steps: kernels of one step, or of all rows of the window.
        alone: whether the one kernel of a region of steps goes through all steps itself.
    """

    region: Region
    steps: tuple[Code, ...]
    alone: bool
    record: RowsCode | None = None


C = TypeVar("C", bound=Code)


class SourceWriter:
    """Writes the CUDA text of a program."""

    def __init__(self, program: Program, dtype: str, precision: str) -> None:
        self.program = program
        self.dtype = dtype
        self.precision = precision
        self.buffers = program.buffers
        #: The packed weights' buffers, and how many words each has.
        self.packed: dict[str, int] = {}
        self.kernels: list[Code] = []
        #: Inputs of a word of packed weights.
        self._inputs = 2 if precision == "bf16" and dtype == "float32" else 1

    def source(self) -> str:
        """The whole text."""
        return program_text(self.dtype, self.precision, self.kernels)

    def add(self, region: Region) -> RegionCode:
        """Add a region."""
        if region.kind == "sums":
            return RegionCode(region, tuple(self._sums(region)), False)
        groups = pass_groups(region.passes)
        codes: list[Code] = []
        for group in groups:
            name = f"{region.name}_{len(codes)}"
            if group[0].of_rows:
                codes.append(self._keep(rows_code(name, region.schedule, group, self.buffers)))
            else:
                codes.append(self._stage(name, region, group[0]))
        alone = len(codes) == 1 and isinstance(codes[0], RowsCode)
        record = self._record() if region.kind == "backward" else None
        return RegionCode(region, tuple(codes), alone, record)

    def _keep(self, code: C) -> C:
        self.kernels.append(code)
        return code

    def _record(self) -> RowsCode:
        """Writes down the whole gradient of a step's output."""
        plan = self.program.plan
        width = plan.states[plan.output]
        arriving = Location(f"d {plan.output}")
        places = [Location("given record"), arriving, Location("given dy")]
        record, state, given = (address(self.buffers, place, "r") for place in places)
        body = [
            f"for (int u = threadIdx.x; u < {width}; u += blockDim.x)",
            f"    ({record})[u] = ({state})[u] + ({given})[u];",
        ]
        return self._keep(_rows_kernel("record", body, {}, threads_for(width)))

    # -- stages -------------------------------------------------------------------------------

    def _stage(self, name: str, region: Region, one: Pass) -> StageCode:
        """A product, tile by tile, and the elementwise math that follows from it."""
        tiled = _tiled(one)
        block = Block(region.schedule, one, one.width, self.buffers, 1)
        units, columns = tiled[0].units, sum(t.columns for t in tiled)
        slot = 0
        for product in tiled:
            for segment in product.segments:
                block.tiles[segment] = f"z[i / {units} * {columns} + {slot * units} + j]"
                slot += 1
        if one.width == 1:  # numbers of a row: whatever uses them reads them again
            for segment, place in one.stores:
                pointer = block.pointer(place)
                block.body.append(f"*({pointer} + {place.offset}) = {block.tiles[segment]};")
        else:
            for segment, place in one.stores:
                block.store(segment, place)
        packs, lines, first = [], [], 0
        for number, product in enumerate(tiled):
            pack = self._pack(f"{name}_pack{number}", f"packed {name} {number}", product)
            packs.append(pack)
            lines.append(self._product(region.schedule, product, f"packed {name} {number}", first))
            first += product.columns
        tiles = -(-one.width // units)
        body = [
            "RNN_SHARED;",
            "const int all = blockDim.x / 8;",
            "const long r0 = (long)blockIdx.y * all;",
            "const int rows = B - r0 < all ? B - r0 : all;",
            "const int flip = (T - 1 - t) & 1; (void)flip;",
            "real *const z = (real *)rnn_shared;",
            f"unsigned char *const work = rnn_shared + all * {columns} * sizeof(real);",
            *lines,
            f"for (int i = threadIdx.x; i < rows * {units}; i += blockDim.x) {{",
            f"    const long r = r0 + i / {units};",
            f"    const int j = i % {units};",
            f"    const long u = (long)blockIdx.x * {units} + j;",
            f"    if (u >= {one.width}) continue;",
            *(f"    {line}" for line in (*block.pointers.values(), *block.head, *block.body)),
            "}",
        ]
        # Sums in float64 take twice the registers, so that fewer threads may share them.
        most = 32 if self.dtype == "float64" else 64
        text, buffers = kernel_text(name, "int t, int T, int B", body, 8 * most)
        widest = max(t.columns for t in tiled)
        return self._keep(
            StageCode(name, text, buffers, tiles, columns, widest, tuple(packs), most)
        )

    def _product(self, schedule: Schedule, product: Tiled, buffer: str, first: int) -> str:
        argument = schedule.vector(product.symbol.args[0])
        start = address(self.buffers, argument, "r0") + f" + {argument.offset}"
        stride = self.buffers.known[argument.buffer].width
        packed = f"(const rnn_word *)p[{self.buffers.number[buffer]}]"
        size = self._words(product.inputs) * product.columns
        columns = f"z + {first}, {product.all_columns}"
        return (
            f"rnn_product<{product.columns // 8}>({start}, {stride}, rows, {product.inputs}, "
            f"{packed} + (long)blockIdx.x * {size}, {columns}, work);"
        )

    def _words(self, inputs: int) -> int:
        """Words of inputs, whole chunks."""
        return -(-inputs // (CHUNK * self._inputs)) * CHUNK

    def _pack(self, name: str, buffer: str, product: Tiled) -> PackCode:
        """Weights in the order in which tiles read them."""
        columns, words = product.columns, self._words(product.inputs)
        total = -(-product.width // product.units) * words * columns
        numbers = self.program.packed_buffer(buffer, total, product.symbol.attribute)
        self.packed[buffer] = total
        lines = [
            f"rnn_word *const to = (rnn_word *)p[{numbers.pop('')}];",
            f"for (long i = blockIdx.x * (long)blockDim.x + threadIdx.x; i < {total}L;",
            "     i += (long)gridDim.x * blockDim.x) {",
            f"    const int column = i % {columns}, segment = column / {product.units};",
            f"    const long first = i / {columns} % {words} * RNN_INPUTS;",
            f"    const long u = i / {columns * words} * {product.units} "
            f"+ column % {product.units};",
        ]
        text, buffers = pack_text(name, product.symbol, product.segments, numbers, lines)
        return self._keep(PackCode(name, text, buffers, total))

    # -- sums over rows -----------------------------------------------------------------------

    def _sums(self, region: Region) -> Iterable[SumsCode]:
        """Sums over all rows of all steps: first over parts of the rows, then over the parts."""
        for width in sorted({segment.width for segment, _ in region.sums}):
            chosen = [(s, place) for s, place in region.sums if s.width == width]
            yield self._sums_code(f"sums_{width}", region.schedule, chosen, width)

    def _sums_code(
        self, name: str, schedule: Schedule, sums: list[tuple[Segment, Location]], width: int
    ) -> SumsCode:
        block = Block(schedule, None, width, self.buffers, 1)
        values = [block.value(segment) for segment, _ in sums]
        count = len(sums)
        every = range(count)
        body = [
            "RNN_SHARED;",
            "real *const shared = (real *)rnn_shared;",
            f"const int lane = threadIdx.x / {SUM_UNITS}, flip = 0; (void)flip;",
            f"const long u = (long)blockIdx.x * {SUM_UNITS} + threadIdx.x % {SUM_UNITS};",
            "const long all = (long)T * B, share = (all + parts - 1) / parts;",
            "const long last = (blockIdx.y + 1) * share < all ? (blockIdx.y + 1) * share : all;",
            *(f"real sum{k} = 0;" for k in every),
            f"if (u < {width})",
            f"    for (long i = blockIdx.y * share + lane; i < last; i += {SUM_ROWS}) {{",
            "        const long t = i / B, r = i % B; (void)t, (void)r;",
            *(f"        {line}" for line in (*block.pointers.values(), *block.head, *block.body)),
            *(f"        sum{k} += {value};" for k, value in enumerate(values)),
            "    }",
        ]
        for k in every:
            body += [
                f"shared[threadIdx.x] = sum{k};",
                "__syncthreads();",
                f"if (lane == 0 && u < {width}) {{",
                "    real total = 0;",
                f"    for (int i = 0; i < {SUM_ROWS}; ++i) "
                f"total += shared[threadIdx.x + i * {SUM_UNITS}];",
                f"    partial[((long)blockIdx.y * {count} + {k}) * {width} + u] = total;",
                "}",
                "__syncthreads();",
            ]
        text, buffers = kernel_text(name, "int T, int B, int parts, real *partial", body, 256)
        end = self._sums_end(f"{name}_end", sums, width)
        self._keep(end)
        return self._keep(SumsCode(name, text, buffers, width, count, end))

    def _sums_end(self, name: str, sums: list[tuple[Segment, Location]], width: int) -> Code:
        body = [
            "const long u = blockIdx.x * (long)blockDim.x + threadIdx.x;",
            f"if (u >= {width}) return;",
        ]
        for k, (_, place) in enumerate(sums):
            target = address(self.buffers, place, "0")
            body += [
                "{",
                "    real total = 0;",
                f"    for (long i = 0; i < parts; ++i) "
                f"total += partial[(i * {len(sums)} + {k}) * {width} + u];",
                f"    *({target} + {place.offset} + u) = total;",
                "}",
            ]
        text, buffers = kernel_text(name, "int parts, const real *partial", body, THREADS)
        return Code(name, text, buffers)


# -- rows -------------------------------------------------------------------------------------


def rows_code(name: str, schedule: Schedule, group: list[Pass], buffers: Buffers) -> RowsCode:
    """A kernel of passes over rows, one after the other for each row."""
    lines: list[str] = []
    pointers: dict[str, str] = {}
    for one in group:
        block, text = _row_block(schedule, one, buffers)
        pointers |= block.pointers
        lines += [*text, "__syncthreads();"]
    widest = max(one.width for one in group)
    return _rows_kernel(name, lines, pointers, threads_for(widest))


def threads_for(width: int) -> int:
    """Threads of a block that goes over a row: a power of two."""
    return min(256, max(32, 1 << (width - 1).bit_length()))


def _rows_kernel(name: str, lines: list[str], pointers: dict[str, str], threads: int) -> RowsCode:
    body = [
        "RNN_SHARED;",
        "real *const shared = (real *)rnn_shared; (void)shared;",
        "const long r = blockIdx.x % B;",
        "long t = first + stride * (blockIdx.x / B);",
        "for (int left = count; left > 0; --left, t += stride) {",
        "    const int flip = (T - 1 - t) & 1; (void)flip;",
        *(f"    {line}" for line in (*pointers.values(), *lines)),
        "}",
    ]
    text, buffers = kernel_text(
        name, "int first, int stride, int count, int T, int B", body, threads
    )
    return RowsCode(name, text, buffers, threads)


def _row_block(schedule: Schedule, one: Pass, buffers: Buffers) -> tuple[Block, list[str]]:
    """One pass over a row, whose units the threads share."""
    block = Block(schedule, one, one.width, buffers, 1)
    starts, ends, numbers = [], [], []
    for k, part in enumerate(one.reductions):
        block.reduce(part.symbol, part.segments, f"total{k}")
        largest = part.symbol.op == "row_max"
        start = "-__builtin_inff()" if largest else "0"
        starts.append(f"real total{k} = {start};")
        function = "rnn_block_max" if largest else "rnn_block_sum"
        target = f"{block.pointer(part.location)}[{part.location.offset}]"
        ends.append(f"total{k} = {function}(total{k}, shared);")
        ends.append(f"if (threadIdx.x == 0) {target} = total{k};")
    for segment, location in one.stores:
        if segment.width == 1:
            value = block.value(segment)
            numbers.append(f"{block.pointer(location)}[{location.offset}] = (real)({value});")
        else:
            block.store(segment, location)
    lines = ["{", *block.head, *starts]
    if block.body:
        lines += [
            f"for (int u = threadIdx.x; u < {one.width}; u += blockDim.x) {{",
            *block.body,
            "}",
        ]
    if numbers:  # every thread has read what it needs before one of them writes
        lines += ["__syncthreads();", "if (threadIdx.x == 0) {", *numbers, "}"]
    return block, [*lines, *ends, "}"]


# -- products ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tiled:
    """Segments of one product, whose tiles a block computes.

    Attributes:
        units: units of a tile; each segment has as many columns.
        all_columns: columns of the tile in shared memory, of all products together.
    """

    symbol: Symbol
    segments: tuple[Segment, ...]
    units: int
    all_columns: int

    @property
    def inputs(self) -> int:
        return self.symbol.args[0].width

    @property
    def width(self) -> int:
        return self.segments[0].width

    @property
    def columns(self) -> int:
        return len(self.segments) * self.units


def _tiled(one: Pass) -> list[Tiled]:
    """The products of a pass; those with many segments in several parts."""
    by_symbol: dict[Symbol, list[Segment]] = {}
    for segment in sorted(one.products, key=lambda s: (s.symbol.index, s.start)):
        by_symbol.setdefault(segment.symbol, []).append(segment)
    most = max(len(segments) for segments in by_symbol.values())
    # Few gates take more units, so that a tile is worth its inputs.
    units = min({1: 32, 2: 16}.get(most, 8), -(-one.width // 8) * 8)
    at_once = COLUMNS // units
    columns = units * len(one.products)
    return [
        Tiled(symbol, tuple(segments[k : k + at_once]), units, columns)
        for symbol, segments in by_symbol.items()
        for k in range(0, len(segments), at_once)
    ]


def _weight_text(symbol: Symbol, segment: Segment, weights: dict[str, str]) -> str:
    """The weight of ``input`` and unit ``u`` of a segment."""
    joined: tuple[Parameter, ...] = symbol.attribute
    position = 0
    text = "0"
    if symbol.op == "matmul_transposed":
        # Inputs are the columns of all weights in turn, units are rows.
        for weight in joined:
            width = weight.shape[1]
            one = f"{weights[weight.name]}[(u + {segment.start}) * {width} + input - {position}]"
            text = one if text == "0" else f"input < {position} ? {text} : {one}"
            position += width
        return text
    for weight in joined:
        width = weight.shape[1]
        if segment.start < position + width:
            return f"{weights[weight.name]}[input * {width} + {segment.start - position} + u]"
        position += width
    raise AssertionError(f"{segment} is in none of its weights")


def pack_text(
    name: str,
    symbol: Symbol,
    segments: tuple[Segment, ...],
    numbers: dict[str, int],
    lines: list[str],
    arguments: str = "",
) -> tuple[str, tuple[int, ...]]:
    """A kernel that packs the weights of a product's segments, and the buffers that it takes.

    Args:
        numbers: of the weights' buffers, by their names.
        lines: open a loop over ``i``, and set from it ``segment``, the unit ``u`` in that, and
            ``first``, the first input of the word ``to[i]``.
        arguments: of the kernel, beside the buffers.
    """
    weights = {weight: f"((const real *)p[{number}])" for weight, number in numbers.items()}
    cases = [
        f"case {k}: return u < {one.width} ? {_weight_text(symbol, one, weights)} : (real)0;"
        for k, one in enumerate(segments)
    ]
    body = [
        *lines,
        "    auto value = [&](long input) -> real {",
        f"        if (input >= {symbol.args[0].width}) return 0;",
        "        switch (segment) {",
        *(f"        {case}" for case in cases),
        "        }",
        "        return 0;",
        "    };",
        "    to[i] = rnn_round(value(first), value(first + RNN_INPUTS - 1));",
        "}",
    ]
    return kernel_text(name, arguments, body, THREADS)


def program_text(
    dtype: str,
    precision: str,
    kernels: Iterable[Code],
    persistent: bool = False,
    debug: bool = False,
) -> str:
    """The text of a program of these kernels; the flags are those of ``header``."""
    return "\n".join([header(dtype, precision, persistent, debug), *(k.text for k in kernels)])


def kernel_text(
    name: str, arguments: str, body: list[str], threads: int, attribute: str = ""
) -> tuple[str, tuple[int, ...]]:
    """A kernel, and the buffers that it takes: those that its body calls ``p[NUMBER]``."""
    inner = "\n".join(f"    {line}" for line in body)
    numbers = sorted({int(k) for k in re.findall(r"\bp\[(\d+)\]", inner)})
    inner = re.sub(r"\bp\[(\d+)\]", r"p\1", inner)
    given = [arguments] if arguments else []
    signature = ", ".join([*given, *(f"void *p{k}" for k in numbers)])
    attributes = f"__launch_bounds__({threads}, 1) {attribute}"
    text = f'extern "C" __global__ void {attributes}{name}({signature}) {{\n{inner}\n}}\n'
    return text, tuple(numbers)
