//! The program for a plan: its source text, and which kernels run in which order on which grids.
//!
//! The kernels are templates over structs of constants. What is written here is the structs, one for each operation, and the
//! kernels that instantiate the templates with them: so all sizes, strides and offsets are known to the compiler.

use std::fmt::Write;

use dpsgd_core::ModelSpec;
use dpsgd_core::cost::Cost;

use super::device::{DeviceError, Limits};
use super::plan::Plan;
use super::{resident, tiled};
use crate::plan::Methods;

/// The kernels' templates, in the order in which they need each other.
const TEMPLATES: [&str; 9] = [
    include_str!("kernels/product.cuh"),
    include_str!("kernels/map.cuh"),
    include_str!("kernels/norms.cuh"),
    include_str!("kernels/elementwise.cuh"),
    include_str!("kernels/embedding.cuh"),
    include_str!("kernels/lstm.cuh"),
    include_str!("kernels/resident.cuh"),
    include_str!("kernels/noise.cuh"),
    include_str!("kernels/update.cuh"),
];

/// How operands of products are rounded. Sums, norms, factors, noise and parameters are f32 or f64 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Not at all: f32 throughout.
    #[default]
    F32,
    /// To TF32, ten bits behind the point, in the products of tiles that tensor cores can take. Products whose results
    /// are bounded by a norm that a formula gives stay exact, so that the bound holds.
    Tf32,
}

/// What a program is made for, besides the model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Purpose {
    /// How norms and sums are found.
    pub methods: Methods,
    /// How products are computed.
    pub precision: Precision,
    /// Examples that a batch is expected to have.
    pub expected: usize,
}

/// Threads in a block of kernels whose threads take items one by one.
pub const ITEM_THREADS: usize = 256;
/// Threads in a block of the update.
pub const UPDATE_THREADS: usize = 64;

/// How many blocks of ChaCha the update draws.
pub fn update_items(plan: &Plan) -> usize {
    plan.parameters.div_ceil(256) * 16
}

/// What a kernel's definition begins with. One block on a multiprocessor is enough: else the compiler would rather spill
/// than use more registers.
pub fn head(name: &str, threads: usize) -> String {
    format!("extern \"C\" __global__ void __launch_bounds__({threads}, 1) kernel_{name}(const Step launch)")
}

/// What a kernel's body begins with: `s`, the step that it takes part in.
pub const COUNTED: &str = "const Step s = counted(launch);";

/// The text of a program: templates, structs of constants, kernels.
pub fn source(plan: &Plan, precision: Precision, slots: usize, structs: &str, kernels: &str) -> String {
    let mut source = include_str!("kernels/prelude.cuh").to_string();
    let Plan { parameters, kept, .. } = *plan;
    let constants = [("int PARAMETERS", parameters), ("i64 KEPT", kept), ("int SLOTS", slots)];
    for (name, value) in constants {
        writeln!(source, "constexpr {name} = {value};").expect("a string takes all");
    }
    source.push_str(include_str!("kernels/fma.cuh"));
    source.push_str(match precision {
        Precision::F32 => "typedef Fma Products;\n",
        Precision::Tf32 => concat!(include_str!("kernels/tensor.cuh"), "typedef Tensor Products;\n"),
    });
    TEMPLATES.iter().for_each(|template| source.push_str(template));
    source + structs + kernels
}

/// A kernel and its grid.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its place among [`Program::names`].
    pub index: usize,
    /// Threads in a block.
    pub threads: usize,
    /// Bytes of shared memory of a block.
    pub shared_bytes: usize,
    /// Blocks.
    pub grid: Grid,
    /// What it does for each example that it is started for; nothing, unless [`Kernel::doing`] says otherwise.
    pub work: Cost,
}

impl Kernel {
    /// The same, which does this for each example.
    pub fn doing(self, work: Cost) -> Self {
        Kernel { work, ..self }
    }
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
    /// Along x a block per example, but at most so many.
    AtMost(usize),
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
            Grid::AtMost(blocks) => [examples.min(blocks), 1, 1],
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
    /// In private steps, sums of what is not kept.
    pub sums: Vec<Kernel>,
    /// In plain steps, all sums.
    pub plain_sums: Vec<Kernel>,
    /// Whole examples, forward, backward and into the blocks' sums, instead of all of the above: see [`super::resident`].
    pub resident: Option<Kernel>,
    /// The sum of the blocks' sums.
    pub resident_sums: Vec<Kernel>,
    /// Noise and update.
    pub update: Vec<Kernel>,
    /// Examples whose outputs there is room for at once.
    pub room: usize,
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

impl Program {
    /// The program for a model on a device with these limits, and the plan that it carries out: whole examples in blocks
    /// where methods and precision leave the choice and an example fits, chunks otherwise.
    pub fn new(model: &ModelSpec, purpose: &Purpose, limits: &Limits) -> Result<(Program, Plan), DeviceError> {
        let Purpose { methods, precision, expected } = *purpose;
        if precision == Precision::Tf32 && !limits.tf32 {
            return Err(DeviceError::Unsupported(
                "no TF32: it takes a device of compute capability 8.0 or more".into(),
            ));
        }
        // Blocks that take whole examples have no tiles, and so nothing for tensor cores.
        if methods == Methods::Cheapest
            && precision == Precision::F32
            && limits.resident
            && let Some(resident) = resident::program(model, limits)?
        {
            return Ok(resident);
        }
        let plan = Plan::new(model, methods, expected, limits)?;
        Ok((tiled::program(&plan, precision, limits), plan))
    }
}
