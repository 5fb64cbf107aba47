//! What a Python interpreter is and has.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;

use super::host::Host;

/// Minor versions of Python 3 that the locks of `peers/requirements` were made for.
pub const SUPPORTED: std::ops::RangeInclusive<u32> = 10..=14;

/// Asks without importing torch, which takes seconds. The working folder must not pass for a package.
const PROBE: &str = "\
import sys, json, importlib.util
sys.path = [p for p in sys.path if p]
spec = importlib.util.find_spec('torch')
folders = list(spec.submodule_search_locations or []) if spec else []
print(json.dumps({'executable': sys.executable, 'version': list(sys.version_info[:3]), 'torch': folders[0] if folders else None}))
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
}

impl Python {
    /// Starts `executable` and asks it. The error is one line.
    pub fn probe(host: &Host, executable: &Path) -> Result<Self, String> {
        let failed = |reason: String| format!("{} does not work: {reason}", executable.display());
        let output = host
            .command(executable)
            .args(["-c", PROBE])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(failed(said.trim().lines().last().unwrap_or("no message").to_string()));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
    }

    /// Whether the locks were made for its version.
    pub fn is_supported(&self) -> bool {
        self.version[0] == 3 && SUPPORTED.contains(&self.version[1])
    }

    /// `3.11.7`.
    pub fn version_text(&self) -> String {
        self.version.map(|number| number.to_string()).join(".")
    }
}
