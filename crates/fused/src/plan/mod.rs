//! What is done at every step, decided once at load from the [`ModelSpec`]: which layers become which operations, where
//! everything lies, and by which method each layer's per-example gradients are normed and summed.

mod affine;
mod describe;
mod division;
mod lstm;

pub use affine::{Affine, Phase, RowGroup};
pub use describe::{Choice, PlanText, Scratch, Tiles};
pub use division::Pair;
pub use lstm::Lstm;

use std::ops::Range;

use dpsgd_core::{Layer, Loss, ModelError, ModelInput, ModelSpec};

use crate::kernels::{Pooling, Run, Window, covering, runs};
use crate::layout::{Frame, Grid, PANEL, Panels};
use crate::noise::GROUP;

/// A model as a chain of operations from one edge to the next.
pub struct Plan {
    /// The operations, first to last. Operation i reads edge i and writes edge i + 1.
    pub operations: Vec<Operation>,
    /// What passes between operations: one more than there are operations. The first is the input; where that is
    /// tokens, its frames stand for no memory.
    pub edges: Vec<Edge>,
    /// The loss.
    pub loss: Loss,
    /// Pixel and channel of each output of the model, in PyTorch's order: `[y, x, c]`.
    pub outputs: Vec<[usize; 3]>,
    /// Tokens of an example, if it is tokens.
    pub time: Option<usize>,
    /// Examples that a thread works on at once.
    pub block: usize,
    /// All parameters.
    pub parameters: usize,
    /// Where PyTorch's tensors lie among the parameters.
    pub tensors: Vec<TensorMap>,
}

/// What passes between two operations.
#[derive(Clone, Copy, Debug)]
pub struct Edge {
    /// How values lie.
    pub value: Frame,
    /// How their gradients lie.
    pub gradient: Frame,
    /// Whether values come out of a ReLU, or are the largest of values that do, so that gradients are masked before they
    /// are stored.
    pub relu: bool,
}

/// One or more layers of the model, as one operation.
pub enum Operation {
    /// A convolution or linear layer, with the ReLU after it if there is one.
    Affine(Affine),
    /// A pooling layer, or a mean over an image or over time.
    Pool {
        /// The model's layer.
        layer: usize,
        /// Largest or mean.
        pooling: Pooling,
        /// The windows.
        window: Window,
        /// Which rows of them each row of the input is in.
        rows: Vec<Range<usize>>,
        /// Which columns of them the pixels of a row are in.
        runs: Vec<Run>,
    },
    /// A ReLU that nothing else took in.
    Relu {
        /// The model's layer.
        layer: usize,
    },
    /// An embedding.
    Embedding(Embedding),
    /// An LSTM.
    Lstm(Lstm),
}

/// An embedding table, and whether the mean over time follows directly.
pub struct Embedding {
    /// The model's layer.
    pub layer: usize,
    /// Rows.
    pub vocabulary: usize,
    /// Numbers in a row.
    pub width: usize,
    /// The table's place among the parameters.
    pub parameters: Range<usize>,
    /// Whether the mean over time is taken at once: then the gradient of every row is a multiple of one vector.
    pub mean: bool,
}

/// How per-example gradients of an affine map are normed and summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// One position: the gradient is a a^T g, its norm the product of two. Summed by one product over the block.
    RankOne,
    /// The norm by Gram matrices, the sum by one product over the block with scaled output gradients (book-keeping).
    Ghost,
    /// Each example's gradient is computed and kept in cache until its norm over all layers is known; it is scaled and added
    /// when the next example's takes its place.
    Kept,
}

/// How a plan chooses among methods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Methods {
    /// Each layer the one with the fewest FLOPs.
    #[default]
    Cheapest,
    /// This one, wherever there is a choice (more than one position): to see what the choice is worth.
    Only(Method),
}

/// Where one of PyTorch's tensors lies among the parameters: `place(i)` for its i-th number.
pub struct TensorMap {
    /// How it is cut.
    pub kind: TensorKind,
    /// Where the operation's parameters begin.
    pub start: usize,
}

/// See [`TensorMap`].
#[derive(Clone, Copy, Debug)]
pub enum TensorKind {
    /// `[outputs, inputs, kernel h, kernel w]` in panels whose rows go over kernel h, kernel w, inputs.
    Weight {
        /// The panels.
        panels: Panels,
        /// Inputs.
        inputs: usize,
        /// Kernel height times width.
        taps: usize,
        /// The first row.
        first_row: usize,
    },
    /// `[outputs]`: the last row of the panels.
    Bias {
        /// The panels.
        panels: Panels,
    },
    /// As it is.
    Table,
}

impl TensorMap {
    /// Where number `i` of the tensor lies.
    pub fn place(&self, i: usize) -> usize {
        self.start
            + match self.kind {
                TensorKind::Weight { panels, inputs, taps, first_row } => {
                    let (output, rest) = (i / (inputs * taps), i % (inputs * taps));
                    let (input, tap) = (rest / taps, rest % taps);
                    panels.index(first_row + tap * inputs + input, output)
                }
                TensorKind::Bias { panels } => panels.index(panels.depth - 1, i),
                TensorKind::Table => i,
            }
    }
}

/// Bytes of values and gradients that a thread's block of examples may take: they should stay in the caches.
const BLOCK_BYTES: usize = 1 << 20;
/// Most examples in a block: enough for every product to be efficient.
const MOST_EXAMPLES: usize = 64;
/// Fewest: weights of deep convolutions are read once per block.
const FEWEST_EXAMPLES: usize = 2;
/// Fewest where there is an LSTM: its products have one row per example.
const FEWEST_EXAMPLES_LSTM: usize = 16;

/// Examples of a thread whose gradients of an averaged embedding can wait for their rows.
pub const MOST_WAITING: usize = 1024;

impl Plan {
    /// The plan for a model.
    pub fn new(model: &ModelSpec, methods: Methods) -> Result<Self, ModelError> {
        let shapes = model.shapes()?;
        let mut builder = Builder::new(&model.input, methods);
        let first_trained = model.layers.iter().position(has_parameters).unwrap_or(0);
        let mut layers = model.layers.iter().enumerate().peekable();
        while let Some((layer, spec)) = layers.next() {
            let trained_before = layer > first_trained;
            let relu_next = matches!(layers.peek(), Some((_, Layer::Relu)));
            match *spec {
                Layer::Linear { out_features, .. } => {
                    // A vector that was an image is read as one, in one window: no need to reorder anything.
                    let Grid { h, w, .. } = builder.grid;
                    let window = Window { h, w, step_h: h, step_w: w };
                    builder.affine(layer, "linear", window, (0, 0), out_features, relu_next, trained_before);
                    if relu_next {
                        layers.next();
                    }
                }
                Layer::Conv2d { out_channels, kernel_size, stride, padding, .. } => {
                    let window = Window { h: kernel_size.h, w: kernel_size.w, step_h: stride.h, step_w: stride.w };
                    let padding = (padding.h, padding.w);
                    builder.affine(layer, "conv2d", window, padding, out_channels, relu_next, trained_before);
                    if relu_next {
                        layers.next();
                    }
                }
                Layer::MaxPool2d { kernel_size, stride } | Layer::AvgPool2d { kernel_size, stride } => {
                    let stride = stride.unwrap_or(kernel_size);
                    let window = Window { h: kernel_size.h, w: kernel_size.w, step_h: stride.h, step_w: stride.w };
                    let is_max = matches!(spec, Layer::MaxPool2d { .. });
                    builder.pool(layer, if is_max { Pooling::Max } else { Pooling::Mean }, window);
                }
                Layer::GlobalAvgPool2d | Layer::MeanOverTime => {
                    let Grid { h, w, .. } = builder.grid;
                    builder.pool(layer, Pooling::Mean, Window { h, w, step_h: h, step_w: w });
                }
                Layer::Relu => {
                    let grid = builder.grid;
                    builder.push(Operation::Relu { layer }, grid, false);
                }
                Layer::Flatten => {}
                Layer::Embedding { num_embeddings, embedding_dim } => {
                    let mean = matches!(layers.peek(), Some((_, Layer::MeanOverTime)));
                    builder.embedding(layer, num_embeddings, embedding_dim, mean);
                    if mean {
                        layers.next();
                    }
                }
                Layer::Lstm { hidden_size, .. } => builder.lstm(layer, hidden_size, trained_before),
            }
        }
        let outputs = match shapes.last() {
            Some(dpsgd_core::Shape::Features(n)) => *n,
            _ => unreachable!("a valid model ends in features"),
        };
        builder.finish(model.loss, outputs).map_err(|(layer, numbers)| ModelError {
            model: model.name.clone(),
            place: format!("layer {layer}"),
            reason: format!(
                "{numbers} numbers for one block of examples, more than the {} that fused can address",
                u32::MAX
            ),
        })
    }

    /// What a thread needs for the values and gradients of one example, in bytes.
    fn example_bytes(operations: &[Operation], edges: &[Edge]) -> usize {
        let edges: usize = edges.iter().map(|edge| edge.value.example + edge.gradient.example).sum();
        let states: usize = operations
            .iter()
            .map(|operation| match operation {
                Operation::Lstm(lstm) => lstm.gates.example + 2 * lstm.cells.example,
                _ => 0,
            })
            .sum();
        (edges + states) * size_of::<f32>()
    }
}

fn has_parameters(layer: &Layer) -> bool {
    matches!(layer, Layer::Linear { .. } | Layer::Conv2d { .. } | Layer::Embedding { .. } | Layer::Lstm { .. })
}

/// A plan in the making. Frames are only known when an edge's consumer is, tables when the block is.
struct Builder {
    operations: Vec<Operation>,
    grids: Vec<Grid>,
    relus: Vec<bool>,
    grid: Grid,
    time: Option<usize>,
    parameters: usize,
    tensors: Vec<TensorMap>,
    methods: Methods,
}

impl Builder {
    fn new(input: &ModelInput, methods: Methods) -> Self {
        let (grid, time) = match *input {
            ModelInput::Features(c) => (Grid { h: 1, w: 1, c }, None),
            ModelInput::Image([c, h, w]) => (Grid { h, w, c }, None),
            ModelInput::Tokens { time, .. } => (Grid { h: time, w: 1, c: 0 }, Some(time)),
        };
        Builder {
            operations: Vec::new(),
            grids: vec![grid],
            relus: vec![false],
            grid,
            time,
            parameters: 0,
            tensors: Vec::new(),
            methods,
        }
    }

    /// Adds an operation that gives `grid`.
    fn push(&mut self, operation: Operation, grid: Grid, relu: bool) {
        self.operations.push(operation);
        self.grids.push(grid);
        self.relus.push(relu);
        self.grid = grid;
    }

    fn take_parameters(&mut self, count: usize) -> Range<usize> {
        let start = self.parameters;
        self.parameters += count;
        start..self.parameters
    }

    #[allow(clippy::too_many_arguments, reason = "what a layer is")]
    fn affine(
        &mut self,
        layer: usize,
        kind: &'static str,
        window: Window,
        padding: (usize, usize),
        outputs: usize,
        relu: bool,
        trained_before: bool,
    ) {
        let mut affine = Affine::new(layer, kind, self.grid, window, padding, outputs, self.parameters, trained_before);
        if let (Methods::Only(method), true) = (self.methods, affine.method != Method::RankOne) {
            affine.method = method;
        }
        let Affine { panels, output, .. } = affine;
        let start = self.take_parameters(panels.len()).start;
        let taps = window.h * window.w;
        let kind = TensorKind::Weight { panels, inputs: self.grid.c, taps, first_row: 0 };
        self.tensors.push(TensorMap { kind, start });
        self.tensors.push(TensorMap { kind: TensorKind::Bias { panels }, start });
        self.push(Operation::Affine(affine), output, relu);
    }

    fn pool(&mut self, layer: usize, pooling: Pooling, window: Window) {
        let Grid { h, w, c } = self.grid;
        let grid = Grid { h: (h - window.h) / window.step_h + 1, w: (w - window.w) / window.step_w + 1, c };
        let rows = covering(h, window.h, window.step_h, grid.h);
        let runs = runs(w, window.w, window.step_w, grid.w);
        // The largest of values that came out of a ReLU is one of them: if it is above 0, so is the one that it came from.
        // So its gradient is masked there, where a product does it on the way, and not again in the pooling's gradient.
        let relu = pooling == Pooling::Max && *self.relus.last().expect("an edge");
        self.push(Operation::Pool { layer, pooling, window, rows, runs }, grid, relu);
    }

    fn embedding(&mut self, layer: usize, vocabulary: usize, width: usize, mean: bool) {
        let parameters = self.take_parameters(vocabulary * width);
        self.tensors.push(TensorMap { kind: TensorKind::Table, start: parameters.start });
        let time = if mean { 1 } else { self.grid.h };
        let embedding = Embedding { layer, vocabulary, width, parameters, mean };
        self.push(Operation::Embedding(embedding), Grid { h: time, w: 1, c: width }, false);
    }

    fn lstm(&mut self, layer: usize, hidden: usize, trained_before: bool) {
        let Grid { h: time, c: inputs, .. } = self.grid;
        let lstm = Lstm::new(layer, time, inputs, hidden, self.parameters, trained_before);
        let panels = lstm.panels;
        let start = self.take_parameters(panels.len()).start;
        for (inputs, first_row) in [(inputs, 0), (hidden, inputs)] {
            let kind = TensorKind::Weight { panels, inputs, taps: 1, first_row };
            self.tensors.push(TensorMap { kind, start });
        }
        self.tensors.push(TensorMap { kind: TensorKind::Bias { panels }, start });
        self.push(Operation::Lstm(lstm), Grid { h: time, w: 1, c: hidden }, false);
    }

    /// The plan; the error is a layer and how many numbers a block of its values takes, if offsets can't reach them all.
    fn finish(mut self, loss: Loss, outputs: usize) -> Result<Plan, (usize, usize)> {
        let edges: Vec<Edge> = (0..self.grids.len())
            .map(|i| {
                let (value, gradient) = match self.operations.get(i) {
                    Some(Operation::Affine(affine)) => (affine.value_margins(), affine.gradient_margins()),
                    _ => Default::default(),
                };
                let (value, gradient) = (Frame::new(self.grids[i], value), Frame::new(self.grids[i], gradient));
                Edge { value, gradient, relu: self.relus[i] }
            })
            .collect();
        let fewest = match self.operations.iter().any(|operation| matches!(operation, Operation::Lstm(_))) {
            true => FEWEST_EXAMPLES_LSTM,
            false => FEWEST_EXAMPLES,
        };
        let block = BLOCK_BYTES / Plan::example_bytes(&self.operations, &edges).max(1);
        let block = block.clamp(fewest, MOST_EXAMPLES);
        for (operation, edge) in self.operations.iter().zip(&edges[1..]) {
            let example = match operation {
                Operation::Lstm(lstm) => lstm.gates.example,
                _ => edge.value.example,
            };
            if u32::try_from(block * example).is_err() {
                return Err((operation.layer(), block * example));
            }
        }
        for (i, operation) in self.operations.iter_mut().enumerate() {
            match operation {
                Operation::Affine(affine) => affine.place(&edges[i], &edges[i + 1], block),
                Operation::Lstm(lstm) => lstm.place(&edges[i], &edges[i + 1], block),
                _ => {}
            }
        }
        let Grid { h, w, .. } = self.grid;
        let pixel = |i: usize| [i / w % h, i % w, i / (h * w)];
        Ok(Plan {
            outputs: (0..outputs).map(pixel).collect(),
            operations: self.operations,
            edges,
            loss,
            time: self.time,
            block,
            parameters: self.parameters,
            tensors: self.tensors,
        })
    }
}

impl Operation {
    /// Its place among all parameters; empty if it has none.
    pub fn parameters(&self) -> Range<usize> {
        match self {
            Operation::Affine(affine) => affine.parameters.clone(),
            Operation::Embedding(embedding) => embedding.parameters.clone(),
            Operation::Lstm(lstm) => lstm.parameters.clone(),
            Operation::Pool { .. } | Operation::Relu { .. } => 0..0,
        }
    }

    /// The last place not after `at`, which is one of its parameters, where its parameters can be cut: the beginning of a
    /// row of a panel, or of a group of noise.
    pub fn cut_before(&self, at: usize) -> usize {
        let start = self.parameters().start;
        let panels = match self {
            Operation::Affine(affine) => affine.panels,
            Operation::Lstm(lstm) => lstm.panels,
            _ => return (at / GROUP * GROUP).max(start),
        };
        let panel = (at - start) / (PANEL * panels.depth);
        let first = start + panels.start(panel);
        first + (at - first) / panels.width(panel) * panels.width(panel)
    }

    /// How its per-example gradients are normed and summed; `None` without parameters and for embeddings, whose gradients
    /// are sparse.
    pub fn method(&self) -> Option<Method> {
        match self {
            Operation::Affine(affine) => Some(affine.method),
            Operation::Lstm(_) => Some(Method::Kept),
            _ => None,
        }
    }
}

impl Plan {
    /// The embedding whose mean over time is taken, if there is one.
    pub fn averaged(&self) -> Option<&Embedding> {
        self.operations.iter().find_map(|operation| match operation {
            Operation::Embedding(embedding) if embedding.mean => Some(embedding),
            _ => None,
        })
    }

    /// Numbers in the kept gradients of one example.
    pub fn kept(&self) -> usize {
        let kept = self.operations.iter().filter(|operation| operation.method() == Some(Method::Kept));
        kept.map(|operation| operation.parameters().len()).sum()
    }
}
