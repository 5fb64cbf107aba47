//! The worker of the strategy `fused`.

fn main() {}
