//! Sums, scalings, squares, ReLU, softmax.

use dpsgd_fused::kernels::{CrossEntropyGradient, Mask, Relu, Scale, ScaleExamples, ScaledAdd, SquaredNorm};
use dpsgd_fused::simd::Isa;

use crate::generated::Random;
use crate::guarded::{Guarded, POISON, assert_close, assert_near};

/// All short lengths, and some around what is unrolled or cut.
fn lengths() -> impl Iterator<Item = usize> {
    (0..140).chain([4095, 4096, 4097, 8192, 9000])
}

pub fn slices_are_scaled_and_added<I: Isa>(isa: I) {
    let mut random = Random::new(40);
    for len in lengths() {
        let (by, from) = (random.number(), random.numbers(len));
        let what = || format!("{len} numbers");
        let mut added = random.numbers(len);
        let before = added.to_vec();
        isa.dispatch(ScaledAdd { by, from: &from, to: &mut added, accumulate: true });
        // What was there is poison.
        let mut written = Guarded::new(&mut random, len);
        isa.dispatch(ScaledAdd { by, from: &from, to: &mut written, accumulate: false });
        let mut scaled = Guarded::new(&mut random, len);
        scaled.copy_from_slice(&from);
        isa.dispatch(Scale { by, values: &mut scaled });
        for at in 0..len {
            let product = f64::from(by) * f64::from(from[at]);
            assert_eq!(scaled[at], by * from[at], "{}", what());
            assert_eq!(written[at], by * from[at], "{}", what());
            let (one, other) = (f64::from(before[at]), product);
            assert_close(added[at], one + other, 1, one.abs() + other.abs(), &what);
        }
        for numbers in [added, written, scaled] {
            numbers.assert_untouched_but(0..len, &what());
        }
    }
}

pub fn squared_norms_keep_their_digits<I: Isa>(isa: I) {
    let mut random = Random::new(41);
    for len in lengths().chain([1_000_003]) {
        let numbers = random.numbers(len);
        let expected: f64 = numbers.iter().map(|number| f64::from(*number).powi(2)).sum();
        assert_near(isa.dispatch(SquaredNorm(&numbers)), expected, 1e-5, &|| format!("{len} numbers"));
    }
}

pub fn relu_and_its_mask_turn_at_zero<I: Isa>(isa: I) {
    let mut random = Random::new(42);
    let special = [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE, -f32::MIN_POSITIVE, 1e-45];
    for len in lengths() {
        let (mut value, mut gradient) = (random.numbers(len), random.numbers(len));
        for at in 0..len {
            if random.once_in(4) {
                value[at] = special[random.below(special.len())];
            }
            if random.once_in(10) {
                gradient[at] = f32::NAN;
            }
        }
        let (mut output, mut masked) = (Guarded::new(&mut random, len), Guarded::new(&mut random, len));
        isa.dispatch(Relu { from: &value, to: &mut output });
        isa.dispatch(Mask { value: &value, gradient: &gradient, to: &mut masked });
        for at in 0..len {
            let expected = if value[at] <= 0.0 { 0.0 } else { value[at] };
            let same = |found: f32, expected: f32| found == expected || (found.is_nan() && expected.is_nan());
            assert!(same(output[at], expected), "{len} numbers: max(0, {}) = {}", value[at], output[at]);
            let expected = if value[at] > 0.0 { gradient[at] } else { 0.0 };
            assert!(same(masked[at], expected), "{len} numbers: {} at {}", masked[at], value[at]);
        }
        output.assert_untouched_but(0..len, "ReLU");
        masked.assert_untouched_but(0..len, "mask");
    }
}

pub fn examples_are_scaled_by_factors_of_their_own<I: Isa>(isa: I) {
    let mut random = Random::new(43);
    for len in 1..70 {
        let pitch = len + random.below(5);
        let factors = [0.5, 1.0, f32::NAN, 0.0, -3.0];
        let mut values = Guarded::new(&mut random, factors.len() * pitch);
        for example in 0..factors.len() {
            random.fill(&mut values[example * pitch..][..len]);
        }
        let before = values.to_vec();
        isa.dispatch(ScaleExamples { values: &mut values, pitch, len, factors: &factors });
        for (example, factor) in factors.iter().enumerate() {
            let by = if factor.is_nan() { 1.0 } else { *factor };
            for at in example * pitch..example * pitch + len {
                assert_eq!(values[at], by * before[at], "example {example} of {len} numbers");
            }
        }
        let written = (0..factors.len()).flat_map(|example| example * pitch..example * pitch + len);
        values.assert_untouched_but(written, "examples");
        assert!(before.iter().filter(|number| number.to_bits() == POISON.to_bits()).count() == 5 * (pitch - len));
    }
}

pub fn cross_entropy_has_the_gradient_softmax_minus_one_hot<I: Isa>(isa: I) {
    let mut random = Random::new(44);
    for outputs in 1..70 {
        // Of few outputs, more than a vector of examples.
        let examples = if outputs < 6 { random.below(40) } else { random.below(5) };
        let (pitch, gradient_pitch) = (outputs + random.below(5), outputs + random.below(5));
        let mut logits = Guarded::new(&mut random, examples * pitch);
        let size = [1.0, 10.0, 1e4, 1e30][random.below(4)];
        for example in 0..examples {
            random.fill(&mut logits[example * pitch..][..outputs]);
            logits[example * pitch..][..outputs].iter_mut().for_each(|logit| *logit *= size);
        }
        let classes: Vec<u32> = (0..examples).map(|_| random.below(outputs) as u32).collect();
        let mut gradients = Guarded::new(&mut random, examples * gradient_pitch);
        isa.dispatch(CrossEntropyGradient {
            logits: &logits,
            pitch,
            gradients: &mut gradients,
            gradient_pitch,
            outputs,
            classes: &classes,
        });
        for (example, class) in classes.iter().enumerate() {
            let logits: Vec<f64> = logits[example * pitch..][..outputs].iter().map(|logit| f64::from(*logit)).collect();
            let largest = logits.iter().copied().fold(f64::MIN, f64::max);
            let total: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
            for (output, logit) in logits.iter().enumerate() {
                let softmax = (logit - largest).exp() / total;
                let expected = if output == *class as usize { softmax - 1.0 } else { softmax };
                let error = (f64::from(gradients[example * gradient_pitch + output]) - expected).abs();
                // The difference to the largest has the rounding error of a logit.
                let scale = softmax * (1.0 + (logit - largest).abs().min(100.0));
                let allowed = 1e-6 * scale + if output == *class as usize { 1e-7 } else { 1e-37 };
                assert!(error <= allowed, "{outputs} logits of {size:e}: {expected} is off by {error:e}");
            }
        }
        let written = (0..examples).flat_map(|example| (0..outputs).map(move |o| example * gradient_pitch + o));
        gradients.assert_untouched_but(written, "gradients");
    }
}
