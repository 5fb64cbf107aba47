//! AVX2 with FMA: 8 lanes, 16 registers.

use std::arch::x86_64::*;

use super::{Isa, Kernel};

/// Proof that the machine has AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

/// Methods that are one intrinsic on registers.
macro_rules! registers {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $output:ty = $value:expr;)*) => {
        $(#[inline(always)]
        fn $name(self, $($argument: $kind),*) -> $output {
            // SAFETY: `self` proves that the machine has AVX2 and FMA; the intrinsics only touch registers.
            unsafe { $value }
        })*
    };
}

/// Lane masks for the first 0 to 8 lanes: read 8 from `8 - count` on.
static FIRST: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

#[inline(always)]
fn first(count: usize) -> __m256i {
    debug_assert!(count <= 8);
    // SAFETY: 8 numbers from 8 - count on lie within the 16; called only where there is an `Avx2`.
    unsafe { _mm256_loadu_si256(FIRST.as_ptr().add(8 - count).cast()) }
}

/// Both halves the same four numbers.
#[inline(always)]
fn repeated([a, b, c, d]: [i32; 4]) -> __m256i {
    // SAFETY: only registers are touched; called only where there is an `Avx2`.
    unsafe { _mm256_setr_epi32(a, b, c, d, a, b, c, d) }
}

#[target_feature(enable = "avx2,fma")]
fn with_features<K: Kernel>(isa: Avx2, kernel: K) -> K::Output {
    kernel.run(isa)
}

// SAFETY: `detect` asks the processor, and nothing else makes an `Avx2`.
unsafe impl Isa for Avx2 {
    type F32 = __m256;
    type U32 = __m256i;
    type Mask = __m256;

    const LANES: usize = 8;
    const REGISTERS: usize = 16;
    const ROWS: [usize; 3] = [8, 6, 0];
    const VECTORS: usize = 2;
    const NAME: &'static str = "AVX2+FMA";

    fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Avx2(()))
    }

    #[inline(always)]
    fn dispatch<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` proves that the machine has AVX2 and FMA.
        unsafe { with_features(self, kernel) }
    }

    registers! {
        splat(value: f32) -> __m256 = _mm256_set1_ps(value);
        add(a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
        sub(a: __m256, b: __m256) -> __m256 = _mm256_sub_ps(a, b);
        mul(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        div(a: __m256, b: __m256) -> __m256 = _mm256_div_ps(a, b);
        mul_add(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
        max(a: __m256, b: __m256) -> __m256 = _mm256_max_ps(a, b);
        min(a: __m256, b: __m256) -> __m256 = _mm256_min_ps(a, b);
        sqrt(a: __m256) -> __m256 = _mm256_sqrt_ps(a);
        gt(a: __m256, b: __m256) -> __m256 = _mm256_cmp_ps::<_CMP_GT_OQ>(a, b);
        eq(a: __m256, b: __m256) -> __m256 = _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b);
        unordered(a: __m256, b: __m256) -> __m256 = _mm256_cmp_ps::<_CMP_UNORD_Q>(a, b);
        both(a: __m256, b: __m256) -> __m256 = _mm256_and_ps(a, b);
        either(a: __m256, b: __m256) -> __m256 = _mm256_or_ps(a, b);
        and_not(a: __m256, b: __m256) -> __m256 = _mm256_andnot_ps(b, a);
        none() -> __m256 = _mm256_setzero_ps();
        only(mask: __m256, a: __m256) -> __m256 = _mm256_and_ps(mask, a);
        select(mask: __m256, a: __m256, b: __m256) -> __m256 = _mm256_blendv_ps(b, a, mask);
        splat_u32(value: u32) -> __m256i = _mm256_set1_epi32(value as i32);
        count_from(first: u32) -> __m256i =
            _mm256_add_epi32(_mm256_set1_epi32(first as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        add_u32(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi32(a, b);
        sub_u32(a: __m256i, b: __m256i) -> __m256i = _mm256_sub_epi32(a, b);
        xor(a: __m256i, b: __m256i) -> __m256i = _mm256_xor_si256(a, b);
        and(a: __m256i, b: __m256i) -> __m256i = _mm256_and_si256(a, b);
        high_bit(a: __m256i) -> __m256 = _mm256_castsi256_ps(_mm256_srai_epi32::<31>(a));
        bits(a: __m256) -> __m256i = _mm256_castps_si256(a);
        from_bits(a: __m256i) -> __m256 = _mm256_castsi256_ps(a);
        from_i32(a: __m256i) -> __m256 = _mm256_cvtepi32_ps(a);
        to_i32(a: __m256) -> __m256i = _mm256_cvtps_epi32(a);
        sum(a: __m256) -> f32 = {
            let halves = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let quarters = _mm_add_ps(halves, _mm_movehl_ps(halves, halves));
            _mm_cvtss_f32(_mm_add_ss(quarters, _mm_movehdup_ps(quarters)))
        };
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m256 {
        // SAFETY: `self` proves AVX2; the caller vouches for the 8 numbers.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: __m256) {
        // SAFETY: `self` proves AVX2; the caller vouches for the 8 numbers.
        unsafe { _mm256_storeu_ps(to, value) }
    }

    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, count: usize) -> __m256 {
        // SAFETY: `self` proves AVX2; masked-out lanes are not touched, the caller vouches for the others.
        unsafe { _mm256_maskload_ps(from, first(count)) }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, value: __m256, count: usize) {
        // SAFETY: `self` proves AVX2; masked-out lanes are not touched, the caller vouches for the others.
        unsafe { _mm256_maskstore_ps(to, first(count), value) }
    }

    #[inline(always)]
    fn rotate_left<const BITS: i32>(self, a: __m256i) -> __m256i {
        // SAFETY: `self` proves that the machine has AVX2; the intrinsics only touch registers.
        unsafe {
            // Whole bytes move in one shuffle.
            match BITS {
                16 => _mm256_shuffle_epi8(a, repeated([0x0100_0302, 0x0504_0706, 0x0908_0b0a, 0x0d0c_0f0e])),
                8 => _mm256_shuffle_epi8(a, repeated([0x0201_0003, 0x0605_0407, 0x0a09_080b, 0x0e0d_0c0f])),
                _ => _mm256_or_si256(
                    _mm256_sll_epi32(a, _mm_cvtsi32_si128(BITS)),
                    _mm256_srl_epi32(a, _mm_cvtsi32_si128(32 - BITS)),
                ),
            }
        }
    }

    #[inline(always)]
    fn shift_left<const BITS: i32>(self, a: __m256i) -> __m256i {
        // SAFETY: `self` proves that the machine has AVX2; the intrinsic only touches registers.
        unsafe { _mm256_slli_epi32::<BITS>(a) }
    }

    #[inline(always)]
    fn shift_right<const BITS: i32>(self, a: __m256i) -> __m256i {
        // SAFETY: `self` proves that the machine has AVX2; the intrinsic only touches registers.
        unsafe { _mm256_srli_epi32::<BITS>(a) }
    }
}
