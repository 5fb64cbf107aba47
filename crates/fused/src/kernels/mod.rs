//! The computations of a step, each written once for every instruction set.
//!
//! Every kernel checks the bounds of all that it touches once, at its beginning, and then works on pointers.

/// Evaluates an expression with `$constant` a constant that is `$count`, 1 to `$most`: the rows of a register tile, its
/// vectors, or its outputs.
macro_rules! with_constant {
    ($count:expr, $most:expr, $constant:ident => $body:expr) => {{
        const { assert!($most <= 10, "more than there are numbers for") };
        with_constant!($count, $most, $constant => $body; 1 2 3 4 5 6 7 8 9 10)
    }};
    ($count:expr, $most:expr, $constant:ident => $body:expr; $($number:literal)*) => {
        match $count {
            $($number if $number <= const { $most } => {
                const $constant: usize = $number;
                $body
            })*
            _ => unreachable!("a count of 1 to the most there is room for"),
        }
    };
}

mod elementwise;
mod few_outputs;
mod ghost;
mod lstm;
pub mod math;
mod pooling;
mod product;
mod update;
mod weight_gradient;

pub use elementwise::{
    CrossEntropyGradient, Mask, Places, RankOneNorms, Relu, Scale, ScaleExamples, ScaledAdd, SquaredNorm, SquaredNorms,
    clip_factor, squared_norm_in_f64,
};
pub use ghost::GhostNorm;
pub use lstm::{LstmCell, LstmCellGradient};
pub use pooling::{Pool, PoolGradient, Pooling, Run, Window, covering, runs};
pub use product::{Finish, Product, Start};
pub use update::{Noise, Update};
pub use weight_gradient::{Held, WeightGradient};

use crate::simd::Isa;

/// Splits `count` things into the fewest groups of at most `most`, as equal as can be: the sizes of the groups are
/// `small` or `small + 1`, the larger ones first.
///
/// A tile with few rows can't hide the latency of its multiplications: 5 + 5 rows are faster than 6 + 4.
#[derive(Clone, Copy)]
struct Groups {
    small: usize,
    larger: usize,
}

impl Groups {
    #[inline(always)]
    fn new(count: usize, most: usize) -> Self {
        let groups = count.div_ceil(most).max(1);
        Groups { small: count / groups, larger: count % groups }
    }

    /// The size of group `group`.
    #[inline(always)]
    fn size(self, group: usize) -> usize {
        self.small + usize::from(group < self.larger)
    }
}

/// Loads `count` numbers, 1 to [`Isa::LANES`]; a whole vector the fast way.
///
/// # Safety
///
/// They must be readable.
#[inline(always)]
unsafe fn load<I: Isa>(isa: I, from: *const f32, count: usize) -> I::F32 {
    // SAFETY: the caller vouches for `count` numbers.
    unsafe { if count == I::LANES { isa.load(from) } else { isa.load_first(from, count) } }
}

/// Stores `count` numbers, 1 to [`Isa::LANES`]; a whole vector the fast way.
///
/// # Safety
///
/// They must be writable.
#[inline(always)]
unsafe fn store<I: Isa>(isa: I, to: *mut f32, value: I::F32, count: usize) {
    // SAFETY: the caller vouches for `count` numbers.
    unsafe { if count == I::LANES { isa.store(to, value) } else { isa.store_first(to, value, count) } }
}
