//! The key of the noise.

use std::fmt;
use std::io;

/// A key for ChaCha of `ROUNDS` rounds: 8 unless [`Key::with_rounds`] says otherwise.
///
/// It is secret: who knows it can subtract the noise. It has no way to be printed.
#[derive(Clone)]
pub struct Key<const ROUNDS: usize = 8> {
    words: [u32; 8],
}

impl Key {
    /// A key from the operating system's random numbers: the one to train with.
    pub fn from_os() -> io::Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)
            .map_err(|error| io::Error::other(format!("the system gives no random numbers for the noise: {error}")))?;
        Ok(Self::from_bytes(bytes))
    }

    /// The key of a fixed seed, for benchmarks and tests: whoever knows the seed knows the noise.
    ///
    /// The four 64-bit numbers that SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
    /// generators", OOPSLA 2014) gives from the seed on, low words first.
    pub fn from_seed(seed: u64) -> Self {
        let mut words = [0; 8];
        let mut state = seed;
        for pair in words.chunks_exact_mut(2) {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^= mixed >> 31;
            pair.copy_from_slice(&[mixed as u32, (mixed >> 32) as u32]);
        }
        Self { words }
    }

    /// The key of these bytes, its words in little-endian order as everywhere with ChaCha.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Self { words }
    }
}

impl<const ROUNDS: usize> Key<ROUNDS> {
    /// The same key for another number of rounds: 8, 12 or 20. The streams have nothing in common.
    pub fn with_rounds<const OTHER: usize>(&self) -> Key<OTHER> {
        const { assert!(matches!(OTHER, 8 | 12 | 20), "ChaCha has 8, 12 or 20 rounds") };
        Key { words: self.words }
    }

    /// The eight words, for kernels that run elsewhere.
    #[inline(always)]
    pub fn words(&self) -> &[u32; 8] {
        &self.words
    }
}

impl<const ROUNDS: usize> fmt::Debug for Key<ROUNDS> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Key(secret, ChaCha{ROUNDS})")
    }
}
