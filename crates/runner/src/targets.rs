//! What contenders are meant to reach: a file such as `bench-configs/gpu-targets.toml`, checked.

use std::path::{Path, PathBuf};

use dpsgd_core::{InputError, Mode, read_toml};
use dpsgd_report::targets::{Bound, Side, Target};
use serde::Deserialize;

use crate::checkout::Checkout;
use crate::config::{ConfigError, check_sizes, not_empty, once};
use crate::registry::DeviceKind;

/// A targets file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetsFile {
    device: DeviceKind,
    #[serde(default)]
    batch_sizes: Vec<usize>,
    #[serde(rename = "target")]
    targets: Vec<WrittenTarget>,
}

/// A target as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTarget {
    workloads: Vec<String>,
    contender: String,
    mode: Mode,
    against: String,
    against_mode: Option<Mode>,
    at_least: Option<f64>,
    at_most: Option<f64>,
}

/// All targets of a file, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Targets {
    path: PathBuf,
    device: DeviceKind,
    batch_sizes: Vec<usize>,
    targets: Vec<Target>,
}

/// Reads the targets: `--targets` or the default ones.
pub fn read_targets(path: Option<&Path>) -> Result<Targets, ConfigError> {
    let path = match path {
        Some(path) => path.to_path_buf(),
        None => Checkout::find().ok_or(ConfigError::NoCheckout("--targets"))?.targets(),
    };
    Ok(Targets::read(&path)?)
}

impl Targets {
    /// Reads and checks a targets file; the error is one line that names file, target and what is allowed.
    pub fn read(path: &Path) -> Result<Self, InputError> {
        let file: TargetsFile = read_toml(path)?;
        let wrong = |reason| InputError { path: path.display().to_string(), place: String::new(), reason };
        if file.targets.is_empty() {
            return Err(wrong("target = []: add at least one [[target]]".into()));
        }
        if !file.batch_sizes.is_empty() {
            check_sizes(&file.batch_sizes).map_err(wrong)?;
        }
        let check = |(i, target): (usize, WrittenTarget)| {
            target.check().map_err(|reason| wrong(format!("target {}: {reason}", i + 1)))
        };
        let targets = file.targets.into_iter().enumerate().map(check).collect::<Result<_, _>>()?;
        Ok(Targets { path: path.to_path_buf(), device: file.device, batch_sizes: file.batch_sizes, targets })
    }

    /// The file they were read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kind of device that they are for.
    pub fn device(&self) -> DeviceKind {
        self.device
    }

    /// Those in which each target is to be met, whatever else was measured.
    pub fn batch_sizes(&self) -> &[usize] {
        &self.batch_sizes
    }

    /// The targets, in the order of the file.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }
}

impl WrittenTarget {
    fn check(self) -> Result<Target, String> {
        not_empty(&self.workloads, "workloads")?;
        once(self.workloads.iter().map(String::as_str), "workloads")?;
        for (key, name) in [("contender", &self.contender), ("against", &self.against)] {
            let parts: Vec<&str> = name.split(':').collect();
            if parts.len() > 2 || parts.iter().any(|part| part.trim().is_empty()) {
                return Err(format!("{key} = \"{name}\": must be `strategy` or `strategy:variant`"));
            }
        }
        let subject = Side { contender: self.contender, mode: self.mode };
        let against = Side { contender: self.against, mode: self.against_mode.unwrap_or(self.mode) };
        if subject == against {
            return Err(format!(
                "against = \"{}\": is the contender itself in the same mode; name another, or another against_mode",
                against.contender
            ));
        }
        let positive = |key: &str, value: f64| match value.is_finite() && value > 0.0 {
            true => Ok(value),
            false => Err(format!("{key} = {value:?}: must be a finite number above 0")),
        };
        let bound = match (self.at_least, self.at_most) {
            (Some(times), None) => Bound::AtLeast(positive("at_least", times)?),
            (None, Some(times)) => Bound::AtMost(positive("at_most", times)?),
            (None, None) => return Err("no bound: give at_least or at_most".into()),
            (Some(least), Some(most)) => {
                return Err(format!("at_least = {least:?} and at_most = {most:?}: give one of them"));
            }
        };
        Ok(Target { workloads: self.workloads, subject, against, bound })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
device = "cuda"

[[target]]
workloads = ["ffnn", "lstm"]
contender = "fused:best"
mode = "private"
against = "jax:jit+vmap"
at_least = 10.0

[[target]]
workloads = ["ffnn"]
contender = "fused:best"
mode = "private"
against = "fused:best"
against_mode = "non_private"
at_most = 1.2
"#;

    fn read(text: &str) -> Result<Targets, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        std::fs::write(&path, text).unwrap();
        Targets::read(&path).map_err(|error| error.to_string())
    }

    /// Checks that [`FILE`] with `from` replaced by `to` is refused in one line with the file and all of `parts`.
    fn assert_refused(from: &str, to: &str, parts: &[&str]) {
        assert!(FILE.contains(from), "{from}");
        let said = read(&FILE.replacen(from, to, 1)).unwrap_err();
        assert_eq!(said.lines().count(), 1, "{said}");
        for part in parts.iter().chain(&["mine.toml"]) {
            assert!(said.contains(part), "`{part}` is not in: {said}");
        }
    }

    #[test]
    fn the_other_mode_is_the_same_unless_given() {
        let targets = read(FILE).unwrap();
        assert_eq!(targets.device(), DeviceKind::Cuda);
        let side = |name: &str, mode| Side { contender: name.into(), mode };
        let [first, second] = targets.targets() else { panic!("{targets:?}") };
        assert_eq!(first.workloads, ["ffnn", "lstm"]);
        assert_eq!(first.subject, side("fused:best", Mode::Private));
        assert_eq!((&first.against, first.bound), (&side("jax:jit+vmap", Mode::Private), Bound::AtLeast(10.0)));
        assert_eq!((&second.against, second.bound), (&side("fused:best", Mode::NonPrivate), Bound::AtMost(1.2)));
    }

    #[test]
    fn unknown_and_missing_keys_are_named() {
        assert_refused("device", "devise", &["mine.toml:2", "unknown field `devise`", "did you mean `device`?"]);
        assert_refused("at_least", "at_lest", &["mine.toml:9", "unknown field `at_lest`", "did you mean `at_least`?"]);
        assert_refused(
            "device = \"cuda\"",
            "device = \"cuda\"\nbatch_sizes = [0]",
            &["batch size 0: must be at least 1"],
        );
        assert_refused("device = \"cuda\"", "", &["missing field `device`"]);
        assert_refused("mode = \"private\"\n", "", &["mine.toml:4", "missing field `mode`"]);
    }

    #[test]
    fn unknown_modes_and_devices_are_refused_with_the_nearest_valid_name() {
        assert_refused("\"cuda\"", "\"cuda:0\"", &["unknown variant `cuda:0`", "did you mean `cuda`?"]);
        assert_refused("\"private\"", "\"privat\"", &["unknown variant `privat`", "did you mean `private`?"]);
    }

    #[test]
    fn a_file_without_targets_and_a_target_without_workloads_are_refused() {
        let said = read("device = \"cpu\"\ntarget = []\n").unwrap_err();
        assert!(said.ends_with("mine.toml: target = []: add at least one [[target]]"), "{said}");
        assert_refused("[\"ffnn\", \"lstm\"]", "[]", &["target 1: workloads = []: name at least one"]);
        let twice = "workloads: lstm is there twice; name it once";
        assert_refused("\"ffnn\", \"lstm\"", "\"lstm\", \"lstm\"", &["target 1", twice]);
    }

    #[test]
    fn contenders_that_can_be_none_are_refused() {
        for name in ["", "fused:", ":best", "fused:best:tf32"] {
            let to = format!("contender = {name:?}");
            let expected = format!("target 1: {to}: must be `strategy` or `strategy:variant`");
            assert_refused("contender = \"fused:best\"", &to, &[&expected]);
        }
        let itself = "target 2: against = \"fused:best\": is the contender itself in the same mode";
        assert_refused("against_mode = \"non_private\"\n", "", &[itself, "against_mode"]);
    }

    #[test]
    fn exactly_one_bound_is_taken_and_it_is_positive_and_finite() {
        assert_refused("at_least = 10.0\n", "", &["target 1: no bound: give at_least or at_most"]);
        let both = "target 2: at_least = 3.0 and at_most = 1.2: give one of them";
        assert_refused("at_most = 1.2", "at_most = 1.2\nat_least = 3.0", &[both]);
        for (value, shown) in [("0.0", "0.0"), ("-1.0", "-1.0"), ("inf", "inf"), ("nan", "NaN")] {
            let expected = format!("target 1: at_least = {shown}: must be a finite number above 0");
            assert_refused("at_least = 10.0", &format!("at_least = {value}"), &[&expected]);
            let expected = format!("target 2: at_most = {shown}: must be a finite number above 0");
            assert_refused("at_most = 1.2", &format!("at_most = {value}"), &[&expected]);
        }
    }

    #[test]
    fn the_targets_of_this_checkout_name_built_in_workloads_and_contenders_of_its_registry() {
        let checkout = Checkout::around(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        let targets = read_targets(Some(&checkout.targets())).unwrap();
        let registry = crate::config::read_registry(Some(&checkout.registry())).unwrap();
        let known: Vec<&str> = dpsgd_core::ModelSpec::built_in_names().collect();
        for target in targets.targets() {
            assert!(target.workloads.iter().all(|name| known.contains(&name.as_str())), "{target:?}");
            for side in [&target.subject, &target.against] {
                let named = registry.contenders(&side.contender).unwrap();
                assert!(named.len() == 1 && named[0].name() == side.contender, "{side}");
            }
        }
        // Each workload has a target against JAX, and one for the price of privacy.
        let of = |name: &str| targets.targets().iter().filter(|t| t.workloads.iter().any(|w| w == name)).count();
        assert!(known.iter().all(|name| of(name) == 2));
    }
}
