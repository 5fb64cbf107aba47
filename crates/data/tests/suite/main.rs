//! What the data sets promise: known rows, known errors, learnable stand-ins, fixed-shape schedules.

mod adult;
mod cifar10;
mod imdb;
mod mnist;
mod naming;
mod schedule;
mod synthetic;

use std::path::Path;

use dpsgd_core::{Dataset, Inputs, ModelSpec, Targets};

fn built_in(name: &str) -> ModelSpec {
    ModelSpec::built_in(name).expect("a built-in model")
}

fn numbers(dataset: &Dataset) -> &[f32] {
    match &dataset.inputs {
        Inputs::F32(values) => values,
        Inputs::Tokens(_) => panic!("tokens where numbers were expected"),
    }
}

fn tokens(dataset: &Dataset) -> &[i32] {
    match &dataset.inputs {
        Inputs::Tokens(tokens) => tokens,
        Inputs::F32(_) => panic!("numbers where tokens were expected"),
    }
}

fn classes(dataset: &Dataset) -> &[i32] {
    match &dataset.targets {
        Targets::Class(classes) => classes,
        Targets::Value(_) => panic!("numbers where classes were expected"),
    }
}

fn values(dataset: &Dataset) -> &[f32] {
    match &dataset.targets {
        Targets::Value(values) => values,
        Targets::Class(_) => panic!("classes where numbers were expected"),
    }
}

/// The error of loading `name` from `folder`, as the user sees it: one line.
fn error_of(name: &str, model: &ModelSpec, folder: &Path) -> String {
    let text = dpsgd_data::load(name, model, None, Some(folder), 0).expect_err("must fail").to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing in: {text}");
    }
}
