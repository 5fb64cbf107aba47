//! `runner plot RESULTS`: the plots and the table again, from a results file alone.

use dpsgd_protocol::results::Results;

use super::Outcome;
use crate::cli::{EXIT_OK, PlotArgs};
use crate::out::results_file;

/// Carries out `runner plot`.
pub fn run(args: &PlotArgs) -> Outcome {
    let file = results_file(&args.results);
    let results = Results::load(&file)?;
    let folder = match &args.out {
        Some(folder) => folder.clone(),
        None => file.with_file_name("plots"),
    };
    let plots = dpsgd_report::plots(&results, &folder)?;
    println!("{}", dpsgd_report::table(&results));
    println!("plots: {} ({} files)", folder.display(), plots.len());
    Ok(EXIT_OK)
}
