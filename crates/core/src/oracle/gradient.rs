//! Gradients in float64, and the sums of them that a step of DP-SGD takes.

use std::borrow::Borrow;

use crate::ModelSpec;

/// One number per parameter: a tensor per entry of [`ModelSpec::params`], row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradient(pub Vec<Vec<f64>>);

impl Gradient {
    /// All zeros, in the layout of `model`'s parameters.
    pub fn zeros(model: &ModelSpec) -> Self {
        Gradient(model.params().iter().map(|param| vec![0.0; param.shape.iter().product()]).collect())
    }

    /// All numbers, tensor after tensor.
    pub fn values(&self) -> impl Iterator<Item = f64> + '_ {
        self.0.iter().flatten().copied()
    }

    /// The L2 norm over all parameters together.
    pub fn norm(&self) -> f64 {
        self.values().map(|value| value * value).sum::<f64>().sqrt()
    }

    /// Whether no number is NaN or infinite.
    pub fn is_finite(&self) -> bool {
        self.values().all(f64::is_finite)
    }

    /// Adds `scale * other`. Panics if the layouts differ.
    pub fn add_scaled(&mut self, other: &Gradient, scale: f64) {
        assert_eq!(self.0.len(), other.0.len(), "gradients of different models");
        for (tensor, addend) in self.0.iter_mut().zip(&other.0) {
            assert_eq!(tensor.len(), addend.len(), "gradients of different models");
            super::add_scaled(tensor, scale, addend);
        }
    }

    /// The L2 norm of the difference from `reference` over the L2 norm of `reference`; when `reference` is zero, 0 for
    /// equality and infinity otherwise. NaN when either holds a NaN. Panics if the layouts differ.
    pub fn relative_error(&self, reference: &Gradient) -> f64 {
        let mut difference = self.clone();
        difference.add_scaled(reference, -1.0);
        let (error, size) = (difference.norm(), reference.norm());
        if error == 0.0 { 0.0 } else { error / size }
    }
}

/// What a private step sums before it adds noise: `sum_i min(1, clip_norm / |g_i|) g_i`, with `|g_i|` the L2 norm over
/// all parameters together. A gradient with a NaN or an infinity contributes zero.
///
/// Takes gradients or references to them, so that they need not all be in memory at once.
pub fn clipped_sum(
    gradients: impl IntoIterator<Item = impl Borrow<Gradient>>,
    clip_norm: f64,
    model: &ModelSpec,
) -> Gradient {
    let mut sum = Gradient::zeros(model);
    for gradient in gradients {
        let gradient = gradient.borrow();
        if gradient.is_finite() {
            sum.add_scaled(gradient, clip_factor(gradient.norm(), clip_norm));
        }
    }
    sum
}

/// What a plain step sums: `sum_i g_i`, whatever the gradients hold.
pub fn sum(gradients: impl IntoIterator<Item = impl Borrow<Gradient>>, model: &ModelSpec) -> Gradient {
    let mut sum = Gradient::zeros(model);
    for gradient in gradients {
        sum.add_scaled(gradient.borrow(), 1.0);
    }
    sum
}

/// `min(1, clip_norm / norm)`; 1 for a zero gradient.
pub fn clip_factor(norm: f64, clip_norm: f64) -> f64 {
    (clip_norm / norm).min(1.0)
}
