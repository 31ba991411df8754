/* The products of a step: a few rows of a vector times packed weights, into a tile in shared memory,
 * from which the elementwise math of the stage goes on.
 *
 * The inputs are cut into steps of 8 words; step k belongs to the sum k % 8 (of RNN_SUMS). Each of
 * the eight sums takes its steps in order, and they are added in pairs, and those in pairs. So a
 * row's bits depend neither on the other rows nor on their number, and all kernels that keep to
 * this give the same ones.
 *
 * A block has 128 threads for every 16 rows: four warps, each of which has two of the sums for 16
 * rows and all columns of the tile.
 *
 * A word is what one lane of a matrix instruction takes: a real, a float rounded to TF32, or two
 * neighbouring inputs rounded to bf16. Packed weights are (tiles, words of inputs, columns), with
 * zeros where a tile or a chunk is not full.
 */
#if RNN_MODE == 0
typedef real rnn_word;
#else
typedef unsigned rnn_word;
#endif
#define RNN_INPUTS (RNN_MODE == 2 ? 2 : 1) /* inputs of a word */
#define RNN_STEP (8 * RNN_INPUTS)           /* inputs of a step: what a matrix instruction takes */
#define RNN_SUMS 8
#define RNN_CHUNK 64                       /* words of inputs that are in shared memory at a time */
#define RNN_SLICES 4                       /* warps that share a chunk, each with two of its steps */
#define RNN_ROW (RNN_CHUNK + 4)            /* words from row to row: no bank conflicts */
#define RNN_STAGES (RNN_DOUBLE ? 2 : 3)    /* chunks of weights on their way */

/* Rounds one word's inputs. */
RNN_DEVICE rnn_word rnn_round(real first, real second) {
#if RNN_MODE == 0
    return first;
#elif RNN_MODE == 1
    return rnn_to_tf32(first);
#else
    return rnn_to_bf16(first, second);
#endif
}

/* 16 rows by 8 C columns: what one warp adds up. */
template <int C>
struct rnn_sums {
#if RNN_MODE == 0
    real value[2][4][C];

    RNN_MEMBER void clear() {
#pragma unroll
        for (int i = 0; i < 8; ++i)
#pragma unroll
            for (int j = 0; j < C; ++j) value[i / 4][i % 4][j] = 0;
    }

    /* Lane l has rows l / 8 + 4 i and columns l % 8 + 8 j. */
    RNN_MEMBER void add(const rnn_word *a, const rnn_word *b, int columns, int lane) {
#pragma unroll
        for (int step = 0; step < 2; ++step)
#pragma unroll 4
            for (int k = 8 * step; k < 8 * step + 8; ++k) {
                real left[4], right[C];
#pragma unroll
                for (int i = 0; i < 4; ++i) left[i] = a[(lane / 8 + 4 * i) * RNN_ROW + k];
#pragma unroll
                for (int j = 0; j < C; ++j) right[j] = b[k * columns + lane % 8 + 8 * j];
#pragma unroll
                for (int i = 0; i < 4; ++i)
#pragma unroll
                    for (int j = 0; j < C; ++j)
                        value[step][i][j] = rnn_fma(left[i], right[j], value[step][i][j]);
            }
    }

    RNN_MEMBER void store(real *z, int width, int lane) const {
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < C; ++j)
                z[(lane / 8 + 4 * i) * width + lane % 8 + 8 * j] = value[0][i][j] + value[1][i][j];
    }
#else
    float value[2][C][4];

    RNN_MEMBER void clear() {
#pragma unroll
        for (int j = 0; j < 2 * C; ++j)
#pragma unroll
            for (int i = 0; i < 4; ++i) value[j / C][j % C][i] = 0;
    }

    /* Matrix instructions of 16 rows, 8 columns and 8 words of inputs. */
    RNN_MEMBER void add(const rnn_word *a, const rnn_word *b, int columns, int lane) {
#pragma unroll
        for (int step = 0; step < 2; ++step) {
            const rnn_word *const row = a + lane / 4 * RNN_ROW + 8 * step + lane % 4;
            const rnn_word left[4] = {row[0], row[8 * RNN_ROW], row[4], row[8 * RNN_ROW + 4]};
#pragma unroll
            for (int j = 0; j < C; ++j) {
                const rnn_word *const column = b + (8 * step + lane % 4) * columns + 8 * j + lane / 4;
                const rnn_word right[2] = {column[0], column[4 * columns]};
                rnn_mma(value[step][j], left, right);
            }
        }
    }

    RNN_MEMBER void store(real *z, int width, int lane) const {
#pragma unroll
        for (int j = 0; j < C; ++j)
#pragma unroll
            for (int i = 0; i < 4; ++i)
                z[(lane / 4 + i / 2 * 8) * width + 8 * j + lane % 4 * 2 + i % 2] =
                    value[0][j][i] + value[1][j][i];
    }
#endif
};

/* Words from row to row of the weights in shared memory: no bank conflicts either. */
RNN_DEVICE constexpr int rnn_columns(int c) { return 8 * c + (c % 2 ? 0 : 8); }

/* z[row][column] = sum over inputs of a[row][input] * weights[input][column].
 *
 * rows: how many of the block's rows there are; inputs: how many there are; packed: this tile's
 * part; shared: at least the bytes that kernel.py counts. Every thread of the block calls it.
 */
template <int C>
RNN_DEVICE void rnn_product(const real *a, int stride, int rows, int inputs, const rnn_word *packed,
                            real *z, int width, unsigned char *shared) {
    constexpr int N = 8 * C, B = rnn_columns(C);
    constexpr int WORDS = 8; /* of a chunk of the rows, for one thread */
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int slice = warp % RNN_SLICES, group = warp / RNN_SLICES;
    const int all = blockDim.x / 8; /* rows of a block */
    const int chunks = (inputs + RNN_CHUNK * RNN_INPUTS - 1) / (RNN_CHUNK * RNN_INPUTS);
    rnn_word *const sa = (rnn_word *)shared;                /* (2, all, RNN_ROW) */
    rnn_word *const sb = sa + 2 * all * RNN_ROW;            /* (RNN_STAGES, RNN_CHUNK, B) */
    real *const parts = (real *)shared;                     /* (RNN_SLICES, all, N), afterwards */

    real next[WORDS * RNN_INPUTS];
    auto fetch_rows = [&](int chunk) {
#pragma unroll
        for (int i = 0; i < WORDS; ++i) {
            const int word = threadIdx.x + i * blockDim.x, row = word / RNN_CHUNK;
#pragma unroll
            for (int p = 0; p < RNN_INPUTS; ++p) {
                const int input = (chunk * RNN_CHUNK + word % RNN_CHUNK) * RNN_INPUTS + p;
                const bool there = row < rows && input < inputs;
                next[i * RNN_INPUTS + p] = there ? a[(long long)row * stride + input] : (real)0;
            }
        }
    };
    auto keep_rows = [&](int chunk) {
#pragma unroll
        for (int i = 0; i < WORDS; ++i) {
            const int word = threadIdx.x + i * blockDim.x;
            const int place = (chunk % 2 * all + word / RNN_CHUNK) * RNN_ROW + word % RNN_CHUNK;
            sa[place] = rnn_round(next[i * RNN_INPUTS], next[i * RNN_INPUTS + RNN_INPUTS - 1]);
        }
    };
    auto fetch_weights = [&](int chunk) {
        constexpr int PIECE = 16 / sizeof(rnn_word); /* words that are copied at once */
        if (chunk < chunks)
            for (int i = threadIdx.x; i < RNN_CHUNK * N / PIECE; i += blockDim.x) {
                const int row = i * PIECE / N, column = i * PIECE % N;
                rnn_copy_async(sb + (chunk % RNN_STAGES * RNN_CHUNK + row) * B + column,
                               packed + ((long long)chunk * RNN_CHUNK + row) * N + column);
            }
        rnn_copies_end(); /* an empty group too, so that groups can be counted */
    };

    rnn_sums<C> sums;
    sums.clear();
    for (int chunk = 0; chunk < RNN_STAGES - 1; ++chunk) fetch_weights(chunk);
    fetch_rows(0);
    for (int chunk = 0; chunk < chunks; ++chunk) {
        keep_rows(chunk);
        rnn_copies_wait<RNN_STAGES - 2>();
        __syncthreads();
        if (chunk + 1 < chunks) fetch_rows(chunk + 1);
        fetch_weights(chunk + RNN_STAGES - 1);
        const int first = slice * (RNN_CHUNK / RNN_SLICES);
        sums.add(sa + (chunk % 2 * all + group * 16) * RNN_ROW + first,
                 sb + (chunk % RNN_STAGES * RNN_CHUNK + first) * B, B, lane);
    }
    __syncthreads();
    sums.store(parts + (slice * all + group * 16) * N, N, lane);
    __syncthreads();
    for (int i = threadIdx.x; i < all * N; i += blockDim.x) {
        const real *const part = parts + i;
        const int step = all * N;
        z[i / N * width + i % N] = (part[0] + part[step]) + (part[2 * step] + part[3 * step]);
    }
    __syncthreads();
}
