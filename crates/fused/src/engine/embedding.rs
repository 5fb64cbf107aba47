//! Embeddings: gathers forward, sparse gradients backward.

use std::ops::Range;

use super::data::Data;
use super::pass::Context;
use crate::kernels::{Scale, ScaledAdd, SquaredNorm, squared_norm_in_f64};
use crate::layout::Frame;
use crate::memory::Buffer;
use crate::plan::{Embedding, MOST_WAITING};
use crate::simd::Isa;

impl Embedding {
    /// Copies, or averages, the rows of the examples' tokens.
    pub(super) fn forward<I: Isa>(
        &self,
        context: &Context<'_, I>,
        tokens: &[u32],
        examples: usize,
        frame: Frame,
        output: &mut [f32],
    ) {
        let table = &context.theta[self.parameters.clone()];
        let time = context.plan.time.expect("an embedding's input is tokens");
        for (example, tokens) in tokens.chunks_exact(time).take(examples).enumerate() {
            let start = example * frame.example;
            if self.mean {
                let to = &mut output[start + frame.at(0, 0)..][..self.width];
                context.isa.dispatch(MeanRow { table, tokens, to });
            } else {
                for (t, token) in tokens.iter().enumerate() {
                    let row = &table[*token as usize * self.width..][..self.width];
                    output[start + frame.at(t, 0)..][..self.width].copy_from_slice(row);
                }
            }
        }
    }
}

/// `to` = the mean of the tokens' rows.
struct MeanRow<'a> {
    table: &'a [f32],
    tokens: &'a [u32],
    to: &'a mut [f32],
}

impl crate::simd::Kernel for MeanRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let width = self.to.len();
        let rows = self.table.len() / width;
        let share = 1.0 / self.tokens.len() as f32;
        let largest = self.tokens.iter().fold(0, |largest, token| largest.max(*token));
        assert!((largest as usize) < rows, "token {largest} of {rows}");
        let mut at = 0;
        while at < width {
            let count = I::LANES.min(width - at);
            let mut sums = [isa.splat(0.0); 4];
            for (t, token) in self.tokens.iter().enumerate() {
                // SAFETY: the row is in the table, and `count` numbers from `at` on are in the row.
                let row = unsafe {
                    let row = self.table.as_ptr().add(*token as usize * width + at);
                    if count == I::LANES { isa.load(row) } else { isa.load_first(row, count) }
                };
                sums[t % 4] = isa.add(sums[t % 4], row);
            }
            let sum = isa.add(isa.add(sums[0], sums[1]), isa.add(sums[2], sums[3]));
            // SAFETY: `count` numbers from `at` on are in `to`.
            unsafe { isa.store_first(self.to.as_mut_ptr().add(at), isa.mul(sum, isa.splat(share)), count) };
            at += count;
        }
    }
}

/// The gradient of an embedding table for one example: its distinct tokens, each with the sum of its output gradients.
///
/// Which tokens have occurred is known from a table over the vocabulary that is never cleared: an entry counts only if
/// it points back to its token (Briggs and Torczon, "An efficient representation for sparse sets", 1993).
pub struct MergedRows {
    /// `[vocabulary]`: where a token stands among the distinct ones, if it does.
    place: Vec<u32>,
    /// The distinct tokens.
    tokens: Vec<u32>,
    /// `[distinct, width]`.
    rows: Buffer,
}

impl MergedRows {
    /// Memory for examples of `time` tokens.
    pub fn new(embedding: &Embedding, time: usize) -> Self {
        MergedRows {
            place: vec![0; embedding.vocabulary],
            tokens: Vec::with_capacity(time),
            rows: Buffer::zeros(time * embedding.width),
        }
    }

    /// Where `token` stands, and whether it is new.
    #[inline(always)]
    fn find(&mut self, token: u32) -> (usize, bool) {
        let place = self.place[token as usize] as usize;
        if self.tokens.get(place) == Some(&token) {
            return (place, false);
        }
        self.place[token as usize] = self.tokens.len() as u32;
        self.tokens.push(token);
        (self.tokens.len() - 1, true)
    }

    /// Takes an example's tokens and the gradients of the embedding's outputs for it.
    pub fn merge<I: Isa>(&mut self, isa: I, embedding: &Embedding, tokens: &[u32], frame: Frame, gradient: &[f32]) {
        self.tokens.clear();
        let width = embedding.width;
        for (t, token) in tokens.iter().enumerate() {
            let (place, is_new) = self.find(*token);
            let from = &gradient[frame.at(t, 0)..][..width];
            let to = &mut self.rows[place * width..][..width];
            match is_new {
                true => to.copy_from_slice(from),
                false => isa.dispatch(ScaledAdd { by: 1.0, from, to, accumulate: true }),
            }
        }
    }

    /// What was merged, row after row.
    fn merged(&self, embedding: &Embedding) -> &[f32] {
        &self.rows[..self.tokens.len() * embedding.width]
    }

    /// The squared norm of what was merged.
    pub fn norm<I: Isa>(&self, isa: I, embedding: &Embedding) -> f64 {
        isa.dispatch(SquaredNorm(self.merged(embedding)))
    }

    /// The squared norm in f64, number by number.
    pub fn careful_norm(&self, embedding: &Embedding) -> f64 {
        squared_norm_in_f64(self.merged(embedding))
    }

    /// Adds `factor` times the merged gradient to the table's sum.
    pub fn add<I: Isa>(&self, isa: I, embedding: &Embedding, factor: f32, sum: &mut [f32]) {
        let width = embedding.width;
        let sum = &mut sum[embedding.parameters.clone()];
        for (place, token) in self.tokens.iter().enumerate() {
            let to = &mut sum[*token as usize * width..][..width];
            let from = &self.rows[place * width..][..width];
            isa.dispatch(ScaledAdd { by: factor, from, to, accumulate: true });
        }
    }
}

/// Gradients of a table whose rows are averaged over time, one vector per example, that wait for their examples' rows.
///
/// Threads take examples first. Then each takes some rows of the table, and adds up what all examples have for them: so
/// a row's sum is written by one thread, and never goes from one processor's cache to another's.
pub struct Waiting {
    examples: Vec<u32>,
    /// `[examples, width]`.
    rows: Buffer,
    width: usize,
    /// `[vocabulary]`: 0, but while an example's tokens are counted.
    counts: Vec<u32>,
}

impl Waiting {
    /// Memory for [`MOST_WAITING`] of them.
    pub fn new(embedding: &Embedding) -> Self {
        let rows = Buffer::zeros(MOST_WAITING * embedding.width);
        let counts = vec![0; embedding.vocabulary];
        Waiting { examples: Vec::with_capacity(MOST_WAITING), rows, width: embedding.width, counts }
    }

    /// The sum over all tokens of how often each occurs, squared, over the number of tokens, squared: the squared norm of
    /// the table's gradient over that of the mean's. The n-th time that a token occurs adds n^2 - (n - 1)^2.
    fn repetition(&mut self, tokens: &[u32]) -> f64 {
        let mut squares = 0;
        for token in tokens {
            let count = &mut self.counts[*token as usize];
            squares += u64::from(2 * *count + 1);
            *count += 1;
        }
        for token in tokens {
            self.counts[*token as usize] = 0;
        }
        let time = tokens.len() as f64;
        squares as f64 / (time * time)
    }

    /// The squared norm of the table's gradient for an example, from its tokens and the gradient of their mean.
    pub fn norm<I: Isa>(&mut self, isa: I, tokens: &[u32], gradient: &[f32]) -> f64 {
        self.repetition(tokens) * isa.dispatch(SquaredNorm(&gradient[..self.width]))
    }

    /// The squared norm in f64, number by number.
    pub fn careful_norm(&mut self, tokens: &[u32], gradient: &[f32]) -> f64 {
        self.repetition(tokens) * squared_norm_in_f64(&gradient[..self.width])
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.examples.clear();
    }

    /// The gradient of each of the example's `time` tokens is that of their mean over `time`; it is multiplied by
    /// `factor`. (Not by the quotient of the two, which may be too small to have all its digits.)
    pub fn push<I: Isa>(&mut self, isa: I, example: u32, time: usize, factor: f32, gradient: &[f32]) {
        let to = &mut self.rows[self.examples.len() * self.width..][..self.width];
        isa.dispatch(ScaledAdd { by: 1.0 / time as f32, from: &gradient[..self.width], to, accumulate: false });
        isa.dispatch(Scale { by: factor, values: to });
        self.examples.push(example);
    }

    /// Adds to the sums of some of the table's rows.
    pub fn add<I: Isa>(&self, isa: I, data: &Data, rows: Range<usize>, sums: &mut [f32]) {
        assert_eq!(sums.len(), rows.len() * self.width);
        for (example, row) in self.examples.iter().zip(self.rows.chunks_exact(self.width)) {
            isa.dispatch(AddToRows { tokens: data.tokens(*example), first: rows.start as u32, row, sums });
        }
    }
}

/// Cuts the table's rows into a run for each thread, such that each has about as many tokens of the data set to add up.
pub fn shares(embedding: &Embedding, data: &Data, threads: usize) -> Vec<Range<usize>> {
    let mut ends = vec![0usize; embedding.vocabulary];
    data.all_tokens().iter().for_each(|token| ends[*token as usize] += 1);
    let mut total = 0;
    for end in &mut ends {
        total += *end;
        *end = total;
    }
    // The first row before which a thread's share is complete; all rows belong to somebody.
    let cut = |thread: usize| match thread {
        0 => 0,
        _ if thread == threads => embedding.vocabulary,
        _ => ends.partition_point(|end| *end <= total * thread / threads),
    };
    (0..threads).map(|thread| cut(thread)..cut(thread + 1)).collect()
}

/// Adds `row` to the row of `sums` of every token from `first` on, as far as there are rows.
struct AddToRows<'a> {
    tokens: &'a [u32],
    first: u32,
    row: &'a [f32],
    sums: &'a mut [f32],
}

/// Tokens that are looked through at once.
const TOKENS: usize = 256;

impl crate::simd::Kernel for AddToRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let width = self.row.len();
        let rows = self.sums.len() / width;
        let mut own = [0; TOKENS];
        for tokens in self.tokens.chunks(TOKENS) {
            // Without a jump: which tokens are own can't be guessed.
            let mut count = 0;
            for token in tokens {
                let row = token.wrapping_sub(self.first);
                own[count] = row;
                count += usize::from((row as usize) < rows);
            }
            for row in &own[..count] {
                let to = &mut self.sums[*row as usize * width..][..width];
                ScaledAdd { by: 1.0, from: self.row, to, accumulate: true }.run(isa);
            }
        }
    }
}
