//! A worker with a plan, for tests: `planning_worker WORD plan MODEL.json` prints the word, the model's name and its
//! layers; with the word `fail` it fails, as a worker does that can't run the model.

use std::path::Path;
use std::process::ExitCode;

use dpsgd_core::ModelSpec;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [word, command, file] = &arguments[..] else {
        eprintln!("usage: planning_worker WORD plan MODEL.json");
        return ExitCode::from(2);
    };
    match (word.as_str(), command.as_str(), ModelSpec::read(Path::new(file))) {
        ("fail", ..) => {
            println!("half a plan");
            eprintln!("thinking");
            eprintln!("error: layer 1 is beyond me");
            ExitCode::from(3)
        }
        (_, "plan", Ok(model)) => {
            println!("{word}: {} in {} layers", model.name, model.layers.len());
            model.layers.iter().for_each(|layer| println!("  {}", layer.kind()));
            ExitCode::SUCCESS
        }
        (_, _, model) => {
            eprintln!("error: {command}, {model:?}");
            ExitCode::from(2)
        }
    }
}
