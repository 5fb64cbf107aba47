//! Per-example gradients in closed form, from captured inputs and the gradients of pre-activations.
//!
//! The forward pass is the plain one, with parameters that autograd does not see. The gradient of the batch's total
//! loss with respect to a pre-activation `[k, ...]` *is* the batch of per-example gradients, because no operation mixes
//! examples; one backward pass gives it for every layer. With A_i the inputs of a layer for example i, `[T, I]`, and G_i
//! the gradients of its pre-activations, `[T, O]`, the example's weight gradient is G_i^T A_i:
//!
//! | layer | A | per-example gradient |
//! |---|---|---|
//! | linear (T = 1) | its input | the outer product g a^T, kept as its two factors: its norm is \|g\| \|a\| (Goodfellow, arXiv 1510.01799), the clipped sum one matrix product |
//! | convolution | the windows of its input (im2col, channels last) | one batched matrix product, `[k, O, h w I]` |
//! | embedding | tokens | rows of G added up by token: the rows that are not zero, each once |
//! | LSTM | inputs and hidden states over time | two batched matrix products, `[k, 4 H, I]` and `[k, 4 H, H]` |

use dpsgd_core::Layer;
use dpsgd_torch::{Flat, Job, Result, channels_last, conv2d, gradients, lstm, without_parameters};
use tch::{Kind, Tensor};

use crate::clip::{Factors, squared_norms};
use crate::windows::Windows;

/// What the forward pass leaves behind of one layer with parameters.
struct Capture {
    /// Position of the layer's first parameter.
    first: usize,
    kind: Kept,
    /// The tensor whose gradient is wanted.
    pre_activation: Tensor,
}

/// A layer's inputs, as its per-example gradient needs them.
enum Kept {
    /// `[k, I]`.
    Linear { inputs: Tensor },
    /// The images, and how the kernel moves over them.
    Conv2d(Windows),
    /// `[k, T]` token ids and the number of rows of the table.
    Embedding { tokens: Tensor, rows: i64 },
    /// `[T, k, I]`, and the hidden states `[T, k, H]` from the zero one on.
    Lstm { inputs: Tensor, hidden: Tensor },
}

/// See [`dpsgd_torch::ClippedSum::clipped_sum`].
pub fn clipped_sum(job: &Job<'_>, sum: &mut Flat) -> Result<u64> {
    let (outputs, captures) = forward(job)?;
    let loss = job.network.total_loss(&outputs, job.batch)?;
    let wanted: Vec<&Tensor> = captures.iter().map(|capture| &capture.pre_activation).collect();
    let gradients = gradients(&loss, &wanted)?;

    let _guard = tch::no_grad_guard();
    let mut total: Option<Tensor> = None;
    let mut parts = Vec::with_capacity(captures.len());
    for (capture, gradient) in captures.iter().zip(gradients) {
        let part = Part::new(&capture.kind, gradient)?;
        let squared = part.squared_norms(job.batch.examples)?;
        total = Some(match total {
            Some(mut total) => total.f_add_(&squared)?,
            None => squared,
        });
        parts.push(part);
    }
    let total = total.expect("a validated model has parameters");
    let factors = Factors::new(&total, job.clip_norm)?;
    for (capture, part) in captures.iter().zip(&parts) {
        part.weighted_sum_into(&sum.views[capture.first..], &factors)?;
    }
    Ok(factors.non_finite)
}

/// The outputs `[k, K]` and what was captured on the way.
fn forward(job: &Job<'_>) -> Result<(Tensor, Vec<Capture>)> {
    let mut x = channels_last(&job.batch.inputs)?;
    let mut captures = Vec::new();
    let params = job.constants;
    for (layer, first) in &job.network.layers {
        let first = *first;
        x = match layer {
            Layer::Linear { .. } => {
                let y = tracked(x.f_linear(&params[first], Some(&params[first + 1]))?)?;
                let kind = Kept::Linear { inputs: x.f_detach()? };
                captures.push(Capture { first, kind, pre_activation: y.shallow_clone() });
                y
            }
            Layer::Conv2d { kernel_size, stride, padding, .. } => {
                let y = tracked(conv2d(&x, &params[first], Some(&params[first + 1]), *stride, *padding, 1)?)?;
                let windows =
                    Windows { images: x.f_detach()?, kernel: *kernel_size, stride: *stride, padding: *padding };
                captures.push(Capture { first, kind: Kept::Conv2d(windows), pre_activation: y.shallow_clone() });
                y
            }
            Layer::Embedding { num_embeddings, .. } => {
                let y = tracked(Tensor::f_embedding(&params[first], &x, -1, false, false)?)?;
                let kind = Kept::Embedding { tokens: x, rows: *num_embeddings as i64 };
                captures.push(Capture { first, kind, pre_activation: y.shallow_clone() });
                y
            }
            Layer::Lstm { .. } => {
                let inputs = x.f_transpose(0, 1)?;
                let gates = tracked(inputs.f_linear(&params[first], Some(&params[first + 2]))?)?;
                let weight_hh = params[first + 1].f_transpose(0, 1)?;
                let hidden = lstm::unroll(&gates, |gates, hidden| gates.f_addmm(hidden, &weight_hh))?;
                let (inputs, zero) = (inputs.f_detach()?, hidden[0].f_detach()?.f_zeros_like()?);
                let before: Vec<Tensor> = std::iter::once(Ok(zero))
                    .chain(hidden[..hidden.len() - 1].iter().map(|hidden| hidden.f_detach()))
                    .collect::<Result<_>>()?;
                let kind = Kept::Lstm { inputs, hidden: Tensor::f_stack(&before, 0)? };
                captures.push(Capture { first, kind, pre_activation: gates });
                Tensor::f_stack(&hidden, 1)?
            }
            other => without_parameters(other, &x)?,
        };
    }
    Ok((x, captures))
}

/// `y`, made a leaf that autograd follows if nothing before it is followed yet.
fn tracked(y: Tensor) -> Result<Tensor> {
    if y.requires_grad() { Ok(y) } else { y.f_set_requires_grad(true) }
}

/// The per-example gradients of one layer.
enum Part {
    /// Outer products: inputs `[k, I]`, gradients `[k, O]`.
    Outer { inputs: Tensor, gradients: Tensor },
    /// A convolution's, weight `[k, O, h w I]` (channels last) and bias `[k, O]`.
    Windows { weight: Tensor, bias: Tensor },
    /// One tensor `[k, ...]` for each of the layer's parameters.
    Whole { tensors: Vec<Tensor> },
    /// The rows that are not zero.
    Rows {
        /// `[U]`: the example of each row.
        example: Tensor,
        /// `[U]`: its place in the table.
        token: Tensor,
        /// `[U, D]`.
        values: Tensor,
    },
}

impl Part {
    fn new(kept: &Kept, gradient: Tensor) -> Result<Self> {
        Ok(match kept {
            Kept::Linear { inputs } => Part::Outer { inputs: inputs.shallow_clone(), gradients: gradient },
            Kept::Conv2d(windows) => {
                let gradient = gradient.f_permute([0i64, 2, 3, 1])?.f_flatten(1, 2)?;
                let weight = windows.weight_gradients(&gradient)?;
                let bias = gradient.f_sum_dim_intlist(&[1i64][..], false, None::<Kind>)?;
                Part::Windows { weight, bias }
            }
            Kept::Embedding { tokens, rows } => {
                let (examples, width) = (tokens.size()[0], gradient.size()[2]);
                let example = Tensor::f_arange(examples, (Kind::Int64, tokens.device()))?.f_unsqueeze(1)?;
                let place = example.f_mul_scalar(*rows)?.f_add(tokens)?.f_flatten(0, 1)?;
                let (unique, inverse, _) = place.f_internal_unique2(true, true, false)?;
                let mut values = gradient.f_new_zeros([unique.size()[0], width], (Kind::Float, gradient.device()))?;
                _ = values.f_index_add_(0, &inverse, &gradient.f_reshape([-1, width])?)?;
                let example = unique.f_div_scalar_mode(*rows, "floor")?;
                Part::Rows { token: unique.f_remainder(*rows)?, example, values }
            }
            Kept::Lstm { inputs, hidden } => {
                let by_gate = gradient.f_permute([1i64, 2, 0])?;
                let weight_ih = by_gate.f_bmm(&inputs.f_transpose(0, 1)?)?;
                let weight_hh = by_gate.f_bmm(&hidden.f_transpose(0, 1)?)?;
                let bias = gradient.f_sum_dim_intlist(&[0i64][..], false, None::<Kind>)?;
                Part::Whole { tensors: vec![weight_ih, weight_hh, bias] }
            }
        })
    }

    /// The squared norms `[k]` of this layer's gradients.
    fn squared_norms(&self, examples: i64) -> Result<Tensor> {
        match self {
            // |g a^T|^2 + |g|^2, weight and bias.
            Part::Outer { inputs, gradients } => {
                squared_norms(inputs)?.f_add_scalar_(1.0)?.f_mul(&squared_norms(gradients)?)
            }
            Part::Windows { weight, bias } => squared_norms(weight)?.f_add_(&squared_norms(bias)?),
            Part::Whole { tensors } => {
                let mut total = squared_norms(&tensors[0])?;
                for tensor in &tensors[1..] {
                    _ = total.f_add_(&squared_norms(tensor)?)?;
                }
                Ok(total)
            }
            Part::Rows { example, values, .. } => {
                let mut total = values.f_new_zeros([examples], (Kind::Float, values.device()))?;
                total.f_index_add_(0, example, &squared_norms(values)?)
            }
        }
    }

    /// The scaled sum over the batch, into the layer's first tensors of `out`.
    fn weighted_sum_into(&self, out: &[Tensor], factors: &Factors) -> Result<()> {
        match self {
            Part::Outer { inputs, gradients } => {
                let scaled = factors.mended(gradients)?.f_mul(&factors.scale.f_unsqueeze(1)?)?;
                _ = scaled.f_transpose(0, 1)?.f_mm_out(&out[0], &factors.mended(inputs)?)?;
                _ = scaled.f_sum_intlist_out(&out[1], &[0i64][..], false, None::<Kind>)?;
            }
            Part::Windows { weight, bias } => {
                let [o, i, h, w] = out[0].size()[..] else { unreachable!("a kernel has four dimensions") };
                let sum = factors.weighted_sum(weight)?.f_view([o, h, w, i])?.f_permute([0i64, 3, 1, 2])?;
                out[0].shallow_clone().f_copy_(&sum)?;
                factors.weighted_sum_into(&out[1], bias)?;
            }
            Part::Whole { tensors } => {
                for (out, tensor) in out.iter().zip(tensors) {
                    factors.weighted_sum_into(out, tensor)?;
                }
            }
            Part::Rows { example, token, values } => {
                let mut scaled = values.f_mul(&factors.scale.f_index_select(0, example)?.f_unsqueeze(1)?)?;
                if let Some(finite) = &factors.finite {
                    let finite = finite.f_index_select(0, example)?.f_unsqueeze(1)?;
                    scaled = scaled.f_where_self(&finite, &scaled.f_zeros_like()?)?;
                }
                let mut out = out[0].shallow_clone();
                _ = out.f_zero_()?;
                _ = out.f_index_add_(0, token, &scaled)?;
            }
        }
        Ok(())
    }
}
