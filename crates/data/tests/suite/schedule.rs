use dpsgd_data::{BatchesError, Order, batches};

#[test]
fn batches_have_one_shape_and_drop_the_ragged_tail() {
    for order in Order::ALL {
        for (examples, batch_size, steps) in [(10, 3, 3), (9, 3, 3), (4, 4, 1), (1, 1, 1), (1000, 64, 15)] {
            let epoch = batches(order, examples, batch_size, 1, 0).unwrap();
            assert_eq!((epoch.width, epoch.steps()), (batch_size, steps));
            assert_eq!(epoch.indices.len(), steps * batch_size);
            assert_eq!(epoch.mask, vec![true; steps * batch_size]);
        }
    }
}

#[test]
fn no_example_comes_twice_in_an_epoch() {
    for order in Order::ALL {
        let mut indices = batches(order, 1003, 10, 7, 2).unwrap().indices;
        indices.sort_unstable();
        indices.dedup();
        assert_eq!(indices.len(), 1000);
        assert!(indices.iter().all(|index| *index < 1003));
    }
}

#[test]
fn sequential_is_the_stored_order_in_every_epoch() {
    let first = batches(Order::Sequential, 10, 4, 1, 0).unwrap();
    assert_eq!(first.indices, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(first, batches(Order::Sequential, 10, 4, 2, 5).unwrap());
}

#[test]
fn a_shuffle_depends_on_seed_and_epoch_alone() {
    let shuffle = |batch_size, seed, epoch| batches(Order::Shuffle, 512, batch_size, seed, epoch).unwrap().indices;
    assert_eq!(shuffle(64, 1, 0), shuffle(64, 1, 0));
    assert_eq!(shuffle(64, 1, 0), shuffle(128, 1, 0));
    let same = |a: Vec<u32>, b: Vec<u32>| a.iter().zip(&b).filter(|(a, b)| a == b).count();
    // Two independent permutations agree in one place on average; 10 has a probability near 1e-7.
    for (seed, epoch) in [(1, 1), (2, 0), (1, u64::MAX)] {
        assert!(same(shuffle(64, 1, 0), shuffle(64, seed, epoch)) < 10, "seed {seed}, epoch {epoch}");
    }
    assert!(same(shuffle(64, 1, 0), (0..512).collect()) < 10);
}

#[test]
fn every_example_is_equally_likely_to_come_first() {
    let mut counts = [0; 8];
    for epoch in 0..8000 {
        counts[batches(Order::Shuffle, 8, 1, 3, epoch).unwrap().indices[0] as usize] += 1;
    }
    // Chi-squared with 7 degrees of freedom: above 29.9 with a probability of 1e-4. The seed is fixed.
    let chi2: f64 = counts.iter().map(|count| (f64::from(*count) - 1000.0).powi(2) / 1000.0).sum();
    assert!(chi2 < 29.9, "{counts:?}");
}

#[test]
fn a_batch_size_that_gives_no_batch_is_an_error() {
    let error = batches(Order::Shuffle, 10, 11, 0, 0).unwrap_err();
    assert_eq!(error, BatchesError { batch_size: 11, examples: 10 });
    assert_eq!(error.to_string(), "batch size 11: must be from 1 to the number of examples, 10");
    assert!(batches(Order::Sequential, 10, 0, 0, 0).is_err());
    assert!(batches(Order::Sequential, 0, 1, 0, 0).is_err());
}
