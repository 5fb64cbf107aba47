// Embeddings: rows of the table WEIGHT [VOCABULARY][WIDTH] for TIME tokens, or (`MEAN`) the mean of these rows. The gradient
// has only the rows whose tokens occur; those of tokens that occur several times in an example are added up before they are
// squared.

__device__ inline const int* tokens_of(const Step& s, i64 example, int time) {
    return s.tokens + (i64)s.rows[s.first + example] * time;
}

template <class L>
__device__ inline void embedding_forward(const Step& s) {
    Span span = of_grid();
    for (i64 i = span.first; i < (i64)s.examples * L::LENGTH; i += span.stride) {
        const int* tokens = tokens_of(s, i / L::LENGTH, L::TIME);
        int t = (int)(i % L::LENGTH) / L::WIDTH, column = (int)(i % L::LENGTH) % L::WIDTH;
        if (!L::MEAN) {
            s.values[L::OUT + i] = s.theta[L::WEIGHT + tokens[t] * L::WIDTH + column];
            continue;
        }
        float sum = 0.0f;
        for (int u = 0; u < L::TIME; u++) {
            sum += s.theta[L::WEIGHT + tokens[u] * L::WIDTH + column];
        }
        s.values[L::OUT + i] = sum / (float)L::TIME;
    }
}

// The squared norm of an example's gradient. A block per example. `marks` get, for each place, the next place of the same
// token (or -1), and whether there is one before.
template <class L>
__device__ inline void embedding_norm(const Step& s) {
    SHARED_MEMORY(shared);
    int example = blockIdx.x;
    if (example >= s.examples) return;
    const int* tokens = tokens_of(s, example, L::TIME);
    const float* dy = s.gradients + L::OUT + (i64)example * L::LENGTH;
    double norm = 0.0;
    if (L::MEAN) {
        // Every row is a multiple of one vector: n_v / TIME times it. The sum of n_v^2 is the number of equal pairs.
        double pairs = 0.0;
        for (int t = threadIdx.x; t < L::TIME; t += blockDim.x) {
            int equal = 0;
            for (int u = 0; u < L::TIME; u++) {
                equal += tokens[u] == tokens[t] ? 1 : 0;
            }
            pairs += equal;
        }
        for (int column = threadIdx.x; column < L::WIDTH; column += blockDim.x) {
            norm += (double)dy[column] * dy[column];
        }
        pairs = block_sum(pairs, (double*)shared);
        norm = block_sum(norm, (double*)shared) * pairs / ((double)L::TIME * L::TIME);
    } else {
        int* next = s.marks + L::MARKS + (i64)example * 2 * L::TIME;
        int* repeated = next + L::TIME;
        for (int t = threadIdx.x; t < L::TIME; t += blockDim.x) {
            int later = t + 1, earlier = t - 1;
            while (later < L::TIME && tokens[later] != tokens[t]) later++;
            while (earlier >= 0 && tokens[earlier] != tokens[t]) earlier--;
            next[t] = later < L::TIME ? later : -1;
            repeated[t] = earlier >= 0 ? 1 : 0;
        }
        __syncthreads();
        for (int i = threadIdx.x; i < L::TIME * L::WIDTH; i += blockDim.x) {
            int t = i / L::WIDTH, column = i % L::WIDTH;
            if (repeated[t]) continue;
            float sum = 0.0f;
            for (int u = t; u >= 0; u = next[u]) {
                sum += dy[u * L::WIDTH + column];
            }
            norm += (double)sum * sum;
        }
        norm = block_sum(norm, (double*)shared);
    }
    if (threadIdx.x == 0) {
        s.squares[(i64)example * SLOTS + L::SLOT] = norm;
    }
}

constexpr int EMBEDDING_COLUMNS = 32, EMBEDDING_WARPS = 8;

// The clipped sum. A block owns ROWS rows of the table and, along y, 32 of its columns. It looks at all tokens of the chunk
// in their order; a warp adds, for the rows that fall to it. So no two threads add to the same number, and the order is
// fixed.
template <class L>
__device__ inline void embedding_sum(const Step& s) {
    SHARED_MEMORY(shared);
    float* sums = shared;                                     // [ROWS][32]
    u32* found = (u32*)(shared + L::ROWS * EMBEDDING_COLUMNS);   // [warps]
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int first = blockIdx.x * L::ROWS, column = blockIdx.y * EMBEDDING_COLUMNS + lane;
    for (int row = warp; row < L::ROWS; row += EMBEDDING_WARPS) {
        bool is_old = s.accumulate && first + row < L::VOCABULARY && column < L::WIDTH;
        sums[row * EMBEDDING_COLUMNS + lane] = is_old ? s.sums[L::WEIGHT + (first + row) * L::WIDTH + column] : 0.0f;
    }
    for (i64 begin = 0; begin < (i64)s.examples * L::TIME; begin += blockDim.x) {
        i64 place = begin + threadIdx.x;
        int row = -1;
        if (place < (i64)s.examples * L::TIME) {
            row = tokens_of(s, place / L::TIME, L::TIME)[place % L::TIME] - first;
        }
        u32 hits = __ballot_sync(0xffffffffu, row >= 0 && row < L::ROWS);
        __syncthreads();
        if (lane == 0) {
            found[warp] = hits;
        }
        __syncthreads();
        for (int other = 0; other < EMBEDDING_WARPS; other++) {
            for (u32 rest = found[other]; rest != 0; rest &= rest - 1) {
                i64 hit = begin + other * 32 + __ffs((int)rest) - 1;
                i64 example = hit / L::TIME;
                int t = (int)(hit % L::TIME);
                int own = tokens_of(s, example, L::TIME)[t] - first;
                float factor = s.factors[example];
                if (own % EMBEDDING_WARPS != warp || factor == 0.0f || column >= L::WIDTH) continue;
                float gradient = s.gradients[L::OUT + example * L::LENGTH + (L::MEAN ? 0 : t) * L::WIDTH + column];
                // Not the factor by TIME: it can be so small that digits would be lost.
                float row = L::MEAN ? gradient * (1.0f / (float)L::TIME) : gradient;
                float* sum = sums + own * EMBEDDING_COLUMNS + lane;
                *sum = fmaf(factor, row, *sum);
            }
        }
    }
    for (int row = warp; row < L::ROWS; row += EMBEDDING_WARPS) {
        if (first + row < L::VOCABULARY && column < L::WIDTH) {
            s.sums[L::WEIGHT + (first + row) * L::WIDTH + column] = sums[row * EMBEDDING_COLUMNS + lane];
        }
    }
}
