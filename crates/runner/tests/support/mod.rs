//! What the tests with faulty workers share: the executables, and which processes are left.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The runner.
pub const RUNNER: &str = env!("CARGO_BIN_EXE_runner");

/// An example of this package, which `cargo test` has built beside this test (but not with `--test NAME`).
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(path.is_file(), "no {}: `cargo test -p runner` builds it", path.display());
    path
}

/// A name that no other worker on this machine has.
pub fn unique_name(what: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{what}-{}-{count}", std::process::id())
}

/// The processes, other than zombies, with `name` among their arguments, as `pid: arguments`.
pub fn processes_of(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A zombie has no arguments. A process may end while we look.
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let arguments: Vec<_> = arguments.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        if pid != std::process::id() && arguments.iter().any(|argument| argument == name) {
            found.push(format!("{pid}: {}", arguments.join(" ")));
        }
    }
    found
}

/// Waits until `condition` holds; panics with `what` after `limit`.
pub fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < limit, "not after {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
