//! Inputs times output gradients, summed over positions: the gradient of an affine map's parameters.
//!
//! For a convolution the positions are those of its output, of one example (its own gradient) or of many (their sum). The
//! inputs of a position are read in place, by an offset per position and one per input; the gradients are packed a few
//! positions and a panel at a time, so that they stay in the first-level cache while all inputs pass by.

#![allow(clippy::needless_range_loop, reason = "constant ranges over several arrays at once are what gets unrolled")]

use std::mem::MaybeUninit;

use super::{Groups, few_outputs};
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

/// Positions that are packed at a time.
const fn chunk<I: Isa>() -> usize {
    CHUNK_BYTES / (I::VECTORS * I::LANES * size_of::<f32>() + LINE)
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
    /// Where each input of a position lies, counted from its first.
    pub columns: &'a [u32],
    /// The panels of the gradient.
    pub gradient: &'a mut [f32],
    /// How they are cut.
    pub panels: Panels,
    /// The row of the panels that takes the first column.
    pub first_row: usize,
    /// Whether the last row of the panels takes the biases' gradient.
    pub bias: bool,
    /// Whether to add to what the gradient holds.
    pub accumulate: bool,
    /// Whether to sum the squares of the result (of the rows written).
    pub squares: bool,
}

impl WeightGradient<'_> {
    fn check<I: Isa>(&self) {
        let (mut input, mut gradient) = (0, 0);
        for position in self.positions {
            input = input.max(position.input);
            gradient = gradient.max(position.gradient);
        }
        let column = self.columns.iter().fold(0, |largest, column| largest.max(*column));
        assert!(self.columns.is_empty() || input as usize + (column as usize) < self.inputs.len(), "inputs");
        assert!(gradient as usize + self.panels.outputs <= self.output_gradients.len(), "gradients of outputs");
        assert!(self.panels.len() <= self.gradient.len(), "gradient");
        assert!(self.factors.is_empty() || self.factors.len() == self.positions.len(), "factors");
        assert!(self.first_row + self.columns.len() + usize::from(self.bias) <= self.panels.depth, "rows");
        const { assert!(chunk::<I>() * I::VECTORS * I::LANES <= PACKED && I::LANES <= SLACK) };
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
                match rest {
                    1 => few_outputs::weight_gradient::<I, 1>(isa, &mut self),
                    2 => few_outputs::weight_gradient::<I, 2>(isa, &mut self),
                    3 => few_outputs::weight_gradient::<I, 3>(isa, &mut self),
                    few_outputs::FEW => few_outputs::weight_gradient::<I, { few_outputs::FEW }>(isa, &mut self),
                    _ => unreachable!("few outputs"),
                }
            };
        }
        // Panels that are taken along their outputs.
        let outputs = self.panels.outputs - if few { rest } else { 0 };
        let mut done = 0;
        loop {
            let count = const { chunk::<I>() }.min(self.positions.len() - done);
            let is_last = done + count == self.positions.len();
            let chunk =
                Chunk { from: done, count, accumulate: self.accumulate || done > 0, squares: self.squares && is_last };
            // SAFETY: `check` has passed, and the chunk is of the positions.
            squares += unsafe { panels(isa, &mut self, chunk, outputs) };
            done += count;
            if is_last {
                return squares;
            }
        }
    }
}

/// Some of the positions, and what to do with what they give.
#[derive(Clone, Copy)]
struct Chunk {
    from: usize,
    count: usize,
    accumulate: bool,
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
        let panel = job.gradient.as_mut_ptr().add(job.panels.start(panel));
        let tile = Tile { gradients, panel, width, last, next_vector };
        let mut squares = isa.splat(0.0);
        if job.bias {
            finish(isa, &mut [bias], &tile, job.panels.depth - 1, chunk, &mut squares);
        }
        (tile, squares)
    };
    let (tile, mut squares) = tile;
    let mut total = 0.0;
    let most = if V == 1 { I::NARROW_ROWS } else { I::ROWS };
    let groups = Groups::new(job.columns.len(), most);
    let (mut column, mut group) = (0, 0);
    while column < job.columns.len() {
        let count = groups.size(group);
        // SAFETY: as the caller says; the tile's columns are among the job's.
        unsafe {
            match count {
                1 => columns::<I, 1, V>(isa, job, chunk, &tile, column, &mut squares),
                2 => columns::<I, 2, V>(isa, job, chunk, &tile, column, &mut squares),
                3 => columns::<I, 3, V>(isa, job, chunk, &tile, column, &mut squares),
                4 => columns::<I, 4, V>(isa, job, chunk, &tile, column, &mut squares),
                5 if V == 1 || I::ROWS >= 5 => columns::<I, 5, V>(isa, job, chunk, &tile, column, &mut squares),
                6 if V == 1 || I::ROWS >= 6 => columns::<I, 6, V>(isa, job, chunk, &tile, column, &mut squares),
                7 if V == 1 || I::ROWS >= 7 => columns::<I, 7, V>(isa, job, chunk, &tile, column, &mut squares),
                8 if V == 1 || I::ROWS >= 8 => columns::<I, 8, V>(isa, job, chunk, &tile, column, &mut squares),
                _ => unreachable!("groups of at most as many rows as a tile has"),
            }
        }
        column += count;
        group += 1;
        if group % FLUSH == 0 {
            total += f64::from(isa.sum(squares));
            squares = isa.splat(0.0);
        }
    }
    total + f64::from(isa.sum(squares))
}

/// Tiles after which the sum of squares moves to an f64: before its rounding errors add up.
const FLUSH: usize = 32;

/// What the tiles of a strip share.
struct Tile {
    /// `[positions, V]` vectors.
    gradients: *const f32,
    /// Where the first panel of the gradient begins.
    panel: *mut f32,
    /// Outputs of the panel.
    width: usize,
    /// Outputs in the last vector.
    last: usize,
    /// From one vector of a row to the next.
    next_vector: usize,
}

/// `R` columns from `column` on.
///
/// # Safety
///
/// As [`strip`].
#[inline(always)]
unsafe fn columns<I: Isa, const R: usize, const V: usize>(
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
            inputs[r] = inputs[r].add(*job.columns.get_unchecked(column + r) as usize);
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
        finish(isa, &mut sums, tile, job.first_row + column, chunk, squares);
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

/// Adds, stores and squares the rows from `row` on. Lanes past the last output hold 0.
///
/// # Safety
///
/// The rows lie in the tile's panel.
#[inline(always)]
unsafe fn finish<I: Isa, const R: usize, const V: usize>(
    isa: I,
    sums: &mut [[I::F32; V]; R],
    tile: &Tile,
    row: usize,
    chunk: Chunk,
    squares: &mut I::F32,
) {
    let mut squared = [isa.splat(0.0); V];
    for r in 0..R {
        for v in 0..V {
            // SAFETY: the caller says so; of the last vector only the outputs there are is touched.
            unsafe {
                let at = tile.panel.add((row + r) * tile.width + v * tile.next_vector);
                let whole = v + 1 < V || tile.last == I::LANES;
                if chunk.accumulate {
                    let before = if whole { isa.load(at) } else { isa.load_first(at, tile.last) };
                    sums[r][v] = isa.add(sums[r][v], before);
                }
                if whole {
                    isa.store(at, sums[r][v]);
                } else {
                    isa.store_first(at, sums[r][v], tile.last);
                }
            }
            squared[v] = isa.mul_add(sums[r][v], sums[r][v], squared[v]);
        }
    }
    if chunk.squares {
        for v in 0..V {
            *squares = isa.add(*squares, squared[v]);
        }
    }
}
