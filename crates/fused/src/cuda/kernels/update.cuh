// The end of a step: noise and update in one pass, noise never in memory.

// theta <- theta - rate (sum + noise z) for the parameter that a normal belongs to.
__device__ inline void update_one(const Step& s, const Varying& now, u64 normal, float z) {
    if (normal >= PARAMETERS) return;
    u32 at = s.order[normal];
    float change = __fmul_rn(now.noise, z);
    if (now.examples > 0) {
        change = __fadd_rn(change, s.sums[at]);
    }
    s.theta[at] = __fmaf_rn(-now.rate, change, s.theta[at]);
}

// A thread draws one block of ChaCha: sixteen normals, sixteen apart. Items are blocks.
__device__ inline void update(const Step& s) {
    Span span = of_grid();
    const Varying now = *s.varying;
    constexpr u64 BLOCKS = ((u64)PARAMETERS + 255) / 256 * 16;
    for (u64 block = span.first; block < BLOCKS; block += span.stride) {
        u64 first = block / 16 * 256 + block % 16;
        u32 words[16];
        if (now.noise != 0.0f) {
            chacha_block(s.key, now.number, block, words);
        }
#pragma unroll
        for (int row = 0; row < 8; row++) {
            float one = 0.0f, other = 0.0f;
            if (now.noise != 0.0f) {
                box_muller(words[row], words[row + 8], one, other);
            }
            update_one(s, now, first + 16 * row, one);
            update_one(s, now, first + 16 * (row + 8), other);
        }
    }
}
