//! The noise of `batched`: alone in its process, because libtorch has one generator for all threads.

use dpsgd_batched::Batched;

#[test]
fn the_noise_is_normal_fresh_at_every_step_and_seeded() {
    dpsgd_conformance::noise_is_normal_fresh_and_seeded::<Batched>(Some("captured"));
}
