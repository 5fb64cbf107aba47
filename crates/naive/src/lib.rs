//! The strategy `naive`: what a first implementation of DP-SGD does, and what the others are compared with.
//!
//! The examples of a batch go through the model one at a time. Each has its own forward pass and its own call of
//! autograd, whose gradients are laid end to end as one vector `[P]`; the vector's norm is the example's gradient norm
//! over all parameters, and the vector, scaled down to the clip norm if it is longer, is added to the sum. Memory is
//! that of one example. Time is that of one example's operations times the batch size: on small models nearly all of it
//! is the dispatch of operations, which is why batching helps so much (Subramani, Vadivelu, Kamath, arXiv 2010.09063).
//!
//! In non-private mode the strategy takes the plain batched PyTorch step: the baseline of what privacy costs.

use dpsgd_core::{ModelSpec, StrategyError};
use dpsgd_torch::{ClippedSum, Flat, Job, OnTorch, Result, gradients};
use tch::Tensor;

/// The strategy.
pub type Naive = OnTorch<PerExampleLoop>;

/// One example at a time.
pub struct PerExampleLoop;

impl ClippedSum for PerExampleLoop {
    const NAME: &'static str = "naive";
    const VARIANTS: &'static [&'static str] = &[];

    fn new(_model: &ModelSpec, _variant: Option<&'static str>) -> std::result::Result<Self, StrategyError> {
        Ok(PerExampleLoop)
    }

    fn clipped_sum(&mut self, job: &Job<'_>, sum: &mut Flat) -> Result<u64> {
        let mut non_finite = 0;
        _ = sum.all.f_zero_()?;
        for position in 0..job.batch.examples {
            let example = job.batch.example(position)?;
            let outputs = job.network.forward(job.leaves, &example.inputs)?;
            let loss = job.network.total_loss(&outputs, &example)?;
            let gradients = gradients(&loss, job.leaves)?;
            let _guard = tch::no_grad_guard();
            let flattened: Result<Vec<Tensor>> = gradients.iter().map(|gradient| gradient.f_reshape([-1])).collect();
            let mut gradient = Tensor::f_cat(&flattened?, 0)?;
            let norm = gradient.f_norm()?.f_double_value(&[])?;
            if !norm.is_finite() {
                // Not scaled by 0, which would leave a NaN a NaN: left out.
                non_finite += 1;
                continue;
            }
            if norm > job.clip_norm {
                _ = gradient.f_mul_scalar_(job.clip_norm / norm)?;
            }
            _ = sum.all.f_add_(&gradient)?;
        }
        Ok(non_finite)
    }
}
