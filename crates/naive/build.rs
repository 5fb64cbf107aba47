//! Lets this crate's executables find libtorch.

include!("../torch/link.rs");

fn main() {
    link_libtorch();
}
