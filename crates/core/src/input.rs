//! Reading what people write: one-line errors that name the file, the place and the nearest valid name.

use std::path::Path;

use serde::de::DeserializeOwned;

/// A file that can't be read or understood. One line: file, line, what is wrong and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{path}{place}: {reason}")]
pub struct InputError {
    /// The file.
    pub path: String,
    /// `:line`, or empty.
    pub place: String,
    /// What is wrong.
    pub reason: String,
}

/// Reads a TOML file into `T`. For an unknown key or name the error names the nearest valid one.
pub fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T, InputError> {
    let failed = |place: String, reason: String| InputError { path: path.display().to_string(), place, reason };
    let text = std::fs::read_to_string(path).map_err(|e| failed(String::new(), e.to_string()))?;
    parse_toml(&text).map_err(|(place, reason)| failed(place, reason))
}

/// As [`read_toml`], for text; the error is (place, reason).
pub(crate) fn parse_toml<T: DeserializeOwned>(text: &str) -> Result<T, (String, String)> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
        let place = line.map_or(String::new(), |line| format!(":{line}"));
        (place, with_suggestion(&error.message().replace('\n', " ")))
    })
}

/// Adds "did you mean" to what serde says ("unknown field `x`, expected one of `a`, `b`") and toml ("unexpected keys in
/// table: x, available keys: a, b").
pub(crate) fn with_suggestion(message: &str) -> String {
    let unknown = ["unknown field `", "unknown variant `"].iter().find_map(|start| message.find(start));
    let names: Vec<&str> = if let Some(begin) = unknown {
        message[begin..].split('`').skip(1).step_by(2).collect()
    } else if let Some((found, valid)) =
        message.strip_prefix("unexpected keys in table: ").and_then(|keys| keys.split_once(", available keys: "))
    {
        found.split(", ").take(1).chain(valid.split(", ")).collect()
    } else {
        Vec::new()
    };
    match names.split_first().and_then(|(found, valid)| nearest(found, valid.iter().copied())) {
        Some(name) => format!("{message}; did you mean `{name}`?"),
        None => message.to_string(),
    }
}

/// The valid name most like `found`, unless none is at all alike.
pub fn nearest<'a>(found: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    valid
        .into_iter()
        .map(|name| (strsim::jaro_winkler(found, name), name))
        .filter(|(likeness, _)| *likeness > 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;
