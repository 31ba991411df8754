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
