//! One step of `naive`, private and plain, on the two networks of the talk.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dpsgd_conformance::synthetic::Steps;
use dpsgd_core::{Mode, ModelSpec};
use dpsgd_naive::Naive;

const BATCH_SIZE: usize = 64;

fn steps(criterion: &mut Criterion) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let ways = [("private", Mode::Private, None), ("plain", Mode::NonPrivate, None)];
    for name in ["ffnn", "mnist-cnn"] {
        let model = ModelSpec::built_in(name).expect("built in");
        let mut group = criterion.benchmark_group(format!("naive/{name}/B={BATCH_SIZE}"));
        group.throughput(Throughput::Elements(BATCH_SIZE as u64)).sample_size(20);
        for (way, mode, variant) in ways {
            let mut steps = Steps::<Naive>::new(&model, BATCH_SIZE, mode, variant, threads).expect("loads");
            group.bench_function(way, |bencher| bencher.iter(|| steps.step().expect("steps")));
        }
        group.finish();
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);
