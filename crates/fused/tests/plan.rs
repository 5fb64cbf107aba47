//! The plan as it is printed, and whether what it says of memory is true.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::PathBuf;
use std::process::{Command, Output};

use dpsgd_conformance::{odd_models, synthetic};
use dpsgd_core::{Layer, Mode, ModelInput, ModelSpec, Strategy, cost};
use dpsgd_fused::Fused;
use dpsgd_fused::plan::{Method, Methods, Operation, Plan, Tiles};

/// Counts the bytes that a thread has allocated and not freed.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: all is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.set(HELD.get() + layout.size() as isize);
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.set(HELD.get() - layout.size() as isize);
        // SAFETY: as the caller says.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn built_in_models() -> Vec<ModelSpec> {
    ModelSpec::built_in_names().map(|name| ModelSpec::built_in(name).expect("built in")).collect()
}

fn all_models() -> Vec<ModelSpec> {
    built_in_models().into_iter().chain(odd_models()).collect()
}

fn text(model: &ModelSpec) -> String {
    let plan = Plan::new(model, Methods::default()).expect("a valid model");
    plan.describe(model, Tiles::of_this_machine()).to_string()
}

/// The line of the operation that begins with layer `first`.
fn line<'a>(text: &'a str, first: &str) -> &'a str {
    let begins = |line: &&str| line.split(' ').next().is_some_and(|numbers| numbers.split('-').next() == Some(first));
    text.lines().skip(2).find(begins).unwrap_or_else(|| panic!("no operation begins with layer {first}:\n{text}"))
}

#[test]
fn every_layer_is_in_one_line_in_order_with_its_kind() {
    for model in all_models() {
        let text = text(&model);
        let plan = Plan::new(&model, Methods::default()).unwrap();
        let lines: Vec<&str> = text.lines().skip(3).take(plan.operations.len()).collect();
        let kinds: Vec<&str> = lines.iter().flat_map(|line| line.split(' ').nth(1).unwrap().split('+')).collect();
        assert_eq!(kinds, model.layers.iter().map(Layer::kind).collect::<Vec<_>>(), "{}:\n{text}", model.name);
        let mut next = 0;
        for line in lines {
            let (numbers, _) = line.split_once(' ').unwrap();
            let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
            assert_eq!(first.parse::<usize>().unwrap(), next, "{}:\n{text}", model.name);
            next = last.parse::<usize>().unwrap() + 1;
        }
        assert_eq!(next, model.layers.len());
    }
}

#[test]
fn a_network_whose_values_cant_be_addressed_is_an_error_that_names_the_layer() {
    let mut model = ModelSpec::built_in("lstm").unwrap();
    model.input = ModelInput::Tokens { time: 1 << 20, vocabulary: 10_004 };
    let error = Plan::new(&model, Methods::default()).err().expect("too large").to_string();
    let named = "model `lstm`: layer 1: 6710886656 numbers";
    assert!(error.starts_with(named) && error.contains("4294967295"), "{error}");
}

#[test]
fn parameters_shapes_and_tiles_are_those_of_the_model_and_the_machine() {
    let tiles = Tiles::of_this_machine();
    for model in built_in_models() {
        let text = text(&model);
        let parameters: usize = model.params().iter().map(|param| param.shape.iter().product::<usize>()).sum();
        let shown = text.lines().next().unwrap().replace(',', "");
        assert!(shown.starts_with(&format!("{}: {parameters} parameters", model.name)), "{text}");
        let expected =
            format!("{}: tiles of up to {} rows x {} outputs", tiles.isa, tiles.rows, tiles.vectors * tiles.lanes);
        assert!(text.lines().nth(1).unwrap().starts_with(&expected), "{text}");
        for shape in model.shapes().unwrap() {
            let flattened = text.contains(&shape.to_string());
            assert!(flattened || text.contains("+"), "{shape} is neither shown nor within an operation:\n{text}");
        }
    }
}

#[test]
fn the_methods_are_those_with_the_fewest_flops_and_the_counts_are_the_cost_models() {
    for model in built_in_models() {
        let (text, plan) = (text(&model), Plan::new(&model, Methods::default()).unwrap());
        let costs = cost::layers(&model, 1, Mode::Private).unwrap();
        for operation in &plan.operations {
            let Operation::Affine(affine) = operation else { continue };
            let (choice, line) = (affine.choice(), line(&text, &affine.layer.to_string()));
            let (flops, name) = match affine.method {
                Method::RankOne => (choice.rank_one(), "rank-one"),
                Method::Ghost => (choice.ghost(), "ghost"),
                Method::Kept => (choice.kept(), "kept"),
            };
            assert_eq!(flops as f64, costs[1 + affine.layer].privacy, "{}: {line}", model.name);
            assert!(line.contains(&format!(" {name}: ")), "{line}");
            assert!(
                line.contains(&format!("T={} d={} p={}", choice.positions, choice.inputs, choice.outputs)),
                "{line}"
            );
        }
    }
}

#[test]
fn the_plan_of_mnist_cnn_reads_as_a_person_would_write_it() {
    let model = ModelSpec::built_in("mnist-cnn").unwrap();
    let text = text(&model);
    let first = line(&text, "0").split_whitespace().collect::<Vec<_>>().join(" ");
    let expected = "0-1 conv2d+relu image [1, 28, 28] -> image [16, 14, 14] T=196 d=64 p=16 \
                    kept: 4pd = 4,096, T²(p+d) = 3,073,280";
    assert_eq!(first, expected);
    assert!(line(&text, "2").contains("max_pool2d"), "{text}");
    assert!(line(&text, "7").contains("rank-one: 2(p+d) = 1,088"), "{text}");
    // 16 (64 + 1) + 32 (256 + 1) numbers of the two convolutions.
    assert!(text.contains(&format!("kept gradients of one example {} ", "37,056")), "{text}");
    assert!(text.contains("26,010 parameters"), "{text}");
}

#[test]
fn an_embedding_is_sparse_rows_and_an_lstm_keeps() {
    for (name, layer, method) in [
        ("embedding", "0", "sparse rows: one vector"),
        ("lstm", "0", "sparse rows: merged by token"),
        ("lstm", "1", "kept: 4pd = 320,000"),
        ("cifar10-cnn", "15", "ghost: T²(p+d) = 360,448"),
    ] {
        let text = text(&ModelSpec::built_in(name).unwrap());
        assert!(line(&text, layer).contains(method), "{name}:\n{text}");
    }
}

/// A thread more at load takes as much memory more as the plan says that a thread takes, but for small change.
#[test]
fn a_thread_allocates_what_the_plan_says_and_nothing_per_example_of_a_batch() {
    let held = |model: &ModelSpec, threads: usize| {
        let mut job = synthetic::job(model, 2, Mode::Private, None);
        job.settings.threads = threads;
        let before = HELD.get();
        let fused = Fused::load(job).expect("loads");
        (HELD.get() - before, fused)
    };
    for model in all_models() {
        let ((two, fused), (three, _)) = (held(&model, 2), held(&model, 3));
        let scratch = fused.plan().scratch();
        // Memory for the division by outputs is of all threads or, where they never divide like that, of none.
        let divided = |threads: usize| match fused.plan().most_by_outputs(threads) {
            0 => 0,
            _ => (threads * scratch.by_outputs) as isize,
        };
        let scratch = (scratch.total() - scratch.by_outputs) as isize + divided(3) - divided(2);
        let found = three - two;
        // Norms, factors and positions of a block, the rounding of buffers to cache lines, the thread itself.
        let positions = fused.plan().operations.iter().map(|operation| match operation {
            Operation::Affine(affine) => 8 * affine.positions.len() as isize,
            _ => 0,
        });
        let change = 16_384 + positions.max().unwrap_or(0);
        let name = &model.name;
        assert!(found >= scratch && found <= scratch + change, "{name}: {found} more, {scratch} said, change {change}");
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dpsgd-fused")).args(arguments).output().expect("starts")
}

#[test]
fn the_worker_prints_the_plan_of_a_model_file_in_json_or_toml() {
    let model = ModelSpec::built_in("cifar10-cnn").unwrap();
    let json = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cifar10-cnn.json");
    std::fs::write(&json, serde_json::to_vec(&model).unwrap()).unwrap();
    let toml = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bench-configs/models/cifar10-cnn.toml");
    for file in [json.to_str().unwrap(), toml] {
        let output = run(&["plan", file]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), text(&model));
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn bad_usage_is_one_line_on_stderr_and_exit_status_2() {
    let missing = run(&["plan", "no-such-model.json"]);
    for (output, expected) in [
        (run(&["plan"]), "usage: dpsgd-fused plan MODEL"),
        (run(&["paln", "model.json"]), "usage: dpsgd-fused plan MODEL"),
        (run(&["plan", "a.json", "b.json"]), "usage: dpsgd-fused plan MODEL"),
        (run(&["profile", "lstm"]), "BATCH_SIZE is missing"),
        (run(&["profile", "no-such.toml", "64"]), "model `no-such.toml`: neither a file nor built in"),
        (run(&["profile", "lstm", "64", "fast"]), "`fast`: must be private, non_private, a variant of fused or cuda:N"),
        (run(&["profile", "lstm", "64", "cuda:99"]), "no CUDA device: cuda:99"),
        (missing, "no-such-model.json"),
    ] {
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains(expected) && output.stdout.is_empty(), "{said}");
    }
}
