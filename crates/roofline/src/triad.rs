//! The triad of STREAM (McCalpin, "Memory bandwidth and machine balance in current high performance computers", 1995):
//! `a[i] = b[i] + s * c[i]`, two operations for twelve bytes.
//!
//! What is timed is a block, of some megabytes, of arrays that are far larger than the caches: every block was touched so
//! long ago that it has to come from memory, and is short enough to be undisturbed now and then on a busy machine.

use std::hint::black_box;

/// Three arrays of the same length.
pub struct Triad {
    sum: Vec<f32>,
    term: Vec<f32>,
    factor: Vec<f32>,
    /// Where the next block begins.
    next: usize,
}

/// Numbers of a block, or fewer if there are fewer.
const BLOCK: usize = 1 << 20;

impl Triad {
    /// Bytes read and written for each number of an array.
    pub const BYTES_PER_NUMBER: usize = 3 * size_of::<f32>();

    /// Arrays of `numbers` numbers. They are written here, so their memory is near the processor of the calling thread.
    pub fn new(numbers: usize) -> Triad {
        Triad { sum: vec![1.0; numbers], term: vec![2.0; numbers], factor: vec![0.5; numbers], next: 0 }
    }

    /// Numbers in a block of arrays of `numbers` numbers.
    pub fn block(numbers: usize) -> usize {
        numbers.min(BLOCK)
    }

    /// One block; after the last whole one, the first again.
    pub fn next_block(&mut self) {
        let length = Triad::block(self.sum.len());
        if self.next + length > self.sum.len() {
            self.next = 0;
        }
        let block = self.next..self.next + length;
        self.next = block.end;
        let scale = black_box(3.0_f32);
        let (term, factor) = (&self.term[block.clone()], &self.factor[block.clone()]);
        for ((sum, term), factor) in self.sum[block].iter_mut().zip(term).zip(factor) {
            *sum = term + scale * factor;
        }
        black_box(&mut self.sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_adds_the_scaled_array_to_the_other() {
        let mut triad = Triad::new(17);
        triad.next_block();
        assert_eq!(triad.sum, [3.5; 17]);
    }

    #[test]
    fn blocks_follow_each_other_and_begin_again_where_no_whole_one_is_left() {
        let mut triad = Triad::new(2 * BLOCK + 5);
        let done = |triad: &Triad| triad.sum.iter().filter(|sum| **sum == 3.5).count();
        triad.next_block();
        assert_eq!(done(&triad), BLOCK);
        triad.next_block();
        assert_eq!(done(&triad), 2 * BLOCK);
        triad.next_block();
        assert_eq!((done(&triad), triad.next), (2 * BLOCK, BLOCK));
    }
}
