//! The program for a plan: its source text, and which kernels run in which order on which grids.
//!
//! The kernels are templates over structs of constants. What is written here is the structs, one for each operation, and the
//! kernels that instantiate the templates with them: so all sizes, strides and offsets are known to the compiler.

use std::fmt::Write;

use dpsgd_core::{Loss, Pair};

use super::device::Limits;
use super::plan::{Embedding, Map, Operation, Plan, Pool, Positions, Recurrence};
use crate::plan::Method;

/// The kernels' templates, in the order in which they need each other.
const TEMPLATES: [&str; 8] = [
    include_str!("kernels/product.cuh"),
    include_str!("kernels/map.cuh"),
    include_str!("kernels/norms.cuh"),
    include_str!("kernels/elementwise.cuh"),
    include_str!("kernels/embedding.cuh"),
    include_str!("kernels/lstm.cuh"),
    include_str!("kernels/noise.cuh"),
    include_str!("kernels/update.cuh"),
];

/// Threads in a block of kernels whose threads take items one by one.
const ITEM_THREADS: usize = 256;
/// As `NORM_THREADS`.
const NORM_THREADS: usize = 128;
/// As `EMBEDDING_COLUMNS` and `EMBEDDING_WARPS`.
const EMBEDDING_COLUMNS: usize = 32;
const EMBEDDING_WARPS: usize = 8;

/// A kernel and its grid.
#[derive(Debug)]
pub struct Kernel {
    /// Its place among [`Program::names`].
    pub index: usize,
    /// Threads in a block.
    pub threads: usize,
    /// Bytes of shared memory of a block.
    pub shared_bytes: usize,
    /// Blocks.
    pub grid: Grid,
}

/// How many blocks there are, for as many examples as there are.
#[derive(Clone, Copy, Debug)]
pub enum Grid {
    /// A thread per item of each example.
    Items(usize),
    /// A thread per item.
    ItemsOnce(usize),
    /// Along x tiles of `rows` rows, of which each example has `per_example`; along y `columns`.
    Tiles {
        /// Of an example.
        per_example: usize,
        /// Of a tile.
        rows: usize,
        /// Tiles along the columns.
        columns: usize,
    },
    /// Along x `tiles[0]`, along y `tiles[1]`, along z a block per so many examples.
    Examples {
        /// Along x and y.
        tiles: [usize; 2],
        /// Examples of a block.
        each: usize,
    },
    /// Along x a block per so many examples.
    Blocks(usize),
    /// Always as many.
    Fixed([usize; 2]),
}

impl Grid {
    /// Blocks along x, y and z for so many examples.
    pub fn blocks(&self, examples: usize, threads: usize) -> [usize; 3] {
        match *self {
            Grid::Items(items) => [(items * examples).div_ceil(threads), 1, 1],
            Grid::ItemsOnce(items) => [items.div_ceil(threads), 1, 1],
            Grid::Tiles { per_example, rows, columns } => [(per_example * examples).div_ceil(rows), columns, 1],
            Grid::Examples { tiles: [x, y], each } => [x, y, examples.div_ceil(each)],
            Grid::Blocks(each) => [examples.div_ceil(each), 1, 1],
            Grid::Fixed([x, y]) => [x, y, 1],
        }
    }
}

/// Source and schedule of a plan.
#[derive(Debug, Default)]
pub struct Program {
    /// What is compiled.
    pub source: String,
    /// The kernels' names.
    pub names: Vec<String>,
    /// Inputs to outputs, for a chunk.
    pub forward: Vec<Kernel>,
    /// The loss's gradient, and then back.
    pub backward: Vec<Kernel>,
    /// Squared norms of gradients that are not kept.
    pub norms: Vec<Kernel>,
    /// Kept gradients and their squares, for a group.
    pub keep: Vec<Kernel>,
    /// The clip factors of a group.
    pub factors: Vec<Kernel>,
    /// Sums of kept gradients.
    pub kept_sums: Vec<Kernel>,
    /// Sums of what is not kept.
    pub sums: Vec<Kernel>,
    /// In plain steps, sums of what would have been kept.
    pub plain_sums: Vec<Kernel>,
    /// Noise and update.
    pub update: Vec<Kernel>,
    /// How many numbers buffers have.
    pub sizes: Sizes,
}

/// Numbers in the buffers whose sizes the operations decide.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizes {
    /// Values, and as many gradients.
    pub values: usize,
    /// Whole numbers.
    pub marks: usize,
    /// States of LSTMs.
    pub states: usize,
    /// Sums over parts of a chunk.
    pub partials: usize,
    /// Parts of each example's squared norm.
    pub slots: usize,
}

/// A tile of a product: rows, columns, and those of a thread.
#[derive(Clone, Copy)]
struct Tile([usize; 4]);

impl Tile {
    /// For so many rows and columns, and products: the largest of which there are enough for all multiprocessors.
    fn choose(rows: usize, columns: usize, products: usize, multiprocessors: usize) -> Tile {
        let n = if columns > 32 { 64 } else { 32 };
        let all = [[128, 64, 8, 4], [64, n, 4, 4], [32, n, 4, 4]];
        let fit = |tile: &[usize; 4]| tile[1] == n && (tile[0] == 32 || tile[0] <= rows.next_multiple_of(32));
        let enough =
            |tile: &[usize; 4]| rows.div_ceil(tile[0]) * columns.div_ceil(tile[1]) * products >= multiprocessors;
        let mut fitting = all.iter().filter(|tile| fit(tile));
        Tile(
            *fitting
                .clone()
                .find(|tile| enough(tile))
                .unwrap_or_else(|| fitting.next_back().expect("the smallest fits")),
        )
    }

    fn text(&self) -> String {
        let [m, n, tm, tn] = self.0;
        format!("Tile<{m}, {n}, {tm}, {tn}>")
    }

    fn threads(&self) -> usize {
        let [m, n, tm, tn] = self.0;
        (m / tm) * (n / tn)
    }

    /// Bytes of its operands, and of a sum over the block.
    fn shared_bytes(&self) -> usize {
        let [m, n, ..] = self.0;
        (16 * (m + 4 + n + 4) * 4).max(self.threads() * 8)
    }

    fn count(&self, rows: usize, columns: usize) -> [usize; 2] {
        [rows.div_ceil(self.0[0]), columns.div_ceil(self.0[1])]
    }
}

impl Program {
    /// The program for `plan` on a device with these limits.
    pub fn new(plan: &Plan, limits: &Limits) -> Program {
        let mut writer = Writer::new(plan, limits);
        if plan.edges[0].length > 0 {
            writer.gather();
        }
        for (i, operation) in plan.operations.iter().enumerate() {
            match operation {
                Operation::Map(map) => writer.map(i, map),
                Operation::Recurrence(recurrence) => writer.recurrence(i, recurrence),
                Operation::Pool(pool) => writer.pool(i, pool),
                Operation::Relu { input, output } => writer.relu(i, *input, *output),
                Operation::Embedding(embedding) => writer.embedding(i, embedding),
            }
        }
        writer.finish()
    }
}

/// Constants of a struct.
struct Constants(String);

impl Constants {
    fn new(name: &str) -> Self {
        Constants(format!("struct {name} {{\n"))
    }

    fn int(mut self, name: &str, value: usize) -> Self {
        writeln!(self.0, "    static constexpr int {name} = {value};").expect("a string takes all");
        self
    }

    fn long(mut self, name: &str, value: usize) -> Self {
        writeln!(self.0, "    static constexpr i64 {name} = {value};").expect("a string takes all");
        self
    }

    fn bool(mut self, name: &str, value: bool) -> Self {
        writeln!(self.0, "    static constexpr bool {name} = {value};").expect("a string takes all");
        self
    }

    fn tile(mut self, name: &str, tile: Tile) -> Self {
        writeln!(self.0, "    typedef {} {name};", tile.text()).expect("a string takes all");
        self
    }

    fn ints(self, values: &[(&str, usize)]) -> Self {
        values.iter().fold(self, |constants, (name, value)| constants.int(name, *value))
    }
}

struct Writer<'a> {
    plan: &'a Plan,
    limits: &'a Limits,
    program: Program,
    structs: String,
    kernels: String,
    /// Where each edge begins.
    places: Vec<usize>,
}

impl<'a> Writer<'a> {
    fn new(plan: &'a Plan, limits: &'a Limits) -> Self {
        let mut values = 0;
        let places = plan.edges.iter().map(|edge| {
            values += edge.length * plan.chunk;
            values - edge.length * plan.chunk
        });
        let places = places.collect();
        let program = Program { sizes: Sizes { values, ..Sizes::default() }, ..Program::default() };
        Writer { plan, limits, program, structs: String::new(), kernels: String::new(), places }
    }

    fn constants(&mut self, constants: Constants) {
        self.structs.push_str(&constants.0);
        self.structs.push_str("};\n");
    }

    /// A kernel that runs `template` with the constants of `name`.
    fn kernel(&mut self, template: &str, name: &str, threads: usize, shared_bytes: usize, grid: Grid) -> Kernel {
        let index = self.program.names.len();
        let (full, arguments) = match name {
            "" => (template.to_string(), String::new()),
            _ => (format!("{name}_{template}"), format!("<{name}>")),
        };
        let head = format!("extern \"C\" __global__ void __launch_bounds__({threads}) kernel_{full}(const Step s)");
        writeln!(self.kernels, "{head} {{ {template}{arguments}(s); }}").expect("a string takes all");
        self.program.names.push(format!("kernel_{full}"));
        Kernel { index, threads, shared_bytes, grid }
    }

    fn items(&mut self, template: &str, name: &str, per_example: usize) -> Kernel {
        self.kernel(template, name, ITEM_THREADS, 0, Grid::Items(per_example))
    }

    fn slots(&mut self, count: usize) -> usize {
        self.program.sizes.slots += count;
        self.program.sizes.slots - count
    }

    fn gather(&mut self) {
        let length = self.plan.edges[0].length;
        self.constants(Constants::new("Input").int("LENGTH", length).long("OUT", self.places[0]));
        let kernel = self.items("gather", "Input", length);
        self.program.forward.push(kernel);
    }

    /// Describes a map, and has its gradients kept, normed and summed. Gives the tiles of products forward and backward.
    fn map_gradients(&mut self, name: &str, map: &Map, reduces: bool) -> [Tile; 2] {
        let edges = &self.plan.edges;
        let (input, output) = (edges[map.input], edges[map.output]);
        let (t, expected, processors) = (map.positions(), self.plan.expected, self.limits.multiprocessors);
        let columns = map.inputs + usize::from(map.bias.is_some());
        let parts = self.examples_per_part(map);
        let products = if map.method == Method::Kept { self.plan.group } else { expected.div_ceil(parts) };
        let weights = Tile::choose(map.outputs, columns, products, processors);
        let tiles = weights.count(map.outputs, columns);
        let slot = self.slots(if map.method == Method::Kept { tiles[0] * tiles[1] } else { 1 });
        let constants = Constants::new(name);
        let (constants, back_rows, back_columns) = match map.positions {
            Positions::Image { from: [c, h, w], kernel, stride, padding, to: [oh, ow] } => {
                let constants = constants
                    .bool("SEQUENCE", false)
                    .int("SHIFT", 0)
                    .ints(&[("C", c), ("H", h), ("W", w), ("KH", kernel.h), ("KW", kernel.w)])
                    .ints(&[("SH", stride.h), ("SW", stride.w), ("PH", padding.h), ("PW", padding.w)])
                    .ints(&[("OH", oh), ("OW", ow)]);
                (constants, h * w, c)
            }
            Positions::Sequence { time, shift } => {
                let ones = ["C", "H", "W", "KH", "KW", "SH", "SW", "OH", "OW"].map(|name| (name, 1));
                let constants =
                    constants.bool("SEQUENCE", true).int("SHIFT", shift).ints(&ones).int("PH", 0).int("PW", 0);
                (constants, time, map.inputs)
            }
        };
        let forward = Tile::choose(t * expected, map.outputs, 1, processors);
        let backward = Tile::choose(back_rows * expected, back_columns, 1, processors);
        let (start, length) = (map.parameters.start, map.parameters.len());
        let constants = constants
            .ints(&[("T", t), ("D", map.inputs), ("P", map.outputs), ("WEIGHT", map.weight)])
            .ints(&[("BIAS", map.bias.unwrap_or(0)), ("START", start), ("PARAMETERS", length)])
            .ints(&[("IN_LENGTH", input.length), ("OUT_LENGTH", output.length)])
            .long("IN", self.places[map.input])
            .long("OUT", self.places[map.output])
            .bool("HAS_BIAS", map.bias.is_some())
            .bool("RELU_IN", input.relu)
            .bool("RELU_OUT", output.relu)
            .ints(&[("SLOT", slot), ("KEPT_AT", map.kept_at), ("PARTIALS", 0), ("EXAMPLES_PER_PART", parts)])
            .tile("ForwardTile", forward)
            .tile("BackwardTile", backward)
            .tile("WeightsTile", weights);
        self.constants(constants);

        let grid = Grid::Examples { tiles, each: parts };
        let mut sums = vec![self.kernel("map_sum", name, weights.threads(), weights.shared_bytes(), grid)];
        if reduces {
            sums.push(self.kernel("map_reduce", name, ITEM_THREADS, 0, Grid::ItemsOnce(length)));
        }
        let partials = self.plan.chunk.div_ceil(parts) * length;
        self.program.sizes.partials = self.program.sizes.partials.max(partials);
        let sums_too = match map.method {
            Method::Kept => &mut self.program.plain_sums,
            _ => &mut self.program.sums,
        };
        sums_too.extend(sums);
        match map.method {
            Method::Kept => {
                let grid = Grid::Examples { tiles, each: 1 };
                let keep = self.kernel("map_keep", name, weights.threads(), weights.shared_bytes(), grid);
                self.program.keep.push(keep);
                if reduces {
                    let sum = self.kernel("kept_sum", name, ITEM_THREADS, 0, Grid::ItemsOnce(length));
                    self.program.kept_sums.push(sum);
                }
            }
            method => {
                let template = if method == Method::Ghost { "ghost_norm" } else { "rank_one_norm" };
                let shared = NORM_THREADS * 8 * if method == Method::Ghost { 2 } else { 1 };
                let norm = self.kernel(template, name, NORM_THREADS, shared, Grid::Blocks(1));
                self.program.norms.push(norm);
            }
        }
        [forward, backward]
    }

    /// Examples that one block sums over: so few that there are blocks for all multiprocessors, but some positions at least.
    /// All maps of an operation have the same parts, as they are added up at once.
    fn examples_per_part(&self, map: &Map) -> usize {
        let tiles = (map.parameters.len() / (64 * 64)).max(1);
        let parts = (2 * self.limits.multiprocessors / tiles).clamp(1, self.plan.expected);
        self.plan.expected.div_ceil(parts).max(64usize.div_ceil(map.positions()))
    }

    fn map(&mut self, i: usize, map: &Map) {
        let name = format!("Map{i}");
        // An LSTM's parameters are added up once its other map is summed too.
        let is_alone = !matches!(map.positions, Positions::Sequence { .. });
        let [forward, backward] = self.map_gradients(&name, map, is_alone);
        let columns = map.outputs.div_ceil(forward.0[1]);
        let grid = Grid::Tiles { per_example: map.positions(), rows: forward.0[0], columns };
        let kernel = self.kernel("map_forward", &name, forward.threads(), forward.shared_bytes(), grid);
        self.program.forward.push(kernel);
        if self.plan.edges[map.input].has_gradient {
            let (pixels, columns) = match map.positions {
                Positions::Image { from: [c, h, w], .. } => (h * w, c),
                Positions::Sequence { time, .. } => (time, map.inputs),
            };
            let grid =
                Grid::Tiles { per_example: pixels, rows: backward.0[0], columns: columns.div_ceil(backward.0[1]) };
            let kernel = self.kernel("map_backward", &name, backward.threads(), backward.shared_bytes(), grid);
            self.program.backward.push(kernel);
        }
    }

    fn recurrence(&mut self, i: usize, recurrence: &Recurrence) {
        let Recurrence { gates, output, time, hidden, ref map } = *recurrence;
        self.map_gradients(&format!("Hidden{i}"), map, true);
        let name = format!("Lstm{i}");
        let examples = self.plan.expected.div_ceil(self.limits.multiprocessors).clamp(1, 4);
        // What `lstm_backward` takes beside the weights; `lstm_forward` takes less.
        let state = 9 * hidden * examples * 4;
        let staged = 4 * hidden * (hidden + 1) * 4;
        let is_staged = state + staged <= self.limits.shared_bytes;
        let states = self.program.sizes.states;
        self.program.sizes.states += self.plan.chunk * time * 2 * hidden;
        let constants = Constants::new(&name)
            .ints(&[("H", hidden), ("TIME", time), ("EXAMPLES", examples), ("WEIGHT_HH", map.weight)])
            .bool("STAGED", is_staged)
            .long("GATES", self.places[gates])
            .long("OUT", self.places[output])
            .long("STATES", states);
        self.constants(constants);
        let threads = (4 * hidden).next_multiple_of(32).min(512);
        let shared = state + if is_staged { staged } else { 0 };
        let forward = self.kernel("lstm_forward", &name, threads, shared, Grid::Blocks(examples));
        self.program.forward.push(forward);
        let backward = self.kernel("lstm_backward", &name, threads, shared, Grid::Blocks(examples));
        self.program.backward.push(backward);
    }

    fn pool(&mut self, i: usize, pool: &Pool) {
        let name = format!("Pool{i}");
        let (input, output) = (self.plan.edges[pool.input], self.plan.edges[pool.output]);
        let [c, h, w] = pool.from;
        let Pair { h: kh, w: kw } = pool.kernel;
        let marks = self.program.sizes.marks;
        if pool.is_max {
            self.program.sizes.marks += output.length * self.plan.chunk;
        }
        let constants = Constants::new(&name)
            .bool("SEQUENCE", pool.is_sequence)
            .bool("IS_MAX", pool.is_max)
            .bool("RELU_IN", input.relu)
            .ints(&[("C", c), ("H", h), ("W", w), ("KH", kh), ("KW", kw), ("SH", pool.stride.h), ("SW", pool.stride.w)])
            .ints(&[("OH", pool.to[0]), ("OW", pool.to[1])])
            .long("IN", self.places[pool.input])
            .long("OUT", self.places[pool.output])
            .long("MARKS", marks);
        self.constants(constants);
        let forward = self.items("pool_forward", &name, output.length);
        self.program.forward.push(forward);
        if input.has_gradient {
            let backward = self.items("pool_backward", &name, input.length);
            self.program.backward.push(backward);
        }
    }

    fn relu(&mut self, i: usize, input: usize, output: usize) {
        let name = format!("Relu{i}");
        let length = self.plan.edges[input].length;
        let constants =
            Constants::new(&name).int("LENGTH", length).long("IN", self.places[input]).long("OUT", self.places[output]);
        self.constants(constants);
        let forward = self.items("relu_forward", &name, length);
        self.program.forward.push(forward);
        if self.plan.edges[input].has_gradient {
            let backward = self.items("relu_backward", &name, length);
            self.program.backward.push(backward);
        }
    }

    fn embedding(&mut self, i: usize, embedding: &Embedding) {
        let name = format!("Embedding{i}");
        let Embedding { output, vocabulary, width, time, mean, weight } = *embedding;
        let length = self.plan.edges[output].length;
        let slot = self.slots(1);
        let marks = self.program.sizes.marks;
        if !mean {
            self.program.sizes.marks += 2 * time * self.plan.chunk;
        }
        let columns = width.div_ceil(EMBEDDING_COLUMNS);
        // Rows of a block: as few as occupy the device, and not more than shared memory takes.
        let rows = (vocabulary * columns).div_ceil(2 * self.limits.multiprocessors).clamp(1, 256);
        let constants = Constants::new(&name)
            .ints(&[("VOCABULARY", vocabulary), ("WIDTH", width), ("TIME", time), ("WEIGHT", weight)])
            .ints(&[("LENGTH", length), ("ROWS", rows), ("SLOT", slot)])
            .bool("MEAN", mean)
            .long("OUT", self.places[output])
            .long("MARKS", marks);
        self.constants(constants);
        let forward = self.items("embedding_forward", &name, length);
        self.program.forward.push(forward);
        let norm = self.kernel("embedding_norm", &name, NORM_THREADS, NORM_THREADS * 8, Grid::Blocks(1));
        self.program.norms.push(norm);
        let shared = (rows * EMBEDDING_COLUMNS + EMBEDDING_WARPS) * 4;
        let grid = Grid::Fixed([vocabulary.div_ceil(rows), columns]);
        let sum = self.kernel("embedding_sum", &name, EMBEDDING_WARPS * 32, shared, grid);
        self.program.sums.push(sum);
    }

    fn finish(mut self) -> Program {
        let output = self.plan.edges.len() - 1;
        let edge = self.plan.edges[output];
        let kind = match self.plan.loss {
            Loss::CrossEntropy => 0,
            Loss::BceWithLogits => 1,
            Loss::Mse => 2,
        };
        let constants = Constants::new("Loss")
            .ints(&[("KIND", kind), ("LENGTH", edge.length)])
            .bool("RELU", edge.relu)
            .long("OUT", self.places[output]);
        self.constants(constants);
        let loss = self.kernel("loss_gradient", "Loss", 64, 0, Grid::Items(1));
        self.program.backward.push(loss);
        self.program.backward.reverse();
        let factors = self.kernel("clip_factors", "", 64, 0, Grid::Items(1));
        self.program.factors.push(factors);
        let blocks = self.plan.parameters.div_ceil(256) * 16;
        let update = self.kernel("update", "", 64, 0, Grid::ItemsOnce(blocks));
        self.program.update.push(update);

        let Sizes { slots, .. } = self.program.sizes;
        let Plan { parameters, kept, .. } = *self.plan;
        let mut source = include_str!("kernels/prelude.cuh").to_string();
        write!(
            source,
            "\nconstexpr int PARAMETERS = {parameters};\nconstexpr i64 KEPT = {kept};\nconstexpr int SLOTS = {slots};\n"
        )
        .expect("a string takes all");
        TEMPLATES.iter().for_each(|template| source.push_str(template));
        source.push_str(&self.structs);
        source.push_str(&self.kernels);
        self.program.source = source;
        self.program
    }
}
