//! Provisioning with a python3 and a uv that are scripts: no network, nothing large.

use std::fs;
use std::process::Command;

use super::*;
use crate::checkout::Checkout;
use crate::registry::Registry;

/// Stands for any interpreter: answers the probe with the file `probe`, makes a virtual environment of itself, and
/// "installs" uv by copying.
pub(super) const PYTHON: &str = r#"#!/bin/sh
PATH=/usr/bin:/bin
echo "python $*" >> SCRATCH/log
case "$2" in
venv) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
pip) [ ! -e SCRATCH/no-pip ] && cp SCRATCH/uv.sh "$(dirname "$0")/uv" ;;
*) cat SCRATCH/probe ;;
esac
"#;

/// Makes an environment; installs into it what looks like torch, or stops half-way if there is a file `no-network`.
pub(super) const UV: &str = r#"#!/bin/sh
PATH=/usr/bin:/bin
echo "uv $*" >> SCRATCH/log
case "$1" in
venv)
    for folder; do :; done
    mkdir -p "$folder/bin" "$folder/lib/python3.11/site-packages"
    cp "$0" "$folder/bin/python" ;;
pip)
    torch="$(dirname "$(dirname "$6")")/lib/python3.11/site-packages/torch"
    mkdir -p "$torch/lib" "$torch/include/torch/csrc/api/include/torch"
    touch "$torch/lib/libtorch_cpu.so" "$torch/lib/libtorch_cpu.dylib"
    if [ -e SCRATCH/no-network ]; then exit 1; fi
    if grep -q '==0.0.0' "$8"; then echo "no solution: there is no version 0.0.0" >&2; exit 1; fi
    touch "$torch/include/torch/csrc/api/include/torch/torch.h"
    echo "__version__ = '2.11.0+cu130'" > "$torch/version.py" ;;
esac
"#;

const NOT_IN_PYTHON: &str = r#"{"executable": "SCRATCH/bin/python3", "version": [3, 11, 7], "torch": null}"#;

/// A checkout, a PATH and an `.envs` of a test's own.
pub(super) struct Scratch {
    folder: tempfile::TempDir,
}

impl Scratch {
    /// Neither python3 nor uv on PATH yet.
    pub(super) fn new() -> Self {
        let scratch = Scratch { folder: tempfile::tempdir().unwrap() };
        for folder in ["bin", "root/bench-configs", "root/peers/requirements"] {
            fs::create_dir_all(scratch.path(folder)).unwrap();
        }
        scratch.write("root/Cargo.toml", "");
        for (name, lock) in [("torch", "torch==2.11.0\n"), ("jax", "jax==0.10.2\n"), ("tf", "tensorflow==2.21.0\n")] {
            scratch.write(&format!("root/peers/requirements/{name}.lock"), lock);
        }
        scratch.write("probe", NOT_IN_PYTHON);
        scratch.script("uv.sh", UV);
        scratch
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        let text = text.replace("SCRATCH", self.folder.path().to_str().unwrap());
        fs::write(self.path(name), text).unwrap();
    }

    /// An executable. It is copied by another process: one that was open for writing here when another test forks could
    /// not be started.
    pub(super) fn script(&self, name: &str, text: &str) {
        self.write("script", text);
        let mut copy = Command::new("install");
        assert!(copy.args(["-m", "755"]).arg(self.path("script")).arg(self.path(name)).status().unwrap().success());
    }

    pub(super) fn host(&self) -> Host {
        Host {
            checkout: Checkout::around(&self.path("root")).unwrap(),
            envs: self.path("root/.envs"),
            search_path: self.path("bin").into(),
            user_libtorch: None,
            cargo: None,
            python: None,
            workers: None,
            // Whatever the disk of this machine has.
            free_gigabytes: |_| Some(100.0),
        }
    }

    /// The programs started since the last call.
    pub(super) fn log(&self) -> String {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        self.write("log", "");
        log
    }

    /// A folder that passes for libtorch of `version`.
    fn libtorch(&self, name: &str, version: &str) -> PathBuf {
        let headers = self.path(name).join("include/torch/csrc/api/include/torch");
        fs::create_dir_all(&headers).unwrap();
        fs::create_dir_all(self.path(name).join("lib")).unwrap();
        fs::write(headers.join("torch.h"), "").unwrap();
        for library in ["lib/libtorch_cpu.so", "lib/libtorch_cpu.dylib"] {
            fs::write(self.path(name).join(library), "").unwrap();
        }
        fs::write(self.path(name).join("build-version"), version).unwrap();
        self.path(name)
    }
}

#[test]
fn libtorch_is_installed_once_and_then_found_without_starting_a_program() {
    let scratch = Scratch::new();
    scratch.script("bin/python3", PYTHON);
    scratch.script("bin/uv", UV);
    let installed = libtorch::find_or_install(&scratch.host()).unwrap();
    assert_eq!(installed.path, scratch.path("root/.envs/libtorch"));
    assert_eq!(installed.origin, libtorch::Origin::Installed(scratch.path("root/.envs/torch")));
    assert!(installed.path.join("version.py").is_file());
    assert!(scratch.log().contains("-r SCRATCH".replace("SCRATCH", scratch.folder.path().to_str().unwrap()).as_str()));
    let found = libtorch::find_or_install(&scratch.host()).unwrap();
    assert!(matches!(found.origin, libtorch::Origin::Linked(_)), "{found}");
    assert_eq!(found.path, installed.path, "the value of LIBTORCH must not change between runs");
    assert_eq!(scratch.log(), "");
}

#[test]
fn an_installation_that_fails_half_way_is_reported_and_repaired_by_the_next() {
    let scratch = Scratch::new();
    scratch.script("bin/python3", PYTHON);
    scratch.script("bin/uv", UV);
    scratch.write("no-network", "");
    let error = libtorch::find_or_install(&scratch.host()).unwrap_err();
    assert!(error.contains("uv could not install the packages of") && error.contains("check the network"), "{error}");
    assert_eq!(error.lines().count(), 1);
    assert_eq!(libtorch::find(&scratch.host()), Ok(None), "half an environment must not pass for one");
    let leftover = scratch.path("root/.envs/torch/leftover");
    fs::write(&leftover, "").unwrap();
    fs::remove_file(scratch.path("no-network")).unwrap();
    let repaired = libtorch::find_or_install(&scratch.host()).unwrap();
    assert!(repaired.path.join("version.py").is_file());
    assert!(!leftover.exists(), "the unfinished environment must be made anew");
}

#[test]
fn a_changed_lock_makes_the_environment_anew() {
    let scratch = Scratch::new();
    scratch.script("bin/python3", PYTHON);
    scratch.script("bin/uv", UV);
    libtorch::find_or_install(&scratch.host()).unwrap();
    scratch.write("root/peers/requirements/torch.lock", "torch==2.11.0\nnumpy==2.4.6\n");
    assert_eq!(libtorch::find(&scratch.host()), Ok(None));
    let again = libtorch::find_or_install(&scratch.host()).unwrap();
    assert!(matches!(again.origin, libtorch::Origin::Installed(_)), "{again}");
}

#[test]
fn without_uv_one_is_installed_by_pip_and_kept() {
    let scratch = Scratch::new();
    scratch.script("bin/python3", PYTHON);
    libtorch::find_or_install(&scratch.host()).unwrap();
    assert!(scratch.log().contains("pip install --quiet --disable-pip-version-check uv=="));
    fs::remove_dir_all(scratch.path("root/.envs/torch")).unwrap();
    libtorch::find_or_install(&scratch.host()).unwrap();
    let log = scratch.log();
    assert!(log.contains("uv pip install") && !log.contains("pip install --quiet"), "{log}");
}

#[test]
fn pip_that_cannot_install_uv_is_reported_with_the_fix() {
    let scratch = Scratch::new();
    scratch.script("bin/python3", PYTHON);
    scratch.write("no-pip", "");
    let error = libtorch::find_or_install(&scratch.host()).unwrap_err();
    assert!(error.contains("could not install uv") && error.contains("install uv, or python3 with venv"), "{error}");
}

#[test]
fn no_python_is_reported_with_the_fix_and_nothing_is_created() {
    let scratch = Scratch::new();
    let error = libtorch::find_or_install(&scratch.host()).unwrap_err();
    assert!(error.contains("no python3 on PATH") && error.contains("install python3"), "{error}");
    assert!(!scratch.path("root/.envs").exists());
}

#[test]
fn a_python_that_the_lock_was_not_made_for_is_refused_with_its_version() {
    let scratch = Scratch::new();
    scratch.script("bin/python3", PYTHON);
    scratch.write("probe", &NOT_IN_PYTHON.replace("11, 7", "8, 10"));
    let error = libtorch::find_or_install(&scratch.host()).unwrap_err();
    assert!(error.contains("is Python 3.8.10, must be 3.11 to 3.14"), "{error}");
}

#[test]
fn a_python_that_does_not_work_is_reported_with_what_it_said() {
    let scratch = Scratch::new();
    scratch.script("bin/python3", "#!/bin/sh\necho 'no such version' >&2\nexit 1\n");
    let error = libtorch::find_or_install(&scratch.host()).unwrap_err();
    assert!(error.contains("python3 does not work: no such version"), "{error}");
}

#[test]
fn a_python_that_has_the_right_torch_is_used_as_it_is() {
    let scratch = Scratch::new();
    scratch.script("bin/python3", PYTHON);
    let torch = scratch.libtorch("site-packages/torch", "2.11.0+cpu\n");
    scratch.write("probe", &NOT_IN_PYTHON.replace("null", "\"SCRATCH/site-packages/torch\""));
    let found = libtorch::find_or_install(&scratch.host()).unwrap();
    assert_eq!(fs::read_link(&found.path).unwrap(), torch);
    assert!(!scratch.log().contains("uv"));
    // It is no longer right once it is upgraded.
    fs::write(torch.join("build-version"), "2.12.0").unwrap();
    assert_eq!(libtorch::find(&scratch.host()), Ok(None));
}

#[test]
fn a_libtorch_that_the_user_names_is_used_or_refused_but_never_replaced() {
    let scratch = Scratch::new();
    let with = |folder: PathBuf| Host { user_libtorch: Some(folder), ..scratch.host() };
    let right = scratch.libtorch("right", "2.11.0+cu129");
    assert_eq!(libtorch::find_or_install(&with(right.clone())).unwrap().path, right);
    let wrong = libtorch::find_or_install(&with(scratch.libtorch("wrong", "2.9.1"))).unwrap_err();
    assert!(wrong.contains("torch 2.9.1: must be 2.11.0") && wrong.contains("unset it"), "{wrong}");
    let empty = libtorch::find_or_install(&with(scratch.path("bin"))).unwrap_err();
    assert!(empty.contains("no lib/libtorch_cpu"), "{empty}");
}

#[test]
fn nothing_is_installed_beside_an_interpreter_that_the_user_names() {
    let scratch = Scratch::new();
    scratch.script("bin/own", PYTHON);
    scratch.script("bin/uv", UV);
    let host = Host { python: Some(scratch.path("bin/own")), ..scratch.host() };
    let error = libtorch::find_or_install(&host).unwrap_err();
    assert!(error.contains("has no torch 2.11.0") && error.contains("leave out --python"), "{error}");
    assert!(!scratch.log().contains("uv ") && !scratch.path("root/.envs/torch").exists());
}

#[test]
fn an_installation_that_cannot_fit_is_not_begun() {
    let scratch = Scratch::new();
    scratch.script("bin/python3", PYTHON);
    scratch.script("bin/uv", UV);
    let host = Host { free_gigabytes: |_| Some(1.14), ..scratch.host() };
    let error = libtorch::find_or_install(&host).unwrap_err();
    assert!(error.contains(".envs: 1.1 GB free, 5 GB needed") && error.contains("--envs"), "{error}");
    assert!(!scratch.log().contains("uv "));
}

#[test]
fn an_installation_that_filled_the_disk_says_so() {
    let scratch = Scratch::new();
    scratch.script("bin/python3", PYTHON);
    scratch.script("bin/uv", UV);
    scratch.write("no-network", "");
    let host =
        Host { free_gigabytes: |envs| Some(if envs.join("torch").exists() { 0.004 } else { 100.0 }), ..scratch.host() };
    let error = libtorch::find_or_install(&host).unwrap_err();
    assert!(error.contains(".envs has 0.00 GB free") && error.contains("--envs"), "{error}");
}

pub(super) fn registry(scratch: &Scratch, entries: &[(&str, &str)]) -> Registry {
    let entry = |(name, rest): &(&str, &str)| {
        format!("[[strategy]]\nname = \"{name}\"\ndescription = \"\"\nempty_batch = true\nnon_finite = true\n{rest}\n")
    };
    scratch.write("strategies.toml", &entries.iter().map(entry).collect::<String>());
    Registry::read(&scratch.path("strategies.toml")).unwrap()
}

#[test]
fn what_is_missing_for_one_strategy_does_not_stop_another() {
    let scratch = Scratch::new();
    scratch.script("bin/fake", "#!/bin/sh\n");
    let registry = registry(
        &scratch,
        &[
            ("torchy", "environment = \"libtorch\"\nbuild = { package = \"p\" }\nstart = [\"{workers}/p\"]"),
            ("crate", "build = { package = \"p\" }\nstart = [\"{workers}/p\"]"),
            ("script", "start = [\"{python}\", \"x.py\"]"),
            ("ready", "start = [\"SCRATCH/bin/fake\", \"{root}/x\", \"{peers}\"]\nenv = { A = \"b\" }"),
        ],
    );
    let toolbox = Toolbox::prepare(&scratch.host(), &registry.entries().iter().collect::<Vec<_>>());
    let reason = |name: &str| toolbox.launcher(name).unwrap_err().to_string();
    assert!(reason("torchy").contains("install python3"), "{}", reason("torchy"));
    assert!(reason("crate").contains("no cargo on PATH: install Rust"), "{}", reason("crate"));
    assert!(reason("script").contains("no python3 on PATH: install it"), "{}", reason("script"));
    let ready = toolbox.launcher("ready").unwrap();
    assert_eq!(ready.program, scratch.path("bin/fake"));
    assert_eq!(
        ready.args,
        [scratch.path("root/x").display().to_string(), scratch.path("root/peers").display().to_string()]
    );
    assert_eq!(ready.env, BTreeMap::from([("A".to_string(), "b".to_string())]));
}

#[test]
fn a_relative_program_is_beside_the_registry_and_a_bare_name_on_path() {
    let scratch = Scratch::new();
    scratch.script("bin/fake", "#!/bin/sh\n");
    std::fs::create_dir(scratch.path("own")).unwrap();
    scratch.script("own/worker", "#!/bin/sh\n");
    let start = |program: &str| format!("start = [\"{program}\", \"own/data\"]");
    let (beside, dotted, bare) = (start("own/worker"), start("./own/worker"), start("fake"));
    let (absent, unknown) = (start("own/nothing"), start("worker"));
    let registry = registry(
        &scratch,
        &[("beside", &beside), ("dotted", &dotted), ("bare", &bare), ("absent", &absent), ("unknown", &unknown)],
    );
    let toolbox = Toolbox::prepare(&scratch.host(), &registry.entries().iter().collect::<Vec<_>>());
    let launcher = |name: &str| toolbox.launcher(name).unwrap();
    assert_eq!(launcher("beside").program, scratch.path("own/worker"));
    assert_eq!(launcher("beside").args, ["own/data"]);
    assert_eq!(launcher("dotted").program, scratch.path("own/worker"));
    assert_eq!(launcher("bare").program, scratch.path("bin/fake"));
    let reason = |name: &str| toolbox.launcher(name).unwrap_err().to_string();
    let expected = format!("no worker {}", scratch.path("own/nothing").display());
    assert!(reason("absent").contains(&expected), "{}", reason("absent"));
    assert!(reason("unknown").contains("no program worker on PATH: install it"), "{}", reason("unknown"));
}

#[test]
fn prebuilt_workers_are_taken_as_they_are_and_shown_where_libtorch_is() {
    let scratch = Scratch::new();
    let torchy = "environment = \"libtorch\"\nbuild = { package = \"p\" }\nstart = [\"{workers}/p\"]";
    let registry = registry(&scratch, &[("torchy", torchy)]);
    let libtorch = scratch.libtorch("libtorch", "2.11.0");
    let host = Host { workers: Some(scratch.path("bin")), user_libtorch: Some(libtorch.clone()), ..scratch.host() };
    let wanted: Vec<&Entry> = registry.entries().iter().collect();
    let absent = Toolbox::prepare(&host, &wanted).launcher("torchy").unwrap_err().to_string();
    assert!(absent.contains("no worker") && absent.contains("cargo build --release -p p"), "{absent}");
    scratch.script("bin/p", "#!/bin/sh\n");
    let toolbox = Toolbox::prepare(&host, &wanted);
    let launcher = toolbox.launcher("torchy").unwrap();
    assert_eq!(launcher.program, scratch.path("bin/p"));
    assert_eq!(launcher.env["LD_LIBRARY_PATH"], libtorch.join("lib").display().to_string());
}

#[test]
fn workers_that_compile_kernels_are_shown_nvrtc_among_the_packages_of_python() {
    let scratch = Scratch::new();
    scratch.script("bin/p", "#!/bin/sh\n");
    let built = "build = { package = \"p\" }\nstart = [\"{workers}/p\"]";
    let on_cpu = format!("{built}\ndevices = [\"cpu\"]");
    let registry = registry(&scratch, &[("kernels", built), ("on-cpu", &on_cpu), ("script", "start = [\"./bin/p\"]")]);
    let wanted: Vec<&Entry> = registry.entries().iter().collect();
    let shown = |host: &Host, name: &str| {
        let toolbox = Toolbox::prepare(host, &wanted);
        let shown = toolbox.launcher(name).unwrap().env.get("LD_LIBRARY_PATH").cloned();
        // Behind what whoever runs the tests has there.
        shown.map(|shown| shown.rsplit(':').next().unwrap_or_default().to_string())
    };
    let host = Host { workers: Some(scratch.path("bin")), ..scratch.host() };
    assert_eq!(shown(&host, "kernels"), None);
    let library = |lib: &str| {
        std::fs::create_dir_all(scratch.path(lib)).unwrap();
        scratch.write(&format!("{lib}/libnvrtc.so.13"), "");
        Some(scratch.path(lib).display().to_string())
    };
    let own = library("root/.envs/torch/lib/python3.11/site-packages/nvidia/cu13/lib");
    assert_eq!(shown(&host, "kernels"), own);
    for name in ["on-cpu", "script"] {
        assert_eq!(shown(&host, name), None, "{name}");
    }
    // The interpreter that is named is the one that counts.
    let probe = r#"{"executable": "SCRATCH/bin/own", "version": [3, 11, 7], "torch": null, "nvidia": ["SCRATCH/none", "SCRATCH/own/nvidia"]}"#;
    scratch.write("probe", probe);
    scratch.script("bin/own", PYTHON);
    let host = Host { python: Some(scratch.path("bin/own")), ..host };
    assert_eq!(shown(&host, "kernels"), None);
    let named = library("own/nvidia/cuda_nvrtc/lib");
    assert_eq!(shown(&host, "kernels"), named);
}

#[test]
fn cargo_builds_all_packages_in_one_call_and_a_package_that_fails_is_named() {
    let scratch = Scratch::new();
    // Builds `good` and not `bad`, as `cargo build --keep-going` would.
    let cargo = r#"#!/bin/sh
echo "cargo $*" >> SCRATCH/log
echo "LIBTORCH=$LIBTORCH" >> SCRATCH/log
echo '{"reason":"compiler-artifact","target":{"name":"good"},"executable":"SCRATCH/bin/good","fresh":false}'
echo '{"reason":"build-finished","success":false}'
exit 101
"#;
    scratch.script("bin/cargo", cargo);
    scratch.script("bin/good", "#!/bin/sh\n");
    let build = |package: &str| {
        format!(
            "environment = \"libtorch\"\nbuild = {{ package = \"{package}\" }}\nstart = [\"{{workers}}/{package}\"]"
        )
    };
    let registry = registry(&scratch, &[("good", &build("good")), ("bad", &build("bad"))]);
    let libtorch = scratch.libtorch("libtorch", "2.11.0");
    let host = Host { cargo: Some(scratch.path("bin/cargo")), user_libtorch: Some(libtorch.clone()), ..scratch.host() };
    let toolbox = Toolbox::prepare(&host, &registry.entries().iter().collect::<Vec<_>>());
    assert_eq!(toolbox.launcher("good").unwrap().program, scratch.path("bin/good"));
    let reason = toolbox.launcher("bad").unwrap_err().to_string();
    assert!(reason.contains("bad did not build") && reason.contains("cargo build --release -p bad"), "{reason}");
    let log = scratch.log();
    assert_eq!(log.matches("cargo build --release").count(), 1, "{log}");
    assert!(log.contains("-p good -p bad") && log.contains(&format!("LIBTORCH={}", libtorch.display())), "{log}");
}
