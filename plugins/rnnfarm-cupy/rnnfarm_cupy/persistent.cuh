/* A window in one launch: what the kernels share that go through all steps themselves.
 *
 * Blocks are G groups of rows by S slices of units. A block has the rows of its group and the units
 * of its slice, whose weights it keeps in registers and shared memory. What a product takes (the
 * operand) is published by the blocks that own its units, and after a wait every block of the group
 * copies all of it to its own shared memory.
 *
 * An operand lies in cells of 16 rows by one step of inputs (RNN_STEP), eight rows after the other
 * eight and in the order in which lanes take it. Sums are added as in product.cuh, bit for bit.
 */
#define RNN_CELL 128 /* words of a cell */
#define RNN_PIECE_WORDS (16 / (int)sizeof(rnn_word)) /* words that are copied at once */
#if RNN_MODE == 0
#define RNN_TILE 32 /* columns that a warp has at a time: one a lane */
#define RNN_HELD 8  /* words of a step's weights that a lane has of a tile */
#define RNN_OF_LANE(lane, k) ((k) * RNN_TILE + (lane))
#else
#define RNN_TILE 8
#define RNN_HELD 2
#define RNN_OF_LANE(lane, k) (2 * (lane) + (k))
#endif

/* Where a cell has the word of an input and a row. */
RNN_DEVICE int rnn_cell_word(int input, int row) {
    const int word = input % RNN_STEP / RNN_INPUTS;
#if RNN_MODE == 0
    return row % 16 * 8 + word;
#else
    return (row % 16 * 4 + word % 4) * 2 + word / 4;
#endif
}

/* Writes one value of an operand. */
RNN_DEVICE void rnn_publish(rnn_word *cell, int input, int row, real value) {
    rnn_word *const word = cell + rnn_cell_word(input, row);
#if RNN_MODE == 2
    ((unsigned short *)word)[input % 2] = (unsigned short)rnn_round(value, 0);
#else
    *word = rnn_round(value, value);
#endif
}

/* A product's result: the sum of what KW warps have added up. */
template <int KW>
RNN_DEVICE real rnn_total(const real *z, int stride) {
    if (KW == 8)
        return ((z[0] + z[stride]) + (z[2 * stride] + z[3 * stride])) +
               ((z[4 * stride] + z[5 * stride]) + (z[6 * stride] + z[7 * stride]));
    return (z[0] + z[stride]) + (z[2 * stride] + z[3 * stride]);
}

/* A slice's weights of one product, and the product.
 *
 * STEPS: of its inputs, a multiple of 8; KW x CG warps share the steps and the columns, of which
 * each has C tiles; M groups of 16 rows at a time; KEPT of a warp's steps have their weights in
 * registers; CHUNK steps of the operand, a multiple of 8, are copied at a time, and AHEAD such
 * copies are under way. PEERS: the operand lies in other blocks' shared memory.
 */
template <int STEPS, int KW, int CG, int C, int M, int KEPT, int CHUNK, int AHEAD, bool PEERS>
struct rnn_resident {
    static constexpr int OWN = STEPS / KW;         /* a warp's steps */
    static constexpr int EACH = RNN_SUMS / KW;     /* a warp's sums */
    static constexpr int TILES = CG * C;           /* of a block */
    static constexpr int WIDTH = TILES * RNN_TILE; /* columns of a block */
    static constexpr int WORDS = 8 * RNN_TILE;     /* of weights: a step of a tile */
    static constexpr int CHUNKS = (STEPS + CHUNK - 1) / CHUNK;
    static constexpr int PER = CHUNK / KW;         /* a warp's steps of a chunk */
    static constexpr int REST = OWN - KEPT;
    static constexpr int BUFFERS = CHUNKS < AHEAD + 1 ? CHUNKS : AHEAD + 1;
    static constexpr int BUFFER = CHUNK * M * RNN_CELL; /* words */

    rnn_word kept[KEPT ? KEPT : 1][RNN_HELD][C];
#if RNN_MODE == 0
    real sum[EACH][16 * M][C];
#else
    float sum[EACH][M][C][4];
#endif

    /* A warp's steps, in order: those of its sums. */
    RNN_MEMBER static int step_of(int own) {
        return own / EACH * RNN_SUMS + threadIdx.x / 32 % KW * EACH + own % EACH;
    }

    /* packed: this slice's weights, (STEPS, TILES, WORDS); rest: (OWN - KEPT, KW, TILES, WORDS). */
    RNN_MEMBER void load(const rnn_word *packed, rnn_word *rest) {
        const int lane = threadIdx.x % 32, first = threadIdx.x / 32 / KW * C;
#pragma unroll
        for (int own = 0; own < KEPT; ++own)
#pragma unroll
            for (int c = 0; c < C; ++c) {
                const rnn_word *const from = packed + (step_of(own) * TILES + first + c) * WORDS;
#pragma unroll
                for (int k = 0; k < RNN_HELD; ++k) kept[own][k][c] = from[RNN_OF_LANE(lane, k)];
            }
        for (int i = threadIdx.x; i < REST * KW * TILES * WORDS; i += blockDim.x) {
            const int within = i % (TILES * WORDS), row = i / (TILES * WORDS);
            const int own = KEPT + row / KW, warp = row % KW;
            const int step = own / EACH * RNN_SUMS + warp * EACH + own % EACH;
            rest[i] = packed[step * (TILES * WORDS) + within];
        }
    }

    RNN_MEMBER void clear() {
        real *const all = (real *)sum;
#pragma unroll
        for (int i = 0; i < (int)(sizeof sum / sizeof(real)); ++i) all[i] = 0;
    }

    RNN_MEMBER void store(real *z, int warp, int first, int lane) const {
        z += warp * (16 * M * WIDTH) + first * RNN_TILE;
#pragma unroll
        for (int c = 0; c < C; ++c)
#if RNN_MODE == 0
#pragma unroll
            for (int row = 0; row < 16 * M; ++row)
                z[row * WIDTH + c * RNN_TILE + lane] =
                    EACH == 1 ? sum[0][row][c] : sum[0][row][c] + sum[EACH - 1][row][c];
#else
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    z[(m * 16 + lane / 4 + i / 2 * 8) * WIDTH + c * RNN_TILE + lane % 4 * 2 + i % 2] =
                        EACH == 1 ? sum[0][m][c][i] : sum[0][m][c][i] + sum[EACH - 1][m][c][i];
#endif
    }

    /* One step of the M groups of rows; cells: their cells. */
#if RNN_MODE == 0
    template <class Weight>
    RNN_MEMBER void add(real (*s)[C], const rnn_word *cells, Weight weight) {
#pragma unroll
        for (int k = 0; k < 8; k += 4) {
            real w[4][C];
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int c = 0; c < C; ++c) w[i][c] = weight(k + i, c);
#pragma unroll
            for (int row = 0; row < 16 * M; ++row) {
                alignas(16) real a[4];
                rnn_load16(cells + row * 8 + k, a);
                if (sizeof(real) == 8) rnn_load16(cells + row * 8 + k + 2, a + 2);
#pragma unroll
                for (int i = 0; i < 4; ++i)
#pragma unroll
                    for (int c = 0; c < C; ++c) s[row][c] = rnn_fma(a[i], w[i][c], s[row][c]);
            }
        }
    }
#else
    template <class Weight>
    RNN_MEMBER void add(float (*s)[C][4], const rnn_word *cells, Weight weight) {
        rnn_word left[M][4];
#pragma unroll
        for (int m = 0; m < M; ++m) {
            const rnn_word *const cell = cells + m * RNN_CELL + threadIdx.x % 32 * 2;
            left[m][0] = cell[0], left[m][2] = cell[1];
            left[m][1] = cell[RNN_CELL / 2], left[m][3] = cell[RNN_CELL / 2 + 1];
        }
#pragma unroll
        for (int c = 0; c < C; ++c) {
            const rnn_word right[2] = {weight(0, c), weight(1, c)};
#pragma unroll
            for (int m = 0; m < M; ++m) rnn_mma(s[m][c], left[m], right);
        }
    }
#endif

    /* z (KW, 16 M, WIDTH) = the product, to be summed over KW. cell(step, m): where the operand has
     * it; rows: how many there are. Every thread of the block calls it, and a barrier has to
     * follow. */
    template <class Cell>
    RNN_MEMBER void multiply(Cell cell, int rows, rnn_word *buffers, const rnn_word *rest, real *z) {
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % KW;
        const int first = threadIdx.x / 32 / KW * C;
        /* Of a cell whose second half is nobody's only the first one is copied. */
        const int pieces = RNN_CELL / RNN_PIECE_WORDS / (M == 1 && rows <= 8 ? 2 : 1);
        auto fetch = [&](int chunk) {
            if (chunk < CHUNKS)
                for (int i = threadIdx.x; i < CHUNK * M * pieces; i += blockDim.x) {
                    const int step = chunk * CHUNK + i / pieces / M, m = i / pieces % M;
                    if (step >= STEPS) break;
                    const int word = i % pieces * RNN_PIECE_WORDS;
                    rnn_word *const to =
                        buffers + chunk % BUFFERS * BUFFER + i / pieces * RNN_CELL + word;
                    const rnn_word *const from = cell(step, m) + word;
                    if (PEERS) rnn_load16(from, to);
                    else rnn_copy_async(to, from);
                }
            rnn_copies_end();
        };
        clear();
#pragma unroll
        for (int chunk = 0; chunk < AHEAD; ++chunk) fetch(chunk);
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS; ++chunk) {
            rnn_copies_wait<AHEAD - 1>();
            __syncthreads();
            if (BUFFERS > AHEAD) fetch(chunk + AHEAD);
            else rnn_copies_end();
            const rnn_word *const buffer = buffers + chunk % BUFFERS * BUFFER;
#pragma unroll
            for (int i = 0; i < PER; ++i) {
                const int own = chunk * PER + i;
                const int step = i / EACH * RNN_SUMS + warp * EACH + i % EACH; /* of the chunk */
                const rnn_word *const cells = buffer + step * (M * RNN_CELL);
                if (own < KEPT)
                    add(sum[i % EACH], cells, [&](int k, int c) { return kept[own < KEPT ? own : 0][k][c]; });
                else if (own < OWN) {
                    const rnn_word *const w = rest + (((own - KEPT) * KW + warp) * TILES + first) * WORDS;
                    add(sum[i % EACH], cells,
                        [&](int k, int c) { return w[c * WORDS + RNN_OF_LANE(lane, k)]; });
                }
            }
        }
        store(z, warp, first, lane);
    }
};

/* Waits until a group's counter is at least what is wanted; false where a debug build gives up. */
RNN_DEVICE bool rnn_await(const unsigned *counter, unsigned wanted, int step, int *fault) {
#ifdef RNN_BOUND
    for (int patience = RNN_BOUND; patience > 0; --patience) {
        if (rnn_observe(counter) >= wanted) return true;
        rnn_pause();
    }
    if (rnn_is_first(fault)) {
        fault[1] = blockIdx.x, fault[2] = step;
        fault[3] = (int)rnn_observe(counter), fault[4] = (int)wanted;
    }
    return false;
#else
    (void)step, (void)fault;
    while (rnn_observe(counter) < wanted) rnn_pause();
    return true;
#endif
}
