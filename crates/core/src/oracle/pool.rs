//! Pooling, and means over positions or time.

use super::kink;
use super::windows::Windows;

/// `y[c, t] = max_{cell in window t} x[c, cell]`, and for each output the index into x that it came from: the first in
/// row-major order among equals. A NaN wins, as in PyTorch.
pub(super) fn max_forward(windows: &Windows, x: &[f64]) -> (Vec<f64>, Vec<usize>) {
    let origins: Vec<usize> = each_window(windows, x.len())
        .map(|cells| {
            cells
                .reduce(|best, cell| if x[cell] > x[best] || x[cell].is_nan() { cell } else { best })
                .expect("windows have cells")
        })
        .collect();
    (origins.iter().map(|origin| x[*origin]).collect(), origins)
}

/// `dx[origin] += dy`, where each output came from. Also returns the smallest gap, among windows that pass a gradient
/// on, between the maximum and the largest value below it, relative to the root mean square of x. Values equal to the
/// maximum are ties, not near-ties: they come from equal inputs and go to the first position in any precision.
pub(super) fn max_backward(windows: &Windows, x: &[f64], origins: &[usize], dy: &[f64]) -> (Vec<f64>, f64) {
    let mut dx = vec![0.0; x.len()];
    let mut gap = f64::INFINITY;
    for ((cells, origin), d) in each_window(windows, x.len()).zip(origins).zip(dy) {
        dx[*origin] += d;
        if *d != 0.0 {
            gap = cells.map(|cell| x[*origin] - x[cell]).filter(|gap| *gap > 0.0).fold(gap, f64::min);
        }
    }
    (dx, kink::relative(gap, x))
}

/// `y[c, t] = mean_{cell in window t} x[c, cell]`.
pub(super) fn avg_forward(windows: &Windows, x: &[f64]) -> Vec<f64> {
    each_window(windows, x.len()).map(|cells| cells.map(|cell| x[cell]).sum::<f64>() / windows.area()).collect()
}

/// `dx[c, cell] += dy[c, t] / window size` for every cell of every window.
pub(super) fn avg_backward(windows: &Windows, inputs: usize, dy: &[f64]) -> Vec<f64> {
    let mut dx = vec![0.0; inputs];
    for (cells, d) in each_window(windows, inputs).zip(dy) {
        cells.for_each(|cell| dx[cell] += d / windows.area());
    }
    dx
}

/// The windows of all channels as indices into `[c, h, w]`, in the order of the output `[c, t]`.
fn each_window(windows: &Windows, inputs: usize) -> impl Iterator<Item = impl Iterator<Item = usize> + '_> + '_ {
    let channel_size = inputs / windows.channels;
    (0..windows.channels).flat_map(move |channel| {
        (0..windows.positions()).map(move |t| windows.cells(t).flatten().map(move |cell| channel * channel_size + cell))
    })
}

/// `[C, H * W]` to the means of the C rows.
pub(super) fn global_avg_forward(channels: usize, x: &[f64]) -> Vec<f64> {
    let area = x.len() / channels;
    x.chunks_exact(area).map(|channel| channel.iter().sum::<f64>() / area as f64).collect()
}

/// `dx[c, cell] = dy[c] / (H W)`.
pub(super) fn global_avg_backward(inputs: usize, dy: &[f64]) -> Vec<f64> {
    let area = inputs / dy.len();
    dy.iter().flat_map(|d| std::iter::repeat_n(d / area as f64, area)).collect()
}

/// `[T, D]` to the means of the D columns.
pub(super) fn mean_over_time_forward(width: usize, x: &[f64]) -> Vec<f64> {
    let time = x.len() / width;
    let mut y = vec![0.0; width];
    x.chunks_exact(width).for_each(|step| super::add_scaled(&mut y, 1.0 / time as f64, step));
    y
}

/// `dx[t, j] = dy[j] / T`.
pub(super) fn mean_over_time_backward(inputs: usize, dy: &[f64]) -> Vec<f64> {
    let time = inputs / dy.len();
    std::iter::repeat_n(dy, time).flatten().map(|d| d / time as f64).collect()
}
