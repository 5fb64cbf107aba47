// What CUDA has and C++ lacks, so that a C++ compiler takes the device's sources. This comes before them; the blocks are run
// by what comes after, `emulator_after.hpp`.

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __launch_bounds__(...)

namespace emulator {

struct Index {
    unsigned x, y, z;
};

// Where a thread waits.
enum Wait { NOWHERE, AT_BLOCK, AT_WARP, DONE };

struct Thread {
    void* stack_pointer;
    Wait wait;
    bool predicate;
    float operands[6];
};

// The block that this thread of the host is running.
struct Block {
    Index thread, block, block_size, grid_size;
    float* shared;
    Thread* threads;
    void* scheduler;
};

static thread_local Block* running;

void wait(Wait where);

}  // namespace emulator

#define threadIdx (emulator::running->thread)
#define blockIdx (emulator::running->block)
#define blockDim (emulator::running->block_size)
#define gridDim (emulator::running->grid_size)
#define SHARED_MEMORY(name) float* name = emulator::running->shared

static inline void __syncthreads() {
    emulator::wait(emulator::AT_BLOCK);
}

static inline unsigned __ballot_sync(unsigned, bool predicate) {
    unsigned own = threadIdx.x, first = own / 32 * 32, bits = 0;
    emulator::running->threads[own].predicate = predicate;
    emulator::wait(emulator::AT_WARP);
    for (unsigned lane = 0; lane < 32; lane++) {
        bits |= emulator::running->threads[first + lane].predicate ? 1u << lane : 0;
    }
    emulator::wait(emulator::AT_WARP);
    return bits;
}

// The nearest number with ten bits behind the point; ties go away from zero.
static inline float tensor_operand(float a) {
    unsigned bits;
    std::memcpy(&bits, &a, 4);
    if ((bits & 0x7f800000u) != 0x7f800000u) {
        bits = (bits + 0x1000u) & ~0x1fffu;
    } else if ((bits & 0x007fffffu) != 0) {
        bits = 0x7fffffffu;
    }
    std::memcpy(&a, &bits, 4);
    return a;
}

// mma.m16n8k8 with .tf32: the lanes' fragments lie as PTX lays them down. What PTX leaves open, the order of additions and
// how they are rounded, is here that of a loop in f32. The low bits of operands, which PTX ignores, must be zero.
static inline void tensor_product(float* sums, const float (&a)[4], const float (&b)[2]) {
    unsigned own = threadIdx.x, first = own / 32 * 32, lane = own % 32;
    emulator::Thread* threads = emulator::running->threads + first;
    for (int i = 0; i < 6; i++) {
        float operand = i < 4 ? a[i] : b[i - 4];
        unsigned bits;
        std::memcpy(&bits, &operand, 4);
        if ((bits & 0x1fffu) != 0 && operand == operand) {
            std::abort();
        }
        threads[lane].operands[i] = operand;
    }
    emulator::wait(emulator::AT_WARP);
    for (unsigned i = 0; i < 4; i++) {
        // Rows of A are lanes by fours, and eight rows further; columns of A are lanes within fours, and four further.
        unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (unsigned k = 0; k < 8; k++) {
            float left = threads[row % 8 * 4 + k % 4].operands[row / 8 + k / 4 * 2];
            float right = threads[column * 4 + k % 4].operands[4 + k / 4];
            sums[i] += left * right;
        }
    }
    emulator::wait(emulator::AT_WARP);
}
#define TENSOR_CORES

static inline void atomicAdd(unsigned long long* to, unsigned long long value) {
    *to += value;
}

static inline int min(int a, int b) {
    return a < b ? a : b;
}

static inline int __ffs(int bits) {
    return __builtin_ffs(bits);
}

static inline float __fmaf_rn(float a, float b, float c) {
    return __builtin_fmaf(a, b, c);
}

static inline float __fmul_rn(float a, float b) {
    return a * b;
}

static inline float __fadd_rn(float a, float b) {
    return a + b;
}

static inline float __fsqrt_rn(float a) {
    return __builtin_sqrtf(a);
}

static inline float __int2float_rn(int a) {
    return (float)a;
}

static inline int __float_as_int(float a) {
    int bits;
    std::memcpy(&bits, &a, 4);
    return bits;
}

static inline float __int_as_float(int bits) {
    float a;
    std::memcpy(&a, &bits, 4);
    return a;
}
