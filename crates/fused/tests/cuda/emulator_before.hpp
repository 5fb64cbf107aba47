// What CUDA has and C++ lacks, so that a C++ compiler takes the device's sources. This comes before them; the blocks are run
// by what comes after, `emulator_after.hpp`.

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
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
