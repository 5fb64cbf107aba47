//! The windows that a kernel visits on an image `[c, h, w]`, for convolutions and pooling.

use crate::{Pair, Shape};

/// Where the windows lie.
pub(super) struct Windows {
    pub(super) channels: usize,
    height: usize,
    width: usize,
    out_height: usize,
    out_width: usize,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
}

impl Windows {
    /// `output` is what [`crate::Layer::output`] says of `input`. Panics unless both are images.
    pub(super) fn new(input: Shape, output: Shape, kernel: Pair, stride: Pair, padding: Pair) -> Self {
        let (Shape::Image { c: channels, h: height, w: width }, Shape::Image { h: out_height, w: out_width, .. }) =
            (input, output)
        else {
            unreachable!("windows lie on images: the shapes are checked");
        };
        Windows { channels, height, width, out_height, out_width, kernel, stride, padding }
    }

    /// T, the number of output positions.
    pub(super) fn positions(&self) -> usize {
        self.out_height * self.out_width
    }

    /// How many cells a window has.
    pub(super) fn area(&self) -> f64 {
        (self.kernel.h * self.kernel.w) as f64
    }

    /// Indices into one channel `[h, w]` under the window at position `t`, row-major; `None` in the padding.
    pub(super) fn cells(&self, t: usize) -> impl Iterator<Item = Option<usize>> + '_ {
        let (top, left) = (t / self.out_width * self.stride.h, t % self.out_width * self.stride.w);
        (0..self.kernel.h).flat_map(move |row| {
            (0..self.kernel.w).map(move |column| {
                let y = (top + row).checked_sub(self.padding.h).filter(|y| *y < self.height)?;
                let x = (left + column).checked_sub(self.padding.w).filter(|x| *x < self.width)?;
                Some(y * self.width + x)
            })
        })
    }

    /// The numbers under the window at position `t`, `[channel, kernel row, kernel column]`, with zeros for padding.
    pub(super) fn patch(&self, image: &[f64], t: usize) -> Vec<f64> {
        let mut patch = Vec::with_capacity(self.channels * self.kernel.h * self.kernel.w);
        for channel in image.chunks_exact(self.height * self.width) {
            patch.extend(self.cells(t).map(|cell| cell.map_or(0.0, |cell| channel[cell])));
        }
        patch
    }

    /// Adds a patch to where [`Windows::patch`] took it from; what lay in the padding is dropped.
    pub(super) fn add_patch(&self, image: &mut [f64], t: usize, patch: &[f64]) {
        let mut values = patch.iter();
        for channel in image.chunks_exact_mut(self.height * self.width) {
            for (cell, value) in self.cells(t).zip(values.by_ref()) {
                if let Some(cell) = cell {
                    channel[cell] += value;
                }
            }
        }
    }
}
