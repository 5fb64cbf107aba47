// Inputs, ReLUs, pools and losses, for the threads of a grid or of a block. A struct of constants `L` describes each operation.

// Copies the chunk's examples out of the data set. Items are numbers.
template <class L>
__device__ inline void gather(const Step& s, Span span) {
    for (i64 i = span.first; i < (i64)s.examples * L::LENGTH; i += span.stride) {
        i64 row = s.rows[s.first + i / L::LENGTH];
        s.values[L::OUT + i] = s.inputs[row * L::LENGTH + i % L::LENGTH];
    }
}

template <class L>
__device__ inline void relu_forward(const Step& s, Span span) {
    for (i64 i = span.first; i < (i64)s.examples * L::LENGTH; i += span.stride) {
        s.values[L::OUT + i] = relu(s.values[L::IN + i]);
    }
}

// A ReLU's input is at most 0 where its output is, also where the input came out of another.
template <class L>
__device__ inline void relu_backward(const Step& s, Span span) {
    for (i64 i = span.first; i < (i64)s.examples * L::LENGTH; i += span.stride) {
        s.gradients[L::IN + i] = s.values[L::OUT + i] <= 0.0f ? 0.0f : s.gradients[L::OUT + i];
    }
}

// Windows KH x KW with strides SH, SW on [C][H][W], or on [H][C] (`SEQUENCE`, W = 1). Items are outputs, channel by channel.
// `marks` get the pixel that a maximum came from: the first in row-major order; a NaN wins.
template <class L>
__device__ inline int pool_pixel(int c, int pixel) {
    return L::SEQUENCE ? pixel * L::C + c : c * L::H * L::W + pixel;
}

template <class L>
__device__ inline void pool_forward(const Step& s, Span span) {
    constexpr int OUTPUTS = L::C * L::OH * L::OW;
    for (i64 i = span.first; i < (i64)s.examples * OUTPUTS; i += span.stride) {
        const float* x = s.values + L::IN + i / OUTPUTS * L::C * L::H * L::W;
        int c = (int)(i % OUTPUTS) / (L::OH * L::OW), window = (int)(i % OUTPUTS) % (L::OH * L::OW);
        int corner = window / L::OW * L::SH * L::W + window % L::OW * L::SW;
        int best = corner;
        float largest = x[pool_pixel<L>(c, corner)], sum = 0.0f;
        for (int row = 0; row < L::KH; row++) {
            for (int column = 0; column < L::KW; column++) {
                int pixel = corner + row * L::W + column;
                float value = x[pool_pixel<L>(c, pixel)];
                sum += value;
                if (value > largest || value != value) {
                    largest = value;
                    best = pixel;
                }
            }
        }
        s.values[L::OUT + i] = L::IS_MAX ? largest : sum / (float)(L::KH * L::KW);
        if (L::IS_MAX) {
            s.marks[L::MARKS + i] = best;
        }
    }
}

// Items are inputs: each adds up what the windows that it is in give it.
template <class L>
__device__ inline void pool_backward(const Step& s, Span span) {
    constexpr int INPUTS = L::C * L::H * L::W;
    for (i64 i = span.first; i < (i64)s.examples * INPUTS; i += span.stride) {
        int at = (int)(i % INPUTS);
        int c = L::SEQUENCE ? at % L::C : at / (L::H * L::W), pixel = L::SEQUENCE ? at / L::C : at % (L::H * L::W);
        int y = pixel / L::W, x = pixel % L::W;
        i64 outputs = (i / INPUTS * L::C + c) * (L::OH * L::OW);
        int first_row = y < L::KH ? 0 : (y - L::KH) / L::SH + 1, last_row = min(y / L::SH, L::OH - 1);
        int first_column = x < L::KW ? 0 : (x - L::KW) / L::SW + 1, last_column = min(x / L::SW, L::OW - 1);
        float sum = 0.0f;
        for (int row = first_row; row <= last_row; row++) {
            for (int column = first_column; column <= last_column; column++) {
                i64 output = outputs + row * L::OW + column;
                float gradient = s.gradients[L::OUT + output];
                if (!L::IS_MAX) {
                    sum += gradient / (float)(L::KH * L::KW);
                } else if (s.marks[L::MARKS + output] == pixel) {
                    sum += gradient;
                }
            }
        }
        s.gradients[L::IN + i] = L::RELU_IN && s.values[L::IN + i] <= 0.0f ? 0.0f : sum;
    }
}

// The gradient of the loss; masked where the outputs come out of a ReLU. Items are examples.
template <class L>
__device__ inline void loss_gradient(const Step& s, Span span) {
    for (i64 example = span.first; example < s.examples; example += span.stride) {
        const float* y = s.values + L::OUT + example * L::LENGTH;
        float* dy = s.gradients + L::OUT + example * L::LENGTH;
        u32 row = s.rows[s.first + example];
        if (L::KIND == 0) {
            // Softmax minus one-hot: that of the class is minus the sum of the others, which does not cancel.
            float largest = y[0], sum = 0.0f, others = 0.0f;
            for (int k = 1; k < L::LENGTH; k++) {
                largest = fmaxf(largest, y[k]);
            }
            for (int k = 0; k < L::LENGTH; k++) {
                float power = expf(y[k] - largest);
                dy[k] = power;
                sum += power;
            }
            int own = s.classes[row];
            for (int k = 0; k < L::LENGTH; k++) {
                float share = dy[k] / sum;
                dy[k] = share;
                others += k == own ? 0.0f : share;
            }
            dy[own] = sum != sum ? sum : -others;
        } else if (L::KIND == 1) {
            float target = s.targets[row];
            dy[0] = (1.0f - target) / (1.0f + expf(-y[0])) - target / (1.0f + expf(y[0]));
        } else {
            dy[0] = 2.0f * (y[0] - s.targets[row]);
        }
        for (int k = 0; L::RELU && k < L::LENGTH; k++) {
            dy[k] = y[k] <= 0.0f ? 0.0f : dy[k];
        }
    }
}
