// Products of tiles by fused multiply-adds, in f32: a thread takes a rectangle of TM x TN sums.

struct alignas(16) Four {
    float at[4];
};

struct Fma {
    // Numbers between two rows of a tile in shared memory.
    static constexpr int PAD = 4;

    // A number as it is multiplied.
    __device__ static float operand(float x) {
        return x;
    }

    // Where the thread's rectangle begins.
    template <class P>
    __device__ static int own_row() {
        typedef typename P::T T;
        return (P::M_FAST ? threadIdx.x % (T::M / T::TM) : threadIdx.x / (T::N / T::TN)) * T::TM;
    }
    template <class P>
    __device__ static int own_column() {
        typedef typename P::T T;
        return (P::M_FAST ? threadIdx.x / (T::M / T::TM) : threadIdx.x % (T::N / T::TN)) * T::TN;
    }

    // Where the thread's sum i belongs in the tile.
    template <class P>
    __device__ static int row(int i) {
        return own_row<P>() + i / P::T::TN;
    }
    template <class P>
    __device__ static int column(int i) {
        return own_column<P>() + i % P::T::TN;
    }

    // Adds the product of two tiles [K][M] and [K][N] in shared memory.
    template <class P>
    __device__ static void multiply(const float* a, const float* b, float (&sums)[P::T::SUMS]) {
        typedef typename P::T T;
        int first_row = own_row<P>(), first_column = own_column<P>();
#pragma unroll
        for (int k = 0; k < T::K; k++) {
            Four rows[T::TM / 4], columns[T::TN / 4];
#pragma unroll
            for (int i = 0; i < T::TM / 4; i++) {
                rows[i] = *(const Four*)(a + k * (T::M + PAD) + first_row + 4 * i);
            }
#pragma unroll
            for (int j = 0; j < T::TN / 4; j++) {
                columns[j] = *(const Four*)(b + k * (T::N + PAD) + first_column + 4 * j);
            }
#pragma unroll
            for (int i = 0; i < T::TM; i++) {
#pragma unroll
                for (int j = 0; j < T::TN; j++) {
                    float& sum = sums[i * T::TN + j];
                    sum = fmaf(rows[i / 4].at[i % 4], columns[j / 4].at[j % 4], sum);
                }
            }
        }
    }
};
