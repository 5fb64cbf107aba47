//! [`Pool`] and [`PoolGradient`].

use dpsgd_fused::kernels::{Pool, PoolGradient, Pooling, Window, covering, runs};
use dpsgd_fused::layout::{Frame, Grid, Margins};
use dpsgd_fused::simd::Isa;

use crate::generated::Random;
use crate::guarded::{Guarded, assert_close};

/// A pooling layer, and where everything lies.
#[derive(Debug)]
struct Shape {
    pooling: Pooling,
    window: Window,
    examples: usize,
    input: Frame,
    output: Frame,
    input_gradient: Frame,
    output_gradient: Frame,
}

fn frame(random: &mut Random, grid: Grid) -> Frame {
    let mut margin = || random.below(3);
    Frame::new(grid, Margins { top: margin(), bottom: margin(), left: margin(), right: margin() })
}

impl Shape {
    fn new(random: &mut Random, wide_steps: bool) -> Self {
        // Often the sizes that are written out.
        let size = match random.below(4) {
            0 => (2, 2),
            1 => (3, 3),
            _ => (random.within(1..5), random.within(1..5)),
        };
        let mut steps = (random.within(1..5), random.within(1..5));
        if !wide_steps {
            steps = (steps.0.min(size.0), steps.1.min(size.1));
        }
        let window = Window { h: size.0, w: size.1, step_h: steps.0, step_w: steps.1 };
        let (h, w) = (window.h + random.below(7), window.w + random.below(7));
        let c = if random.once_in(3) { random.within(16..70) } else { random.within(1..16) };
        let grid = Grid { h, w, c };
        let pooled = Grid { h: (h - window.h) / window.step_h + 1, w: (w - window.w) / window.step_w + 1, c };
        Shape {
            pooling: if random.once_in(2) { Pooling::Max } else { Pooling::Mean },
            window,
            examples: random.below(10),
            input: frame(random, grid),
            output: frame(random, pooled),
            input_gradient: frame(random, grid),
            output_gradient: frame(random, pooled),
        }
    }

    fn pool<I: Isa>(&self, isa: I, input: &[f32], output: &mut [f32], choices: &mut [f32]) {
        isa.dispatch(Pool {
            pooling: self.pooling,
            window: self.window,
            examples: self.examples,
            input,
            input_frame: self.input,
            output,
            choices,
            output_frame: self.output,
        });
    }

    /// The pixels of a window in row-major order.
    fn pixels(&self, y: usize, x: usize) -> impl Iterator<Item = (usize, usize)> {
        let Window { h, w, step_h, step_w } = self.window;
        (0..h).flat_map(move |dy| (0..w).map(move |dx| (y * step_h + dy, x * step_w + dx)))
    }

    /// Which pixel of a window has the largest number: the first among equals; a NaN is the largest.
    fn largest(&self, input: &[f32], example: usize, y: usize, x: usize, c: usize) -> (usize, (usize, usize)) {
        let number = |pixel: (usize, usize)| input[place(self.input, example, pixel.0, pixel.1, c)];
        let larger = |best: (usize, (usize, usize)), next: (usize, (usize, usize))| {
            if number(next.1) > number(best.1) || number(next.1).is_nan() { next } else { best }
        };
        self.pixels(y, x).enumerate().reduce(larger).expect("a window has pixels")
    }
}

fn place(frame: Frame, example: usize, y: usize, x: usize, c: usize) -> usize {
    example * frame.example + frame.at(y, x) + c
}

/// All places of a frame that hold numbers: `[example, y, x, c]`.
fn places(frame: Frame, examples: usize) -> impl Iterator<Item = ([usize; 4], usize)> {
    let Grid { h, w, c } = frame.grid;
    (0..examples * h * w * c).map(move |i| {
        let at = [i / (h * w * c), i / (w * c) % h, i / c % w, i % c];
        (at, place(frame, at[0], at[1], at[2], at[3]))
    })
}

/// Numbers in a frame, poison around them; a few values only, so that many are equal, or of all kinds.
fn numbers(random: &mut Random, frame: Frame, examples: usize, few: bool) -> Guarded {
    let mut numbers = Guarded::new(random, frame.buffer(examples.max(1)));
    for (_, place) in places(frame, examples) {
        let number = random.number();
        numbers[place] = if few { (number * 2.0).round() } else { number };
    }
    numbers
}

pub fn pools_are_those_of_windows<I: Isa>(isa: I) {
    let mut random = Random::new(20);
    for number in 0..300 {
        let shape = Shape::new(&mut random, true);
        let few = random.once_in(2);
        let input = numbers(&mut random, shape.input, shape.examples, few);
        let len = shape.output.buffer(shape.examples.max(1));
        let (mut output, mut choices) = (Guarded::new(&mut random, len), Guarded::new(&mut random, len));
        shape.pool(isa, &input, &mut output, &mut choices);
        for ([example, y, x, c], at) in places(shape.output, shape.examples) {
            let what = || format!("case {number}: {shape:?}: example {example}, pixel {y} {x}, channel {c}");
            match shape.pooling {
                Pooling::Max => {
                    let (choice, pixel) = shape.largest(&input, example, y, x, c);
                    let largest = input[place(shape.input, example, pixel.0, pixel.1, c)];
                    assert_eq!((output[at], choices[at]), (largest, choice as f32), "{}", what());
                }
                Pooling::Mean => {
                    let of = |(y, x)| f64::from(input[place(shape.input, example, y, x, c)]);
                    let values: Vec<f64> = shape.pixels(y, x).map(of).collect();
                    let count = values.len() as f64;
                    let magnitude = values.iter().map(|value| value.abs()).sum::<f64>() / count;
                    assert_close(output[at], values.iter().sum::<f64>() / count, values.len(), magnitude, &what);
                }
            }
        }
        let written = || places(shape.output, shape.examples).map(|(_, place)| place);
        output.assert_untouched_but(written(), &format!("output of case {number}"));
        if shape.pooling == Pooling::Max {
            choices.assert_untouched_but(written(), &format!("choices of case {number}"));
        }
    }
}

pub fn gradients_of_pools_go_where_the_values_came_from<I: Isa>(isa: I) {
    check_gradients(isa, false);
}

pub fn pixels_between_windows_have_no_gradient<I: Isa>(isa: I) {
    check_gradients(isa, true);
}

fn check_gradients<I: Isa>(isa: I, wide_steps: bool) {
    let mut random = Random::new(21);
    for number in 0..300 {
        let shape = Shape::new(&mut random, wide_steps);
        let few = random.once_in(2);
        let input = numbers(&mut random, shape.input, shape.examples, few);
        let len = shape.output.buffer(shape.examples.max(1));
        let (mut output, mut choices) = (Guarded::new(&mut random, len), Guarded::new(&mut random, len));
        shape.pool(isa, &input, &mut output, &mut choices);
        let output_gradient = numbers(&mut random, shape.output_gradient, shape.examples, false);
        let relu = random.once_in(2);
        let len = shape.input_gradient.buffer(shape.examples.max(1));
        let mut input_gradient = Guarded::new(&mut random, len);
        let Shape { window, input: Frame { grid, .. }, output: Frame { grid: pooled, .. }, .. } = shape;
        let rows = covering(grid.h, window.h, window.step_h, pooled.h);
        let runs = runs(grid.w, window.w, window.step_w, pooled.w);
        isa.dispatch(PoolGradient {
            pooling: shape.pooling,
            window,
            rows: &rows,
            runs: &runs,
            examples: shape.examples,
            relu: relu.then_some(&input),
            input_frame: shape.input,
            choices: &choices,
            output_frame: shape.output,
            output_gradient: &output_gradient,
            output_gradient_frame: shape.output_gradient,
            input_gradient: &mut input_gradient,
            input_gradient_frame: shape.input_gradient,
        });
        // Scattered, where the kernel gathers.
        let mut expected = vec![(0.0, 0.0, 0); input_gradient.len()];
        for ([example, y, x, c], at) in places(shape.output_gradient, shape.examples) {
            let gradient = f64::from(output_gradient[at]);
            let mut add = |(y, x): (usize, usize), part: f64| {
                let (sum, magnitude, terms) = &mut expected[place(shape.input_gradient, example, y, x, c)];
                (*sum, *magnitude, *terms) = (*sum + part, *magnitude + part.abs(), *terms + 1);
            };
            match shape.pooling {
                Pooling::Max => add(shape.largest(&input, example, y, x, c).1, gradient),
                Pooling::Mean => {
                    let share = gradient / (window.h * window.w) as f64;
                    shape.pixels(y, x).for_each(|pixel| add(pixel, share));
                }
            }
        }
        for ([example, y, x, c], at) in places(shape.input_gradient, shape.examples) {
            let value = input[place(shape.input, example, y, x, c)];
            let (mut sum, magnitude, terms) = expected[at];
            if relu && value <= 0.0 {
                sum = 0.0;
            }
            let what = || format!("case {number}: {shape:?}, ReLU {relu}: example {example}, {y} {x}, channel {c}");
            assert_close(input_gradient[at], sum, terms + 1, magnitude, &what);
        }
        let written = places(shape.input_gradient, shape.examples).map(|(_, place)| place);
        input_gradient.assert_untouched_but(written, &format!("gradient of case {number}"));
    }
}

pub fn a_nan_in_a_window_wins<I: Isa>(isa: I) {
    let mut random = Random::new(22);
    for _ in 0..60 {
        let mut shape = Shape::new(&mut random, true);
        shape.pooling = Pooling::Max;
        let mut input = numbers(&mut random, shape.input, shape.examples, false);
        for (_, place) in places(shape.input, shape.examples) {
            if random.once_in(10) {
                input[place] = f32::NAN;
            }
        }
        let len = shape.output.buffer(shape.examples.max(1));
        let (mut output, mut choices) = (Guarded::new(&mut random, len), Guarded::new(&mut random, len));
        shape.pool(isa, &input, &mut output, &mut choices);
        for ([example, y, x, c], at) in places(shape.output, shape.examples) {
            let value = |(y, x)| input[place(shape.input, example, y, x, c)];
            let has_nan = shape.pixels(y, x).any(|pixel| value(pixel).is_nan());
            assert_eq!(output[at].is_nan(), has_nan, "{shape:?}: example {example}, pixel {y} {x}, channel {c}");
        }
    }
}
