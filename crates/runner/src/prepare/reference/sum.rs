//! The sum of gradients that a step moves the parameters along, and what rounding may make of it.

use dpsgd_core::oracle::{Gradient, clip_factor};
use dpsgd_core::{Layer, Mode, ModelSpec, Shape};
use serde::{Deserialize, Serialize};

use super::EXPECTED_BATCH_SIZE;

/// What the error of an update is measured by.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bounds {
    /// `sum_i s_i |g_i|` in the units of the update: what it adds up, however much of it cancels. `s_i` is the clip factor
    /// of a private step, 1 of a plain one.
    pub added: f64,
    /// `sum_i s_i |g_i,t|` for each parameter tensor t.
    pub added_of_tensors: Vec<f64>,
    /// How far an epsilon of [`EPSILON`] beside the norm moves the sum at most, in the units of the update; 0 of a plain
    /// step.
    pub epsilon: f64,
    /// The same for each parameter tensor.
    pub epsilon_of_tensors: Vec<f64>,
    /// Roundings that may add up in one direction, see [`roundings`].
    pub roundings: f64,
    /// Steps that read and wrote the parameters.
    pub steps: f64,
}

/// What frameworks add to the norm that they divide by: `C / (norm + 1e-6)` in Opacus. It shows where gradients are short.
const EPSILON: f64 = 1e-6;

/// A sum of gradients under way.
pub struct Sum {
    mode: Mode,
    clip_norm: f64,
    /// The clipped sum, or the plain one.
    pub gradient: Gradient,
    examples: usize,
    added: f64,
    added_of_tensors: Vec<f64>,
    epsilon: f64,
    epsilon_of_tensors: Vec<f64>,
}

impl Sum {
    /// Of no gradient.
    pub fn new(model: &ModelSpec, mode: Mode, clip_norm: f64) -> Self {
        let gradient = Gradient::zeros(model);
        let none = vec![0.0; gradient.0.len()];
        Sum {
            mode,
            clip_norm,
            gradient,
            examples: 0,
            added: 0.0,
            added_of_tensors: none.clone(),
            epsilon: 0.0,
            epsilon_of_tensors: none,
        }
    }

    /// Of all of `gradients`.
    pub fn of<'a>(
        model: &ModelSpec,
        mode: Mode,
        clip_norm: f64,
        gradients: impl IntoIterator<Item = &'a Gradient>,
    ) -> Self {
        let mut sum = Sum::new(model, mode, clip_norm);
        gradients.into_iter().for_each(|gradient| sum.add(gradient));
        sum
    }

    /// Adds one example's gradient, as a step does: a private one leaves out what is not finite.
    pub fn add(&mut self, gradient: &Gradient) {
        self.examples += 1;
        let norm = gradient.norm();
        let factor = match self.mode {
            Mode::Private if !gradient.is_finite() => return,
            Mode::Private => clip_factor(norm, self.clip_norm),
            Mode::NonPrivate => 1.0,
        };
        self.gradient.add_scaled(gradient, factor);
        self.added += factor * norm;
        // The share of a clipped example that an epsilon takes away.
        let epsilon = if self.mode == Mode::Private && norm > 0.0 { EPSILON / norm } else { 0.0 };
        self.epsilon += epsilon * factor * norm;
        let tensors = self.added_of_tensors.iter_mut().zip(&mut self.epsilon_of_tensors).zip(&gradient.0);
        for ((added, of_epsilon), tensor) in tensors {
            let length = factor * tensor.iter().map(|value| value * value).sum::<f64>().sqrt();
            *added += length;
            *of_epsilon += epsilon * length;
        }
    }

    /// What the learning rate is divided by: B, or the number of examples.
    pub fn divisor(&self) -> f64 {
        match self.mode {
            Mode::Private => EXPECTED_BATCH_SIZE,
            Mode::NonPrivate => self.examples as f64,
        }
    }

    /// The bounds of the update `scale * gradient`.
    pub fn bounds(&self, model: &ModelSpec, scale: f64) -> Bounds {
        let scaled = |lengths: &[f64]| lengths.iter().map(|length| length * scale).collect();
        Bounds {
            added: self.added * scale,
            added_of_tensors: scaled(&self.added_of_tensors),
            epsilon: self.epsilon * scale,
            epsilon_of_tensors: scaled(&self.epsilon_of_tensors),
            roundings: roundings(model, self.examples),
            steps: 1.0,
        }
    }
}

impl Bounds {
    /// The bounds of this step and `next` together.
    pub fn and(mut self, next: Bounds) -> Bounds {
        self.added += next.added;
        self.added_of_tensors.iter_mut().zip(next.added_of_tensors).for_each(|(sum, next)| *sum += next);
        self.epsilon += next.epsilon;
        self.epsilon_of_tensors.iter_mut().zip(next.epsilon_of_tensors).for_each(|(sum, next)| *sum += next);
        self.roundings = self.roundings.max(next.roundings);
        self.steps += next.steps;
        self
    }
}

/// The square root of the number of additions that lie one after the other between an input and the sum over so many
/// examples.
///
/// The errors of n additions are bounded by about sqrt(n) unit roundoffs where their signs are independent (Higham and
/// Mary, "A New Approach to Probabilistic Rounding Error Analysis", SIAM J. Sci. Comput. 41, 2019). For one layer after
/// the other they add up in the same way, so n is the sum of the lengths of all sums on the way forward, backward, and
/// into the gradient of the weights.
pub fn roundings(model: &ModelSpec, examples: usize) -> f64 {
    let shapes = model.shapes().expect("the model is valid");
    let additions = model.layers.iter().zip(shapes.windows(2)).map(|(layer, between)| {
        let positions = |shape: Shape| match shape {
            Shape::Image { h, w, .. } => h * w,
            Shape::Sequence { time, .. } | Shape::Tokens { time, .. } => time,
            Shape::Features(_) => 1,
        };
        match *layer {
            Layer::Linear { in_features, out_features } => in_features + out_features,
            Layer::Conv2d { in_channels, out_channels, kernel_size, .. } => {
                (in_channels + out_channels) * kernel_size.h * kernel_size.w + positions(between[1])
            }
            // A step's sums, and those over time.
            Layer::Lstm { input_size, hidden_size } => {
                let time = positions(between[0]);
                time * (input_size + hidden_size + 4 * hidden_size) + time
            }
            Layer::AvgPool2d { kernel_size, .. } => kernel_size.h * kernel_size.w,
            Layer::GlobalAvgPool2d | Layer::MeanOverTime | Layer::Embedding { .. } => positions(between[0]),
            Layer::MaxPool2d { .. } | Layer::Relu | Layer::Flatten => 0,
        }
    });
    ((additions.sum::<usize>() + examples) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use dpsgd_core::oracle::{clipped_sum, sum};

    use super::*;

    #[test]
    fn sums_are_the_oracles_and_what_they_add_up_is_counted_by_tensor() {
        let model = ModelSpec::built_in("logreg").unwrap();
        let of = |weight: f64, bias: f64| Gradient(vec![vec![weight; 104], vec![bias]]);
        // Norms 5, 5 and 1: weights of norm 4 in two, opposite ones.
        let weight = 4.0 / 104.0_f64.sqrt();
        let gradients = [of(weight, 3.0), of(-weight, 3.0), of(0.0, -1.0), of(f64::NAN, 0.0)];
        let private = Sum::of(&model, Mode::Private, 2.0, &gradients);
        assert_eq!(private.gradient, clipped_sum(&gradients, 2.0, &model));
        let bounds = private.bounds(&model, 10.0);
        assert!((bounds.added - 10.0 * (2.0 + 2.0 + 1.0)).abs() < 1e-9);
        assert!((bounds.added_of_tensors[0] - 10.0 * (1.6 + 1.6)).abs() < 1e-9);
        assert!((bounds.added_of_tensors[1] - 10.0 * (1.2 + 1.2 + 1.0)).abs() < 1e-9);
        // Clip factors 0.4, 0.4 and 1.
        assert!((bounds.epsilon / (10.0 * 1e-6 * 1.8) - 1.0).abs() < 1e-9);
        assert!((bounds.epsilon_of_tensors[0] / (10.0 * 1e-6 * 0.8 * 0.8) - 1.0).abs() < 1e-9);
        assert_eq!((private.divisor(), bounds.roundings), (EXPECTED_BATCH_SIZE, 109.0_f64.sqrt()));
        let plain = Sum::of(&model, Mode::NonPrivate, 2.0, &gradients[..3]);
        assert_eq!((plain.divisor(), &plain.gradient), (3.0, &sum(&gradients[..3], &model)));
        assert_eq!(plain.bounds(&model, 1.0).epsilon, 0.0);
        assert!((plain.bounds(&model, 1.0).and(plain.bounds(&model, 2.0)).added - 3.0 * 11.0).abs() < 1e-9);
    }
}
