//! The folder that a run writes to, checked before anything slow begins; and the results file in it.

use std::io;
use std::path::{Path, PathBuf};

/// The results file within a run's folder.
pub const RESULTS_FILE: &str = "results.json";

/// The results file that `named` is, or holds if it is a folder.
pub fn results_file(named: &Path) -> PathBuf {
    if named.is_dir() { named.join(RESULTS_FILE) } else { named.to_path_buf() }
}

/// A folder that a run can't use. One line, with the fix.
#[derive(Debug, thiserror::Error)]
pub enum OutError {
    /// Nothing can be written there.
    #[error("{path}: can't write there: {reason}; choose another folder with --out")]
    Unwritable {
        /// The folder.
        path: PathBuf,
        /// What went wrong.
        reason: io::Error,
    },
    /// It holds the results of another run, which must not be overwritten.
    #[error("--out {0}: holds results already; add --resume to continue that run, or choose another folder")]
    Taken(PathBuf),
    /// There is nothing to continue.
    #[error("--out {0}: --resume continues a run, and there is no results.json; leave --resume out to begin one")]
    NothingToResume(PathBuf),
}

/// Checks that a run can write to `folder`, as [`check_writable`] does. With `resume` the folder must hold a results
/// file, without it must not.
pub fn check(folder: &Path, resume: bool) -> Result<(), OutError> {
    let taken = folder.join(RESULTS_FILE).exists();
    match (resume, taken) {
        (false, true) => return Err(OutError::Taken(folder.into())),
        (true, false) => return Err(OutError::NothingToResume(folder.into())),
        _ => {}
    }
    check_writable(folder)
}

/// Checks that files can be written to `folder`, without creating it: one is made and removed in the nearest folder that
/// exists.
pub fn check_writable(folder: &Path) -> Result<(), OutError> {
    let unwritable = |reason| OutError::Unwritable { path: folder.into(), reason };
    let absolute = std::path::absolute(folder).map_err(unwritable)?;
    let existing = absolute.ancestors().find(|ancestor| ancestor.symlink_metadata().is_ok()).unwrap_or(Path::new("/"));
    tempfile::tempfile_in(existing).map(drop).map_err(unwritable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_does_not_exist_yet_is_fine_and_is_not_created() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("a/b");
        check(&folder, false).unwrap();
        assert!(std::fs::read_dir(scratch.path()).unwrap().next().is_none());
    }

    #[test]
    fn a_folder_below_a_file_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("file"), "").unwrap();
        let error = check(&scratch.path().join("file/run"), false).unwrap_err();
        assert!(matches!(error, OutError::Unwritable { .. }), "{error}");
    }

    #[test]
    fn a_folder_with_results_needs_resume_and_resume_needs_results() {
        let scratch = tempfile::tempdir().unwrap();
        assert!(matches!(check(scratch.path(), true), Err(OutError::NothingToResume(_))));
        std::fs::write(scratch.path().join(RESULTS_FILE), "{}").unwrap();
        assert!(matches!(check(scratch.path(), false), Err(OutError::Taken(_))));
        check(scratch.path(), true).unwrap();
    }
}
