//! Every kernel of the built-in models and of odd ones, compiled by NVRTC for several architectures. Needs no device.

use std::path::{Path, PathBuf};

use dpsgd_conformance::odd_models;
use dpsgd_core::ModelSpec;
use dpsgd_fused::cuda::{
    Cache, Limits, Precision, Program, Purpose, compile, compile_with_ptx, compiler_version, load_compiler,
};
use dpsgd_fused::plan::{Method, Methods};

/// Whether there is NVRTC: on the library path, or in this checkout's environments. Says if not.
fn is_available() -> bool {
    let environments = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.envs");
    let folders = std::fs::read_dir(&environments).into_iter().flatten().flatten().flat_map(|environment| {
        let versions = std::fs::read_dir(environment.path().join("lib")).into_iter().flatten().flatten();
        versions.map(|version| version.path().join("site-packages/nvidia/cu13/lib/libnvrtc.so.13"))
    });
    let found = load_compiler(&folders.collect::<Vec<PathBuf>>());
    if !found {
        assert!(std::env::var_os("DPSGD_NEEDS_NVRTC").is_none(), "DPSGD_NEEDS_NVRTC is set, and there is no NVRTC");
        println!("skipped: no NVRTC");
    }
    found
}

/// As an A100 and as an H100.
fn limits(architecture: &str) -> Limits {
    let (shared_bytes, multiprocessors) = if architecture == "sm_80" { (166_912, 108) } else { (232_448, 132) };
    let (cache_bytes, memory_bytes) = (50 << 20, 80 << 30);
    Limits {
        shared_bytes,
        multiprocessors,
        cache_bytes,
        memory_bytes,
        tf32: true,
        records: true,
        resident: true,
        largest_chunk: None,
    }
}

/// For batches of 256, unless it says otherwise.
fn program(model: &ModelSpec, methods: Methods, precision: Precision, limits: &Limits) -> Program {
    program_for(256, model, methods, precision, limits)
}

fn program_for(expected: usize, model: &ModelSpec, methods: Methods, precision: Precision, limits: &Limits) -> Program {
    Program::new(model, &Purpose { methods, precision, expected }, limits).expect("a program").0
}

/// What the compiler makes of a program, or what it made of it when this test ran before: its report, and the PTX.
fn compiled(program: &Program, architecture: &str) -> (String, String) {
    // With all that the options depend on.
    let parts = [architecture, include_str!("../../src/cuda/compile.rs")].map(str::to_string);
    let key = Cache::key(&program.source, &parts, &compiler_version().expect("NVRTC"));
    let cache = Cache::at(Path::new(env!("CARGO_TARGET_TMPDIR")).join("nvrtc"));
    let known = cache.get(&key).and_then(|bytes| String::from_utf8(bytes).ok());
    let text = known.unwrap_or_else(|| {
        let (compiled, ptx) = compile_with_ptx(&program.source, architecture).unwrap_or_else(|error| panic!("{error}"));
        assert!(!compiled.cubin.is_empty());
        let text = format!("{}\0{}", compiled.log, ptx);
        cache.put(&key, text.as_bytes()).expect("stored");
        text
    });
    let (log, ptx) = text.split_once('\0').expect("two parts");
    (log.to_string(), ptx.to_string())
}

/// The lines of the assembler's report that speak of spills or of a stack.
fn spills(log: &str) -> Vec<&str> {
    log.lines()
        .filter(|line| line.contains("bytes stack frame"))
        .filter(|line| !line.contains(" 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"))
        .collect()
}

#[test]
fn spills_are_told_from_a_frame_of_none() {
    let none = "ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads";
    let [frame, stores] = ["40 bytes stack frame, 0", "0 bytes stack frame, 8"]
        .map(|begin| format!("ptxas         .     {begin} bytes spill stores, 0 bytes spill loads"));
    let log = format!("ptxas info: a\n{none}\n{frame}\nptxas info: b\n{stores}\n");
    assert_eq!(spills(&log), [frame, stores]);
}

/// Compiles all kernels of these models, and looks for spills, and for tensor cores where they should be.
fn check(names: impl IntoIterator<Item = &'static str>, architecture: &str, precision: Precision) {
    if !is_available() {
        return;
    }
    for model in names.into_iter().map(|name| ModelSpec::built_in(name).expect("built in")) {
        let program = program(&model, Methods::Cheapest, precision, &limits(architecture));
        let (log, ptx) = compiled(&program, architecture);
        for name in &program.names {
            let said = log.contains(&format!("'{name}'"));
            assert!(said, "{}: the assembler says nothing of {name}:\n{log}", model.name);
        }
        let spills = spills(&log);
        assert!(spills.is_empty(), "{} for {architecture}: {spills:?}\n{log}", model.name);
        let words = ["mma.", "tf32"].map(|word| ptx.contains(word));
        assert_eq!(words, [precision == Precision::Tf32; 2], "{} for {architecture}", model.name);
        // The products of all layers: forward, and of the weights.
        if precision == Precision::Tf32 {
            let entries = ptx.split(".entry ").skip(1);
            let with = entries.filter(|entry| entry.contains("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"));
            let with: Vec<&str> = with.filter_map(|entry| entry.split('(').next()).collect();
            let products = ["map_forward", "map_backward", "map_keep", "plain_sum"];
            let wanted = program.names.iter().filter(|name| products.iter().any(|product| name.ends_with(product)));
            assert_eq!(with.len(), wanted.clone().count(), "{with:?}");
            assert!(wanted.clone().all(|name| with.contains(&name.as_str())), "{with:?}");
        }
    }
}

/// Built-in models that between them have every kind of product.
const LAYERS: [&str; 3] = ["mnist-cnn", "cifar10-cnn", "lstm"];

#[test]
fn every_kernel_compiles_for_sm_80_and_spills_nothing() {
    check(ModelSpec::built_in_names(), "sm_80", Precision::F32);
}

#[test]
fn every_kernel_compiles_for_sm_90_and_spills_nothing() {
    check(ModelSpec::built_in_names(), "sm_90", Precision::F32);
}

#[test]
fn kernels_for_other_batches_and_of_every_method_spill_nothing() {
    if !is_available() {
        return;
    }
    let of_64 = ModelSpec::built_in_names().map(|name| (name, 64, Methods::Cheapest));
    let methods = [Method::Kept, Method::Ghost].map(Methods::Only);
    let of_methods = LAYERS.into_iter().flat_map(|name| methods.map(|methods| (name, 256, methods)));
    for (name, expected, methods) in of_64.chain(of_methods) {
        let model = ModelSpec::built_in(name).expect("built in");
        let (log, _) = compiled(&program_for(expected, &model, methods, Precision::F32, &limits("sm_90")), "sm_90");
        let spills = spills(&log);
        assert!(spills.is_empty(), "{name}, {methods:?}, batches of {expected}: {spills:?}\n{log}");
    }
}

#[test]
fn every_kernel_compiles_for_sm_90a_and_spills_nothing() {
    check(ModelSpec::built_in_names(), "sm_90a", Precision::F32);
}

#[test]
fn products_in_tf32_compile_for_sm_80_and_spills_nothing() {
    check(LAYERS, "sm_80", Precision::Tf32);
}

#[test]
fn every_kernel_in_tf32_compiles_for_sm_90_and_spills_nothing() {
    check(ModelSpec::built_in_names(), "sm_90", Precision::Tf32);
}

#[test]
fn products_in_tf32_compile_for_sm_90a_and_spills_nothing() {
    check(LAYERS, "sm_90a", Precision::Tf32);
}

#[test]
fn kernels_of_odd_models_and_of_every_method_compile() {
    if !is_available() {
        return;
    }
    for model in odd_models().into_iter().filter(|model| ["uneven windows", "two LSTMs"].contains(&&*model.name)) {
        for method in [Method::Kept, Method::Ghost] {
            let program = program(&model, Methods::Only(method), Precision::F32, &limits("sm_90"));
            let (log, _) = compiled(&program, "sm_90");
            assert!(spills(&log).is_empty(), "{}: {log}", model.name);
        }
    }
}

#[test]
fn an_error_of_the_compiler_says_where() {
    if !is_available() {
        return;
    }
    let error = compile("__global__ void broken() { nothing(); }", "sm_90").err().expect("an error").to_string();
    assert!(error.contains("nothing") && error.contains("fused.cu(1)"), "{error}");
}

#[test]
fn a_runner_that_times_loads_says_where_the_cache_is_then_the_user_does() {
    let of = |set: &[(&str, &str)]| {
        let find = |name: &str| set.iter().find(|(found, _)| *found == name).map(|(_, value)| (*value).into());
        Cache::of(find)
    };
    let user = [("DPSGD_FUSED_CACHE", "/own"), ("XDG_CACHE_HOME", "/caches"), ("HOME", "/home")];
    assert_eq!(of(&[&[("DPSGD_KERNEL_CACHE", "/row")], &user[..]].concat()), Some(Cache::at("/row")));
    assert_eq!(of(&user), Some(Cache::at("/own")));
    assert_eq!(of(&user[1..]), Some(Cache::at("/caches/dpsgd-fused")));
    assert_eq!(of(&user[2..]), Some(Cache::at("/home/.cache/dpsgd-fused")));
    assert_eq!(of(&[]), None);
    assert_eq!(of(&[("DPSGD_FUSED_CACHE", ""), user[2]]), None);
}

#[test]
fn what_is_cached_is_found_by_what_it_was_made_of() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cache-{}", std::process::id()));
    let cache = Cache::at(&folder);
    let options = |architecture: &str| vec!["--std=c++17".to_string(), architecture.to_string()];
    let key = Cache::key("source", &options("sm_90"), "13.0");
    assert_eq!(cache.get(&key), None);
    cache.put(&key, b"code").expect("stored");
    assert_eq!(cache.get(&key).as_deref(), Some(&b"code"[..]));
    let others = [
        Cache::key("another source", &options("sm_90"), "13.0"),
        Cache::key("source", &options("sm_80"), "13.0"),
        Cache::key("source", &options("sm_90"), "13.1"),
    ];
    others.iter().for_each(|other| assert_eq!(cache.get(other), None));
    cache.put(&key, b"other code").expect("replaced");
    assert_eq!(cache.get(&key).as_deref(), Some(&b"other code"[..]));
    let files = std::fs::read_dir(&folder).expect("the folder").count();
    assert_eq!(files, 1, "a file half written was left");
    std::fs::remove_dir_all(&folder).expect("its own folder");
}
