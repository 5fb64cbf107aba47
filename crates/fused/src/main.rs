//! The worker of the strategy `fused`; and with the arguments `plan MODEL`, what it would do for a model, in words; with
//! `profile MODEL BATCH_SIZE`, what the kernels of a step take on a CUDA device.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use dpsgd_core::ModelSpec;
use dpsgd_fused::Fused;
use dpsgd_fused::plan::{Methods, Plan, Tiles};

mod profile;

const USAGE: &str = "usage: dpsgd-fused plan MODEL.json|MODEL.toml, or dpsgd-fused profile MODEL BATCH_SIZE \
                     [private|non_private] [VARIANT] [cuda:N]; without arguments it is a worker of dpsgd-bench";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let outcome = match arguments.as_slice() {
        [] => return dpsgd_protocol::worker_main::<Fused>(),
        [command, model] if command == OsStr::new("plan") => plan(Path::new(model)),
        [command, words @ ..] if command == OsStr::new("profile") => profile::run(words),
        _ => Err(USAGE.to_string()),
    };
    match outcome.and_then(|text| print(&text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("dpsgd-fused: {reason}");
            ExitCode::from(2)
        }
    }
}

/// The plan for a model file.
fn plan(model: &Path) -> Result<String, String> {
    let model = ModelSpec::read(model).map_err(|error| error.to_string())?;
    let plan = Plan::new(&model, Methods::default()).map_err(|error| error.to_string())?;
    Ok(plan.describe(&model, Tiles::of_this_machine()).to_string())
}

fn print(text: &str) -> Result<(), String> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever read the first lines and closed the pipe has seen enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}
