/* CUDA on this CPU: compiles the same text as the GPU's compiler does, and runs it.
 *
 * Blocks run one after the other, unless a launch says that they wait for each other: then all of
 * the grid, or of a cluster, exist at once. A block's threads are fibers: each runs until it waits
 * at a barrier, of its block, warp or cluster, and goes on once all others wait there too; one
 * that polls lets others run meanwhile. So what a kernel computes, and how its threads depend on
 * each other, is checked without a GPU; what is not is how a GPU orders accesses to memory between
 * barriers.
 */
#define RNN_HOST 1
/* C's own headers: those of C++ around them take a quarter of the time of compiling. */
#define _GLIBCXX_INCLUDE_NEXT_C_HEADERS 1
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
#define __cluster_dims__(...)
#define RNN_MEMBER inline __attribute__((unused))
#define RNN_SHARED unsigned char *const rnn_shared = rnn_mine->shared
#define RNN_MOST 1024 /* threads of a block */
#define RNN_STACK (1 << 16)
#define RNN_GUARD 4096     /* bytes behind shared memory that no kernel may touch */
#define RNN_KEPT 8         /* places for blocks whose fibers are kept from launch to launch */
#define RNN_PATIENCE 10000 /* rounds of threads that poll and do nothing that others wait for */

struct rnn_dim { int x, y; };
static rnn_dim threadIdx, blockIdx, blockDim, gridDim;

/* A copy arrives when it is waited for, and only then. */
enum { RNN_COPIES = 64 };
struct rnn_copies {
    int count, groups, ends[64];
    void *to[RNN_COPIES];
    const void *from[RNN_COPIES];
};

struct rnn_thread {
    jmp_buf place;
    void *stack;
    int made;
    int arrived; /* at the cluster's barrier, and has not waited there yet */
    unsigned phase; /* of that barrier then */
};

enum {
    RNN_RUNS, RNN_PAUSES, RNN_AT_BLOCK, RNN_AT_WARP, RNN_AT_CLUSTER, RNN_FAILED, RNN_DONE,
    RNN_STATES
};

struct rnn_block {
    unsigned char *shared;
    rnn_dim index;
    int count[RNN_STATES]; /* threads in each state */
    unsigned char state[RNN_MOST];
    rnn_thread *thread;
    rnn_copies *copies; /* of each thread */
    /* The first block of its cluster, which has the barrier: threads there, and barriers so far. */
    rnn_block *cluster;
    int arrived;
    unsigned phase;
    /* What the lanes of a warp give to a matrix instruction. */
    unsigned left[RNN_MOST][4], right[RNN_MOST][2];
};

static struct {
    void (*call)(void **);
    void **arguments;
    long shared;
    int backwards, cluster;
    rnn_block *blocks; /* those that exist at once */
    int count, room;
    jmp_buf scheduler;
    int progress; /* whether a thread has done something that others may wait for */
    const char *fault;
} rnn_grid;

/* The block and the thread that run. */
static rnn_block *rnn_mine;
static rnn_thread *rnn_me;

/* The first fault is what the others follow from. */
static void rnn_blame(const char *fault) {
    if (!rnn_grid.fault) rnn_grid.fault = fault;
}

static void rnn_wait(int state) {
    --rnn_mine->count[RNN_RUNS];
    ++rnn_mine->count[state];
    rnn_mine->state[threadIdx.x] = state;
    rnn_grid.progress |= state >= RNN_AT_CLUSTER;
    if (!_setjmp(rnn_me->place)) _longjmp(rnn_grid.scheduler, 1);
}

/* The thread is given up, and with it the launch. */
static void rnn_fail(const char *fault) {
    rnn_blame(fault);
    rnn_wait(RNN_FAILED);
}

static void __syncthreads() { rnn_wait(RNN_AT_BLOCK); }

/* A fiber goes on from block to block: making one costs more than switching. */
static void rnn_fiber() {
    for (;;) {
        rnn_copies &copies = rnn_mine->copies[threadIdx.x];
        copies.count = copies.groups = 0;
        rnn_me->arrived = 0;
        rnn_grid.call(rnn_grid.arguments);
        if (rnn_me->arrived) rnn_fail("a thread ends between the halves of a cluster barrier");
        rnn_wait(RNN_DONE);
    }
}

static void rnn_resume(int thread) {
    threadIdx.x = thread;
    rnn_me = rnn_mine->thread + thread;
    if (_setjmp(rnn_grid.scheduler)) return;
    if (rnn_me->made) _longjmp(rnn_me->place, 1);
    ucontext_t start;
    getcontext(&start);
    if (!rnn_me->stack) rnn_me->stack = malloc(RNN_STACK);
    start.uc_stack.ss_sp = rnn_me->stack;
    start.uc_stack.ss_size = RNN_STACK;
    start.uc_link = 0;
    makecontext(&start, rnn_fiber, 0);
    rnn_me->made = 1;
    setcontext(&start);
}

/* Threads that are in a state run again. */
static void rnn_release(rnn_block *block, int state, int first, int end) {
    for (int k = first; k < end; ++k) {
        if (block->state[k] != state) continue;
        block->state[k] = RNN_RUNS;
        --block->count[state];
        ++block->count[RNN_RUNS];
    }
}

/* Let those go on whose barrier is complete. */
static void rnn_release_complete(rnn_block *block) {
    const int threads = blockDim.x;
    if (block->count[RNN_AT_BLOCK] == threads) rnn_release(block, RNN_AT_BLOCK, 0, threads);
    if (!block->count[RNN_AT_WARP]) return;
    for (int warp = 0; warp < threads; warp += 32) {
        const int end = warp + 32 < threads ? warp + 32 : threads;
        int k = warp;
        while (k < end && block->state[k] == RNN_AT_WARP) ++k;
        if (k == end) rnn_release(block, RNN_AT_WARP, warp, end);
    }
}

/* Runs a block until none of its threads can go on without other blocks. */
static void rnn_run_block(rnn_block *block) {
    const int threads = blockDim.x;
    rnn_mine = block;
    blockIdx = block->index;
    if (block->count[RNN_PAUSES]) rnn_release(block, RNN_PAUSES, 0, threads);
    while (block->count[RNN_RUNS] && !rnn_grid.fault) {
        for (int i = 0; i < threads; ++i) {
            const int k = rnn_grid.backwards ? threads - 1 - i : i;
            if (block->state[k] == RNN_RUNS) rnn_resume(k);
        }
        rnn_release_complete(block);
    }
    if (block->count[RNN_DONE] == threads) {
        /* Nobody may read the shared memory of a block that has ended, and that of the next one
         * starts with arbitrary contents: here with NaN. */
        memset(block->shared, 0xff, rnn_grid.shared);
    } else if (!block->count[RNN_PAUSES] && !block->count[RNN_AT_CLUSTER]) {
        rnn_blame("threads of a block wait at different barriers");
    }
}

/* Runs all blocks that exist, each as far as it comes, until they have ended. */
static void rnn_run_blocks() {
    for (int idle = 0; !rnn_grid.fault;) {
        int live = 0, pausing = 0;
        rnn_grid.progress = 0;
        for (int i = 0; i < rnn_grid.count; ++i) {
            rnn_block *const block = rnn_grid.blocks + i;
            if (block->count[RNN_DONE] == blockDim.x) continue;
            rnn_run_block(block);
            live += block->count[RNN_DONE] != blockDim.x;
            pausing += block->count[RNN_PAUSES];
        }
        if (!live) return;
        idle = rnn_grid.progress ? 0 : idle + 1;
        if (idle && !pausing) rnn_blame("not all threads of a cluster reach a cluster barrier");
        if (idle > RNN_PATIENCE) rnn_blame("blocks wait for each other forever");
    }
}

static int rnn_untouched(const unsigned char *start, long size) {
    return !size || (*start == 0xff && !memcmp(start, start + 1, size - 1));
}

/* The blocks from a number on, in the order in which they run, begin in the places for blocks. */
static void rnn_begin(int first, int blocks) {
    for (int i = 0; i < rnn_grid.count; ++i) {
        rnn_block *const block = rnn_grid.blocks + i;
        const int number = rnn_grid.backwards ? blocks - 1 - first - i : first + i;
        block->index.x = number % gridDim.x, block->index.y = number / gridDim.x;
        block->cluster = rnn_grid.blocks + i / rnn_grid.cluster * rnn_grid.cluster;
        block->arrived = 0;
        memset(block->count, 0, sizeof block->count);
        memset(block->state, RNN_RUNS, blockDim.x);
        block->count[RNN_RUNS] = blockDim.x;
    }
}

/* Places for blocks that exist at once, in fresh shared memory of which each has a part. */
static unsigned char *rnn_make_places(int count) {
    if (count > rnn_grid.room) {
        rnn_grid.blocks = (rnn_block *)realloc(rnn_grid.blocks, count * sizeof(rnn_block));
        memset(rnn_grid.blocks + rnn_grid.room, 0, (count - rnn_grid.room) * sizeof(rnn_block));
        rnn_grid.room = count;
    }
    rnn_grid.count = count;
    const long each = (rnn_grid.shared + RNN_GUARD + 63) / 64 * 64;
    unsigned char *const shared = (unsigned char *)aligned_alloc(64, count * each);
    memset(shared, 0xff, count * each);
    for (int i = 0; i < count; ++i) {
        rnn_block *const block = rnn_grid.blocks + i;
        block->shared = shared + i * each;
        if (block->thread) continue;
        block->thread = (rnn_thread *)calloc(RNN_MOST, sizeof(rnn_thread));
        block->copies = (rnn_copies *)calloc(RNN_MOST, sizeof(rnn_copies));
    }
    return shared;
}

/* Making fibers takes as long as many barriers do, and keeping all of them much memory. */
static void rnn_drop_fibers() {
    for (int i = 0; i < rnn_grid.count; ++i) {
        rnn_block *const block = rnn_grid.blocks + i;
        for (int k = 0; k < blockDim.x; ++k) {
            if (i >= RNN_KEPT) free(block->thread[k].stack);
            /* One that still waits is given up: it begins anew. */
            if (block->state[k] != RNN_DONE) block->thread[k].made = 0;
        }
        if (i < RNN_KEPT) continue;
        free(block->thread);
        free(block->copies);
        block->thread = 0;
    }
}

static void rnn_check_shared() {
    for (int i = 0; i < rnn_grid.count; ++i) {
        const unsigned char *const shared = rnn_grid.blocks[i].shared;
        /* This one counts more than the first: it may be its cause. */
        if (!rnn_untouched(shared + rnn_grid.shared, RNN_GUARD))
            rnn_grid.fault = "shared memory ends too soon";
        else if (rnn_grid.count > 1 && !rnn_untouched(shared, rnn_grid.shared))
            rnn_blame("shared memory is written whose block has ended");
    }
}

/* backwards: blocks and threads run from the last to the first. What depends on their order, as
 * where a barrier is missing, then gives something else.
 * together: all blocks exist at once. cluster: so many blocks, neighbours in x, exist at once. */
static const char *rnn_launch(void (*call)(void **), int gx, int gy, int threads, long shared,
                              int backwards, int together, int cluster, void **arguments) {
    if (threads < 1 || threads > RNN_MOST) return "a block has from 1 to 1024 threads";
    if (cluster < 1 || gx % cluster) return "the blocks of the grid in x are no whole clusters";
    blockDim.x = threads, blockDim.y = 1;
    gridDim.x = gx, gridDim.y = gy;
    rnn_grid.call = call, rnn_grid.arguments = arguments;
    rnn_grid.shared = shared, rnn_grid.backwards = backwards, rnn_grid.cluster = cluster;
    rnn_grid.fault = 0;
    const int blocks = gx * gy;
    unsigned char *const memory = rnn_make_places(together ? blocks : cluster);
    for (int first = 0; first < blocks && !rnn_grid.fault; first += rnn_grid.count) {
        rnn_begin(first, blocks);
        rnn_run_blocks();
        rnn_check_shared();
    }
    rnn_drop_fibers();
    free(memory);
    return rnn_grid.fault;
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
                                         int together, int cluster, void **a) {                 \
        return rnn_launch(name##_call, gx, gy, threads, shared, order, together, cluster, a);   \
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
    memcpy(rnn_mine->left[me], a, 16);
    memcpy(rnn_mine->right[me], b, 8);
    rnn_wait(RNN_AT_WARP);
    for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        float sum = d[i];
        for (int word = 0; word < 8; ++word) {
            const unsigned left =
                rnn_mine->left[warp + row % 8 * 4 + word % 4][row / 8 + word / 4 * 2];
            const unsigned right = rnn_mine->right[warp + column * 4 + word % 4][word / 4];
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

static inline void rnn_copy_async(void *shared, const void *global) {
    rnn_copies &mine = rnn_mine->copies[threadIdx.x];
    if ((uintptr_t)shared % 16 || (uintptr_t)global % 16 || mine.count == RNN_COPIES) abort();
    mine.to[mine.count] = shared, mine.from[mine.count++] = global;
}
static inline void rnn_copies_end() {
    rnn_copies &mine = rnn_mine->copies[threadIdx.x];
    if (mine.groups == 64) abort();
    mine.ends[mine.groups++] = mine.count;
}
template <int N>
static inline void rnn_copies_wait() {
    rnn_copies &mine = rnn_mine->copies[threadIdx.x];
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

static inline void rnn_load16(const void *from, void *to) {
    if ((uintptr_t)from % 16 || (uintptr_t)to % 16) abort();
    memcpy(to, from, 16);
}

/* With these blocks that run at the same time wait for each other: one adds to a counter when what
 * it has written may be read, others look at the counter, and pause before they look again. */
static inline void rnn_pause() { rnn_wait(RNN_PAUSES); }
static inline void rnn_prefetch(const void *) {}
static inline void rnn_forget(int &) {}
static inline bool rnn_is_first(int *flag) { return (*flag)++ == 0; }
static inline void rnn_signal(unsigned *counter) {
    ++*counter;
    rnn_grid.progress = 1;
}
static inline unsigned rnn_observe(const unsigned *counter) {
    return *(const volatile unsigned *)counter;
}

/* The barrier of a cluster, in two halves: nobody waits before all have arrived. */
static inline void rnn_cluster_arrive() {
    rnn_block *const cluster = rnn_mine->cluster;
    if (rnn_me->arrived) rnn_fail("a thread arrives twice at a cluster barrier and does not wait");
    rnn_me->arrived = 1;
    rnn_me->phase = cluster->phase;
    if (++cluster->arrived < rnn_grid.cluster * blockDim.x) return;
    cluster->arrived = 0;
    ++cluster->phase;
    for (int i = 0; i < rnn_grid.cluster; ++i)
        rnn_release(cluster + i, RNN_AT_CLUSTER, 0, blockDim.x);
}
static inline void rnn_cluster_wait() {
    if (!rnn_me->arrived) rnn_fail("a thread waits at a cluster barrier and has not arrived");
    rnn_me->arrived = 0;
    if (rnn_me->phase == rnn_mine->cluster->phase) rnn_wait(RNN_AT_CLUSTER);
}

/* Where a block of the cluster has what lies here in my own shared memory. */
template <class T>
static inline T *rnn_of_peer(T *shared, int rank) {
    const long offset = (const unsigned char *)shared - rnn_mine->shared;
    if (rank < 0 || rank >= rnn_grid.cluster) rnn_fail("a cluster has no block of this rank");
    if (offset < 0 || offset > rnn_grid.shared) rnn_fail("a peer is asked for what is not shared");
    const int place = rnn_grid.backwards ? rnn_grid.cluster - 1 - rank : rank;
    return (T *)(rnn_mine->cluster[place].shared + offset);
}
