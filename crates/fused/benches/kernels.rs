//! The kernels of a step, each by itself on one thread, with the shapes and tables that the plans of the built-in models
//! give them: a block of examples, or one example where the step takes them singly.
//!
//! The throughput of products is in FLOPs (2 T p d, as if no part of a kernel lay in the padding), that of everything
//! else in numbers. Only the best instruction set of this machine is measured.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use dpsgd_conformance::synthetic;
use dpsgd_core::{BatchRef, Mode, ModelSpec, Strategy};
use dpsgd_fused::Fused;
use dpsgd_fused::kernels::{
    CrossEntropyGradient, Finish, GhostNorm, Held, LstmCell, LstmCellGradient, Mask, Places, Pool, PoolGradient,
    Pooling, Product, RankOneNorms, Relu, Scale, ScaleExamples, ScaledAdd, SquaredNorm, SquaredNorms, Start,
    WeightGradient, Window, covering, runs,
};
use dpsgd_fused::layout::{Frame, Grid, Margins, Panels, Position, SLACK};
use dpsgd_fused::plan::{Affine, Edge, Lstm, Method, Methods, Operation, Plan, RowGroup};
use dpsgd_fused::simd::{Isa, Portable};

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn models() -> impl Iterator<Item = (&'static str, Plan)> {
    // `ffnn-regression` has the shapes of `ffnn`.
    ModelSpec::built_in_names().filter(|name| *name != "ffnn-regression").map(|name| {
        let model = ModelSpec::built_in(name).expect("built in");
        (name, Plan::new(&model, Methods::default()).expect("a valid model"))
    })
}

/// Numbers between -1 and 1, none of them so small that arithmetic on it would be slow.
fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 % 199) as f32 - 99.2) / 100.0).collect()
}

fn affine_maps<I: Isa>(criterion: &mut Criterion, isa: I) {
    for (name, plan) in models() {
        let mut group = group(criterion, format!("{name}/products"));
        for (i, operation) in plan.operations.iter().enumerate() {
            match operation {
                Operation::Affine(affine) => bench_affine(&mut group, isa, &plan, i, affine),
                Operation::Lstm(lstm) => bench_lstm_products(&mut group, isa, &plan, i, lstm),
                _ => {}
            }
        }
        group.finish();
    }
}

fn bench_affine<I: Isa>(group: &mut Group<'_>, isa: I, plan: &Plan, i: usize, affine: &Affine) {
    let (from, to, block) = (&plan.edges[i], &plan.edges[i + 1], plan.block);
    let layer = format!("layer {} ({})", affine.layer, affine.kind);
    let choice = affine.choice();
    let flops = (2 * choice.positions * choice.inputs * choice.outputs) as u64;
    let weights = numbers(affine.panels.len() + SLACK);
    let inputs = values(from, block);
    let gradients = numbers(to.gradient.buffer(block));

    group.throughput(Throughput::Elements(block as u64 * flops));
    let mut outputs = numbers(to.value.buffer(block));
    let finish = if to.relu { Finish::Relu } else { Finish::Store };
    group.bench_function(format!("{layer}/forward, {block} examples"), |bencher| {
        bencher.iter(|| {
            for RowGroup { rows, pixels, segments } in &affine.forward {
                let (rows, outputs) = (rows.first(block * pixels), &mut outputs);
                isa.dispatch(Product {
                    inputs: &inputs,
                    rows,
                    scattered: false,
                    segments,
                    weights: &weights,
                    panels: affine.panels,
                    first_row: 0,
                    start: Start::Bias,
                    finish,
                    outputs,
                });
            }
        });
    });

    if !affine.backward.is_empty() {
        let transposed = numbers(affine.transposed + SLACK);
        let mut input_gradients = numbers(from.gradient.buffer(block));
        group.bench_function(format!("{layer}/backward, {block} examples"), |bencher| {
            bencher.iter(|| {
                for phase in &affine.backward {
                    for RowGroup { rows, pixels, segments } in &phase.groups {
                        isa.dispatch(Product {
                            inputs: &gradients,
                            rows: rows.first(block * pixels),
                            scattered: false,
                            segments,
                            weights: &transposed[phase.start..],
                            panels: phase.panels,
                            first_row: 0,
                            start: Start::Zero,
                            finish: if from.relu { Finish::Mask(&inputs) } else { Finish::Store },
                            outputs: &mut input_gradients,
                        });
                    }
                }
            });
        });
    }

    // As in a private step: of each example where its gradient is kept, else of the block.
    let of_one = affine.positions_per_example();
    let (who, examples) = if affine.method == Method::Kept { ("1 example", 1) } else { ("the block", block) };
    let positions = &affine.positions[..examples * of_one];
    group.throughput(Throughput::Elements(examples as u64 * flops));
    let mut gradient = vec![0.0; affine.panels.len()];
    group.bench_function(format!("{layer}/weight gradient of {who}"), |bencher| {
        bencher.iter(|| {
            isa.dispatch(weight_gradient(&inputs, &gradients, positions, &affine.columns, &mut gradient, affine.panels))
        });
    });

    if affine.method == Method::Ghost {
        group.throughput(Throughput::Elements(choice.ghost() as u64));
        group.bench_function(format!("{layer}/ghost norm of 1 example"), |bencher| {
            bencher.iter(|| {
                isa.dispatch(GhostNorm {
                    inputs: &inputs,
                    segments: &affine.segments,
                    output_gradients: &gradients,
                    outputs: affine.output.c,
                    positions: &affine.positions[..of_one],
                })
            });
        });
    }
}

/// The values of an edge, zeros in the padding.
fn values(edge: &Edge, block: usize) -> Vec<f32> {
    let Frame { grid, example, .. } = edge.value;
    let mut values = vec![0.0; edge.value.buffer(block)];
    let pixels = numbers(grid.len());
    for one in values.chunks_exact_mut(example).take(block) {
        for (y, row) in pixels.chunks_exact(grid.w * grid.c).enumerate() {
            one[edge.value.at(y, 0)..][..row.len()].copy_from_slice(row);
        }
    }
    values
}

fn weight_gradient<'a>(
    inputs: &'a [f32],
    output_gradients: &'a [f32],
    positions: &'a [Position],
    columns: &'a [u32],
    gradient: &'a mut [f32],
    panels: Panels,
) -> WeightGradient<'a> {
    WeightGradient {
        inputs,
        output_gradients,
        positions,
        factors: &[],
        columns,
        gradient,
        panels,
        first_row: 0,
        bias: true,
        held: Held::Forgotten,
        squares: true,
    }
}

/// The products of one time step, and the weight gradient in x over all of them.
fn bench_lstm_products<I: Isa>(group: &mut Group<'_>, isa: I, plan: &Plan, i: usize, lstm: &Lstm) {
    let (block, hidden, layer) = (plan.block, lstm.hidden, format!("layer {} (lstm)", lstm.layer));
    let [_, hidden_segment, gate_segment] = lstm.segments();
    let mut gates = numbers(lstm.gates.buffer(block));
    let mut outputs = numbers(plan.edges[i + 1].value.buffer(block));
    let weights = numbers(lstm.panels.len() + SLACK);
    group.throughput(Throughput::Elements((block * 2 * hidden * 4 * hidden) as u64));
    group.bench_function(format!("{layer}/h to gates, {block} examples"), |bencher| {
        bencher.iter(|| {
            isa.dispatch(Product {
                inputs: &outputs,
                rows: lstm.from_hidden.first(block),
                scattered: false,
                segments: &hidden_segment,
                weights: &weights,
                panels: lstm.panels,
                first_row: lstm.inputs,
                start: Start::Bias,
                finish: Finish::Store,
                outputs: &mut gates,
            });
        });
    });
    let transposed = numbers(lstm.transposed_hidden().len() + SLACK);
    group.bench_function(format!("{layer}/gates to h, {block} examples"), |bencher| {
        bencher.iter(|| {
            isa.dispatch(Product {
                inputs: &gates,
                rows: lstm.to_hidden.first(block),
                scattered: false,
                segments: &gate_segment,
                weights: &transposed,
                panels: lstm.transposed_hidden(),
                first_row: 0,
                start: Start::Zero,
                finish: Finish::Store,
                outputs: &mut outputs,
            });
        });
    });
    let inputs = values(&plan.edges[i], block);
    let mut gradient = vec![0.0; lstm.panels.len()];
    let (positions, columns) = (&lstm.input_positions[..lstm.time], &lstm.columns[..lstm.inputs]);
    group.throughput(Throughput::Elements((2 * lstm.time * lstm.inputs * 4 * hidden) as u64));
    group.bench_function(format!("{layer}/weight gradient in x of 1 example"), |bencher| {
        bencher.iter(|| isa.dispatch(weight_gradient(&inputs, &gates, positions, columns, &mut gradient, lstm.panels)));
    });
}

fn pooling<I: Isa>(criterion: &mut Criterion, isa: I) {
    let mut group = group(criterion, "pooling".into());
    let cases = [(Pooling::Max, 14, 16, 2, 1), (Pooling::Max, 14, 16, 3, 2), (Pooling::Mean, 32, 32, 2, 2)];
    for (pooling, size, c, side, step) in cases {
        let window = Window { h: side, w: side, step_h: step, step_w: step };
        let pooled = (size - side) / step + 1;
        let frame = |size: usize| Frame::new(Grid { h: size, w: size, c }, Margins::default());
        let (from, to) = (frame(size), frame(pooled));
        let input = numbers(from.buffer(1));
        let (mut output, mut choices) = (vec![0.0; to.buffer(1)], vec![0.0; to.buffer(1)]);
        let name = format!("{pooling:?} {side}x{side} step {step} of {size}x{size}x{c}");
        group.throughput(Throughput::Elements(from.grid.len() as u64));
        group.bench_function(format!("{name}/forward"), |bencher| {
            bencher.iter(|| {
                isa.dispatch(Pool {
                    pooling,
                    window,
                    examples: 1,
                    input: &input,
                    input_frame: from,
                    output: &mut output,
                    choices: &mut choices,
                    output_frame: to,
                })
            });
        });
        let (rows, runs) = (covering(size, side, step, pooled), runs(size, side, step, pooled));
        let mut input_gradient = vec![0.0; from.buffer(1)];
        group.bench_function(format!("{name}/backward through ReLU"), |bencher| {
            bencher.iter(|| {
                isa.dispatch(PoolGradient {
                    pooling,
                    window,
                    rows: &rows,
                    runs: &runs,
                    examples: 1,
                    relu: Some(&input),
                    input_frame: from,
                    choices: &choices,
                    output_frame: to,
                    output_gradient: &output,
                    output_gradient_frame: to,
                    input_gradient: &mut input_gradient,
                    input_gradient_frame: from,
                })
            });
        });
    }
    group.finish();
}

fn lstm_cell<I: Isa>(criterion: &mut Criterion, isa: I) {
    const HIDDEN: usize = 100;
    let mut group = group(criterion, "LSTM cell".into());
    group.throughput(Throughput::Elements(HIDDEN as u64));
    let before = numbers(HIDDEN);
    let start = numbers(4 * HIDDEN);
    let (mut gates, mut cell, mut cell_tanh, mut output) =
        (start.clone(), vec![0.0; HIDDEN], vec![0.0; HIDDEN], vec![0.0; HIDDEN]);
    // Each call turns pre-activations into gates, and gates into gradients: it begins with fresh ones.
    group.bench_function("forward", |bencher| {
        bencher.iter(|| {
            gates.copy_from_slice(&start);
            isa.dispatch(LstmCell {
                gates: &mut gates,
                cell_before: Some(&before),
                cell: &mut cell,
                cell_tanh: &mut cell_tanh,
                output: &mut output,
            });
        });
    });
    let (after, mut cell_gradient) = (gates.clone(), vec![0.0; HIDDEN]);
    group.bench_function("backward", |bencher| {
        bencher.iter(|| {
            gates.copy_from_slice(&after);
            cell_gradient.fill(0.5);
            isa.dispatch(LstmCellGradient {
                gates: &mut gates,
                cell_before: Some(&before),
                cell_tanh: &cell_tanh,
                output_gradient: &output,
                recurrent_gradient: Some(&before),
                cell_gradient: &mut cell_gradient,
            });
        });
    });
    group.finish();
}

/// What goes number by number: over one example's kept gradients (as many as `mnist-cnn` has), or over a block of examples
/// with `ffnn`'s inputs.
fn elementwise<I: Isa>(criterion: &mut Criterion, isa: I) {
    const KEPT: usize = 26_010;
    let mut group = group(criterion, "number by number".into());
    let (from, mut to) = (numbers(KEPT), numbers(KEPT));
    group.throughput(Throughput::Elements(KEPT as u64));
    group.bench_function("squared norm", |bencher| bencher.iter(|| isa.dispatch(SquaredNorm(black_box(&from)))));
    group.bench_function("clipped gradient added to the sum", |bencher| {
        bencher.iter(|| {
            isa.dispatch(ScaledAdd { by: black_box(0.5), from: &from, to: black_box(&mut to), accumulate: true });
        });
    });
    group.bench_function("scaled in place", |bencher| {
        bencher.iter(|| isa.dispatch(Scale { by: black_box(1.0), values: black_box(&mut to) }));
    });
    group.bench_function("ReLU", |bencher| {
        bencher.iter(|| isa.dispatch(Relu { from: black_box(&from), to: black_box(&mut to) }));
    });
    let value = numbers(KEPT);
    group.bench_function("gradient of ReLU", |bencher| {
        bencher.iter(|| isa.dispatch(Mask { value: &value, gradient: black_box(&from), to: black_box(&mut to) }));
    });

    const EXAMPLES: usize = 64;
    const INPUTS: usize = 104;
    const OUTPUTS: usize = 10;
    let (values, mut outputs) = (numbers(EXAMPLES * INPUTS + SLACK), numbers(EXAMPLES * INPUTS + SLACK));
    let (squares, mut norms) = (vec![1.0; EXAMPLES], vec![0.0; EXAMPLES]);
    group.throughput(Throughput::Elements((EXAMPLES * INPUTS) as u64));
    group.bench_function(format!("squared norms of {EXAMPLES} x {INPUTS}"), |bencher| {
        bencher.iter(|| {
            let (values, places) = (black_box(&values[..]), Places::Pitch(INPUTS));
            isa.dispatch(SquaredNorms { values, places, len: INPUTS, norms: black_box(&mut norms) });
        });
    });
    group.bench_function(format!("rank-one norms of {EXAMPLES} x {INPUTS}"), |bencher| {
        bencher.iter(|| {
            isa.dispatch(RankOneNorms {
                input_squares: black_box(&squares),
                bias: 1.0,
                gradients: &values,
                gradient_pitch: INPUTS,
                gradient_len: INPUTS,
                norms: black_box(&mut norms),
            });
        });
    });
    let factors: Vec<f32> = (0..EXAMPLES).map(|example| if example % 2 == 0 { -1.0 } else { 1.0 }).collect();
    group.bench_function(format!("{EXAMPLES} x {INPUTS} by their clip factors"), |bencher| {
        bencher.iter(|| {
            let values = black_box(&mut outputs[..]);
            isa.dispatch(ScaleExamples { values, pitch: INPUTS, len: INPUTS, factors: &factors });
        });
    });
    let classes: Vec<u32> = (0..EXAMPLES as u32).map(|example| example % OUTPUTS as u32).collect();
    group.throughput(Throughput::Elements((EXAMPLES * OUTPUTS) as u64));
    group.bench_function(format!("gradient of cross entropy, {EXAMPLES} x {OUTPUTS}"), |bencher| {
        bencher.iter(|| {
            isa.dispatch(CrossEntropyGradient {
                logits: black_box(&values),
                pitch: OUTPUTS,
                gradients: &mut outputs,
                gradient_pitch: OUTPUTS,
                outputs: OUTPUTS,
                classes: &classes,
            });
        });
    });
    group.finish();
}

/// The end of a step, one thread: a step on an empty batch is nothing else.
fn update(criterion: &mut Criterion) {
    let mut group = group(criterion, "update".into());
    for name in ["ffnn", "mnist-cnn", "embedding", "lstm"] {
        let model = ModelSpec::built_in(name).expect("built in");
        for (what, noise_multiplier) in [("with noise", 1.0), ("without noise", 0.0)] {
            let mut job = synthetic::job(&model, 1, Mode::Private, None);
            job.dp.noise_multiplier = noise_multiplier;
            job.dp.learning_rate = 1e-6;
            group.throughput(Throughput::Elements(job.params.len() as u64));
            let mut fused = Fused::load(job).expect("loads");
            group.bench_function(format!("{name}/{what}"), |bencher| {
                bencher.iter(|| fused.step(black_box(&BatchRef { indices: &[0], mask: &[false] })).expect("steps"));
            });
        }
    }
    group.finish();
}

fn group(criterion: &mut Criterion, name: String) -> Group<'_> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(20).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(800));
    group
}

fn all<I: Isa>(criterion: &mut Criterion, isa: I) {
    println!("{}", I::NAME);
    affine_maps(criterion, isa);
    pooling(criterion, isa);
    lstm_cell(criterion, isa);
    elementwise(criterion, isa);
    update(criterion);
}

fn kernels(criterion: &mut Criterion) {
    #[cfg(target_arch = "x86_64")]
    {
        use dpsgd_fused::simd::{Avx2, Avx512};
        if let Some(isa) = Avx512::detect() {
            return all(criterion, isa);
        }
        if let Some(isa) = Avx2::detect() {
            return all(criterion, isa);
        }
    }
    all(criterion, Portable::detect().expect("every machine"));
}

criterion_group!(benches, kernels);
criterion_main!(benches);
