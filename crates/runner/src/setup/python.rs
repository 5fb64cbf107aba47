//! What a Python interpreter is and has.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;

use super::host::Host;

/// Asks without importing torch, which takes seconds. The working folder must not pass for a package.
const PROBE: &str = "\
import sys, json, importlib.util
sys.path = [p for p in sys.path if p]
def folders(name):
    spec = importlib.util.find_spec(name)
    return list(spec.submodule_search_locations or []) if spec else []
torch = folders('torch')[0] if folders('torch') else None
print(json.dumps({'executable': sys.executable, 'version': list(sys.version_info[:3]), 'torch': torch, 'nvidia': folders('nvidia')}))
";

/// Prints those of its arguments that are no module here.
const MISSING: &str = "\
import sys, importlib.util
sys.path = [p for p in sys.path if p]
print(' '.join(name for name in sys.argv[1:] if importlib.util.find_spec(name) is None))
";

/// An interpreter.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Python {
    /// The interpreter itself, behind any shim.
    pub executable: PathBuf,
    /// Major, minor, patch.
    pub version: [u32; 3],
    /// The folder of its torch package, if it has one.
    pub torch: Option<PathBuf>,
    /// The folders of its packages of NVIDIA's libraries.
    #[serde(default)]
    pub nvidia: Vec<PathBuf>,
}

impl Python {
    /// Starts `executable` and asks it. The error is one line.
    pub fn probe(host: &Host, executable: &Path) -> Result<Self, String> {
        let answer = ask(host, executable, PROBE, &[])?;
        serde_json::from_slice(&answer).map_err(|error| does_not_work(executable, &error.to_string()))
    }

    /// Those of `modules` that `executable` does not have. The error is one line.
    pub fn missing_modules(host: &Host, executable: &Path, modules: &[String]) -> Result<Vec<String>, String> {
        let found = ask(host, executable, MISSING, modules)?;
        Ok(String::from_utf8_lossy(&found).split_whitespace().map(str::to_string).collect())
    }

    /// Whether it is Python 3 with one of these minor versions.
    pub fn is_among(&self, minor: &RangeInclusive<u32>) -> bool {
        self.version[0] == 3 && minor.contains(&self.version[1])
    }

    /// `3.11.7`.
    pub fn version_text(&self) -> String {
        self.version.map(|number| number.to_string()).join(".")
    }
}

/// What `program` prints.
fn ask(host: &Host, executable: &Path, program: &str, args: &[String]) -> Result<Vec<u8>, String> {
    let mut command = host.command(executable);
    command.args(["-c", program]).args(args).stdin(Stdio::null());
    let output = command.output().map_err(|error| does_not_work(executable, &error.to_string()))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(does_not_work(executable, said.trim().lines().last().unwrap_or("no message")))
}

fn does_not_work(executable: &Path, reason: &str) -> String {
    format!("{} does not work: {reason}", executable.display())
}
