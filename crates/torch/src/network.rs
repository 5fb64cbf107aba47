//! A model as libtorch operations.

use std::borrow::Borrow;

use dpsgd_core::{Layer, Loss, ModelSpec, Pair};
use tch::{Kind, Reduction, Tensor};

use crate::data::Batch;
use crate::error::Result;

/// The layers of a model, with the place of each one's parameters.
pub struct Network {
    /// The layers, first to last, each with the position of its first parameter in [`ModelSpec::params`].
    pub layers: Vec<(Layer, usize)>,
    loss: Loss,
}

impl Network {
    /// The network of a validated model.
    pub fn new(model: &ModelSpec) -> Self {
        let mut first = 0;
        let mut layers = Vec::with_capacity(model.layers.len());
        for layer in &model.layers {
            layers.push((layer.clone(), first));
            first += parameter_tensors(layer);
        }
        Network { layers, loss: model.loss }
    }

    /// The outputs `[k, K]` of a batch: the plain forward pass, differentiable in `params`.
    pub fn forward(&self, params: &[Tensor], inputs: &Tensor) -> Result<Tensor> {
        let mut x = inputs.shallow_clone();
        for (layer, first) in &self.layers {
            x = match layer {
                Layer::Linear { .. } => x.f_linear(&params[*first], Some(&params[first + 1]))?,
                Layer::Conv2d { stride, padding, .. } => {
                    conv2d(&x, &params[*first], Some(&params[first + 1]), *stride, *padding, 1)?
                }
                Layer::Embedding { .. } => Tensor::f_embedding(&params[*first], &x, -1, false, false)?,
                Layer::Lstm { hidden_size, .. } => {
                    let zero = x.f_new_zeros([1, x.size()[0], *hidden_size as i64], (Kind::Float, x.device()))?;
                    let no_bias = params[first + 2].f_detach()?.f_zeros_like()?;
                    // libtorch's has two biases, of which ours is one.
                    let weights = [&params[*first], &params[first + 1], &params[first + 2], &no_bias];
                    x.f_lstm(&[&zero, &zero], &weights, true, 1, 0.0, true, false, true)?.0
                }
                other => without_parameters(other, &x)?,
            };
        }
        Ok(x)
    }

    /// The sum of the losses of a batch, from its outputs `[k, K]`.
    pub fn total_loss(&self, outputs: &Tensor, batch: &Batch) -> Result<Tensor> {
        let none = None::<Tensor>;
        match self.loss {
            Loss::CrossEntropy => outputs.f_cross_entropy_loss(&batch.targets, none, Reduction::Sum, -100, 0.0),
            Loss::BceWithLogits => outputs.f_view([-1])?.f_binary_cross_entropy_with_logits(
                &batch.targets,
                none,
                None::<Tensor>,
                Reduction::Sum,
            ),
            Loss::Mse => outputs.f_view([-1])?.f_mse_loss(&batch.targets, Reduction::Sum),
        }
    }
}

/// The gradients of `loss` with respect to `inputs`, each shaped as its input.
///
/// autograd gives none for an input that the loss does not depend on, such as the recurrent weights over a single time
/// step: that is a zero.
pub fn gradients<T: Borrow<Tensor>>(loss: &Tensor, inputs: &[T]) -> Result<Vec<Tensor>> {
    let gradients = Tensor::f_run_backward(&[loss], inputs, false, false)?;
    let given = gradients.into_iter().zip(inputs);
    given.map(|(given, input)| if given.defined() { Ok(given) } else { input.borrow().f_zeros_like() }).collect()
}

/// How many parameter tensors a layer has.
fn parameter_tensors(layer: &Layer) -> usize {
    match layer {
        Layer::Linear { .. } | Layer::Conv2d { .. } => 2,
        Layer::Embedding { .. } => 1,
        Layer::Lstm { .. } => 3,
        _ => 0,
    }
}

/// A layer that has no parameters, on a batch `[k, ...]`.
pub fn without_parameters(layer: &Layer, x: &Tensor) -> Result<Tensor> {
    match layer {
        Layer::Relu => x.f_relu(),
        // libtorch scans a window in row-major order and keeps the first maximum, which is our rule for ties.
        Layer::MaxPool2d { kernel_size, stride } => {
            x.f_max_pool2d(ints(*kernel_size), ints(stride.unwrap_or(*kernel_size)), [0, 0], [1, 1], false)
        }
        Layer::AvgPool2d { kernel_size, stride } => {
            x.f_avg_pool2d(ints(*kernel_size), ints(stride.unwrap_or(*kernel_size)), [0, 0], false, true, None)
        }
        Layer::Flatten => x.f_flatten(1, -1),
        Layer::GlobalAvgPool2d => x.f_mean_dim(&[2i64, 3][..], false, None::<Kind>),
        Layer::MeanOverTime => x.f_mean_dim(&[1i64][..], false, None::<Kind>),
        Layer::Linear { .. } | Layer::Conv2d { .. } | Layer::Embedding { .. } | Layer::Lstm { .. } => {
            unreachable!("{} has parameters", layer.kind())
        }
    }
}

/// Cross-correlation of `[k, groups * I, H, W]` with `[groups * O, I, h, w]`.
pub fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: Pair,
    padding: Pair,
    groups: i64,
) -> Result<Tensor> {
    x.f_conv2d(weight, bias, ints(stride), ints(padding), [1, 1], groups)
}

/// `x` with its values laid out channels last if it is a batch of images `[k, C, H, W]`; as it is otherwise.
///
/// The shape stays; convolutions, pooling and ReLU then keep the layout. PyTorch's tuning guide advises it, and on a
/// CPU it matters: max-pooling is ten times as fast. Not differentiable: for inputs.
pub fn channels_last(x: &Tensor) -> Result<Tensor> {
    let [k, c, h, w] = x.size()[..] else { return Ok(x.shallow_clone()) };
    // With one channel, or one pixel, both layouts are the same memory, and only the strides can say which is meant.
    x.f_permute([0i64, 2, 3, 1])?.f_contiguous()?.f_as_strided([k, c, h, w], [h * w * c, 1, w * c, c], None)
}

/// A pair as libtorch takes it: `[h, w]`.
pub fn ints(pair: Pair) -> [i64; 2] {
    [pair.h as i64, pair.w as i64]
}
