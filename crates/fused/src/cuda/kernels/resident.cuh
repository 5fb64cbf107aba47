// Whole examples, each by one block: values, gradients and kept gradients stay in shared memory from the input to the clipped
// gradient, which is added to a sum that the block keeps over all of its examples.
//
// A struct of constants is the same as for kernels over the chunk, but for a chunk of one example; `Step::values` and its
// like point to shared memory. All threads of the block call these functions, and wait for each other in between.

constexpr int RESIDENT_THREADS = 512;

// y: a thread takes FORWARD_P outputs at one position; neighbours are at neighbouring positions, so that they read the same
// weights.
template <class L>
__device__ inline void resident_forward(const Step& s) {
    constexpr int GROUPS = (L::P + L::FORWARD_P - 1) / L::FORWARD_P;
    const float* x = s.values + L::IN;
    for (int i = threadIdx.x; i < GROUPS * L::T; i += blockDim.x) {
        int first = i / L::T * L::FORWARD_P, t = i % L::T;
        int top = t / L::OW * L::SH - L::PH, left = t % L::OW * L::SW - L::PW;
        float sums[L::FORWARD_P];
#pragma unroll
        for (int j = 0; j < L::FORWARD_P; j++) {
            sums[j] = first + j < L::P ? s.theta[L::BIAS + first + j] : 0.0f;
        }
        for (int c = 0; c < L::C; c++) {
            for (int ky = 0; ky < L::KH; ky++) {
                int row = top + ky;
                if (row < 0 || row >= L::H) continue;
#pragma unroll 4
                for (int kx = 0; kx < L::KW; kx++) {
                    int column = left + kx;
                    if (column < 0 || column >= L::W) continue;
                    float value = x[(c * L::H + row) * L::W + column];
#pragma unroll
                    for (int j = 0; j < L::FORWARD_P; j++) {
                        int p = min(first + j, L::P - 1);
                        float weight = s.theta[L::WEIGHT + p * L::D + (c * L::KH + ky) * L::KW + kx];
                        sums[j] = fmaf(weight, value, sums[j]);
                    }
                }
            }
        }
#pragma unroll
        for (int j = 0; j < L::FORWARD_P; j++) {
            if (first + j < L::P) {
                s.values[L::OUT + (first + j) * L::T + t] = L::RELU_OUT ? relu(sums[j]) : sums[j];
            }
        }
    }
}

// y of a linear layer: LANES threads share an output, as each has many inputs. `scratch` has a number for each thread.
template <class L>
__device__ inline void resident_vector_forward(const Step& s, float* scratch) {
    constexpr int LANES = 16;
    const float* x = s.values + L::IN;
    int lane = threadIdx.x % LANES;
    for (int first = 0; first < L::P; first += RESIDENT_THREADS / LANES) {
        int p = first + threadIdx.x / LANES;
        float sum = 0.0f;
        for (int d = lane; p < L::P && d < L::D; d += LANES) {
            sum = fmaf(s.theta[L::WEIGHT + p * L::D + d], x[d], sum);
        }
        __syncthreads();
        scratch[threadIdx.x] = sum;
        __syncthreads();
        if (p < L::P && lane == 0) {
            sum = s.theta[L::BIAS + p];
            for (int j = 0; j < LANES; j++) {
                sum += scratch[threadIdx.x + j];
            }
            s.values[L::OUT + p] = L::RELU_OUT ? relu(sum) : sum;
        }
    }
}

// The gradient of x: a thread takes BACKWARD_C channels of one pixel.
template <class L>
__device__ inline void resident_backward(const Step& s) {
    constexpr int PIXELS = L::H * L::W, TAPS = L::KH * L::KW, GROUPS = (L::C + L::BACKWARD_C - 1) / L::BACKWARD_C;
    const float* dy = s.gradients + L::OUT;
    for (int i = threadIdx.x; i < GROUPS * PIXELS; i += blockDim.x) {
        int first = i / PIXELS * L::BACKWARD_C, pixel = i % PIXELS;
        float sums[L::BACKWARD_C];
#pragma unroll
        for (int j = 0; j < L::BACKWARD_C; j++) {
            sums[j] = 0.0f;
        }
        for (int tap = 0; tap < TAPS; tap++) {
            int row = pixel / L::W + L::PH - tap / L::KW, column = pixel % L::W + L::PW - tap % L::KW;
            if (row < 0 || column < 0 || row % L::SH != 0 || column % L::SW != 0) continue;
            row /= L::SH;
            column /= L::SW;
            if (row >= L::OH || column >= L::OW) continue;
#pragma unroll 4
            for (int p = 0; p < L::P; p++) {
                float gradient = dy[(p * L::OH + row) * L::OW + column];
#pragma unroll
                for (int j = 0; j < L::BACKWARD_C; j++) {
                    int c = min(first + j, L::C - 1);
                    sums[j] = fmaf(s.theta[L::WEIGHT + p * L::D + c * TAPS + tap], gradient, sums[j]);
                }
            }
        }
#pragma unroll
        for (int j = 0; j < L::BACKWARD_C; j++) {
            int at = (first + j) * PIXELS + pixel;
            if (first + j < L::C) {
                s.gradients[L::IN + at] = L::RELU_IN && s.values[L::IN + at] <= 0.0f ? 0.0f : sums[j];
            }
        }
    }
}

// The gradient of the weights over several positions, to `s.kept`. A thread takes KEEP_P outputs and KEEP_D inputs; the
// bias is input D. Gives the sum of this thread's squares.
template <class L>
__device__ inline double resident_keep(const Step& s) {
    constexpr int ROWS = (L::P + L::KEEP_P - 1) / L::KEEP_P, COLUMNS = (L::D + 1 + L::KEEP_D - 1) / L::KEEP_D;
    const float* x = s.values + L::IN;
    const float* dy = s.gradients + L::OUT;
    double squares = 0.0;
    for (int i = threadIdx.x; i < ROWS * COLUMNS; i += blockDim.x) {
        // Neighbours have neighbouring inputs: column, column + COLUMNS, ...
        int first = i / COLUMNS * L::KEEP_P, column = i % COLUMNS;
        float sums[L::KEEP_P][L::KEEP_D];
#pragma unroll
        for (int j = 0; j < L::KEEP_P; j++) {
#pragma unroll
            for (int k = 0; k < L::KEEP_D; k++) {
                sums[j][k] = 0.0f;
            }
        }
        for (int t = 0; t < L::T; t++) {
            float inputs[L::KEEP_D];
#pragma unroll
            for (int k = 0; k < L::KEEP_D; k++) {
                int d = column + k * COLUMNS;
                inputs[k] = d < L::D ? map_input<L>(x, t, d) : d == L::D ? 1.0f : 0.0f;
            }
#pragma unroll
            for (int j = 0; j < L::KEEP_P; j++) {
                float gradient = dy[min(first + j, L::P - 1) * L::T + t];
#pragma unroll
                for (int k = 0; k < L::KEEP_D; k++) {
                    sums[j][k] = fmaf(gradient, inputs[k], sums[j][k]);
                }
            }
        }
#pragma unroll
        for (int j = 0; j < L::KEEP_P; j++) {
#pragma unroll
            for (int k = 0; k < L::KEEP_D; k++) {
                int p = first + j, d = column + k * COLUMNS;
                if (p < L::P && d <= L::D) {
                    s.kept[L::KEPT_AT + map_parameter<L>(p, d) - L::START] = sums[j][k];
                    squares += (double)sums[j][k] * sums[j][k];
                }
            }
        }
    }
    return squares;
}

// The squared norm of a linear layer's gradient; `scratch` has a double for each thread.
template <class L>
__device__ inline double resident_rank_one(const Step& s, double* scratch) {
    double a = 0.0, g = 0.0;
    for (int d = threadIdx.x; d < L::D; d += blockDim.x) {
        double value = map_input<L>(s.values + L::IN, 0, d);
        a += value * value;
    }
    for (int p = threadIdx.x; p < L::P; p += blockDim.x) {
        double value = s.gradients[L::OUT + p];
        g += value * value;
    }
    a = block_sum(a, scratch);
    return (a + 1.0) * block_sum(g, scratch);
}

// Adds `factor` times the gradient to the block's sum.
template <class L>
__device__ inline void resident_add(const Step& s, float factor) {
    for (int i = threadIdx.x; i < L::PARAMETERS; i += blockDim.x) {
        float* sum = s.partials + L::START + i;
        if (L::IS_KEPT) {
            *sum = fmaf(factor, s.kept[L::KEPT_AT + i], *sum);
        } else {
            bool is_weight = i < L::P * L::D;
            float gradient = s.gradients[L::OUT + (is_weight ? i / L::D : i - L::P * L::D)];
            *sum = fmaf(factor * gradient, is_weight ? map_input<L>(s.values + L::IN, 0, i % L::D) : 1.0f, *sum);
        }
    }
}

// min(1, C / norm), or 0 for an example that is left out, which one thread counts; 1 in plain steps.
__device__ inline float resident_factor(const Step& s, double norm) {
    if (!s.is_private) return 1.0f;
    bool left_out = false;
    float factor = clip_factor(norm, s.varying->clip_norm, left_out);
    if (left_out && threadIdx.x == 0) {
        atomicAdd(s.non_finite, (u64)1);
    }
    return factor;
}

// Adds up the blocks' sums in their order. `group_examples`: how many blocks had an example.
__device__ inline void resident_reduce(const Step& s) {
    Span span = of_grid();
    for (i64 i = span.first; i < PARAMETERS; i += span.stride) {
        float sum = s.accumulate ? s.sums[i] : 0.0f;
        for (int block = 0; block < s.group_examples; block++) {
            sum += s.partials[(i64)block * PARAMETERS + i];
        }
        s.sums[i] = sum;
    }
}
