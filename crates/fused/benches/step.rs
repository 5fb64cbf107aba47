//! One step of `fused` on every built-in model, private and plain, with all the processors there are.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dpsgd_conformance::synthetic::Steps;
use dpsgd_core::{Mode, ModelSpec};
use dpsgd_fused::Fused;

const BATCH_SIZES: [usize; 2] = [64, 256];

fn steps(criterion: &mut Criterion) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    for name in ModelSpec::built_in_names() {
        let model = ModelSpec::built_in(name).expect("built in");
        for batch_size in BATCH_SIZES {
            let mut group = criterion.benchmark_group(format!("fused/{name}/B={batch_size}"));
            group.throughput(Throughput::Elements(batch_size as u64)).sample_size(20);
            for (way, mode) in [("private", Mode::Private), ("plain", Mode::NonPrivate)] {
                let mut steps = Steps::<Fused>::new(&model, batch_size, mode, None, threads).expect("loads");
                group.bench_function(way, |bencher| bencher.iter(|| steps.step().expect("steps")));
            }
            group.finish();
        }
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);
