//! Exponential functions, against those of 64-bit floats.

use dpsgd_fused::kernels::math::{exp, sigmoid, tanh};
use dpsgd_fused::simd::{Isa, Kernel};

/// The functions under test.
#[derive(Clone, Copy)]
enum Function {
    Exp,
    Sigmoid,
    Tanh,
}

/// A function of 16 numbers.
struct OfSixteen<'a>(Function, &'a [f32; 16]);

impl Kernel for OfSixteen<'_> {
    type Output = [f32; 16];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [f32; 16] {
        let mut output = [f32::NAN; 16];
        for lane in (0..16).step_by(I::LANES) {
            // SAFETY: `lane` is a multiple of the vector's length, which divides 16.
            unsafe {
                let x = isa.load(self.1.as_ptr().add(lane));
                let y = match self.0 {
                    Function::Exp => exp(isa, x),
                    Function::Sigmoid => sigmoid(isa, x),
                    Function::Tanh => tanh(isa, x),
                };
                isa.store(output.as_mut_ptr().add(lane), y);
            }
        }
        output
    }
}

fn of_one<I: Isa>(isa: I, function: Function, x: f32) -> f32 {
    let y = isa.dispatch(OfSixteen(function, &[x; 16]));
    assert!(y.iter().all(|other| other.to_bits() == y[0].to_bits()), "lanes differ: {y:?}");
    y[0]
}

/// The largest error in units of the last place over `count` numbers from `from` to `to`, and the number where it is.
fn largest_error<I: Isa>(
    isa: I,
    function: Function,
    exact: impl Fn(f64) -> f64,
    (from, to): (f32, f32),
    count: usize,
) -> (f64, f32) {
    let mut worst = (0.0, 0.0);
    for start in (0..count).step_by(16) {
        let mut x = [0.0; 16];
        for (lane, x) in x.iter_mut().enumerate() {
            *x = from + (to - from) * ((start + lane) as f32 / count as f32);
        }
        for (x, y) in x.iter().zip(isa.dispatch(OfSixteen(function, &x))) {
            let expected = exact(f64::from(*x));
            let exponent = ((expected as f32).abs().to_bits() >> 23).max(1) as i32;
            let error = (f64::from(y) - expected).abs() / 2f64.powi(exponent - 127 - 23);
            // Not `max`: that would lose a NaN.
            if error.is_nan() || error > worst.0 {
                worst = (error, *x);
            }
        }
    }
    worst
}

const COUNT: usize = 1 << 16;

pub fn the_exponential_is_good_to_two_ulp<I: Isa>(isa: I) {
    for range in [(-87.3, 88.3), (-1.0, 1.0), (-1e-3, 1e-3), (-87.3, -80.0), (80.0, 88.3)] {
        let (error, x) = largest_error(isa, Function::Exp, f64::exp, range, COUNT);
        assert!(error <= 2.0, "{error} ulp at {x}");
    }
}

pub fn the_sigmoid_is_good_to_three_ulp<I: Isa>(isa: I) {
    for range in [(-87.0, 87.0), (-1.0, 1.0), (-10.0, 10.0), (-1e-3, 1e-3)] {
        let (error, x) = largest_error(isa, Function::Sigmoid, |x| 1.0 / (1.0 + (-x).exp()), range, COUNT);
        assert!(error <= 3.0, "{error} ulp at {x}");
    }
}

pub fn the_hyperbolic_tangent_is_good_to_eight_ulp<I: Isa>(isa: I) {
    for range in [(-9.0, 9.0), (-1.0, 1.0), (-20.0, 20.0), (-1e-3, 1e-3), (-1e-30, 1e-30)] {
        let (error, x) = largest_error(isa, Function::Tanh, f64::tanh, range, COUNT);
        assert!(error <= 8.0, "{error} ulp at {x}");
    }
}

pub fn exponential_functions_have_limits_and_keep_nan<I: Isa>(isa: I) {
    let of = |function, x| of_one(isa, function, x);
    for function in [Function::Exp, Function::Sigmoid, Function::Tanh] {
        assert!(of(function, f32::NAN).is_nan());
    }
    for size in [100.0, 1e10, f32::MAX, f32::INFINITY] {
        assert!(of(Function::Exp, -size) < 1.3e-38 && of(Function::Exp, -size) >= 0.0);
        assert!(of(Function::Exp, size) > 2e38);
        assert!(of(Function::Sigmoid, -size) < 1.3e-38 && of(Function::Sigmoid, -size) >= 0.0);
        assert_eq!(of(Function::Sigmoid, size), 1.0);
        assert!((f64::from(of(Function::Tanh, size)) - 1.0).abs() <= 2.0 * f64::from(f32::EPSILON));
        assert_eq!(of(Function::Tanh, -size), -of(Function::Tanh, size));
    }
    assert_eq!((of(Function::Exp, 0.0), of(Function::Sigmoid, 0.0), of(Function::Tanh, 0.0)), (1.0, 0.5, 0.0));
}
