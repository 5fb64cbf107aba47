//! Checksums by which the runner knows that every contender was given the same data and ran the same batches.
//!
//! A worker reports what it received, the runner knows what it sent, and a row whose two differ is failed. Both are
//! SHA-256 in lower-case hexadecimal.

use dpsgd_core::{BatchRef, Dataset, Inputs, Targets};
use sha2::{Digest, Sha256};

/// Of a data set: the bytes of its inputs, then those of its targets, little-endian.
pub fn of_dataset(dataset: &Dataset) -> String {
    let mut hasher = Sha256::new();
    match &dataset.inputs {
        Inputs::F32(values) => update(&mut hasher, values, f32::to_le_bytes),
        Inputs::Tokens(tokens) => update(&mut hasher, tokens, i32::to_le_bytes),
    }
    match &dataset.targets {
        Targets::Class(classes) => update(&mut hasher, classes, i32::to_le_bytes),
        Targets::Value(values) => update(&mut hasher, values, f32::to_le_bytes),
    }
    hexadecimal(hasher)
}

/// Of the batches of an epoch, in order. Each is its number of slots and their indices, as little-endian u32, then a byte
/// 1 for each slot that counts and 0 for each that doesn't.
pub fn of_batches<'a>(batches: impl IntoIterator<Item = BatchRef<'a>>) -> String {
    let mut hasher = Sha256::new();
    for batch in batches {
        let slots = u32::try_from(batch.indices.len()).expect("an index is a u32, so are the slots of a batch");
        hasher.update(slots.to_le_bytes());
        update(&mut hasher, batch.indices, u32::to_le_bytes);
        update(&mut hasher, batch.mask, |counts| [u8::from(counts)]);
    }
    hexadecimal(hasher)
}

/// Adds the bytes of `values`, some at a time: a data set is not to be in memory twice.
fn update<T: Copy, const N: usize>(hasher: &mut Sha256, values: &[T], bytes_of: impl Fn(T) -> [u8; N]) {
    let mut bytes = Vec::new();
    for some in values.chunks(1 << 14) {
        bytes.clear();
        some.iter().for_each(|value| bytes.extend(bytes_of(*value)));
        hasher.update(&bytes);
    }
}

fn hexadecimal(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCHES: [BatchRef<'_>; 2] =
        [BatchRef { indices: &[0, 70_000], mask: &[true, false] }, BatchRef { indices: &[2, 1], mask: &[true, true] }];

    /// As computed by `peers/tests/test_worker.py`, which has the same batches and the same data.
    #[test]
    fn checksums_are_those_of_the_python_workers() {
        assert_eq!(of_batches(BATCHES), "4152a8cd9bd7c515b59f952844d79ce2704efe65047fc304a438985dfb24ef73");
        let inputs = Inputs::F32(vec![0.5, -1.0, 2.0, 0.0]);
        let dataset = Dataset { example_shape: vec![2], inputs, targets: Targets::Class(vec![1, 0]) };
        assert_eq!(of_dataset(&dataset), "349f25c195b19ce0205fcf3a6b13c6ea225316ce4530038461b5cf67ed63edce");
    }

    #[test]
    fn another_order_another_mask_and_another_cut_are_other_batches() {
        let right = of_batches(BATCHES);
        let [first, second] = BATCHES;
        let wrong: [&[BatchRef<'_>]; 4] = [
            &[second, first],
            &[first],
            &[BatchRef { mask: &[true, true], ..first }, second],
            &[BatchRef { indices: &[0, 70_000, 2, 1], mask: &[true, false, true, true] }],
        ];
        for wrong in wrong {
            assert_ne!(of_batches(wrong.iter().copied()), right, "{wrong:?}");
        }
    }

    #[test]
    fn one_target_more_or_less_is_another_data_set() {
        let dataset = |targets| Dataset { example_shape: vec![1], inputs: Inputs::Tokens(vec![7, 8]), targets };
        let right = of_dataset(&dataset(Targets::Value(vec![0.0, 1.0])));
        assert_ne!(of_dataset(&dataset(Targets::Value(vec![0.0, -1.0]))), right);
        assert_ne!(of_dataset(&dataset(Targets::Value(vec![0.0]))), right);
    }
}
