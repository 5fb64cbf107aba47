// Affine maps applied at T positions: y_t = W a_t + b. Linear layers (T = 1), convolutions, and an LSTM's two products.
//
// A struct `L` of constants describes one: `SEQUENCE` (inputs [T][D], outputs [T][P]) or else images (inputs [C][H][W],
// outputs [P][OH][OW], windows KH x KW with strides SH, SW and padding PH, PW); `SHIFT`, by how many positions inputs lag
// behind; where values lie (`IN`, `OUT`, their lengths), where parameters lie (`WEIGHT`, `BIAS`, `START` of the operation's);
// `RELU_IN` and `RELU_OUT`, whether an edge's values come out of a ReLU.

// Input d of position t.
template <class L>
__device__ inline float map_input(const float* x, int t, int d) {
    if (L::SEQUENCE) {
        int u = t - L::SHIFT;
        return u < 0 ? 0.0f : x[u * L::D + d];
    }
    int c = d / (L::KH * L::KW), tap = d % (L::KH * L::KW);
    int row = t / L::OW * L::SH + tap / L::KW - L::PH, column = t % L::OW * L::SW + tap % L::KW - L::PW;
    bool inside = row >= 0 && row < L::H && column >= 0 && column < L::W;
    return inside ? x[(c * L::H + row) * L::W + column] : 0.0f;
}

// Where output p of position t lies.
template <class L>
__device__ inline int map_output(int t, int p) {
    return L::SEQUENCE ? t * L::P + p : p * L::T + t;
}

// Where the gradient of output m with respect to input n lies among the parameters; input D is the bias.
template <class L>
__device__ inline int map_parameter(int m, int n) {
    return n < L::D ? L::WEIGHT + m * L::D + n : L::BIAS + m;
}

// y: rows are examples and positions, columns are outputs.
template <class L>
struct MapForward {
    typedef typename L::ForwardTile T;
    typedef Products Arithmetic;
    static constexpr bool A_K_FAST = L::SEQUENCE || L::T == 1, B_K_FAST = true, M_FAST = !A_K_FAST;
    const float* x;
    const float* theta;
    float* y;
    int rows;

    __device__ float a(int m, int k) const {
        if (m >= rows || k >= L::D) return 0.0f;
        return map_input<L>(x + (i64)(m / L::T) * L::IN_LENGTH, m % L::T, k);
    }
    __device__ float b(int k, int n) const {
        return k < L::D && n < L::P ? theta[L::WEIGHT + n * L::D + k] : 0.0f;
    }
    __device__ void store(int m, int n, float sum) {
        if (m >= rows || n >= L::P) return;
        sum += theta[L::BIAS + n];
        y[(i64)(m / L::T) * L::OUT_LENGTH + map_output<L>(m % L::T, n)] = L::RELU_OUT ? relu(sum) : sum;
    }
};

template <class L>
__device__ inline void map_forward(const Step& s) {
    if ((int)blockIdx.x * MapForward<L>::T::M >= s.examples * L::T) return;
    MapForward<L> problem{s.values + L::IN, s.theta, s.values + L::OUT, s.examples * L::T};
    product_of_block(problem, L::D);
}

// The gradient of x: rows are examples and pixels (or positions), columns are channels (or inputs).
template <class L>
struct MapBackward {
    typedef typename L::BackwardTile T;
    typedef Products Arithmetic;
    static constexpr int TAPS = L::SEQUENCE ? 1 : L::KH * L::KW;
    static constexpr int PIXELS = L::SEQUENCE ? L::T : L::H * L::W;
    static constexpr int COLUMNS = L::SEQUENCE ? L::D : L::C;
    static constexpr int DEPTH = L::P * TAPS;
    static constexpr bool A_K_FAST = L::SEQUENCE || L::T == 1, B_K_FAST = TAPS > 1, M_FAST = !L::SEQUENCE && PIXELS > 1;
    const float* dy;
    const float* theta;
    const float* x;
    float* dx;
    int rows;

    __device__ float a(int m, int k) const {
        if (m >= rows || k >= DEPTH) return 0.0f;
        const float* gradient = dy + (i64)(m / PIXELS) * L::OUT_LENGTH;
        int pixel = m % PIXELS;
        if (L::SEQUENCE) return gradient[pixel * L::P + k];
        int p = k / TAPS, tap = k % TAPS;
        int row = pixel / L::W + L::PH - tap / L::KW, column = pixel % L::W + L::PW - tap % L::KW;
        bool inside = row >= 0 && column >= 0 && row % L::SH == 0 && column % L::SW == 0;
        row /= L::SH;
        column /= L::SW;
        return inside && row < L::OH && column < L::OW ? gradient[(p * L::OH + row) * L::OW + column] : 0.0f;
    }
    __device__ float b(int k, int n) const {
        if (k >= DEPTH || n >= COLUMNS) return 0.0f;
        return theta[L::WEIGHT + k / TAPS * L::D + n * TAPS + k % TAPS];
    }
    __device__ void store(int m, int n, float sum) {
        if (m >= rows || n >= COLUMNS) return;
        int pixel = m % PIXELS;
        i64 at = (i64)(m / PIXELS) * L::IN_LENGTH + (L::SEQUENCE ? pixel * L::D + n : n * PIXELS + pixel);
        dx[at] = L::RELU_IN && x[at] <= 0.0f ? 0.0f : sum;
    }
};

template <class L>
__device__ inline void map_backward(const Step& s) {
    if ((int)blockIdx.x * MapBackward<L>::T::M >= s.examples * MapBackward<L>::PIXELS) return;
    MapBackward<L> problem{s.gradients + L::OUT, s.theta, s.values + L::IN, s.gradients + L::IN,
                           s.examples * MapBackward<L>::PIXELS};
    product_of_block(problem, MapBackward<L>::DEPTH);
}

// The gradient of the parameters over some examples, each with its factor: rows are outputs, columns inputs, and the bias.
template <class L, class Arithmetic_>
struct MapWeights {
    typedef typename L::WeightsTile T;
    typedef Arithmetic_ Arithmetic;
    static constexpr bool A_K_FAST = !L::SEQUENCE && L::T > 1, B_K_FAST = A_K_FAST, M_FAST = false;
    static constexpr int COLUMNS = L::HAS_BIAS ? L::D + 1 : L::D;
    const float* x;
    const float* dy;
    const float* factors;   // null: all 1
    float* to;              // where parameter `START` belongs
    int depth;              // examples and positions

    // An example with the factor 0 has no part in the sum: 0 x NaN would be NaN.
    __device__ float a(int m, int k) const {
        if (m >= L::P || k >= depth) return 0.0f;
        int example = k / L::T;
        float factor = factors ? factors[example] : 1.0f;
        if (factor == 0.0f) return 0.0f;
        return factor * dy[(i64)example * L::OUT_LENGTH + map_output<L>(k % L::T, m)];
    }
    __device__ float b(int k, int n) const {
        if (n >= COLUMNS || k >= depth) return 0.0f;
        int example = k / L::T;
        if (factors && factors[example] == 0.0f) return 0.0f;
        return n == L::D ? 1.0f : map_input<L>(x + (i64)example * L::IN_LENGTH, k % L::T, n);
    }
    __device__ void store(int m, int n, float sum) {
        if (m < L::P && n < COLUMNS) to[map_parameter<L>(m, n) - L::START] = sum;
    }
};

// The sum over a part of the chunk, each example times its factor: blocks along z are parts.
template <class L, class Arithmetic>
__device__ inline void sum_of_part(const Step& s) {
    int begin = blockIdx.z * L::EXAMPLES_PER_PART;
    if (begin >= s.examples) return;
    int end = min(begin + L::EXAMPLES_PER_PART, s.examples);
    MapWeights<L, Arithmetic> problem{s.values + L::IN + (i64)begin * L::IN_LENGTH, s.gradients + L::OUT + (i64)begin * L::OUT_LENGTH,
                          s.factors + begin, s.partials + L::PARTIALS + (i64)blockIdx.z * L::PARAMETERS,
                          (end - begin) * L::T};
    product_of_block(problem, problem.depth);
}

// The clipped sum. Norms that a formula gives are those of the exact product, so this is it, whatever other products are.
template <class L>
__device__ inline void map_sum(const Step& s) {
    sum_of_part<L, Fma>(s);
}

// The sum in plain steps, which bounds nothing.
template <class L>
__device__ inline void plain_sum(const Step& s) {
    sum_of_part<L, Products>(s);
}

// One example's gradient, kept, and the sum of its squares: blocks along z are examples of the group.
template <class L>
__device__ inline void map_keep(const Step& s) {
    SHARED_MEMORY(shared);
    typedef MapWeights<L, Products> P;
    if ((int)blockIdx.z >= s.group_examples) return;
    int example = s.group_first + blockIdx.z;
    P p{s.values + L::IN + (i64)example * L::IN_LENGTH, s.gradients + L::OUT + (i64)example * L::OUT_LENGTH, 0,
        s.kept + (i64)blockIdx.z * KEPT + L::KEPT_AT, L::T};
    float sums[P::T::SUMS];
    int m = blockIdx.x * P::T::M, n = blockIdx.y * P::T::N;
    product_tile(p, m, n, p.depth, shared, sums);
    store_tile(p, m, n, sums);
    // Numbers outside the matrix are 0.
    double squares = 0.0;
#pragma unroll
    for (int i = 0; i < P::T::SUMS; i++) {
        squares += (double)sums[i] * sums[i];
    }
    squares = block_sum(squares, (double*)shared);
    if (threadIdx.x == 0) {
        s.squares[(i64)example * SLOTS + L::SLOT + blockIdx.y * gridDim.x + blockIdx.x] = squares;
    }
}

// Adds up the parts of the chunk's sum.
template <class L>
__device__ inline void map_reduce(const Step& s) {
    Span span = of_grid();
    int parts = (s.examples + L::EXAMPLES_PER_PART - 1) / L::EXAMPLES_PER_PART;
    for (i64 i = span.first; i < L::PARAMETERS; i += span.stride) {
        float sum = s.accumulate ? s.sums[L::START + i] : 0.0f;
        for (int part = 0; part < parts; part++) {
            sum += s.partials[L::PARTIALS + (i64)part * L::PARAMETERS + i];
        }
        s.sums[L::START + i] = sum;
    }
}
