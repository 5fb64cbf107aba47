//! [`LstmCell`] and [`LstmCellGradient`].

use dpsgd_fused::kernels::{LstmCell, LstmCellGradient};
use dpsgd_fused::simd::Isa;

use crate::generated::Random;
use crate::guarded::Guarded;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// |found - expected| within 1e-6 of a scale.
fn assert_within(found: f32, expected: f64, scale: f64, what: &str) {
    let error = (f64::from(found) - expected).abs();
    assert!(error <= 1e-6 * scale, "{what}: {found} instead of {expected}, off by {error:e}");
}

/// Numbers in (-`limit`, `limit`).
fn spread(random: &mut Random, count: usize, limit: f32) -> Guarded {
    let mut numbers = random.numbers(count);
    numbers.iter_mut().for_each(|number| *number *= limit);
    numbers
}

pub fn a_step_of_an_lstm_is_its_formulas<I: Isa>(isa: I) {
    let mut random = Random::new(30);
    for hidden in 1..71 {
        let mut gates = spread(&mut random, 4 * hidden, 6.0);
        let before = spread(&mut random, hidden, 2.0);
        let cell_before = random.once_in(2).then_some(&*before);
        let x = gates.to_vec();
        let [mut cell, mut cell_tanh, mut output] = [(); 3].map(|()| Guarded::new(&mut random, hidden));
        isa.dispatch(LstmCell {
            gates: &mut gates,
            cell_before,
            cell: &mut cell,
            cell_tanh: &mut cell_tanh,
            output: &mut output,
        });
        for at in 0..hidden {
            let x = |gate: usize| f64::from(x[gate * hidden + at]);
            let [i, f, g, o] = [sigmoid(x(0)), sigmoid(x(1)), x(2).tanh(), sigmoid(x(3))];
            for (gate, expected) in [i, f, g, o].into_iter().enumerate() {
                let what = format!("hidden {hidden}, gate {gate} of {at}");
                assert_within(gates[gate * hidden + at], expected, expected.abs(), &what);
            }
            let before = cell_before.map_or(0.0, |cell| f64::from(cell[at]));
            let (c, what) = (f * before + i * g, format!("hidden {hidden}, number {at}"));
            let scale = (f * before).abs() + (i * g).abs();
            assert_within(cell[at], c, scale, &what);
            assert_within(cell_tanh[at], c.tanh(), scale, &what);
            assert_within(output[at], o * c.tanh(), scale, &what);
        }
        gates.assert_untouched_but(0..4 * hidden, "gates");
        for (buffer, what) in [(cell, "cell"), (cell_tanh, "tanh"), (output, "output")] {
            buffer.assert_untouched_but(0..hidden, what);
        }
    }
}

/// What a step gives to the loss: dh . h + dc . c, for one number of the state.
fn outcome(x: [f64; 4], before: f64, dh: f64, dc: f64) -> f64 {
    let c = sigmoid(x[1]) * before + sigmoid(x[0]) * x[2].tanh();
    dh * sigmoid(x[3]) * c.tanh() + dc * c
}

pub fn a_backward_step_of_an_lstm_is_its_derivative<I: Isa>(isa: I) {
    let mut random = Random::new(31);
    for hidden in 1..71 {
        let x = spread(&mut random, 4 * hidden, 3.0);
        let before = spread(&mut random, hidden, 2.0);
        let cell_before = random.once_in(2).then_some(&*before);
        let output_gradient = random.numbers(hidden);
        let recurrent = random.numbers(hidden);
        let recurrent_gradient = random.once_in(2).then_some(&*recurrent);
        let mut cell_gradient = random.numbers(hidden);
        let later = cell_gradient.to_vec();
        let (mut gates, mut cell_tanh) = (Guarded::new(&mut random, 4 * hidden), Guarded::new(&mut random, hidden));
        let of = |at: usize| {
            let x = [0, 1, 2, 3].map(|gate| f64::from(x[gate * hidden + at]));
            (x, cell_before.map_or(0.0, |cell| f64::from(cell[at])))
        };
        for at in 0..hidden {
            let (x, before) = of(at);
            let [i, f, g, o] = [sigmoid(x[0]), sigmoid(x[1]), x[2].tanh(), sigmoid(x[3])];
            for (gate, value) in [i, f, g, o].into_iter().enumerate() {
                gates[gate * hidden + at] = value as f32;
            }
            cell_tanh[at] = (f * before + i * g).tanh() as f32;
        }
        isa.dispatch(LstmCellGradient {
            gates: &mut gates,
            cell_before,
            cell_tanh: &cell_tanh,
            output_gradient: &output_gradient,
            recurrent_gradient,
            cell_gradient: &mut cell_gradient,
        });
        const STEP: f64 = 1e-5;
        for at in 0..hidden {
            let (x, before) = of(at);
            let dh = f64::from(output_gradient[at]) + recurrent_gradient.map_or(0.0, |later| f64::from(later[at]));
            let dc = f64::from(later[at]);
            let slope = |change: &dyn Fn(f64) -> f64| (change(STEP) - change(-STEP)) / (2.0 * STEP);
            let what = format!("hidden {hidden}, number {at}");
            for gate in 0..4 {
                let expected = slope(&|step| {
                    let mut x = x;
                    x[gate] += step;
                    outcome(x, before, dh, dc)
                });
                assert_within(gates[gate * hidden + at], expected, 4.0, &format!("{what}, gate {gate}"));
            }
            let expected = slope(&|step| outcome(x, before + step, dh, dc));
            assert_within(cell_gradient[at], expected, 4.0, &what);
        }
        gates.assert_untouched_but(0..4 * hidden, "gates");
        cell_gradient.assert_untouched_but(0..hidden, "gradient of the cell");
    }
}

pub fn saturated_gates_are_zero_or_one<I: Isa>(isa: I) {
    for hidden in [1, 8, 16, 19] {
        for size in [1e3, 1e30, f32::INFINITY] {
            let mut gates = vec![size; 4 * hidden];
            gates[..hidden].fill(-size);
            let before = vec![3.0; hidden];
            let [mut cell, mut cell_tanh, mut output] = [(); 3].map(|()| vec![f32::NAN; hidden]);
            isa.dispatch(LstmCell {
                gates: &mut gates,
                cell_before: Some(&before),
                cell: &mut cell,
                cell_tanh: &mut cell_tanh,
                output: &mut output,
            });
            let expected = 3f64.tanh();
            for at in 0..hidden {
                assert!(gates[at] >= 0.0 && gates[at] < 1e-37, "{}", gates[at]);
                assert_eq!((gates[hidden + at], gates[3 * hidden + at]), (1.0, 1.0));
                assert_within(gates[2 * hidden + at], 1.0, 1.0, "g");
                assert_eq!(cell[at], 3.0);
                assert_within(output[at], expected, 1.0, "h");
            }
        }
    }
}
