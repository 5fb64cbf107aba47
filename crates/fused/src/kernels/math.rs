//! Exponential functions on vectors.

use crate::simd::Isa;

/// e^x, to 2 ulp; inputs are limited to where the result is a normal number (-87.3 to 88.3). NaN gives NaN.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2, and e^r by its polynomial of degree 6 (Cephes' coefficients).
#[inline(always)]
pub fn exp<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let x = isa.min(isa.splat(88.3), isa.max(isa.splat(-87.3), x));
    let n = isa.to_i32(isa.mul(x, isa.splat(std::f32::consts::LOG2_E)));
    let whole = isa.from_i32(n);
    // ln 2 in two parts, the first with few enough bits that n times it is exact.
    let r = isa.mul_add(whole, isa.splat(-0.693_359_4), x);
    let r = isa.mul_add(whole, isa.splat(2.121_944_4e-4), r);
    let mut p = isa.splat(1.987_569_1e-4);
    p = isa.mul_add(p, r, isa.splat(1.398_199_9e-3));
    p = isa.mul_add(p, r, isa.splat(8.333_452e-3));
    p = isa.mul_add(p, r, isa.splat(4.166_579_6e-2));
    p = isa.mul_add(p, r, isa.splat(1.666_666_5e-1));
    p = isa.mul_add(p, r, isa.splat(0.5));
    p = isa.mul_add(isa.mul(r, r), p, isa.add(r, isa.splat(1.0)));
    let exponent = isa.shift_left::<23>(isa.add_u32(n, isa.splat_u32(127)));
    isa.mul(p, isa.from_bits(exponent))
}

/// 1 / (1 + e^-x), to 3 ulp where it is a normal number.
#[inline(always)]
pub fn sigmoid<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let e = exp(isa, isa.sub(isa.splat(0.0), x));
    isa.div(isa.splat(1.0), isa.add(isa.splat(1.0), e))
}

/// tanh x, to 8 ulp: an odd rational function of degree 13 over 6 on -7.9 to 7.9 (Eigen's `ptanh`), beyond which it is 1
/// in f32.
#[inline(always)]
pub fn tanh<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let x = isa.min(isa.splat(7.905_311), isa.max(isa.splat(-7.905_311), x));
    let square = isa.mul(x, x);
    let mut p = isa.splat(-2.760_768_5e-16);
    p = isa.mul_add(square, p, isa.splat(2.000_188e-13));
    p = isa.mul_add(square, p, isa.splat(-8.604_672e-11));
    p = isa.mul_add(square, p, isa.splat(5.122_297_1e-8));
    p = isa.mul_add(square, p, isa.splat(1.485_722_4e-5));
    p = isa.mul_add(square, p, isa.splat(6.372_619_3e-4));
    p = isa.mul_add(square, p, isa.splat(4.893_525e-3));
    let mut q = isa.splat(1.198_258_4e-6);
    q = isa.mul_add(square, q, isa.splat(1.185_347e-4));
    q = isa.mul_add(square, q, isa.splat(2.268_434_6e-3));
    q = isa.mul_add(square, q, isa.splat(4.893_525e-3));
    isa.div(isa.mul(x, p), q)
}
