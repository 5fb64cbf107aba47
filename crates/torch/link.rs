// Included by the build script of every crate with executables that use libtorch: link arguments don't propagate from
// tch to those who depend on it.

/// Lets this crate's executables find libtorch, and keeps its CUDA part. Returns the folder of its libraries; `None`
/// where torch-sys was built without one.
fn link_libtorch() -> Option<std::path::PathBuf> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=../torch/link.rs");
    // torch-sys (`links = "tch"`) says where the libtorch lies that it was built against.
    let libraries = std::path::PathBuf::from(std::env::var_os("DEP_TCH_LIBTORCH_LIB")?);
    let folder = libraries.display();
    if std::env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "unix") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
    }
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        // libtorch_cuda registers its kernels when it is loaded and exports nothing that we call, so a linker that
        // drops unneeded libraries would drop CUDA support.
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
        println!("cargo:rustc-link-arg=-Wl,-L{folder}");
        println!("cargo:rustc-link-arg=-ltorch");
        if libraries.join("libtorch_cuda.so").exists() {
            println!("cargo:rustc-link-arg=-ltorch_cuda");
        }
        println!("cargo:rustc-link-arg=-Wl,--as-needed");
    }
    Some(libraries)
}
