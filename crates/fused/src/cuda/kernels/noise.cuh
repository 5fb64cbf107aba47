// The stream of normals that the processor draws too: see `src/noise`. ChaCha with 8 rounds in counter mode, then Box-Muller
// by operations that are rounded once each, so that both give the same bits.

__device__ inline u32 rotate(u32 x, int bits) {
    return (x << bits) | (x >> (32 - bits));
}

__device__ inline void quarter_round(u32& a, u32& b, u32& c, u32& d) {
    a += b; d = rotate(d ^ a, 16);
    c += d; b = rotate(b ^ c, 12);
    a += b; d = rotate(d ^ a, 8);
    c += d; b = rotate(b ^ c, 7);
}

// The sixteen words of block `counter` of the stream of step `step`.
__device__ inline void chacha_block(const u32 (&key)[8], u64 step, u64 counter, u32 (&words)[16]) {
    u32 start[16] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u,
                     key[0], key[1], key[2], key[3], key[4], key[5], key[6], key[7],
                     (u32)counter, (u32)(counter >> 32), (u32)step, (u32)(step >> 32)};
#pragma unroll
    for (int i = 0; i < 16; i++) {
        words[i] = start[i];
    }
#pragma unroll
    for (int round = 0; round < 4; round++) {
        quarter_round(words[0], words[4], words[8], words[12]);
        quarter_round(words[1], words[5], words[9], words[13]);
        quarter_round(words[2], words[6], words[10], words[14]);
        quarter_round(words[3], words[7], words[11], words[15]);
        quarter_round(words[0], words[5], words[10], words[15]);
        quarter_round(words[1], words[6], words[11], words[12]);
        quarter_round(words[2], words[7], words[8], words[13]);
        quarter_round(words[3], words[4], words[9], words[14]);
    }
#pragma unroll
    for (int i = 0; i < 16; i++) {
        words[i] += start[i];
    }
}

// Two words to two normals: sqrt(-2 ln u) times the cosine and the sine of an angle. The stages and polynomials are those of
// `src/noise/box_muller.rs`.
__device__ inline void box_muller(u32 radius, u32 angle, float& first, float& second) {
    // u = (radius + 0.5) / 2^32 is 2^k (1 + t).
    float high = __int2float_rn((int)(radius >> 16));
    float low = __fmaf_rn(__int2float_rn((int)(radius & 0xffffu)), 1.0f / 65536.0f, 0.5f / 65536.0f);
    u32 exponent = (u32)__float_as_int(__fadd_rn(high, low)) - (u32)__float_as_int(65536.0f * 2.0f / 3.0f);
    exponent &= 0xff800000u;
    float scale = __int_as_float((int)((u32)__float_as_int(1.0f / 65536.0f) - exponent));
    float t = __fmaf_rn(low, scale, __fmaf_rn(high, scale, -1.0f));
    float most = __fmaf_rn(__int2float_rn((int)exponent), -2.0f * 0.693147180559945309f / 8388608.0f, __fmul_rn(t, -2.0f));
    // -2 ln u is `most` and the higher powers of t.
    float t2 = __fmul_rn(t, t);
    float p2 = __fmaf_rn(t, -0.6666644f, 0.99999756f);
    float p4 = __fmaf_rn(t, -0.40021753f, 0.5002384f);
    float p6 = __fmaf_rn(t, -0.2798012f, 0.32685015f);
    float p8 = __fmaf_rn(t, -0.28174555f, 0.31530985f);
    float t4 = __fmul_rn(t2, t2);
    p2 = __fmaf_rn(p4, t2, p2);
    p6 = __fmaf_rn(p8, t2, p6);
    p2 = __fmaf_rn(p6, t4, p2);
    float length = __fsqrt_rn(__fmaf_rn(t2, p2, most));
    // The lower 31 bits give x from -pi/4 to pi/4; bit 31 swaps the axes, bit 0 turns by half a circle.
    float x = __fmul_rn(__int2float_rn((int)(angle << 1)), 3.14159265358979323846f / 8589934592.0f);
    float x2 = __fmul_rn(x, x);
    float cosine = __fmaf_rn(x2, 2.4438452e-5f, -0.0013887368f);
    cosine = __fmaf_rn(cosine, x2, 0.041666646f);
    cosine = __fmaf_rn(cosine, x2, -0.5f);
    cosine = __fmaf_rn(cosine, x2, 1.0f);
    float sine = __fmaf_rn(x2, -0.000195173f, 0.008332178f);
    sine = __fmaf_rn(sine, x2, -0.16666655f);
    sine = __fmaf_rn(sine, __fmul_rn(x2, x), x);
    length = __int_as_float((int)((u32)__float_as_int(length) ^ (angle << 31)));
    bool swap = (angle >> 31) != 0;
    first = __fmul_rn(length, swap ? sine : cosine);
    second = __fmul_rn(length, swap ? cosine : sine);
}
