//! Normals per second: one thread for each number of rounds and instruction set, then two threads.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
#[cfg(target_arch = "x86_64")]
use dpsgd_fused::simd::{Avx2, Avx512};
use dpsgd_fused::{
    noise::{Key, fill},
    simd::{Isa, Portable},
};

/// Normals per call: they stay in the first-level cache.
const NORMALS: usize = 4096;

fn noise(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("noise");
    let key = Key::from_seed(1);
    #[cfg(target_arch = "x86_64")]
    {
        bench::<Avx512>(&mut group, &key);
        bench::<Avx2>(&mut group, &key);
    }
    bench::<Portable>(&mut group, &key);
    group.finish();
}

fn bench<I: Isa>(group: &mut BenchmarkGroup<'_, WallTime>, key: &Key) {
    match I::detect() {
        Some(isa) => {
            bench_rounds(group, isa, key, 1);
            bench_rounds(group, isa, &key.with_rounds::<12>(), 1);
            bench_rounds(group, isa, &key.with_rounds::<20>(), 1);
            bench_rounds(group, isa, key, 2);
        }
        None => println!("skipped: {}, which this machine lacks", I::NAME),
    }
}

fn bench_rounds<I: Isa, const ROUNDS: usize>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    isa: I,
    key: &Key<ROUNDS>,
    threads: usize,
) {
    group.throughput(Throughput::Elements((NORMALS * threads) as u64));
    group.bench_function(format!("{}/ChaCha{ROUNDS}/{threads} threads", I::NAME), |bencher| {
        bencher.iter_custom(|iterations| {
            std::thread::scope(|scope| {
                let drawers: Vec<_> = (0..threads).map(|_| scope.spawn(|| draw(isa, key, iterations))).collect();
                let times = drawers.into_iter().map(|drawer| drawer.join().expect("draws"));
                times.max().expect("there is a thread")
            })
        });
    });
}

fn draw<I: Isa, const ROUNDS: usize>(isa: I, key: &Key<ROUNDS>, steps: u64) -> Duration {
    let mut normals = vec![0.0; NORMALS];
    let start = Instant::now();
    for step in 0..steps {
        fill(isa, key, step, 0, &mut normals);
        black_box(&normals);
    }
    start.elapsed()
}

criterion_group!(benches, noise);
criterion_main!(benches);
