"""Matrix products cut into parts that threads can share.

The cuts go by the product's shape alone, so that a product has the same bits on any number of
threads: a BLAS may round differently in a matrix of another shape. A part costs some of the BLAS's
speed, since it packs the other operand anew: two hundredths at 512 rows or columns, twice that at
256. So there are few, and lanes are what many cores are for.
"""

from __future__ import annotations

from collections.abc import Iterator

from rnnfarm.kernels.interface import Array

#: ``(a, b, out)`` of ``np.matmul``.
Operands = tuple[Array, Array, Array]
#: Operations that are worth a part of their own: some tenths of a millisecond on one core.
WORTH = 1.6e7
#: Parts at most; rows or columns of a part where there are more than two, and at least.
MOST, WIDE, LEAST = 4, 512, 128


def parts(a: Array, b: Array, out: Array) -> Iterator[Operands]:
    """The product of ``a`` and ``b``, cut along the longer side of the result."""
    (rows, inner), columns = a.shape, b.shape[1]
    by_rows = rows >= columns
    longer = rows if by_rows else columns
    worth = int(2.0 * rows * inner * columns / WORTH)
    count = min(MOST, max(2, longer // WIDE), longer // LEAST, worth)
    if count < 2:
        yield a, b, out
        return
    for k in range(count):
        span = slice(longer * k // count, longer * (k + 1) // count)
        yield (a[span], b, out[span]) if by_rows else (a, b[:, span], out[:, span])
