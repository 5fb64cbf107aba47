//! `runner bundle`: one archive that runs on a machine without cargo, such as a GPU host.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use super::Outcome;
use crate::checkout::{BUNDLE_FILE, Bundle};
use crate::cli::{BundleArgs, EXIT_OK};
use crate::config::read_registry;
use crate::measure::environment::commit;
use crate::registry::{Entry, Environment};
use crate::setup::build::{self, Built};
use crate::setup::{Host, libtorch};

/// Where the workers are within a bundle.
const WORKERS: &str = "workers";
/// Where tests for a device are within a bundle.
const CHECKS: &str = "checks";
/// What of the checkout is in a bundle as it is.
const COPIED: [&str; 8] =
    ["bench-configs", "peers", "docs", "ci/gpu", "ci/check-run", "README.md", "LICENSE-APACHE", "LICENSE-MIT"];

/// Builds the runner and the workers in the release profile and writes them, with what they need at run time, into one
/// archive.
pub fn run(args: &BundleArgs) -> Outcome {
    let registry = read_registry(args.places.registry.as_deref())?;
    let wanted =
        registry.entries_named(args.strategies.as_deref()).map_err(|reason| format!("--strategies: {reason}"))?;
    let host = Host::of(&args.places)?;
    let name = name();
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
    if !out.to_string_lossy().ends_with(".tar.gz") {
        return Err(format!("--out {}: a bundle is a .tar.gz", out.display()).into());
    }
    crate::out::check_writable(out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
    let built = build(&host, &wanted)?;
    let checks = build_checks(&host, &wanted)?;
    let bundle = Bundle {
        version: env!("CARGO_PKG_VERSION").into(),
        commit: commit(host.checkout.root()),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        libtorch: needs_libtorch(&wanted).then(|| libtorch::VERSION.into()),
    };
    let mut partial = out.as_os_str().to_owned();
    partial.push(".partial");
    let written = write(Path::new(&partial), &name, &host, &built, &checks, &bundle)
        .and_then(|()| std::fs::rename(&partial, &out));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&partial);
        format!("{}: {error}", out.display())
    })?;
    let megabytes = std::fs::metadata(&out)?.len() as f64 / 1e6;
    println!("{} ({megabytes:.1} MB): unpack it, then, within {name}/:", out.display());
    println!("  ./runner --all --python python3 --device cuda:0");
    println!("  ci/gpu --python python3");
    Ok(EXIT_OK)
}

/// The folder that a bundle unpacks to.
fn name() -> String {
    format!("dpsgd-bench-{}-{}-{}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, std::env::consts::OS)
}

fn needs_libtorch(wanted: &[&Entry]) -> bool {
    wanted.iter().any(|entry| entry.environment == Environment::Libtorch)
}

/// Builds the runner and the workers of `wanted`; all of them, or none: a bundle does not lack a contender unasked.
fn build(host: &Host, wanted: &[&Entry]) -> Result<Built, String> {
    let libtorch = needs_libtorch(wanted).then(|| libtorch::find_or_install(host)).transpose()?;
    let mut packages: Vec<&str> =
        wanted.iter().filter_map(|entry| Some(entry.build.as_ref()?.package.as_str())).collect();
    packages.push("runner");
    let mut built = build::build(host, &packages, libtorch.as_ref().map(|found| found.path.as_path()))?;
    built.executables.retain(|name, _| packages.contains(&name.as_str()));
    match packages.iter().find(|package| !built.executables.contains_key(**package)) {
        None => Ok(built),
        Some(package) => Err(format!(
            "{package} did not build: `cargo build --release -p {package}` shows why; or leave it out by naming others with \
             --strategies"
        )),
    }
}

/// Builds the tests for a device of the packages of `wanted` that have some; by package.
fn build_checks(host: &Host, wanted: &[&Entry]) -> Result<BTreeMap<String, PathBuf>, String> {
    let builds = wanted.iter().filter_map(|entry| entry.build.as_ref());
    let targets = builds.filter_map(|build| Some((build.package.clone(), build.device_tests.as_deref()?)));
    targets.map(|(package, target)| Ok((package.clone(), build::build_tests(host, &package, target)?))).collect()
}

fn write(
    path: &Path,
    name: &str,
    host: &Host,
    built: &Built,
    checks: &BTreeMap<String, PathBuf>,
    bundle: &Bundle,
) -> std::io::Result<()> {
    let file = BufWriter::new(File::create(path)?);
    let mut archive = Archive { tar: Builder::new(GzEncoder::new(file, Compression::default())), root: name.into() };
    for (package, executable) in &built.executables {
        let place = if package == "runner" { PathBuf::from(package) } else { Path::new(WORKERS).join(package) };
        archive.file(executable, &place)?;
    }
    for (package, executable) in checks {
        archive.file(executable, &Path::new(CHECKS).join(package))?;
    }
    // So that the folder is there even if no worker is built.
    archive.folder(Path::new(WORKERS))?;
    for place in COPIED {
        archive.tree(host.checkout.root(), Path::new(place))?;
    }
    let text = serde_json::to_string_pretty(bundle).expect("plain data") + "\n";
    archive.bytes(text.as_bytes(), 0o644, Path::new(BUNDLE_FILE))?;
    archive.tar.into_inner()?.finish()?.flush()
}

/// An archive whose entries say nothing of who made them, or when.
struct Archive<W: Write> {
    tar: Builder<W>,
    root: PathBuf,
}

impl<W: Write> Archive<W> {
    /// A file or a folder of the checkout at `root`, without hidden files and what Python leaves behind.
    fn tree(&mut self, root: &Path, place: &Path) -> std::io::Result<()> {
        let path = root.join(place);
        if !path.is_dir() {
            return self.file(&path, place);
        }
        let mut names: Vec<_> =
            std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<_>>()?;
        names.sort();
        let left_out = |name: &str| name.starts_with('.') || name == "__pycache__";
        for name in names.iter().filter(|name| !left_out(&name.to_string_lossy())) {
            self.tree(root, &place.join(name))?;
        }
        Ok(())
    }

    fn file(&mut self, source: &Path, place: &Path) -> std::io::Result<()> {
        let failed =
            |error: std::io::Error| std::io::Error::new(error.kind(), format!("{}: {error}", source.display()));
        let executable = source.metadata().map_err(failed)?.permissions().mode() & 0o111 != 0;
        let bytes = std::fs::read(source).map_err(failed)?;
        self.bytes(&bytes, if executable { 0o755 } else { 0o644 }, place)
    }

    fn folder(&mut self, place: &Path) -> std::io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        self.tar.append_data(&mut header, self.root.join(place), std::io::empty())
    }

    fn bytes(&mut self, bytes: &[u8], mode: u32, place: &Path) -> std::io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_mode(mode);
        header.set_size(bytes.len() as u64);
        self.tar.append_data(&mut header, self.root.join(place), bytes)
    }
}
