//! Which share of the machine's peak each row reached.

use dpsgd_core::cost;
use dpsgd_protocol::results::{Cell, Results, RunConfig, Status};

/// Fills `roofline_fraction` of every row from its warm epoch and the largest calibration so far: anew for all rows, because
/// a later calibration may be larger. A row has none if it is not `ok`, if there is no calibration, and on a GPU, whose
/// peak is not measured.
pub fn fill(results: &mut Results) {
    let peak = results.environment.peak_flops_per_s();
    for cell in &mut results.cells {
        cell.roofline_fraction = peak.and_then(|peak| fraction(cell, &results.config, peak));
    }
}

fn fraction(cell: &Cell, config: &RunConfig, peak_flops_per_s: f64) -> Option<f64> {
    if cell.status != Status::Ok || cell.device != "cpu" || cell.batch_size == 0 {
        return None;
    }
    let position = config.workloads.iter().position(|name| *name == cell.workload)?;
    let step = cost::plain_step(config.models.get(position)?, cell.batch_size).ok()?;
    let steps = cell.examples_per_epoch / cell.batch_size;
    dpsgd_roofline::fraction(step.flops, steps, cell.warm_epoch_s?, peak_flops_per_s)
}

#[cfg(test)]
mod tests {
    use dpsgd_core::ModelSpec;
    use dpsgd_protocol::results::Calibration;
    use serde_json::json;

    use super::*;

    /// A run of `logreg` and `ffnn` with one row of each contender and mode, all of 10 batches of 32 in half a second.
    fn results(calibrations: &[f64]) -> Results {
        let model = |name: &str| ModelSpec::built_in(name).unwrap();
        let row = |workload: &str, mode: &str, status: &str, device: &str| {
            json!({
                "workload": workload, "data": "real", "batch_size": 32, "mode": mode, "strategy": "s", "device": device,
                "threads": 2, "status": status, "examples_per_epoch": 320, "processes": [], "warm_epoch_s": 0.5,
                "warnings": []
            })
        };
        let calibration = |flops_per_s: &f64| Calibration {
            taken: "2026-11-24T03:20:00Z".into(),
            threads: 2,
            flops_per_s: *flops_per_s,
            matrix_size: 768,
            bytes_per_s: 2e10,
            triad_bytes: 384 << 20,
        };
        let results = json!({
            "schema_version": 1,
            "environment": {
                "started": "2026-11-24T03:20:00Z", "version": "0.1.0", "os": "", "cpu": "", "cpus": 2,
                "cpu_features": [], "memory_bytes": 1, "gpus": [], "contenders": []
            },
            "config": {
                "workloads": ["logreg", "ffnn"], "models": [model("logreg"), model("ffnn")], "datasets": [],
                "contenders": ["s"], "batch_sizes": [32], "modes": ["private"], "device": "cpu", "threads": 2,
                "processes": 1, "epochs": 1, "schedule": "shuffle", "seed": 1, "clip_norm": 1.0,
                "noise_multiplier": 1.0, "learning_rate": 0.1, "timeout_s": 60.0
            },
            "cells": [
                row("ffnn", "private", "ok", "cpu"), row("ffnn", "non_private", "ok", "cpu"),
                row("logreg", "private", "ok", "cpu"), row("ffnn", "private", "disqualified", "cpu"),
                row("ffnn", "private", "ok", "cuda:0"), row("unknown", "private", "ok", "cpu")
            ]
        });
        let mut results: Results = serde_json::from_value(results).unwrap();
        results.environment.calibrations = calibrations.iter().map(calibration).collect();
        results
    }

    fn fractions(calibrations: &[f64]) -> Vec<Option<f64>> {
        let mut results = results(calibrations);
        fill(&mut results);
        results.cells.iter().map(|cell| cell.roofline_fraction).collect()
    }

    #[test]
    fn a_fraction_is_that_of_the_plain_step_in_both_modes_and_of_the_largest_calibration() {
        let expected = |workload: &str| {
            let flops = cost::plain_step(&ModelSpec::built_in(workload).unwrap(), 32).unwrap().flops;
            flops * 10.0 / 0.5 / 2e9
        };
        let found = fractions(&[1e9, 2e9, 1.5e9]);
        assert_eq!(found[..3], [Some(expected("ffnn")), Some(expected("ffnn")), Some(expected("logreg"))]);
    }

    #[test]
    fn rows_that_are_not_ok_or_not_of_this_processor_have_none() {
        assert_eq!(fractions(&[1e9])[3..], [None, None, None]);
    }

    #[test]
    fn without_a_calibration_no_row_has_one_and_one_of_before_is_not_kept() {
        assert_eq!(fractions(&[]), [None; 6]);
        assert_eq!(fractions(&[f64::NAN, 0.0, f64::INFINITY]), [None; 6]);
        let mut results = results(&[]);
        results.cells[0].roofline_fraction = Some(0.5);
        fill(&mut results);
        assert_eq!(results.cells[0].roofline_fraction, None);
    }

    #[test]
    fn a_later_and_larger_calibration_makes_the_fraction_smaller() {
        let mut results = results(&[1e9]);
        fill(&mut results);
        let before = results.cells[0].roofline_fraction.unwrap();
        results.environment.calibrations[0].flops_per_s = 4e9;
        fill(&mut results);
        assert_eq!(results.cells[0].roofline_fraction, Some(before / 4.0));
    }
}
