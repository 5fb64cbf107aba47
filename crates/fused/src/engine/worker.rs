//! One thread's memory, and its share of a step.

use dpsgd_core::BatchRef;

use super::embedding::{MergedRows, Waiting};
use super::pass::{self, Context};
use super::{clip, loss};
use crate::kernels::Pooling;
use crate::layout::Position;
use crate::memory::Buffer;
use crate::plan::{Lstm, Operation, Plan};
use crate::simd::Isa;

/// All that a thread writes while it works on its share, allocated at load.
pub struct Worker {
    /// Of each edge, for a block of examples.
    pub values: Vec<Buffer>,
    /// Of each edge; empty where no gradient is needed.
    pub gradients: Vec<Buffer>,
    /// Of each operation that pools by the largest, which it took.
    pub choices: Vec<Buffer>,
    /// `[block, time]`; empty unless the input is tokens.
    pub tokens: Vec<u32>,
    /// Of each operation that is an LSTM.
    pub lstms: Vec<Option<LstmState>>,
    /// Of each operation that is an embedding whose rows are not averaged.
    pub embeddings: Vec<Option<MergedRows>>,
    /// Gradients of an embedding whose mean over time is taken.
    pub waiting: Option<Waiting>,
    /// The gradient of one example, of all operations that keep it, one after another.
    pub kept: Buffer,
    /// The clip factor of that example, until its gradient is added.
    pub kept_factor: Option<f32>,
    /// Squared norms of the block's examples' gradients.
    pub norms: Vec<f64>,
    /// Squared norms of their inputs to one operation.
    pub input_squares: Vec<f64>,
    /// Their clip factors.
    pub factors: Vec<f32>,
    /// The examples of the block.
    pub block: Vec<u32>,
    /// Positions of the block's examples whose gradients are finite.
    pub positions: Vec<Position>,
    /// Whether the sum holds nothing of this step yet.
    pub nothing_summed: bool,
    /// Whether no gradient has been added to the kept operations' sums in this step.
    pub nothing_added: bool,
    /// Examples left out in this step because their gradient was not finite.
    pub non_finite: u64,
}

/// What an LSTM remembers of a block's forward pass.
pub struct LstmState {
    /// Gates, then the gradients of their pre-activations.
    pub gates: Buffer,
    /// c.
    pub cells: Buffer,
    /// tanh c.
    pub cell_tanhs: Buffer,
    /// `[block, hidden]`: gradient of c from the next time step.
    pub cell_gradient: Buffer,
    /// `[block, hidden]`: gradient of h from the next time step.
    pub recurrent_gradient: Buffer,
}

impl LstmState {
    fn new(lstm: &Lstm, block: usize) -> Self {
        LstmState {
            gates: Buffer::zeros(lstm.gates.buffer(block)),
            cells: Buffer::zeros(lstm.cells.buffer(block)),
            cell_tanhs: Buffer::zeros(lstm.cells.buffer(block)),
            cell_gradient: Buffer::zeros(block * lstm.hidden),
            recurrent_gradient: Buffer::zeros(block * lstm.hidden),
        }
    }
}

impl Worker {
    /// Memory for the plan's blocks.
    pub fn new(plan: &Plan) -> Self {
        let block = plan.block;
        let first_trained = plan.operations.iter().position(|operation| !operation.parameters().is_empty());
        let needs_gradient = |edge: usize| first_trained.is_some_and(|first| edge > first);
        let edges = plan.edges.iter().enumerate();
        let gradients = edges.map(|(i, edge)| match needs_gradient(i) {
            true => Buffer::zeros(edge.gradient.buffer(block)),
            false => Buffer::default(),
        });
        let positions = plan.operations.iter().map(|operation| match operation {
            Operation::Affine(affine) => affine.positions.len(),
            _ => 0,
        });
        Worker {
            values: plan.edges.iter().map(|edge| Buffer::zeros(edge.value.buffer(block))).collect(),
            gradients: gradients.collect(),
            choices: plan
                .operations
                .iter()
                .zip(&plan.edges[1..])
                .map(|(operation, output)| match operation {
                    Operation::Pool { pooling: Pooling::Max, .. } => Buffer::zeros(output.value.buffer(block)),
                    _ => Buffer::default(),
                })
                .collect(),
            tokens: vec![0; plan.time.unwrap_or(0) * block],
            lstms: plan
                .operations
                .iter()
                .map(|operation| match operation {
                    Operation::Lstm(lstm) => Some(LstmState::new(lstm, block)),
                    _ => None,
                })
                .collect(),
            embeddings: plan
                .operations
                .iter()
                .map(|operation| match operation {
                    Operation::Embedding(embedding) if !embedding.mean => {
                        Some(MergedRows::new(embedding, plan.time.unwrap_or(0)))
                    }
                    _ => None,
                })
                .collect(),
            waiting: plan.averaged().map(Waiting::new),
            kept: Buffer::zeros(plan.kept()),
            kept_factor: None,
            norms: vec![0.0; block],
            input_squares: vec![0.0; block],
            factors: vec![0.0; block],
            block: Vec::with_capacity(block),
            positions: Vec::with_capacity(positions.max().unwrap_or(0)),
            nothing_summed: true,
            nothing_added: true,
            non_finite: 0,
        }
    }

    /// Begins a step: what the sum held before is of no interest, but that the sums of embeddings must be 0.
    pub fn begin(&mut self) {
        self.nothing_summed = true;
        self.nothing_added = true;
        self.kept_factor = None;
    }

    /// Adds the (clipped) gradients of the counted examples number `share` of the batch to `sum`; those of embeddings
    /// whose mean is taken wait instead, and those that waited are forgotten.
    pub fn accumulate<I: Isa>(
        &mut self,
        context: &Context<'_, I>,
        batch: &BatchRef<'_>,
        share: std::ops::Range<usize>,
        sum: &mut [f32],
    ) {
        if let Some(waiting) = &mut self.waiting {
            waiting.clear();
        }
        let counted = batch.indices.iter().zip(batch.mask).filter(|(_, counts)| **counts).map(|(index, _)| *index);
        let mut counted = counted.skip(share.start).take(share.len());
        // Blocks of equal size: the last one is no less efficient than the others.
        let blocks = share.len().div_ceil(context.plan.block);
        for number in 0..blocks {
            let size = share.len() * (number + 1) / blocks - share.len() * number / blocks;
            let mut block = std::mem::take(&mut self.block);
            block.clear();
            block.extend(counted.by_ref().take(size));
            self.take(context, &block);
            pass::forward(context, self, block.len());
            let plan = context.plan;
            let (values, gradients) = (self.values.last().expect("edges"), self.gradients.last_mut().expect("edges"));
            let edge = plan.edges.last().expect("there is an output");
            loss::gradient(context.isa, plan, edge, context.data, &block, values, gradients);
            pass::backward(context, self, block.len());
            clip::add(context, self, &block, sum);
            self.nothing_summed = false;
            self.block = block;
        }
    }

    /// Ends a step: adds the gradient that was kept last.
    pub fn finish<I: Isa>(&mut self, context: &Context<'_, I>, sum: &mut [f32]) {
        if context.clip_norm.is_some() {
            clip::add_last_kept(context, self, sum);
        }
    }

    /// The model's outputs for a block of examples.
    pub fn outputs<I: Isa>(&mut self, context: &Context<'_, I>, block: &[u32]) -> Vec<f32> {
        self.take(context, block);
        pass::forward(context, self, block.len());
        loss::outputs(context.plan, self.values.last().expect("edges"), block.len()).collect()
    }

    /// Fetches the block's inputs.
    fn take<I: Isa>(&mut self, context: &Context<'_, I>, block: &[u32]) {
        match context.plan.time {
            None => context.data.gather(block, context.plan.edges[0].value, &mut self.values[0]),
            Some(time) => {
                for (slot, example) in block.iter().enumerate() {
                    self.tokens[slot * time..(slot + 1) * time].copy_from_slice(context.data.tokens(*example));
                }
            }
        }
    }
}
