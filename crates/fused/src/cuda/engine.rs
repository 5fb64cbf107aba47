//! A step, carried out: which kernels are started when, on what.

use std::time::Instant;

use dpsgd_core::{BatchRef, Dataset, DpSgd, Inputs, Mode, ModelSpec, Params, Targets};

use super::arguments::{Step, Varying};
use super::device::{Device, DeviceError};
use super::plan::Plan;
use super::profile::Profile;
use super::program::{Program, Purpose};
use super::recordings::{Recordings, Take};
use super::schedule::{Shape, launches, launches_of, whole};
use crate::noise::Key;

/// A model with its data on a device.
pub struct Engine<D: Device> {
    /// Before the device, whose memory and kernels they use.
    recordings: Recordings<Shape, D::Recording>,
    /// Whether steps are recorded.
    records: bool,
    /// Why not, if they should be.
    unrecorded: Option<String>,
    /// How many recordings were started.
    replays: u64,
    device: D,
    plan: Plan,
    program: Program,
    /// What all launches share: addresses, the key.
    base: Step,
    /// The step's number.
    number: u64,
    /// How many rows the device has room for.
    room: usize,
    /// Numbers of the outputs.
    outputs: usize,
    /// What is sent to the device before a step: [`Varying`], and the rows.
    message: Vec<u8>,
}

impl<D: Device> Engine<D> {
    /// Compiles the kernels and allocates all that steps need. The data set fits the model.
    ///
    /// `purpose`: with the examples that a batch is expected to have. `order`: the parameter (in PyTorch's order) that
    /// each normal of the noise belongs to.
    pub fn new(
        mut device: D,
        model: &ModelSpec,
        purpose: &Purpose,
        dataset: &Dataset,
        key: &Key,
        order: &[u32],
    ) -> Result<Self, DeviceError> {
        let limits = device.limits();
        let (program, plan) = Program::new(model, purpose, &limits)?;
        device.build(&program.source, &program.names)?;
        let (chunk, sizes, room) = (plan.chunk, program.sizes, program.room);
        let inbox = inbox(&mut device, room)?;
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
            rows: inbox + Varying::BYTES as u64,
            varying: inbox,
            order: array(&mut device, order, |v| v.to_ne_bytes())?,
            key: *key.words(),
            ..Step::default()
        };
        device.upload(base.non_finite, &0u64.to_ne_bytes())?;
        let outputs = plan.edges[plan.edges.len() - 1].length;
        let mut engine = Engine {
            recordings: Recordings::new(),
            records: limits.records,
            unrecorded: None,
            replays: 0,
            device,
            plan,
            program,
            base,
            number: 0,
            room,
            outputs,
            message: Vec::new(),
        };
        engine.try_to_record();
        Ok(engine)
    }

    /// Records a step that is never started: so it is known at load whether the device can.
    fn try_to_record(&mut self) {
        if !self.records {
            return;
        }
        let Engine { device, plan, program, base, .. } = self;
        let shape = Shape::roomy(true, plan.expected, program, plan);
        if let Err(error) = device.record(&launches(program, plan, base, shape)) {
            self.record_no_more(&error);
        }
    }

    /// From now on, steps are launched kernel by kernel.
    fn record_no_more(&mut self, error: &DeviceError) {
        let reason = format!("steps are launched kernel by kernel, as they can't be recorded: {error}");
        eprintln!("fused: {reason}");
        self.unrecorded = Some(reason);
        self.records = false;
    }

    /// What is slower than it should be, and why: nothing, if all is well.
    pub fn fallbacks(&self) -> Vec<String> {
        self.device.fallbacks().into_iter().chain(self.unrecorded.clone()).collect()
    }

    /// How many steps were started as recorded.
    pub fn replays(&self) -> u64 {
        self.replays
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
        let rows = slots.filter(|(_, counts)| **counts).map(|(row, _)| *row);
        let examples = batch.mask.iter().filter(|counts| **counts).count();
        let is_private = dp.mode == Mode::Private;
        let denominator = if is_private { dp.expected_batch_size } else { examples as f64 };
        let varying = Varying {
            number: self.number,
            clip_norm: dp.clip_norm,
            rate: (dp.learning_rate / denominator) as f32,
            noise: if is_private { (dp.noise_multiplier * dp.clip_norm) as f32 } else { 0.0 },
            examples: whole(examples),
        };
        // First, so that not even a step that fails midway leaves its noise to another.
        self.number += 1;
        if !is_private && examples == 0 {
            return Ok(());
        }
        self.send(&varying, rows)?;
        let Engine { recordings, device, plan, program, base, .. } = self;
        if !self.records {
            return device.launch_all(&launches(program, plan, base, Shape::exact(is_private, examples)));
        }
        let shape = Shape::roomy(is_private, examples, program, plan);
        let launches = || launches(program, plan, base, shape);
        match recordings.of(shape, || device.record(&launches())) {
            Take::Replay(recording) => {
                self.replays += 1;
                device.replay(recording)
            }
            Take::Launch => device.launch_all(&launches()),
            Take::CannotRecord(error) => {
                let launches = launches();
                self.record_no_more(&error);
                self.device.launch_all(&launches)
            }
        }
    }

    /// Takes `steps` steps on a batch that is not empty, one at least, whose kernels are timed one by one, and as many as
    /// they are taken otherwise; before them some that are not timed.
    pub fn profile(&mut self, batch: &BatchRef<'_>, dp: &DpSgd, steps: usize) -> Result<Profile, DeviceError> {
        // So many that the step has been recorded, and the device has found its clock.
        for _ in 0..steps.max(2) {
            self.step(batch, dp)?;
        }
        self.synchronize()?;
        let start = Instant::now();
        for _ in 0..steps {
            self.step(batch, dp)?;
        }
        self.synchronize()?;
        let step_s = start.elapsed().as_secs_f64() / steps as f64;
        let shape = Shape::exact(dp.mode == Mode::Private, batch.examples());
        // Those of the steps before read what was sent last, which still is there; noise is drawn anew all the same.
        let launches = launches(&self.program, &self.plan, &self.base, shape);
        let seconds = (0..steps).map(|_| self.device.time(&launches)).collect::<Result<Vec<_>, _>>()?;
        let launches: Vec<_> = launches.into_iter().map(|(launch, _)| launch).collect();
        let (device, peak) = (self.device.name(), self.device.peak());
        Ok(Profile::new(device, peak, &self.program.names, &launches, &seconds, step_s))
    }

    /// Sends what the next launches read: it arrives when those before are done, as copies and kernels happen in the order
    /// of the calls. So there is one place for it, and recordings can refer to that.
    fn send(&mut self, varying: &Varying, rows: impl Iterator<Item = u32>) -> Result<(), DeviceError> {
        self.message.clear();
        varying.write(&mut self.message);
        self.message.extend(rows.flat_map(u32::to_ne_bytes));
        let count = varying.examples as usize;
        if count > self.room {
            // What was there before stays, unused: batches grow a few times, if ever. But recordings refer to it. If
            // there is no memory, all is as it was.
            let room = count.next_power_of_two();
            let inbox = inbox(&mut self.device, room)?;
            self.recordings.clear();
            self.room = room;
            self.base.varying = inbox;
            self.base.rows = inbox + Varying::BYTES as u64;
        }
        self.device.upload(self.base.varying, &self.message)
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
        let room = self.program.room;
        let place = self.base.values + 4 * (self.program.sizes.values - room * self.outputs) as u64;
        let mut outputs = Vec::with_capacity(examples.len() * self.outputs);
        // No more at once than there has been room for since the load: recordings stay good.
        for rows in examples.chunks(room) {
            let count = rows.len();
            self.send(&Varying { examples: whole(count), ..Varying::default() }, rows.iter().copied())?;
            let step = Step { examples: whole(count), forward_only: 1, ..self.base };
            for kernels in [self.program.resident.as_slice(), &self.program.forward] {
                for launch in launches_of(kernels, count) {
                    self.device.launch(launch, &step)?;
                }
            }
            let mut bytes = vec![0; 4 * count * self.outputs];
            self.device.download(place, &mut bytes)?;
            outputs.extend(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)));
        }
        Ok(outputs)
    }
}

/// Memory for [`Varying`], and for so many rows behind it.
fn inbox(device: &mut impl Device, rows: usize) -> Result<u64, DeviceError> {
    device.allocate(Varying::BYTES + 4 * rows.max(1))
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
