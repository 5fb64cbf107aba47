//! Rows times weights: the forward pass of every affine layer, and with transposed weights the gradient of its input.
//!
//! A row's inputs are runs of numbers in place, named by an offset per row and a few segments: a convolution reads its
//! windows straight from the (padded, channels-last) image, one segment per kernel row, and no im2col matrix is made.
//! A register tile holds [`Isa::ROWS`] rows times one panel (or as many panels as [`Isa::VECTORS`] vectors are)
//! of outputs from the first multiplication to the last; what follows (ReLU, or the mask of a ReLU's gradient) is
//! applied to it before it is stored.

#![allow(clippy::needless_range_loop, reason = "constant ranges over several arrays at once are what gets unrolled")]

use super::{Groups, few_outputs};
use crate::layout::{PANEL, Panels, Row, RowsRef, Segment};
use crate::simd::{Isa, Kernel, prefetch};

/// Numbers in a cache line.
const LINE: usize = 64 / size_of::<f32>();

/// What the outputs begin with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// 0.
    Zero,
    /// The biases: the last row of the panels.
    Bias,
    /// What is in the outputs already.
    Outputs,
}

/// What becomes of the outputs before they are stored.
#[derive(Clone, Copy, Debug)]
pub enum Finish<'a> {
    /// Nothing.
    Store,
    /// max(0, y); NaN stays.
    Relu,
    /// y where the number at [`Row::mask`] is above 0, elsewhere 0: the gradient of a ReLU that gave that number.
    Mask(&'a [f32]),
}

/// `outputs[row] = finish(start + inputs[row] W)` for every row; see the module.
pub struct Product<'a> {
    /// What rows and segments point into.
    pub inputs: &'a [f32],
    /// Where each row's inputs, outputs and mask begin.
    pub rows: RowsRef<'a>,
    /// Whether the rows lie far apart and are read for the first time: the processor is then asked for those of a tile
    /// while the one before it is computed.
    pub scattered: bool,
    /// Which inputs of a row are multiplied, and by which weights.
    pub segments: &'a [Segment],
    /// The panels, and what [`Panels::reach`] beyond them.
    pub weights: &'a [f32],
    /// How they are cut.
    pub panels: Panels,
    /// The row of the panels that segments count from.
    pub first_row: usize,
    /// See [`Start`].
    pub start: Start,
    /// See [`Finish`].
    pub finish: Finish<'a>,
    /// Where the rows' outputs go: `panels.outputs` numbers side by side for each row.
    pub outputs: &'a mut [f32],
}

impl Product<'_> {
    fn check(&self) {
        let last = self.rows.last();
        let reach = self.segments.iter().map(|segment| segment.offset as usize + segment.len as usize).max();
        let depth = self.segments.iter().map(|segment| segment.weight as usize + segment.len as usize).max();
        let outputs = self.panels.outputs;
        assert!(last.input as usize + reach.unwrap_or(0) <= self.inputs.len(), "inputs out of bounds");
        assert!(last.output as usize + outputs <= self.outputs.len(), "outputs out of bounds");
        assert!(self.first_row + depth.unwrap_or(0) <= self.panels.depth, "more inputs than weights");
        assert!(self.panels.reach() <= self.weights.len(), "weights out of bounds");
        if let Finish::Mask(mask) = self.finish {
            assert!(last.mask as usize + outputs <= mask.len(), "mask out of bounds");
        }
    }
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        self.check();
        let full = self.panels.outputs / PANEL;
        let vectors_of_panel = PANEL / I::LANES;
        let groups = Groups::new(full, I::VECTORS / vectors_of_panel);
        let (mut panel, mut group) = (0, 0);
        while panel < full {
            let count = groups.size(group);
            let vectors = count * vectors_of_panel;
            // SAFETY: `check` has passed.
            unsafe {
                match (vectors, self.scattered && panel == 0) {
                    (1, false) => strip::<I, 1, false>(isa, &mut self, panel, PANEL),
                    (2, false) => strip::<I, 2, false>(isa, &mut self, panel, PANEL),
                    (3, false) if I::VECTORS >= 3 => strip::<I, 3, false>(isa, &mut self, panel, PANEL),
                    (1, true) => strip::<I, 1, true>(isa, &mut self, panel, PANEL),
                    (2, true) => strip::<I, 2, true>(isa, &mut self, panel, PANEL),
                    (3, true) if I::VECTORS >= 3 => strip::<I, 3, true>(isa, &mut self, panel, PANEL),
                    _ => unreachable!("groups of at most VECTORS"),
                }
            }
            panel += count;
            group += 1;
        }
        let rest = self.panels.outputs - full * PANEL;
        if few_outputs::suits_product::<I>(rest, self.panels.outputs, self.segments) {
            // SAFETY: `check` has passed.
            unsafe { with_constant!(rest, few_outputs::FEW, W => few_outputs::product::<I, W>(isa, &mut self)) }
        } else if rest > 0 {
            // SAFETY: `check` has passed.
            unsafe {
                if rest > I::LANES {
                    strip::<I, 2, false>(isa, &mut self, full, rest);
                } else {
                    strip::<I, 1, false>(isa, &mut self, full, rest);
                }
            }
        }
    }
}

/// All rows times `V` vectors of outputs from `panel` on, whose panels are `width` wide; `AHEAD` if the rows are to be
/// fetched a tile ahead.
///
/// # Safety
///
/// `product.check` has passed, and the vectors begin in the product's panels.
#[inline(always)]
unsafe fn strip<I: Isa, const V: usize, const AHEAD: bool>(
    isa: I,
    product: &mut Product<'_>,
    panel: usize,
    width: usize,
) {
    let rows = product.rows.rows();
    let groups = Groups::new(rows.len(), I::ROWS[V - 1]);
    let (mut row, mut group) = (0, 0);
    while row < rows.len() {
        let count = groups.size(group);
        let these = &rows[row..row + count];
        let next = &rows[(row + count).min(rows.len() - count)..];
        // SAFETY: as the caller says, and `these` and `next` have `count` rows.
        unsafe {
            with_constant!(count, I::ROWS[V - 1], R => tile::<I, R, V, AHEAD>(isa, product, these, next, panel, width));
        }
        row += count;
        group += 1;
    }
}

/// `R` rows times `V` vectors of outputs; the `next` rows are those of the tile that follows.
///
/// # Safety
///
/// As [`strip`]; `rows` and `next` have at least `R` rows.
#[inline(always)]
unsafe fn tile<I: Isa, const R: usize, const V: usize, const AHEAD: bool>(
    isa: I,
    product: &mut Product<'_>,
    rows: &[Row],
    next: &[Row],
    panel: usize,
    width: usize,
) {
    let panels = product.panels;
    // Vectors lie side by side in a panel, or each in a panel of its own where a vector is a whole panel.
    let next_vector = if I::LANES == PANEL { panels.depth * PANEL } else { I::LANES };
    let weights = product.weights.as_ptr();
    let outputs = product.outputs.as_mut_ptr();
    let last = if I::LANES == PANEL { width } else { width - (V - 1) * I::LANES };
    let whole = last == I::LANES;
    let column = panel * PANEL;
    // SAFETY: `check` has passed. Rows lie in the inputs, outputs and mask with their segments and all outputs; whole
    // vectors of weights lie within the panels' reach; of the last vector only the outputs there are is
    // stored or read.
    unsafe {
        let mut sums = [[isa.splat(0.0); V]; R];
        let start = weights.add(panels.start(panel));
        match product.start {
            Start::Zero => {}
            Start::Bias => {
                for v in 0..V {
                    let bias = isa.load(start.add((panels.depth - 1) * width + v * next_vector));
                    for r in 0..R {
                        sums[r][v] = bias;
                    }
                }
            }
            Start::Outputs => {
                for r in 0..R {
                    let from = outputs.add(rows.get_unchecked(r).output as usize + column);
                    for v in 0..V {
                        let from = from.add(v * I::LANES);
                        sums[r][v] = if v + 1 < V || whole { isa.load(from) } else { isa.load_first(from, last) };
                    }
                }
            }
        }
        let mut inputs = [product.inputs.as_ptr(); R];
        for r in 0..R {
            inputs[r] = inputs[r].add(rows.get_unchecked(r).input as usize);
        }
        let start = start.add(product.first_row * width);
        for segment in product.segments {
            let mut weight = start.add(segment.weight as usize * width);
            let end = segment.offset as usize + segment.len as usize;
            for k in segment.offset as usize..end {
                if AHEAD && k % LINE == 0 {
                    for r in 0..R {
                        prefetch(product.inputs.as_ptr().wrapping_add(next.get_unchecked(r).input as usize + k));
                    }
                }
                let mut factors = [isa.splat(0.0); V];
                for v in 0..V {
                    factors[v] = isa.load(weight.add(v * next_vector));
                }
                for r in 0..R {
                    let input = isa.splat(*inputs[r].add(k));
                    for v in 0..V {
                        sums[r][v] = isa.mul_add(input, factors[v], sums[r][v]);
                    }
                }
                weight = weight.add(width);
            }
        }
        let zero = isa.splat(0.0);
        for r in 0..R {
            let row = rows.get_unchecked(r);
            for v in 0..V {
                let lanes = column + v * I::LANES;
                let to = outputs.add(row.output as usize + lanes);
                let partial = v + 1 == V && !whole;
                let value = match product.finish {
                    Finish::Store => sums[r][v],
                    Finish::Relu => isa.max(zero, sums[r][v]),
                    Finish::Mask(mask) => {
                        let from = mask.as_ptr().add(row.mask as usize + lanes);
                        let mask = if partial { isa.load_first(from, last) } else { isa.load(from) };
                        isa.only(isa.gt(mask, zero), sums[r][v])
                    }
                };
                if partial {
                    isa.store_first(to, value, last);
                } else {
                    isa.store(to, value);
                }
            }
        }
    }
}
