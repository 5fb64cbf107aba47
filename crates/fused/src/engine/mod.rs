//! A step, carried out: each thread takes its share of the batch to a sum of clipped gradients, then all threads add up
//! the sums, draw the noise and update the parameters, each a part of them.

mod by_outputs;
mod clip;
mod data;
mod embedding;
mod loss;
mod pass;
mod transpose;
mod worker;

use std::ops::Range;

use dpsgd_core::{BatchRef, Dataset, DpSgd, Mode, ModelInput, Params};

use crate::kernels::{Noise, Update};
use crate::layout::SLACK;
use crate::memory::{Buffer, Shared};
use crate::noise::{GROUP, Key};
use crate::plan::{MOST_WAITING, Operation, Plan};
use crate::simd::Isa;
use crate::threads::Threads;
use by_outputs::{ByOutputs, Job};
use data::Data;
use transpose::Runs;
use worker::Worker;

/// What a step can be asked, whatever the instruction set.
pub trait Step: Send {
    /// One step of the optimizer.
    fn step(&mut self, batch: &BatchRef<'_>, dp: &DpSgd);
    /// The model's outputs for some examples of the data set, `[examples, outputs]`.
    fn outputs(&mut self, examples: &[u32]) -> Vec<f32>;
    /// Writes the parameters into PyTorch's tensors.
    fn read(&self, params: &mut Params);
    /// Takes the parameters from PyTorch's tensors.
    fn write(&mut self, params: &Params);
    /// Examples left out so far because their gradient was not finite.
    fn non_finite(&self) -> u64;
    /// Threads in force.
    fn threads(&self) -> usize;
    /// The plan.
    fn plan(&self) -> &Plan;
    /// Name of the instruction set.
    fn isa(&self) -> &'static str;
}

/// A plan with its memory and threads, for one instruction set.
pub struct Engine<I: Isa> {
    isa: I,
    plan: Plan,
    data: Data,
    parameters: Parameters,
    active: Vec<bool>,
    /// The rows of an averaged embedding whose sums each thread makes.
    table_rows: Vec<Range<usize>>,
    workers: Vec<Worker>,
    /// For batches that are divided by outputs.
    by_outputs: Option<ByOutputs>,
    /// What each thread updates.
    parts: Vec<Vec<Part>>,
    non_finite: u64,
    threads: Threads,
}

/// The parameters, and what steps change them by.
struct Parameters {
    theta: Buffer,
    /// The weights that backward products need, transposed, one operation after another.
    transposed: Buffer,
    /// Of each operation, how its weights get there.
    runs: Vec<Runs>,
    /// One after another, the threads' sums of gradients.
    sums: Buffer,
    pitch: usize,
    key: Key,
    steps: u64,
}

/// Some parameters of one operation.
struct Part {
    operation: usize,
    range: Range<usize>,
}

impl<I: Isa> Engine<I> {
    /// Allocates all that steps need.
    pub fn new(isa: I, plan: Plan, dataset: Dataset, input: &ModelInput, key: Key, threads: Threads) -> Self {
        let pitch = plan.parameters.next_multiple_of(GROUP) + SLACK;
        let count = threads.count();
        let mut transposed = 0;
        let runs = plan.operations.iter().map(|operation| Runs::of(operation, &mut transposed));
        let runs: Vec<Runs> = runs.collect();
        let data = Data::new(dataset, input);
        Engine {
            isa,
            parameters: Parameters {
                theta: Buffer::zeros(plan.parameters + SLACK),
                transposed: Buffer::zeros(transposed + SLACK),
                runs,
                sums: Buffer::zeros(pitch * count),
                pitch,
                key,
                steps: 0,
            },
            active: vec![false; count],
            table_rows: plan.averaged().map_or(Vec::new(), |table| embedding::shares(table, &data, count)),
            workers: (0..count).map(|_| Worker::new(&plan)).collect(),
            by_outputs: ByOutputs::new(&plan, &data, count),
            data,
            parts: parts(&plan, count),
            non_finite: 0,
            threads,
            plan,
        }
    }

    /// Every thread's sum over its share of the batch. The sum of an embedding whose mean is taken is the first thread's,
    /// and all threads add to it, each to rows of its own.
    fn accumulate(&mut self, batch: &BatchRef<'_>, examples: usize, dp: &DpSgd) {
        let Engine { isa, plan, data, parameters, workers, threads, active, table_rows, .. } = self;
        let Parameters { theta, transposed, runs, sums, pitch, .. } = parameters;
        let count = threads.count();
        let context = pass::Context { isa: *isa, plan, data, theta, transposed, runs, clip_norm: clip_norm(dp) };
        let (sums, pitch) = (Shared::new(sums), *pitch);
        let share = |thread: usize| examples * thread / count..examples * (thread + 1) / count;
        // As many examples of each thread at a time as can wait.
        let waiting = plan.averaged();
        let most = if waiting.is_some() { MOST_WAITING } else { examples };
        let rounds = examples.div_ceil(count).div_ceil(most);
        for round in 0..rounds {
            threads.run_each(workers, &|thread, worker| {
                let Range { start, end } = share(thread);
                let of_round = (start + round * most).min(end)..(start + (round + 1) * most).min(end);
                // SAFETY: each thread takes its own sum.
                let sum = unsafe { sums.part(thread * pitch..thread * pitch + plan.parameters) };
                if round == 0 {
                    worker.begin();
                }
                worker.accumulate(&context, batch, of_round, sum);
                if round + 1 == rounds {
                    worker.finish(&context, sum);
                }
            });
            let Some(embedding) = waiting else { continue };
            threads.run(&|thread| {
                let rows = &table_rows[thread];
                let first = embedding.parameters.start;
                let places = first + rows.start * embedding.width..first + rows.end * embedding.width;
                // SAFETY: each thread takes rows of its own, in the first thread's sum, which nothing else uses now.
                let sum = unsafe { sums.part(places) };
                for waiting in workers.iter().filter_map(|worker| worker.waiting.as_ref()) {
                    waiting.add(context.isa, data, rows.clone(), sum);
                }
            });
        }
        for (thread, active) in active.iter_mut().enumerate() {
            *active = !share(thread).is_empty();
        }
    }

    /// Both, where threads divide the batch by outputs; says whether they do.
    fn step_by_outputs(
        &mut self,
        batch: &BatchRef<'_>,
        examples: usize,
        dp: &DpSgd,
        rate: f32,
        noise: Option<f32>,
    ) -> bool {
        let Engine { isa, plan, data, parameters, by_outputs, threads, .. } = self;
        let Some(by_outputs) = by_outputs.as_mut().filter(|by_outputs| examples <= by_outputs.most) else {
            return false;
        };
        let change = parameters.change(rate, noise);
        let job = Job { isa: *isa, plan, data, batch, examples, clip_norm: clip_norm(dp), change };
        self.non_finite += by_outputs.step(threads, &job);
        true
    }

    /// theta <- theta - rate (sum + noise), and the transposed weights with it.
    fn update(&mut self, rate: f32, noise: Option<f32>) {
        let Engine { isa, plan, parameters, active, parts, threads, .. } = self;
        let active: &[bool] = active;
        // Of what all threads summed in the first one's sum.
        let first_active = [active.contains(&true)];
        let isa = *isa;
        let change = parameters.change(rate, noise);
        threads.run(&|thread| {
            for part in &parts[thread] {
                let (clear, active) = match &plan.operations[part.operation] {
                    Operation::Embedding(embedding) if embedding.mean => (true, &first_active[..]),
                    Operation::Embedding(_) => (true, active),
                    _ => (false, active),
                };
                // SAFETY: parts don't overlap, and nobody reads parameters or sums of others' now.
                unsafe { change.apply(isa, part, active, clear) };
            }
        });
    }
}

impl Parameters {
    /// What the next step does to them. That step counts from here on, so that not even one that fails midway leaves its
    /// noise to another.
    fn change(&mut self, rate: f32, noise: Option<f32>) -> Change<'_> {
        let Parameters { theta, transposed, runs, sums, pitch, key, steps } = self;
        let step = *steps;
        *steps += 1;
        Change {
            theta: Shared::new(theta),
            transposed: Shared::new(transposed),
            runs,
            sums: Shared::new(sums),
            pitch: *pitch,
            rate,
            noise: noise.map(|scale| Noise { key, step, scale }),
        }
    }
}

/// What a step does to the parameters: theta <- theta - rate (sum + noise).
#[derive(Clone, Copy)]
struct Change<'a> {
    theta: Shared<'a>,
    transposed: Shared<'a>,
    /// How each operation's weights get into the transposed ones.
    runs: &'a [Runs],
    /// One after another, the threads' sums of gradients.
    sums: Shared<'a>,
    /// Numbers from one thread's sum to the next.
    pitch: usize,
    /// eta / B.
    rate: f32,
    /// The noise, if there is any.
    noise: Option<Noise<'a>>,
}

impl Change<'_> {
    /// Updates a part of the parameters by the sums of the `active` threads, which become 0 if `clear`, and the transposed
    /// weights with it.
    ///
    /// # Safety
    ///
    /// Nothing else reads or writes the part, its sums or its transposed weights at the same time.
    unsafe fn apply<I: Isa>(&self, isa: I, part: &Part, active: &[bool], clear: bool) {
        let Change { theta, transposed, runs, sums, pitch, rate, noise } = *self;
        // SAFETY: the caller says so.
        let values = unsafe { theta.part(part.range.clone()) };
        let range = part.range.clone();
        isa.dispatch(Update { range, theta: &mut *values, sums, pitch, active, clear, rate, noise });
        // SAFETY: the caller says so.
        unsafe { runs[part.operation].copy(part.range.clone(), values, transposed) };
    }
}

/// C, unless nothing is clipped.
fn clip_norm(dp: &DpSgd) -> Option<f64> {
    match dp.mode {
        Mode::Private => Some(dp.clip_norm),
        Mode::NonPrivate => None,
    }
}

/// Cuts the parameters into as many runs of about the same length as there are threads, at places where the transposed
/// weights can be cut, and each run where operations meet.
fn parts(plan: &Plan, threads: usize) -> Vec<Vec<Part>> {
    let cut = |thread: usize| {
        let at = plan.parameters * thread / threads;
        let operation = plan.operations.iter().find(|operation| operation.parameters().contains(&at));
        operation.map_or(at, |operation| operation.cut_before(at))
    };
    let overlap = |a: &Range<usize>, b: &Range<usize>| a.start.max(b.start)..a.end.min(b.end);
    let of_thread = |thread: usize| {
        let range = cut(thread)..if thread + 1 == threads { plan.parameters } else { cut(thread + 1) };
        let parts = plan.operations.iter().enumerate().map(|(operation, of)| {
            let range = overlap(&range, &of.parameters());
            Part { operation, range }
        });
        parts.filter(|part| !part.range.is_empty()).collect()
    };
    (0..threads).map(of_thread).collect()
}

impl<I: Isa> Step for Engine<I> {
    fn step(&mut self, batch: &BatchRef<'_>, dp: &DpSgd) {
        let examples = batch.examples();
        let (rate, noise) = match dp.mode {
            Mode::Private => {
                let scale = dp.noise_multiplier * dp.clip_norm;
                ((dp.learning_rate / dp.expected_batch_size) as f32, (scale > 0.0).then_some(scale as f32))
            }
            Mode::NonPrivate if examples > 0 => ((dp.learning_rate / examples as f64) as f32, None),
            Mode::NonPrivate => return,
        };
        self.active.fill(false);
        if examples > 0 {
            if self.step_by_outputs(batch, examples, dp, rate, noise) {
                return;
            }
            self.accumulate(batch, examples, dp);
            self.non_finite +=
                self.workers.iter_mut().map(|worker| std::mem::take(&mut worker.non_finite)).sum::<u64>();
        }
        self.update(rate, noise);
    }

    fn outputs(&mut self, examples: &[u32]) -> Vec<f32> {
        let Engine { isa, plan, data, parameters: Parameters { theta, transposed, runs, .. }, workers, .. } = self;
        let context = pass::Context { isa: *isa, plan, data, theta, transposed, runs, clip_norm: None };
        let blocks = examples.chunks(plan.block);
        blocks.flat_map(|block| workers[0].outputs(&context, block)).collect()
    }

    fn read(&self, params: &mut Params) {
        for (tensor, map) in params.tensors.iter_mut().zip(&self.plan.tensors) {
            for (i, value) in tensor.values.iter_mut().enumerate() {
                *value = self.parameters.theta[map.place(i)];
            }
        }
    }

    fn write(&mut self, params: &Params) {
        let Parameters { theta, transposed, runs, .. } = &mut self.parameters;
        for (tensor, map) in params.tensors.iter().zip(&self.plan.tensors) {
            for (i, value) in tensor.values.iter().enumerate() {
                theta[map.place(i)] = *value;
            }
        }
        let transposed = Shared::new(transposed);
        for (operation, runs) in self.plan.operations.iter().zip(&*runs) {
            let range = operation.parameters();
            // SAFETY: no thread is at work.
            unsafe { runs.copy(range.clone(), &theta[range], transposed) };
        }
    }

    fn non_finite(&self) -> u64 {
        self.non_finite
    }

    fn threads(&self) -> usize {
        self.threads.count()
    }

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn isa(&self) -> &'static str {
        I::NAME
    }
}
