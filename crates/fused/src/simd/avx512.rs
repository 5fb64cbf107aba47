//! AVX-512 F and DQ: 16 lanes, 32 registers, a mask register per comparison.

use std::arch::x86_64::*;

use super::{Isa, Kernel};

/// Proof that the machine has AVX-512 F and DQ.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

/// Methods that are one intrinsic on registers.
macro_rules! registers {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $output:ty = $value:expr;)*) => {
        $(#[inline(always)]
        fn $name(self, $($argument: $kind),*) -> $output {
            // SAFETY: `self` proves that the machine has AVX-512 F and DQ; the intrinsics only touch registers.
            unsafe { $value }
        })*
    };
}

/// The mask of the first 0 to 16 lanes.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    debug_assert!(count <= 16);
    ((1u32 << count) - 1) as __mmask16
}

#[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
fn with_features<K: Kernel>(isa: Avx512, kernel: K) -> K::Output {
    kernel.run(isa)
}

// SAFETY: `detect` asks the processor, and nothing else makes an `Avx512`.
unsafe impl Isa for Avx512 {
    type F32 = __m512;
    type U32 = __m512i;
    type Mask = __mmask16;

    const LANES: usize = 16;
    const REGISTERS: usize = 32;
    const ROWS: [usize; 3] = [10, 8, 8];
    const VECTORS: usize = 3;
    const NAME: &'static str = "AVX-512";

    fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma");
        has.then_some(Avx512(()))
    }

    #[inline(always)]
    fn dispatch<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` proves that the machine has the features.
        unsafe { with_features(self, kernel) }
    }

    registers! {
        splat(value: f32) -> __m512 = _mm512_set1_ps(value);
        add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        mul_add(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        min(a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
        sqrt(a: __m512) -> __m512 = _mm512_sqrt_ps(a);
        sum(a: __m512) -> f32 = _mm512_reduce_add_ps(a);
        gt(a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b);
        eq(a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b);
        unordered(a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, b);
        only(mask: __mmask16, a: __m512) -> __m512 = _mm512_maskz_mov_ps(mask, a);
        select(mask: __mmask16, a: __m512, b: __m512) -> __m512 = _mm512_mask_blend_ps(mask, b, a);
        splat_u32(value: u32) -> __m512i = _mm512_set1_epi32(value as i32);
        count_from(first: u32) -> __m512i = _mm512_add_epi32(
            _mm512_set1_epi32(first as i32),
            _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
        );
        add_u32(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(a, b);
        sub_u32(a: __m512i, b: __m512i) -> __m512i = _mm512_sub_epi32(a, b);
        xor(a: __m512i, b: __m512i) -> __m512i = _mm512_xor_si512(a, b);
        and(a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
        high_bit(a: __m512i) -> __mmask16 = _mm512_movepi32_mask(a);
        bits(a: __m512) -> __m512i = _mm512_castps_si512(a);
        from_bits(a: __m512i) -> __m512 = _mm512_castsi512_ps(a);
        from_i32(a: __m512i) -> __m512 = _mm512_cvtepi32_ps(a);
        to_i32(a: __m512) -> __m512i = _mm512_cvtps_epi32(a);
    }

    #[inline(always)]
    fn sums(self, [a, b, c, d]: [__m512; 4]) -> [f32; 4] {
        let mut sums = [0.0; 4];
        // SAFETY: `self` proves that the machine has AVX-512 F and DQ; four numbers are stored where there are four.
        unsafe {
            let a = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let b = _mm256_add_ps(_mm512_castps512_ps256(b), _mm512_extractf32x8_ps::<1>(b));
            let c = _mm256_add_ps(_mm512_castps512_ps256(c), _mm512_extractf32x8_ps::<1>(c));
            let d = _mm256_add_ps(_mm512_castps512_ps256(d), _mm512_extractf32x8_ps::<1>(d));
            let pairs = (_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
            let quarters = _mm256_hadd_ps(pairs.0, pairs.1);
            let all = _mm_add_ps(_mm256_castps256_ps128(quarters), _mm256_extractf128_ps::<1>(quarters));
            _mm_storeu_ps(sums.as_mut_ptr(), all);
        }
        sums
    }

    #[inline(always)]
    fn both(self, a: __mmask16, b: __mmask16) -> __mmask16 {
        a & b
    }

    #[inline(always)]
    fn either(self, a: __mmask16, b: __mmask16) -> __mmask16 {
        a | b
    }

    #[inline(always)]
    fn and_not(self, a: __mmask16, b: __mmask16) -> __mmask16 {
        a & !b
    }

    #[inline(always)]
    fn none(self) -> __mmask16 {
        0
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        // SAFETY: `self` proves AVX-512; the caller vouches for the 16 numbers.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: __m512) {
        // SAFETY: `self` proves AVX-512; the caller vouches for the 16 numbers.
        unsafe { _mm512_storeu_ps(to, value) }
    }

    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, count: usize) -> __m512 {
        // SAFETY: `self` proves AVX-512; masked-out lanes are not touched, the caller vouches for the others.
        unsafe { _mm512_maskz_loadu_ps(first(count), from) }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, value: __m512, count: usize) {
        // SAFETY: `self` proves AVX-512; masked-out lanes are not touched, the caller vouches for the others.
        unsafe { _mm512_mask_storeu_ps(to, first(count), value) }
    }

    #[inline(always)]
    fn rotate_left<const BITS: i32>(self, a: __m512i) -> __m512i {
        // SAFETY: `self` proves that the machine has AVX-512; the intrinsic only touches registers.
        unsafe { _mm512_rol_epi32::<BITS>(a) }
    }

    #[inline(always)]
    fn shift_left<const BITS: i32>(self, a: __m512i) -> __m512i {
        // SAFETY: `self` proves that the machine has AVX-512; the intrinsic only touches registers.
        unsafe { _mm512_sll_epi32(a, _mm_cvtsi32_si128(BITS)) }
    }

    #[inline(always)]
    fn shift_right<const BITS: i32>(self, a: __m512i) -> __m512i {
        // SAFETY: `self` proves that the machine has AVX-512; the intrinsic only touches registers.
        unsafe { _mm512_srl_epi32(a, _mm_cvtsi32_si128(BITS)) }
    }
}
