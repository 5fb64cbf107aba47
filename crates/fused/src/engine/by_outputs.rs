//! A step of two linear layers, divided by the outputs of the first: see [`crate::plan::Pair`].
//!
//! Each thread owns some outputs of the first layer: their weights, their part of the second layer's, and the noise and
//! update of both. It takes all examples, a round of them at a time:
//!
//! 1. forward to its outputs, and to their share in the second layer's outputs;
//! 2. when all have met, the second layer's outputs, the gradient of the loss, and that of its own outputs;
//! 3. its share in the examples' squared norms;
//! 4. when all have met again, the clip factors, and the clipped gradients of its own parameters.
//!
//! What all threads need they compute from the same numbers in the same order, so that they agree bit by bit.

use std::ops::Range;

use dpsgd_core::BatchRef;

use super::data::Data;
use super::{Change, Part, clip, loss};
use crate::kernels::{
    Finish, Held, Places, Product, RankOneNorms, ScaledAdd, SquaredNorms, Start, WeightGradient, clip_factor,
    squared_norm_in_f64,
};
use crate::layout::{Frame, Grid, Margins, PANEL, Panels, Position, Row, Rows, SLACK, Segment, offset};
use crate::meeting::{Attendance, Meeting};
use crate::memory::{Buffer, Shared};
use crate::plan::{Edge, Pair, Plan};
use crate::simd::Isa;
use crate::threads::Threads;

/// What all threads share in a step.
#[derive(Clone, Copy)]
pub struct Job<'a, I> {
    /// The instruction set.
    pub isa: I,
    /// The plan, of two linear layers.
    pub plan: &'a Plan,
    /// The data set.
    pub data: &'a Data,
    /// The batch.
    pub batch: &'a BatchRef<'a>,
    /// How many of its examples count.
    pub examples: usize,
    /// C; `None` in non-private mode.
    pub clip_norm: Option<f64>,
    /// Parameters, sums, and what becomes of them.
    pub change: Change<'a>,
}

/// The memory of steps that are divided by outputs.
pub struct ByOutputs {
    /// The largest batch that they are for, in counted examples.
    pub most: usize,
    owners: Vec<Owner>,
    board: Board,
    meeting: Meeting,
}

/// What threads tell each other. Each array has a row per thread, whole cache lines apart.
struct Board {
    /// Each thread's share in the second layer's outputs, `[round, outputs]`. Two: the next round's may be written before
    /// all have read these.
    logits: [Buffer; 2],
    logits_pitch: usize,
    /// Each thread's share in the squared norms of the gradients, `[round]`.
    norms: Vec<f64>,
    /// The same with more digits, where they are needed.
    careful_norms: Vec<f64>,
    norms_pitch: usize,
    /// Squared norms of the inputs, `[round]`; each thread writes those of some examples.
    input_squares: Vec<f64>,
}

/// [`Board`], while threads write on it.
#[derive(Clone, Copy)]
struct SharedBoard<'a> {
    logits: [Shared<'a>; 2],
    logits_pitch: usize,
    norms: Shared<'a, f64>,
    careful_norms: Shared<'a, f64>,
    norms_pitch: usize,
    input_squares: Shared<'a, f64>,
}

impl ByOutputs {
    /// Memory for `threads` threads, if they divide any batch of the plan by outputs and its inputs can be read in place.
    pub fn new(plan: &Plan, data: &Data, threads: usize) -> Option<Self> {
        let most = plan.most_by_outputs(threads);
        let pair = plan.pair().filter(|_| most > 0 && u32::try_from(data.numbers().len()).is_ok())?;
        let (round, outputs) = (pair.round(), pair.second.panels.outputs);
        let logits_pitch = (round * outputs).next_multiple_of(PANEL) + SLACK;
        let norms_pitch = round.next_multiple_of(PANEL) + SLACK;
        let board = Board {
            logits: [Buffer::zeros(threads * logits_pitch), Buffer::zeros(threads * logits_pitch)],
            logits_pitch,
            norms: vec![0.0; threads * norms_pitch],
            careful_norms: vec![0.0; threads * norms_pitch],
            norms_pitch,
            input_squares: vec![0.0; round],
        };
        let owners = (0..threads).map(|thread| Owner::new(plan, pair, thread, threads)).collect();
        Some(ByOutputs { most, owners, board, meeting: Meeting::new(threads) })
    }

    /// One step. Gives the number of examples left out because their gradient was not finite.
    pub fn step<I: Isa>(&mut self, threads: &mut Threads, job: &Job<'_, I>) -> u64 {
        let Board { logits: [even, odd], logits_pitch, norms, careful_norms, norms_pitch, input_squares } =
            &mut self.board;
        let board = SharedBoard {
            logits: [Shared::new(even), Shared::new(odd)],
            logits_pitch: *logits_pitch,
            norms: Shared::new(norms),
            careful_norms: Shared::new(careful_norms),
            norms_pitch: *norms_pitch,
            input_squares: Shared::new(input_squares),
        };
        let meeting = &self.meeting;
        threads.run_each(&mut self.owners, &|thread, owner| {
            owner.step(job, board, &meeting.attend(thread));
        });
        // All threads counted the same ones.
        self.owners[0].non_finite
    }
}

/// What a thread owns, and its memory.
struct Owner {
    thread: usize,
    threads: usize,
    /// Outputs of the first layer.
    outputs: Range<usize>,
    /// How their parameters are cut.
    panels: Panels,
    /// Where these begin among those of the layer.
    start: usize,
    /// Whether it has the second layer's biases.
    has_biases: bool,
    /// Its parameters.
    parts: Vec<Part>,
    /// Whose sums it updates them by: its own.
    active: Vec<bool>,
    /// The last edge, without gaps between examples.
    edge: Edge,
    /// Numbers from one example's own outputs to the next one's.
    pitch: usize,
    /// The examples of the round.
    examples: Vec<u32>,
    /// Rows of the first product, from the data set; of the second; and from its outputs' gradients back.
    rows: [Rows; 3],
    /// Where the finite examples' inputs are, of each layer.
    positions: [Vec<Position>; 2],
    /// `[round, pitch]`: its outputs, and their gradients.
    hidden: Buffer,
    hidden_gradients: Buffer,
    /// `[round, outputs of the second layer]`, and their gradients.
    logits: Buffer,
    logit_gradients: Buffer,
    /// Squared norms of its outputs.
    hidden_squares: Vec<f64>,
    norms: Vec<f64>,
    factors: Vec<f32>,
    /// Those of the finite examples.
    finite_factors: Vec<f32>,
    non_finite: u64,
}

impl Owner {
    fn new(plan: &Plan, pair: Pair<'_>, thread: usize, threads: usize) -> Self {
        let outputs = pair.share(thread, threads);
        let (first, second) = (pair.first.panels, pair.second.panels);
        let panels = Panels { depth: first.depth, outputs: outputs.len() };
        let start = if outputs.is_empty() { first.len() } else { first.start(outputs.start / PANEL) };
        let has_biases = !outputs.is_empty() && outputs.end == first.outputs;
        let rows = outputs.start..if has_biases { second.depth } else { outputs.end };
        let of_first = pair.first.parameters.start + start;
        let of_second = (0..second.outputs.div_ceil(PANEL)).map(|panel| {
            let (begin, width) = (pair.second.parameters.start + second.start(panel), second.width(panel));
            Part { operation: 1, range: begin + rows.start * width..begin + rows.end * width }
        });
        let parts = [Part { operation: 0, range: of_first..of_first + panels.len() }].into_iter().chain(of_second);
        let mut active = vec![false; threads];
        active[thread] = true;
        let (round, pitch) = (pair.round(), plan.edges[1].value.example);
        let packed =
            Frame { example: second.outputs, ..Frame::new(Grid { h: 1, w: 1, c: second.outputs }, Margins::default()) };
        let row = |example: usize, input: usize, output: usize| Row {
            input: offset(example * input),
            output: offset(example * output),
            mask: offset(example * output),
        };
        Owner {
            thread,
            threads,
            outputs,
            panels,
            start,
            has_biases,
            parts: parts.filter(|part| !part.range.is_empty()).collect(),
            active,
            edge: Edge { value: packed, gradient: packed, relu: plan.edges[2].relu },
            pitch,
            examples: Vec::with_capacity(round),
            rows: [
                Rows::with_capacity(round),
                (0..round).map(|example| row(example, pitch, second.outputs)).collect(),
                (0..round).map(|example| row(example, second.outputs, pitch)).collect(),
            ],
            positions: [Vec::with_capacity(round), Vec::with_capacity(round)],
            hidden: Buffer::zeros(round * pitch + SLACK),
            hidden_gradients: Buffer::zeros(round * pitch + SLACK),
            logits: Buffer::zeros(round * second.outputs + SLACK),
            logit_gradients: Buffer::zeros(round * second.outputs + SLACK),
            hidden_squares: vec![0.0; round],
            norms: Vec::with_capacity(round),
            factors: vec![0.0; round],
            finite_factors: Vec::with_capacity(round),
            non_finite: 0,
        }
    }

    fn step<I: Isa>(&mut self, job: &Job<'_, I>, board: SharedBoard<'_>, others: &Attendance<'_>) {
        let pair = job.plan.pair().expect("two linear layers");
        self.non_finite = 0;
        let counted = job.batch.indices.iter().zip(job.batch.mask).filter(|(_, counts)| **counts);
        let mut counted = counted.map(|(index, _)| *index);
        let rounds = job.examples.div_ceil(pair.round());
        for round in 0..rounds {
            let size = job.examples * (round + 1) / rounds - job.examples * round / rounds;
            self.examples.clear();
            self.examples.extend(counted.by_ref().take(size));
            let logits = board.logits[round % 2];
            self.forward(job, pair, board, logits);
            others.meet();
            self.backward(job, pair, board, logits);
            match job.clip_norm {
                Some(clip_norm) => {
                    self.norms(job, pair, board);
                    others.meet();
                    self.clip(job, board, others, clip_norm);
                }
                None => self.factors[..size].fill(1.0),
            }
            self.add(job, pair, round > 0);
        }
        self.update(job);
    }

    /// This thread's place in a row of the board.
    fn own(&self, pitch: usize, len: usize) -> Range<usize> {
        self.thread * pitch..self.thread * pitch + len
    }

    fn forward<I: Isa>(&mut self, job: &Job<'_, I>, pair: Pair<'_>, board: SharedBoard<'_>, logits: Shared<'_>) {
        let Job { isa, plan, data, change: Change { theta, .. }, .. } = *job;
        let (count, input_len) = (self.examples.len(), pair.first.input.len());
        let place = |example: u32| offset(example as usize * input_len);
        let rows = self.examples.iter().enumerate();
        let pitch = self.pitch;
        self.rows[0].refill(rows.map(|(slot, example)| Row {
            input: place(*example),
            output: offset(slot * pitch),
            mask: 0,
        }));
        let from = pair.first.parameters.start + self.start;
        isa.dispatch(Product {
            inputs: data.numbers(),
            rows: self.rows[0].first(count),
            scattered: true,
            segments: &pair.first.segments,
            // SAFETY: parameters are written when all threads have met once more.
            weights: unsafe { theta.read(from..from + self.panels.reach()) },
            panels: self.panels,
            first_row: 0,
            start: Start::Bias,
            finish: if plan.edges[1].relu { Finish::Relu } else { Finish::Store },
            outputs: &mut self.hidden,
        });
        let second = pair.second.panels;
        let from = pair.second.parameters.start;
        isa.dispatch(Product {
            inputs: &self.hidden,
            rows: self.rows[1].first(count),
            scattered: false,
            segments: &[Segment::first(self.outputs.len())],
            // SAFETY: as above.
            weights: unsafe { theta.read(from..from + second.reach()) },
            panels: second,
            first_row: self.outputs.start,
            start: if self.has_biases { Start::Bias } else { Start::Zero },
            finish: Finish::Store,
            // SAFETY: each thread writes a row of its own, which the others read when all have met.
            outputs: unsafe { logits.part(self.own(board.logits_pitch, board.logits_pitch)) },
        });
        if job.clip_norm.is_some() {
            let share = count * self.thread / self.threads..count * (self.thread + 1) / self.threads;
            isa.dispatch(SquaredNorms {
                values: data.numbers(),
                places: Places::Inputs(&self.rows[0].first(count).rows()[share.clone()]),
                len: input_len,
                // SAFETY: each thread has a share of its own, which the others read when all have met.
                norms: unsafe { board.input_squares.part(share) },
            });
        }
    }

    fn backward<I: Isa>(&mut self, job: &Job<'_, I>, pair: Pair<'_>, board: SharedBoard<'_>, logits: Shared<'_>) {
        let Job { isa, plan, data, change: Change { transposed, runs, .. }, .. } = *job;
        let (count, outputs) = (self.examples.len(), pair.second.panels.outputs);
        for thread in 0..self.threads {
            let row = thread * board.logits_pitch;
            // SAFETY: all threads have written, and met.
            let from = unsafe { logits.read(row..row + count * outputs) };
            let to = &mut self.logits[..count * outputs];
            isa.dispatch(ScaledAdd { by: 1.0, from, to, accumulate: thread > 0 });
        }
        if self.edge.relu {
            // NaN stays.
            for logit in self.logits[..count * outputs].iter_mut().filter(|logit| **logit < 0.0) {
                *logit = 0.0;
            }
        }
        loss::gradient(isa, plan, &self.edge, data, &self.examples, &self.logits, &mut self.logit_gradients);
        let phase = &pair.second.backward[0];
        let first = self.outputs.start / PANEL;
        let panels = Panels { depth: phase.panels.depth, outputs: self.outputs.len() };
        let from = runs[1].base() + phase.start + phase.panels.start(first);
        isa.dispatch(Product {
            inputs: &self.logit_gradients,
            rows: self.rows[2].first(count),
            scattered: false,
            segments: &[Segment::first(outputs)],
            // SAFETY: these are this thread's own; what lies behind the last ones is nobody's.
            weights: unsafe { transposed.read(from..from + panels.reach()) },
            panels,
            first_row: 0,
            start: Start::Zero,
            finish: if plan.edges[1].relu { Finish::Mask(&self.hidden) } else { Finish::Store },
            outputs: &mut self.hidden_gradients,
        });
    }

    /// This thread's share in the squared norms.
    fn norms<I: Isa>(&mut self, job: &Job<'_, I>, pair: Pair<'_>, board: SharedBoard<'_>) {
        let (isa, count, outputs) = (job.isa, self.examples.len(), pair.second.panels.outputs);
        // SAFETY: each thread writes a row of its own, which the others read when all have met.
        let norms = unsafe { board.norms.part(self.own(board.norms_pitch, count)) };
        norms.fill(0.0);
        isa.dispatch(RankOneNorms {
            // SAFETY: all threads have written their share, and met.
            input_squares: unsafe { board.input_squares.read(0..count) },
            bias: 1.0,
            gradients: &self.hidden_gradients,
            gradient_pitch: self.pitch,
            gradient_len: self.outputs.len(),
            norms,
        });
        isa.dispatch(SquaredNorms {
            values: &self.hidden,
            places: Places::Pitch(self.pitch),
            len: self.outputs.len(),
            norms: &mut self.hidden_squares[..count],
        });
        isa.dispatch(RankOneNorms {
            input_squares: &self.hidden_squares[..count],
            bias: f64::from(u8::from(self.has_biases)),
            gradients: &self.logit_gradients,
            gradient_pitch: outputs,
            gradient_len: outputs,
            norms,
        });
    }

    /// The clip factors, from all threads' shares in the norms.
    fn clip<I: Isa>(&mut self, job: &Job<'_, I>, board: SharedBoard<'_>, others: &Attendance<'_>, clip_norm: f64) {
        let (count, pitch) = (self.examples.len(), board.norms_pitch);
        // All threads find the same.
        let mut norms = std::mem::take(&mut self.norms);
        norms.clear();
        norms.resize(count, 0.0);
        for thread in 0..self.threads {
            // SAFETY: all threads have written their shares, and met; they write the next when they have met again.
            let shares = unsafe { board.norms.read(thread * pitch..thread * pitch + count) };
            norms.iter_mut().zip(shares).for_each(|(norm, share)| *norm += share);
        }
        if norms.iter().any(|norm| clip::needs_care(*norm)) {
            for example in (0..count).filter(|example| clip::needs_care(norms[*example])) {
                let place = self.thread * pitch + example;
                // SAFETY: each thread writes a row of its own, which the others read when all have met.
                unsafe { board.careful_norms.write(place, self.careful_norm(job, example)) };
            }
            others.meet();
            for (example, norm) in norms.iter_mut().enumerate().filter(|(_, norm)| clip::needs_care(**norm)) {
                let places = (0..self.threads).map(|thread| thread * pitch + example);
                // SAFETY: as above.
                *norm = places.map(|place| unsafe { board.careful_norms.read(place..place + 1)[0] }).sum();
            }
        }
        let factors = &mut self.factors[..count];
        factors.iter_mut().zip(&norms).for_each(|(factor, norm)| *factor = clip_factor(*norm, clip_norm));
        self.non_finite += factors.iter().filter(|factor| factor.is_nan()).count() as u64;
        self.norms = norms;
    }

    /// This thread's share in an example's squared norm in f64, number by number.
    fn careful_norm<I: Isa>(&self, job: &Job<'_, I>, example: usize) -> f64 {
        let pair = job.plan.pair().expect("two linear layers");
        let (input_len, outputs) = (pair.first.input.len(), pair.second.panels.outputs);
        let own = example * self.pitch..example * self.pitch + self.outputs.len();
        let input = &job.data.numbers()[self.examples[example] as usize * input_len..][..input_len];
        let biases = f64::from(u8::from(self.has_biases));
        (squared_norm_in_f64(input) + 1.0) * squared_norm_in_f64(&self.hidden_gradients[own.clone()])
            + (squared_norm_in_f64(&self.hidden[own]) + biases)
                * squared_norm_in_f64(&self.logit_gradients[example * outputs..][..outputs])
    }

    /// Adds the round's (clipped) gradients of its own parameters to its sum.
    fn add<I: Isa>(&mut self, job: &Job<'_, I>, pair: Pair<'_>, accumulate: bool) {
        let Job { isa, data, change: Change { sums, pitch, .. }, .. } = *job;
        let (count, outputs) = (self.examples.len(), pair.second.panels.outputs);
        // SAFETY: each thread adds to its own sum.
        let sum = unsafe { sums.part(self.own(pitch, job.plan.parameters)) };
        let factors = &self.factors[..count];
        let [of_first, of_second] = &mut self.positions;
        of_first.clear();
        of_second.clear();
        self.finite_factors.clear();
        for (slot, example) in self.examples.iter().enumerate().filter(|(slot, _)| !factors[*slot].is_nan()) {
            let input = offset(*example as usize * pair.first.input.len());
            of_first.push(Position { input, gradient: offset(slot * self.pitch) });
            of_second.push(Position { input: offset(slot * self.pitch), gradient: offset(slot * outputs) });
            self.finite_factors.push(factors[slot]);
        }
        let factors = if job.clip_norm.is_some() { &self.finite_factors[..] } else { &[] };
        let held = || if accumulate { Held::Kept } else { Held::Forgotten };
        let from = pair.first.parameters.start + self.start;
        isa.dispatch(WeightGradient {
            inputs: data.numbers(),
            output_gradients: &self.hidden_gradients,
            positions: of_first,
            factors,
            columns: &pair.first.columns,
            gradient: &mut sum[from..from + self.panels.len()],
            panels: self.panels,
            first_row: 0,
            bias: true,
            held: held(),
            squares: false,
        });
        isa.dispatch(WeightGradient {
            inputs: &self.hidden,
            output_gradients: &self.logit_gradients,
            positions: of_second,
            factors,
            columns: &pair.second.columns[..self.outputs.len()],
            gradient: &mut sum[pair.second.parameters.clone()],
            panels: pair.second.panels,
            first_row: self.outputs.start,
            bias: self.has_biases,
            held: held(),
            squares: false,
        });
    }

    /// Updates its own parameters, and the transposed weights with them.
    fn update<I: Isa>(&mut self, job: &Job<'_, I>) {
        for part in &self.parts {
            // SAFETY: each thread has parts of its own, and since all have met none reads others.
            unsafe { job.change.apply(job.isa, part, &self.active, false) };
        }
    }
}
