//! The plan in words: what will be done, by which method and why, and how much memory that takes.

use std::fmt;

use dpsgd_core::ModelSpec;

use super::{Affine, Embedding, Lstm, MOST_WAITING, Method, Operation, Plan};
use crate::kernels::Pooling;
use crate::layout::{PANEL, SLACK};
use crate::noise::GROUP;
use crate::simd::{Isa, Portable};

/// Numbers of threads for which it is shown how they divide batches.
const SHOWN_THREADS: [usize; 4] = [2, 4, 8, 16];

/// The register tiles of an instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// Name of the instruction set.
    pub isa: &'static str,
    /// Numbers in a vector.
    pub lanes: usize,
    /// Most rows of a tile.
    pub rows: usize,
    /// Most vectors in a row of a tile.
    pub vectors: usize,
    /// Most rows of a tile with one vector a row.
    pub narrow_rows: usize,
}

impl Tiles {
    /// Those of `I`.
    pub fn of<I: Isa>() -> Self {
        Tiles {
            isa: I::NAME,
            lanes: I::LANES,
            rows: I::ROWS[I::VECTORS - 1],
            vectors: I::VECTORS,
            narrow_rows: I::ROWS[0],
        }
    }

    /// Those of the best instruction set that this machine has.
    pub fn of_this_machine() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use crate::simd::{Avx2, Avx512};
            if Avx512::detect().is_some() {
                return Tiles::of::<Avx512>();
            }
            if Avx2::detect().is_some() {
                return Tiles::of::<Avx2>();
            }
        }
        Tiles::of::<Portable>()
    }
}

/// What one thread allocates at load, in bytes. None of it depends on the size of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scratch {
    /// Inputs and outputs of all operations, for a block of examples.
    pub values: usize,
    /// Their gradients, where they are needed.
    pub gradients: usize,
    /// Which input each window of a max-pooling took.
    pub choices: usize,
    /// Gates and cells of LSTMs over all time steps, and the gradients that go from a step to the one before.
    pub lstm: usize,
    /// The block's tokens, and an example's embedding gradient, merged by token, or those that wait.
    pub rows: usize,
    /// The gradient of one example in the operations that keep it.
    pub kept: usize,
    /// The thread's clipped sum, over all parameters.
    pub sum: usize,
    /// What it takes to divide a batch by outputs; nothing with a number of threads that never do.
    pub by_outputs: usize,
}

impl Scratch {
    /// All together.
    pub fn total(&self) -> usize {
        self.values + self.gradients + self.choices + self.lstm + self.rows + self.kept + self.sum + self.by_outputs
    }
}

/// FLOPs per example that the methods add to those of plain training: what the choice is made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// T: positions at which the map is applied.
    pub positions: usize,
    /// d: inputs of a position.
    pub inputs: usize,
    /// p: outputs of a position.
    pub outputs: usize,
}

impl Choice {
    /// 4pd: squaring, and scaling and adding, the example's own gradient.
    pub fn kept(&self) -> usize {
        4 * self.inputs * self.outputs
    }

    /// T²(p + d): the two Gram matrices' inner product, half of it by symmetry.
    pub fn ghost(&self) -> usize {
        self.positions * self.positions * (self.inputs + self.outputs)
    }

    /// 2(p + d): the norms of two vectors, if there is one position.
    pub fn rank_one(&self) -> usize {
        2 * (self.inputs + self.outputs)
    }
}

impl Affine {
    /// What its method was chosen by.
    pub fn choice(&self) -> Choice {
        Choice { positions: self.output.pixels(), inputs: self.panels.depth - 1, outputs: self.output.c }
    }
}

impl Lstm {
    /// What a choice would be made by: for an LSTM, none is.
    pub fn choice(&self) -> Choice {
        Choice { positions: self.time, inputs: self.inputs + self.hidden, outputs: 4 * self.hidden }
    }
}

impl Operation {
    /// The first of the model's layers that it carries out.
    pub fn layer(&self) -> usize {
        match self {
            Operation::Affine(affine) => affine.layer,
            Operation::Pool { layer, .. } | Operation::Relu { layer } => *layer,
            Operation::Embedding(embedding) => embedding.layer,
            Operation::Lstm(lstm) => lstm.layer,
        }
    }
}

impl Plan {
    /// What each thread allocates for it.
    pub fn scratch(&self) -> Scratch {
        let (block, number) = (self.block, size_of::<f32>());
        let mut scratch = Scratch {
            values: self.edges.iter().map(|edge| edge.value.buffer(block)).sum::<usize>() * number,
            kept: self.kept() * number,
            rows: self.time.unwrap_or(0) * block * size_of::<u32>(),
            sum: (self.parameters.next_multiple_of(GROUP) + SLACK) * number,
            by_outputs: self.pair().map_or(0, |pair| pair.bytes(&self.edges[1])),
            ..Scratch::default()
        };
        // No gradient is needed before the first operation with parameters.
        let first = self.operations.iter().position(|operation| !operation.parameters().is_empty());
        let needed = self.edges.iter().skip(first.map_or(usize::MAX, |first| first + 1));
        scratch.gradients = needed.map(|edge| edge.gradient.buffer(block)).sum::<usize>() * number;
        for (operation, output) in self.operations.iter().zip(&self.edges[1..]) {
            match operation {
                Operation::Pool { pooling: Pooling::Max, .. } => {
                    scratch.choices += output.value.buffer(block) * number;
                }
                Operation::Embedding(Embedding { vocabulary, width, mean, .. }) => {
                    let time = self.time.unwrap_or(0);
                    // How often each token occurs, and the vectors and places of the examples that wait; or where a token
                    // stands among the distinct ones, these, and their rows.
                    let rows = if *mean { MOST_WAITING } else { time };
                    scratch.rows += (vocabulary + rows * (width + 1)) * number;
                }
                Operation::Lstm(lstm) => {
                    let states = lstm.gates.buffer(block) + 2 * lstm.cells.buffer(block);
                    scratch.lstm += (states + 2 * block * lstm.hidden) * number;
                }
                _ => {}
            }
        }
        scratch
    }

    /// The plan in words, for people: `model` is the model it was made from.
    pub fn describe<'a>(&'a self, model: &'a ModelSpec, tiles: Tiles) -> PlanText<'a> {
        PlanText { plan: self, model, tiles }
    }
}

/// See [`Plan::describe`].
pub struct PlanText<'a> {
    plan: &'a Plan,
    model: &'a ModelSpec,
    tiles: Tiles,
}

impl fmt::Display for PlanText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PlanText { plan, model, tiles: Tiles { isa, lanes, rows, vectors, narrow_rows } } = self;
        writeln!(f, "{}: {} parameters, loss {}", model.name, grouped(plan.parameters), plan.loss)?;
        writeln!(
            f,
            "{isa}: tiles of up to {rows} rows x {} outputs or {narrow_rows} x {lanes}; panels of {PANEL} outputs",
            vectors * lanes
        )?;
        writeln!(f)?;
        let lines: Vec<[String; 4]> = (0..plan.operations.len()).map(|i| self.operation(i)).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2)];
        for [layers, shapes, sizes, method] in &lines {
            let line = format!("{layers:0$}  {shapes:1$}  {sizes:2$}  {method}", widths[0], widths[1], widths[2]);
            writeln!(f, "{}", line.trim_end())?;
        }
        writeln!(f)?;
        let Scratch { values, gradients, choices, lstm, rows, kept, sum, by_outputs } = plan.scratch();
        writeln!(f, "blocks of {} examples per thread; scratch of each thread, in bytes:", plan.block)?;
        let parts = [
            ("values", values),
            ("gradients", gradients),
            ("max-pooling choices", choices),
            ("LSTM states", lstm),
            ("tokens and merged rows", rows),
            ("kept gradients of one example", kept),
            ("clipped sum", sum),
            ("division by outputs", by_outputs),
        ];
        let parts = parts.iter().filter(|(_, bytes)| *bytes > 0);
        let parts: Vec<String> = parts.map(|(name, bytes)| format!("{name} {}", grouped(*bytes))).collect();
        writeln!(f, "  {} = {}", parts.join(" + "), grouped(plan.scratch().total()))?;
        writeln!(f, "per example of the batch: nothing but its place in the data set")?;
        if plan.pair().is_some() {
            let most = |threads: usize| match plan.most_by_outputs(threads) {
                0 => format!("not on {threads}"),
                most => format!("on {threads} of up to {} examples", grouped(most)),
            };
            let most: Vec<String> = SHOWN_THREADS.into_iter().map(most).collect();
            writeln!(f, "threads divide batches by outputs of the first layer: {}; else by examples", most.join(", "))?;
        }
        Ok(())
    }
}

impl PlanText<'_> {
    /// Layers, shapes, sizes and method of operation `i`.
    fn operation(&self, i: usize) -> [String; 4] {
        let PlanText { plan, model, .. } = self;
        let operation = &plan.operations[i];
        // What has no operation of its own belongs to the one before: ReLU, flatten, a mean over time.
        let first = if i == 0 { 0 } else { operation.layer() };
        let end = plan.operations.get(i + 1).map_or(model.layers.len(), Operation::layer);
        let kinds: Vec<&str> = model.layers[first..end].iter().map(|layer| layer.kind()).collect();
        let numbers = if end - first > 1 { format!("{first}-{}", end - 1) } else { first.to_string() };
        let layers = format!("{numbers} {}", kinds.join("+"));
        let shapes = self.model.shapes().map_or(String::new(), |all| format!("{} -> {}", all[first], all[end]));
        let (sizes, method) = match operation {
            Operation::Affine(affine) => of_affine(affine),
            Operation::Lstm(lstm) => {
                let choice = lstm.choice();
                (
                    sizes(choice),
                    format!("kept: 4pd = {}, T²(p+d) = {}", grouped(choice.kept()), grouped(choice.ghost())),
                )
            }
            Operation::Embedding(embedding) => {
                let time = plan.time.unwrap_or(0);
                let method = match embedding.mean {
                    true => "sparse rows: one vector, times how often each token occurs",
                    false => "sparse rows: merged by token",
                };
                (format!("T={time} rows of {}", embedding.width), method.to_string())
            }
            Operation::Pool { window, .. } => (format!("{}x{} windows", window.h, window.w), String::new()),
            Operation::Relu { .. } => Default::default(),
        };
        [layers, shapes, sizes, method]
    }
}

fn of_affine(affine: &Affine) -> (String, String) {
    let choice = affine.choice();
    let (kept, ghost) = (grouped(choice.kept()), grouped(choice.ghost()));
    let method = match affine.method {
        Method::RankOne => {
            format!("rank-one: 2(p+d) = {}, kept would be 4pd = {kept}", grouped(choice.rank_one()))
        }
        Method::Ghost => format!("ghost: T²(p+d) = {ghost}, 4pd = {kept}"),
        Method::Kept => format!("kept: 4pd = {kept}, T²(p+d) = {ghost}"),
    };
    (sizes(choice), method)
}

fn sizes(Choice { positions, inputs, outputs }: Choice) -> String {
    format!("T={positions} d={inputs} p={outputs}")
}

/// `26010` as `26,010`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
