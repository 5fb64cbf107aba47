//! One step of `fused` on every built-in model, private and plain, with all the processors there are.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dpsgd_conformance::synthetic::Steps;
use dpsgd_core::{Mode, ModelSpec};
use dpsgd_fused::Fused;

const BATCH_SIZE: usize = 64;

fn steps(criterion: &mut Criterion) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    for name in ModelSpec::built_in_names() {
        let model = ModelSpec::built_in(name).expect("built in");
        let mut group = criterion.benchmark_group(format!("fused/{name}/B={BATCH_SIZE}"));
        group.throughput(Throughput::Elements(BATCH_SIZE as u64)).sample_size(20);
        for (way, mode) in [("private", Mode::Private), ("plain", Mode::NonPrivate)] {
            let mut steps = Steps::<Fused>::new(&model, BATCH_SIZE, mode, None, threads).expect("loads");
            group.bench_function(way, |bencher| bencher.iter(|| steps.step().expect("steps")));
        }
        group.finish();
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);
