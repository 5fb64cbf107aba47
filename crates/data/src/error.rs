//! Why a data set could not be had, in one line that names the file or key, what was found, what was expected and the
//! fix.

use std::path::Path;

use dpsgd_core::DatasetError;

/// A data set that can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// No data set has this name.
    #[error("data set `{name}`: must be one of {valid}{suggestion}")]
    Unknown {
        /// The name found.
        name: String,
        /// All names.
        valid: String,
        /// `; did you mean ...?`, or empty.
        suggestion: String,
    },
    /// Files that must be there are not.
    #[error("data set `{name}`: found none of {looked_at}: {fix}")]
    Missing {
        /// The data set.
        name: &'static str,
        /// The paths looked at, comma-separated.
        looked_at: String,
        /// What to do about it.
        fix: &'static str,
    },
    /// The operating system refused, or a compressed file is damaged.
    #[error("{path}: {reason}")]
    File {
        /// The file or folder.
        path: String,
        /// What went wrong.
        reason: String,
    },
    /// A file holds something else than it must.
    #[error("{path}: found {found}, expected {expected}: {fix}")]
    Content {
        /// The file, with its line where it has lines.
        path: String,
        /// What it holds.
        found: String,
        /// What it must hold.
        expected: String,
        /// What to do about it.
        fix: &'static str,
    },
    /// The data set can't serve this model, or not with these settings.
    #[error("data set `{name}`: {reason}")]
    Unsuitable {
        /// The data set.
        name: String,
        /// Both sides of the conflict, and the fix.
        reason: String,
    },
    /// What was loaded does not fit the model.
    #[error(transparent)]
    Mismatch(#[from] DatasetError),
}

impl DataError {
    pub(crate) fn file(path: &Path, error: std::io::Error) -> Self {
        DataError::File { path: path.display().to_string(), reason: error.to_string() }
    }
}
