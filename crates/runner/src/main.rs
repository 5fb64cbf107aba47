//! `runner`: see the library for what it does, and `runner --help` for how to ask for it.

use std::process::ExitCode;

use runner::cli::{self, Command, EXIT_ERROR, EXIT_OK, Stop};
use runner::cmd;

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(Stop::Help(text)) => {
            print!("{text}");
            return ExitCode::from(EXIT_OK);
        }
        Err(Stop::Usage(reason)) => {
            eprintln!("error: {reason}");
            return ExitCode::from(EXIT_ERROR);
        }
    };
    let outcome = match &cli.command {
        Some(Command::Setup(args)) => cmd::setup::run(args),
        Some(Command::Doctor(args)) => cmd::doctor::run(args),
        Some(Command::List(args)) => cmd::list::run(args),
        Some(Command::Verify(args)) => cmd::verify::run(args),
        Some(Command::Repeat(args)) => cmd::repeat::run(args),
        Some(Command::Plot(args)) => cmd::plot::run(args),
        Some(Command::Targets(args)) => cmd::targets::run(args),
        Some(Command::Bundle(args)) => cmd::bundle::run(args),
        Some(Command::Prepare) => return runner::prepare::main(),
        Some(Command::Calibrate { threads }) => return runner::calibrate::main(*threads),
        Some(Command::Guard) => return runner::worker::guard_main(),
        None if cli.run.all => cmd::run::run(&cli.run),
        None => {
            print!("{}", cli::help());
            Ok(EXIT_OK)
        }
    };
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("error: {}", error.to_string().replace('\n', " "));
            ExitCode::from(EXIT_ERROR)
        }
    }
}
