//! What kernels must do for an example, to hold their times against: FLOPs of matrix products, counted as in
//! [`dpsgd_core::cost`] but by the method that is really used, and bytes of what they read and write. Of what all examples
//! share no bytes count, as it is read once for many: weights, but not the rows of a table that an example has.

use dpsgd_core::cost::Cost;

use super::plan::{Map, Plan, Recurrence};

/// Reading or writing so many numbers of four bytes.
pub fn numbers(count: usize) -> Cost {
    Cost { flops: 0.0, bytes: 4.0 * count as f64 }
}

fn flops(count: usize) -> Cost {
    Cost { flops: count as f64, bytes: 0.0 }
}

/// What a map reads and writes, in any of its products.
fn edges(map: &Map, plan: &Plan) -> Cost {
    numbers(plan.edges[map.input].length + map.positions() * map.outputs)
}

/// Any of a map's three products: outputs, gradient of the inputs, gradient of the weights.
pub fn product(map: &Map, plan: &Plan) -> Cost {
    edges(map, plan) + flops(2 * map.positions() * map.inputs * map.outputs)
}

/// An example's own gradient of the weights, kept.
pub fn keep(map: &Map, plan: &Plan) -> Cost {
    product(map, plan) + numbers(map.parameters.len())
}

/// Its norm by two Gram matrices, of which symmetry needs half.
pub fn ghost_norm(map: &Map, plan: &Plan) -> Cost {
    let positions = map.positions();
    edges(map, plan) + flops(positions * positions * (map.inputs + map.outputs))
}

/// Its norm as that of a product of two vectors.
pub fn rank_one_norm(map: &Map, plan: &Plan) -> Cost {
    edges(map, plan) + flops(2 * (map.inputs + map.outputs))
}

/// The products of an LSTM's states, forward or back. Either way four gates are read and four are written, and of two
/// states and the output what the one way writes the other reads.
pub fn recurrence(recurrence: &Recurrence) -> Cost {
    let Recurrence { time, hidden, .. } = *recurrence;
    flops(2 * time * 4 * hidden * hidden) + numbers(time * (4 + 4 + 2 + 1) * hidden)
}
