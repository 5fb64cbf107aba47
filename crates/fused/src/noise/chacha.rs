//! ChaCha (Bernstein, "ChaCha, a variant of Salsa20", 2008), a block per lane.

use super::Key;
use crate::simd::Isa;

/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// The blocks with the counters `first` to `first` + [`Isa::LANES`] - 1, which differ in their low 32 bits only: row w
/// holds word w of each.
#[inline(always)]
pub(super) fn blocks<I: Isa, const ROUNDS: usize>(isa: I, key: &Key<ROUNDS>, step: u64, first: u64) -> [I::U32; 16] {
    debug_assert!(first as u32 <= u32::MAX - (I::LANES as u32 - 1), "the high word of the counter is the same for all");
    let [c0, c1, c2, c3] = CONSTANTS;
    let [k0, k1, k2, k3, k4, k5, k6, k7] = *key.words();
    let (high, step_low, step_high) = ((first >> 32) as u32, step as u32, (step >> 32) as u32);
    let counters = isa.count_from(first as u32);

    // Only the counter's low word differs between lanes. So three columns of the first round are the same for all, and
    // are computed once, and the other column's first addition.
    let [x1, x5, x9, x13] = scalar_quarter_round([c1, k1, k5, high]);
    let [x2, x6, x10, x14] = scalar_quarter_round([c2, k2, k6, step_low]);
    let [x3, x7, x11, x15] = scalar_quarter_round([c3, k3, k7, step_high]);
    let begun = [c0.wrapping_add(k0), x1, x2, x3, k0, x5, x6, x7, k4, x9, x10, x11, 0, x13, x14, x15];
    let mut rows = [counters; 16];
    for (row, (vector, &word)) in rows.iter_mut().zip(&begun).enumerate() {
        if row != 12 {
            *vector = isa.splat_u32(word);
        }
    }
    finish_quarter_round(isa, &mut rows, [0, 4, 8, 12]);
    diagonal_round(isa, &mut rows);
    for _ in 1..ROUNDS / 2 {
        column_round(isa, &mut rows);
        diagonal_round(isa, &mut rows);
    }

    let start = [c0, c1, c2, c3, k0, k1, k2, k3, k4, k5, k6, k7, 0, high, step_low, step_high];
    for (row, (vector, &word)) in rows.iter_mut().zip(&start).enumerate() {
        let word = if row == 12 { counters } else { isa.splat_u32(word) };
        *vector = isa.add_u32(*vector, word);
    }
    rows
}

#[inline(always)]
fn column_round<I: Isa>(isa: I, rows: &mut [I::U32; 16]) {
    quarter_rounds(isa, rows, [[0, 4, 8, 12], [1, 5, 9, 13]]);
    quarter_rounds(isa, rows, [[2, 6, 10, 14], [3, 7, 11, 15]]);
}

#[inline(always)]
fn diagonal_round<I: Isa>(isa: I, rows: &mut [I::U32; 16]) {
    quarter_rounds(isa, rows, [[0, 5, 10, 15], [1, 6, 11, 12]]);
    quarter_rounds(isa, rows, [[2, 7, 8, 13], [3, 4, 9, 14]]);
}

#[inline(always)]
fn quarter_rounds<I: Isa>(isa: I, rows: &mut [I::U32; 16], [first, second]: [[usize; 4]; 2]) {
    add_xor_rotate::<I, 16>(isa, rows, first[0], first[1], first[3]);
    add_xor_rotate::<I, 16>(isa, rows, second[0], second[1], second[3]);
    add_xor_rotate::<I, 12>(isa, rows, first[2], first[3], first[1]);
    add_xor_rotate::<I, 12>(isa, rows, second[2], second[3], second[1]);
    add_xor_rotate::<I, 8>(isa, rows, first[0], first[1], first[3]);
    add_xor_rotate::<I, 8>(isa, rows, second[0], second[1], second[3]);
    add_xor_rotate::<I, 7>(isa, rows, first[2], first[3], first[1]);
    add_xor_rotate::<I, 7>(isa, rows, second[2], second[3], second[1]);
}

/// a += b, d = (d ^ a) <<< `BITS`: a fourth of a quarter round.
#[inline(always)]
fn add_xor_rotate<I: Isa, const BITS: i32>(isa: I, rows: &mut [I::U32; 16], a: usize, b: usize, d: usize) {
    rows[a] = isa.add_u32(rows[a], rows[b]);
    rows[d] = isa.rotate_left::<BITS>(isa.xor(rows[d], rows[a]));
}

/// A quarter round whose first addition is done.
#[inline(always)]
fn finish_quarter_round<I: Isa>(isa: I, rows: &mut [I::U32; 16], [a, b, c, d]: [usize; 4]) {
    rows[d] = isa.rotate_left::<16>(isa.xor(rows[d], rows[a]));
    add_xor_rotate::<I, 12>(isa, rows, c, d, b);
    add_xor_rotate::<I, 8>(isa, rows, a, b, d);
    add_xor_rotate::<I, 7>(isa, rows, c, d, b);
}

#[inline(always)]
fn scalar_quarter_round([mut a, mut b, mut c, mut d]: [u32; 4]) -> [u32; 4] {
    a = a.wrapping_add(b);
    d = (d ^ a).rotate_left(16);
    c = c.wrapping_add(d);
    b = (b ^ c).rotate_left(12);
    a = a.wrapping_add(b);
    d = (d ^ a).rotate_left(8);
    c = c.wrapping_add(d);
    b = (b ^ c).rotate_left(7);
    [a, b, c, d]
}
