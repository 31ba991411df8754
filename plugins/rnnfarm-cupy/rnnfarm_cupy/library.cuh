/* What layers, losses and updates need besides generated kernels. */

#define RNN_EACH(i, n)                                                                           \
    for (long i = blockIdx.x * (long)blockDim.x + threadIdx.x; i < n; i += (long)gridDim.x * blockDim.x)

extern "C" __global__ void __launch_bounds__(256, 1) rnn_add(int n, const real *a, const real *b, real *out) {
    RNN_EACH(i, n) out[i] = a[i] + b[i];
}

extern "C" __global__ void __launch_bounds__(256, 1) rnn_multiply(int n, const real *a, const real *b, real *out) {
    RNN_EACH(i, n) out[i] = a[i] * b[i];
}

extern "C" __global__ void __launch_bounds__(256, 1) rnn_add_vector(int n, int width, real *rows, const real *vector) {
    RNN_EACH(i, n) rows[i] += vector[i % width];
}

/* A block has 32 columns and 8 rows at a time of one part of the rows. */
extern "C" __global__ void __launch_bounds__(256, 1) rnn_sum_rows(int n, int width, int parts, const real *rows, real *partial) {
    RNN_SHARED;
    real *const shared = (real *)rnn_shared;
    const int lane = threadIdx.x / 32;
    const long u = (long)blockIdx.x * 32 + threadIdx.x % 32;
    const long share = (n + parts - 1) / parts;
    const long last = (blockIdx.y + 1) * share < n ? (blockIdx.y + 1) * share : n;
    real sum = 0;
    if (u < width)
        for (long i = blockIdx.y * share + lane; i < last; i += 8) sum += rows[i * width + u];
    shared[threadIdx.x] = sum;
    __syncthreads();
    if (lane == 0 && u < width) {
        real total = 0;
        for (int i = 0; i < 8; ++i) total += shared[threadIdx.x + i * 32];
        partial[(long)blockIdx.y * width + u] = total;
    }
}

extern "C" __global__ void __launch_bounds__(256, 1) rnn_sum_rows_end(int width, int parts, const real *partial, real *out) {
    const long u = blockIdx.x * (long)blockDim.x + threadIdx.x;
    if (u >= width) return;
    real total = 0;
    for (long i = 0; i < parts; ++i) total += partial[i * width + u];
    out[u] = total;
}

extern "C" __global__ void __launch_bounds__(256, 1) rnn_take_rows(int width, const real *table, const int64_t *numbers, real *out) {
    const real *const row = table + numbers[blockIdx.x] * width;
    for (int u = threadIdx.x; u < width; u += blockDim.x) out[(long)blockIdx.x * width + u] = row[u];
}

/* The block of the first row with a number adds up all rows with it, in their order. */
extern "C" __global__ void __launch_bounds__(256, 1) rnn_add_rows(int n, int width, real *target, const int64_t *numbers, const real *values) {
    RNN_SHARED;
    int *const found = (int *)rnn_shared; /* of 256 rows: which have the number, and the sum */
    const int64_t mine = numbers[blockIdx.x];
    const int k = threadIdx.x;
    for (long start = 0; start < (long)blockIdx.x; start += blockDim.x) {
        const long row = start + k;
        found[k] = row < (long)blockIdx.x && numbers[row] == mine;
        __syncthreads();
        for (int half = blockDim.x / 2; half; half /= 2) {
            if (k < half) found[k] |= found[k + half];
            __syncthreads();
        }
        const int earlier = found[0];
        __syncthreads();
        if (earlier) return;
    }
    real *const row = target + mine * width;
    for (long start = blockIdx.x / blockDim.x * (long)blockDim.x; start < n; start += blockDim.x) {
        const long candidate = start + k;
        const int match = candidate >= (long)blockIdx.x && candidate < n && numbers[candidate] == mine;
        found[k] = found[blockDim.x + k] = match;
        __syncthreads();
        for (int half = blockDim.x / 2; half; half /= 2) {
            if (k < half) found[blockDim.x + k] |= found[blockDim.x + k + half];
            __syncthreads();
        }
        if (found[blockDim.x])
            for (int i = 0; i < (int)blockDim.x; ++i)
                if (found[i])
                    for (int u = k; u < width; u += blockDim.x) row[u] += values[(start + i) * width + u];
        __syncthreads();
    }
}

template <class T>
RNN_DEVICE void rnn_copy(int T_, int B, int width, int turned, int add, const T *source, int first, int from,
                         T *target, int start, int to) {
    const long n = (long)T_ * B * width;
    RNN_EACH(i, n) {
        const long row = i / width, u = i % width, t = row / B, r = row % B;
        const T value = source[((turned ? T_ - 1 - t : t) * B + r) * from + first + u];
        T *const place = target + row * to + start + u;
        *place = add ? (T)(*place + value) : value;
    }
}

extern "C" __global__ void __launch_bounds__(256, 1) rnn_copy_columns(int T_, int B, int width, int turned, int add, int first, int from, int start, int to, const real *source, real *target) {
    rnn_copy<real>(T_, B, width, turned, add, source, first, from, target, start, to);
}

extern "C" __global__ void __launch_bounds__(256, 1) rnn_copy_bytes(int T_, int B, int width, int turned, int add, int first, int from, int start, int to, const unsigned char *source, unsigned char *target) {
    rnn_copy<unsigned char>(T_, B, width, turned, add, source, first, from, target, start, to);
}

/* ---- Random numbers: NumPy's Philox4x64-10 (Salmon et al. 2011), draw by draw ---- */

typedef unsigned long long rnn_u64;

/* Draw i of float32s: two from each 64-bit word, the lower half first; four words from a counter,
 * which is counted up before it is used. state: the counter (4 words) and the key (2). */
RNN_DEVICE float rnn_draw(const rnn_u64 *state, long i) {
    const rnn_u64 word = i / 2, block = word / 4;
    rnn_u64 c[4] = {state[0], state[1], state[2], state[3]}, k0 = state[4], k1 = state[5];
    const rnn_u64 add = block + 1;
    c[0] += add;
    if (c[0] < add && ++c[1] == 0 && ++c[2] == 0) ++c[3];
    for (int round = 0; round < 10; ++round) {
        const rnn_u64 m0 = 0xD2E7470EE14C6C93ull, m1 = 0xCA5A826395121157ull;
        const rnn_u64 h0 = rnn_high(m0, c[0]), l0 = m0 * c[0], h1 = rnn_high(m1, c[2]), l1 = m1 * c[2];
        c[0] = h1 ^ c[1] ^ k0;
        c[1] = l1;
        c[2] = h0 ^ c[3] ^ k1;
        c[3] = l0;
        k0 += 0x9E3779B97F4A7C15ull;
        k1 += 0xBB67AE8584CAA73Bull;
    }
    const rnn_u64 chosen = word % 4 == 0 ? c[0] : word % 4 == 1 ? c[1] : word % 4 == 2 ? c[2] : c[3];
    const unsigned bits = (unsigned)(i % 2 ? chosen >> 32 : chosen);
    return (float)(bits >> 8) * (1.0f / 16777216.0f);
}

extern "C" __global__ void __launch_bounds__(256, 1) rnn_dropped(int n, double p, double factor, const rnn_u64 *state, real *out) {
    RNN_EACH(i, n) out[i] = rnn_draw(state, i) >= (float)p ? (real)factor : (real)0;
}

extern "C" __global__ void __launch_bounds__(256, 1) rnn_chosen(int n, double p, const rnn_u64 *state, unsigned char *out) {
    RNN_EACH(i, n) out[i] = rnn_draw(state, i) < (float)p;
}

/* ---- Losses and updates; one block each where the order of a sum has to be fixed ---- */

RNN_DEVICE double rnn_block_total(double value, double *shared) {
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    return shared[0];
}

extern "C" __global__ void __launch_bounds__(256, 1) rnn_total(int n, const real *rows, const unsigned char *counts, double *out) {
    RNN_SHARED;
    double sum = 0;
    for (long i = threadIdx.x; i < n; i += blockDim.x)
        if (counts[i]) sum += rows[i];
    sum = rnn_block_total(sum, (double *)rnn_shared);
    if (threadIdx.x == 0) out[0] = sum;
}

extern "C" __global__ void __launch_bounds__(256, 1) rnn_mask_rows(int width, const unsigned char *counts, real *rows) {
    if (counts[blockIdx.x]) return;
    for (int u = threadIdx.x; u < width; u += blockDim.x) rows[(long)blockIdx.x * width + u] = 0;
}

/* 1 where a row is largest at its target, and there first. */
extern "C" __global__ void __launch_bounds__(256, 1) rnn_correct(int width, const real *output, const int64_t *target, real *out) {
    RNN_SHARED;
    real *const best = (real *)rnn_shared;
    int *const where = (int *)(best + blockDim.x);
    const real *const row = output + (long)blockIdx.x * width;
    const int k = threadIdx.x;
    best[k] = -__builtin_inff();
    where[k] = width;
    for (int u = k; u < width; u += blockDim.x)
        if (row[u] > best[k] || where[k] == width) best[k] = row[u], where[k] = u;
    __syncthreads();
    for (int half = blockDim.x / 2; half; half /= 2) {
        if (k < half) {
            const int other = k + half;
            if (best[other] > best[k] || (best[other] == best[k] && where[other] < where[k]))
                best[k] = best[other], where[k] = where[other];
        }
        __syncthreads();
    }
    if (k == 0) out[blockIdx.x] = where[0] == target[blockIdx.x];
}

extern "C" __global__ void __launch_bounds__(256, 1) rnn_norm(int n, const real *values, double *partial) {
    RNN_SHARED;
    double sum = 0;
    RNN_EACH(i, n) sum += (double)values[i] * values[i];
    sum = rnn_block_total(sum, (double *)rnn_shared);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

/* The norm after scaling, and the scale, which is less where the norm would be above most (most < 0:
 * never); NaN where the norm is no finite number. */
extern "C" __global__ void __launch_bounds__(256, 1) rnn_norm_end(int parts, double scale, double most, const double *partial, double *norm, real *factor) {
    RNN_SHARED;
    double sum = 0;
    for (int i = threadIdx.x; i < parts; i += blockDim.x) sum += partial[i];
    sum = rnn_block_total(sum, (double *)rnn_shared);
    if (threadIdx.x != 0) return;
    const double found = sqrt(sum) * scale;
    norm[0] = found;
    const double wanted = most >= 0 && found > most ? scale * most / found : scale;
    factor[0] = (real)(found - found == 0 ? wanted : found - found);
}
