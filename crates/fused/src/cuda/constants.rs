//! The structs of constants that kernels are specialised by, one for each operation.

use std::fmt::Write;

use dpsgd_core::Loss;

use super::plan::{Map, Plan, Pool, Positions};

/// Where each edge of the plan begins, and how many numbers they have.
pub fn places(plan: &Plan) -> (Vec<usize>, usize) {
    let mut values = 0;
    let places = plan.edges.iter().map(|edge| {
        values += edge.length * plan.chunk;
        values - edge.length * plan.chunk
    });
    (places.collect(), values)
}

/// Constants of a struct.
pub struct Constants(String);

impl Constants {
    /// None yet.
    pub fn new(name: &str) -> Self {
        Constants(format!("struct {name} {{\n"))
    }

    /// A small number.
    pub fn int(mut self, name: &str, value: usize) -> Self {
        writeln!(self.0, "    static constexpr int {name} = {value};").expect("a string takes all");
        self
    }

    /// One that may be large.
    pub fn long(mut self, name: &str, value: usize) -> Self {
        writeln!(self.0, "    static constexpr i64 {name} = {value};").expect("a string takes all");
        self
    }

    /// Whether something is so.
    pub fn bool(mut self, name: &str, value: bool) -> Self {
        writeln!(self.0, "    static constexpr bool {name} = {value};").expect("a string takes all");
        self
    }

    /// Another name for a type.
    pub fn alias(mut self, name: &str, of: &str) -> Self {
        writeln!(self.0, "    typedef {of} {name};").expect("a string takes all");
        self
    }

    /// Small numbers.
    pub fn ints(self, values: &[(&str, usize)]) -> Self {
        values.iter().fold(self, |constants, (name, value)| constants.int(name, *value))
    }

    /// The struct's text.
    pub fn finish(self) -> String {
        self.0 + "};\n"
    }

    /// Of the copy of the inputs.
    pub fn input(plan: &Plan, places: &[usize]) -> Self {
        Constants::new("Input").int("LENGTH", plan.edges[0].length).long("OUT", places[0])
    }

    /// Of a map.
    pub fn map(name: &str, map: &Map, plan: &Plan, places: &[usize]) -> Self {
        let (input, output) = (plan.edges[map.input], plan.edges[map.output]);
        let constants = Constants::new(name);
        let constants = match map.positions {
            Positions::Image { from: [c, h, w], kernel, stride, padding, to: [oh, ow] } => constants
                .bool("SEQUENCE", false)
                .int("SHIFT", 0)
                .ints(&[("C", c), ("H", h), ("W", w), ("KH", kernel.h), ("KW", kernel.w)])
                .ints(&[("SH", stride.h), ("SW", stride.w), ("PH", padding.h), ("PW", padding.w)])
                .ints(&[("OH", oh), ("OW", ow)]),
            Positions::Sequence { shift, .. } => {
                let ones = ["C", "H", "W", "KH", "KW", "SH", "SW", "OH", "OW"].map(|name| (name, 1));
                constants.bool("SEQUENCE", true).int("SHIFT", shift).ints(&ones).int("PH", 0).int("PW", 0)
            }
        };
        constants
            .ints(&[("T", map.positions()), ("D", map.inputs), ("P", map.outputs), ("WEIGHT", map.weight)])
            .ints(&[("BIAS", map.bias.unwrap_or(0)), ("START", map.parameters.start)])
            .ints(&[("PARAMETERS", map.parameters.len()), ("KEPT_AT", map.kept_at)])
            .ints(&[("IN_LENGTH", input.length), ("OUT_LENGTH", output.length)])
            .long("IN", places[map.input])
            .long("OUT", places[map.output])
            .bool("HAS_BIAS", map.bias.is_some())
            .bool("RELU_IN", input.relu)
            .bool("RELU_OUT", output.relu)
    }

    /// Of a pool, whose marks begin at `marks`.
    pub fn pool(name: &str, pool: &Pool, plan: &Plan, places: &[usize], marks: usize) -> Self {
        let [c, h, w] = pool.from;
        Constants::new(name)
            .bool("SEQUENCE", pool.is_sequence)
            .bool("IS_MAX", pool.is_max)
            .bool("RELU_IN", plan.edges[pool.input].relu)
            .ints(&[("C", c), ("H", h), ("W", w), ("KH", pool.kernel.h), ("KW", pool.kernel.w)])
            .ints(&[("SH", pool.stride.h), ("SW", pool.stride.w), ("OH", pool.to[0]), ("OW", pool.to[1])])
            .long("IN", places[pool.input])
            .long("OUT", places[pool.output])
            .long("MARKS", marks)
    }

    /// Of a ReLU.
    pub fn relu(name: &str, input: usize, output: usize, plan: &Plan, places: &[usize]) -> Self {
        let length = plan.edges[input].length;
        Constants::new(name).int("LENGTH", length).long("IN", places[input]).long("OUT", places[output])
    }

    /// Of the loss.
    pub fn loss(plan: &Plan, places: &[usize]) -> Self {
        let output = plan.edges.len() - 1;
        let edge = plan.edges[output];
        let kind = match plan.loss {
            Loss::CrossEntropy => 0,
            Loss::BceWithLogits => 1,
            Loss::Mse => 2,
        };
        let constants = Constants::new("Loss").ints(&[("KIND", kind), ("LENGTH", edge.length)]);
        constants.bool("RELU", edge.relu).long("OUT", places[output])
    }
}
