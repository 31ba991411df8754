"""The C source of a program: one function for every pass, and one for every region."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files

from rnnfarm.equations.block import Block, address, pass_groups
from rnnfarm.equations.memory import Buffers, Location
from rnnfarm.equations.regions import Program, Region
from rnnfarm.equations.schedule import Pass, Schedule
from rnnfarm.equations.segments import Segment
from rnnfarm_cpu.chunks import chunked
from rnnfarm_cpu.tiles import ROWS, TiledProduct, Tiling, multiply_text, pack_text, tiled_products

SIZES = {"float32": 4, "float64": 8}
#: Vectors that a sum over rows keeps at a time, for all that is summed together.
SUMMED = 64


def header(tiling: Tiling, dtype: str) -> str:
    """The part that all programs share."""
    folder = files(__package__)
    texts = [folder.joinpath(name).read_text() for name in ("vector.h", "runtime.h")]
    start = f"#define RNN_DOUBLE {int(dtype == 'float64')}\n#define RNN_LANES {tiling.lanes}\n"
    return "\n".join([start, *texts])


def launch(regions: Iterable[str]) -> str:
    """The part that starts regions, which are known by their numbers."""
    table = ", ".join(regions)
    text = files(__package__).joinpath("launch.h").read_text()
    return f"static Work *const regions[] = {{{table}}};\n{text}"


def rows_pass(
    name: str, schedule: Schedule, group: list[Pass], buffers: Buffers, lanes: int
) -> str:
    """A C function: passes over rows, one after the other for each row, which stays in the cache.

    It takes rows ``r0`` to ``r1`` and vectors ``v0`` to ``v1``.
    """
    blocks = [_row_block(schedule, one, buffers, lanes) for one in group]
    pointers: dict[str, str] = {}
    for block, _ in blocks:
        pointers |= block.pointers
    lines = [
        f"APART static void {name}(const Call *c, long t, long flip, long r0, long r1, long v0, "
        "long v1) {",
        "    void **const p = c->p; const long B = c->B; (void)B;",
        "    for (long r = r0; r < r1; ++r) {",
        *(f"        {line}" for line in pointers.values()),
        *(f"        {line}" for _, lines in blocks for line in lines),
        "    }",
        "}",
        "",
    ]
    return "\n".join(lines)


def rows_function(
    name: str, schedule: Schedule, passes: list[Pass], buffers: Buffers, lanes: int
) -> str:
    """A region that goes once over all rows."""
    return "\n".join([
        rows_pass(f"{name}_pass", schedule, passes, buffers, lanes),
        f"static void {name}(const Call *c, long id) {{",
        "    const long r0 = share(c->B, id, c->threads);",
        f"    {name}_pass(c, 0, 0, r0, share(c->B, id + 1, c->threads), 0, LONG);",
        "}",
        "",
    ])  # fmt: skip


def _row_block(
    schedule: Schedule, one: Pass, buffers: Buffers, lanes: int
) -> tuple[Block, list[str]]:
    """One pass over a row."""
    block = Block(schedule, one, one.width, buffers, lanes)
    starts, ends = [], []
    for k, part in enumerate(one.reductions):
        block.reduce(part.symbol, part.segments, f"total{k}")
        largest = part.symbol.op == "row_max"
        start = "-__builtin_inff()" if largest else "0"
        starts.append(f"vec total{k} = rnn_splat({start});")
        across = "rnn_max_lanes" if largest else "rnn_sum_lanes"
        target = f"{block.pointer(part.location)}[{part.location.offset}]"
        ends.append(f"{target} = rnn_first({across}(total{k}));")
    for segment, location in one.stores:
        block.store(segment, location)
    head, body = chunked(block.head, block.body)
    lines = ["{", *head, *starts]
    if body:
        vectors = -(-one.width // lanes)
        lines += [
            f"for (long v = v0, e = v1 < {vectors} ? v1 : {vectors}; v < e; ++v) {{",
            f"const long u = v * RNN_LANES, n = {one.width} - u; (void)n;",
            *body,
            "}",
        ]
    return block, [*lines, *ends, "}"]


class SourceWriter:
    """Writes the C source of a program."""

    def __init__(self, program: Program, tiling: Tiling, dtype: str) -> None:
        self.program = program
        self.tiling = tiling
        self.dtype = dtype
        self.buffers = program.buffers
        self.regions: list[Region] = []
        #: The packed weights' buffers, and how many numbers each has.
        self.packed: dict[str, int] = {}
        #: Vectors of a row of the widest tiles.
        self.tile_vectors = 0
        self._functions: list[str] = []
        self._multiplied: set[int] = set()

    def add(self, region: Region) -> int:
        """Add a region; gives its number."""
        number = len(self.regions)
        self.regions.append(region)
        if region.kind == "sums":
            self._functions.append(self._sums(region))
        else:
            self._functions.append(self._loop(region))
        return number

    def source(self) -> str:
        """The whole source."""
        multiply = [
            multiply_text(v, self.tiling, SIZES[self.dtype]) for v in sorted(self._multiplied)
        ]
        return "\n".join([
            header(self.tiling, self.dtype),
            f"enum {{ TILE = {self.tile_size} }};",
            *multiply,
            *self._functions,
            launch(region.name for region in self.regions),
        ])  # fmt: skip

    @property
    def tile_size(self) -> int:
        """Numbers in the tiles of one thread."""
        return ROWS * self.tile_vectors * self.tiling.lanes

    # -- regions ------------------------------------------------------------------------------

    def _loop(self, region: Region) -> str:
        """A region that goes through steps."""
        texts: list[str] = []
        packs: list[str] = []
        by_rows: list[str] = []
        by_units: list[str] = []
        for group in pass_groups(region.passes):
            name = f"{region.name}_pass{len(texts)}"
            if group[0].of_rows:
                texts.append(
                    rows_pass(name, region.schedule, group, self.buffers, self.tiling.lanes)
                )
                by_rows.append(f"{name}(c, t, flip, r0, r1, 0, LONG);")
                whole = len(group) > 1 or group[0].reductions or group[0].width == 1
                part = "0, LONG" if whole else self._share(-(-group[0].width // self.tiling.lanes))
                by_units.append(f"{name}(c, t, flip, {'r0, r1' if whole else '0, c->B'}, {part});")
            else:
                text, products = self._products_function(name, region, group[0])
                texts.append(text)
                panels = self._panels(group[0], products)
                packs += [f"pack_{_id(q)}(c->p, {self._share(panels)});" for q in products]
                by_rows.append(f"{name}(c, t, flip, r0, r1, 0, {panels}, tile);")
                by_units.append(f"{name}(c, t, flip, 0, c->B, {self._share(panels)}, tile);")
        return "\n".join([*texts, self._region_function(region, packs, by_rows, by_units)])

    @staticmethod
    def _share(count: int) -> str:
        """The texts of a thread's part of a number of things."""
        return f"share({count}, id, c->threads), share({count}, id + 1, c->threads)"

    def _panels(self, one: Pass, products: list[TiledProduct]) -> int:
        units = products[0].panel_units if products else 1
        return -(-one.width // (units * self.tiling.lanes))

    def _region_function(
        self, region: Region, packs: list[str], by_rows: list[str], by_units: list[str]
    ) -> str:
        steps = {
            "forward": "for (long t = 0, flip = 0; t < c->T; ++t) {",
            "backward": "for (long t = c->T - 1, flip = 0; t >= 0; --t, flip = 1 - flip) {",
            "window": "for (long t = 0, flip = 0; t < c->T; ++t) {",
            "once": "for (long t = 0, flip = 0; t < 1; ++t) {",
        }[region.kind]
        record = [self._record()] if region.kind == "backward" else []
        tile = self.buffers.number["tiles"]
        lines = [
            f"static void {region.name}(const Call *c, long id) {{",
            f"    real *const tile = (real *)c->p[{tile}] + id * TILE;",
            "    (void)tile;",
            *(f"    {line}" for line in packs),
            *(["    meet(c->barrier);"] if packs else []),
            "    const long r0 = share(c->B, id, c->threads);",
            "    const long r1 = share(c->B, id + 1, c->threads);",
            "    if (!c->by_units) {",
            f"        {steps}",
            *(f"            {line}" for line in (*record, *by_rows)),
            "        }",
            "        return;",
            "    }",
            f"    {steps}",
            *(f"        {line}" for line in record),
            *(f"        {line} meet(c->barrier);" for line in by_units),
            "    }",
            "}",
            "",
        ]
        return "\n".join(lines)

    def _record(self) -> str:
        """The line that writes down the whole gradient of a step's output."""
        plan = self.program.plan
        numbers = [self.buffers.number[n] for n in ("given record", f"d {plan.output}", "given dy")]
        width = plan.states[plan.output]
        return f"record(c, t, flip, r0, r1, {numbers[0]}, {numbers[1]}, {numbers[2]}, {width});"

    # -- passes -------------------------------------------------------------------------------

    def _products_function(
        self, name: str, region: Region, one: Pass
    ) -> tuple[str, list[TiledProduct]]:
        products = tiled_products(one, self.tiling, region.name)
        lanes = self.tiling.lanes
        vectors = sum(product.vectors for product in products)
        self.tile_vectors = max(self.tile_vectors, vectors)
        block = Block(region.schedule, one, one.width, self.buffers, self.tiling.lanes)
        for product in products:
            for k, segment in enumerate(product.segments):
                slot = product.first + k * product.panel_units
                place = f"(real *)tile + ((r - s) * {vectors} + {slot} + j) * RNN_LANES"
                block.tiles[segment] = f"*(const vec *)({place})"
        if one.width == 1:  # numbers of a row: whatever uses them reads them again
            for segment, location in one.stores:
                pointer = block.pointer(location)
                value = f"rnn_first({block.tiles[segment]})"
                block.body.append(f"*({pointer} + {location.offset}) = {value};")
        else:
            for segment, location in one.stores:
                block.store(segment, location)
        head, body = chunked(block.head, block.body)
        packs = [self._pack(product) for product in products]
        units = products[0].panel_units
        lines = [
            f"APART static void {name}(const Call *c, long t, long flip, long r0, long r1, "
            "long p0, long p1, real *restrict tile) {",
            "    void **const p = c->p; const long B = c->B; (void)B;",
            "    for (long panel = p0; panel < p1; ++panel)",
            f"    for (long s = r0; s < r1; s += {ROWS}) {{",
            f"        const long e = r1 - s < {ROWS} ? r1 : s + {ROWS};",
            *(f"        {line}" for product in products for line in self._multiply(
                region.schedule, product, vectors)),
            "        for (long r = s; r < e; ++r) {",
            *(f"            {line}" for line in block.pointers.values()),
            *(f"            {line}" for line in head),
            f"            for (long j = 0; j < {units}; ++j) {{",
            f"                const long u = (panel * {units} + j) * {lanes}, n = {one.width} - u;",
            "                if (n <= 0) break;",
            *(f"                {line}" for line in body),
            "            }",
            "        }",
            "    }",
            "}",
            "",
        ]  # fmt: skip
        return "\n".join([*packs, *lines]), products

    def _multiply(self, schedule: Schedule, product: TiledProduct, vectors: int) -> list[str]:
        lanes, inputs = self.tiling.lanes, product.inputs
        argument = schedule.vector(product.symbol.args[0])
        start = address(self.buffers, argument, "s") + f" + {argument.offset}"
        lda = self.buffers.known[argument.buffer].width
        packed = f"((real *)p[{self.buffers.number[product.buffer]}])"
        size = inputs * product.vectors * lanes
        lines, done = [], 0
        for group in product.groups:
            self._multiplied.add(group)
            weights = f"{packed} + panel * {size} + {inputs * done * lanes}"
            out = f"tile + {(product.first + done) * lanes}"
            lines.append(
                f"multiply_{group}(e - s, {inputs}, {start}, {lda}, {weights}, {out}, "
                f"{vectors * lanes});"
            )
            done += group
        return lines

    def _pack(self, product: TiledProduct) -> str:
        size = product.packed_size(self.tiling.lanes)
        self.packed[product.buffer] = size
        numbers = self.program.packed_buffer(product.buffer, size, product.symbol.attribute)
        pointers = {name: f"((real *)p[{number}])" for name, number in numbers.items()}
        return pack_text(product, f"pack_{_id(product)}", pointers, self.tiling.lanes)

    # -- sums over rows -----------------------------------------------------------------------

    def _sums(self, region: Region) -> str:
        """Sums over all rows of all steps: first over the rows of a step, then over the steps."""
        texts, calls = [], []
        for width in sorted({segment.width for segment, _ in region.sums}):
            chosen = [(s, place) for s, place in region.sums if s.width == width]
            name = f"sums_{width}"
            texts.append(self._sums_function(name, region.schedule, chosen, width))
            count = -(-width // self.tiling.lanes)
            calls.append(f"    {name}(c, {self._share(count)});")
        lines = [f"static void {region.name}(const Call *c, long id) {{", *calls, "}", ""]
        return "\n".join([*texts, *lines])

    def _sums_function(
        self,
        name: str,
        schedule: Schedule,
        sums: list[tuple[Segment, Location]],
        width: int,
    ) -> str:
        block = Block(schedule, None, width, self.buffers, self.tiling.lanes)
        values = [block.value(segment) for segment, _ in sums]
        added = [f"sum[{k}][v - k0] += {v};" for k, v in enumerate(values)]
        head, body = chunked(block.head, [*block.body, *added])
        chunk = max(1, SUMMED // len(sums))
        count = len(sums)
        stores = [
            f"rnn_store({address(self.buffers, place, 'r')} + {place.offset} + u, "
            f"total[{k}][v - k0], n);"
            for k, (_, place) in enumerate(sums)
        ]
        lines = [
            f"APART static void {name}(const Call *c, long v0, long v1) {{",
            "    void **const p = c->p; const long B = c->B;",
            f"    for (long k0 = v0; k0 < v1; k0 += {chunk}) {{",
            f"        const long k1 = v1 - k0 < {chunk} ? v1 : k0 + {chunk};",
            f"        vec total[{count}][{chunk}];",
            f"        for (long i = 0; i < {count}; ++i)",
            "            for (long v = k0; v < k1; ++v) total[i][v - k0] = rnn_splat(0);",
            "        for (long t = 0, flip = 0; t < c->T; ++t) {",
            f"            vec sum[{count}][{chunk}];",
            f"            for (long i = 0; i < {count}; ++i)",
            "                for (long v = k0; v < k1; ++v) sum[i][v - k0] = rnn_splat(0);",
            "            (void)flip;",
            "            for (long r = 0; r < B; ++r) {",
            *(f"                {line}" for line in block.pointers.values()),
            *(f"                {line}" for line in head),
            "                for (long v = k0; v < k1; ++v) {",
            f"                    const long u = v * RNN_LANES, n = {width} - u; (void)n;",
            *(f"                    {line}" for line in body),
            "                }",
            "            }",
            f"            for (long i = 0; i < {count}; ++i)",
            "                for (long v = k0; v < k1; ++v) total[i][v - k0] += sum[i][v - k0];",
            "        }",
            "        for (long v = k0; v < k1; ++v) {",
            f"            const long u = v * RNN_LANES, n = {width} - u;",
            *(f"            {line}" for line in stores),
            "        }",
            "    }",
            "}",
            "",
        ]
        return "\n".join(lines)


def _id(product: TiledProduct) -> str:
    return "".join(c if c.isalnum() else "_" for c in product.buffer)
