// What every kernel sees: sizes of types, the one argument of all kernels, and sums over a block.
//
// These sources are compiled by NVRTC for a device and, in tests, by a C++ compiler for the host. So they include nothing,
// and keep to what both understand.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#ifndef SHARED_MEMORY
// The block's shared memory: as much as the launch asks for.
#define SHARED_MEMORY(name) extern __shared__ __align__(16) float name[]
#endif

// What differs from step to step, in the device's memory: so a step that was recorded once can be started again. Its rows
// come behind it. `arguments.rs` has the same structs.
struct Varying {
    u64 number;            // of the step
    double clip_norm;
    float rate;            // eta / B
    float noise;           // sigma C
    int examples;          // in the batch
    int padding;
};

// The argument of every kernel. "Chunk": the examples whose values and gradients are in memory at once. "Group": those of a
// chunk whose kept gradients are. Of both, the launch has the most that there can be; `counted` makes of it how many there
// are.
struct Step {
    float* theta;          // [PARAMETERS], PyTorch's tensors one after another
    float* sums;           // [PARAMETERS], the sum of clipped gradients
    float* values;         // of each edge, [CHUNK][length]
    float* gradients;      // likewise
    int* marks;            // whole numbers that operations keep from one pass to the other
    float* states;         // numbers that LSTMs keep
    float* kept;           // [GROUP][KEPT], gradients of single examples
    float* partials;       // sums over parts of a chunk
    double* squares;       // [CHUNK][SLOTS], parts of the squared norms
    float* factors;        // [CHUNK], clip factors; 0 leaves the example out
    u64* non_finite;       // how many were left out
    const float* inputs;   // the data set
    const int* tokens;
    const int* classes;
    const float* targets;
    const u32* rows;       // the rows of the data set that make up the batch
    const u32* order;      // [PARAMETERS], the parameter that each normal of the noise belongs to
    const Varying* varying;
    u32 key[8];            // of the noise
    int first;             // the chunk's first example in the batch
    int examples;          // in the chunk
    int group_first;       // the group's first example in the chunk
    int group_examples;    // in the group
    int accumulate;        // whether sums of parameters already hold those of other chunks or groups
    int is_private;
    int forward_only;      // whether to stop at the outputs (whole examples only)
    int padding;
};

// `count`, but from 0 to `most`.
__device__ inline int within(int count, int most) {
    return count < 0 ? 0 : count > most ? most : count;
}

// The step with the examples that the batch has in this chunk and group, none if it ends before them.
__device__ inline Step counted(const Step& s) {
    Step step = s;
    step.examples = within(s.varying->examples - s.first, s.examples);
    step.group_examples = within(step.examples - s.group_first, s.group_examples);
    return step;
}

// Which of many items a thread takes: the first, and how far the next one is.
struct Span {
    i64 first;
    i64 stride;
};

// The items of all threads of a grid.
__device__ inline Span of_grid() {
    return Span{(i64)blockIdx.x * blockDim.x + threadIdx.x, (i64)gridDim.x * blockDim.x};
}

// The items of all threads of a block.
__device__ inline Span of_block() {
    return Span{(i64)threadIdx.x, (i64)blockDim.x};
}

// The sum of all threads' values, in a fixed order. A block has a power of two of threads; `shared` holds one number each.
__device__ inline double block_sum(double value, double* shared) {
    __syncthreads();
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int count = blockDim.x / 2; count > 0; count /= 2) {
        if ((int)threadIdx.x < count) {
            shared[threadIdx.x] += shared[threadIdx.x + count];
        }
        __syncthreads();
    }
    return shared[0];
}

// max(0, x); NaN stays NaN.
__device__ inline float relu(float x) {
    return x <= 0.0f ? 0.0f : x;
}
