"""The C header's vectors: every operation against NumPy at a greater precision, lane by lane."""

from __future__ import annotations

import ctypes
import mmap
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

HEADER = Path(__file__).parents[1] / "rnnfarm_cpu" / "vector.h"
FLAGS = [
    *("-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
    *("-shared", "-fPIC", "-std=gnu11", "-Wno-psabi"),
]
#: What a result may be away from the exact one, in units in the last place of the rounded one.
#: Addition and division each add half a unit to what exp leaves, so 3 is near what can be had.
LIMITS = {"exp": 2, "tanh": 3, "sigmoid": 3, "log": 3, "softplus": 3, "sqrt": 0.51}

ONE_ARGUMENT = ["tanh", "sigmoid", "relu", "softplus", "exp", "log", "sqrt", "abs", "sign"]
TWO_ARGUMENTS = ["minimum", "maximum"]
COMPARISONS = ["less", "less_equal", "equal"]

#: Every operation over whole arrays, whose last vector may be partial.
SOURCE = "\n".join(
    [
        "#define EACH for (long i = 0; i < n; i += RNN_LANES)",
        "#define A rnn_load(a + i, n - i)",
        "#define B rnn_load(b + i, n - i)",
        "#define PUT(v) rnn_store(o + i, v, n - i)",
        "#define ARRAYS const real *a, const real *b, const unsigned char *m, real *o, long n",
        *(f"void test_{f}(ARRAYS) {{ EACH PUT(rnn_{f}(A)); }}" for f in ONE_ARGUMENT),
        *(f"void test_{f}(ARRAYS) {{ EACH PUT(rnn_{f}(A, B)); }}" for f in TWO_ARGUMENTS),
        *(f"void test_{f}(ARRAYS) {{ EACH PUT(rnn_from_mask(rnn_{f}(A, B))); }}"
          for f in COMPARISONS),
        "void test_where(ARRAYS) { EACH PUT(rnn_where(rnn_load_bool(m + i, n - i), A, B)); }",
        "void test_where_less(ARRAYS) { EACH PUT(rnn_where(rnn_less(A, B), A * B, A - B)); }",
        "void test_to_mask(ARRAYS) { EACH PUT(rnn_from_mask(rnn_to_mask(A))); }",
        "void test_sum_lanes(ARRAYS) { EACH PUT(rnn_sum_lanes(A)); }",
        "void test_max_lanes(ARRAYS) { EACH PUT(rnn_max_lanes(A)); }",
        # One vector, of which all lanes are written down.
        "#define WHOLE(v) rnn_store(o, v, RNN_LANES)",
        "void test_load(ARRAYS) { WHOLE(rnn_load(a, n)); }",
        "void test_store(ARRAYS) { rnn_store(o, rnn_load(a, RNN_LANES), n); }",
        "void test_load_bool(ARRAYS) { WHOLE(rnn_from_mask(rnn_load_bool(m, n))); }",
        "void test_first_lanes(ARRAYS) {",
        "  WHOLE(rnn_first_lanes(rnn_load(a, RNN_LANES), n, -(real)__builtin_inff()));",
        "}",
        "void test_splat(ARRAYS) { WHOLE(rnn_splat(*a)); }",
        "void test_splat_bool(ARRAYS) { WHOLE(rnn_from_mask(rnn_splat_bool(*m))); }",
        "void test_iota(ARRAYS) { WHOLE(rnn_iota()); }",
    ]
)  # fmt: skip


class Compiled:
    """The header's functions for one type and one number of lanes."""

    def __init__(self, library: Path, dtype: str, lanes: int) -> None:
        self.library = ctypes.CDLL(str(library))
        self.dtype = np.dtype(dtype)
        self.lanes = lanes

    def run(self, name: str, n: int, a: int = 0, b: int = 0, m: int = 0, out: int = 0) -> None:
        """Call a function on addresses."""
        pointers = [ctypes.c_void_p(address) for address in (a, b, m, out)]
        getattr(self.library, f"test_{name}")(*pointers, ctypes.c_long(n))

    def __call__(
        self, name: str, a: NDArray, b: NDArray | None = None, m: NDArray | None = None
    ) -> NDArray:
        """What a function makes of whole arrays."""
        out = np.empty_like(a)
        addresses = [0 if array is None else array.ctypes.data for array in (a, b, m, out)]
        self.run(name, a.size, *addresses)
        return out

    def vector(
        self, name: str, n: int, a: NDArray | None = None, m: NDArray | None = None
    ) -> NDArray:
        """What a function makes of the first ``n`` lanes: one vector."""
        out = np.full(self.lanes, 99, self.dtype)
        a_address, m_address = (0 if array is None else array.ctypes.data for array in (a, m))
        self.run(name, n, a_address, 0, m_address, out.ctypes.data)
        return out


@pytest.fixture(
    scope="module",
    params=[(dtype, width) for dtype in ("float32", "float64") for width in (64, 32, 16)],
    ids=lambda param: f"{param[0]}-{param[1]}bytes",
)
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler cc on PATH")
    dtype, width = request.param
    lanes = width // np.dtype(dtype).itemsize
    folder = tmp_path_factory.mktemp("vector")
    source, library = folder / "vector.c", folder / "vector.so"
    start = f"#define RNN_DOUBLE {int(dtype == 'float64')}\n#define RNN_LANES {lanes}\n"
    source.write_text(f"{start}{HEADER.read_text()}\n{SOURCE}\n")
    subprocess.run([compiler, *FLAGS, str(source), "-o", str(library)], check=True)
    return Compiled(library, dtype, lanes)


def around(dtype: str, *values: float, count: int = 2000) -> NDArray:
    """The numbers next to some values, of both signs, nothing left out."""
    bits = np.uint32 if dtype == "float32" else np.uint64
    centres = np.array([abs(value) for value in values], dtype).view(bits).astype(np.int64)
    near = (centres[:, None] + np.arange(-count, count + 1)).ravel()
    found = near[near >= 0].astype(bits).view(dtype)
    return np.concatenate([found, -found])


@cache
def arguments(dtype: str) -> NDArray:
    """Numbers of every exponent and sign, and those where a formula goes over into another."""
    rng = np.random.default_rng(0)
    half = np.log(2) / 2
    tiny = float(np.finfo(dtype).tiny)
    steps = half * np.arange(1, 60, 2)
    ends = (9.01, 20, 30, 40, 88.7, 89, 103.9, 104, 708.4, 709.8, 710, 745.1, 746)
    roots = np.sqrt(2) * 2.0 ** np.arange(-3, 4)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan]
    if dtype == "float32":
        # An odd step, so that the low bits vary as well.
        every = np.arange(0, 1 << 32, 4099, dtype=np.uint64).astype(np.uint32).view(dtype)
    else:
        every = rng.integers(0, 1 << 64, 100_000, dtype=np.uint64).view(dtype)
    parts = [
        np.array(special, dtype),
        every,
        around(dtype, 0.0, 1.0, tiny, np.finfo(dtype).max),
        around(dtype, *steps, *ends, *roots, count=200),
        *(rng.normal(size=30_000) * scale for scale in (0.1, 1, 8, 60, 400)),
        rng.uniform(0.5, 2, 30_000),
        -rng.uniform(0.99, 1.01, 20_000) * (104 if dtype == "float32" else 745),
    ]
    return np.concatenate([np.asarray(part, dtype) for part in parts])


def _sigmoid(v: NDArray) -> NDArray:
    e = np.exp(-np.abs(v))
    return np.where(v < 0, e, 1) / (1 + e)


REFERENCES: dict[str, Callable[[NDArray], NDArray]] = {
    "exp": np.exp,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "log": np.log,
    "softplus": lambda v: np.maximum(v, 0) + np.log1p(np.exp(-np.abs(v))),
    "sqrt": np.sqrt,
}


@cache
def reference(name: str, dtype: str) -> NDArray:
    """The results at a precision at which their own errors do not count."""
    wide = np.float64 if dtype == "float32" else np.longdouble
    with np.errstate(all="ignore"):
        return REFERENCES[name](arguments(dtype).astype(wide))


@pytest.mark.parametrize("name", list(REFERENCES))
def test_results_are_within_a_few_units_in_the_last_place(compiled: Compiled, name: str) -> None:
    dtype = compiled.dtype.name
    x, exact = arguments(dtype), reference(name, dtype)
    found = compiled(name, x)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        rounded = exact.astype(dtype)
        unit = np.spacing(np.abs(rounded)).astype(exact.dtype)
        error = np.abs(found.astype(exact.dtype) - exact) / unit
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(found[~finite], rounded[~finite])
    assert np.isfinite(found[finite]).all()
    worst = np.argmax(np.where(finite, error, 0))
    assert error[worst] <= LIMITS[name], f"{name}({x[worst]!r}) is {found[worst]!r}"


def test_tanh_and_sigmoid_keep_their_bounds_and_symmetry(compiled: Compiled) -> None:
    """Gradients compute 1 - tanh^2, which must not be negative."""
    x = arguments(compiled.dtype.name)
    known = ~np.isnan(x)
    tanh, sigmoid = compiled("tanh", x)[known], compiled("sigmoid", x)[known]
    assert np.abs(tanh).max() == 1
    np.testing.assert_array_equal(np.signbit(tanh), np.signbit(x[known]))
    np.testing.assert_array_equal(compiled("tanh", -x)[known], -tanh)
    assert sigmoid.min() == 0
    assert sigmoid.max() == 1


def test_exact_operations(compiled: Compiled) -> None:
    x = arguments(compiled.dtype.name)
    y = np.random.default_rng(1).permutation(x)
    # The same numbers, and those beside them.
    x, y = np.concatenate([x, x, x]), np.concatenate([y, x, np.roll(x, 1)])
    with np.errstate(all="ignore"):
        expected = {
            "relu": np.maximum(x, 0),
            "abs": np.abs(x),
            "sign": np.sign(x),
            "minimum": np.minimum(x, y),
            "maximum": np.maximum(x, y),
            "less": x < y,
            "less_equal": x <= y,
            "equal": x == y,
            "to_mask": x != 0,
            "where_less": np.where(x < y, x * y, x - y),
        }
    for name, result in expected.items():
        np.testing.assert_array_equal(compiled(name, x, y), result, err_msg=name)


def test_selection_moves_all_bits(compiled: Compiled) -> None:
    """Signed zeros and what a NaN carries included."""
    x = arguments(compiled.dtype.name)
    y = np.random.default_rng(1).permutation(x)
    chosen = np.random.default_rng(2).integers(0, 2, x.size, dtype=np.uint8)
    found = compiled("where", x, y, chosen)
    assert found.tobytes() == np.where(chosen, x, y).tobytes()


def test_partial_loads_and_stores(compiled: Compiled) -> None:
    full = np.arange(1, compiled.lanes + 1).astype(compiled.dtype)
    for n in range(-1, compiled.lanes + 3):
        first = np.where(np.arange(compiled.lanes) < n, full, 0)
        np.testing.assert_array_equal(compiled.vector("load", n, full), first)
        bounded = np.where(np.arange(compiled.lanes) < n, full, -np.inf)
        np.testing.assert_array_equal(compiled.vector("first_lanes", n, full), bounded)
        # A guard on either side.
        out = np.full(compiled.lanes + 2, -7, compiled.dtype)
        compiled.run("store", n, a=full.ctypes.data, out=out[1:].ctypes.data)
        stored = np.where(np.arange(compiled.lanes) < n, full, -7)
        np.testing.assert_array_equal(out, [-7, *stored, -7])


def test_no_memory_past_the_end_is_touched(compiled: Compiled) -> None:
    """The reals end where a page ends that is followed by one which may not be touched."""
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + page), ctypes.c_size_t(page), 0) == 0
    size = compiled.dtype.itemsize
    given = np.arange(1, compiled.lanes + 1).astype(compiled.dtype)
    found = np.empty_like(given)
    for n in range(compiled.lanes + 1):
        at_end = start + page - n * size
        compiled.run("store", n, a=given.ctypes.data, out=at_end)
        compiled.run("load", n, a=at_end, out=found.ctypes.data)
        np.testing.assert_array_equal(found, np.where(np.arange(compiled.lanes) < n, given, 0))
        compiled.run("load_bool", n, m=start + page - n, out=found.ctypes.data)


def test_bools(compiled: Compiled) -> None:
    """Any byte but 0 is true, and the bytes after the first ``n`` do not matter."""
    rng = np.random.default_rng(3)
    lanes = np.arange(compiled.lanes)
    for n in range(compiled.lanes + 2):
        for _ in range(20):
            bits = rng.integers(0, 2, compiled.lanes + 2, dtype=np.uint8)
            given = bits << rng.integers(0, 8, bits.size, dtype=np.uint8)
            found = compiled.vector("load_bool", n, m=given)
            np.testing.assert_array_equal(found, (given[lanes] != 0) & (lanes < n))
    for value in (0, 1, 2, 128, 255):
        found = compiled.vector("splat_bool", 0, m=np.array([value], np.uint8))
        np.testing.assert_array_equal(found, np.full(compiled.lanes, value != 0))


def test_splat_keeps_the_sign_of_zero(compiled: Compiled) -> None:
    for value in (1.5, 0.0, -0.0, np.inf, np.nan):
        found = compiled.vector("splat", 0, np.array([value], compiled.dtype))
        np.testing.assert_array_equal(found, np.full(compiled.lanes, value))
        assert (np.signbit(found) == np.signbit(value)).all()
    np.testing.assert_array_equal(compiled.vector("iota", 0), np.arange(compiled.lanes))


def test_lanes_are_summed_in_a_fixed_tree(compiled: Compiled) -> None:
    x = np.random.default_rng(4).normal(size=64 * compiled.lanes).astype(compiled.dtype)
    sums = x.reshape(64, compiled.lanes)
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = sums[:, :half] + sums[:, half:]
    found = compiled("sum_lanes", x).reshape(64, compiled.lanes)
    np.testing.assert_array_equal(found, np.broadcast_to(sums, found.shape))


def test_the_largest_lane(compiled: Compiled) -> None:
    """A NaN in any lane is the largest."""
    lanes = compiled.lanes
    x = np.random.default_rng(5).normal(size=(4 * lanes, lanes)).astype(compiled.dtype)
    x[np.arange(lanes), np.arange(lanes)] = np.nan
    x[lanes] = -np.inf
    found = compiled("max_lanes", x.ravel()).reshape(x.shape)
    np.testing.assert_array_equal(found, np.broadcast_to(x.max(1, keepdims=True), x.shape))
