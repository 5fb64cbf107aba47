//! NVRTC where Python packages brought it: in a folder that no loader looks into.

use std::fs;
use std::path::{Path, PathBuf};

use super::host::Host;
use super::python::Python;

/// The folder of NVRTC in the packages of `--python` or, if none is named, of the environment of libtorch. None of them
/// having it is no error: a CUDA toolkit may.
pub fn folder(host: &Host) -> Option<PathBuf> {
    let nvidia = match &host.python {
        Some(python) => Python::probe(host, python).ok()?.nvidia,
        None => {
            let versions = subfolders(&host.envs.join("torch/lib")).into_iter();
            versions.map(|version| version.join("site-packages/nvidia")).collect()
        }
    };
    // `nvidia/cu13`, or `nvidia/cuda_nvrtc` of CUDA 12: the later one first.
    let mut folders = nvidia.iter().flat_map(|nvidia| subfolders(nvidia));
    folders.find_map(|of_cuda| Some(of_cuda.join("lib")).filter(|lib| has_nvrtc(lib)))
}

fn has_nvrtc(folder: &Path) -> bool {
    ["libnvrtc.so.13", "libnvrtc.so.12"].iter().any(|name| folder.join(name).exists())
}

/// In the order of their names.
fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}
