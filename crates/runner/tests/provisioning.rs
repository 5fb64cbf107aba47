//! Provisioning on a disk that really fills up: a small file system of the test's own, in a mount namespace of its own.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// A python3 that says what it is, as the probe asks.
const PYTHON: &str = "#!/bin/sh\necho '{\"executable\": \"PYTHON\", \"version\": [3, 11, 7], \"torch\": null}'\n";

/// A uv that makes an environment, and fills the disk when it installs into it.
const UV: &str = r#"#!/bin/sh
case "$1" in
venv) for folder; do :; done; mkdir -p "$folder/bin" ;;
pip) dd if=/dev/zero of="$(dirname "$6")/library" bs=1M ;;
esac
"#;

const REGISTRY: &str = r#"
[[strategy]]
name = "jax"
description = "needs an environment"
environment = "jax"
start = ["{python}", "x.py"]
empty_batch = true
non_finite = false

[[strategy]]
name = "ready"
description = "needs nothing"
start = ["/bin/true"]
empty_batch = true
non_finite = false
"#;

fn script(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    fs::write(&draft, text).unwrap();
    // By another process: a file that was open for writing here while another test forked could not be started.
    assert!(Command::new("install").args(["-m", "755"]).arg(&draft).arg(path).status().unwrap().success());
}

/// `runner setup` with `.envs` on a file system of `megabytes`; `None` where this user may not mount one.
fn setup_on_a_disk_of(megabytes: u32) -> Option<Output> {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["bin", "envs", "root/bench-configs", "root/peers/requirements"] {
        fs::create_dir_all(path(name)).unwrap();
    }
    fs::write(path("root/Cargo.toml"), "").unwrap();
    fs::write(path("root/peers/requirements/jax.lock"), "jax==0.10.2\n").unwrap();
    fs::write(path("root/bench-configs/strategies.toml"), REGISTRY).unwrap();
    script(&path("bin/python3"), &PYTHON.replace("PYTHON", path("bin/python3").to_str().unwrap()));
    script(&path("bin/uv"), UV);
    let mount = format!(
        "mount -t tmpfs -o size={megabytes}m tmpfs '{0}/envs' || exit 77; PATH='{0}/bin':/usr/bin:/bin; exec \"$@\"",
        folder.path().display()
    );
    let mut unshare = Command::new("unshare");
    // As root of a namespace of its own, which any user may make where that is allowed at all.
    unshare
        .args(["-r", "-m", "sh", "-c", &mount, "sh", env!("CARGO_BIN_EXE_runner"), "setup", "--envs"])
        .arg(path("envs"));
    unshare.current_dir(path("root")).env_remove("LIBTORCH");
    match unshare.output() {
        Ok(output) if !String::from_utf8_lossy(&output.stderr).starts_with("unshare:") => {
            (output.status.code() != Some(77)).then_some(output)
        }
        _ => None,
    }
}

#[test]
fn a_disk_that_is_full_or_fills_up_stops_only_what_was_to_be_installed_and_is_named_with_the_fix() {
    // JAX takes 600 MB: on the first disk it is not begun, on the second it is and the packages turn out larger.
    for (megabytes, what) in [(1, "GB free, 0.6 GB needed"), (640, "could not install the packages of")] {
        let Some(output) = setup_on_a_disk_of(megabytes) else {
            eprintln!("skipped: this user may not mount a file system");
            return;
        };
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        let said = String::from_utf8_lossy(&said);
        let line = said.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{megabytes} MB: {said}"));
        assert!(line.contains("GB free") && line.contains("name another folder with --envs"), "{line}");
        assert!(said.lines().any(|line| line.contains("ready") && !line.contains("GB free")), "{said}");
        assert_ne!(output.status.code(), Some(0), "{said}");
    }
}
