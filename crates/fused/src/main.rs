//! The worker of the strategy `fused`; and with the arguments `plan MODEL`, what it would do for a model, in words.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use dpsgd_core::ModelSpec;
use dpsgd_fused::Fused;
use dpsgd_fused::plan::{Methods, Plan, Tiles};

const USAGE: &str = "usage: dpsgd-fused plan MODEL.json|MODEL.toml; without arguments it is a worker of dpsgd-bench";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let outcome = match arguments.as_slice() {
        [] => return dpsgd_protocol::worker_main::<Fused>(),
        [command, model] if command == OsStr::new("plan") => plan(Path::new(model)),
        _ => Err(USAGE.to_string()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("dpsgd-fused: {reason}");
            ExitCode::from(2)
        }
    }
}

/// Prints the plan for a model file.
fn plan(model: &Path) -> Result<(), String> {
    let model = ModelSpec::read(model).map_err(|error| error.to_string())?;
    let plan = Plan::new(&model, Methods::default()).map_err(|error| error.to_string())?;
    let text = plan.describe(&model, Tiles::of_this_machine()).to_string();
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever read the first lines and closed the pipe has seen enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}
