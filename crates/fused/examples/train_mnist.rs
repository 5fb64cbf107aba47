//! Trains a small convolutional network on MNIST with differential privacy, and says how well it does.
//!
//!     cargo run --release -p dpsgd-fused --example train_mnist
//!
//! The data is the sample of 4,096 training images that the crate `dpsgd-data` embeds: 3,584 to train on, the other 512
//! to test. Batches are drawn by Poisson sampling, as the usual accounting assumes: each example is in each batch with
//! the same probability, independently of all others.

use std::error::Error;

use dpsgd_core::{BatchRef, Device, DpSgd, Load, Mode, ModelSpec, Params, Settings, Strategy, Targets};
use dpsgd_fused::Fused;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const TRAINING_EXAMPLES: u32 = 3584;
const EXPECTED_BATCH_SIZE: u32 = 256;
const EPOCHS: u32 = 20;

fn main() -> Result<(), Box<dyn Error>> {
    let model = ModelSpec::built_in("mnist-cnn").expect("built in");
    let data = dpsgd_data::load("mnist", &model, None, None, 0)?;
    println!("{}", data.source);
    let Targets::Class(classes) = data.dataset.targets.clone() else { unreachable!("MNIST has classes") };

    let dp = DpSgd {
        mode: Mode::Private,
        clip_norm: 1.0,
        noise_multiplier: 1.0,
        learning_rate: 1.0,
        expected_batch_size: f64::from(EXPECTED_BATCH_SIZE),
    };
    let threads = std::thread::available_parallelism()?.get();
    // Without a seed, the operating system gives the key of the noise: it must stay secret.
    let settings = Settings { variant: None, device: Device::Cpu, threads, noise_seed: None };
    let params = Params::init(&model, 1);
    let mut fused = Fused::load(Load { model, params, dataset: data.dataset, dp, settings })?;

    // So must the batches.
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    let mut rng = ChaCha12Rng::from_seed(seed);
    let probability = f64::from(EXPECTED_BATCH_SIZE) / f64::from(TRAINING_EXAMPLES);
    let mut is_drawn = || f64::from(rng.next_u32()) < probability * 4_294_967_296.0;

    let steps = TRAINING_EXAMPLES / EXPECTED_BATCH_SIZE;
    for epoch in 1..=EPOCHS {
        for _ in 0..steps {
            let indices: Vec<u32> = (0..TRAINING_EXAMPLES).filter(|_| is_drawn()).collect();
            fused.step(&BatchRef { indices: &indices, mask: &vec![true; indices.len()] })?;
        }
        if epoch % 5 == 0 {
            let test: Vec<u32> = (TRAINING_EXAMPLES..classes.len() as u32).collect();
            let accuracy = accuracy(&mut fused, &test, &classes);
            println!("epoch {epoch:2}: {:.1}% of {} held-out images are recognized", 100.0 * accuracy, test.len());
        }
    }
    println!(
        "{} private steps: clip norm {}, noise multiplier {}, sampling probability {probability:.4}.\n\
         How private that is (epsilon, for a delta of your choice) is for an accountant to compute from these; none did.",
        EPOCHS * steps,
        dp.clip_norm,
        dp.noise_multiplier,
    );
    Ok(())
}

/// The share of `examples` whose largest output is that of their class.
fn accuracy(fused: &mut Fused, examples: &[u32], classes: &[i32]) -> f64 {
    let outputs = fused.outputs(examples).expect("a processor does not fail");
    let rows = outputs.chunks_exact(outputs.len() / examples.len());
    let right = rows.zip(examples).filter(|(outputs, example)| {
        let best = (0..outputs.len()).max_by(|a, b| outputs[*a].total_cmp(&outputs[*b]));
        best == Some(classes[**example as usize] as usize)
    });
    right.count() as f64 / examples.len() as f64
}
