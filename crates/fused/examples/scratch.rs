use dpsgd_fused::kernels::*; use dpsgd_fused::layout::*; use dpsgd_fused::simd::*; use std::time::Instant;
fn bench<I: Isa>(isa: I, rows: usize, k: usize, n: usize) {
    let panels = Panels { depth: k + 1, outputs: n };
    let inputs = vec![0.5f32; rows * k + 64]; let weights = vec![0.25f32; panels.len() + 16]; let mut outputs = vec![0.0f32; rows * n + 64];
    let table: Rows = (0..rows).map(|r| Row { input: (r * k) as u32, output: (r * n) as u32, mask: 0 }).collect();
    let seg = [Segment { offset: 0, len: k as u32 }];
    let flops = 2.0 * (rows * k * n) as f64;
    let reps = (2e9 / flops) as usize;
    let mut best = f64::MAX; let mut bestw = f64::MAX;
    let positions: Vec<Position> = (0..rows).map(|r| Position { input: (r * k) as u32, gradient: (r * n) as u32 }).collect();
    let columns: Vec<u32> = (0..k as u32).collect();
    let mut grad = vec![0.0f32; panels.len() + 16];
    for _ in 0..3 {
        let t = Instant::now();
        for _ in 0..reps { isa.dispatch(Product { inputs: &inputs, rows: table.first(rows), segments: &seg, weights: &weights, panels, first_row: 0, start: Start::Bias, finish: Finish::Relu, outputs: &mut outputs }); }
        best = best.min(t.elapsed().as_secs_f64() / reps as f64);
        let t = Instant::now();
        for _ in 0..reps { isa.dispatch(WeightGradient { inputs: &inputs, output_gradients: &outputs, positions: &positions, columns: &columns, gradient: &mut grad, panels, first_row: 0, bias: true, accumulate: false, squares: true }); }
        bestw = bestw.min(t.elapsed().as_secs_f64() / reps as f64);
    }
    println!("{:10} {rows}x{k}x{n}: product {:.1} GFLOP/s, weight gradient {:.1}", I::NAME, flops / best / 1e9, flops / bestw / 1e9);
}
fn main() { peak(); peak();
    for (r, k, n) in [(32, 104, 50), (196, 64, 16), (25, 256, 32), (16, 512, 32), (1024, 288, 32), (256, 576, 64), (64, 1152, 128), (16, 1152, 256), (16, 200, 400), (256, 200, 400), (32, 104, 1)] {
        bench(Avx2::detect().unwrap(), r, k, n);
        if std::env::args().len() > 1 { bench(Portable, r, k, n); }
    }
}
struct Peak;
impl Kernel for Peak { type Output = f32; #[inline(always)] fn run<I: Isa>(self, isa: I) -> f32 {
    let mut s = [isa.splat(0.0); 12]; let (a, b) = (isa.splat(std::hint::black_box(0.5)), isa.splat(std::hint::black_box(1e-3)));
    for _ in 0..20_000_000u64 { for v in 0..12 { s[v] = isa.mul_add(a, s[v], b); } }
    let mut t = 0.0; for v in 0..12 { t += isa.sum(s[v]); } t } }
pub fn peak() { let t = Instant::now(); std::hint::black_box(Avx2::detect().unwrap().dispatch(Peak)); println!("peak {:.1} GFLOP/s", 20e6 * 12.0 * 16.0 / t.elapsed().as_secs_f64() / 1e9); }
