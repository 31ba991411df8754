"""The compiler and the GPU's runtime: what needs no GPU, and where there is one what does."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rnnfarm_cupy import compiler, figures, gpu
from rnnfarm_cupy.host import HostRuntime
from rnnfarm_cupy.runtime import Launch, Matrix

from rnnfarm.errors import DeviceError

ABSENT = compiler.missing_compiler()
NO_GPU = gpu.missing_gpu()
needs_compiler = pytest.mark.skipif(ABSENT is not None, reason=str(ABSENT))

SMALL = r"""
extern "C" __global__ void add(const float *a, float *out, int n, double factor) {
    __shared__ float part[64];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    part[threadIdx.x] = a && i < n ? a[i] : 1.0f;
    __syncthreads();
    if (i < n) out[i] += (float)factor * part[threadIdx.x];
}
extern "C" __global__ void wide(float *out, int n) {
    extern __shared__ float whole[];
    for (int i = threadIdx.x; i < n; i += blockDim.x) whole[i] = i;
    __syncthreads();
    if (threadIdx.x == 0) out[0] = whole[n - 1];
}
"""
#: More values than a thread of 1024 can have registers for.
GREEDY = r"""
extern "C" __global__ void __launch_bounds__(1024) greedy(float *x, int n) {
    float v[96];
    #pragma unroll
    for (int i = 0; i < 96; ++i) v[i] = x[i * n];
    for (int round = 0; round < n; ++round) {
        #pragma unroll
        for (int i = 0; i < 96; ++i) v[i] = v[i] * v[(i + 7) % 96] + v[(i + 31) % 96];
    }
    #pragma unroll
    for (int i = 0; i < 96; ++i) x[i * n] = v[i];
}
"""


@needs_compiler
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_compiles_and_tells_what_kernels_take(arch: str) -> None:
    compiled = compiler.compile_cubin(SMALL + GREEDY, arch)
    assert compiled.cubin[:4] == b"\x7fELF"
    kernels = {kernel.name: kernel for kernel in compiled.kernels}
    assert set(kernels) == {"add", "wide", "greedy"}
    assert 4 <= kernels["add"].registers <= 64
    assert kernels["add"].shared == 256
    assert kernels["add"].spill_bytes == 0
    assert kernels["greedy"].registers == 64
    assert kernels["greedy"].spill_bytes > 0


def test_reads_what_ptxas_reports() -> None:
    report = (
        "ptxas info    : 0 bytes gmem\n"
        "ptxas info    : Compiling entry function 'a' for 'sm_90'\n"
        "ptxas info    : Function properties for a\n"
        "ptxas         .     32 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads\n"
        "ptxas info    : Used 22 registers, used 1 barriers, 256 bytes smem\n"
        "ptxas info    : Function properties for _Z1gPfi\n"
        "ptxas         .     0 bytes stack frame, 16 bytes spill stores, 0 bytes spill loads\n"
        "ptxas info    : Compiling entry function 'b' for 'sm_90'\n"
        "ptxas info    : Function properties for b\n"
        "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
        "ptxas info    : Used 10 registers, 380 bytes cmem[0]\n"
    )
    assert compiler.kernel_figures(report) == [
        compiler.KernelFigures("a", 22, 256, 4),
        compiler.KernelFigures("b", 10, 0, 0),
    ]


@needs_compiler
def test_a_mistake_is_told_with_its_line() -> None:
    with pytest.raises(DeviceError, match=r"kernel\.cu\(3\): error: .*nowhere") as caught:
        compiler.compile_cubin(
            'extern "C" __global__ void f(int *x) {\n\n  *x = nowhere;\n}', "sm_80"
        )
    assert caught.value.exit_code == 4
    assert len(str(caught.value).splitlines()) <= compiler.LINES + 1


@needs_compiler
@pytest.mark.parametrize(
    ("arch", "word"), [("sm_20", "an older"), ("sm_999", "a newer"), ("mine", "a newer")]
)
def test_an_unknown_architecture(arch: str, word: str) -> None:
    with pytest.raises(DeviceError, match=f"does not compile for {arch}.*{word} CUDA"):
        compiler.compile_cubin(SMALL, arch)


def forbid_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("it was compiled")

    monkeypatch.setattr(compiler, "compile_cubin", refuse)


@needs_compiler
def test_what_was_compiled_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compiler.load_program(SMALL, "sm_80", tmp_path)
    assert (first.found, first.checked) == (False, False)
    first.mark_checked()
    forbid_compiling(monkeypatch)
    second = compiler.load_program(SMALL, "sm_80", tmp_path)
    assert (second.found, second.checked) == (True, True)
    assert second.compiled == first.compiled
    for source, arch in ((SMALL + "\n", "sm_80"), (SMALL, "sm_90")):
        with pytest.raises(AssertionError, match="compiled"):
            compiler.load_program(source, arch, tmp_path)


@needs_compiler
@pytest.mark.parametrize("suffix", [".cubin", ".json"])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_what_is_damaged_is_compiled_again(tmp_path: Path, suffix: str, damage: str) -> None:
    first = compiler.load_program(SMALL, "sm_80", tmp_path)
    first.mark_checked()
    assert first.path is not None
    path = first.path.with_suffix(suffix)
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:40] if damage == "cut" else data[:30] + b"?" + data[31:])
    again = compiler.load_program(SMALL, "sm_80", tmp_path)
    assert (again.found, again.checked) == (False, False)
    assert again.compiled == first.compiled
    assert compiler.load_program(SMALL, "sm_80", tmp_path).found
    assert sorted(one.suffix for one in tmp_path.iterdir()) == [".cubin", ".json"]


@needs_compiler
def test_without_a_folder_it_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(compiler.VARIABLE, str(tmp_path / "file"))
    program = compiler.load_program(SMALL, "sm_80")
    assert (program.found, program.path) == (False, None)
    program.mark_checked()
    assert program.checked


def test_the_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert compiler.private_folder(str(tmp_path / "own")) == tmp_path / "own" / "cuda"
    assert (tmp_path / "own" / "cuda").stat().st_mode & 0o777 == 0o700
    everyones = tmp_path / "everyones"
    everyones.mkdir()
    everyones.chmod(0o777)
    assert compiler.private_folder(str(everyones)) is None
    assert "others may write into it" in caplog.text


def test_without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    for problem in (compiler.missing_compiler(), gpu.missing_gpu()):
        assert problem is not None
        assert "pip install 'rnnfarm-cupy[cuda13]'" in problem
    with pytest.raises(DeviceError, match="CuPy is not installed"):
        compiler.compile_cubin(SMALL, "sm_80")
    with pytest.raises(DeviceError, match="CuPy is not installed"):
        gpu.CuPyRuntime()


class FakeError(RuntimeError):
    """Stands for an error of CUDA."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def pretend(
    monkeypatch: pytest.MonkeyPatch,
    devices: int | FakeError = 1,
    driver: int = 13000,
    nvrtc: Exception | None = None,
    cublas: bool = True,
    major: int = 9,
) -> None:
    """Make CuPy one that finds so much."""

    def count() -> int:
        if isinstance(devices, FakeError):
            raise devices
        return devices

    def version() -> tuple[int, int]:
        if nvrtc is not None:
            raise nvrtc
        return 13, 5

    cuda = SimpleNamespace(
        runtime=SimpleNamespace(
            CUDARuntimeError=FakeError,
            getDeviceCount=count,
            deviceGetAttribute=lambda attribute, device: major,
            driverGetVersion=lambda: driver,
            runtimeGetVersion=lambda: 13020,
        ),
        nvrtc=SimpleNamespace(getVersion=version),
    )
    if cublas:
        cuda.cublas = SimpleNamespace()
    modules = {"cupy": SimpleNamespace(cuda=cuda), "cupy.cuda": cuda}

    def lacking() -> Any:
        raise ImportError('FakeError finding "libcublasLt.so.13"')

    monkeypatch.setattr(importlib, "import_module", modules.__getitem__)
    if not cublas:
        monkeypatch.setattr(gpu, "_cublas", lacking)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"devices": FakeError("old", 35), "driver": 0}, "there is no NVIDIA driver"),
        ({"devices": FakeError("old", 35), "driver": 12040}, r"serves CUDA 12\.4.*13\.2.*cuda12"),
        ({"devices": FakeError("old", 35), "driver": 11080}, r"serves CUDA 11\.8.*newer driver$"),
        ({"devices": FakeError("none", 100)}, "finds no GPU"),
        ({"devices": 0}, "finds no GPU"),
        ({"major": 7}, r"compute capability is 7\.x"),
        ({"devices": FakeError("cudaErrorUnknown: unknown", 999)}, "unknown.*nvidia-smi"),
        ({"nvrtc": RuntimeError("no libnvrtc\nat all")}, r"NVRTC.*\(no libnvrtc\).*cuda13"),
        ({"cublas": False}, r"cuBLAS.*libcublasLt.*cuda13"),
    ],
)
def test_why_there_is_no_gpu(
    given: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    pretend(monkeypatch, **given)
    problem = gpu.missing_gpu()
    assert problem is not None
    assert "\n" not in problem
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(problem)


def test_a_gpu_that_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    pretend(monkeypatch, devices=FakeError("none", 100))
    assert gpu.missing_gpu() == "no NVIDIA GPU is visible; CUDA_VISIBLE_DEVICES is ''"


def test_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    assert gpu.missing_gpu() is None


class Lying:
    """Stands for CuPy's array, in the host's memory."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array, self.dtype = array, array.dtype
        self.data = SimpleNamespace(ptr=array.ctypes.data)


def stand_in() -> Any:
    """A runtime without a GPU, which can start and multiply as far as its fakes can."""
    runtime = object.__new__(gpu.CuPyRuntime)
    runtime.name, runtime.errors, runtime._ndarray = "none", (FakeError,), Lying
    runtime._threads, runtime._lock, runtime._stream = {threading.get_ident()}, threading.Lock(), 5
    runtime._failures = (DeviceError, FakeError)
    runtime._handle, runtime._cannot_record = 9, False
    runtime._figures, runtime._measuring = None, threading.Lock()
    runtime._scalars = {4: np.array([1, 0], np.float32), 8: np.array([1, 0], np.float64)}
    runtime.stream = contextlib.nullcontext()
    runtime.cuda = SimpleNamespace(memory=SimpleNamespace(OutOfMemoryError=MemoryError))
    return runtime


def test_arguments_are_handed_over_as_c_sees_them() -> None:
    started: list[tuple[Any, ...]] = []
    runtime = stand_in()

    def start(*values: Any) -> None:
        addresses = (ctypes.c_void_p * 6).from_address(values[9])
        kinds = (ctypes.c_void_p, ctypes.c_int, ctypes.c_double, ctypes.c_void_p)
        kinds = (*kinds, ctypes.c_int, ctypes.c_double)
        read = [kind.from_address(at).value for kind, at in zip(kinds, addresses, strict=True)]
        started.append((*values[:9], *read))

    runtime._start = start
    function = gpu.Function(77, "kernel", None)
    array = Lying(np.zeros(3))
    for last in (7, np.int64(7), True):
        arguments = [array, -3, 0.1, None, last, np.float64(2)]
        runtime.launch(Launch(function, (2, 3), 64, 16, arguments))
        expected = [array.data.ptr, -3, 0.1, None, int(last), 2.0]
        assert started.pop() == (77, 2, 3, 1, 64, 1, 1, 16, 5, *expected)
    with pytest.raises(ValueError, match="format 'i'"):
        runtime.launch(Launch(function, (1, 1), 1, 0, [2**31]))
    with pytest.raises(TypeError, match="argument 0 of kernel is a str"):
        runtime.launch(Launch(function, (1, 1), 1, 0, ["a"]))

    def fail(*_: Any) -> None:
        raise FakeError("CUDA_ERROR_INVALID_VALUE: invalid argument", 1)

    runtime._start = fail
    with pytest.raises(DeviceError, match=r"kernel \(2 x 3 blocks of 64 threads, 16 bytes"):
        runtime.launch(Launch(function, (2, 3), 64, 16, []))


class Driver:
    """Stands for CuPy's driver: notes what it is asked for, in the order in which it is."""

    def __init__(self, resident: int = 2, refuses: str = "") -> None:
        self.resident, self.refuses = resident, refuses
        self.asked: list[tuple[Any, ...]] = []

    def _note(self, name: str, *values: Any) -> None:
        self.asked.append((name, *values))
        if name == self.refuses:
            raise FakeError("CUDA_ERROR_INVALID_VALUE: invalid argument", 1)

    def launchKernel(self, *values: Any) -> None:
        self._note("launch", *values)

    def launchCooperativeKernel(self, *values: Any) -> None:
        self._note("together", *values)

    def funcSetAttribute(self, *values: Any) -> None:
        self._note("set", *values)

    def occupancyMaxActiveBlocksPerMultiprocessor(self, *values: Any) -> int:
        self._note("occupancy", *values)
        return self.resident


def driven(**given: Any) -> tuple[Any, Driver]:
    """A runtime of three multiprocessors, and its driver."""
    runtime, driver = stand_in(), Driver(**given)
    runtime.multiprocessors, runtime.cuda.driver = 3, driver
    runtime._start, runtime._start_together = driver.launchKernel, driver.launchCooperativeKernel
    return runtime, driver


def test_blocks_that_wait_for_each_other() -> None:
    runtime, driver = driven()
    function = gpu.Function(77, "kernel", None)
    launch = Launch(function, (3, 2), 64, 16, [1], together=True)
    started = ("together", 77, 3, 2, 1, 64, 1, 1, 16, 5, function.addresses)
    runtime.launch(launch)
    assert driver.asked == [("occupancy", 77, 64, 16), started]
    runtime.launch(launch)
    assert driver.asked[2:] == [started]
    too_many = Launch(function, (7, 1), 64, 16, [1], together=True)
    with pytest.raises(DeviceError, match=r"7 blocks.*kernel.*forever: none runs 6 of them"):
        runtime.launch(too_many)
    assert len(driver.asked) == 3
    runtime.launch(Launch(function, (7, 1), 64, 16, [1]))
    assert driver.asked[3:] == [("launch", *started[1:2], 7, 1, *started[4:], 0)]
    # Another block of the same kernel is another question.
    assert runtime.resident(function, 128, 16) == 6
    assert driver.asked[4:] == [("occupancy", 77, 128, 16)]


def test_what_cuda_refuses_of_a_persistent_kernel() -> None:
    function = gpu.Function(77, "kernel", None)
    launch = Launch(function, (3, 2), 64, 16, [], together=True)
    runtime, _ = driven(refuses="together")
    with pytest.raises(DeviceError, match=r"kernel \(3 x 2 blocks of 64 threads, 16 bytes"):
        runtime.launch(launch)
    runtime, _ = driven(refuses="occupancy")
    function.resident.clear()
    with pytest.raises(DeviceError, match="none failed"):
        runtime.launch(launch)
    assert not function.resident
    runtime, _ = driven(refuses="set")
    with pytest.raises(DeviceError, match=r"kernel cannot have clusters of 16 blocks on none"):
        runtime.launch(Launch(function, (16, 1), 64, 16, [], cluster=16))
    assert not function.large_clusters


def test_large_clusters_are_allowed_once() -> None:
    runtime, driver = driven()
    function = gpu.Function(77, "kernel", None)
    for cluster in (8, 16, 16):
        runtime.launch(Launch(function, (16, 1), 64, 0, [], cluster=cluster))
    kinds = [asked[0] for asked in driver.asked]
    assert kinds == ["launch", "set", "launch", "launch"]
    assert driver.asked[1] == ("set", 77, 14, 1)


def figured(capability: str, **more: int) -> Any:
    """A runtime whose device has these attributes, and whose barriers last 2 and 1 seconds."""
    runtime, _ = driven()
    runtime.shared_limit = 1000
    attributes = {"ClockRate": 1_410_000, "MaxRegistersPerMultiprocessor": 65_536, **more}
    runtime._device = SimpleNamespace(attributes=attributes, compute_capability=capability)
    programs: list[str] = []
    program = SimpleNamespace(function=lambda name, shared=0: gpu.Function(1, name, None))
    runtime.load = lambda source: programs.append(source) or program
    runtime.empty = lambda shape, dtype: Lying(np.ones(shape, dtype))
    runtime.clear = lambda target: target.array.fill(0)

    def elapsed(work: Any) -> float:
        work()
        return 2000.0 if work.args[0].together else 1000.0

    runtime.elapsed, runtime.programs = elapsed, programs
    return runtime


def test_figures_are_the_devices() -> None:
    more = {"MemoryClockRate": 1_215_000, "GlobalMemoryBusWidth": 5120}
    runtime = figured("80", **more)
    found = runtime.figures()
    assert (found.name, found.capability, found.multiprocessors) == ("none", 80, 3)
    assert (found.registers, found.shared, found.clock) == (65_536, 1000, 1.41e9)
    assert found.memory == pytest.approx(1.555e12, rel=1e-3)
    assert (found.barrier, found.cluster_barrier, found.cluster_most) == (2.0, None, 0)
    assert runtime.figures() is found
    assert len(runtime.programs) == 1
    found = figured("90").figures()
    assert (found.barrier, found.cluster_barrier, found.cluster_most) == (2.0, 1.0, 16)
    assert found.memory == gpu.UNKNOWN_MEMORY


def test_barriers_that_cannot_be_measured(caplog: pytest.LogCaptureFixture) -> None:
    runtime = figured("90")

    def fail(source: str) -> None:
        raise DeviceError("it cannot be compiled")

    runtime.load = fail
    found = runtime.figures()
    assert (found.barrier, found.cluster_barrier) == (1e-6, 0.25e-6)
    assert runtime.figures() is found
    assert ["(it cannot be compiled)" in record.message for record in caplog.records] == [True]


def test_figures_by_capability() -> None:
    def of(name: str, capability: int) -> figures.Figures:
        return figures.figures_of(
            name, capability, multiprocessors=10, shared=1, clock=1e9, memory=1e12
        )

    assert of("A40", 86).rates == {"full": 128, "tf32": 256, "bf16": 512, "float64": 2}
    assert of("NVIDIA GeForce RTX 3090", 86).rates["tf32"] == 128
    assert of("Orin", 87).rates == of("A40", 86).rates
    assert of("B300", 103).cluster_most == 16
    assert of("later", 200).cluster_most == 8
    assert of("earlier", 75).cluster_most == 0
    assert figures.H200.rates["bf16"] == pytest.approx(0.62 * 2048, rel=1e-3)
    assert figures.H200.cache == pytest.approx(5.5e12, rel=0.01)
    assert figures.A100.cache == pytest.approx(4.0e12, rel=0.02)
    measured = figures.A100.with_measured(1.0, None)
    assert (measured.barrier, measured.clock) == (1.0, figures.A100.clock)
    assert len({figures.A100, figures.H100, figures.H200, measured}) == 4
    host = HostRuntime().figures()
    assert (host.multiprocessors, host.barrier, host.cluster_barrier) == (4, 1.0, 1.0)


def gemm(handle: int, turn_a: int, turn_b: int, m: int, n: int, k: int, *rest: Any) -> None:
    """What cublasGemmEx does with matrices that lie by columns, in full precision."""
    alpha, a, kind, a_stride, b, _, b_stride, beta, c, _, c_stride, compute, algorithm = rest
    number: Any = {0: ctypes.c_float, 1: ctypes.c_double}[kind]
    assert (handle, algorithm) == (9, -1)
    assert compute == {0: 68, 1: 70}[kind]
    size = ctypes.sizeof(number)

    def at(start: int, row: int, column: int, stride: int) -> Any:
        return number.from_address(start + (row + column * stride) * size)

    scale, keep = (number.from_address(one).value for one in (alpha, beta))
    for i in range(m):
        for j in range(n):
            total = 0.0
            for x in range(k):
                left = at(a, *((x, i) if turn_a else (i, x)), a_stride).value
                right = at(b, *((j, x) if turn_b else (x, j)), b_stride).value
                total += left * right
            target = at(c, i, j, c_stride)
            # As BLAS: what is not kept is not read, and may be NaN.
            target.value = scale * total + (keep * target.value if keep else 0.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("add", [False, True])
def test_products_change_places_for_cublas(
    dtype: Any, turned: tuple[bool, bool], add: bool
) -> None:
    runtime = stand_in()
    runtime._blas = SimpleNamespace(gemmEx=gemm)
    check_product(runtime, Lying, lambda one: one.array, dtype, "full", turned, add, 1e-6)


def check_product(
    runtime: Any,
    put: Any,
    get: Any,
    dtype: Any,
    precision: str,
    turned: tuple[bool, bool],
    add: bool,
    near: float,
    shape: tuple[int, int, int] = (3, 4, 5),
) -> None:
    """A product of matrices within larger arrays, against NumPy's."""
    rows, inner, columns = shape
    random = np.random.default_rng(1)
    operands, matrices = [], []
    for size, over in zip(((rows, inner), (inner, columns)), turned, strict=True):
        lies = size[::-1] if over else size
        whole = random.standard_normal((lies[0] + 1, lies[1] + 3)).astype(dtype)
        part = whole[1:, 2:-1]
        operands.append((part.T if over else part).astype(np.float64))
        stride = whole.shape[1]
        matrices.append(Matrix(put(whole), *lies, stride, stride + 2, over))
    before = np.full((rows + 1, columns + 2), 0.5 if add else np.nan, dtype)
    target = put(before)
    out = Matrix(target, rows, columns, columns + 2, 1)
    runtime.product(*matrices, out, precision, add)
    after = get(target)
    expected = operands[0] @ operands[1] + (0.5 if add else 0)
    scale = np.abs(operands[0]) @ np.abs(operands[1]) + 1
    assert np.max(np.abs(after[:-1, 1:-1] - expected) / scale) < near
    untouched = np.ones(after.shape, bool)
    untouched[:-1, 1:-1] = False
    np.testing.assert_array_equal(after[untouched], np.full(untouched.sum(), before[0, 0]))


class Stream:
    """Stands for a stream: counts captures, and may refuse them."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses, self.capturing = refuses, False

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def begin_capture(self) -> None:
        if self.refuses == "begin":
            raise FakeError("cudaErrorStreamCaptureUnsupported: no", 900)
        self.capturing = True

    def end_capture(self) -> Any:
        self.capturing = False
        if self.refuses == "end":
            raise FakeError("cudaErrorStreamCaptureInvalidated: no", 901)
        return SimpleNamespace(launch=lambda stream: None)


def test_a_recording_is_not_the_work(caplog: pytest.LogCaptureFixture) -> None:
    runtime, called = stand_in(), []
    runtime.stream = Stream()
    start = runtime.recorded(lambda: called.append(runtime.stream.capturing))
    start()
    start()
    assert called == [True]
    assert not caplog.records


@pytest.mark.parametrize("refuses", ["begin", "end", "work"])
def test_where_nothing_can_be_recorded(refuses: str, caplog: pytest.LogCaptureFixture) -> None:
    runtime, called = stand_in(), []
    runtime.stream = Stream(refuses)

    def work() -> None:
        if refuses == "work" and runtime.stream.capturing:
            raise DeviceError("not in a recording")
        called.append(runtime.stream.capturing)

    for _ in range(2):
        runtime.recorded(work)()
    assert not runtime.stream.capturing
    assert called.count(False) == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@needs_compiler
def test_the_rounding_kernel_compiles() -> None:
    kernels = compiler.compile_cubin(gpu.BF16, "sm_80").kernels
    assert [kernel.name for kernel in kernels] == ["rnnfarm_round_bf16"]


@needs_compiler
@pytest.mark.parametrize(
    ("arch", "names"),
    [
        ("sm_80", {"rnn_barriers"}),
        ("sm_90", {"rnn_barriers", "rnn_cluster_barriers"}),
    ],
)
def test_the_barriers_compile(arch: str, names: set[str]) -> None:
    kernels = compiler.compile_cubin(figures.BARRIERS, arch).kernels
    assert {kernel.name for kernel in kernels} == names
    assert all(kernel.spill_bytes == 0 for kernel in kernels)


@pytest.fixture(scope="module")
def real() -> gpu.CuPyRuntime:
    if NO_GPU is not None:
        pytest.skip(NO_GPU)
    return gpu.CuPyRuntime()


@pytest.mark.gpu
class TestGPU:
    """Each of CuPy's calls, where there is a GPU."""

    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8, np.bool_])
    @pytest.mark.parametrize("shape", [(), (0, 3), (7,), (300, 5, 70)])
    def test_arrays_come_back(
        self, real: gpu.CuPyRuntime, dtype: Any, shape: tuple[int, ...]
    ) -> None:
        array = np.asarray(np.random.default_rng(0).integers(0, 2, shape)).astype(dtype)
        there = real.put(array)
        assert real.is_mine(there)
        assert not real.is_mine(array)
        for back in (real.get(there), real.late(there)()):
            assert (back.shape, back.dtype) == (array.shape, array.dtype)
            np.testing.assert_array_equal(back, array)
        other = real.empty(shape, dtype)
        real.copy(other, there)
        np.testing.assert_array_equal(real.get(other), array)
        real.clear(other)
        assert not real.get(other).any()

    def test_what_was_put_may_change_at_once(self, real: gpu.CuPyRuntime) -> None:
        array = np.ones(5_000_000, np.float32)
        there = real.put(array)
        array[:] = 2
        assert (real.get(there) == 1).all()

    def test_a_part_that_is_not_contiguous(self, real: gpu.CuPyRuntime) -> None:
        array = np.arange(24.0).reshape(4, 6)
        part = real.put(array)[1:, 2:4]
        np.testing.assert_array_equal(real.get(part), array[1:, 2:4])
        np.testing.assert_array_equal(real.late(part)(), array[1:, 2:4])

    def test_too_much_memory(self, real: gpu.CuPyRuntime) -> None:
        with pytest.raises(DeviceError, match=r"MiB were asked for.*free.*training\.batch"):
            real.empty((1 << 44,), np.float32)
        assert real.get(real.put(np.ones(3))).sum() == 3

    def test_a_kernel_with_all_kinds_of_arguments(self, real: gpu.CuPyRuntime) -> None:
        program = real.load(SMALL)
        assert real.load(SMALL) is program
        function = program.function("add")
        given = np.arange(100, dtype=np.float32)
        out = real.put(np.zeros(100, np.float32))
        real.launch(Launch(function, (2, 1), 64, 0, [real.put(given), out, 90, 0.5]))
        real.launch(Launch(function, (2, 1), 64, 0, [None, out, 90, 2.0]))
        expected = np.where(np.arange(100) < 90, given / 2 + 2, 0)
        np.testing.assert_array_equal(real.get(out), expected)

    def test_much_shared_memory(self, real: gpu.CuPyRuntime) -> None:
        size = real.shared_limit
        assert size > gpu.USUAL_SHARED
        program, out = real.load(SMALL), real.empty((1,), np.float32)
        function = program.function("wide", size)
        real.launch(Launch(function, (1, 1), 256, size, [out, size // 4]))
        assert real.get(out)[0] == size // 4 - 1
        with pytest.raises(DeviceError, match="bytes of shared memory"):
            program.function("wide", size + 1)
        with pytest.raises(DeviceError, match="cannot start the kernel wide"):
            real.launch(Launch(function, (1, 1), 2048, 0, [out, 1]))
        with pytest.raises(DeviceError, match="absent"):
            program.function("absent")

    @pytest.mark.parametrize(
        ("dtype", "precision", "near"),
        [
            (np.float32, "full", 1e-6),
            (np.float32, "tf32", 2e-3),
            (np.float32, "bf16", 1e-2),
            (np.float64, "full", 1e-14),
            (np.float64, "bf16", 1e-14),
        ],
    )
    @pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
    @pytest.mark.parametrize("add", [False, True])
    @pytest.mark.parametrize("shape", [(3, 4, 5), (1, 1, 1), (65, 200, 129), (256, 512, 128)])
    def test_products(
        self,
        real: gpu.CuPyRuntime,
        dtype: Any,
        precision: str,
        near: float,
        turned: tuple[bool, bool],
        add: bool,
        shape: tuple[int, int, int],
    ) -> None:
        check_product(real, real.put, real.get, dtype, precision, turned, add, near, shape)

    def test_precisions_differ(self, real: gpu.CuPyRuntime) -> None:
        random = np.random.default_rng(3)
        a, b = (random.standard_normal((256, 256)).astype(np.float32) for _ in range(2))
        exact = a.astype(np.float64) @ b
        errors = {}
        for precision in ("full", "tf32", "bf16"):
            out = real.empty((256, 256), np.float32)
            left, right, target = (
                Matrix(one, 256, 256, 256) for one in (real.put(a), real.put(b), out)
            )
            real.product(left, right, target, precision)
            first = real.get(out)
            real.product(left, right, target, precision)
            np.testing.assert_array_equal(first, real.get(out))
            errors[precision] = float(np.abs(first - exact).max())
        assert errors["full"] * 20 < errors["tf32"] < errors["bf16"]

    def test_rounding(self, real: gpu.CuPyRuntime) -> None:
        bits = np.random.default_rng(4).integers(0, 2**32, 4096, dtype=np.uint32)
        bits[:6] = [0x3F808000, 0x3F818000, 0x7F7FFFFF, 0x7F800000, 0xFF800001, 0x80000000]
        there = real.put(bits.view(np.float32))
        address, width = real._rounded(Matrix(there, 64, 61, 64), "a")
        assert (address % 16, width) == (0, 64)
        back = real.get(real._scratch["a"])[: 64 * 64].reshape(64, 64)[:, :61]
        part = bits.reshape(64, 64)[:, :61].astype(np.uint64)
        nearest = (part + 0x7FFF + (part >> 16 & 1)) >> 16
        nan = (part & 0x7FFFFFFF) > 0x7F800000
        np.testing.assert_array_equal(back[~nan], nearest[~nan])
        assert np.isnan((back[nan].astype(np.uint32) << 16).view(np.float32)).all()

    def test_a_recording_runs_again(
        self, real: gpu.CuPyRuntime, caplog: pytest.LogCaptureFixture
    ) -> None:
        function = real.load(SMALL).function("add")
        ones, total, cleared = (real.put(np.ones(64, np.float32)) for _ in range(3))

        def work() -> None:
            real.clear(cleared)
            for _ in range(3):
                real.launch(Launch(function, (1, 1), 64, 0, [ones, total, 64, 1.0]))
            real.launch(Launch(function, (1, 1), 64, 0, [total, cleared, 64, 1.0]))

        start = real.recorded(work)
        assert not caplog.records
        real.clear(total)
        for times in range(1, 4):
            start()
            assert (real.get(total) == 3 * times).all()
            assert (real.get(cleared) == 3 * times).all()

    def test_late_is_of_when_it_was_asked(self, real: gpu.CuPyRuntime) -> None:
        array = real.put(np.full(1000, 4.0))
        result = real.late(array)
        real.late(array)  # nobody waits for this one
        real.clear(array)
        first = result()
        real.put(np.zeros(1000))
        np.testing.assert_array_equal(first, np.full(1000, 4.0))

    def test_another_thread(self, real: gpu.CuPyRuntime) -> None:
        function = real.load(SMALL).function("add")
        out, found = real.put(np.zeros(64, np.float32)), []

        def work() -> None:
            real.launch(Launch(function, (1, 1), 64, 0, [None, out, 64, 3.0]))
            found.append(real.get(out))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert (found[0] == 3).all()

    def test_figures_and_barriers(
        self, real: gpu.CuPyRuntime, caplog: pytest.LogCaptureFixture
    ) -> None:
        found = real.figures()
        print(found)
        assert not caplog.records
        assert real.arch == f"sm_{found.capability}"
        assert 1e8 < found.clock < 1e10
        assert 1e10 < found.memory < 1e14
        assert 1e-7 < found.barrier < 1e-4
        if found.cluster_most:
            assert found.cluster_barrier is not None
            assert 1e-8 < found.cluster_barrier < found.barrier

    def test_a_grid_that_is_too_large_to_wait(self, real: gpu.CuPyRuntime) -> None:
        function = real.load(figures.BARRIERS).function("rnn_barriers")
        counter = real.put(np.zeros(1, np.uint32))
        most = real.resident(function, 256, 0)
        assert most >= real.multiprocessors
        real.launch(Launch(function, (most, 1), 256, 0, [3, counter], together=True))
        assert real.get(counter)[0] == 3 * most
        with pytest.raises(DeviceError, match="forever"):
            real.launch(Launch(function, (most + 1, 1), 256, 0, [3, counter], together=True))

    def test_time_and_name(self, real: gpu.CuPyRuntime) -> None:
        array = real.empty((1 << 26,), np.float32)

        def work() -> None:
            for _ in range(10):
                real.clear(array)

        seconds = real.elapsed(work)
        assert 1e-5 < seconds < 10
        real.synchronize()
        assert real.name.endswith(f"({real.arch})")
        assert real.multiprocessors > 0
