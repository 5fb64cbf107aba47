//! scratch
use dpsgd_conformance::synthetic::Steps; use dpsgd_core::*; use dpsgd_fused::Fused; use std::time::Instant;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let names: Vec<String> = if args.len() > 1 { args[1].split(',').map(String::from).collect() } else { ModelSpec::built_in_names().map(String::from).collect() };
    let sizes: Vec<usize> = if args.len() > 2 { args[2].split(',').map(|s| s.parse().unwrap()).collect() } else { vec![64, 256] };
    let threads: usize = args.get(3).map_or(2, |s| s.parse().unwrap());
    let variant = args.get(4).map(|s| s.as_str());
    for name in &names { for b in &sizes {
        let model = ModelSpec::built_in(name).unwrap();
        let flops = cost::plain_step(&model, *b).unwrap().flops;
        let mut t = [0.0; 2];
        for (i, mode) in [Mode::Private, Mode::NonPrivate].into_iter().enumerate() {
            let mut s = Steps::<Fused>::new(&model, *b, mode, variant, threads).unwrap();
            s.step().unwrap();
            let mut best = f64::MAX; let begin = Instant::now();
            while begin.elapsed().as_secs_f64() < 0.7 { let n = (1e7 / flops).ceil() as usize; let t0 = Instant::now(); for _ in 0..n { s.step().unwrap(); } best = best.min(t0.elapsed().as_secs_f64() / n as f64); }
            t[i] = best;
        }
        println!("{name:16} {b:4} private {:9.1} us ({:.2}/ex, {:.1} GFLOP/s) plain {:9.1} us ({:.1} GFLOP/s) ratio {:.2}", t[0]*1e6, t[0]*1e6 / *b as f64, flops/t[0]/1e9, t[1]*1e6, flops/t[1]/1e9, t[0]/t[1]);
    } }
}
