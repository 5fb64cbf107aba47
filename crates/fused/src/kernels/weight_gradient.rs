//! Inputs times output gradients, summed over positions: the gradient of an affine map's parameters.
//!
//! For a convolution the positions are those of its output, of one example (its own gradient) or of many (their sum). The
//! inputs of a position are read in place, by an offset per position and one per input; the gradients are packed a few
//! positions and a panel at a time, so that they stay in the first-level cache while all inputs pass by.

#![allow(clippy::needless_range_loop, reason = "constant ranges over several arrays at once are what gets unrolled")]

use std::mem::MaybeUninit;

use super::{Groups, few_outputs, load, store};
use crate::layout::{PANEL, Panels, Position, SLACK};
use crate::simd::{Isa, Kernel};

/// Bytes that the packed gradients of a chunk of positions take, with a cache line of inputs for each position: most of a
/// small first-level cache.
const CHUNK_BYTES: usize = 26 << 10;
/// A cache line.
const LINE: usize = 64;
/// Numbers that a chunk's gradients have at most.
const PACKED: usize = CHUNK_BYTES / size_of::<f32>();

/// Where a chunk's gradients are packed: no vector lies across two cache lines.
#[repr(align(64))]
struct Packed(#[expect(dead_code, reason = "written and read through a pointer")] [f32; PACKED]);

/// Positions that are packed at a time, `vectors` of each.
const fn chunk<I: Isa>(vectors: usize) -> usize {
    CHUNK_BYTES / (vectors * I::LANES * size_of::<f32>() + LINE)
}

/// What becomes of what a gradient holds.
pub enum Held<'a> {
    /// It is forgotten.
    Forgotten,
    /// It is added to.
    Kept,
    /// It is another example's, whose turn it is: `sum = by held`, or `sum += by held`, on the way to its place. That the
    /// processor does beside its multiplications; a pass of its own would wait for the caches.
    Moved {
        /// The factor.
        by: f32,
        /// As long as the gradient.
        sum: &'a mut [f32],
        /// Whether to add to what the sum holds.
        accumulate: bool,
    },
}

impl Held<'_> {
    /// The same, for a part of the gradient; the other part is for later.
    pub fn reborrow(&mut self) -> Held<'_> {
        match self {
            Held::Forgotten => Held::Forgotten,
            Held::Kept => Held::Kept,
            Held::Moved { by, sum, accumulate } => Held::Moved { by: *by, sum, accumulate: *accumulate },
        }
    }

    /// See [`Held::Moved`], for `count` numbers at `place`, of which `from` is the first.
    ///
    /// # Safety
    ///
    /// They can be read, and lie in the sum.
    #[inline(always)]
    pub(super) unsafe fn leave<I: Isa>(&mut self, isa: I, from: *const f32, place: usize, count: usize) {
        if let Held::Moved { by, sum, accumulate } = self {
            // SAFETY: the caller says so.
            unsafe {
                let (to, by) = (sum.as_mut_ptr().add(place), isa.splat(*by));
                let moved = match accumulate {
                    true => isa.mul_add(by, load(isa, from, count), load(isa, to, count)),
                    false => isa.mul(by, load(isa, from, count)),
                };
                store(isa, to, moved, count);
            }
        }
    }
}

/// `gradient[k, output] (+)= sum over positions of input[k] output_gradient[output]`, and the biases' sums; see the
/// module. Gives the squared L2 norm of the result if asked to.
pub struct WeightGradient<'a> {
    /// What positions and columns point into.
    pub inputs: &'a [f32],
    /// The gradients of the outputs: `panels.outputs` numbers side by side at each position, and [`SLACK`] after the
    /// last.
    pub output_gradients: &'a [f32],
    /// Where the map was applied.
    pub positions: &'a [Position],
    /// What each position's output gradients are multiplied by; none if by nothing.
    pub factors: &'a [f32],
    /// Where each input of a position lies, counted from its first; strictly ascending.
    pub columns: &'a [u32],
    /// The panels of the gradient.
    pub gradient: &'a mut [f32],
    /// How they are cut.
    pub panels: Panels,
    /// The row of the panels that takes the first column.
    pub first_row: usize,
    /// Whether the last row of the panels takes the biases' gradient.
    pub bias: bool,
    /// What becomes of what the gradient holds (in the rows written).
    pub held: Held<'a>,
    /// Whether to sum the squares of the result (of the rows written).
    pub squares: bool,
}

impl WeightGradient<'_> {
    // Inlined, so that it is compiled for the instruction set: it looks at every position.
    #[inline(always)]
    fn check<I: Isa>(&self) {
        let (mut input, mut gradient) = (0, 0);
        for position in self.positions {
            input = input.max(position.input);
            gradient = gradient.max(position.gradient);
        }
        debug_assert!(self.columns.is_sorted_by(|a, b| a < b), "columns ascend");
        let column = self.columns.iter().fold(0, |largest, column| largest.max(*column));
        assert!(self.columns.is_empty() || input as usize + (column as usize) < self.inputs.len(), "inputs");
        assert!(gradient as usize + self.panels.outputs <= self.output_gradients.len(), "gradients of outputs");
        assert!(self.panels.len() <= self.gradient.len(), "gradient");
        if let Held::Moved { sum, .. } = &self.held {
            assert!(self.panels.len() <= sum.len(), "sum");
        }
        assert!(self.factors.is_empty() || self.factors.len() == self.positions.len(), "factors");
        assert!(self.first_row + self.columns.len() + usize::from(self.bias) <= self.panels.depth, "rows");
        const { assert!(chunk::<I>(I::VECTORS) * I::VECTORS * I::LANES <= PACKED && I::LANES <= SLACK) };
    }
}

impl Kernel for WeightGradient<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) -> f64 {
        self.check::<I>();
        let mut squares = 0.0;
        let rest = self.panels.outputs % PANEL;
        let few = few_outputs::suits_gradient::<I>(rest, self.columns);
        if few {
            // SAFETY: `check` has passed.
            squares += unsafe {
                with_constant!(rest, few_outputs::FEW, W => few_outputs::weight_gradient::<I, W>(isa, &mut self))
            };
        }
        // Panels that are taken along their outputs.
        let outputs = self.panels.outputs - if few { rest } else { 0 };
        let most = chunk::<I>(outputs.div_ceil(I::LANES).clamp(1, I::VECTORS));
        let mut done = 0;
        loop {
            let count = most.min(self.positions.len() - done);
            let is_last = done + count == self.positions.len();
            let chunk = Chunk { from: done, count, squares: self.squares && is_last };
            // SAFETY: `check` has passed, and the chunk is of the positions.
            squares += unsafe { panels(isa, &mut self, chunk, outputs) };
            done += count;
            if is_last {
                return squares;
            }
            self.held = Held::Kept;
        }
    }
}

/// Some of the positions, and what to do with what they give.
#[derive(Clone, Copy)]
struct Chunk {
    from: usize,
    count: usize,
    squares: bool,
}

/// The panels of the first `outputs` outputs.
///
/// # Safety
///
/// `job.check` has passed and the chunk lies in its positions.
#[inline(always)]
unsafe fn panels<I: Isa>(isa: I, job: &mut WeightGradient<'_>, chunk: Chunk, outputs: usize) -> f64 {
    let full = outputs / PANEL;
    let vectors_of_panel = PANEL / I::LANES;
    let groups = Groups::new(full, I::VECTORS / vectors_of_panel);
    let (mut panel, mut group, mut squares) = (0, 0, 0.0);
    while panel < full {
        let count = groups.size(group);
        // SAFETY: as the caller says.
        squares += unsafe {
            match count * vectors_of_panel {
                1 => strip::<I, 1>(isa, job, chunk, panel, PANEL),
                2 => strip::<I, 2>(isa, job, chunk, panel, PANEL),
                3 if I::VECTORS >= 3 => strip::<I, 3>(isa, job, chunk, panel, PANEL),
                _ => unreachable!("groups of at most VECTORS"),
            }
        };
        panel += count;
        group += 1;
    }
    let rest = outputs - full * PANEL;
    if rest > 0 {
        // SAFETY: as the caller says.
        squares += unsafe {
            if rest > I::LANES {
                strip::<I, 2>(isa, job, chunk, full, rest)
            } else {
                strip::<I, 1>(isa, job, chunk, full, rest)
            }
        };
    }
    squares
}

/// All columns times `V` vectors of outputs from `panel` on, whose panels are `width` wide.
///
/// # Safety
///
/// As [`panels`]; the vectors begin in the panels.
#[inline(always)]
unsafe fn strip<I: Isa, const V: usize>(
    isa: I,
    job: &mut WeightGradient<'_>,
    chunk: Chunk,
    panel: usize,
    width: usize,
) -> f64 {
    let last = if I::LANES == PANEL { width } else { width - (V - 1) * I::LANES };
    let next_vector = if I::LANES == PANEL { job.panels.depth * PANEL } else { I::LANES };
    let mut packed = MaybeUninit::<Packed>::uninit();
    let gradients = packed.as_mut_ptr().cast::<f32>();
    // SAFETY: `check` has passed: every position's outputs can be read, and of the last vector only those are. There
    // is room for V vectors of each position of a chunk.
    let tile = unsafe {
        // In two halves, because an addition waits for the one before.
        let mut biases = [[isa.splat(0.0); V]; 2];
        let mut to = gradients;
        let positions = job.positions.get_unchecked(chunk.from..chunk.from + chunk.count);
        for (number, pair) in positions.chunks(2).enumerate() {
            for (half, (position, bias)) in pair.iter().zip(&mut biases).enumerate() {
                let factor = job.factors.get(chunk.from + 2 * number + half);
                let from = job.output_gradients.as_ptr().add(position.gradient as usize + panel * PANEL);
                for v in 0..V {
                    let from = from.add(v * I::LANES);
                    let whole = v + 1 < V || last == I::LANES;
                    let gradient = if whole { isa.load(from) } else { isa.load_first(from, last) };
                    let gradient = match factor {
                        Some(factor) => isa.mul(gradient, isa.splat(*factor)),
                        None => gradient,
                    };
                    isa.store(to, gradient);
                    bias[v] = isa.add(bias[v], gradient);
                    to = to.add(I::LANES);
                }
            }
        }
        let [mut bias, other] = biases;
        for v in 0..V {
            bias[v] = isa.add(bias[v], other[v]);
        }
        let tile = Tile { gradients, start: job.panels.start(panel), width, last, next_vector };
        let mut squares = isa.splat(0.0);
        if job.bias {
            finish(isa, job, &mut [bias], &tile, job.panels.depth - 1, chunk, &mut squares);
        }
        (tile, squares)
    };
    let (tile, mut squares) = tile;
    let mut total = 0.0;
    let (mut column, mut tiles) = (0, 0);
    while column < job.columns.len() {
        let rest = &job.columns[column..];
        // SAFETY: as the caller says; the tile's columns are among the job's.
        column += unsafe {
            // One register is left for a vector of gradients.
            if 2 * RUN * V < I::REGISTERS && are_runs(rest, 2) {
                columns::<I, { 2 * RUN }, V, RUN>(isa, job, chunk, &tile, column, &mut squares);
                2 * RUN
            } else if RUN <= I::ROWS[V - 1] && are_runs(rest, 1) {
                columns::<I, RUN, V, RUN>(isa, job, chunk, &tile, column, &mut squares);
                RUN
            } else {
                let count = Groups::new(rest.len(), I::ROWS[V - 1]).size(0);
                with_constant!(count, I::ROWS[V - 1], R => {
                    columns::<I, R, V, 1>(isa, job, chunk, &tile, column, &mut squares);
                });
                count
            }
        };
        tiles += 1;
        if tiles % FLUSH == 0 {
            total += f64::from(isa.sum(squares));
            squares = isa.splat(0.0);
        }
    }
    total + f64::from(isa.sum(squares))
}

/// Inputs side by side whose sums share an address: the rows of a convolution's kernel are such runs, all inputs of a
/// linear layer are one.
const RUN: usize = 8;

/// Whether the first columns, which ascend, are `count` runs.
#[inline(always)]
fn are_runs(columns: &[u32], count: usize) -> bool {
    let is_run = |run: &[u32]| run[RUN - 1] - run[0] == RUN as u32 - 1;
    columns.len() >= count * RUN && columns[..count * RUN].chunks_exact(RUN).all(is_run)
}

/// Tiles after which the sum of squares moves to an f64: before its rounding errors add up.
const FLUSH: usize = 32;

/// What the tiles of a strip share.
struct Tile {
    /// `[positions, V]` vectors.
    gradients: *const f32,
    /// Where the first panel begins in the gradient.
    start: usize,
    /// Outputs of the panel.
    width: usize,
    /// Outputs in the last vector.
    last: usize,
    /// From one vector of a row to the next.
    next_vector: usize,
}

/// `R` columns from `column` on, which are runs of `N` columns side by side.
///
/// # Safety
///
/// As [`strip`].
#[inline(always)]
unsafe fn columns<I: Isa, const R: usize, const V: usize, const N: usize>(
    isa: I,
    job: &mut WeightGradient<'_>,
    chunk: Chunk,
    tile: &Tile,
    column: usize,
    squares: &mut I::F32,
) {
    // SAFETY: `check` has passed: every column of every position is an input, and the rows are in the panels.
    unsafe {
        let mut inputs = [job.inputs.as_ptr(); R];
        for r in 0..R {
            inputs[r] = inputs[r].add(*job.columns.get_unchecked(column + r / N * N) as usize + r % N);
        }
        let mut sums = [[isa.splat(0.0); V]; R];
        let mut from = tile.gradients;
        let positions = job.positions.get_unchecked(chunk.from..chunk.from + chunk.count);
        // Fewer jumps are guessed better: that pays where positions are few.
        let (fours, rest) = positions.as_chunks::<4>();
        for four in fours {
            for position in four {
                add_position(isa, &inputs, position.input as usize, from, &mut sums);
                from = from.add(V * I::LANES);
            }
        }
        for position in rest {
            add_position(isa, &inputs, position.input as usize, from, &mut sums);
            from = from.add(V * I::LANES);
        }
        finish(isa, job, &mut sums, tile, job.first_row + column, chunk, squares);
    }
}

/// Adds `inputs[r][offset] gradients[v]` to `sums[r][v]`.
///
/// # Safety
///
/// That input can be read, and so can `V` vectors of gradients.
#[inline(always)]
unsafe fn add_position<I: Isa, const R: usize, const V: usize>(
    isa: I,
    inputs: &[*const f32; R],
    offset: usize,
    from: *const f32,
    sums: &mut [[I::F32; V]; R],
) {
    // SAFETY: the caller says so.
    unsafe {
        let mut gradients = [isa.splat(0.0); V];
        for v in 0..V {
            gradients[v] = isa.load(from.add(v * I::LANES));
        }
        for r in 0..R {
            let input = isa.splat(*inputs[r].add(offset));
            for v in 0..V {
                sums[r][v] = isa.mul_add(input, gradients[v], sums[r][v]);
            }
        }
    }
}

/// Stores and squares the rows from `row` on, after what is held there has been added or moved. Lanes past the last output
/// hold 0.
///
/// # Safety
///
/// `job.check` has passed and the rows lie in the tile's panel.
#[inline(always)]
unsafe fn finish<I: Isa, const R: usize, const V: usize>(
    isa: I,
    job: &mut WeightGradient<'_>,
    sums: &mut [[I::F32; V]; R],
    tile: &Tile,
    row: usize,
    chunk: Chunk,
    squares: &mut I::F32,
) {
    let place = |r: usize, v: usize| tile.start + (row + r) * tile.width + v * tile.next_vector;
    let count = |v: usize| if v + 1 < V { I::LANES } else { tile.last };
    let gradient = job.gradient.as_mut_ptr();
    let mut squared = [isa.splat(0.0); V];
    // SAFETY: the caller says so; of the last vector only the outputs there are is touched.
    unsafe {
        match &mut job.held {
            Held::Forgotten => {}
            Held::Kept => {
                for r in 0..R {
                    for v in 0..V {
                        sums[r][v] = isa.add(sums[r][v], load(isa, gradient.add(place(r, v)), count(v)));
                    }
                }
            }
            held => {
                for r in 0..R {
                    for v in 0..V {
                        held.leave(isa, gradient.add(place(r, v)), place(r, v), count(v));
                    }
                }
            }
        }
        for r in 0..R {
            for v in 0..V {
                store(isa, gradient.add(place(r, v)), sums[r][v], count(v));
                squared[v] = isa.mul_add(sums[r][v], sums[r][v], squared[v]);
            }
        }
    }
    if chunk.squares {
        for v in 0..V {
            *squares = isa.add(*squares, squared[v]);
        }
    }
}
