/* What only a GPU has: matrix instructions, conversions, copies that do not wait. */
#define RNN_MEMBER __device__ __forceinline__
/* As C compilers know them, and generated text writes them. */
#define __builtin_inff() __int_as_float(0x7f800000)
#define __builtin_nanf(text) __int_as_float(0x7fffffff)
#define RNN_SHARED extern __shared__ __align__(16) unsigned char rnn_shared[]

static __device__ __forceinline__ unsigned rnn_to_tf32(float x) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

/* The first one in the lower half. */
static __device__ __forceinline__ unsigned rnn_to_bf16(float first, float second) {
    unsigned bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
    return bits;
}

static __device__ __forceinline__ void rnn_mma(float *d, const unsigned *a, const unsigned *b) {
#if RNN_MODE == 1
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
#else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
#endif
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

static __device__ __forceinline__ void rnn_copy_async(void *shared, const void *global) {
    const unsigned to = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}

static __device__ __forceinline__ void rnn_copies_end() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int N>
static __device__ __forceinline__ void rnn_copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

static __device__ __forceinline__ unsigned long long rnn_high(unsigned long long a, unsigned long long b) {
    return __umul64hi(a, b);
}

/* ---- Blocks that wait for each other ---- */

/* Everything that the block has written before a barrier is seen by whoever observes the count. */
static __device__ __forceinline__ void rnn_signal(unsigned *counter) {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
}

static __device__ __forceinline__ unsigned rnn_observe(const unsigned *counter) {
    unsigned count;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(count) : "l"(counter) : "memory");
    return count;
}

static __device__ __forceinline__ void rnn_pause() {}

static __device__ __forceinline__ bool rnn_is_first(int *flag) { return atomicCAS(flag, 0, 1) == 0; }

/* What is computed from x is not kept from one time to the next. */
static __device__ __forceinline__ void rnn_forget(int &x) { asm volatile("" : "+r"(x)); }

static __device__ __forceinline__ void rnn_prefetch(const void *place) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(place));
}

static __device__ __forceinline__ void rnn_load16(const void *from, void *to) {
    *(uint4 *)to = *(const uint4 *)from;
}

#if __CUDA_ARCH__ >= 900
static __device__ __forceinline__ void rnn_cluster_arrive() {
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}

static __device__ __forceinline__ void rnn_cluster_wait() {
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/* Where block `rank` of the cluster has what lies here in this one's shared memory. */
template <class T>
static __device__ __forceinline__ T *rnn_of_peer(T *shared, int rank) {
    T *there;
    asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(shared), "r"(rank));
    return there;
}
#endif
