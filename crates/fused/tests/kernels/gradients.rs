//! [`WeightGradient`], and the norms that are known without it.

use dpsgd_fused::kernels::{GhostNorm, Held, Places, RankOneNorms, SquaredNorms, WeightGradient};
use dpsgd_fused::layout::{Panels, Position, Row, SLACK, Segment};
use dpsgd_fused::simd::Isa;

use crate::generated::Random;
use crate::guarded::{Guarded, POISON, assert_close, assert_near};
use crate::products::segments;

/// Positions of which some are the same; inputs overlap, gradients lie apart.
fn positions(random: &mut Random, count: usize, inputs: usize, outputs: usize) -> Vec<Position> {
    let pitch = outputs + random.below(4);
    let mut positions: Vec<Position> = Vec::new();
    for position in 0..count {
        let repeated = (position > 0 && random.once_in(8)).then(|| positions[random.below(position)]);
        let new = Position { input: random.below(inputs) as u32, gradient: (position * pitch) as u32 };
        positions.push(repeated.unwrap_or(new));
    }
    positions
}

/// The gradients of the outputs at these positions, poison elsewhere.
fn output_gradients(random: &mut Random, positions: &[Position], outputs: usize) -> Guarded {
    let last = positions.iter().map(|position| position.gradient as usize).max().unwrap_or(0);
    let mut gradients = Guarded::new(random, last + outputs + SLACK);
    for position in positions {
        random.fill(&mut gradients[position.gradient as usize..][..outputs]);
    }
    gradients
}

pub fn weight_gradients_are_sums_over_positions<I: Isa>(isa: I) {
    let mut random = Random::new(10);
    for number in 0..250 {
        let outputs = if random.once_in(6) { 1 } else { random.within(1..71) };
        // More than are packed at a time, now and then.
        let count = if random.once_in(6) { random.within(120..400) } else { random.within(1..40) };
        let spread = random.within(1..30);
        let mut columns: Vec<u32> = (0..random.below(40)).map(|_| random.below(50) as u32).collect();
        if random.once_in(3) {
            // Many side by side, between others.
            let run = random.within(1..151) as u32;
            let first = random.below(60) as u32;
            columns.extend(first..first + run);
        }
        columns.sort_unstable();
        columns.dedup();
        let positions = positions(&mut random, count, spread, outputs);
        let output_gradients = output_gradients(&mut random, &positions, outputs);
        let mut inputs = Guarded::new(&mut random, 240);
        for position in &positions {
            columns.iter().for_each(|column| inputs[(position.input + column) as usize] = 1.0);
        }
        for place in 0..inputs.len() {
            if inputs[place] == 1.0 {
                inputs[place] = random.number();
            }
        }
        let (bias, accumulate, squares) = (random.once_in(2), random.once_in(2), random.once_in(2));
        let is_moved = random.once_in(2);
        let first_row = random.below(3);
        let depth = first_row + columns.len() + random.below(3) + usize::from(bias);
        let panels = Panels { depth: depth.max(1), outputs };
        let of_columns = first_row..first_row + columns.len();
        let rows: Vec<usize> = of_columns.chain(bias.then(|| panels.depth - 1)).collect();
        let mut gradient = Guarded::new(&mut random, panels.len());
        let mut sum = Guarded::new(&mut random, panels.len());
        for row in &rows {
            for place in (0..outputs).map(|output| panels.index(*row, output)) {
                gradient[place] = if accumulate || is_moved { random.number() } else { POISON };
                sum[place] = if accumulate { random.number() } else { POISON };
            }
        }
        let (before, sum_before) = (gradient.to_vec(), sum.to_vec());
        let scaled = random.once_in(2);
        let factors: Vec<f32> = positions.iter().filter(|_| scaled).map(|_| random.number()).collect();
        let found = isa.dispatch(WeightGradient {
            inputs: &inputs,
            output_gradients: &output_gradients,
            positions: &positions,
            factors: &factors,
            columns: &columns,
            gradient: &mut gradient,
            panels,
            first_row,
            bias,
            held: match (is_moved, accumulate) {
                (true, accumulate) => Held::Moved { by: 0.75, sum: &mut sum, accumulate },
                (false, true) => Held::Kept,
                (false, false) => Held::Forgotten,
            },
            squares,
        });
        let mut norm = 0.0;
        for (k, row) in rows.iter().enumerate() {
            for output in 0..outputs {
                let place = panels.index(*row, output);
                let is_kept = accumulate && !is_moved;
                let mut terms = vec![if is_kept { f64::from(before[place]) } else { 0.0 }];
                for (t, position) in positions.iter().enumerate() {
                    let factor = f64::from(factors.get(t).copied().unwrap_or(1.0));
                    let input = columns.get(k).map_or(1.0, |column| inputs[(position.input + column) as usize]);
                    let output_gradient = output_gradients[position.gradient as usize + output];
                    terms.push(f64::from(input) * f64::from(output_gradient) * factor);
                }
                let (expected, magnitude) = (terms.iter().sum(), terms.iter().map(|term| term.abs()).sum());
                let what = || {
                    let flags =
                        format!("bias {bias}, accumulate {accumulate}, moved {is_moved}, first row {first_row}");
                    format!("case {number}: {count} positions, {panels:?}, {flags}: row {row}, output {output}")
                };
                assert_close(gradient[place], expected, terms.len(), magnitude, &what);
                if is_moved {
                    let there = if accumulate { f64::from(sum_before[place]) } else { 0.0 };
                    assert_close(sum[place], there + 0.75 * f64::from(before[place]), 2, 2.0, &what);
                }
                norm += f64::from(gradient[place]).powi(2);
            }
        }
        if squares {
            assert_near(found, norm, 1e-6, &|| format!("case {number}: the squared norm"));
        }
        let written = rows.iter().flat_map(|row| (0..outputs).map(|output| panels.index(*row, output)));
        gradient.assert_untouched_but(written.clone(), &format!("case {number}"));
        sum.assert_untouched_but(written.filter(|_| accumulate || is_moved), &format!("case {number}: the sum"));
    }
}

pub fn weight_gradients_without_positions_are_zero<I: Isa>(isa: I) {
    let mut random = Random::new(11);
    for outputs in [1, 7, 16, 17, 40] {
        for accumulate in [false, true] {
            let panels = Panels { depth: 6, outputs };
            let mut gradient = Guarded::new(&mut random, panels.len());
            if accumulate {
                gradient.fill(3.0);
            }
            let norm = isa.dispatch(WeightGradient {
                inputs: &[POISON; 5],
                output_gradients: &[POISON; 100],
                positions: &[],
                factors: &[],
                columns: &[0, 1, 2, 3, 4],
                gradient: &mut gradient,
                panels,
                first_row: 0,
                bias: true,
                held: if accumulate { Held::Kept } else { Held::Forgotten },
                squares: true,
            });
            let expected = if accumulate { 3.0 } else { 0.0 };
            assert!(gradient.iter().all(|number| *number == expected), "{outputs} outputs: {:?}", &*gradient);
            assert_eq!(norm, f64::from(expected * expected) * panels.len() as f64);
        }
    }
}

pub fn squares_of_long_gradients_keep_their_digits<I: Isa>(isa: I) {
    let mut random = Random::new(12);
    let columns: Vec<u32> = (0..2000).collect();
    let panels = Panels { depth: 2001, outputs: 50 };
    let inputs = random.numbers(2004);
    let positions: Vec<Position> = (0..3).map(|t| Position { input: t, gradient: 50 * t }).collect();
    let output_gradients = random.numbers(150 + SLACK);
    let mut gradient = Guarded::new(&mut random, panels.len());
    let found = isa.dispatch(WeightGradient {
        inputs: &inputs,
        output_gradients: &output_gradients,
        positions: &positions,
        factors: &[],
        columns: &columns,
        gradient: &mut gradient,
        panels,
        first_row: 0,
        bias: true,
        held: Held::Forgotten,
        squares: true,
    });
    let expected: f64 = gradient.iter().map(|number| f64::from(*number).powi(2)).sum();
    assert_near(found, expected, 1e-6, &|| "100,000 squares".into());
}

pub fn sums_over_many_positions_keep_their_digits<I: Isa>(isa: I) {
    const POSITIONS: usize = 100_000;
    for outputs in [1, 2, 40] {
        let panels = Panels { depth: 21, outputs };
        let columns: Vec<u32> = (0..20).collect();
        let positions = vec![Position { input: 0, gradient: 0 }; POSITIONS];
        let mut gradient = vec![0.0; panels.len()];
        isa.dispatch(WeightGradient {
            inputs: &[0.1; 20],
            output_gradients: &vec![0.1; outputs + SLACK],
            positions: &positions,
            factors: &[],
            columns: &columns,
            gradient: &mut gradient,
            panels,
            first_row: 0,
            bias: false,
            held: Held::Forgotten,
            squares: false,
        });
        // One after the other, they would be off by 1e-3.
        let expected = POSITIONS as f64 * f64::from(0.1f32) * f64::from(0.1f32);
        for output in 0..outputs {
            let found = f64::from(gradient[panels.index(3, output)]);
            assert!((found / expected - 1.0).abs() < 5e-5, "{outputs} outputs: {found} instead of {expected}");
        }
    }
}

/// The squared norm of the gradient sum_t a_t g_t', written out; and a number that it would be without cancellation.
fn written_out(a: &[Vec<f64>], g: &[Vec<f64>]) -> (f64, f64) {
    let (inputs, outputs) = (a[0].len(), g[0].len());
    let mut gradient = vec![0.0; inputs * outputs];
    for (a, g) in a.iter().zip(g) {
        for i in 0..inputs {
            for j in 0..outputs {
                gradient[i * outputs + j] += a[i] * g[j];
            }
        }
    }
    let length = |vector: &Vec<f64>| vector.iter().map(|number| number * number).sum::<f64>().sqrt();
    let longest: f64 = a.iter().zip(g).map(|(a, g)| length(a) * length(g)).sum();
    (gradient.iter().map(|number| number * number).sum(), longest * longest)
}

fn widened(numbers: &[f32]) -> Vec<f64> {
    numbers.iter().copied().map(f64::from).collect()
}

pub fn ghost_norms_are_norms_of_the_gradient<I: Isa>(isa: I) {
    let mut random = Random::new(13);
    for number in 0..200 {
        let (segments, reach) = segments(&mut random);
        let (outputs, count) = (random.within(1..71), random.within(1..24));
        let positions = positions(&mut random, count, 20, outputs);
        let output_gradients = output_gradients(&mut random, &positions, outputs);
        let mut inputs = Guarded::new(&mut random, 20 + reach);
        for position in &positions {
            for segment in &segments {
                let at = (position.input + segment.offset) as usize;
                random.fill(&mut inputs[at..at + segment.len as usize]);
            }
        }
        let found = isa.dispatch(GhostNorm {
            inputs: &inputs,
            segments: &segments,
            output_gradients: &output_gradients,
            outputs,
            positions: &positions,
        });
        let a: Vec<Vec<f64>> = positions
            .iter()
            .map(|position| {
                let of = |segment: &Segment| {
                    let at = (position.input + segment.offset) as usize;
                    widened(&inputs[at..at + segment.len as usize])
                };
                segments.iter().flat_map(of).chain([1.0]).collect()
            })
            .collect();
        let g: Vec<Vec<f64>> = positions
            .iter()
            .map(|position| widened(&output_gradients[position.gradient as usize..][..outputs]))
            .collect();
        let (expected, magnitude) = written_out(&a, &g);
        let error = (found - expected).abs();
        assert!(error <= 1e-6 * magnitude, "case {number}, {count} positions: {found} instead of {expected}");
    }
}

pub fn rank_one_norms_are_norms_of_the_gradient<I: Isa>(isa: I) {
    let mut random = Random::new(14);
    for number in 0..100u32 {
        let (examples, input_len, gradient_len) = (random.below(10), random.within(1..90), random.within(1..90));
        let (input_pitch, gradient_pitch) = (input_len + random.below(9), gradient_len + random.below(9));
        let mut inputs = Guarded::new(&mut random, examples * input_pitch);
        let mut gradients = Guarded::new(&mut random, examples * gradient_pitch);
        for example in 0..examples {
            random.fill(&mut inputs[example * input_pitch..][..input_len]);
            random.fill(&mut gradients[example * gradient_pitch..][..gradient_len]);
        }
        let (mut norms, mut input_squares) = (vec![0.25; examples], vec![f64::NAN; examples]);
        let rows: Vec<Row> =
            (0..examples).map(|example| Row { input: (example * input_pitch) as u32, ..Row::default() }).collect();
        isa.dispatch(SquaredNorms {
            values: &inputs,
            places: if number % 2 == 0 { Places::Pitch(input_pitch) } else { Places::Inputs(&rows) },
            len: input_len,
            norms: &mut input_squares,
        });
        let bias = f64::from(number % 3 % 2);
        isa.dispatch(RankOneNorms {
            input_squares: &input_squares,
            bias,
            gradients: &gradients,
            gradient_pitch,
            gradient_len,
            norms: &mut norms,
        });
        for (example, found) in norms.iter().enumerate() {
            let mut a = widened(&inputs[example * input_pitch..][..input_len]);
            a.push(bias);
            let g = widened(&gradients[example * gradient_pitch..][..gradient_len]);
            let expected = 0.25 + written_out(&[a], &[g]).0;
            assert_near(*found, expected, 1e-6, &|| format!("case {number}, example {example}"));
        }
    }
}
