//! [`Product`].

use dpsgd_fused::kernels::{Finish, Product, Start};
use dpsgd_fused::layout::{Panels, Row, Rows, SLACK, Segment};
use dpsgd_fused::simd::Isa;

use crate::generated::Random;
use crate::guarded::{Guarded, assert_close};

/// All that a product takes, and what it must give.
struct Case {
    inputs: Guarded,
    rows: Rows,
    listed: Vec<Row>,
    count: usize,
    segments: Vec<Segment>,
    weights: Guarded,
    panels: Panels,
    first_row: usize,
    start: Start,
    finish: &'static str,
    mask: Guarded,
    outputs: Guarded,
}

/// Segments with gaps between them, in the inputs and in the weights, not always in order; and how far they reach.
pub fn segments(random: &mut Random) -> (Vec<Segment>, usize) {
    let (mut reach, mut depth) = (0, 0);
    let mut segments: Vec<Segment> = (0..random.below(5))
        .map(|_| {
            let offset = reach + random.below(4);
            let weight = depth + random.below(3);
            let len = if random.once_in(6) { random.within(14..70) } else { random.within(1..14) };
            (reach, depth) = (offset + len, weight + len);
            Segment { offset: offset as u32, len: len as u32, weight: weight as u32 }
        })
        .collect();
    if random.once_in(4) {
        segments.reverse();
    }
    (segments, reach)
}

/// The places of the inputs that segments have, and the rows of the weights that go with them.
fn pairs(segments: &[Segment]) -> impl Iterator<Item = (usize, usize)> {
    segments.iter().flat_map(|segment| {
        let Segment { offset, len, weight } = *segment;
        (0..len).map(move |k| ((offset + k) as usize, (weight + k) as usize))
    })
}

impl Case {
    fn new(random: &mut Random) -> Self {
        let outputs = if random.once_in(6) { 1 } else { random.within(1..71) };
        let (segments, reach) = segments(random);
        let depth = pairs(&segments).map(|(_, row)| row + 1).max().unwrap_or(0);
        let first_row = random.below(3);
        let panels = Panels { depth: first_row + depth + random.within(1..3), outputs };
        let count = random.below(41);
        // Rows' outputs lie apart, in an order of their own; inputs overlap as they like.
        let listed = count + random.below(3);
        let pitch = outputs + random.below(5);
        let first = random.below(listed.max(1));
        let inputs = reach + random.within(1..60);
        let listed: Vec<Row> = (0..listed)
            .map(|row| Row {
                input: random.below(inputs - reach) as u32,
                output: ((first + row) % listed * pitch) as u32,
                mask: (row * outputs) as u32,
            })
            .collect();
        let start = [Start::Zero, Start::Bias, Start::Outputs][random.below(3)];
        let finish = ["store", "relu", "mask"][random.below(3)];

        let mut numbers = Guarded::new(random, inputs);
        for row in &listed {
            for segment in &segments {
                let at = (row.input + segment.offset) as usize;
                random.fill(&mut numbers[at..at + segment.len as usize]);
            }
        }
        if random.once_in(5) {
            numbers[random.below(inputs)] = f32::NAN;
        }
        // Only the rows that are used, and the biases, aren't poison.
        let mut weights = Guarded::new(random, panels.len() + SLACK);
        for output in 0..outputs {
            for (_, row) in pairs(&segments) {
                weights[panels.index(first_row + row, output)] = random.number();
            }
            if start == Start::Bias {
                weights[panels.index(panels.depth - 1, output)] = random.number();
            }
        }
        let mut mask = random.numbers(listed.len().max(1) * outputs);
        for place in 0..mask.len() {
            match random.below(20) {
                0 => mask[place] = 0.0,
                1 => mask[place] = -0.0,
                2 => mask[place] = f32::NAN,
                _ => {}
            }
        }
        let mut buffer = Guarded::new(random, (listed.len() * pitch).max(outputs));
        if start == Start::Outputs {
            for row in &listed[..count] {
                random.fill(&mut buffer[row.output as usize..][..outputs]);
            }
        }
        Case {
            inputs: numbers,
            rows: listed.iter().copied().collect(),
            listed,
            count,
            segments,
            weights,
            panels,
            first_row,
            start,
            finish,
            mask,
            outputs: buffer,
        }
    }

    fn run<I: Isa>(&mut self, isa: I) {
        isa.dispatch(Product {
            inputs: &self.inputs,
            rows: self.rows.first(self.count),
            // Only a hint.
            scattered: self.count % 2 == 1,
            segments: &self.segments,
            weights: &self.weights,
            panels: self.panels,
            first_row: self.first_row,
            start: self.start,
            finish: match self.finish {
                "store" => Finish::Store,
                "relu" => Finish::Relu,
                _ => Finish::Mask(&self.mask),
            },
            outputs: &mut self.outputs,
        });
    }

    /// The outputs of a row before it is finished, and the sums of absolute values.
    fn expected(&self, row: &Row, output: usize, before: f32) -> (f64, f64) {
        let mut terms = vec![match self.start {
            Start::Zero => 0.0,
            Start::Bias => f64::from(self.weights[self.panels.index(self.panels.depth - 1, output)]),
            Start::Outputs => f64::from(before),
        }];
        for (place, weight) in pairs(&self.segments) {
            let weight = f64::from(self.weights[self.panels.index(self.first_row + weight, output)]);
            terms.push(f64::from(self.inputs[row.input as usize + place]) * weight);
        }
        (terms.iter().sum(), terms.iter().map(|term| term.abs()).sum())
    }
}

pub fn products_are_those_of_matrices<I: Isa>(isa: I) {
    let mut random = Random::new(1);
    for number in 0..400 {
        let mut case = Case::new(&mut random);
        let before: Vec<f32> = case.outputs.to_vec();
        case.run(isa);
        let outputs = case.panels.outputs;
        for row in &case.listed[..case.count] {
            for output in 0..outputs {
                let place = row.output as usize + output;
                let (mut expected, mut magnitude) = case.expected(row, output, before[place]);
                let masked = case.mask[row.mask as usize + output];
                let what = || {
                    let Case { panels, segments, start, finish, count, .. } = &case;
                    format!("case {number}: {panels:?} {segments:?} {start:?} {finish} {count} rows, {row:?} {output}")
                };
                match case.finish {
                    "relu" if expected <= 0.0 => expected = 0.0,
                    // Exactly, also where the sum is NaN.
                    "mask" if masked <= 0.0 || masked.is_nan() => {
                        assert_eq!(case.outputs[place], 0.0, "{}", what());
                        (expected, magnitude) = (0.0, 0.0);
                    }
                    _ => {}
                }
                assert_close(case.outputs[place], expected, case.panels.depth, magnitude, &what);
            }
        }
        let rows = &case.listed[..case.count];
        let written = rows.iter().flat_map(|row| (0..outputs).map(|output| row.output as usize + output));
        case.outputs.assert_untouched_but(written, &format!("case {number}"));
    }
}

pub fn a_product_without_rows_writes_nothing<I: Isa>(isa: I) {
    let mut random = Random::new(2);
    for _ in 0..20 {
        let mut case = Case::new(&mut random);
        case.count = 0;
        case.start = Start::Zero;
        case.outputs = Guarded::new(&mut random, case.outputs.len());
        case.run(isa);
        case.outputs.assert_untouched_but([], "no rows");
    }
}

pub fn a_relu_in_a_product_keeps_nan<I: Isa>(isa: I) {
    let mut random = Random::new(3);
    for outputs in [1, 7, 8, 9, 15, 16, 17, 33, 48, 50] {
        let panels = Panels { depth: 2, outputs };
        let weights = random.numbers(panels.len() + SLACK);
        let rows: Rows = (0..3).map(|row| Row { input: row, output: row * outputs as u32, mask: 0 }).collect();
        let mut found = Guarded::new(&mut random, 3 * outputs);
        isa.dispatch(Product {
            inputs: &[1.0, f32::NAN, f32::INFINITY],
            rows: rows.first(3),
            scattered: false,
            segments: &[Segment::first(1)],
            weights: &weights,
            panels,
            first_row: 0,
            start: Start::Bias,
            finish: Finish::Relu,
            outputs: &mut found,
        });
        for output in 0..outputs {
            assert!(found[output] >= 0.0);
            assert!(found[outputs + output].is_nan(), "{outputs} outputs: {}", found[outputs + output]);
            let infinite = if weights[panels.index(0, output)] > 0.0 { f32::INFINITY } else { 0.0 };
            assert_eq!(found[2 * outputs + output], infinite, "{outputs} outputs");
        }
    }
}
