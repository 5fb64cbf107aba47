//! What a CUDA device does at every step, decided at load: the operations of the model, where their numbers lie, and by
//! which method each one's per-example gradients are normed and summed.
//!
//! Everything is in PyTorch's order: parameters tensor after tensor, images `[channels, height, width]`, sequences
//! `[time, width]`. So a flatten is nothing, and parameters need no reordering.

use std::ops::Range;

use dpsgd_core::{Layer, Loss, ModelSpec, Pair, Shape};

use super::device::{DeviceError, Limits};
use crate::plan::{Method, Methods};

/// The operations of a model, and the memory that they need.
#[derive(Debug)]
pub struct Plan {
    /// First to last.
    pub operations: Vec<Operation>,
    /// What passes between them; the first is the input (of no length if that is tokens), the last is the output.
    pub edges: Vec<Edge>,
    /// The loss.
    pub loss: Loss,
    /// How many parameters there are.
    pub parameters: usize,
    /// Tokens of an example, if it is tokens.
    pub time: Option<usize>,
    /// Examples whose values and gradients are in memory at once.
    pub chunk: usize,
    /// Examples of a chunk whose kept gradients are in memory at once.
    pub group: usize,
    /// Numbers of one example's kept gradients.
    pub kept: usize,
    /// Examples that a batch is expected to have: what grids are cut for.
    pub expected: usize,
}

/// What passes between two operations.
#[derive(Clone, Copy, Debug)]
pub struct Edge {
    /// Numbers of one example.
    pub length: usize,
    /// Whether they come out of a ReLU, so that gradients are masked before they are stored.
    pub relu: bool,
    /// Whether anything before has parameters, so that gradients are needed.
    pub has_gradient: bool,
}

/// One or more layers, as one operation. `input` and `output` are edges.
#[derive(Debug)]
pub enum Operation {
    /// A linear layer or a convolution, with the ReLU after it if there is one; or an LSTM's product with its inputs.
    Map(Map),
    /// The recurrence of an LSTM.
    Recurrence(Recurrence),
    /// A pool, or a mean over an image or over time.
    Pool(Pool),
    /// A ReLU that nothing else took in.
    Relu {
        /// Read.
        input: usize,
        /// Written.
        output: usize,
    },
    /// An embedding, perhaps with the mean over time.
    Embedding(Embedding),
}

/// An affine map applied at T positions.
#[derive(Clone, Debug)]
pub struct Map {
    /// Read.
    pub input: usize,
    /// Written.
    pub output: usize,
    /// Over what.
    pub positions: Positions,
    /// Inputs of a position: d.
    pub inputs: usize,
    /// Outputs of a position: p.
    pub outputs: usize,
    /// Where the weights begin.
    pub weight: usize,
    /// Where the biases begin.
    pub bias: Option<usize>,
    /// All parameters of the layer.
    pub parameters: Range<usize>,
    /// Where they begin in a kept gradient, if it is kept.
    pub kept_at: usize,
    /// How gradients are normed and summed.
    pub method: Method,
}

/// The positions of a [`Map`].
#[derive(Clone, Debug)]
pub enum Positions {
    /// Windows on an image; a vector is an image of one pixel.
    Image {
        /// Channels, height and width in.
        from: [usize; 3],
        /// Window.
        kernel: Pair,
        /// Steps.
        stride: Pair,
        /// Zeros around.
        padding: Pair,
        /// Height and width out.
        to: [usize; 2],
    },
    /// Steps of a sequence.
    Sequence {
        /// How many.
        time: usize,
        /// By how many the inputs lag behind.
        shift: usize,
    },
}

impl Map {
    /// T.
    pub fn positions(&self) -> usize {
        match self.positions {
            Positions::Image { to: [h, w], .. } => h * w,
            Positions::Sequence { time, .. } => time,
        }
    }
}

/// See [`Operation::Recurrence`].
#[derive(Debug)]
pub struct Recurrence {
    /// The edge of pre-activations and gates, `[time, 4 hidden]`.
    pub gates: usize,
    /// The edge of hidden states, `[time, hidden]`.
    pub output: usize,
    /// Steps.
    pub time: usize,
    /// Length of the hidden state.
    pub hidden: usize,
    /// The map from hidden states to the next step's gates: only its gradient is computed as a map.
    pub map: Map,
}

/// See [`Operation::Pool`].
#[derive(Debug)]
pub struct Pool {
    /// Read.
    pub input: usize,
    /// Written.
    pub output: usize,
    /// The largest of a window, or else the mean.
    pub is_max: bool,
    /// Whether the input is `[time, width]`.
    pub is_sequence: bool,
    /// Channels, height and width in.
    pub from: [usize; 3],
    /// Window.
    pub kernel: Pair,
    /// Steps.
    pub stride: Pair,
    /// Height and width out.
    pub to: [usize; 2],
}

/// See [`Operation::Embedding`].
#[derive(Debug)]
pub struct Embedding {
    /// Written.
    pub output: usize,
    /// Rows of the table.
    pub vocabulary: usize,
    /// Length of a row.
    pub width: usize,
    /// Tokens.
    pub time: usize,
    /// Whether the mean over time follows.
    pub mean: bool,
    /// Where the table begins among the parameters.
    pub weight: usize,
}

/// Of larger batches grids are cut for so many.
const MOST_EXPECTED: usize = 1 << 16;
/// Most bytes of values and gradients.
const CHUNK_BYTES: usize = 4 << 30;

impl Plan {
    /// The plan for a model that is valid, for batches of about `expected` examples on a device with these limits.
    pub fn new(model: &ModelSpec, methods: Methods, expected: usize, limits: &Limits) -> Result<Self, DeviceError> {
        let shapes = model.shapes().map_err(|error| DeviceError::Failed(error.to_string()))?;
        let mut builder = Builder::new(model, methods);
        let mut layers = model.layers.iter().enumerate().peekable();
        while let Some((i, layer)) = layers.next() {
            let next = layers.peek().map(|(_, layer)| *layer);
            let takes_next = match layer {
                Layer::Linear { .. } | Layer::Conv2d { .. } => matches!(next, Some(Layer::Relu)),
                Layer::Embedding { .. } => matches!(next, Some(Layer::MeanOverTime)),
                _ => false,
            };
            builder.layer(layer, shapes[i], shapes[i + 1], takes_next);
            if takes_next {
                layers.next();
            }
        }
        builder.finish(model.loss, expected.clamp(1, MOST_EXPECTED), limits)
    }
}

struct Builder {
    plan: Plan,
    methods: Methods,
}

/// Numbers of a shape.
fn length(shape: Shape) -> usize {
    match shape {
        Shape::Features(n) => n,
        Shape::Image { c, h, w } => c * h * w,
        Shape::Tokens { .. } => 0,
        Shape::Sequence { time, width } => time * width,
    }
}

const ONE: Pair = Pair { h: 1, w: 1 };
const ZERO: Pair = Pair { h: 0, w: 0 };

impl Builder {
    fn new(model: &ModelSpec, methods: Methods) -> Self {
        let shape = model.input.shape();
        let time = match shape {
            Shape::Tokens { time, .. } => Some(time),
            _ => None,
        };
        let input = Edge { length: length(shape), relu: false, has_gradient: false };
        let plan = Plan {
            operations: Vec::new(),
            edges: vec![input],
            loss: model.loss,
            parameters: 0,
            time,
            chunk: 0,
            group: 0,
            kept: 0,
            expected: 0,
        };
        Builder { plan, methods }
    }

    /// The edge written last.
    fn last(&self) -> usize {
        self.plan.edges.len() - 1
    }

    /// Adds an edge; `trained`: whether what writes it has parameters.
    fn edge(&mut self, length: usize, relu: bool, trained: bool) -> usize {
        let has_gradient = trained || self.plan.edges[self.last()].has_gradient;
        self.plan.edges.push(Edge { length, relu, has_gradient });
        self.last()
    }

    fn take(&mut self, parameters: usize) -> Range<usize> {
        let start = self.plan.parameters;
        self.plan.parameters += parameters;
        start..self.plan.parameters
    }

    fn layer(&mut self, layer: &Layer, from: Shape, to: Shape, takes_next: bool) {
        match *layer {
            Layer::Linear { in_features, out_features } => {
                let from = [in_features, 1, 1];
                let positions = Positions::Image { from, kernel: ONE, stride: ONE, padding: ZERO, to: [1, 1] };
                self.map(positions, in_features, out_features, takes_next);
            }
            Layer::Conv2d { out_channels, kernel_size, stride, padding, .. } => {
                let (Shape::Image { c, h, w }, Shape::Image { h: oh, w: ow, .. }) = (from, to) else {
                    unreachable!("shapes are checked");
                };
                let inputs = c * kernel_size.h * kernel_size.w;
                let from = [c, h, w];
                let positions = Positions::Image { from, kernel: kernel_size, stride, padding, to: [oh, ow] };
                self.map(positions, inputs, out_channels, takes_next);
            }
            Layer::MaxPool2d { kernel_size, stride } | Layer::AvgPool2d { kernel_size, stride } => {
                let is_max = matches!(layer, Layer::MaxPool2d { .. });
                self.pool(from, is_max, kernel_size, stride.unwrap_or(kernel_size));
            }
            Layer::GlobalAvgPool2d | Layer::MeanOverTime => {
                let whole = match from {
                    Shape::Image { h, w, .. } => Pair { h, w },
                    Shape::Sequence { time, .. } => Pair { h: time, w: 1 },
                    _ => unreachable!("shapes are checked"),
                };
                self.pool(from, false, whole, whole);
            }
            Layer::Relu => {
                let input = self.last();
                let output = self.edge(length(from), false, false);
                self.plan.operations.push(Operation::Relu { input, output });
            }
            Layer::Flatten => {}
            Layer::Embedding { num_embeddings, embedding_dim } => {
                let time = self.plan.time.expect("an embedding's input is tokens");
                let weight = self.take(num_embeddings * embedding_dim).start;
                let output = self.edge(if takes_next { embedding_dim } else { time * embedding_dim }, false, true);
                let embedding = Embedding {
                    output,
                    vocabulary: num_embeddings,
                    width: embedding_dim,
                    time,
                    mean: takes_next,
                    weight,
                };
                self.plan.operations.push(Operation::Embedding(embedding));
            }
            Layer::Lstm { input_size, hidden_size } => self.lstm(from, input_size, hidden_size),
        }
    }

    fn map(&mut self, positions: Positions, inputs: usize, outputs: usize, relu: bool) {
        let parameters = self.take((inputs + 1) * outputs);
        let (weight, bias) = (parameters.start, Some(parameters.start + inputs * outputs));
        let input = self.last();
        let mut map = Map {
            input,
            output: 0,
            positions,
            inputs,
            outputs,
            weight,
            bias,
            parameters,
            kept_at: 0,
            method: Method::RankOne,
        };
        let t = map.positions();
        map.output = self.edge(t * outputs, relu, true);
        // In f64, as the products can be large.
        let [time, d, p] = [t, inputs, outputs].map(|size| size as f64);
        map.method = match self.methods {
            _ if t == 1 => Method::RankOne,
            Methods::Only(method) => method,
            Methods::Cheapest if time * time * (p + d) < 4.0 * p * d => Method::Ghost,
            Methods::Cheapest => Method::Kept,
        };
        if map.method == Method::Kept {
            map.kept_at = self.keep(map.parameters.len());
        }
        self.plan.operations.push(Operation::Map(map));
    }

    fn keep(&mut self, parameters: usize) -> usize {
        self.plan.kept += parameters;
        self.plan.kept - parameters
    }

    fn pool(&mut self, from: Shape, is_max: bool, kernel: Pair, stride: Pair) {
        let (sizes, is_sequence) = match from {
            Shape::Image { c, h, w } => ([c, h, w], false),
            Shape::Sequence { time, width } => ([width, time, 1], true),
            _ => unreachable!("shapes are checked"),
        };
        let [c, h, w] = sizes;
        let to = [(h - kernel.h) / stride.h + 1, (w - kernel.w) / stride.w + 1];
        let input = self.last();
        let output = self.edge(c * to[0] * to[1], false, false);
        let pool = Pool { input, output, is_max, is_sequence, from: sizes, kernel, stride, to };
        self.plan.operations.push(Operation::Pool(pool));
    }

    /// Two operations: the product of all steps' inputs, then the recurrence. Gradients of both are kept, as one.
    fn lstm(&mut self, from: Shape, inputs: usize, hidden: usize) {
        let Shape::Sequence { time, .. } = from else { unreachable!("shapes are checked") };
        let parameters = self.take(4 * hidden * (inputs + hidden + 1));
        let weight_hh = parameters.start + 4 * hidden * inputs;
        let kept_at = self.keep(parameters.len());
        let input = self.last();
        let gates = self.edge(time * 4 * hidden, false, true);
        let map = Map {
            input,
            output: gates,
            positions: Positions::Sequence { time, shift: 0 },
            inputs,
            outputs: 4 * hidden,
            weight: parameters.start,
            bias: Some(weight_hh + 4 * hidden * hidden),
            parameters,
            kept_at,
            method: Method::Kept,
        };
        let output = self.edge(time * hidden, false, true);
        let recurrent = Map {
            input: output,
            positions: Positions::Sequence { time, shift: 1 },
            inputs: hidden,
            weight: weight_hh,
            bias: None,
            ..map.clone()
        };
        self.plan.operations.push(Operation::Map(map));
        let recurrence = Recurrence { gates, output, time, hidden, map: recurrent };
        self.plan.operations.push(Operation::Recurrence(recurrence));
    }

    fn finish(self, loss: Loss, expected: usize, limits: &Limits) -> Result<Plan, DeviceError> {
        let mut plan = self.plan;
        plan.loss = loss;
        plan.expected = expected;
        let numbers: usize = plan.edges.iter().map(|edge| 2 * edge.length).sum();
        let largest = plan.edges.iter().map(|edge| edge.length).max().unwrap_or(1).max(1);
        let bytes = 4 * numbers.max(1);
        let most = (CHUNK_BYTES.min(limits.memory_bytes / 4) / bytes).min(i32::MAX as usize / largest);
        if plan.parameters > i32::MAX as usize || most == 0 {
            let (parameters, memory) = (plan.parameters, limits.memory_bytes);
            return Err(DeviceError::Unsupported(format!(
                "{parameters} parameters and {bytes} bytes for one example's values: a device with {memory} bytes takes \
                 fewer than 2^31 parameters and a quarter of its memory"
            )));
        }
        // Poisson batches vary: with some room, nearly all of them are one chunk.
        plan.chunk = limits.largest_chunk.unwrap_or((expected + expected / 4).max(32)).min(most);
        plan.group = match plan.kept {
            0 => plan.chunk,
            kept => (limits.cache_bytes * 6 / 10 / (4 * kept)).clamp(1, plan.chunk),
        };
        Ok(plan)
    }
}
