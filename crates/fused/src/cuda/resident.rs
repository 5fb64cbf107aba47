//! One kernel that takes whole examples, each by one block, for networks that fit a block's shared memory; and the sum of the
//! blocks' sums. With the update, three kernels a step, however many layers there are.

use std::fmt::Write;

use dpsgd_core::ModelSpec;
use dpsgd_core::cost::Cost;

use super::constants::{Constants, places};
use super::device::{DeviceError, Limits};
use super::plan::{Map, Operation, Plan, Positions};
use super::program::{
    COUNTED, Grid, ITEM_THREADS, Kernel, Precision, Program, Sizes, UPDATE_THREADS, head, source, update_items,
};
use super::work;
use crate::plan::{Method, Methods};

/// As `RESIDENT_THREADS`.
const THREADS: usize = 512;
/// Most parameters, as every block has a sum of its own.
const MOST_PARAMETERS: usize = 1 << 17;
/// Examples whose outputs there is room for.
const ROOM: usize = 256;

/// The program, and the plan for one example at a time; `None` if an example does not fit, or has a layer that is not of
/// this kind.
pub fn program(model: &ModelSpec, limits: &Limits) -> Result<Option<(Program, Plan)>, DeviceError> {
    // The gradient of a layer with several positions is kept: it is added up in shared memory anyway.
    let one = Limits { largest_chunk: Some(1), ..*limits };
    let plan = Plan::new(model, Methods::Only(Method::Kept), 1, &one)?;
    let fits = |operation: &Operation| match operation {
        Operation::Map(map) => matches!(map.positions, Positions::Image { .. }),
        Operation::Pool(pool) => !pool.is_sequence,
        Operation::Relu { .. } => true,
        Operation::Recurrence(_) | Operation::Embedding(_) => false,
    };
    if !plan.operations.iter().all(fits) || plan.parameters > MOST_PARAMETERS {
        return Ok(None);
    }
    let mut writer = Writer::new(&plan);
    writer.operations();
    let memory = writer.memory(limits);
    let Some(memory) = memory else { return Ok(None) };
    let program = writer.finish(&memory, limits);
    Ok(Some((program, plan)))
}

/// Where things lie in shared memory, in numbers of four bytes.
struct Memory {
    gradients: usize,
    marks: usize,
    kept: usize,
    scratch: usize,
    /// The block's sum, if there is room for it; else it is in the device's memory.
    sum: Option<usize>,
    bytes: usize,
}

struct Writer<'a> {
    plan: &'a Plan,
    places: Vec<usize>,
    values: usize,
    marks: usize,
    structs: String,
    forward: Vec<String>,
    backward: Vec<String>,
    keep: Vec<String>,
    rank_one: Vec<String>,
    add: Vec<String>,
    /// Products of an example, and its inputs: all else of it is in shared memory. Sums are the next kernel's.
    work: Cost,
}

/// The largest of `sizes` with which there is work for most threads, or the smallest.
fn choose<T: Copy>(sizes: &[T], items: impl Fn(T) -> usize) -> T {
    let enough = sizes.iter().find(|size| items(**size) >= THREADS * 3 / 4);
    *enough.unwrap_or(&sizes[sizes.len() - 1])
}

impl<'a> Writer<'a> {
    fn new(plan: &'a Plan) -> Self {
        let (places, values) = places(plan);
        Writer {
            plan,
            places,
            values,
            marks: 0,
            structs: String::new(),
            forward: Vec::new(),
            backward: Vec::new(),
            keep: Vec::new(),
            rank_one: Vec::new(),
            add: Vec::new(),
            work: work::numbers(plan.edges[0].length),
        }
    }

    fn constants(&mut self, constants: Constants) {
        self.structs.push_str(&constants.finish());
    }

    fn operations(&mut self) {
        let plan = self.plan;
        self.constants(Constants::input(plan, &self.places));
        self.forward.push("gather<Input>(one, of_block());".into());
        for (i, operation) in plan.operations.iter().enumerate() {
            match operation {
                Operation::Map(map) => self.map(&format!("Map{i}"), map),
                Operation::Pool(pool) => {
                    let name = format!("Pool{i}");
                    self.constants(Constants::pool(&name, pool, plan, &self.places, self.marks));
                    if pool.is_max {
                        self.marks += plan.edges[pool.output].length;
                    }
                    self.pair("pool", &name, pool.input);
                }
                Operation::Relu { input, output } => {
                    let name = format!("Relu{i}");
                    self.constants(Constants::relu(&name, *input, *output, plan, &self.places));
                    self.pair("relu", &name, *input);
                }
                Operation::Recurrence(_) | Operation::Embedding(_) => unreachable!("these don't fit"),
            }
        }
        self.constants(Constants::loss(plan, &self.places));
        self.backward.push("loss_gradient<Loss>(one, of_block());".into());
        self.backward.reverse();
    }

    /// An operation without parameters, forward and, if its input needs gradients, backward.
    fn pair(&mut self, kind: &str, name: &str, input: usize) {
        self.forward.push(format!("{kind}_forward<{name}>(one, of_block());"));
        if self.plan.edges[input].has_gradient {
            self.backward.push(format!("{kind}_backward<{name}>(one, of_block());"));
        }
    }

    fn map(&mut self, name: &str, map: &Map) {
        let Positions::Image { from: [c, h, w], kernel, .. } = map.positions else { unreachable!("these don't fit") };
        let (t, p, columns) = (map.positions(), map.outputs, map.inputs + 1);
        let forward = choose(&[8, 4, 2, 1], |size| p.div_ceil(size) * t);
        let backward = choose(&[4, 2, 1], |size| c.div_ceil(size) * h * w);
        let [keep_p, keep_d] =
            choose(&[[4, 4], [4, 2], [2, 2], [2, 1], [1, 1]], |[a, b]| p.div_ceil(a) * columns.div_ceil(b));
        let is_kept = map.method == Method::Kept;
        let constants = Constants::map(name, map, self.plan, &self.places)
            .ints(&[("FORWARD_P", forward), ("BACKWARD_C", backward), ("KEEP_P", keep_p), ("KEEP_D", keep_d)])
            .bool("IS_KEPT", is_kept);
        self.constants(constants);
        let is_linear = t == 1 && h == 1 && w == 1 && (kernel.h, kernel.w) == (1, 1);
        self.forward.push(match is_linear {
            true => format!("resident_vector_forward<{name}>(one, (float*)scratch);"),
            false => format!("resident_forward<{name}>(one);"),
        });
        let mut products = 2.0;
        if self.plan.edges[map.input].has_gradient {
            self.backward.push(format!("resident_backward<{name}>(one);"));
            products += 1.0;
        }
        self.work.flops += products * work::product(map, self.plan).flops;
        match is_kept {
            true => self.keep.push(format!("squares += resident_keep<{name}>(one);")),
            false => self.rank_one.push(format!("norm += resident_rank_one<{name}>(one, scratch);")),
        }
        self.add.push(format!("resident_add<{name}>(one, factor);"));
    }

    fn memory(&self, limits: &Limits) -> Option<Memory> {
        let gradients = self.values;
        let marks = gradients + self.values;
        let kept = marks + self.marks;
        // Doubles, so at an even place.
        let scratch = (kept + self.plan.kept).next_multiple_of(4);
        let end = scratch + 2 * THREADS;
        let with_sum = end + self.plan.parameters;
        let most = limits.shared_bytes / 4;
        let sum = (with_sum <= most).then_some(end);
        let numbers = if sum.is_some() { with_sum } else { end };
        (numbers <= most).then_some(Memory { gradients, marks, kept, scratch, sum, bytes: 4 * numbers })
    }

    fn finish(self, memory: &Memory, limits: &Limits) -> Program {
        let name = "resident";
        let kernels = format!("{}{}", self.kernel(name, memory), one_line("resident_reduce", ITEM_THREADS))
            + &one_line("update", UPDATE_THREADS);
        let names = [name, "resident_reduce", "update"].map(|name| format!("kernel_{name}")).to_vec();
        let blocks = limits.multiprocessors;
        let grid = Grid::AtMost(blocks);
        let resident = Kernel { index: 0, threads: THREADS, shared_bytes: memory.bytes, grid, work: self.work };
        let parameters = self.plan.parameters;
        // Started for the blocks before, whose sums it reads; they wrote them.
        let (grid, work) = (Grid::ItemsOnce(parameters), work::numbers(2 * parameters));
        let reduce = Kernel { index: 1, threads: ITEM_THREADS, shared_bytes: 0, grid, work };
        let (grid, work) = (Grid::ItemsOnce(update_items(self.plan)), work::numbers(3 * parameters));
        let update = Kernel { index: 2, threads: UPDATE_THREADS, shared_bytes: 0, grid, work };
        let outputs = self.plan.edges[self.plan.edges.len() - 1].length;
        let sizes =
            Sizes { values: ROOM * outputs, partials: blocks * self.plan.parameters, slots: 1, ..Sizes::default() };
        Program {
            source: source(self.plan, Precision::F32, 1, &self.structs, &kernels),
            names,
            resident: Some(resident),
            resident_sums: vec![reduce],
            update: vec![update],
            room: ROOM,
            sizes,
            ..Program::default()
        }
    }

    /// The kernel: what each of its functions wrote, all threads have before the next begins.
    fn kernel(&self, name: &str, memory: &Memory) -> String {
        let edge = self.plan.edges.len() - 1;
        let (outputs, place) = (self.plan.edges[edge].length, self.places[edge]);
        let Memory { gradients, marks, kept, scratch, .. } = memory;
        let sum = match memory.sum {
            Some(sum) => format!("shared + {sum}"),
            None => "s.partials + (i64)blockIdx.x * PARAMETERS".into(),
        };
        let mut text = head(name, THREADS);
        let mut line = |indent: usize, line: &str| {
            writeln!(text, "{:indent$}{line}", "", indent = 4 * indent).expect("a string takes all");
        };
        line(0, "{");
        line(1, COUNTED);
        line(1, "if ((int)blockIdx.x >= s.examples) return;");
        line(1, "SHARED_MEMORY(shared);");
        line(1, "Step one = s;");
        line(1, "one.values = shared;");
        line(1, &format!("one.gradients = shared + {gradients};"));
        line(1, &format!("one.marks = (int*)(shared + {marks});"));
        line(1, &format!("one.kept = shared + {kept};"));
        line(1, &format!("double* scratch = (double*)(shared + {scratch});"));
        line(1, &format!("one.partials = {sum};"));
        line(1, "one.examples = 1;");
        line(1, "for (int i = threadIdx.x; i < PARAMETERS; i += blockDim.x) one.partials[i] = 0.0f;");
        line(1, "for (int example = blockIdx.x; example < s.examples; example += gridDim.x) {");
        line(2, "one.first = s.first + example;");
        line(2, "__syncthreads();");
        let waited = |line: &mut dyn FnMut(usize, &str), calls: &[String]| {
            calls.iter().for_each(|call| line(2, &format!("{call}\n        __syncthreads();")));
        };
        waited(&mut line, &self.forward);
        line(2, "if (s.forward_only) {");
        let copy = format!("s.values[(i64)example * {outputs} + i] = one.values[{place} + i];");
        line(3, &format!("for (int i = threadIdx.x; i < {outputs}; i += blockDim.x) {copy}"));
        line(3, "continue;");
        line(2, "}");
        waited(&mut line, &self.backward);
        line(2, "double squares = 0.0, norm = 0.0;");
        self.keep.iter().for_each(|call| line(2, call));
        line(2, "__syncthreads();");
        line(2, "if (s.is_private) {");
        line(3, "norm = block_sum(squares, scratch);");
        self.rank_one.iter().for_each(|call| line(3, call));
        line(2, "}");
        line(2, "float factor = resident_factor(one, norm);");
        line(2, "if (factor != 0.0f) {");
        self.add.iter().for_each(|call| line(3, call));
        line(2, "}");
        line(1, "}");
        if memory.sum.is_some() {
            line(1, "__syncthreads();");
            let copy = "s.partials[(i64)blockIdx.x * PARAMETERS + i] = one.partials[i];";
            line(1, &format!("for (int i = threadIdx.x; i < PARAMETERS; i += blockDim.x) {copy}"));
        }
        line(0, "}");
        text
    }
}

/// A kernel that does nothing but call a function of its name.
fn one_line(name: &str, threads: usize) -> String {
    format!("{} {{ {COUNTED} {name}(s); }}\n", head(name, threads))
}
