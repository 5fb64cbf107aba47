//! A step, carried out: which kernels are started when, on what.

use dpsgd_core::{BatchRef, Dataset, DpSgd, Inputs, Mode, ModelSpec, Params, Targets};

use super::arguments::Step;
use super::device::{Device, DeviceError, Launch};
use super::plan::Plan;
use super::program::{Kernel, Program};
use crate::noise::Key;
use crate::plan::Methods;

/// A model with its data on a device.
pub struct Engine<D> {
    device: D,
    plan: Plan,
    program: Program,
    /// What all launches share: addresses, the key.
    base: Step,
    /// How many rows the device has room for.
    room: usize,
    /// Numbers of the outputs.
    outputs: usize,
}

impl<D: Device> Engine<D> {
    /// Compiles the kernels and allocates all that steps need. The data set fits the model.
    ///
    /// `order`: the parameter (in PyTorch's order) that each normal of the noise belongs to.
    pub fn new(
        mut device: D,
        model: &ModelSpec,
        methods: Methods,
        expected: usize,
        dataset: &Dataset,
        key: &Key,
        order: &[u32],
    ) -> Result<Self, DeviceError> {
        let limits = device.limits();
        let (program, plan) = Program::new(model, methods, expected, &limits)?;
        device.build(&program.source, &program.names)?;
        let (chunk, sizes, room) = (plan.chunk, program.sizes, program.room);
        let base = Step {
            theta: numbers(&mut device, plan.parameters)?,
            sums: numbers(&mut device, plan.parameters)?,
            values: numbers(&mut device, sizes.values)?,
            gradients: numbers(&mut device, sizes.values)?,
            marks: numbers(&mut device, sizes.marks)?,
            states: numbers(&mut device, sizes.states)?,
            kept: numbers(&mut device, plan.kept * plan.group)?,
            partials: numbers(&mut device, sizes.partials)?,
            squares: numbers(&mut device, 2 * sizes.slots * chunk)?,
            factors: numbers(&mut device, chunk)?,
            non_finite: numbers(&mut device, 2)?,
            inputs: match &dataset.inputs {
                Inputs::F32(values) => array(&mut device, values, |v| v.to_ne_bytes())?,
                Inputs::Tokens(_) => 0,
            },
            tokens: match &dataset.inputs {
                Inputs::Tokens(tokens) => array(&mut device, tokens, |v| v.to_ne_bytes())?,
                Inputs::F32(_) => 0,
            },
            classes: match &dataset.targets {
                Targets::Class(classes) => array(&mut device, classes, |v| v.to_ne_bytes())?,
                Targets::Value(_) => 0,
            },
            targets: match &dataset.targets {
                Targets::Value(values) => array(&mut device, values, |v| v.to_ne_bytes())?,
                Targets::Class(_) => 0,
            },
            rows: numbers(&mut device, room)?,
            order: array(&mut device, order, |v| v.to_ne_bytes())?,
            key: *key.words(),
            ..Step::default()
        };
        device.upload(base.non_finite, &0u64.to_ne_bytes())?;
        let outputs = plan.edges[plan.edges.len() - 1].length;
        Ok(Engine { device, plan, program, base, room, outputs })
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// One step of the optimizer, on a batch whose indices are of the data set. May return before it is done.
    pub fn step(&mut self, batch: &BatchRef<'_>, dp: &DpSgd) -> Result<(), DeviceError> {
        let slots = batch.indices.iter().zip(batch.mask);
        let rows: Vec<u32> = slots.filter(|(_, counts)| **counts).map(|(row, _)| *row).collect();
        let is_private = dp.mode == Mode::Private;
        let denominator = if is_private { dp.expected_batch_size } else { rows.len() as f64 };
        let step = Step {
            clip_norm: dp.clip_norm,
            rate: (dp.learning_rate / denominator) as f32,
            noise: if is_private { (dp.noise_multiplier * dp.clip_norm) as f32 } else { 0.0 },
            is_private: is_private.into(),
            has_sum: (!rows.is_empty()).into(),
            ..self.base
        };
        // First, so that not even a step that fails midway leaves its noise to another.
        self.base.number += 1;
        if !is_private && rows.is_empty() {
            return Ok(());
        }
        let step = Step { rows: self.upload(&rows)?, ..step };
        if let (Some(kernel), false) = (&self.program.resident, rows.is_empty()) {
            let step = Step { examples: whole(rows.len()), ..step };
            let [blocks, ..] = kernel.grid.blocks(rows.len(), kernel.threads);
            self.launch(std::slice::from_ref(kernel), rows.len(), &step)?;
            self.launch(&self.program.resident_sums, 1, &Step { group_examples: whole(blocks), ..step })?;
            return self.launch(&self.program.update, 1, &step);
        }
        for first in (0..rows.len()).step_by(self.plan.chunk) {
            let examples = (rows.len() - first).min(self.plan.chunk);
            self.chunk(&Step { first: whole(first), examples: whole(examples), ..step })?;
        }
        self.launch(&self.program.update, 1, &step)
    }

    /// Adds a chunk's clipped gradients to the sums.
    fn chunk(&mut self, step: &Step) -> Result<(), DeviceError> {
        let (examples, is_first) = (step.examples as usize, step.first == 0);
        let step = Step { accumulate: (!is_first).into(), group_examples: step.examples, ..*step };
        let program = &self.program;
        self.launch(&program.forward, examples, &step)?;
        self.launch(&program.backward, examples, &step)?;
        if step.is_private == 0 {
            self.launch(&program.factors, examples, &step)?;
            self.launch(&program.plain_sums, examples, &step)?;
            return self.launch(&program.sums, examples, &step);
        }
        self.launch(&program.norms, examples, &step)?;
        for first in (0..examples).step_by(self.plan.group) {
            let group = (examples - first).min(self.plan.group);
            let step = Step {
                group_first: whole(first),
                group_examples: whole(group),
                accumulate: (!is_first || first > 0).into(),
                ..step
            };
            self.launch(&program.keep, group, &step)?;
            self.launch(&program.factors, group, &step)?;
            self.launch(&program.kept_sums, group, &step)?;
        }
        self.launch(&program.sums, examples, &step)
    }

    /// Starts kernels for so many examples.
    fn launch(&self, kernels: &[Kernel], examples: usize, step: &Step) -> Result<(), DeviceError> {
        for kernel in kernels {
            let launch = Launch {
                kernel: kernel.index,
                grid: kernel.grid.blocks(examples, kernel.threads).map(|blocks| blocks as u32),
                threads: kernel.threads as u32,
                shared_bytes: kernel.shared_bytes as u32,
            };
            self.device.launch(launch, step)?;
        }
        Ok(())
    }

    /// Puts the batch's rows on the device, and gives where.
    fn upload(&mut self, rows: &[u32]) -> Result<u64, DeviceError> {
        if rows.len() > self.room {
            // What was there before stays, unused: batches grow a few times, if ever.
            self.room = rows.len().next_power_of_two();
            self.base.rows = numbers(&mut self.device, self.room)?;
        }
        self.device.upload(self.base.rows, &bytes(rows, |row| row.to_ne_bytes()))?;
        Ok(self.base.rows)
    }

    /// Returns when all steps are done.
    pub fn synchronize(&mut self) -> Result<(), DeviceError> {
        self.device.synchronize()
    }

    /// Reads the parameters into PyTorch's tensors.
    pub fn read(&mut self, params: &mut Params) -> Result<(), DeviceError> {
        let mut bytes = vec![0; 4 * self.plan.parameters];
        self.device.download(self.base.theta, &mut bytes)?;
        let (mut values, _) = bytes.as_chunks::<4>();
        for tensor in &mut params.tensors {
            let (own, rest) = values.split_at(tensor.values.len());
            tensor.values.iter_mut().zip(own).for_each(|(value, bytes)| *value = f32::from_ne_bytes(*bytes));
            values = rest;
        }
        Ok(())
    }

    /// Takes the parameters from PyTorch's tensors.
    pub fn write(&mut self, params: &Params) -> Result<(), DeviceError> {
        let values: Vec<f32> = params.values().collect();
        self.device.upload(self.base.theta, &bytes(&values, |value| value.to_ne_bytes()))
    }

    /// Examples left out so far because their gradient was not finite.
    pub fn non_finite(&mut self) -> Result<u64, DeviceError> {
        let mut bytes = [0; 8];
        self.device.download(self.base.non_finite, &mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// The model's outputs for some examples of the data set, `[examples, outputs]`.
    pub fn outputs(&mut self, examples: &[u32]) -> Result<Vec<f32>, DeviceError> {
        let rows = self.upload(examples)?;
        let room = self.program.room;
        let place = self.base.values + 4 * (self.program.sizes.values - room * self.outputs) as u64;
        let mut outputs = Vec::with_capacity(examples.len() * self.outputs);
        for first in (0..examples.len()).step_by(room) {
            let count = (examples.len() - first).min(room);
            let step = Step { rows, first: whole(first), examples: whole(count), forward_only: 1, ..self.base };
            let resident = self.program.resident.as_slice();
            self.launch(resident, count, &step)?;
            self.launch(&self.program.forward, count, &step)?;
            let mut bytes = vec![0; 4 * count * self.outputs];
            self.device.download(place, &mut bytes)?;
            outputs.extend(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)));
        }
        Ok(outputs)
    }
}

/// A count of examples as kernels take it; chunks have fewer than 2^31.
fn whole(count: usize) -> i32 {
    i32::try_from(count).expect("a batch has fewer than 2^31 examples")
}

fn bytes<T: Copy>(values: &[T], bytes: impl Fn(T) -> [u8; 4]) -> Vec<u8> {
    values.iter().flat_map(|value| bytes(*value)).collect()
}

/// Memory for so many numbers of four bytes; at least one.
fn numbers(device: &mut impl Device, count: usize) -> Result<u64, DeviceError> {
    device.allocate(4 * count.max(1))
}

/// Memory that holds these numbers.
fn array<T: Copy>(device: &mut impl Device, values: &[T], to_bytes: impl Fn(T) -> [u8; 4]) -> Result<u64, DeviceError> {
    let address = numbers(device, values.len())?;
    device.upload(address, &bytes(values, to_bytes))?;
    Ok(address)
}
