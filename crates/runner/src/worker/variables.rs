//! The environment variables of a worker: a list of the user's that are let through, and ours.
//!
//! Frameworks read dozens of variables. One that a user has set for other work (`XLA_FLAGS`, `JAX_DISABLE_JIT`,
//! `OMP_PROC_BIND`, `GOMP_CPU_AFFINITY`, `TORCHDYNAMO_DISABLE`, `PYTHONPATH`, `LD_PRELOAD`, ...) would change what a row
//! measures, and nothing in the results would show it. So a worker starts from nothing but this list.

use std::collections::BTreeMap;

/// Says where the user is at home, and how to write to them: no contender computes anything else for it.
const PERSONAL: [&str; 7] = ["HOME", "USER", "LOGNAME", "PWD", "TMPDIR", "TZ", "LANG"];

/// What workers are found and can run by. Kept in the results file.
const LET_THROUGH: [&str; 9] = [
    "PATH",
    // Where the libraries of a GPU, and of libtorch beside a bundle, are.
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "CUDA_HOME",
    "CUDA_PATH",
    // Some processors in the cloud are not what older OpenBLAS builds take them for, and compute wrong results.
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
];

/// The variables by which the libraries in use are told how many threads to compute with. Every contender gets all of
/// them. JAX takes the size of its pool from `PJRT_NPROC`, or else from the affinity.
const THREADS: [&str; 8] = [
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "PJRT_NPROC",
];

/// glibc keeps what is freed, up to this many bytes, and takes no block from the system for itself alone: else the large
/// tensors of a step are given back and their pages cleared anew in every step, or not, as earlier sizes had it.
const KEEPING: [(&str, &str); 2] = [("MALLOC_MMAP_MAX_", "0"), ("MALLOC_TRIM_THRESHOLD_", "17179869184")];

/// How a worker's memory is managed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocator {
    /// As glibc does by itself: what a row's memory is measured with.
    Default,
    /// What is freed is kept: what a row's time is measured with.
    Keeping,
}

/// The user's variables that every worker gets.
pub(super) fn of_user() -> impl Iterator<Item = (&'static str, String)> {
    PERSONAL.into_iter().chain(LET_THROUGH).filter_map(|name| Some((name, std::env::var(name).ok()?)))
}

/// Those of them that the results file keeps.
pub fn recorded() -> BTreeMap<String, String> {
    LET_THROUGH.into_iter().filter_map(|name| Some((name.to_string(), std::env::var(name).ok()?))).collect()
}

/// Ours, the same for every contender.
pub(super) fn of_runner(threads: usize, allocator: Allocator) -> impl Iterator<Item = (&'static str, String)> {
    let fixed = [
        // f32 is to be f32 on a GPU: NVIDIA's libraries then multiply no matrices with ten bits of each number.
        ("NVIDIA_TF32_OVERRIDE", "0"),
        // CUDA's numbering of devices then is NVML's, so that memory is read from the device in use.
        ("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
    ];
    let keeping = if allocator == Allocator::Keeping { KEEPING.as_slice() } else { &[] };
    let threads = THREADS.into_iter().map(move |name| (name, threads.to_string()));
    fixed.into_iter().chain(keeping.iter().copied()).map(|(name, value)| (name, value.to_string())).chain(threads)
}
