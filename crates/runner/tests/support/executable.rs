//! Executables that tests make; unit tests include this file too.

use std::path::Path;
use std::process::Command;

/// Makes `file` an executable that runs `script`. Another process writes it: a handle of our own, open to write, could be
/// inherited by a process that another test forks meanwhile, and then the system refuses to run it ("text file busy").
pub fn write_executable(file: &Path, script: &str) {
    let write = "printf '#!/bin/sh\\n%s\\n' \"$2\" >\"$1\" && chmod 755 \"$1\"";
    let status = Command::new("sh").args(["-c", write, "sh"]).arg(file).arg(script).status().unwrap();
    assert!(status.success(), "{}", file.display());
}
