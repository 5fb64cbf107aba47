//! Which kernels a step starts, in which order, on which grids.

use dpsgd_core::cost::Cost;

use super::arguments::Step;
use super::device::Launch;
use super::plan::Plan;
use super::program::{Kernel, Program};

/// What decides a step's launches: steps of the same shape have the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Whether gradients are clipped.
    pub is_private: bool,
    /// Examples that there is room for. How many there are, kernels read in the device's memory; what is beyond returns at
    /// once.
    pub room: usize,
}

impl Shape {
    /// With room for just so many examples.
    pub fn exact(is_private: bool, examples: usize) -> Self {
        Shape { is_private, room: examples }
    }

    /// With some more room, so that batches of about this size have few shapes: less than an eighth more, and not so
    /// much more that there would be another chunk.
    pub fn roomy(is_private: bool, examples: usize, program: &Program, plan: &Plan) -> Self {
        let room = match (examples, &program.resident) {
            (0, _) => 0,
            // There are never more blocks than multiprocessors.
            (_, Some(_)) => i32::MAX as usize,
            (_, None) => {
                let whole = (examples - 1) / plan.chunk * plan.chunk;
                let rest = examples - whole;
                whole + with_some_more(rest).min(plan.chunk)
            }
        };
        Shape { is_private, room }
    }
}

/// The next of eight sizes between two powers of two: multiples of a sixteenth of the larger one.
fn with_some_more(examples: usize) -> usize {
    examples.next_multiple_of((examples.next_power_of_two() / 16).max(1))
}

/// A step's launches. `base`: what all of them share.
pub fn launches(program: &Program, plan: &Plan, base: &Step, shape: Shape) -> Vec<(Launch, Step)> {
    let mut schedule = Schedule { program, plan, launches: Vec::new() };
    let step = Step { is_private: shape.is_private.into(), ..*base };
    if let (Some(kernel), true) = (&program.resident, shape.room > 0) {
        let [blocks, ..] = kernel.grid.blocks(shape.room, kernel.threads);
        let step = Step { examples: whole(shape.room), group_examples: whole(blocks), ..step };
        schedule.add(std::slice::from_ref(kernel), shape.room, &step);
        schedule.add(&program.resident_sums, blocks, &step);
    } else {
        for first in (0..shape.room).step_by(plan.chunk) {
            let examples = (shape.room - first).min(plan.chunk);
            schedule.chunk(&Step { first: whole(first), examples: whole(examples), ..step });
        }
    }
    schedule.add(&program.update, 1, &step);
    schedule.launches
}

/// Of kernels for so many examples.
pub fn launches_of(kernels: &[Kernel], examples: usize) -> impl Iterator<Item = Launch> {
    kernels.iter().map(move |kernel| Launch {
        kernel: kernel.index,
        grid: kernel.grid.blocks(examples, kernel.threads).map(|blocks| blocks as u32),
        threads: kernel.threads as u32,
        shared_bytes: kernel.shared_bytes as u32,
        work: Cost { flops: kernel.work.flops * examples as f64, bytes: kernel.work.bytes * examples as f64 },
    })
}

/// A count of examples as kernels take it; batches have fewer than 2^31.
pub fn whole(count: usize) -> i32 {
    i32::try_from(count).expect("a batch has fewer than 2^31 examples")
}

struct Schedule<'a> {
    program: &'a Program,
    plan: &'a Plan,
    launches: Vec<(Launch, Step)>,
}

impl Schedule<'_> {
    fn add(&mut self, kernels: &[Kernel], examples: usize, step: &Step) {
        self.launches.extend(launches_of(kernels, examples).map(|launch| (launch, *step)));
    }

    /// Adds a chunk's clipped gradients to the sums.
    fn chunk(&mut self, step: &Step) {
        let (examples, is_first, program) = (step.examples as usize, step.first == 0, self.program);
        let step = Step { accumulate: (!is_first).into(), group_examples: step.examples, ..*step };
        self.add(&program.forward, examples, &step);
        self.add(&program.backward, examples, &step);
        if step.is_private == 0 {
            self.add(&program.factors, examples, &step);
            self.add(&program.plain_sums, examples, &step);
            return;
        }
        self.add(&program.norms, examples, &step);
        for first in (0..examples).step_by(self.plan.group) {
            let group = (examples - first).min(self.plan.group);
            let step = Step {
                group_first: whole(first),
                group_examples: whole(group),
                accumulate: (!is_first || first > 0).into(),
                ..step
            };
            self.add(&program.keep, group, &step);
            self.add(&program.factors, group, &step);
            self.add(&program.kept_sums, group, &step);
        }
        self.add(&program.sums, examples, &step);
    }
}

#[cfg(test)]
mod tests {
    use super::with_some_more;

    #[test]
    fn room_is_less_than_an_eighth_more_and_of_few_sizes() {
        for examples in 1..=5000 {
            let room = with_some_more(examples);
            assert!(examples <= room && 8 * (room - examples) < examples, "{examples}: {room}");
        }
        let mut sizes: Vec<usize> = (257..=512).map(with_some_more).collect();
        sizes.dedup();
        assert_eq!(sizes.len(), 8);
    }
}
