//! Two random words to two normals (Box and Muller, "A note on the generation of random normal deviates", 1958), in
//! three stages. A kernel runs each stage over all rows before it begins the next: so the processor sees many short
//! chains at a time instead of few long ones, and a stage's constants fit the registers.

use std::f32::consts::{LN_2, PI};

use crate::simd::Isa;

/// Two independent standard normals of each two independent uniform words: the length sqrt(-2 ln u) of
/// u = (`radius` + 0.5) / 2^32, from 1.5e-5 to 6.76, times the cosine and the sine of `angle`.
///
/// Compared with the same in 64-bit floats, a normal is wrong by at most 5 units in the last place (found: 4.4) and
/// 1.5e-6 (found: 9e-7), with a fused multiply-add and without: tested at the edges of all ranges and for millions of
/// words. Most of that is the rounding of x, of the length and of their product: the polynomials are within 2^-24
/// (logarithm) and 2^-28 (sine and cosine) of their functions, relatively. None of the normals is infinite, NaN or
/// denormal: a sine is 0, of angles 0 and 2^31, or at least 2^-31.
#[inline(always)]
pub fn box_muller<I: Isa>(isa: I, radius: I::U32, angle: I::U32) -> (I::F32, I::F32) {
    let (t, most) = reduce(isa, radius);
    turn(isa, length(isa, t, most), angle)
}

/// The first stage: u = (word + 0.5) / 2^32 is 2^k (1 + t), with t from -1/3 to 1/3. Gives t and -2 k ln 2 - 2 t.
#[inline(always)]
pub(super) fn reduce<I: Isa>(isa: I, word: I::U32) -> (I::F32, I::F32) {
    // word + 0.5 = 65536 (high + low), both exact.
    let high = isa.from_i32(isa.shift_right::<16>(word));
    let low = isa.from_i32(isa.and(word, isa.splat_u32(0xffff)));
    let low = isa.mul_add(low, isa.splat(1.0 / 65536.0), isa.splat(0.5 / 65536.0));
    // The rounded sum is enough to choose k; t is made of the exact parts. `exponent` is 2^23 k.
    let sum = isa.bits(isa.add(high, low));
    let exponent = isa.sub_u32(sum, isa.splat_u32((65536.0_f32 * 2.0 / 3.0).to_bits()));
    let exponent = isa.and(exponent, isa.splat_u32(0xff80_0000));
    let scale = isa.from_bits(isa.sub_u32(isa.splat_u32((1.0_f32 / 65536.0).to_bits()), exponent));
    let t = isa.mul_add(high, scale, isa.splat(-1.0));
    let t = isa.mul_add(low, scale, t);
    (t, isa.mul_add(isa.from_i32(exponent), isa.splat(-2.0 * LN_2 / 8_388_608.0), isa.mul(t, isa.splat(-2.0))))
}

/// The second stage: sqrt(-2 ln u), where -2 ln u is `most` and the higher powers of t.
#[inline(always)]
pub(super) fn length<I: Isa>(isa: I, t: I::F32, most: I::F32) -> I::F32 {
    let [c2, c3, c4, c5, c6, c7, c8, c9] = LOGARITHM;
    let t2 = isa.mul(t, t);
    let p2 = isa.mul_add(t, isa.splat(c3), isa.splat(c2));
    let p4 = isa.mul_add(t, isa.splat(c5), isa.splat(c4));
    let p6 = isa.mul_add(t, isa.splat(c7), isa.splat(c6));
    let p8 = isa.mul_add(t, isa.splat(c9), isa.splat(c8));
    let t4 = isa.mul(t2, t2);
    let p2 = isa.mul_add(p4, t2, p2);
    let p6 = isa.mul_add(p8, t2, p6);
    let p2 = isa.mul_add(p6, t4, p2);
    isa.sqrt(isa.mul_add(t2, p2, most))
}

/// The third stage: `length` times the cosine and the sine of the angle.
///
/// The angle's lower 31 bits, as a signed number, give x from -pi/4 to pi/4. Bit 31 swaps the axes, bit 0 turns by half
/// a circle (it also is x's lowest bit, worth 2^-31 of a circle).
#[inline(always)]
pub(super) fn turn<I: Isa>(isa: I, length: I::F32, angle: I::U32) -> (I::F32, I::F32) {
    let x = isa.mul(isa.from_i32(isa.shift_left::<1>(angle)), isa.splat(PI / 8_589_934_592.0));
    let x2 = isa.mul(x, x);
    let [c0, c1, c2, c3] = COSINE;
    let cosine = isa.mul_add(x2, isa.splat(c3), isa.splat(c2));
    let cosine = isa.mul_add(cosine, x2, isa.splat(c1));
    let cosine = isa.mul_add(cosine, x2, isa.splat(c0));
    let cosine = isa.mul_add(cosine, x2, isa.splat(1.0));
    let [s0, s1, s2] = SINE;
    let sine = isa.mul_add(x2, isa.splat(s2), isa.splat(s1));
    let sine = isa.mul_add(sine, x2, isa.splat(s0));
    let sine = isa.mul_add(sine, isa.mul(x2, x), x);

    let length = isa.from_bits(isa.xor(isa.bits(length), isa.shift_left::<31>(angle)));
    let swap = isa.high_bit(angle);
    (isa.mul(length, isa.select(swap, sine, cosine)), isa.mul(length, isa.select(swap, cosine, sine)))
}

/// (-2 ln(1 + t) + 2 t) / t^2 in powers of t.
const LOGARITHM: [f32; 8] =
    [0.99999756, -0.6666644, 0.5002384, -0.40021753, 0.32685015, -0.2798012, 0.31530985, -0.28174555];
/// (cos x - 1) / x^2 in powers of x^2.
const COSINE: [f32; 4] = [-0.5, 0.041666646, -0.0013887368, 2.4438452e-5];
/// (sin x - x) / x^3 in powers of x^2.
const SINE: [f32; 3] = [-0.16666655, 0.008332178, -0.000195173];
