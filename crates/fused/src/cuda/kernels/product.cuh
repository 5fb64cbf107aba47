// One tile of a matrix product C = A B, by a block: operands pass through shared memory, sums stay in registers.
//
// A `Problem` says what the matrices are: `a(m, k)` and `b(k, n)` give their numbers, 0 outside; `store(m, n, sum)` takes a
// result, and leaves it where m or n is outside. `A_K_FAST` says whether neighbours in k (not m) are neighbours in memory,
// `B_K_FAST` likewise (not n), `M_FAST` whether neighbours in m (not n) are neighbours among results: so accesses coalesce.
// `Arithmetic` is how numbers are multiplied: `Fma`, or what else the program has.

template <int M_, int N_, int TM_, int TN_>
struct Tile {
    static constexpr int M = M_, N = N_;        // rows and columns
    static constexpr int TM = TM_, TN = TN_;    // of each thread
    static constexpr int SUMS = TM * TN;        // likewise
    static constexpr int K = 16;                // a step
    static constexpr int THREADS = (M / TM) * (N / TN);
    static_assert(THREADS % M == 0 || M % THREADS == 0, "each thread loads whole rows of A");
    static_assert(TM % 4 == 0 && TN % 4 == 0, "threads load four numbers at once");
};

// The numbers that this thread loads of a tile of `SIZE` rows (or columns) by K.
template <class T, int SIZE, bool K_FAST, class F>
__device__ inline void fetch(const F& f, int at, int k, float (&into)[SIZE * T::K / T::THREADS]) {
#pragma unroll
    for (int j = 0; j < SIZE * T::K / T::THREADS; j++) {
        int i = threadIdx.x + j * T::THREADS;
        into[j] = K_FAST ? f(at + i / T::K, k + i % T::K) : f(at + i % SIZE, k + i / SIZE);
    }
}

template <class P, int SIZE, bool K_FAST>
__device__ inline void put(const float (&from)[SIZE * P::T::K / P::T::THREADS], float* shared) {
    typedef typename P::T T;
#pragma unroll
    for (int j = 0; j < SIZE * T::K / T::THREADS; j++) {
        int i = threadIdx.x + j * T::THREADS;
        int row = K_FAST ? i / T::K : i % SIZE;
        int k = K_FAST ? i % T::K : i / SIZE;
        shared[k * (SIZE + P::Arithmetic::PAD) + row] = P::Arithmetic::operand(from[j]);
    }
}

// The thread's part of the tile that begins at row `m` and column `n`, summed over k from 0 to `depth`.
template <class P>
__device__ inline void product_tile(const P& p, int m, int n, int depth, float* shared, float (&sums)[P::T::SUMS]) {
    typedef typename P::T T;
    float* a = shared;
    float* b = shared + T::K * (T::M + P::Arithmetic::PAD);
    auto read_a = [&](int row, int k) { return p.a(row, k); };
    auto read_b = [&](int column, int k) { return p.b(k, column); };
    float next_a[T::M * T::K / T::THREADS], next_b[T::N * T::K / T::THREADS];
#pragma unroll
    for (int i = 0; i < T::SUMS; i++) {
        sums[i] = 0.0f;
    }
    fetch<T, T::M, P::A_K_FAST>(read_a, m, 0, next_a);
    fetch<T, T::N, P::B_K_FAST>(read_b, n, 0, next_b);
    for (int k = 0; k < depth; k += T::K) {
        __syncthreads();
        put<P, T::M, P::A_K_FAST>(next_a, a);
        put<P, T::N, P::B_K_FAST>(next_b, b);
        __syncthreads();
        if (k + T::K < depth) {
            fetch<T, T::M, P::A_K_FAST>(read_a, m, k + T::K, next_a);
            fetch<T, T::N, P::B_K_FAST>(read_b, n, k + T::K, next_b);
        }
        P::Arithmetic::template multiply<P>(a, b, sums);
    }
}

// Stores the thread's part of the tile.
template <class P>
__device__ inline void store_tile(P& p, int m, int n, const float (&sums)[P::T::SUMS]) {
#pragma unroll
    for (int i = 0; i < P::T::SUMS; i++) {
        p.store(m + P::Arithmetic::template row<P>(i), n + P::Arithmetic::template column<P>(i), sums[i]);
    }
}

// The tile that belongs to the block.
template <class P>
__device__ inline void product_of_block(P p, int depth) {
    SHARED_MEMORY(shared);
    float sums[P::T::SUMS];
    int m = blockIdx.x * P::T::M, n = blockIdx.y * P::T::N;
    product_tile(p, m, n, depth, shared, sums);
    store_tile(p, m, n, sums);
}
