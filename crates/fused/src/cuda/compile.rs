//! NVRTC: from source to machine code of one architecture.

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use cudarc::nvrtc::{result, sys};

use super::device::DeviceError;

/// What NVRTC makes of a program.
pub struct Compiled {
    /// Machine code.
    pub cubin: Vec<u8>,
    /// What the compiler and the assembler say, with registers and spills of every kernel.
    pub log: String,
}

/// Options besides the architecture. Products and sums are contracted to fused multiply-adds, as by default; nothing is
/// approximated. That a program does not use all constants (177) is nothing to say.
const OPTIONS: [&str; 4] = ["--std=c++17", "--fmad=true", "--ptxas-options=-v", "--diag-suppress=177"];

/// All options for an architecture such as `sm_90`.
pub fn options(architecture: &str) -> Vec<String> {
    OPTIONS.iter().map(|option| option.to_string()).chain([format!("--gpu-architecture={architecture}")]).collect()
}

fn failed(what: &str, error: result::NvrtcError) -> DeviceError {
    DeviceError::Failed(format!("NVRTC: {what}: {error}"))
}

/// Compiles `source` for an architecture such as `sm_90`. Needs no device.
pub fn compile(source: &str, architecture: &str) -> Result<Compiled, DeviceError> {
    compile_program(source, architecture).map(|(compiled, _)| compiled)
}

/// The same, with the PTX that the assembler made the machine code of: only tests read that.
pub fn compile_with_ptx(source: &str, architecture: &str) -> Result<(Compiled, String), DeviceError> {
    let (compiled, program) = compile_program(source, architecture)?;
    // SAFETY: the program is compiled.
    let ptx = unsafe { result::get_ptx(program.0) }.map_err(|error| failed("read the PTX", error))?;
    // SAFETY: the text ends in a NUL.
    let ptx = unsafe { CStr::from_ptr(ptx.as_ptr()) }.to_string_lossy().into_owned();
    Ok((compiled, ptx))
}

fn compile_program(source: &str, architecture: &str) -> Result<(Compiled, Owned), DeviceError> {
    version()?;
    let source = CString::new(source).expect("no source holds a NUL");
    let program = result::create_program(&source, Some(c"fused.cu")).map_err(|error| failed("begin", error))?;
    let program = Owned(program);
    // SAFETY: the program is alive until the end of this function.
    let outcome = unsafe { result::compile_program(program.0, &options(architecture)) };
    // SAFETY: as before.
    let log = unsafe { result::get_program_log(program.0) }.map_err(|error| failed("read the log", error))?;
    // SAFETY: the log ends in a NUL.
    let log = unsafe { CStr::from_ptr(log.as_ptr()) }.to_string_lossy().into_owned();
    outcome.map_err(|error| DeviceError::Failed(format!("NVRTC: compile for {architecture}: {error}:\n{log}")))?;
    let mut size = 0;
    // SAFETY: the program is compiled; `size` is a place for a size.
    unsafe { sys::nvrtcGetCUBINSize(program.0, &mut size) }.result().map_err(|error| failed("size", error))?;
    let mut cubin = vec![0u8; size];
    // SAFETY: `cubin` has room for as many bytes as NVRTC asked for.
    unsafe { sys::nvrtcGetCUBIN(program.0, cubin.as_mut_ptr().cast()) }
        .result()
        .map_err(|error| failed("read the code", error))?;
    Ok((Compiled { cubin, log }, program))
}

/// A program of NVRTC, destroyed in the end.
struct Owned(sys::nvrtcProgram);

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: it was created, and is used by nobody any more. That it can't be destroyed would only leak memory.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

/// NVRTC's version, such as `13.0`; an error that says what to do if there is none.
pub fn version() -> Result<String, DeviceError> {
    if !is_present() {
        return Err(DeviceError::Unsupported(
            "no NVRTC: libnvrtc.so.13 or .12 is not among the libraries; it comes with CUDA and with `pip install \
             nvidia-cuda-nvrtc`; name its folder in LD_LIBRARY_PATH"
                .into(),
        ));
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is there; the arguments are places for two numbers.
    unsafe { sys::nvrtcVersion(&mut major, &mut minor) }
        .result()
        .map_err(|error| DeviceError::Failed(format!("NVRTC: version: {error}")))?;
    Ok(format!("{major}.{minor}"))
}

/// Whether NVRTC can be loaded: asked first, because its calls panic without.
fn is_present() -> bool {
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let folders = homes.chain([PathBuf::from("/usr/local/cuda")]).map(|home| home.join("lib64"));
    let files = folders.flat_map(|folder| ["libnvrtc.so.13", "libnvrtc.so.12"].map(|name| folder.join(name)));
    load_compiler(&files.collect::<Vec<PathBuf>>())
}

/// Loads NVRTC for as long as the process lives: from the library path, or else one of `files`. Gives whether it is there.
pub fn load_compiler(files: &[PathBuf]) -> bool {
    static PRESENT: AtomicBool = AtomicBool::new(false);
    if PRESENT.load(Ordering::Relaxed) {
        return true;
    }
    // SAFETY: loading NVRTC has no effect but that it is loaded.
    let is_found = unsafe { sys::is_culib_present() };
    let is_loaded = is_found || files.iter().any(|file| load_with_builtins(file));
    PRESENT.store(is_loaded, Ordering::Relaxed);
    is_loaded
}

/// Loads a library, and those beside it that NVRTC looks for by their names alone. One that is loaded is found by its name.
fn load_with_builtins(file: &Path) -> bool {
    let builtins = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with("libnvrtc-builtins.so.")
    };
    let beside = file.parent().and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    let beside = beside.map(|entry| entry.path()).filter(builtins);
    // SAFETY: these libraries do nothing when they are loaded.
    let load = |path: &Path| unsafe { libloading::Library::new(path) }.map(std::mem::forget).is_ok();
    if !file.exists() {
        return false;
    }
    // If they can't be loaded, NVRTC says so when it needs them.
    beside.for_each(|path| {
        load(&path);
    });
    load(file)
}
