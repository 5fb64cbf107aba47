//! Which Python a worker runs in: the user's own, given with `--python`, or an environment of ours, installed on first use.

use std::path::{Path, PathBuf};

use super::environment::{self, JAX, Spec, TF, TORCH};
use super::host::Host;
use super::python::Python;
use crate::registry::{Entry, Environment};

/// The environment of ours that stands behind one of the registry; `None` if that needs no Python.
pub fn spec(environment: Environment) -> Option<&'static Spec> {
    match environment {
        Environment::None | Environment::Libtorch => None,
        Environment::Torch => Some(&TORCH),
        Environment::Jax => Some(&JAX),
        Environment::Tf => Some(&TF),
    }
}

/// The interpreter for an environment of the registry, installed if need be; `None` if that needs no Python. The error is
/// one line that ends with the fix.
pub fn find_or_install(host: &Host, environment: Environment) -> Option<Result<PathBuf, String>> {
    let spec = spec(environment)?;
    Some(match &host.python {
        Some(own) => Ok(own.clone()),
        None if environment::is_current(host, spec) => Ok(spec.interpreter(host)),
        None => install(host, spec),
    })
}

fn install(host: &Host, spec: &Spec) -> Result<PathBuf, String> {
    let Some(python3) = host.which("python3") else {
        let (purpose, version) = (spec.purpose, spec.python_text());
        return Err(format!(
            "no python3 on PATH, which {purpose} needs: install python3 ({version}), or name an interpreter that has the \
             packages with --python"
        ));
    };
    environment::install(host, &Python::probe(host, &python3)?, spec)?;
    Ok(spec.interpreter(host))
}

/// Checks that the user's own interpreter has what the worker imports; the error names what it lacks and the fix. The
/// environments of ours have it by their locks.
pub fn check_modules(host: &Host, python: Option<&Path>, entry: &Entry) -> Result<(), String> {
    let (Some(python), Some(_)) = (python, &host.python) else { return Ok(()) };
    if entry.modules.is_empty() {
        return Ok(());
    }
    let missing = Python::missing_modules(host, python, &entry.modules)?;
    if missing.is_empty() {
        return Ok(());
    }
    let (shown, missing) = (python.display(), missing.join(", "));
    Err(format!(
        "{shown} has no {missing}, which {} imports: install it there, or leave out --python for an environment of ours",
        entry.name
    ))
}
