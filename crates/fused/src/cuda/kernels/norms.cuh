// Squared norms of maps' gradients that are not kept, and clip factors. In f64 throughout: what f32 numbers give can then
// neither overflow nor vanish, and it is little work beside the products.

constexpr int NORM_THREADS = 128;

// One position: the gradient is a g^T, its squared norm |a|^2 |g|^2, or (|a|^2 + 1) |g|^2 with a bias. A block per example.
template <class L>
__device__ inline void rank_one_norm(const Step& s) {
    SHARED_MEMORY(shared);
    int example = blockIdx.x;
    if (example >= s.examples) return;
    const float* x = s.values + L::IN + (i64)example * L::IN_LENGTH;
    const float* dy = s.gradients + L::OUT + (i64)example * L::OUT_LENGTH;
    double a = 0.0, g = 0.0;
    for (int d = threadIdx.x; d < L::D; d += blockDim.x) {
        double value = map_input<L>(x, 0, d);
        a += value * value;
    }
    for (int p = threadIdx.x; p < L::P; p += blockDim.x) {
        double value = dy[p];
        g += value * value;
    }
    a = block_sum(a, (double*)shared);
    g = block_sum(g, (double*)shared);
    if (threadIdx.x == 0) {
        s.squares[(i64)example * SLOTS + L::SLOT] = (a + (L::HAS_BIAS ? 1.0 : 0.0)) * g;
    }
}

// Several positions: sum over t and u of (a_t . a_u + 1) (g_t . g_u), each pair once. A block per example, eight threads
// per pair.
template <class L>
__device__ inline void ghost_norm(const Step& s) {
    SHARED_MEMORY(shared);
    constexpr int LANES = 8;
    constexpr i64 PAIRS = (i64)L::T * L::T;
    double* parts = (double*)shared;                  // [blockDim.x][2]
    int example = blockIdx.x;
    if (example >= s.examples) return;
    const float* x = s.values + L::IN + (i64)example * L::IN_LENGTH;
    const float* dy = s.gradients + L::OUT + (i64)example * L::OUT_LENGTH;
    double norm = 0.0, size = 0.0;
    for (i64 first = 0; first < PAIRS; first += blockDim.x / LANES) {
        i64 pair = first + threadIdx.x / LANES;
        int t = (int)(pair / L::T), u = (int)(pair % L::T);
        bool is_needed = pair < PAIRS && u >= t;
        double a = 0.0, g = 0.0;
        if (is_needed) {
            for (int d = threadIdx.x % LANES; d < L::D; d += LANES) {
                a += (double)map_input<L>(x, t, d) * map_input<L>(x, u, d);
            }
            for (int p = threadIdx.x % LANES; p < L::P; p += LANES) {
                g += (double)dy[map_output<L>(t, p)] * dy[map_output<L>(u, p)];
            }
        }
        __syncthreads();
        parts[2 * threadIdx.x] = a;
        parts[2 * threadIdx.x + 1] = g;
        __syncthreads();
        if (is_needed && threadIdx.x % LANES == 0) {
            a = L::HAS_BIAS ? 1.0 : 0.0;
            g = 0.0;
            for (int lane = 0; lane < LANES; lane++) {
                a += parts[2 * (threadIdx.x + lane)];
                g += parts[2 * (threadIdx.x + lane) + 1];
            }
            norm += (t == u ? 1.0 : 2.0) * a * g;
            size += t == u ? sqrt(a * g) : 0.0;
        }
    }
    norm = block_sum(norm, parts);
    size = block_sum(size, parts);
    if (threadIdx.x == 0) {
        // Whatever cancels, the sum that is taken in f32 is off by about this much.
        double least = 1e-12 * size * size;
        s.squares[(i64)example * SLOTS + L::SLOT] = norm < least ? least : norm;
    }
}

// min(1, C / norm), of a squared norm; 0 for an example that is left out, because its norm is not finite or its factor is
// not a normal f32.
__device__ inline float clip_factor(double norm, double clip_norm, bool& left_out) {
    norm = sqrt(norm);
    double factor = norm > clip_norm ? clip_norm / norm : 1.0;
    left_out = norm != norm || factor < 1.1754943508222875e-38;
    return left_out ? 0.0f : (float)factor;
}

// The factors of the group's examples. Plain steps have the factor 1 and look at nothing.
__device__ inline void clip_factors(const Step& s) {
    Span span = of_grid();
    for (i64 i = span.first; i < s.group_examples; i += span.stride) {
        i64 example = s.group_first + i;
        if (!s.is_private) {
            s.factors[example] = 1.0f;
            continue;
        }
        double norm = 0.0;
        for (int slot = 0; slot < SLOTS; slot++) {
            norm += s.squares[example * SLOTS + slot];
        }
        bool left_out = false;
        s.factors[example] = clip_factor(norm, s.varying->clip_norm, left_out);
        if (left_out) {
            atomicAdd(s.non_finite, (u64)1);
        }
    }
}

// The group's kept gradients, clipped and added up: items are parameters of the operation.
template <class L>
__device__ inline void kept_sum(const Step& s) {
    Span span = of_grid();
    for (i64 i = span.first; i < L::PARAMETERS; i += span.stride) {
        float sum = s.accumulate ? s.sums[L::START + i] : 0.0f;
        for (int e = 0; e < s.group_examples; e++) {
            float factor = s.factors[s.group_first + e];
            if (factor != 0.0f) {
                sum = fmaf(factor, s.kept[(i64)e * KEPT + L::KEPT_AT + i], sum);
            }
        }
        s.sums[L::START + i] = sum;
    }
}
