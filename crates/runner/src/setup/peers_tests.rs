//! What Python contenders need, and what happens to their rows when it can't be had: no network, nothing large.

use super::tests::{PYTHON, Scratch, UV, registry};
use super::*;

const JAX: (&str, &str) =
    ("jax", "environment = \"jax\"\nstart = [\"{python}\", \"{peers}/x.py\"]\nmodules = [\"jax\"]");
const TF: (&str, &str) =
    ("tf", "environment = \"tf\"\nstart = [\"{python}\", \"{peers}/x.py\"]\nmodules = [\"tensorflow\"]");
const READY: (&str, &str) = ("ready", "start = [\"SCRATCH/bin/uv\"]");

/// python3 and uv are there.
fn scratch() -> Scratch {
    let scratch = Scratch::new();
    scratch.script("bin/python3", PYTHON);
    scratch.script("bin/uv", UV);
    scratch
}

fn prepare(scratch: &Scratch, host: &Host, entries: &[(&str, &str)]) -> Toolbox {
    Toolbox::prepare(host, &registry(scratch, entries).entries().iter().collect::<Vec<_>>())
}

fn reason(toolbox: &Toolbox, name: &str) -> String {
    let reason = toolbox.launcher(name).unwrap_err().to_string();
    assert_eq!(reason.lines().count(), 1, "{reason}");
    reason
}

#[test]
fn only_the_environments_of_the_chosen_contenders_are_installed_and_only_once() {
    let scratch = scratch();
    let toolbox = prepare(&scratch, &scratch.host(), &[JAX, READY]);
    let launcher = toolbox.launcher("jax").unwrap();
    assert_eq!(launcher.program, scratch.path("root/.envs/jax/bin/python"));
    assert_eq!(launcher.args, [scratch.path("root/peers/x.py").display().to_string()]);
    assert!(!scratch.path("root/.envs/tf").exists() && !scratch.path("root/.envs/torch").exists());
    assert!(scratch.log().contains("requirements/jax.lock"));
    prepare(&scratch, &scratch.host(), &[JAX]);
    assert_eq!(scratch.log(), "");
}

#[test]
fn without_python3_the_rows_that_need_it_are_unavailable_and_the_others_are_not() {
    let scratch = Scratch::new();
    scratch.script("bin/uv", UV);
    let toolbox = prepare(&scratch, &scratch.host(), &[JAX, READY]);
    let reason = reason(&toolbox, "jax");
    assert!(reason.contains("no python3 on PATH, which JAX needs: install python3 (3.11 to 3.14)"), "{reason}");
    assert!(toolbox.launcher("ready").is_ok());
}

#[test]
fn without_network_the_reason_is_the_network_and_the_next_run_repairs_the_environment() {
    let scratch = scratch();
    scratch.write("no-network", "");
    let toolbox = prepare(&scratch, &scratch.host(), &[JAX, READY]);
    let reason = reason(&toolbox, "jax");
    assert!(reason.contains("jax.lock") && reason.contains("check the network"), "{reason}");
    assert!(toolbox.launcher("ready").is_ok());
    assert!(scratch.path("root/.envs/jax/bin/python").exists(), "it was begun");
    std::fs::remove_file(scratch.path("no-network")).unwrap();
    assert!(prepare(&scratch, &scratch.host(), &[JAX]).launcher("jax").is_ok());
}

#[test]
fn an_environment_that_another_process_left_half_installed_is_made_anew() {
    let scratch = scratch();
    let leftover = scratch.path("root/.envs/jax/bin/leftover");
    std::fs::create_dir_all(leftover.parent().unwrap()).unwrap();
    std::fs::write(&leftover, "").unwrap();
    assert!(prepare(&scratch, &scratch.host(), &[JAX]).launcher("jax").is_ok());
    assert!(!leftover.exists());
}

#[test]
fn a_version_in_a_lock_that_does_not_exist_stops_only_that_environment() {
    let scratch = scratch();
    scratch.write("root/peers/requirements/jax.lock", "jax==0.0.0\n");
    let toolbox = prepare(&scratch, &scratch.host(), &[JAX, TF]);
    let reason = reason(&toolbox, "jax");
    assert!(reason.contains("uv could not install the packages of") && reason.contains("jax.lock"), "{reason}");
    assert!(toolbox.launcher("tf").is_ok());
    scratch.write("root/peers/requirements/jax.lock", "jax==0.10.2\n");
    assert!(prepare(&scratch, &scratch.host(), &[JAX]).launcher("jax").is_ok());
}

#[test]
fn a_python_too_new_for_one_lock_is_refused_for_that_one_only() {
    let scratch = scratch();
    scratch.write("probe", r#"{"executable": "SCRATCH/bin/python3", "version": [3, 14, 1], "torch": null}"#);
    let toolbox = prepare(&scratch, &scratch.host(), &[JAX, TF]);
    assert!(toolbox.launcher("jax").is_ok());
    let reason = reason(&toolbox, "tf");
    assert!(reason.contains("is Python 3.14.1, must be 3.11 to 3.12 for TensorFlow"), "{reason}");
}

#[test]
fn an_interpreter_of_the_user_s_is_used_as_it_is_if_it_has_the_modules() {
    let scratch = scratch();
    // Has jax and no tensorflow.
    let own = "#!/bin/sh\nshift 2\nfor name; do [ $name = jax ] || echo $name; done\n";
    scratch.script("bin/own", own);
    let host = Host { python: Some(scratch.path("bin/own")), ..scratch.host() };
    let toolbox = prepare(&scratch, &host, &[JAX, TF]);
    assert_eq!(toolbox.launcher("jax").unwrap().program, scratch.path("bin/own"));
    let reason = reason(&toolbox, "tf");
    assert!(reason.contains("own has no tensorflow, which tf imports: install it there"), "{reason}");
    assert!(!scratch.path("root/.envs").exists(), "nothing is installed beside it");
}
