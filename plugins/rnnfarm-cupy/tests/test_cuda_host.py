"""The CPU's stand-in for a GPU: that it runs blocks as a GPU does, and finds what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rnnfarm_cupy.host import HostRuntime, find_compiler
from rnnfarm_cupy.runtime import Launch
from rnnfarm_cupy.source import header

from rnnfarm.errors import DeviceError

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")


def run(body: str, threads: int = 64, shared: int = 1024, backwards: bool = False) -> Any:
    """A kernel ``(float *out)`` of one block, and what it writes."""
    runtime = HostRuntime(backwards)
    text = f'extern "C" __global__ void k(float *out) {{ RNN_SHARED; {body} }}'
    function = runtime.load(header("float32", "tf32") + text).function("k")
    out = runtime.put(np.zeros(threads, np.float32))
    runtime.launch(Launch(function, (1, 1), threads, shared, [out]))
    return runtime.get(out)


TURN = """
    float *const s = (float *)rnn_shared;
    s[threadIdx.x] = threadIdx.x;
    {barrier}
    out[threadIdx.x] = s[blockDim.x - 1 - threadIdx.x];
"""


def test_a_barrier() -> None:
    expected = np.arange(64, dtype=np.float32)[::-1]
    for backwards in (False, True):
        found = run(TURN.format(barrier="__syncthreads();"), backwards=backwards)
        np.testing.assert_array_equal(found, expected)


def test_a_barrier_that_is_missing() -> None:
    """Whatever the order, some thread reads what is not written yet."""
    for backwards in (False, True):
        assert np.isnan(run(TURN.format(barrier=""), backwards=backwards)).any()


def test_a_barrier_that_not_all_reach() -> None:
    with pytest.raises(AssertionError, match="wait at different barriers"):
        run("if (threadIdx.x < 5) __syncthreads();")


def test_shared_memory_that_is_too_small() -> None:
    with pytest.raises(AssertionError, match="shared memory ends too soon"):
        run("((float *)rnn_shared)[threadIdx.x] = 0;", shared=128)


def test_a_copy_arrives_when_it_is_waited_for() -> None:
    body = """
        float *const s = (float *)rnn_shared;
        for (int k = 0; k < 4; ++k) out[threadIdx.x] = 7;
        __syncthreads();
        if (threadIdx.x < 16) rnn_copy_async(s + 4 * threadIdx.x, out + 4 * threadIdx.x);
        rnn_copies_end();
        {wait}
        __syncthreads();
        const float got = s[threadIdx.x];
        __syncthreads();
        out[threadIdx.x] = got;
        rnn_copies_wait<0>();
    """
    assert (run(body.replace("{wait}", "rnn_copies_wait<0>();")) == 7).all()
    assert np.isnan(run(body.replace("{wait}", ""))).all()


def test_a_matrix_instruction() -> None:
    """16 x 8 times 8 x 8, each lane with the numbers that the instruction takes from it."""
    body = """
        const int lane = threadIdx.x;
        if (lane >= 32) return;
        unsigned a[4], b[2];
        for (int i = 0; i < 4; ++i) {
            const int row = lane / 4 + i % 2 * 8, word = lane % 4 + i / 2 * 4;
            a[i] = rnn_to_tf32(row + 10 * word);
        }
        for (int i = 0; i < 2; ++i) b[i] = rnn_to_tf32((lane % 4 + 4 * i) - (float)(lane / 4));
        float d[4] = {1, 1, 1, 1};
        rnn_mma(d, a, b);
        out[lane] = d[0], out[lane + 32] = d[3];
    """
    found = run(body)
    rows, words, columns = np.arange(16.0), np.arange(8.0), np.arange(8.0)
    a, b = rows[:, None] + 10 * words, words[:, None] - columns
    product = a @ b + 1
    lanes = np.arange(32)
    np.testing.assert_array_equal(found[:32], product[lanes // 4, lanes % 4 * 2])
    np.testing.assert_array_equal(found[32:], product[lanes // 4 + 8, lanes % 4 * 2 + 1])


def test_text_that_does_not_compile() -> None:
    with pytest.raises(DeviceError, match="cannot compile a kernel"):
        run("nonsense;")


# -- blocks that run at the same time ---------------------------------------------------------

#: Numbers go around a ring of blocks, one block a phase: through memory, and in clusters of 4
#: through shared memory. Then what is wrong.
BLOCKS = r"""
extern "C" __global__ void ring(float *out, unsigned *count, int blocks, int phases) {
    const int next = (blockIdx.x + 1) % gridDim.x;
    out[blockIdx.x * blockDim.x + threadIdx.x] = blockIdx.x;
    for (int p = 0; p <= phases; ++p) {
        __syncthreads();
        if (threadIdx.x == 0) {
            rnn_signal(count);
            while (rnn_observe(count) < blocks * (p + 1)) rnn_pause();
        }
        __syncthreads();
        float *const from = out + p % 2 * gridDim.x * blockDim.x;
        float *const to = out + (p + 1) % 2 * gridDim.x * blockDim.x;
        if (p < phases)
            to[blockIdx.x * blockDim.x + threadIdx.x] = from[next * blockDim.x + threadIdx.x];
    }
}
extern "C" __global__ void __launch_bounds__(64) __cluster_dims__(4, 1, 1)
shared_ring(float *out, int phases, int barriers) {
    RNN_SHARED;
    float *const s = (float *)rnn_shared + threadIdx.x;
    const int rank = blockIdx.x % 4, n = blockDim.x;
    const long block = blockIdx.y * gridDim.x + blockIdx.x;
    s[0] = block;
    for (int p = 0; p <= phases; ++p) {
        if (barriers) rnn_cluster_arrive();
        if (rank == 2) __syncthreads();
        if (barriers) rnn_cluster_wait();
        if (p < phases) s[(p + 1) % 2 * n] = *rnn_of_peer(s + p % 2 * n, (rank + 1) % 4);
    }
    out[block * n + threadIdx.x] = s[phases % 2 * n];
}
extern "C" __global__ void wrong(float *out, int what) {
    RNN_SHARED;
    const int rank = blockIdx.x % 2;
    if (what == 0) rnn_cluster_wait();
    if (what == 1) rnn_cluster_arrive(), rnn_cluster_arrive();
    if (what == 2) rnn_cluster_arrive();
    if (what == 3 && rank) rnn_cluster_arrive(), rnn_cluster_wait();
    if (what == 4) rnn_of_peer(rnn_shared, 2);
    if (what == 5) rnn_of_peer(out, 0);
    if (what == 6 && blockIdx.x == 2) rnn_shared[1024] = 0;
    if (what == 7 && rank && threadIdx.x) __syncthreads();
    if (what == 8) for (;;) rnn_pause();
    if (what == 9) for (;;) __syncthreads(), rnn_pause();
}
extern "C" __global__ void leaves(float *out, int writes) {
    RNN_SHARED;
    float *const s = (float *)rnn_shared;
    s[threadIdx.x] = 1;
    rnn_cluster_arrive();
    rnn_cluster_wait();
    if (blockIdx.x == 1) return;
    if (writes) rnn_pause(), *rnn_of_peer(s + threadIdx.x, 1) = 1;
    else out[threadIdx.x] = *rnn_of_peer(s + threadIdx.x, 1);
}
extern "C" __global__ void copies(const float *in, float *out, unsigned *count) {
    RNN_SHARED;
    float *const s = (float *)rnn_shared;
    const float *const mine = in + (blockIdx.x * blockDim.x + threadIdx.x) * 4;
    rnn_copy_async(s + 4 * threadIdx.x, mine);
    rnn_copies_end();
    rnn_signal(count);
    while (rnn_observe(count) < gridDim.x * blockDim.x) rnn_pause();
    rnn_copies_wait<0>();
    rnn_load16(s + 4 * threadIdx.x, out + (mine - in));
}
"""
ORDERS = pytest.mark.parametrize("backwards", [False, True])


def launch(
    runtime: HostRuntime, name: str, grid: tuple[int, int], arguments: list[Any], **more: Any
) -> None:
    """A kernel of the program above, with 64 threads and 1 KB of shared memory."""
    function = runtime.load(header("float32", "tf32") + BLOCKS).function(name)
    runtime.launch(Launch(function, grid, 64, 1024, arguments, **more))


def zeros(runtime: HostRuntime, size: int, dtype: Any = np.float32) -> Any:
    return runtime.put(np.zeros(size, dtype))


@ORDERS
def test_blocks_that_wait_for_each_other(backwards: bool) -> None:
    runtime = HostRuntime(backwards)
    for blocks in (1, 6, 64, 3):
        out, count = zeros(runtime, 2 * blocks * 64), zeros(runtime, 1, np.uint32)
        launch(runtime, "ring", (blocks, 1), [out, count, blocks, 4], together=True)
        found = runtime.get(out).reshape(2, blocks, 64)[0]
        assert (found == np.roll(np.arange(blocks), -4)[:, None]).all()


def test_blocks_that_wait_for_one_that_is_not_there() -> None:
    for more in ({"together": True}, {}):  # one block after the other cannot wait either
        runtime = HostRuntime()
        out, count = zeros(runtime, 256 + 256), zeros(runtime, 1, np.uint32)
        blocks = 5 if more else 4
        with pytest.raises(AssertionError, match="ring: blocks wait for each other forever"):
            launch(runtime, "ring", (4, 1), [out, count, blocks, 1], **more)


def test_more_blocks_than_can_run_at_once() -> None:
    runtime = HostRuntime(most_blocks=5)
    out, count = zeros(runtime, 12 * 64), zeros(runtime, 1, np.uint32)
    with pytest.raises(DeviceError, match="ring has 6 blocks and only 5 of them can run at once"):
        launch(runtime, "ring", (3, 2), [out, count, 6, 1], together=True)
    launch(runtime, "ring", (5, 1), [out, count, 5, 1], together=True)


@ORDERS
@pytest.mark.parametrize("together", [False, True])
def test_a_cluster_reads_its_shared_memory(backwards: bool, together: bool) -> None:
    runtime = HostRuntime(backwards)
    out = zeros(runtime, 16 * 64)
    for phases in (1, 7):
        launch(runtime, "shared_ring", (8, 2), [out, phases, 1], cluster=4, together=together)
        found = runtime.get(out).reshape(4, 4, 64)
        expected = np.roll(np.arange(16.0).reshape(4, 4), -phases, axis=1)
        assert (found == expected[:, :, None]).all()


@ORDERS
def test_a_cluster_barrier_that_is_missing(backwards: bool) -> None:
    """Whatever the order, some block reads what is not written yet."""
    runtime = HostRuntime(backwards)
    out = zeros(runtime, 4 * 64)
    launch(runtime, "shared_ring", (4, 1), [out, 3, 0], cluster=4)
    assert np.isnan(runtime.get(out)).any()


@ORDERS
@pytest.mark.parametrize(
    ("what", "fault"),
    [
        (0, "waits at a cluster barrier and has not arrived"),
        (1, "arrives twice at a cluster barrier"),
        (2, "ends between the halves of a cluster barrier"),
        (3, "not all threads of a cluster reach a cluster barrier"),
        (4, "a cluster has no block of this rank"),
        (5, "a peer is asked for what is not shared"),
        (6, "shared memory ends too soon"),
        (7, "threads of a block wait at different barriers"),
        (8, "blocks wait for each other forever"),
        (9, "blocks wait for each other forever"),
    ],
)
def test_what_blocks_do_wrong(backwards: bool, what: int, fault: str) -> None:
    """A fault is told, and the next launch is none the worse for it."""
    runtime = HostRuntime(backwards)
    out = zeros(runtime, 64)
    for together in (False, True):
        with pytest.raises(AssertionError, match=f"wrong: .*{fault}"):
            launch(runtime, "wrong", (4, 1), [out, what], cluster=2, together=together)
        launch(runtime, "wrong", (4, 1), [out, -1], cluster=2, together=together)


def test_a_grid_that_is_no_whole_clusters() -> None:
    runtime = HostRuntime()
    with pytest.raises(AssertionError, match="no whole clusters"):
        launch(runtime, "wrong", (3, 2), [zeros(runtime, 64), -1], cluster=2)


def test_a_peer_that_has_ended() -> None:
    """Its shared memory is gone: reading finds NaN in one order, and writing is a fault."""
    gone = []
    for backwards in (False, True):
        runtime = HostRuntime(backwards)
        out = zeros(runtime, 64)
        launch(runtime, "leaves", (2, 1), [out, 0], cluster=2)
        gone.append(np.isnan(runtime.get(out)).all())
        with pytest.raises(AssertionError, match="is written whose block has ended"):
            launch(runtime, "leaves", (2, 1), [out, 1], cluster=2)
    assert any(gone)


def test_each_thread_of_each_block_has_its_own_copies() -> None:
    runtime = HostRuntime()
    numbers = np.arange(3 * 64 * 4, dtype=np.float32)
    out, count = zeros(runtime, numbers.size), zeros(runtime, 1, np.uint32)
    launch(runtime, "copies", (3, 1), [runtime.put(numbers), out, count], together=True)
    np.testing.assert_array_equal(runtime.get(out), numbers)
