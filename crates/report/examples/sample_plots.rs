//! Draws plots of made-up results, to look at: `cargo run -p dpsgd-report --example sample_plots -- DIR`.

#[path = "../tests/sample/mod.rs"]
mod sample;

use std::path::PathBuf;
use std::time::Instant;

use dpsgd_core::Mode;
use dpsgd_protocol::results::Status;
use sample::{Contender, Sample};

fn main() {
    let Some(dir) = std::env::args().nth(1).map(PathBuf::from) else {
        eprintln!("usage: sample_plots DIR");
        std::process::exit(2);
    };
    let failing = |name: &str| Contender::failing(name, Status::OutOfMemory, "killed at 24 GiB; try a smaller batch");
    let samples = [
        ("typical", Sample::typical()),
        ("many", Sample::many(25)),
        ("gpu", Sample { gpu: true, batch_sizes: vec![256], ..Sample::typical() }),
        (
            "one",
            Sample {
                contenders: vec![Contender::new("fused", 0.08, 1.15, 0.0, 60.0)],
                batch_sizes: vec![64],
                modes: vec![Mode::Private],
                processes: 1,
                epochs: 1,
                ..Sample::typical()
            },
        ),
        ("failed", Sample { contenders: vec![failing("jax:jit+vmap"), failing("opacus:hooks")], ..Sample::typical() }),
        ("none", Sample { contenders: Vec::new(), ..Sample::typical() }),
        ("plain", Sample { modes: vec![Mode::NonPrivate], ..Sample::typical() }),
    ];
    for (name, sample) in samples {
        let results = sample.results();
        let started = Instant::now();
        let paths = dpsgd_report::plots(&results, &dir.join(name)).expect("the folder can be written");
        println!("\n{}", dpsgd_report::table(&results));
        std::fs::write(dir.join(name).join("tables.md"), dpsgd_report::markdown(&results)).expect("it can be written");
        println!("{name}: {} files in {:.1} s", paths.len(), started.elapsed().as_secs_f64());
    }
}
