//! What a machine can do at most, measured: the roof that a contender's time is held against.
//!
//! Two figures, those of the roofline model (Williams, Waterman, Patterson, "Roofline: an insightful visual performance
//! model for multicore architectures", CACM 52(4), 2009): floating-point operations per second of f32 matrix products,
//! and bytes per second between memory and processor. Both are of several threads at work at the same time, on the
//! processors that the calling process is confined to, and both are the best of several repetitions: what else runs on
//! the machine can only make them smaller.
//!
//! Neither is the figure of a data sheet. The matrix product is that of the crate `gemm`, which picks its kernel by the
//! instruction sets it finds (AVX-512, AVX2 with FMA, NEON); a better kernel could do a few per cent more.

mod memory;
mod product;
mod repeat;
mod triad;

use std::time::Duration;

use product::Product;
use triad::Triad;

/// What some threads of this machine did at most, all together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// Threads that worked at the same time.
    pub threads: usize,
    /// f32 operations per second, multiplications and additions counted as one each.
    pub flops_per_s: f64,
    /// Rows and columns of the matrices with which that was reached.
    pub matrix_size: usize,
    /// Bytes per second that the triad read and wrote, counted as STREAM does: what the processor reads of its own
    /// accord before it overwrites is not counted.
    pub bytes_per_s: f64,
    /// Bytes of the triad's arrays, those of all threads together.
    pub triad_bytes: usize,
}

/// Rows and columns of the matrices tried. Large ones are fastest where nothing else runs; on a busy machine only the
/// product of small ones, a millisecond or less, has a chance to be undisturbed.
const MATRIX_SIZES: [usize; 5] = [256, 384, 512, 768, 1024];
/// Time given to each size of matrix.
const PRODUCT_BUDGET: Duration = Duration::from_millis(200);
/// Time given to the triad.
const TRIAD_BUDGET: Duration = Duration::from_millis(400);

/// Measures for about two seconds with `threads` threads (at least one), each with data of its own.
///
/// # Panics
///
/// If a thread can't be started.
pub fn measure(threads: usize) -> Peak {
    let threads = threads.max(1);
    let products = MATRIX_SIZES.map(|size| {
        let seconds = repeat::best_seconds(threads, PRODUCT_BUDGET, || {
            let mut product = Product::new(size);
            move || product.multiply()
        });
        (threads as f64 * Product::flops(size) / seconds, size)
    });
    let (flops_per_s, matrix_size) =
        products.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).expect("there are several sizes");
    let numbers = memory::far_beyond_the_caches() / threads / Triad::BYTES_PER_NUMBER;
    let block = Triad::block(numbers);
    let seconds = repeat::best_seconds(threads, TRIAD_BUDGET, || {
        let mut triad = Triad::new(numbers);
        move || triad.next_block()
    });
    let bytes = |numbers: usize| threads * numbers * Triad::BYTES_PER_NUMBER;
    Peak { threads, flops_per_s, matrix_size, bytes_per_s: bytes(block) as f64 / seconds, triad_bytes: bytes(numbers) }
}

/// Which share of the peak `flops_per_s` an epoch of `seconds` is, given the FLOPs of a step and the steps of an epoch;
/// `None` unless all figures are positive and finite.
pub fn fraction(flops_per_step: f64, steps: usize, seconds: f64, flops_per_s: f64) -> Option<f64> {
    let usable = |figure: f64| figure.is_finite() && figure > 0.0;
    let given = [flops_per_step, steps as f64, seconds, flops_per_s].into_iter().all(usable);
    given.then(|| flops_per_step * steps as f64 / seconds / flops_per_s).filter(|fraction| usable(*fraction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_s_peak_is_positive_and_finite_and_says_how_it_was_got() {
        for threads in [1, 2] {
            let peak = measure(threads);
            assert_eq!(peak.threads, threads);
            for figure in [peak.flops_per_s, peak.bytes_per_s] {
                assert!(figure.is_finite() && figure > 0.0, "{peak:?}");
            }
            assert!(MATRIX_SIZES.contains(&peak.matrix_size), "{peak:?}");
            assert!(peak.triad_bytes > 0, "{peak:?}");
        }
    }

    #[test]
    fn no_threads_are_one() {
        assert_eq!(measure(0).threads, 1);
    }

    #[test]
    fn a_fraction_is_work_over_time_over_peak() {
        // 10 steps of 2 GFLOP in half a second are 40 GFLOP/s, a quarter of 160.
        assert_eq!(fraction(2e9, 10, 0.5, 160e9), Some(0.25));
    }

    #[test]
    fn a_fraction_of_figures_that_are_none_is_none() {
        for (flops, steps, seconds, peak) in [
            (0.0, 10, 0.5, 1e9),
            (2e9, 0, 0.5, 1e9),
            (2e9, 10, 0.0, 1e9),
            (2e9, 10, -1.0, 1e9),
            (2e9, 10, f64::NAN, 1e9),
            (2e9, 10, f64::INFINITY, 1e9),
            (2e9, 10, 0.5, 0.0),
            (2e9, 10, 0.5, f64::NAN),
            (1e300, 10, 1e-300, 1e-300),
        ] {
            assert_eq!(fraction(flops, steps, seconds, peak), None, "{flops} {steps} {seconds} {peak}");
        }
    }
}
