//! The command line. What it says is checked here only as far as its form; `config` judges the values.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Exit status: everything asked for was done.
pub const EXIT_OK: u8 = 0;
/// Exit status of `repeat`: two processes that should agree to the bit do not.
pub const EXIT_DIFFERS: u8 = 1;
/// Exit status of `targets`: one is missed, or a row that it needs failed.
pub const EXIT_MISSED: u8 = 1;
/// Exit status: wrong usage, wrong input, or the harness itself failed.
pub const EXIT_ERROR: u8 = 2;
/// Exit status of `targets`: none is missed, but a row that one needs is not there, or its interval leaves it open.
pub const EXIT_ABSENT: u8 = 3;
/// Exit status: a contender's step is not the right step.
pub const EXIT_DISQUALIFIED: u8 = 4;

const EXAMPLES: &str = "\
Examples:
  runner --all                                      measure every contender of bench-configs/default.toml
  runner --all --strategies naive --workloads ffnn  one contender, one workload
  runner --all --dry-run                            show the plan and its estimated time
  runner --resume --out DIR                         continue a run that was cut short
  runner doctor                                     what is installed and what is missing

Exit status: 0 fine; 1 a repetition differs, or a target is missed; 2 usage or harness error; 3 a target was not
measured; 4 a contender was disqualified.";

/// Measures every way to run differentially private SGD, verified against a float64 oracle.
#[derive(Debug, Parser)]
#[command(name = "runner", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Options of `runner --all`.
    #[command(flatten)]
    pub run: RunArgs,
    /// Everything but `--all`.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Find or install what the contenders need, and build them
    Setup(SetupArgs),
    /// Say what this machine has, what is missing, and how to get it
    Doctor(DoctorArgs),
    /// List strategies, workloads and configs
    List(ListArgs),
    /// Check the contenders' steps against the float64 oracle, without timing them
    Verify(VerifyArgs),
    /// Run the same steps with the same noise in two processes, and compare the parameters bit by bit
    Repeat(RepeatArgs),
    /// Draw the plots and the table of a results file again
    Plot(PlotArgs),
    /// Hold results against targets: which are met, which are missed
    Targets(TargetsArgs),
    /// Write one archive that runs on a machine without cargo, such as a GPU host
    Bundle(BundleArgs),
    /// One job of a run's preparation, in a process of its own.
    #[command(name = "__prepare", hide = true)]
    Prepare,
    /// Measures the machine's peak, in a process of its own.
    #[command(name = "__calibrate", hide = true)]
    Calibrate {
        /// Threads at work at the same time.
        threads: usize,
    },
    /// Ends the workers of a runner that is gone.
    #[command(name = "__guard", hide = true)]
    Guard,
}

/// `runner --all`.
#[derive(Debug, Default, PartialEq, Args)]
pub struct RunArgs {
    /// Measure every contender of the config
    #[arg(long)]
    pub all: bool,
    /// What to measure.
    #[command(flatten)]
    pub selection: Selection,
    /// Batch sizes, in place of the config's
    #[arg(long, value_delimiter = ',', value_name = "N,...", allow_negative_numbers = true)]
    pub batch_sizes: Option<Vec<usize>>,
    /// Epochs per process, in place of the config's
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub epochs: Option<usize>,
    /// Fresh processes per row that are timed in alternation, in place of the config's
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub processes: Option<usize>,
    /// Fresh processes per row that run alone, for what is cold and for memory, in place of the config's
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub cold_processes: Option<usize>,
    /// Seconds of warm epochs of a process that is timed in alternation, in place of the config's
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    pub seconds: Option<f64>,
    /// At most this many examples per epoch, in place of the config's
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub examples: Option<usize>,
    /// Folder of the results [default: results/<UTC time>-<machine>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Continue the run in --out, with the options that it began with: rows already measured are kept
    #[arg(long, requires = "out")]
    pub resume: bool,
    /// Print the plan and its estimated time, and measure nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Where things are.
    #[command(flatten)]
    pub places: Places,
}

/// What to run, of all that the config names.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct Selection {
    /// What to run [default: bench-configs/default.toml; for `verify`, everything]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// `cpu` or `cuda:0` [default: the config's]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Threads of every contender [default: the config's, or all processors]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub threads: Option<usize>,
    /// Contenders: a strategy with all its variants (`batched`) or one of them (`batched:captured`)
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    pub strategies: Option<Vec<String>>,
    /// Workloads by name
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    pub workloads: Option<Vec<String>>,
    /// `private`, `non_private` or both
    #[arg(long, value_delimiter = ',', value_name = "MODE,...")]
    pub modes: Option<Vec<String>>,
    /// Folder that holds full data sets, in place of the samples built in
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// Where things are.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct Places {
    /// The contenders [default: bench-configs/strategies.toml]
    #[arg(long, value_name = "FILE")]
    pub registry: Option<PathBuf>,
    /// Folder of prebuilt workers, in place of building them with cargo [default in a bundle: its own]
    #[arg(long, value_name = "DIR")]
    pub workers: Option<PathBuf>,
    /// Python interpreter with the contenders' packages, in place of environments of our own
    #[arg(long, value_name = "EXE")]
    pub python: Option<PathBuf>,
    /// Folder for environments of our own [default: DPSGD_ENVS, or .envs in the checkout]
    #[arg(long, value_name = "DIR")]
    pub envs: Option<PathBuf>,
}

/// `runner setup`.
#[derive(Debug, Default, Args)]
pub struct SetupArgs {
    /// Only these contenders [default: all of the registry]
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    pub strategies: Option<Vec<String>>,
    /// Where things are.
    #[command(flatten)]
    pub places: Places,
}

/// `runner doctor`.
#[derive(Debug, Default, Args)]
pub struct DoctorArgs {
    /// Where things are.
    #[command(flatten)]
    pub places: Places,
}

/// `runner list`.
#[derive(Debug, Default, Args)]
pub struct ListArgs {
    /// In place of the lists, what each strategy that plans its step means to do for each workload
    #[arg(long)]
    pub plan: bool,
    /// Workloads to plan for [default: all that are built in]
    #[arg(long, value_delimiter = ',', value_name = "NAME,...", requires = "plan")]
    pub workloads: Option<Vec<String>>,
    /// Folder that holds full data sets
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where things are.
    #[command(flatten)]
    pub places: Places,
}

/// `runner verify`.
#[derive(Debug, Default, Args)]
pub struct VerifyArgs {
    /// What to verify.
    #[command(flatten)]
    pub selection: Selection,
    /// Where things are.
    #[command(flatten)]
    pub places: Places,
}

/// `runner repeat`.
#[derive(Debug, Default, Args)]
pub struct RepeatArgs {
    /// What to repeat.
    #[command(flatten)]
    pub selection: Selection,
    /// Batch sizes, in place of the config's
    #[arg(long, value_delimiter = ',', value_name = "N,...", allow_negative_numbers = true)]
    pub batch_sizes: Option<Vec<usize>>,
    /// Examples in the epoch [default: 512]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub examples: Option<usize>,
    /// Where things are.
    #[command(flatten)]
    pub places: Places,
}

/// `runner bundle`.
#[derive(Debug, Default, Args)]
pub struct BundleArgs {
    /// The archive, a .tar.gz [default: dpsgd-bench-<version>-<processor>-<system>.tar.gz here]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Workers of these contenders only [default: all of the registry]
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    pub strategies: Option<Vec<String>>,
    /// Where things are.
    #[command(flatten)]
    pub places: Places,
}

/// `runner plot`.
#[derive(Debug, Args)]
pub struct PlotArgs {
    /// A results file, or the folder of one
    #[arg(value_name = "RESULTS")]
    pub results: PathBuf,
    /// Folder of the plots [default: `plots` beside the results file]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// `runner targets`.
#[derive(Debug, Args)]
pub struct TargetsArgs {
    /// Results files, or the folders of them
    #[arg(value_name = "RESULTS", required = true)]
    pub results: Vec<PathBuf>,
    /// The targets [default: bench-configs/gpu-targets.toml]
    #[arg(long, value_name = "FILE")]
    pub targets: Option<PathBuf>,
}

/// Why [`parse`] has nothing to run.
#[derive(Debug)]
pub enum Stop {
    /// Help or version, for stdout.
    Help(String),
    /// A usage error, one line without the leading `error: `.
    Usage(String),
}

/// Reads the command line.
pub fn parse(args: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Cli, Stop> {
    use clap::error::ErrorKind;
    let mut cli = Cli::try_parse_from(args).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Stop::Help(error.render().to_string()),
        _ => Stop::Usage(one_line(&error.render().to_string())),
    })?;
    // What is continued is a run.
    cli.run.all |= cli.run.resume;
    if cli.command.is_none() && !cli.run.all && cli.run != RunArgs::default() {
        return Err(Stop::Usage(
            "options of a run without `--all`: add `--all` to measure; see `runner --help`".into(),
        ));
    }
    Ok(cli)
}

/// The help text of `runner` alone.
pub fn help() -> String {
    <Cli as clap::CommandFactory>::command().render_help().to_string()
}

/// clap's message up to its usage, its paragraphs joined into one line.
fn one_line(message: &str) -> String {
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let lines =
        message.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    format!("{}; see `runner --help`", lines.join("; ").replace(":;", ":").replace("; tip:", ";"))
}
