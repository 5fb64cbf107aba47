//! Kernels over a chunk of examples at once: products in tiles, gradients kept or normed by a formula, sums in parts.

use std::fmt::Write;

use dpsgd_core::cost::Cost;

use super::constants::{Constants, places};
use super::device::Limits;
use super::plan::{Embedding, Map, Operation, Plan, Pool, Positions, Recurrence};
use super::program::{
    COUNTED, Grid, ITEM_THREADS, Kernel, Precision, Program, Sizes, UPDATE_THREADS, head, source, update_items,
};
use super::work;
use crate::plan::Method;

/// As `NORM_THREADS`.
const NORM_THREADS: usize = 128;
/// As `EMBEDDING_COLUMNS` and `EMBEDDING_WARPS`.
const EMBEDDING_COLUMNS: usize = 32;
const EMBEDDING_WARPS: usize = 8;

/// As the larger `PAD`.
const PAD: usize = 8;

/// Templates that are told which items their threads take, as blocks use them too.
const OF_ITEMS: [&str; 6] =
    ["gather", "relu_forward", "relu_backward", "pool_forward", "pool_backward", "loss_gradient"];

/// The program for `plan` on a device with these limits.
pub fn program(plan: &Plan, precision: Precision, limits: &Limits) -> Program {
    let mut writer = Writer::new(plan, precision, limits);
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
        (16 * (m + PAD + n + PAD) * 4).max(self.threads() * 8)
    }

    fn count(&self, rows: usize, columns: usize) -> [usize; 2] {
        [rows.div_ceil(self.0[0]), columns.div_ceil(self.0[1])]
    }
}

struct Writer<'a> {
    plan: &'a Plan,
    precision: Precision,
    limits: &'a Limits,
    program: Program,
    structs: String,
    kernels: String,
    /// Where each edge begins.
    places: Vec<usize>,
}

impl<'a> Writer<'a> {
    fn new(plan: &'a Plan, precision: Precision, limits: &'a Limits) -> Self {
        let (places, values) = places(plan);
        let program = Program { sizes: Sizes { values, ..Sizes::default() }, room: plan.chunk, ..Program::default() };
        Writer { plan, precision, limits, program, structs: String::new(), kernels: String::new(), places }
    }

    fn constants(&mut self, constants: Constants) {
        self.structs.push_str(&constants.finish());
    }

    /// A kernel that runs `template` with the constants of `name`.
    fn kernel(&mut self, template: &str, name: &str, threads: usize, shared_bytes: usize, grid: Grid) -> Kernel {
        let index = self.program.names.len();
        let (full, arguments) = match name {
            "" => (template.to_string(), String::new()),
            _ => (format!("{name}_{template}"), format!("<{name}>")),
        };
        let head = head(&full, threads);
        let span = if OF_ITEMS.contains(&template) { ", of_grid()" } else { "" };
        writeln!(self.kernels, "{head} {{ {COUNTED} {template}{arguments}(s{span}); }}").expect("a string takes all");
        self.program.names.push(format!("kernel_{full}"));
        Kernel { index, threads, shared_bytes, grid, work: Cost::default() }
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
        self.constants(Constants::input(self.plan, &self.places));
        let kernel = self.items("gather", "Input", length).doing(work::numbers(2 * length));
        self.program.forward.push(kernel);
    }

    /// Describes a map, and has its gradients kept, normed and summed. Gives the tiles of products forward and backward.
    fn map_gradients(&mut self, name: &str, map: &Map, reduces: bool) -> [Tile; 2] {
        let (t, expected, processors) = (map.positions(), self.plan.expected, self.limits.multiprocessors);
        let columns = map.inputs + usize::from(map.bias.is_some());
        let parts = self.examples_per_part(map);
        let products = if map.method == Method::Kept { self.plan.group } else { expected.div_ceil(parts) };
        let weights = Tile::choose(map.outputs, columns, products, processors);
        let tiles = weights.count(map.outputs, columns);
        let slot = self.slots(if map.method == Method::Kept { tiles[0] * tiles[1] } else { 1 });
        let (back_rows, back_columns) = match map.positions {
            Positions::Image { from: [c, h, w], .. } => (h * w, c),
            Positions::Sequence { time, .. } => (time, map.inputs),
        };
        let forward = Tile::choose(t * expected, map.outputs, 1, processors);
        let backward = Tile::choose(back_rows * expected, back_columns, 1, processors);
        let length = map.parameters.len();
        let constants = Constants::map(name, map, self.plan, &self.places)
            .ints(&[("SLOT", slot), ("PARTIALS", 0), ("EXAMPLES_PER_PART", parts)])
            .alias("ForwardTile", &forward.text())
            .alias("BackwardTile", &backward.text())
            .alias("WeightsTile", &weights.text());
        self.constants(constants);

        let grid = Grid::Examples { tiles, each: parts };
        // Private steps that keep gradients need no sum of products, and exact products do for both.
        let (is_kept, is_exact) = (map.method == Method::Kept, self.precision == Precision::F32);
        let template = if is_exact { "map_sum" } else { "plain_sum" };
        let product = work::product(map, self.plan);
        let mut plain =
            vec![self.kernel(template, name, weights.threads(), weights.shared_bytes(), grid).doing(product)];
        let mut private = plain.clone();
        if !is_exact && !is_kept {
            let sum = self.kernel("map_sum", name, weights.threads(), weights.shared_bytes(), grid);
            private = vec![sum.doing(product)];
        }
        if reduces {
            // Of every part, it reads a sum.
            let read = work::numbers(length.div_ceil(parts));
            let reduce = self.kernel("map_reduce", name, ITEM_THREADS, 0, Grid::ItemsOnce(length)).doing(read);
            private.push(reduce.clone());
            plain.push(reduce);
        }
        let partials = self.plan.chunk.div_ceil(parts) * length;
        self.program.sizes.partials = self.program.sizes.partials.max(partials);
        self.program.plain_sums.extend(plain);
        if !is_kept {
            self.program.sums.extend(private);
        }
        match map.method {
            Method::Kept => {
                let grid = Grid::Examples { tiles, each: 1 };
                let keep = self.kernel("map_keep", name, weights.threads(), weights.shared_bytes(), grid);
                self.program.keep.push(keep.doing(work::keep(map, self.plan)));
                if reduces {
                    let sum = self.kernel("kept_sum", name, ITEM_THREADS, 0, Grid::ItemsOnce(length));
                    self.program.kept_sums.push(sum.doing(work::numbers(length)));
                }
            }
            method => {
                let (template, sums, work) = match method {
                    Method::Ghost => ("ghost_norm", 2, work::ghost_norm(map, self.plan)),
                    _ => ("rank_one_norm", 1, work::rank_one_norm(map, self.plan)),
                };
                let norm = self.kernel(template, name, NORM_THREADS, NORM_THREADS * 8 * sums, Grid::Blocks(1));
                self.program.norms.push(norm.doing(work));
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
        let product = work::product(map, self.plan);
        let kernel = self.kernel("map_forward", &name, forward.threads(), forward.shared_bytes(), grid);
        self.program.forward.push(kernel.doing(product));
        if self.plan.edges[map.input].has_gradient {
            let (pixels, columns) = match map.positions {
                Positions::Image { from: [c, h, w], .. } => (h * w, c),
                Positions::Sequence { time, .. } => (time, map.inputs),
            };
            let grid =
                Grid::Tiles { per_example: pixels, rows: backward.0[0], columns: columns.div_ceil(backward.0[1]) };
            let kernel = self.kernel("map_backward", &name, backward.threads(), backward.shared_bytes(), grid);
            self.program.backward.push(kernel.doing(product));
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
        let work = work::recurrence(recurrence);
        let forward = self.kernel("lstm_forward", &name, threads, shared, Grid::Blocks(examples));
        self.program.forward.push(forward.doing(work));
        let backward = self.kernel("lstm_backward", &name, threads, shared, Grid::Blocks(examples));
        self.program.backward.push(backward.doing(work));
    }

    fn pool(&mut self, i: usize, pool: &Pool) {
        let name = format!("Pool{i}");
        let (input, output) = (self.plan.edges[pool.input], self.plan.edges[pool.output]);
        let marks = self.program.sizes.marks;
        if pool.is_max {
            self.program.sizes.marks += output.length * self.plan.chunk;
        }
        let constants = Constants::pool(&name, pool, self.plan, &self.places, marks);
        self.constants(constants);
        // The place of a maximum is as large as the maximum.
        let work = work::numbers(input.length + output.length * if pool.is_max { 2 } else { 1 });
        let forward = self.items("pool_forward", &name, output.length);
        self.program.forward.push(forward.doing(work));
        if input.has_gradient {
            let backward = self.items("pool_backward", &name, input.length);
            self.program.backward.push(backward.doing(work));
        }
    }

    fn relu(&mut self, i: usize, input: usize, output: usize) {
        let name = format!("Relu{i}");
        let length = self.plan.edges[input].length;
        self.constants(Constants::relu(&name, input, output, self.plan, &self.places));
        let forward = self.items("relu_forward", &name, length);
        self.program.forward.push(forward.doing(work::numbers(2 * length)));
        if self.plan.edges[input].has_gradient {
            let backward = self.items("relu_backward", &name, length);
            self.program.backward.push(backward.doing(work::numbers(3 * length)));
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
        self.program.forward.push(forward.doing(work::numbers(time * width + length)));
        let gradient = work::numbers(time + length);
        let norm = self.kernel("embedding_norm", &name, NORM_THREADS, NORM_THREADS * 8, Grid::Blocks(1));
        self.program.norms.push(norm.doing(gradient));
        let shared = (rows * EMBEDDING_COLUMNS + EMBEDDING_WARPS) * 4;
        let grid = Grid::Fixed([vocabulary.div_ceil(rows), columns]);
        let sum = self.kernel("embedding_sum", &name, EMBEDDING_WARPS * 32, shared, grid).doing(gradient);
        self.program.plain_sums.push(sum.clone());
        self.program.sums.push(sum);
    }

    fn finish(mut self) -> Program {
        self.constants(Constants::loss(self.plan, &self.places));
        let outputs = self.plan.edges[self.plan.edges.len() - 1].length;
        let loss = self.kernel("loss_gradient", "Loss", 64, 0, Grid::Items(1)).doing(work::numbers(2 * outputs));
        self.program.backward.push(loss);
        self.program.backward.reverse();
        let slots = self.program.sizes.slots;
        let factors = self.kernel("clip_factors", "", 64, 0, Grid::Items(1)).doing(work::numbers(2 * slots));
        self.program.factors.push(factors);
        // It is started for a step, not for its examples: parameters are read and written, sums are read.
        let update = self.kernel("update", "", UPDATE_THREADS, 0, Grid::ItemsOnce(update_items(self.plan)));
        self.program.update.push(update.doing(work::numbers(3 * self.plan.parameters)));
        self.program.source = source(self.plan, self.precision, slots, &self.structs, &self.kernels);
        self.program
    }
}
