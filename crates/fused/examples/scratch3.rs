//! scratch
use dpsgd_fused::kernels::math::*; use dpsgd_fused::simd::*;
struct T<'a>(&'a [f32], &'a mut [f32], u8);
impl Kernel for T<'_> { type Output = (); #[inline(always)] fn run<I: Isa>(self, isa: I) { let mut i = 0; while i + I::LANES <= self.0.len() { unsafe { let x = isa.load(self.0.as_ptr().add(i)); let y = match self.2 { 0 => exp(isa, x), 1 => sigmoid(isa, x), _ => tanh(isa, x) }; isa.store(self.1.as_mut_ptr().add(i), y); } i += I::LANES; } } }
fn test<I: Isa>(isa: I) {
    for (f, name) in [(0u8, "exp"), (1, "sigmoid"), (2, "tanh")] { for (lo, hi) in [(-1e-3f32, 1e-3f32), (-1.0, 1.0), (-8.0, 8.0), (-80.0, 80.0)] {
        let n = 1 << 20; let x: Vec<f32> = (0..n).map(|i| lo + (hi - lo) * (i as f32 / n as f32)).collect(); let mut y = vec![0.0; n];
        isa.dispatch(T(&x, &mut y, f));
        let (mut worst, mut mean, mut at) = (0.0f64, 0.0, 0.0);
        for i in 0..n { let x64 = x[i] as f64; let t = match f { 0 => x64.exp(), 1 => 1.0 / (1.0 + (-x64).exp()), _ => x64.tanh() }; if t.abs() < 1e-37 { continue; } let e = (y[i] as f64 - t) / t.abs(); mean += e / n as f64; if e.abs() > worst { worst = e.abs(); at = x[i]; } }
        println!("{} {name} {lo}..{hi}: worst {:.2e} at {at}, mean {:.2e}", I::NAME, worst, mean);
    } } }
fn main() { test(Avx2::detect().unwrap()); test(Portable); }
