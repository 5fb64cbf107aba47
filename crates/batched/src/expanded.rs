//! Per-example gradients from autograd itself, by one copy of the parameters per example.
//!
//! A parameter expanded over the batch is a leaf of shape `[k, ...]` whose rows are the same memory; its gradient has a
//! row for each example. The operations are those to which a vectorizing map turns a layer: `baddbmm` for a linear one,
//! a convolution with one group per example, a lookup in the example's own table. What autograd yields is materialized
//! whole, `[k, P]` values, embedding tables included.

use dpsgd_core::Layer;
use dpsgd_torch::{Flat, Job, Result, conv2d, gradients, lstm, without_parameters};
use tch::{Kind, Tensor};

use crate::clip::{Factors, squared_norms};

/// See [`dpsgd_torch::ClippedSum::clipped_sum`].
pub fn clipped_sum(job: &Job<'_>, sum: &mut Flat) -> Result<u64> {
    let examples = job.batch.examples;
    let mut copies = Vec::with_capacity(job.constants.len());
    for parameter in job.constants {
        let shape = [&[examples], parameter.size().as_slice()].concat();
        copies.push(parameter.f_expand(shape, false)?.f_detach()?.f_set_requires_grad(true)?);
    }
    let outputs = forward(job, &copies)?;
    let loss = job.network.total_loss(&outputs, job.batch)?;
    let gradients = gradients(&loss, &copies)?;

    let _guard = tch::no_grad_guard();
    let mut total = squared_norms(&gradients[0])?;
    for gradient in &gradients[1..] {
        _ = total.f_add_(&squared_norms(gradient)?)?;
    }
    let factors = Factors::new(&total, job.clip_norm)?;
    for (out, gradient) in sum.views.iter().zip(&gradients) {
        factors.weighted_sum_into(out, gradient)?;
    }
    Ok(factors.non_finite)
}

/// The outputs `[k, K]`, each from its own copy of the parameters.
fn forward(job: &Job<'_>, copies: &[Tensor]) -> Result<Tensor> {
    let examples = job.batch.examples;
    let mut x = job.batch.inputs.shallow_clone();
    for (layer, first) in &job.network.layers {
        x = match layer {
            Layer::Linear { .. } => {
                linear(&x.f_unsqueeze(1)?, &copies[*first], &copies[first + 1])?.f_squeeze_dim(1)?
            }
            Layer::Conv2d { out_channels, stride, padding, .. } => {
                let [_, channels, height, width] = x.size()[..] else { unreachable!("an image has four dimensions") };
                // The batch becomes channels, each example a group of them.
                let image = x.f_reshape([1, examples * channels, height, width])?;
                let weight = copies[*first].f_flatten(0, 1)?;
                let bias = copies[first + 1].f_flatten(0, 1)?;
                let y = conv2d(&image, &weight, Some(&bias), *stride, *padding, examples)?;
                let size = y.size();
                y.f_view([examples, *out_channels as i64, size[2], size[3]])?
            }
            Layer::Embedding { .. } => {
                let example = Tensor::f_arange(examples, (Kind::Int64, x.device()))?.f_unsqueeze(1)?;
                copies[*first].f_index(&[Some(example), Some(x.f_to_kind(Kind::Int64)?)])?
            }
            Layer::Lstm { .. } => {
                let gates = linear(&x, &copies[*first], &copies[first + 2])?.f_transpose(0, 1)?;
                let weight_hh = copies[first + 1].f_transpose(1, 2)?;
                let hidden = lstm::unroll(&gates, |gates, hidden| {
                    gates.f_unsqueeze(1)?.f_baddbmm(&hidden.f_unsqueeze(1)?, &weight_hh, 1.0, 1.0)?.f_squeeze_dim(1)
                })?;
                Tensor::f_stack(&hidden, 1)?
            }
            other => without_parameters(other, &x)?,
        };
    }
    Ok(x)
}

/// `[k, T, I]` by weights `[k, O, I]` and biases `[k, O]`: `[k, T, O]`.
fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    bias.f_unsqueeze(1)?.f_baddbmm(x, &weight.f_transpose(1, 2)?, 1.0, 1.0)
}
