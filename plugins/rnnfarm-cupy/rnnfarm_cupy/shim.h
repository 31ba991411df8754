/* CUDA on this CPU: compiles the same text as the GPU's compiler does, and runs it.
 *
 * Blocks run one after the other. The threads of a block are fibers: each runs until it waits at a
 * barrier, of the block or of its warp, and goes on once all others wait there too. So what a
 * kernel computes, and how its threads depend on each other, is checked without a GPU; what is not
 * is how a GPU orders accesses to memory between barriers.
 */
#define RNN_HOST 1
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((unused))
#define __launch_bounds__(...)
#define RNN_MEMBER inline __attribute__((unused))
#define RNN_SHARED unsigned char *const rnn_shared = rnn_block.shared
#define RNN_MOST 1024 /* threads of a block */
#define RNN_STACK (1 << 16)

struct rnn_dim { int x, y; };
static rnn_dim threadIdx, blockIdx, blockDim, gridDim;

enum { RNN_RUNS, RNN_AT_BLOCK, RNN_AT_WARP, RNN_DONE };
static struct {
    unsigned char *shared;
    void (*call)(void **);
    void **arguments;
    int state[RNN_MOST];
    jmp_buf fiber[RNN_MOST], scheduler;
    void *stack[RNN_MOST];
    int made[RNN_MOST];
    /* What the lanes of a warp give to a matrix instruction. */
    unsigned left[RNN_MOST][4], right[RNN_MOST][2];
} rnn_block;

static void rnn_wait(int state) {
    const int me = threadIdx.x;
    rnn_block.state[me] = state;
    if (!_setjmp(rnn_block.fiber[me])) _longjmp(rnn_block.scheduler, 1);
}

static void __syncthreads() { rnn_wait(RNN_AT_BLOCK); }

/* A fiber goes on from block to block: making one costs more than switching. */
static void rnn_fiber() {
    for (;;) {
        rnn_block.call(rnn_block.arguments);
        rnn_wait(RNN_DONE);
    }
}

static void rnn_resume(int thread) {
    threadIdx.x = thread;
    if (_setjmp(rnn_block.scheduler)) return;
    if (rnn_block.made[thread]) _longjmp(rnn_block.fiber[thread], 1);
    ucontext_t start;
    getcontext(&start);
    if (!rnn_block.stack[thread]) rnn_block.stack[thread] = malloc(RNN_STACK);
    start.uc_stack.ss_sp = rnn_block.stack[thread];
    start.uc_stack.ss_size = RNN_STACK;
    start.uc_link = 0;
    makecontext(&start, rnn_fiber, 0);
    rnn_block.made[thread] = 1;
    setcontext(&start);
}

/* Let those go on whose barrier is complete; 0 where no barrier is. */
static int rnn_release(int threads) {
    int released = 0, waiting = 0, live = 0;
    for (int warp = 0; warp < threads; warp += 32) {
        const int end = warp + 32 < threads ? warp + 32 : threads;
        int there = 0;
        for (int k = warp; k < end; ++k) {
            there += rnn_block.state[k] == RNN_AT_WARP;
            waiting += rnn_block.state[k] == RNN_AT_BLOCK;
            live += rnn_block.state[k] != RNN_DONE;
        }
        if (there != end - warp) continue;
        for (int k = warp; k < end; ++k) rnn_block.state[k] = RNN_RUNS;
        released = 1;
    }
    if (waiting && waiting == live && live == threads) {
        for (int k = 0; k < threads; ++k) rnn_block.state[k] = RNN_RUNS;
        released = 1;
    }
    return released;
}

/* Runs one block; 0 where its threads wait at different barriers, or some have ended. */
static int rnn_run_block(int threads, int backwards) {
    for (int k = 0; k < threads; ++k) rnn_block.state[k] = RNN_RUNS;
    for (;;) {
        int done = 0;
        for (int i = 0; i < threads; ++i) {
            const int k = backwards ? threads - 1 - i : i;
            if (rnn_block.state[k] == RNN_RUNS) rnn_resume(k);
            done += rnn_block.state[k] == RNN_DONE;
        }
        if (done == threads) return 1;
        if (rnn_release(threads)) continue;
        /* Those that wait are given up: they begin anew. */
        for (int k = 0; k < threads; ++k) rnn_block.made[k] = rnn_block.state[k] == RNN_DONE;
        return 0;
    }
}

/* backwards: blocks and threads run from the last to the first. What depends on their order, as
 * where a barrier is missing, then gives something else. */
static const char *rnn_launch(void (*call)(void **), int gx, int gy, int threads, long shared,
                              int backwards, void **arguments) {
    if (threads < 1 || threads > RNN_MOST) return "a block has from 1 to 1024 threads";
    /* Beyond the end lies a pattern that no kernel may touch. */
    const long guard = 4096;
    rnn_block.shared = (unsigned char *)aligned_alloc(64, (shared + guard + 63) / 64 * 64);
    rnn_block.call = call;
    rnn_block.arguments = arguments;
    blockDim.x = threads, blockDim.y = 1;
    gridDim.x = gx, gridDim.y = gy;
    const char *fault = 0;
    memset(rnn_block.shared + shared, 0xff, guard);
    for (int y = 0; y < gy && !fault; ++y)
        for (int x = 0; x < gx && !fault; ++x) {
            blockIdx.x = backwards ? gx - 1 - x : x;
            blockIdx.y = backwards ? gy - 1 - y : y;
            /* Shared memory starts with arbitrary contents: here with NaN. */
            memset(rnn_block.shared, 0xff, shared);
            if (!rnn_run_block(threads, backwards)) fault = "threads of a block wait at different barriers";
        }
    for (long k = 0; k < guard; ++k)
        if (rnn_block.shared[shared + k] != 0xff) fault = "shared memory ends too soon";
    free(rnn_block.shared);
    return fault;
}

/* The arguments of a kernel, from pointers to them. */
template <int... K> struct rnn_numbers {};
template <int N, int... K> struct rnn_count : rnn_count<N - 1, N - 1, K...> {};
template <int... K> struct rnn_count<0, K...> { typedef rnn_numbers<K...> type; };
template <class T> struct rnn_bare { typedef T type; };
template <class T> struct rnn_bare<const T> { typedef T type; };

template <class... A, int... K>
static void rnn_apply(void (*kernel)(A...), void **arguments, rnn_numbers<K...>) {
    kernel(*(typename rnn_bare<A>::type *)arguments[K]...);
}
template <class... A>
static void rnn_apply(void (*kernel)(A...), void **arguments) {
    rnn_apply(kernel, arguments, typename rnn_count<sizeof...(A)>::type());
}

#define RNN_KERNEL(name)                                                                        \
    static void name##_call(void **arguments) { rnn_apply(name, arguments); }                   \
    extern "C" const char *name##_launch(int gx, int gy, int threads, long shared, int order,   \
                                         void **a) {                                            \
        return rnn_launch(name##_call, gx, gy, threads, shared, order, a);                      \
    }

/* ---- What device.cuh has ---- */

static inline float rnn_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
static inline unsigned rnn_bits(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits;
}

/* To nearest, ties away from zero: 10 bits of the fraction are left. */
static inline unsigned rnn_to_tf32(float x) {
    const unsigned bits = rnn_bits(x);
    return x - x == 0 ? (bits + 0x1000u) & ~0x1fffu : bits;
}

/* To nearest, ties to even. */
static inline unsigned rnn_to_one_bf16(float x) {
    const unsigned bits = rnn_bits(x);
    if (x != x) return 0x7fff;
    return x - x == 0 ? (bits + 0x7fffu + (bits >> 16 & 1)) >> 16 : bits >> 16;
}
static inline unsigned rnn_to_bf16(float first, float second) {
    return rnn_to_one_bf16(first) | rnn_to_one_bf16(second) << 16;
}

/* Each lane has what the PTX manual says: of a 16 x 8 words, rows l / 4 and l / 4 + 8 and words
 * l % 4 and l % 4 + 4; of b the like words of column l / 4; of d columns 2 (l % 4) and the next. */
static inline void rnn_mma(float *d, const unsigned *a, const unsigned *b) {
    const int me = threadIdx.x, warp = me / 32 * 32, lane = me % 32;
    memcpy(rnn_block.left[me], a, 16);
    memcpy(rnn_block.right[me], b, 8);
    rnn_wait(RNN_AT_WARP);
    for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        float sum = d[i];
        for (int word = 0; word < 8; ++word) {
            const unsigned left =
                rnn_block.left[warp + row % 8 * 4 + word % 4][row / 8 + word / 4 * 2];
            const unsigned right = rnn_block.right[warp + column * 4 + word % 4][word / 4];
#if RNN_MODE == 1
            sum += rnn_float(left) * rnn_float(right);
#else
            sum += rnn_float(left << 16) * rnn_float(right << 16);
            sum += rnn_float(left & 0xffff0000u) * rnn_float(right & 0xffff0000u);
#endif
        }
        d[i] = sum;
    }
    rnn_wait(RNN_AT_WARP);
}

/* A copy arrives when it is waited for, and only then. */
enum { RNN_COPIES = 64 };
struct rnn_copies {
    void *to[RNN_COPIES];
    const void *from[RNN_COPIES];
    int count, ends[64], groups;
};
static rnn_copies rnn_copying[RNN_MOST];

static inline void rnn_copy_async(void *shared, const void *global) {
    rnn_copies &mine = rnn_copying[threadIdx.x];
    if ((uintptr_t)shared % 16 || (uintptr_t)global % 16 || mine.count == RNN_COPIES) abort();
    mine.to[mine.count] = shared, mine.from[mine.count++] = global;
}
static inline void rnn_copies_end() {
    rnn_copies &mine = rnn_copying[threadIdx.x];
    if (mine.groups == 64) abort();
    mine.ends[mine.groups++] = mine.count;
}
template <int N>
static inline void rnn_copies_wait() {
    rnn_copies &mine = rnn_copying[threadIdx.x];
    const int complete = mine.groups - N;
    if (complete <= 0) return;
    const int end = mine.ends[complete - 1];
    for (int k = 0; k < end; ++k) memcpy(mine.to[k], mine.from[k], 16);
    memmove(mine.to, mine.to + end, (mine.count - end) * sizeof mine.to[0]);
    memmove(mine.from, mine.from + end, (mine.count - end) * sizeof mine.from[0]);
    mine.count -= end;
    for (int k = 0; k < N; ++k) mine.ends[k] = mine.ends[complete + k] - end;
    mine.groups = N;
}

static inline unsigned long long rnn_high(unsigned long long a, unsigned long long b) {
    return (unsigned __int128)a * b >> 64;
}
