//! How the work of a step is divided among threads.
//!
//! By examples, as a rule: each thread takes a share of the batch through the whole network, and afterwards all sums pass
//! from cache to cache, and all parameters back. Where a network is two linear layers it can be divided by the outputs
//! of the first instead: each thread owns some of these, with their weights and what the second layer makes of them, and
//! takes all examples. Then what passes between threads is the share of each in the second layer's outputs and in the
//! examples' norms, and threads meet twice. (Shoeybi et al., arXiv 1909.08053, divide the layers of transformers like
//! that.) It is less work to exchange, and more to compute where panels can't be shared out evenly.
//!
//! A chain of more layers would need all threads' outputs between each two, and is divided by examples.

use std::ops::Range;

use super::{Affine, Edge, Method, Operation, Plan};
use crate::layout::{PANEL, Panels, Position, Row};

/// Multiplications of two vectors that a processor can do in the time a cache line takes from another's cache, with as
/// many under way as there can be: 10 ns.
const LINE: usize = 50;
/// The same for a meeting of all threads.
const MEETING: usize = 1500;
/// And for what every thread does with every example: the gradient of the loss and the clip factor,
const REPEATED: usize = 120;
/// more for each output: number by number, as a softmax is summed, and through outputs of its own and their gradients.
const OUTPUT: usize = 30;
/// And for the noise and the update of a vector of parameters.
const UPDATE: usize = 50;
/// Most examples between two meetings.
const MOST_EXAMPLES: usize = 256;
/// Fewest.
const FEWEST_EXAMPLES: usize = 16;
/// Bytes that a thread's values and gradients of these examples may take.
const BYTES: usize = 1 << 20;

/// Two linear layers, as they are divided by outputs.
#[derive(Clone, Copy)]
pub struct Pair<'a> {
    /// The layer whose outputs are divided.
    pub first: &'a Affine,
    /// The layer whose inputs these are.
    pub second: &'a Affine,
}

impl Plan {
    /// The network, if it is two linear layers and nothing else.
    pub fn pair(&self) -> Option<Pair<'_>> {
        let [Operation::Affine(first), Operation::Affine(second)] = &self.operations[..] else { return None };
        let is_linear = |affine: &Affine| affine.method == Method::RankOne && affine.output.pixels() == 1;
        (is_linear(first) && is_linear(second)).then_some(Pair { first, second })
    }

    /// The largest batch that `threads` threads divide by outputs, in counted examples; 0 if none.
    pub fn most_by_outputs(&self, threads: usize) -> usize {
        self.pair().map_or(0, |pair| pair.most_by_outputs(threads))
    }
}

impl Pair<'_> {
    /// The outputs of the first layer that a thread owns: whole panels.
    pub fn share(&self, thread: usize, threads: usize) -> Range<usize> {
        let Panels { outputs, .. } = self.first.panels;
        let panels = outputs.div_ceil(PANEL);
        let start = |thread: usize| (panels * thread / threads * PANEL).min(outputs);
        start(thread)..start(thread + 1)
    }

    /// Examples between two meetings.
    pub fn round(&self) -> usize {
        let bytes = 2 * self.first.output.len().next_multiple_of(PANEL) * size_of::<f32>();
        (BYTES / bytes).clamp(FEWEST_EXAMPLES, MOST_EXAMPLES)
    }

    /// Bytes that a thread takes for it: its outputs, the second layer's, their gradients, and what is known of each example.
    pub fn bytes(&self, hidden: &Edge) -> usize {
        let outputs = self.second.panels.outputs;
        let numbers = hidden.value.example + hidden.gradient.example + 4 * outputs;
        // Three rows, two positions, the example and two factors, and four numbers of its norm.
        let rest = 3 * size_of::<Row>() + 2 * size_of::<Position>() + 3 * size_of::<u32>() + 4 * size_of::<f64>();
        self.round() * (numbers * size_of::<f32>() + rest)
    }

    /// See [`Plan::most_by_outputs`]: as long as what passes between caches takes longer than what divides unevenly.
    fn most_by_outputs(&self, threads: usize) -> usize {
        let (first, second) = (self.first.panels, self.second.panels);
        let panels = first.outputs.div_ceil(PANEL);
        // Every thread computes with all outputs of the second layer: these must be few beside those that it owns.
        if threads == 1 || panels < threads || second.outputs * threads > first.outputs {
            return 0;
        }
        // Vectors multiplied per example: forward and for the gradient, and from the second layer's outputs back.
        let work = |panels: usize| {
            2 * (first.depth * panels + PANEL * panels * second.outputs.div_ceil(PANEL)) + second.outputs * panels
        };
        let own = panels.div_ceil(threads);
        let repeated = REPEATED + OUTPUT * second.outputs;
        // Each thread reads the others' shares in the second layer's outputs, which lie side by side, and adds up all.
        let shares = ((threads - 1) * LINE + threads) * second.outputs / PANEL;
        let by_examples = (work(panels) + repeated) / threads;
        let by_outputs = work(own) + repeated + shares + 2 * MEETING / self.round();
        // Each thread reads its part of the others' sums, and their parameters; and writes what they have read.
        let parameters = first.len() + second.len();
        let lines = 4 * parameters / PANEL * (threads - 1) / threads;
        // The largest share in the noise and the update, over an even one.
        let owned = parameters * (own * PANEL).min(first.outputs) / first.outputs;
        let uneven = (owned - parameters / threads) / PANEL * UPDATE;
        let saved = (lines * LINE).saturating_sub(2 * MEETING + uneven);
        saved / (by_outputs - by_examples)
    }
}
