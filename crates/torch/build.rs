//! Lets this crate's executables find libtorch, and notes its version.

include!("link.rs");

fn main() {
    if let Some(libraries) = link_libtorch() {
        println!("cargo:rustc-env=LIBTORCH_VERSION={}", version(&libraries));
    }
}

/// The version of the libtorch whose libraries lie in `lib`: a zip has it in `build-version`, a wheel in `version.py`.
fn version(lib: &std::path::Path) -> String {
    let root = lib.join("..");
    if let Ok(text) = std::fs::read_to_string(root.join("build-version")) {
        return text.trim().to_string();
    }
    let python = std::fs::read_to_string(root.join("version.py")).unwrap_or_default();
    let line = python.lines().find_map(|line| line.strip_prefix("__version__ = "));
    line.map_or("unknown".to_string(), |version| version.trim_matches(['\'', '"']).to_string())
}
