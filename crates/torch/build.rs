//! Notes the version of libtorch, and lets this crate's own executables find it: link arguments don't propagate from
//! tch to those who depend on it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // torch-sys (`links = "tch"`) says where the libtorch lies that it was built against.
    let Ok(libtorch) = std::env::var("DEP_TCH_LIBTORCH_LIB") else { return };
    println!("cargo:rustc-env=LIBTORCH_VERSION={}", version(std::path::Path::new(&libtorch)));
    if std::env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "unix") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{libtorch}");
    }
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        // libtorch_cuda registers its kernels when it is loaded and exports nothing that we call, so a linker that
        // drops unneeded libraries would drop CUDA support.
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
        println!("cargo:rustc-link-arg=-Wl,-L{libtorch}");
        println!("cargo:rustc-link-arg=-ltorch");
        if std::path::Path::new(&libtorch).join("libtorch_cuda.so").exists() {
            println!("cargo:rustc-link-arg=-ltorch_cuda");
        }
        println!("cargo:rustc-link-arg=-Wl,--as-needed");
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
