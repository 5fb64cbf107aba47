//! scratch
use dpsgd_conformance::synthetic::job; use dpsgd_core::*; use dpsgd_core::oracle::*; use dpsgd_fused::Fused;
fn main() {
    let model = ModelSpec::built_in("lstm").unwrap();
    for variant in ["avx2", "portable"] {
        let mut load = job(&model, 4, Mode::NonPrivate, Some(variant));
        load.dp.learning_rate = 1e4 * 4.0;
        let oracle = Oracle::new(&model, &load.params).unwrap();
        let grads: Vec<Gradient> = (0..4).map(|i| oracle.example(&load.dataset, i).gradient).collect();
        let expected = sum(grads.iter(), &model);
        let before = load.params.clone();
        let mut f = Fused::load(load).unwrap();
        f.step(&BatchRef { indices: &[0, 1, 2, 3], mask: &[true; 4] }).unwrap();
        let after = f.params().unwrap();
        for (i, (b, a)) in before.tensors.iter().zip(&after.tensors).enumerate() {
            let (mut d2, mut n2) = (0.0, 0.0);
            for ((x, y), g) in b.values.iter().zip(&a.values).zip(&expected.0[i]) { let m = (*x as f64 - *y as f64) / 1e4; d2 += (m - g) * (m - g); n2 += g * g; }
            println!("{variant} {}: relative error {:.2e}, norm {:.2e}", b.name, (d2 / n2).sqrt(), n2.sqrt());
        }
    }
}
