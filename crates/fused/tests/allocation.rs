//! A step allocates nothing; the first one included, as soon as the threads have come up.
//!
//! This file has one test: what another allocates would be counted, too.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use dpsgd_conformance::synthetic;
use dpsgd_core::{BatchRef, Inputs, Mode, ModelSpec, Strategy};
use dpsgd_fused::Fused;

/// The system's allocator, with a count of what it is asked for by any thread.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does all of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as in `alloc`.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn steps_allocate_nothing() {
    let start = ALLOCATIONS.load(Ordering::Relaxed);
    drop(std::hint::black_box(Box::new(1)));
    assert!(ALLOCATIONS.load(Ordering::Relaxed) > start, "allocations are not counted");
    for name in ModelSpec::built_in_names() {
        let model = ModelSpec::built_in(name).expect("built in");
        for (mode, variant, threads) in [
            (Mode::Private, "best", 1),
            (Mode::NonPrivate, "best", 1),
            (Mode::Private, "best", 2),
            (Mode::Private, "ghost", 2),
            (Mode::NonPrivate, "best", 2),
        ] {
            let examples = if ["lstm", "cifar10-cnn"].contains(&name) { 6 } else { 300 };
            let mut job = synthetic::job(&model, examples, mode, Some(variant));
            job.settings.threads = threads;
            job.dp.noise_multiplier = 1.0;
            job.dp.learning_rate = 1e-6;
            // One that is left out takes a way of its own.
            if let Inputs::F32(values) = &mut job.dataset.inputs {
                values[0] = f32::NAN;
            }
            let all: Vec<u32> = (0..examples as u32).collect();
            let counts = vec![true; examples];
            let padded: Vec<bool> = all.iter().map(|index| index % 3 > 0).collect();
            let none = vec![false; examples];
            let mut strategy = Fused::load(job).expect("loads");
            for (what, mask) in [("first", &counts), ("second", &counts), ("padded", &padded), ("empty", &none)] {
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                strategy.step(&BatchRef { indices: &all, mask }).expect("a step");
                strategy.synchronize().expect("a step");
                let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
                // A thread that was started at load may still be allocating what the system's threads need.
                if threads == 1 || what != "first" {
                    assert_eq!(allocations, 0, "{name}, {mode:?}, {variant}, {threads} threads: the {what} step");
                }
            }
        }
    }
}
