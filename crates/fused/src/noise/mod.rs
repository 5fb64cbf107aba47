//! Gaussian noise: ChaCha by counter, Box-Muller, in vector lanes.
//!
//! # The stream
//!
//! A step of training has its own stream of standard normals, and normal i of it belongs to parameter i. So the numbers
//! depend on the key, the step and the index alone: not on the thread that draws them, nor on their number, nor on the
//! width of the machine's vectors. A CUDA kernel can draw the same.
//!
//! The stream is cut into groups of [`GROUP`] = 256 normals. Group g holds the 16 ChaCha blocks with the counters
//! 16 g to 16 g + 15: lane j of the group is block 16 g + j, row w of its lanes are the words w of the 16 blocks. The
//! state of a block is Bernstein's: four words of constants, eight of the key, two of the counter and two of the step,
//! low words first. Rows w and w + 8, for w from 0 to 7, are the radius and the angle of a Box-Muller transform, whose
//! cosine goes to row w and whose sine goes to row w + 8 of the normals. Normal 256 g + 16 row + lane is what stands in
//! that row and lane.
//!
//! [`box_muller`] says how two words become two normals, and how exactly. All it does is integer operations and
//! correctly rounded ones of IEEE 754, so instruction sets with a fused multiply-add (AVX2, AVX-512, NEON, CUDA) give
//! the same bits. Without one (the portable code on x86-64) the polynomials round twice where they would round once,
//! and the last bits may differ.
//!
//! # Which ChaCha
//!
//! Eight rounds: published attacks on the 256-bit key stop short of that (Aumasson, "Too much crypto", 2019), even for
//! an adversary who sees the stream itself; here it is added to a sum of gradients. Twelve and twenty rounds are a type
//! away: [`Key::with_rounds`].
//!
//! The normals are 32-bit floats and are added to 32-bit floats. As with all DP-SGD that is trained in floating point,
//! the guarantee is that of the real numbers they approximate (Mironov, "On significance of the least significant bits
//! for differential privacy", CCS 2012).

mod box_muller;
mod chacha;
mod key;

pub use box_muller::box_muller;
pub use key::Key;

use crate::simd::{Isa, Kernel};

/// Normals in a group: the unit in which the stream is drawn.
pub const GROUP: usize = 256;

/// Blocks of ChaCha in a group, and the lanes of its rows.
const BLOCKS: usize = 16;

/// Rows of a group: one of radii and one of angles give two of normals.
const ROWS: usize = GROUP / BLOCKS;

/// Draws group `group`, below 2^60, of the stream of `step`: the normals 256 `group` to 256 `group` + 255.
#[inline(always)]
pub fn group<I: Isa, const ROUNDS: usize>(
    isa: I,
    key: &Key<ROUNDS>,
    step: u64,
    group: u64,
    normals: &mut [f32; GROUP],
) {
    const { assert!(BLOCKS.is_multiple_of(I::LANES), "vectors fill the rows") };
    for lane in (0..BLOCKS).step_by(I::LANES) {
        let rows = chacha::blocks(isa, key, step, first_block(group) + lane as u64);
        let (radii, angles) = rows.split_at(ROWS / 2);
        let mut reduced = [(isa.splat(0.0), isa.splat(0.0)); ROWS / 2];
        for (reduced, &word) in reduced.iter_mut().zip(radii) {
            *reduced = box_muller::reduce(isa, word);
        }
        let mut lengths = [isa.splat(0.0); ROWS / 2];
        for (length, &(t, most)) in lengths.iter_mut().zip(&reduced) {
            *length = box_muller::length(isa, t, most);
        }
        for (row, (&length, &word)) in lengths.iter().zip(angles).enumerate() {
            let (cosine, sine) = box_muller::turn(isa, length, word);
            // SAFETY: a row has BLOCKS numbers, of which those from `lane` on fill a vector; both rows are below ROWS.
            unsafe {
                isa.store(normals.as_mut_ptr().add(row * BLOCKS + lane), cosine);
                isa.store(normals.as_mut_ptr().add((row + ROWS / 2) * BLOCKS + lane), sine);
            }
        }
    }
}

/// The random words behind [`group`], row by row.
#[inline(always)]
pub fn words<I: Isa, const ROUNDS: usize>(isa: I, key: &Key<ROUNDS>, step: u64, group: u64, words: &mut [u32; GROUP]) {
    const { assert!(BLOCKS.is_multiple_of(I::LANES), "vectors fill the rows") };
    for lane in (0..BLOCKS).step_by(I::LANES) {
        let rows = chacha::blocks(isa, key, step, first_block(group) + lane as u64);
        for (row, &vector) in rows.iter().enumerate() {
            // SAFETY: a row has BLOCKS words, of which those from `lane` on fill a vector. Words are as large as
            // numbers, and only their bits are moved.
            unsafe { isa.store(words.as_mut_ptr().add(row * BLOCKS + lane).cast(), isa.from_bits(vector)) };
        }
    }
}

/// Counter of the first block of a group.
#[inline(always)]
fn first_block(group: u64) -> u64 {
    debug_assert!(group < 1 << 60, "a stream ends after 2^60 groups");
    group.wrapping_mul(BLOCKS as u64)
}

/// Fills `normals` with those of the stream of `step` from number `start` on.
pub fn fill<I: Isa, const ROUNDS: usize>(isa: I, key: &Key<ROUNDS>, step: u64, start: u64, normals: &mut [f32]) {
    isa.dispatch(Fill { key, step, start, normals });
}

struct Fill<'a, const ROUNDS: usize> {
    key: &'a Key<ROUNDS>,
    step: u64,
    start: u64,
    normals: &'a mut [f32],
}

impl<const ROUNDS: usize> Kernel for Fill<'_, ROUNDS> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let mut next = self.start / GROUP as u64;
        let mut skip = (self.start % GROUP as u64) as usize;
        let mut rest = self.normals;
        let mut drawn = [0.0; GROUP];
        while !rest.is_empty() {
            let count = rest.len().min(GROUP - skip);
            let (now, later) = rest.split_at_mut(count);
            group(isa, self.key, self.step, next, &mut drawn);
            now.copy_from_slice(&drawn[skip..skip + count]);
            (next, skip, rest) = (next + 1, 0, later);
        }
    }
}
