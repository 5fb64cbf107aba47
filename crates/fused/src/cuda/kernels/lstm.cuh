// The recurrence of an LSTM: H hidden numbers, TIME steps. A product over all steps (a map) has put W_ih x + b into the edge
// GATES [TIME][4H], in the order i, f, g, o; here the hidden state's part is added, step by step.
//
// A block takes EXAMPLES examples through all steps. Its copy of W_hh [4H][H] is in shared memory where that is large enough
// (`STAGED`); rows are H + 1 numbers apart, so that neighbours lie in different banks.

template <class L>
struct Recurrence {
    static constexpr int PITCH = L::STAGED ? L::H + 1 : L::H;

    __device__ static const float* weights(const Step& s, float*& shared) {
        const float* from = s.theta + L::WEIGHT_HH;
        if (!L::STAGED) return from;
        float* copy = shared;
        shared += 4 * L::H * PITCH;
        for (int i = threadIdx.x; i < 4 * L::H * L::H; i += blockDim.x) {
            copy[i / L::H * PITCH + i % L::H] = from[i];
        }
        return copy;
    }
};

__device__ inline float sigmoid(float x) {
    return 1.0f / (1.0f + expf(-x));
}

// Turns pre-activations into gates, in place, and gives h (the edge OUT) and, for the way back, c and tanh c.
template <class L>
__device__ inline void lstm_forward(const Step& s) {
    SHARED_MEMORY(memory);
    typedef Recurrence<L> R;
    if ((int)blockIdx.x * L::EXAMPLES >= s.examples) return;
    float* shared = memory;
    const float* w = R::weights(s, shared);
    float* h = shared;                            // [EXAMPLES][H]
    float* z = h + L::EXAMPLES * L::H;            // [EXAMPLES][4H]
    int first = blockIdx.x * L::EXAMPLES, count = min(L::EXAMPLES, s.examples - first);
    float* cells = s.states + L::STATES;
    for (int i = threadIdx.x; i < L::EXAMPLES * L::H; i += blockDim.x) {
        h[i] = 0.0f;
    }
    __syncthreads();
    for (int t = 0; t < L::TIME; t++) {
        for (int row = threadIdx.x; row < 4 * L::H; row += blockDim.x) {
            float sums[L::EXAMPLES];
#pragma unroll
            for (int e = 0; e < L::EXAMPLES; e++) {
                sums[e] = e < count ? s.values[L::GATES + ((i64)(first + e) * L::TIME + t) * 4 * L::H + row] : 0.0f;
            }
            for (int k = 0; k < L::H; k++) {
                float weight = w[row * R::PITCH + k];
#pragma unroll
                for (int e = 0; e < L::EXAMPLES; e++) {
                    sums[e] = fmaf(weight, h[e * L::H + k], sums[e]);
                }
            }
#pragma unroll
            for (int e = 0; e < L::EXAMPLES; e++) {
                z[e * 4 * L::H + row] = sums[e];
            }
        }
        __syncthreads();
        for (int i = threadIdx.x; i < count * L::H; i += blockDim.x) {
            int e = i / L::H, k = i % L::H;
            i64 at = (i64)(first + e) * L::TIME + t;
            float* gates = s.values + L::GATES + at * 4 * L::H;
            float* cell = cells + at * 2 * L::H;
            float in = sigmoid(z[e * 4 * L::H + k]), forget = sigmoid(z[e * 4 * L::H + L::H + k]);
            float candidate = tanhf(z[e * 4 * L::H + 2 * L::H + k]), out = sigmoid(z[e * 4 * L::H + 3 * L::H + k]);
            float before = t > 0 ? cell[k - 2 * L::H] : 0.0f;
            float c = fmaf(forget, before, in * candidate);
            float c_tanh = tanhf(c);
            gates[k] = in;
            gates[L::H + k] = forget;
            gates[2 * L::H + k] = candidate;
            gates[3 * L::H + k] = out;
            cell[k] = c;
            cell[L::H + k] = c_tanh;
            h[i] = out * c_tanh;
            s.values[L::OUT + at * L::H + k] = h[i];
        }
        __syncthreads();
    }
}

// The gradients of the pre-activations (the edge GATES), from the last step to the first.
template <class L>
__device__ inline void lstm_backward(const Step& s) {
    SHARED_MEMORY(memory);
    typedef Recurrence<L> R;
    if ((int)blockIdx.x * L::EXAMPLES >= s.examples) return;
    constexpr int PARTS = 4;
    float* shared = memory;
    const float* w = R::weights(s, shared);
    float* parts = shared;                                   // [PARTS][EXAMPLES][H], of the gradient of h
    float* dz = parts + PARTS * L::EXAMPLES * L::H;          // [EXAMPLES][4H]
    float* dc = dz + L::EXAMPLES * 4 * L::H;                 // [EXAMPLES][H], from the step after
    int first = blockIdx.x * L::EXAMPLES, count = min(L::EXAMPLES, s.examples - first);
    const float* cells = s.states + L::STATES;
    for (int i = threadIdx.x; i < PARTS * L::EXAMPLES * L::H; i += blockDim.x) {
        parts[i] = 0.0f;
    }
    for (int i = threadIdx.x; i < L::EXAMPLES * 4 * L::H; i += blockDim.x) {
        dz[i] = 0.0f;
    }
    for (int i = threadIdx.x; i < L::EXAMPLES * L::H; i += blockDim.x) {
        dc[i] = 0.0f;
    }
    __syncthreads();
    for (int t = L::TIME - 1; t >= 0; t--) {
        for (int i = threadIdx.x; i < count * L::H; i += blockDim.x) {
            int e = i / L::H, k = i % L::H;
            i64 at = (i64)(first + e) * L::TIME + t;
            const float* gates = s.values + L::GATES + at * 4 * L::H;
            float* to = s.gradients + L::GATES + at * 4 * L::H;
            const float* cell = cells + at * 2 * L::H;
            float in = gates[k], forget = gates[L::H + k], candidate = gates[2 * L::H + k], out = gates[3 * L::H + k];
            float before = t > 0 ? cell[k - 2 * L::H] : 0.0f, c_tanh = cell[L::H + k];
            float dh = s.gradients[L::OUT + at * L::H + k];
            for (int part = 0; part < PARTS; part++) {
                dh += parts[(part * L::EXAMPLES + e) * L::H + k];
            }
            float cell_gradient = fmaf(dh * out, 1.0f - c_tanh * c_tanh, dc[i]);
            float* own = dz + e * 4 * L::H;
            own[k] = cell_gradient * candidate * (in * (1.0f - in));
            own[L::H + k] = cell_gradient * before * (forget * (1.0f - forget));
            own[2 * L::H + k] = cell_gradient * in * (1.0f - candidate * candidate);
            own[3 * L::H + k] = dh * c_tanh * (out * (1.0f - out));
            dc[i] = cell_gradient * forget;
            for (int gate = 0; gate < 4; gate++) {
                to[gate * L::H + k] = own[gate * L::H + k];
            }
        }
        __syncthreads();
        for (int i = threadIdx.x; i < PARTS * L::H; i += blockDim.x) {
            int part = i / L::H, k = i % L::H;
            float sums[L::EXAMPLES];
#pragma unroll
            for (int e = 0; e < L::EXAMPLES; e++) {
                sums[e] = 0.0f;
            }
            for (int row = part * L::H; row < (part + 1) * L::H; row++) {
                float weight = w[row * R::PITCH + k];
#pragma unroll
                for (int e = 0; e < L::EXAMPLES; e++) {
                    sums[e] = fmaf(weight, dz[e * 4 * L::H + row], sums[e]);
                }
            }
#pragma unroll
            for (int e = 0; e < L::EXAMPLES; e++) {
                parts[(part * L::EXAMPLES + e) * L::H + k] = sums[e];
            }
        }
        __syncthreads();
    }
}
