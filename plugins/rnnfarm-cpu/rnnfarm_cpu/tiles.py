"""The recurrent product in C: register tiles, and the order in which weights are packed for them.

A product's result is cut into panels of a few vectors of units, and for each panel the weights lie
side by side in the order in which a tile reads them. A tile is some rows times the vectors of a
group; it is kept in registers while it runs down the inputs. Each element is one chain of fused
multiply-adds in the order of the inputs, whatever the tile's height: a row's bits do not depend on
the rows beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from rnnfarm.equations.graph import Parameter, Symbol
from rnnfarm.equations.schedule import Pass
from rnnfarm.equations.segments import Segment
from rnnfarm_cpu.processor import Target

#: Bytes of a group's packed weights that rows of tiles go through before the next ones: a quarter
#: of a small second-level cache.
BLOCK_BYTES = 262_144
#: Rows of a panel's tiles that are held at a time.
ROWS = 96


@dataclass(frozen=True)
class Tiling:
    """The shape of the tiles of one kind of processor, for one dtype.

    Attributes:
        lanes: numbers in a vector.
        most: vectors of a group at most.
        heights: for each number of vectors, how many rows a tile has at most.
    """

    lanes: int
    most: int
    heights: dict[int, int]

    @staticmethod
    def of(target: Target, size: int) -> Tiling:
        """The tiling of a processor for numbers of ``size`` bytes."""
        lanes = target.vector_bytes // size
        if target.registers >= 32:
            return Tiling(lanes, 4, {1: 8, 2: 8, 3: 8, 4: 6})
        return Tiling(lanes, 2, {1: 8, 2: 6})


@dataclass(frozen=True)
class TiledProduct:
    """One product of a pass: its columns of the pass's width, as vectors of a panel.

    Attributes:
        panel_units: vectors of units in a panel, the same for all products of a pass.
        groups: how many vectors each group has.
        first: the number of its first vector in a row of the pass's tiles.
    """

    symbol: Symbol
    segments: tuple[Segment, ...]
    panel_units: int
    groups: tuple[int, ...]
    first: int
    buffer: str

    @property
    def inputs(self) -> int:
        return self.symbol.args[0].width

    @property
    def vectors(self) -> int:
        return len(self.segments) * self.panel_units

    def packed_size(self, lanes: int) -> int:
        """How many numbers the packed weights have."""
        panels = -(-self.segments[0].width // (self.panel_units * lanes))
        return panels * self.inputs * self.vectors * lanes

    def slots(self) -> list[tuple[Segment, int, int, int]]:
        """``(segment, vector of units, group, place in the group)`` of every vector."""
        places = [(g, q) for g, size in enumerate(self.groups) for q in range(size)]
        return [
            (segment, unit, *places[k * self.panel_units + unit])
            for k, segment in enumerate(self.segments)
            for unit in range(self.panel_units)
        ]


def tiled_products(one: Pass, tiling: Tiling, region: str) -> list[TiledProduct]:
    """The products of a pass, tiled."""
    by_symbol: dict[Symbol, list[Segment]] = {}
    for segment in sorted(one.products, key=lambda s: (s.symbol.index, s.start)):
        by_symbol.setdefault(segment.symbol, []).append(segment)
    most = max((len(segments) for segments in by_symbol.values()), default=1)
    across = -(-one.width // tiling.lanes)
    units = min(max(1, tiling.most // most), across)
    result, first = [], 0
    for symbol, segments in by_symbol.items():
        vectors = len(segments) * units
        count = -(-vectors // tiling.most)
        groups = tuple(vectors * (g + 1) // count - vectors * g // count for g in range(count))
        name = f"packed {region} {symbol.index} {one.width}"
        result.append(TiledProduct(symbol, tuple(segments), units, groups, first, name))
        first += vectors
    return result


def multiply_text(vectors: int, tiling: Tiling, size: int) -> str:
    """C functions that multiply any number of rows with one group of ``vectors`` vectors."""
    height = tiling.heights[vectors]
    block = max(64, BLOCK_BYTES // (vectors * tiling.lanes * size))
    tiles = [_tile_text(rows, vectors) for rows in range(1, height + 1)]
    step = vectors * tiling.lanes
    cases = "\n".join(
        f"            case {rows}: tile_{rows}_{vectors}(n, a + r * lda + k, lda, w + k * {step}, "
        "out + r * ldo, ldo, k == 0); break;"
        for rows in range(1, height + 1)
    )
    return (
        "\n".join(tiles)
        + f"""
static void multiply_{vectors}(long rows, long inputs, const real *a, long lda, const real *w,
                       real *out, long ldo) {{
    const long tiles = (rows + {height - 1}) / {height};
    for (long k = 0; k < inputs; k += {block}) {{
        const long n = inputs - k < {block} ? inputs - k : {block};
        long r = 0;
        for (long left = tiles; left > 0; --left) {{
            const long m = (rows - r + left - 1) / left;
            switch (m) {{
{cases}
            }}
            r += m;
        }}
    }}
}}
"""
    )


def _tile_text(rows: int, vectors: int) -> str:
    """One tile: ``rows`` rows times ``vectors`` vectors, down ``n`` inputs."""
    lines = [
        f"APART static void tile_{rows}_{vectors}(long n, const real *restrict a, long lda,",
        "        const real *restrict w, real *restrict out, long ldo, int first) {",
        "    const vec *restrict b = (const vec *)w;",
    ]
    sums = [[f"c{i}_{j}" for j in range(vectors)] for i in range(rows)]
    names = ", ".join(name for row in sums for name in row)
    lines += [f"    vec {names};", "    if (first) {"]
    lines += [f"        {name} = rnn_splat(0);" for row in sums for name in row]
    lines += ["    } else {"]
    for i, row in enumerate(sums):
        lines += [f"        {c} = ((vec *)(out + {i} * ldo))[{j}];" for j, c in enumerate(row)]
    lines += ["    }", "    for (long k = 0; k < n; ++k) {"]
    lines += [f"        const vec b{j} = b[k * {vectors} + {j}];" for j in range(vectors)]
    for i, row in enumerate(sums):
        lines.append(f"        const vec a{i} = rnn_splat(a[{i} * lda + k]);")
        lines += [f"        {c} = rnn_fma(a{i}, b{j}, {c});" for j, c in enumerate(row)]
    lines += ["    }"]
    for i, row in enumerate(sums):
        lines += [f"    ((vec *)(out + {i} * ldo))[{j}] = {c};" for j, c in enumerate(row)]
    return "\n".join([*lines, "}", ""])


def pack_text(product: TiledProduct, name: str, pointers: dict[str, str], lanes: int) -> str:
    """A C function that packs panels ``p0`` to ``p1`` of a product's weights.

    Args:
        pointers: the C text of every weight matrix, and of the packed buffer under ``""``.
    """
    transposed = product.symbol.op == "matmul_transposed"
    size = product.inputs * product.vectors * lanes
    starts = [sum(product.groups[:g]) for g in range(len(product.groups))]
    lines = [
        f"static void {name}(void **p, long p0, long p1) {{",
        "    for (long panel = p0; panel < p1; ++panel) {",
        f"        real *to = {pointers['']} + panel * {size};",
    ]
    for segment, unit, group, place in product.slots():
        stride = product.groups[group] * lanes
        offset = product.inputs * starts[group] * lanes + place * lanes
        first = f"(panel * {product.panel_units} + {unit}) * {lanes}"
        lines.append(f"        {{ const long u = {first}, n = {segment.width} - u;")
        if transposed:
            lines += _pack_rows(product.symbol.attribute, segment, pointers, offset, stride)
        else:
            lines += _pack_columns(product.symbol.attribute, segment, pointers, offset, stride)
        lines.append("        }")
    return "\n".join([*lines, "    }", "}", ""])


def _pack_columns(
    weights: tuple[Parameter, ...], segment: Segment, pointers: dict[str, str], to: int, stride: int
) -> list[str]:
    """Columns of the weights: units are columns, inputs are rows."""
    position = 0
    for weight in weights:
        inputs, width = weight.shape
        if segment.start < position + width:
            column = segment.start - position
            return [
                f"          rnn_pack_columns({pointers[weight.name]} + {column} + u, {width}, "
                f"{inputs}, n, to + {to}, {stride});"
            ]
        position += width
    raise AssertionError(f"{segment} is in none of its weights")


def _pack_rows(
    weights: tuple[Parameter, ...], segment: Segment, pointers: dict[str, str], to: int, stride: int
) -> list[str]:
    """Rows of the weights: units are rows, inputs are the columns of all weights in turn."""
    lines, position = [], 0
    for weight in weights:
        width = weight.shape[1]
        lines.append(
            f"          rnn_pack_rows({pointers[weight.name]} + (u + {segment.start}) * {width}, "
            f"{width}, {width}, n, to + {to} + {position} * {stride}, {stride});"
        )
        position += width
    return lines
