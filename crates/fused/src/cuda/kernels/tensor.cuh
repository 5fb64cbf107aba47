// Products of tiles on tensor cores: operands are rounded to TF32 (ten bits behind the point), sums are f32.
//
// A warp takes TM x TN rows by 32 columns, in products of 16 x 8 by 8. Which lane holds which number of such a product is
// laid down by PTX for mma.m16n8k8 with .tf32.

#ifndef TENSOR_CORES
// The nearest number with ten bits behind the point; ties go away from zero.
__device__ inline float tensor_operand(float x) {
    u32 bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return __uint_as_float(bits);
}

// Adds a product of 16 x 8 by 8 x 8, of which each lane of the warp holds some numbers.
__device__ inline void tensor_product(float* sums, const float (&a)[4], const float (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
                   "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
}
#endif

struct Tensor {
    // Numbers between two rows of a tile in shared memory: with eight, the lanes of a warp read 32 different banks.
    static constexpr int PAD = 8;
    // Columns of a warp.
    static constexpr int COLUMNS = 32;

    __device__ static float operand(float x) {
        return tensor_operand(x);
    }

    // Where the warp's rectangle begins.
    template <class P>
    __device__ static int own_row() {
        static_assert(P::T::SUMS % 16 == 0 && P::T::N % COLUMNS == 0, "warps take whole products");
        return threadIdx.x / 32 / (P::T::N / COLUMNS) * P::T::SUMS;
    }
    template <class P>
    __device__ static int own_column() {
        return threadIdx.x / 32 % (P::T::N / COLUMNS) * COLUMNS;
    }

    // Where the thread's sum i belongs in the tile. Sums are in fours, one for each product.
    template <class P>
    __device__ static int row(int i) {
        int product = i / 4 / (COLUMNS / 8);
        return own_row<P>() + product * 16 + i % 4 / 2 * 8 + threadIdx.x % 32 / 4;
    }
    template <class P>
    __device__ static int column(int i) {
        int product = i / 4 % (COLUMNS / 8);
        return own_column<P>() + product * 8 + threadIdx.x % 4 * 2 + i % 2;
    }

    // Adds the product of two tiles [K][M] and [K][N] in shared memory, whose numbers are operands.
    template <class P>
    __device__ static void multiply(const float* a, const float* b, float (&sums)[P::T::SUMS]) {
        typedef typename P::T T;
        constexpr int PRODUCTS_M = T::SUMS / 16, PRODUCTS_N = COLUMNS / 8;
        int lane_k = threadIdx.x % 4, lane = threadIdx.x % 32 / 4;
        const float* from_a = a + lane_k * (T::M + PAD) + own_row<P>() + lane;
        const float* from_b = b + lane_k * (T::N + PAD) + own_column<P>() + lane;
#pragma unroll
        for (int k = 0; k < T::K; k += 8) {
            float rows[PRODUCTS_M][4], columns[PRODUCTS_N][2];
#pragma unroll
            for (int i = 0; i < PRODUCTS_M; i++) {
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    rows[i][j] = from_a[(k + j / 2 * 4) * (T::M + PAD) + i * 16 + j % 2 * 8];
                }
            }
#pragma unroll
            for (int i = 0; i < PRODUCTS_N; i++) {
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    columns[i][j] = from_b[(k + j * 4) * (T::N + PAD) + i * 8];
                }
            }
#pragma unroll
            for (int i = 0; i < PRODUCTS_M; i++) {
#pragma unroll
                for (int j = 0; j < PRODUCTS_N; j++) {
                    tensor_product(sums + 4 * (i * PRODUCTS_N + j), rows[i], columns[j]);
                }
            }
        }
    }
};
